"""Compare sets of features by nearest neighbours: fidelity, diversity, and memorisation."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

BLOCK = 512  # rows of a block of distances
ROUNDING = 1e-12  # relative to |a|^2 + |b|^2: squared distances that differ by less count as equal


@dataclass(frozen=True)
class Neighbours:
    """Metrics from balls around N real images r and M generated images g in feature space.

    The radius of a ball is the distance to the k-th nearest image of the same set. A point on the border is inside.
    """

    precision: float
    """Share of g inside the ball of some r, k = 3 (Kynkaanniemi et al. 2019)."""
    recall: float
    """Share of r inside the ball of some g, k = 3."""
    density: float
    """Mean number of balls of r that contain a g, divided by k = 5; above 1 where g cluster (Naeem et al. 2020)."""
    coverage: float
    """Share of r whose ball contains a g, k = 5."""
    authenticity: float
    """Share of g farther from their nearest r than this r is from its own nearest neighbour (Alaa et al. 2022)."""
    nearest: np.ndarray
    """Index of the nearest r of each g, (M,)."""
    distance: np.ndarray
    """Distance of each g to its nearest r, (M,)."""


def compare(
    real: np.ndarray, generated: np.ndarray, *, k: int = 3, k_density: int = 5, progress: bool = True
) -> Neighbours:
    """Compare features (N, D) and (M, D), N and M above k_density, in float64 and in blocks: O(N + M) memory."""
    centre = real.mean(0, dtype=np.float64)  # a shift changes no distance, but reduces rounding
    real, generated = real - centre, generated - centre
    r, g = _Set(real), _Set(generated)
    steps = sum(-(-len(x) // BLOCK) for x in (real, real, generated))
    with tqdm(total=steps, desc="nearest neighbours", disable=None if progress else True) as bar:
        radius_authentic, radius_k, radius_density = r.radii((1, k, k_density), bar)
        (radius_g,) = g.radii((k,), bar)

        balls = torch.zeros(len(generated), dtype=torch.int64)  # number of balls of r that contain each g
        balls_density = torch.zeros(len(generated), dtype=torch.int64)
        recalled, covered = [], []
        nearest = torch.zeros(len(generated), dtype=torch.int64)
        distance = torch.full((len(generated),), torch.inf, dtype=torch.float64)
        for i in range(0, len(real), BLOCK):
            rows = slice(i, i + BLOCK)
            d = r.squared_distances(rows, g, 1 - ROUNDING)  # never above its true value, so that borders are inside
            balls += (d <= radius_k[rows, None]).sum(0)
            inside = d <= radius_density[rows, None]
            balls_density += inside.sum(0)
            covered.append(inside.any(1))
            recalled.append((d <= radius_g).any(1))
            least, where = d.min(0)
            nearest = torch.where(least < distance, where + i, nearest)
            distance = torch.minimum(least, distance)
            bar.update()
    nearest_r = nearest.numpy()
    return Neighbours(
        precision=(balls > 0).double().mean().item(),
        recall=torch.cat(recalled).double().mean().item(),
        density=balls_density.double().mean().item() / k_density,
        coverage=torch.cat(covered).double().mean().item(),
        authenticity=(distance > radius_authentic[nearest]).double().mean().item(),
        nearest=nearest_r,
        distance=np.linalg.norm(real[nearest_r] - generated, axis=1),
    )


class _Set:
    """Points (N, D) with their squared distances to other points as a matrix product."""

    def __init__(self, points: np.ndarray):
        self.points = torch.from_numpy(points)
        self.norms = (self.points**2).sum(1, keepdim=True)

    def squared_distances(self, rows: slice, others: "_Set", scale: float = 1.0) -> Tensor:
        """Return scale (|a|^2 + |b|^2) - 2 a b for the points a in `rows` and all points b of `others`."""
        d = torch.addmm(scale * others.norms.T, self.points[rows], others.points.T, alpha=-2)
        return d.add_(self.norms[rows], alpha=scale)

    def radii(self, ks: tuple[int, ...], bar: "tqdm[None]") -> tuple[Tensor, ...]:
        """Return, for each k, the squared distance (N,) of each point to its k-th nearest neighbour."""
        radii = []
        for i in range(0, len(self.points), BLOCK):
            d = self.squared_distances(slice(i, i + BLOCK), self)
            d.diagonal(i).fill_(-1)  # the point itself comes first
            radii.append(d.topk(max(ks) + 1, largest=False).values)
            bar.update()
        return tuple(torch.cat(radii)[:, k].contiguous() for k in ks)

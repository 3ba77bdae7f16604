"""What nearest neighbours tell: fidelity, variety, and whether a generator repeats its data."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

BLOCK = 512  # rows of a block of distances
ROUNDING = 1e-12  # of |a|^2 + |b|^2: squared distances nearer than this to each other count as equal


@dataclass(frozen=True)
class Neighbours:
    """Figures from balls around pictures, each with its k-th nearest of the same set on its border.

    Real pictures r, N of them; generated ones g, M of them. A point on the border is inside.
    """

    precision: float
    """Share of g in the ball of some r, k = 3 (Kynkaanniemi et al. 2019)."""
    recall: float
    """Share of r in the ball of some g, k = 3."""
    density: float
    """Number of balls of r, k = 5, that a g lies in, over k; mean; above 1 where g crowd (Naeem et al. 2020)."""
    coverage: float
    """Share of r that have a g in their ball, k = 5."""
    authenticity: float
    """Share of g that are farther from their nearest r than this r is from its nearest other (Alaa et al. 2022)."""
    nearest: np.ndarray
    """(M,) the nearest r of each g."""
    distance: np.ndarray
    """(M,) and how far away it is."""


def compare(
    real: np.ndarray, generated: np.ndarray, *, k: int = 3, k_density: int = 5, progress: bool = True
) -> Neighbours:
    """Compares features (N, D) and (M, D), more than k_density of each, in float64, in blocks: O(N + M) memory."""
    middle = real.mean(0, dtype=np.float64)  # distances do not change, their rounding becomes less
    real, generated = real - middle, generated - middle
    r, g = _Set(real), _Set(generated)
    steps = sum(-(-len(x) // BLOCK) for x in (real, real, generated))
    with tqdm(total=steps, desc="nearest neighbours", disable=None if progress else True) as bar:
        radius_authentic, radius_k, radius_density = r.radii((1, k, k_density), bar)
        (radius_g,) = g.radii((k,), bar)

        balls = torch.zeros(len(generated), dtype=torch.int64)  # of r, that a g lies in
        balls_density = torch.zeros(len(generated), dtype=torch.int64)
        recalled, covered = [], []
        nearest = torch.zeros(len(generated), dtype=torch.int64)
        distance = torch.full((len(generated),), torch.inf, dtype=torch.float64)
        for i in range(0, len(real), BLOCK):
            rows = slice(i, i + BLOCK)
            d = r.squared_distances(rows, g, 1 - ROUNDING)  # none above its true value, so that borders are inside
            balls += (d <= radius_k[rows, None]).sum(0)
            inside = d <= radius_density[rows, None]
            balls_density += inside.sum(0)
            covered.append(inside.any(1))
            recalled.append((d <= radius_g).any(1))
            least, where = d.min(0)
            nearest = torch.where(least < distance, where + i, nearest)
            distance = torch.minimum(least, distance)
            bar.update()
    found = nearest.numpy()
    return Neighbours(
        precision=(balls > 0).double().mean().item(),
        recall=torch.cat(recalled).double().mean().item(),
        density=balls_density.double().mean().item() / k_density,
        coverage=torch.cat(covered).double().mean().item(),
        authenticity=(distance > radius_authentic[nearest]).double().mean().item(),
        nearest=found,
        distance=np.linalg.norm(real[found] - generated, axis=1),
    )


class _Set:
    """Points (N, D), and their squared distances to others as one matrix product."""

    def __init__(self, points: np.ndarray):
        self.points = torch.from_numpy(points)
        self.norms = (self.points**2).sum(1, keepdim=True)

    def squared_distances(self, rows: slice, others: "_Set", scale: float = 1.0) -> Tensor:
        """scale (|a|^2 + |b|^2) - 2 a b for the points a in `rows` and all points b of `others`."""
        d = torch.addmm(scale * others.norms.T, self.points[rows], others.points.T, alpha=-2)
        return d.add_(self.norms[rows], alpha=scale)

    def radii(self, ks: tuple[int, ...], bar: "tqdm[None]") -> tuple[Tensor, ...]:
        """Squared distances (N,) of each point to its k-th nearest other, for each k."""
        radii = []
        for i in range(0, len(self.points), BLOCK):
            d = self.squared_distances(slice(i, i + BLOCK), self)
            d.diagonal(i).fill_(-1)  # itself comes first
            radii.append(d.topk(max(ks) + 1, largest=False).values)
            bar.update()
        return tuple(torch.cat(radii)[:, k].contiguous() for k in ks)

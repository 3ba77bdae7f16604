"""What nearest neighbours tell: fidelity, variety, and whether a generator repeats its data."""

from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

BLOCK = 512  # rows of a block of distances
ROUNDING = 1e-12  # of |a|^2 + |b|^2: squared distances nearer than this to each other are equal


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
    norms_r, norms_g = (real**2).sum(1), (generated**2).sum(1)
    steps = sum(-(-len(x) // BLOCK) for x in (real, real, generated))
    with tqdm(total=steps, desc="nearest neighbours", disable=None if progress else True) as bar:
        radii_r = _radii(real, norms_r, (1, k, k_density), bar)
        (radius_g,) = _radii(generated, norms_g, (k,), bar).T

        in_real = np.zeros(len(generated), np.int64)  # balls of r with radius k / k_density that a g lies in
        in_real_density = np.zeros(len(generated), np.int64)
        recalled = np.zeros(len(real), bool)
        covered = np.zeros(len(real), bool)
        nearest = np.zeros(len(generated), np.int64)
        distance = np.full(len(generated), np.inf)
        for i in range(0, len(real), BLOCK):
            rows = slice(i, i + BLOCK)
            d, slack = _squared_distances(real[rows], norms_r[rows], generated, norms_g)
            d -= slack
            in_real += (d <= radii_r[rows, 1:2]).sum(0)
            inside = d <= radii_r[rows, 2:3]
            in_real_density += inside.sum(0)
            covered[rows] = inside.any(1)
            recalled[rows] = (d <= radius_g).any(1)
            d += slack
            closer = d.min(0) < distance
            nearest[closer] = i + d.argmin(0)[closer]
            distance = np.minimum(distance, d.min(0))
            bar.update()
    return Neighbours(
        precision=float((in_real > 0).mean()),
        recall=float(recalled.mean()),
        density=float(in_real_density.mean() / k_density),
        coverage=float(covered.mean()),
        authenticity=float((distance > radii_r[nearest, 0]).mean()),
        nearest=nearest,
        distance=np.linalg.norm(real[nearest] - generated, axis=1),
    )


def _radii(x: np.ndarray, norms: np.ndarray, ks: tuple[int, ...], bar: "tqdm[None]") -> np.ndarray:
    """Squared distances (N, len(ks)) of each row to its k-th nearest other row."""
    radii = np.empty((len(x), len(ks)))
    for i in range(0, len(x), BLOCK):
        rows = slice(i, i + BLOCK)
        d, _ = _squared_distances(x[rows], norms[rows], x, norms)
        np.put_along_axis(d, np.arange(i, i + len(d))[:, None], -1, axis=1)  # itself comes first
        radii[rows] = np.partition(d, ks, axis=1)[:, ks]
        bar.update()
    return radii


def _squared_distances(
    a: np.ndarray, norms_a: np.ndarray, b: np.ndarray, norms_b: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """|a - b|^2 for rows of a (n, D) and b (m, D), as (n, m), and by how much rounding may have raised each."""
    norms = norms_a[:, None] + norms_b
    d = norms - 2 * (a @ b.T)
    norms *= ROUNDING
    d[d < norms] = 0
    return d, norms

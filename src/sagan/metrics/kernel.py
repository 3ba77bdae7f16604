"""Compute the kernel distance between two sets of features (Binkowski et al. 2018): KID in Inception features."""

import numpy as np


def kernel_distance(
    a: np.ndarray, b: np.ndarray, *, subsets: int = 100, size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Return mean and standard deviation of the unbiased squared MMD over random subsets of (N, D) and (M, D) features.

    The kernel is (x . y / D + 1)^3. A subset has `size` rows of each set, at most as many as the smaller set has.
    Computed in float64.
    """
    size = min(size, len(a), len(b))
    random = np.random.Generator(np.random.Philox(seed))
    values = []
    for _ in range(subsets if size < max(len(a), len(b)) else 1):
        x = a[random.choice(len(a), size, replace=False)].astype(np.float64)
        y = b[random.choice(len(b), size, replace=False)].astype(np.float64)
        values.append(_squared_mmd(x, y))
    return float(np.mean(values)), float(np.std(values))


def _squared_mmd(x: np.ndarray, y: np.ndarray) -> float:
    """Return the unbiased estimate for x and y (n, D): an image is not compared with itself."""
    n, d = x.shape
    k_xx, k_yy, k_xy = ((p @ q.T / d + 1) ** 3 for p, q in ((x, x), (y, y), (x, y)))
    within = (k_xx.sum() - k_xx.trace() + k_yy.sum() - k_yy.trace()) / (n * (n - 1))
    return float(within - 2 * k_xy.mean())

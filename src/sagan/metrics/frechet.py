"""Compute the Frechet distance between two sets of features, modelled as normal distributions (Heusel et al. 2017)."""

from collections.abc import Iterator

import numpy as np

BLOCK = 4096  # rows converted to float64 at a time
LEAST_PIVOT = 1e-4  # relative to the largest pivot: below it a Cholesky factor has lost half of its digits


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Compute |mean_a - mean_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^1/2) of features (N, D) and (M, D), in float64.

    tr (C_a C_b)^1/2 is the sum of the singular values of A B^T, where A^T A = C_a and B^T B = C_b, since
    C_a C_b = A^T A B^T B. Without a matrix square root, singular covariances (fewer images than dimensions) are as
    exact as others. N and M must be at least 2.
    """
    return frechet_distance_to_normal(a, *_mean_and_root(b))


def frechet_distance_to_normal(a: np.ndarray, mean_b: np.ndarray, root_b: np.ndarray) -> float:
    """Compute the Frechet distance of features (N, D) to a normal distribution.

    Args:
        a: features (N, D), N >= 2.
        mean_b: (D,).
        root_b: (n, D), where root_b^T root_b is the covariance.
    """
    mean_a, root_a = _mean_and_root(a)
    trace = (root_a**2).sum() + (root_b**2).sum() - 2 * np.linalg.norm(root_a @ root_b.T, "nuc")
    return float(((mean_a - mean_b) ** 2).sum() + trace)


def classwise_frechet_distance(a: np.ndarray, y_a: np.ndarray, b: np.ndarray, y_b: np.ndarray) -> dict[int, float]:
    """Compute the Frechet distance of each class with at least two images in both sets (intra-FID, paper Table 2)."""
    counts = [dict(zip(*np.unique(y, return_counts=True), strict=True)) for y in (y_a, y_b)]
    classes = sorted(int(y) for y in counts[0] if min(count.get(y, 0) for count in counts) > 1)
    return {y: frechet_distance(a[y_a == y], b[y_b == y]) for y in classes}


def _mean_and_root(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean (D,) and a root R of the covariance, R^T R = C, with at most D rows."""
    n, d = x.shape
    mean = x.mean(0, dtype=np.float64)

    def centred() -> Iterator[np.ndarray]:
        return ((x[i : i + BLOCK] - mean) / np.sqrt(n - 1) for i in range(0, n, BLOCK))

    if n <= d:
        return mean, np.concatenate(list(centred()))
    # Cholesky is four times as fast as QR, and as exact unless the covariance is nearly singular.
    try:
        factor = np.linalg.cholesky(sum(block.T @ block for block in centred()))
        if factor.diagonal().min() > LEAST_PIVOT * factor.diagonal().max():
            return mean, factor.T
    except np.linalg.LinAlgError:
        pass
    root: np.ndarray = np.empty((0, d))
    for block in centred():
        root = np.asarray(np.linalg.qr(np.concatenate([root, block]), mode="r"))
    return mean, root

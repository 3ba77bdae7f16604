"""The Frechet distance between two sets of features, each taken as a normal distribution (Heusel et al. 2017)."""

import numpy as np


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """|mean_a - mean_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^1/2) of features (N, D) and (M, D), in float64.

    tr (C_a C_b)^1/2 is the sum of the singular values of A B^T, where A and B are the centred features over
    sqrt(N - 1) and sqrt(M - 1), since C_a C_b = A^T A B^T B. No matrix square root is taken, so that
    singular covariances (fewer pictures than dimensions) are as exact as others.
    """
    (mean_a, root_a), (mean_b, root_b) = (_mean_and_root(x) for x in (a, b))
    trace = (root_a**2).sum() + (root_b**2).sum() - 2 * np.linalg.norm(root_a @ root_b.T, "nuc")
    return float(((mean_a - mean_b) ** 2).sum() + trace)


def _mean_and_root(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean (D,) and a root R of the covariance, R^T R = C, with at most D rows."""
    x = x.astype(np.float64)
    mean = x.mean(0)
    root = (x - mean) / np.sqrt(len(x) - 1)
    if len(root) > len(mean):
        root = np.linalg.qr(root, mode="r")
    return mean, root

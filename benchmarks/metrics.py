"""Measure the error of the metrics of `sagan evaluate` against independent float64 implementations.

    python benchmarks/metrics.py [--save metrics]

The error is |ours - definition| / |definition|, where the definition uses scipy's matrix square root, all pairs, or
brute force; if the definition gives 0, it is absolute. Inputs are random features and features of real images
(EfficientNet-Lite0, built-in robots), including ill-conditioned cases. For comparison, the table shows the errors of
scipy's sqrtm of the product and of torchmetrics, where they have the metric.
"""

import warnings
from collections.abc import Iterator

import mpmath as mp
import numpy as np
import torch
from scipy import linalg
from scipy.spatial.distance import cdist
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import poly_mmd

from machine import Table, argument_parser
from sagan import DataConfig
from sagan.data import prepare
from sagan.metrics.features import EfficientNetLite0
from sagan.metrics.frechet import frechet_distance
from sagan.metrics.kernel import kernel_distance
from sagan.metrics.neighbours import compare
from sagan.metrics.reference import choose, reference_features
from sagan.metrics.score import classifier_score

Array = np.ndarray


def cases() -> Iterator[tuple[str, Array, Array]]:
    rng = np.random.default_rng(0)
    yield "random, 2,000 and 1,500 in 256", rng.normal(size=(2000, 256)), rng.normal(0.1, 1.2, size=(1500, 256))
    store = prepare(DataConfig(source="robots"), resolution=32, image_channels=3)
    real = reference_features(store, choose(store, 2000), EfficientNetLite0(), label="robots").astype(np.float64)
    a, b = real[:1000], real[1000:]
    yield "robots, 1,000 and 1,000 in 1,280", a, b
    yield "the first 64 features of robots", a[:, :64], b[:, :64]
    yield "fewer than dimensions: 40 and 30 in 1,280", a[:40], b[:30]
    yield "a set against itself", a[:400], a[:400]
    yield "one repeated image", np.tile(a[:1], (400, 1)), b[:400]


def frechet(a: Array, b: Array) -> float:
    """Compute the distance by the symmetric form tr (A^1/2 B A^1/2)^1/2, with real, non-negative eigenvalues."""
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    values, vectors = linalg.eigh(cov_a)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    middle = linalg.eigvalsh(root @ cov_b @ root).clip(0)
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b) - 2 * np.sqrt(middle).sum())


def frechet_in_50_digits(a: Array, b: Array) -> float:
    """Compute the distance for fewer images than dimensions, where float64 has no good definition.

    tr (C_a C_b)^1/2 follows from the eigenvalues of A B^T B A^T, which are those of C_a C_b except for zeros.
    """
    mp.mp.dps = 50
    roots = []
    for x in (a, b):
        m = mp.matrix(x.tolist())
        means = [mp.fsum(m[:, j]) / m.rows for j in range(m.cols)]
        centred = mp.matrix([[m[i, j] - means[j] for j in range(m.cols)] for i in range(m.rows)])
        roots.append((means, centred / mp.sqrt(m.rows - 1)))
    (mean_a, root_a), (mean_b, root_b) = roots
    cross = root_a * root_b.T
    middle = mp.eigsy(cross.T * cross, eigvals_only=True)
    squares = mp.fsum(v**2 for root in (root_a, root_b) for v in root)
    means = mp.fsum((p - q) ** 2 for p, q in zip(mean_a, mean_b, strict=True))
    return float(means + squares - 2 * mp.fsum(mp.sqrt(max(v, 0)) for v in middle))


def frechet_by_sqrtm(a: Array, b: Array) -> float:
    """Compute the distance as the first implementations do."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root = linalg.sqrtm(np.cov(a.T) @ np.cov(b.T))
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root.real))


def frechet_by_torchmetrics(a: Array, b: Array) -> float:
    moments = [torch.from_numpy(m) for x in (a, b) for m in (x.mean(0), np.cov(x.T))]
    return float(_compute_fid(*moments))


def mmd(a: Array, b: Array) -> float:
    n = min(len(a), len(b))
    x, y = a[:n], b[:n]
    d = x.shape[1]
    kernel = lambda p, q: np.array([[(np.dot(u, v) / d + 1) ** 3 for v in q] for u in p])  # noqa: E731
    xx, yy, xy = kernel(x, x), kernel(y, y), kernel(x, y)
    off = ~np.eye(n, dtype=bool)
    return float(xx[off].mean() + yy[off].mean() - 2 * xy.mean())


def mmd_by_torchmetrics(a: Array, b: Array) -> float:
    n = min(len(a), len(b))
    return float(poly_mmd(torch.from_numpy(a[:n]), torch.from_numpy(b[:n])))


def score(p: Array) -> float:
    return float(np.exp(np.mean([(row * np.log(row / p.mean(0))).sum() for row in p])))


def brute_force(real: Array, generated: Array) -> dict[str, float]:
    d, within_r, within_g = cdist(real, generated), cdist(real, real), cdist(generated, generated)
    radius = lambda within, k: np.sort(within, axis=1)[:, k][:, None]  # noqa: E731 - the 0th is itself
    return {
        "precision": (d <= radius(within_r, 3)).any(0).mean(),
        "recall": (radius(within_g, 3) >= d.T).any(0).mean(),
        "density": (d <= radius(within_r, 5)).sum() / (5 * len(generated)),
        "coverage": (d <= radius(within_r, 5)).any(1).mean(),
        "authenticity": (d.min(0) > radius(within_r, 1)[d.argmin(0), 0]).mean(),
    }


def difference(ours: float, wanted: float) -> str:
    return f"{abs(ours - wanted) / abs(wanted):.0e}" if abs(wanted) > 1e-3 else f"{abs(ours - wanted):.0e} (absolute)"


def one_subset(a: Array, b: Array) -> float:
    n = min(len(a), len(b))
    return kernel_distance(a[:n], b[:n])[0]


def main() -> None:
    options = argument_parser(__doc__, save=True).parse_args()
    columns = ("features", "metric", "definition", "ours", "scipy's sqrtm of the product", "torchmetrics")
    table = Table("Errors of metrics against their definitions", columns, save=options.save)
    for name, a, b in cases():
        same, few = a is b or np.array_equal(a, b), len(a) < 50
        wanted = 0.0 if same else frechet_in_50_digits(a, b) if few else frechet(a, b)
        values = [frechet_distance(a, b), frechet_by_sqrtm(a, b), frechet_by_torchmetrics(a, b)]
        table.row(name, "Frechet distance", f"{wanted:.6f}", *(difference(value, wanted) for value in values))
        small_a, small_b = a[:400], b[:400]
        wanted = mmd(small_a, small_b)
        ours, theirs = (difference(kernel(small_a, small_b), wanted) for kernel in (one_subset, mmd_by_torchmetrics))
        table.row(name, "kernel distance", f"{wanted:.6f}", ours, "", theirs)
        neighbours = compare(b, a, progress=False)
        for metric, value in brute_force(b, a).items():
            table.row(name, metric, f"{value:.6f}", difference(getattr(neighbours, metric), value))
    p = np.random.default_rng(0).dirichlet(np.full(1000, 0.01), 5000).clip(1e-300)
    error = difference(classifier_score(p, splits=1)[0], score(p))
    table.row("random, 5,000 of 1,000 classes", "classifier score", f"{score(p):.6f}", error)


if __name__ == "__main__":
    main()

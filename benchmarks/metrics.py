"""How exact are the figures of `sagan evaluate`? Each against an independent float64 implementation.

    python benchmarks/metrics.py

Ours against the definition (scipy's matrix square root, all pairs, brute force), |ours - definition| / |definition|, on
random features and on features of real pictures (EfficientNet-Lite0, of the built-in robots), ill-conditioned cases
among them; torchmetrics beside it where it has the figure. Where the definition gives 0, differences are absolute.
"""

import warnings
from collections.abc import Callable, Iterator

import mpmath as mp
import numpy as np
import torch
from scipy import linalg
from scipy.spatial.distance import cdist
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import poly_mmd

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
    yield "one repeated picture", np.tile(a[:1], (400, 1)), b[:400]


def frechet(a: Array, b: Array) -> float:
    """By the symmetric form tr (A^1/2 B A^1/2)^1/2, whose eigenvalues cannot be negative or complex."""
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    values, vectors = linalg.eigh(cov_a)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    middle = linalg.eigvalsh(root @ cov_b @ root).clip(0)
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b) - 2 * np.sqrt(middle).sum())


def frechet_in_50_digits(a: Array, b: Array) -> float:
    """For fewer pictures than dimensions, where float64 has no good definition: tr (C_a C_b)^1/2 from the eigenvalues
    of A B^T B A^T, which are those of C_a C_b but for zeros."""
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
    """As the first implementations do it."""
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


def main() -> None:
    one: Callable[[Array, Array], float] = lambda a, b: kernel_distance(*(x[: min(len(a), len(b))] for x in (a, b)))[0]  # noqa: E731
    for name, a, b in cases():
        print(f"\n{name}")
        same, few = a is b or np.array_equal(a, b), len(a) < 50
        wanted = 0.0 if same else frechet_in_50_digits(a, b) if few else frechet(a, b)
        print(f"  Frechet distance     {wanted:12.6f}  ours {difference(frechet_distance(a, b), wanted)}", end="")
        print(f", scipy's sqrtm of the product {difference(frechet_by_sqrtm(a, b), wanted)}", end="")
        print(f", torchmetrics {difference(frechet_by_torchmetrics(a, b), wanted)}")
        small_a, small_b = a[:400], b[:400]
        wanted = mmd(small_a, small_b)
        print(f"  kernel distance      {wanted:12.6f}  ours {difference(one(small_a, small_b), wanted)}", end="")
        print(f", torchmetrics {difference(mmd_by_torchmetrics(small_a, small_b), wanted)}")
        found = compare(b, a, progress=False)
        for figure, value in brute_force(b, a).items():
            print(f"  {figure:<19}  {value:12.6f}  ours {difference(getattr(found, figure), value)}")
    p = np.random.default_rng(0).dirichlet(np.full(1000, 0.01), 5000).clip(1e-300)
    print(f"\nclassifier score       {score(p):12.6f}  ours {difference(classifier_score(p, splits=1)[0], score(p))}")


if __name__ == "__main__":
    main()

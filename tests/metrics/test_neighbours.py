import numpy as np
import pytest

from sagan.metrics.neighbours import compare


def definition(real, generated, k, k_density):
    """By the papers' formulas, distances one by one."""

    def distances(a, b):
        return np.sqrt(((a[:, None].astype(np.float64) - b[None]) ** 2).sum(-1))

    def radius(x, k):
        return np.array([np.sort(np.delete(row, i))[k - 1] for i, row in enumerate(distances(x, x))])

    d = distances(real, generated)
    inside, inside_density = d <= radius(real, k)[:, None], d <= radius(real, k_density)[:, None]
    nearest = d.argmin(0)
    return {
        "precision": inside.any(0).mean(),
        "recall": (d <= radius(generated, k)[None]).any(1).mean(),
        "density": inside_density.sum() / (k_density * len(generated)),
        "coverage": inside_density.any(1).mean(),
        "authenticity": (d.min(0) > radius(real, 1)[nearest]).mean(),
        "distance": d.min(0),
    }


def sets():
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 5, size=(4, 16))
    clusters = centres[rng.integers(4, size=150)] + rng.normal(0, 0.3, size=(150, 16))
    yield "random", rng.normal(size=(120, 16)), rng.normal(0.2, 0.9, size=(90, 16))
    yield "clusters", clusters, clusters[rng.permutation(150)[:80]] + rng.normal(0, 0.2, size=(80, 16))
    yield "far from 0", 1e3 + rng.normal(size=(60, 8)), 1e3 + rng.normal(size=(60, 8))
    yield "identical", clusters[:70], clusters[:70]
    yield "one repeated image", clusters[:70], np.tile(clusters[3:4], (40, 1))
    yield "both one repeated image", np.ones((20, 5)), np.ones((30, 5))
    yield "float32, each twice", np.tile(rng.normal(size=(40, 8)), (2, 1)).astype(np.float32), rng.normal(size=(50, 8))


@pytest.mark.parametrize("block", [16, 512])
@pytest.mark.parametrize(("real", "generated"), [pytest.param(a, b, id=name) for name, a, b in sets()])
def test_against_brute_force(monkeypatch, real, generated, block):
    monkeypatch.setattr("sagan.metrics.neighbours.BLOCK", block)
    found = compare(real, generated, progress=False)
    wanted = definition(real, generated, 3, 5)
    distance = wanted.pop("distance")
    assert {name: getattr(found, name) for name in wanted} == pytest.approx(wanted, rel=1e-12)
    assert found.distance == pytest.approx(distance, rel=1e-9, abs=1e-12)
    assert np.linalg.norm(real[found.nearest] - generated, axis=1) == pytest.approx(distance, rel=1e-9, abs=1e-12)


def test_copies_are_not_authentic_and_new_images_are():
    rng = np.random.default_rng(0)
    real = rng.normal(size=(100, 8))
    assert compare(real, real[:40], progress=False).authenticity == 0
    assert compare(real, real[:40] + 3, progress=False).authenticity == 1

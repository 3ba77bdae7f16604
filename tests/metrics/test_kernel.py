import numpy as np
import pytest

from sagan.metrics.kernel import kernel_distance


def definition(x, y):
    """The unbiased squared MMD, pair by pair."""

    def k(p, q):
        return (float(p @ q) / len(p) + 1) ** 3

    n, m = len(x), len(y)
    within_x = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    within_y = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return within_x + within_y - 2 * sum(k(p, q) for p in x for q in y) / (n * m)


def test_against_the_definition():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 12)), rng.normal(0.3, 1.1, size=(40, 12))
    assert kernel_distance(x, y) == (pytest.approx(definition(x, y), rel=1e-10), 0)


def test_one_repeated_image():
    x, y = np.tile(np.arange(5.0), (30, 1)), np.random.default_rng(0).normal(size=(30, 5))
    assert kernel_distance(x, y)[0] == pytest.approx(definition(x, y), rel=1e-10)
    assert kernel_distance(x, x)[0] == pytest.approx(0, abs=1e-9)


def test_subsets_estimate_the_same_and_depend_on_the_seed_only():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(400, 8)), rng.normal(0.5, 1, size=(300, 8))
    mean, spread = kernel_distance(x, y, subsets=200, size=50)
    whole, _ = kernel_distance(x[:300], y)
    assert mean == pytest.approx(whole, abs=4 * spread / 200**0.5 + 0.02)
    assert spread > 0
    assert kernel_distance(x, y, subsets=5, size=50, seed=3) == kernel_distance(x, y, subsets=5, size=50, seed=3)
    assert kernel_distance(x, y, subsets=5, size=50, seed=3) != kernel_distance(x, y, subsets=5, size=50, seed=4)


def test_zero_on_average_for_two_draws_from_one_distribution():
    rng = np.random.default_rng(0)
    values = [kernel_distance(rng.normal(size=(60, 6)), rng.normal(size=(60, 6)))[0] for _ in range(60)]
    assert abs(np.mean(values)) < 3 * np.std(values) / 60**0.5

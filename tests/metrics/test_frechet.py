import numpy as np
import pytest
from scipy import linalg

from sagan.metrics.frechet import frechet_distance


def definition(a, b):
    """The distance with scipy's matrix square root."""
    root = linalg.sqrtm(np.cov(a.T) @ np.cov(b.T))
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root.real)


@pytest.mark.parametrize(("n", "m", "d"), [(200, 300, 12), (500, 100, 40), (60, 60, 50)])
def test_against_the_matrix_square_root(n, m, d):
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(d, d))
    a, b = rng.normal(size=(n, d)) @ mix, rng.normal(0.3, 1.2, size=(m, d)) @ mix
    assert frechet_distance(a, b) == pytest.approx(definition(a, b), rel=1e-9)


def test_fewer_pictures_than_dimensions():
    """Rotated so that only the first coordinates vary, the distance is that of those coordinates."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(40, 15)), rng.normal(1, 2, size=(30, 15))
    rotation = np.linalg.qr(rng.normal(size=(400, 400)))[0][:15]
    assert frechet_distance(a @ rotation, b @ rotation) == pytest.approx(definition(a, b), rel=1e-9)


def test_zero_for_a_set_against_itself_and_symmetric():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(50, 80)), rng.normal(size=(70, 80))
    assert abs(frechet_distance(a, a)) < 1e-9
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-12)


def test_known_normals():
    """Between N(0, 1) and N(3, 4) in one dimension: 3^2 + (1 - 2)^2."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=(400_000, 1))
    assert frechet_distance(a, 3 + 2 * a) == pytest.approx(10, rel=0.02)

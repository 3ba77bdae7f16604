import numpy as np
import pytest
from scipy import linalg

from sagan.metrics.frechet import classwise_frechet_distance, frechet_distance


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


def test_fewer_images_than_dimensions():
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


def spectrum(n, d, condition, seed=0):
    """Features whose covariance has the given condition number."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) * np.geomspace(1, condition**-0.5, d) @ np.linalg.qr(rng.normal(size=(d, d)))[0]


@pytest.mark.parametrize("condition", [1e2, 1e6, 1e12])
@pytest.mark.parametrize("block", [64, 4096])
def test_well_and_ill_conditioned_covariances_against_the_definition(monkeypatch, condition, block):
    """The definition by the symmetric form, whose square roots are of symmetric matrices: scipy's sqrtm of a product
    that is nearly singular has an error of its own."""
    monkeypatch.setattr("sagan.metrics.frechet.BLOCK", block)
    a, b = spectrum(500, 30, condition), spectrum(700, 30, condition, 1) + 0.1
    root = linalg.sqrtm(np.cov(a.T))
    middle = linalg.eigvalsh(root @ np.cov(b.T) @ root).clip(0)
    wanted = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a.T) + np.cov(b.T)) - 2 * np.sqrt(middle).sum()
    assert frechet_distance(a, b) == pytest.approx(wanted, rel=1e-6)


def test_features_that_never_vary_and_one_repeated_image():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(300, 8)), rng.normal(1, 2, size=(300, 8))
    wide_a, wide_b = (np.concatenate([x, np.full((300, 4), 7.0)], 1) for x in (a, b))
    assert frechet_distance(wide_a, wide_b) == pytest.approx(frechet_distance(a, b), rel=1e-9)
    repeated = np.tile(a[:1], (300, 1))
    wanted = ((a[0] - b.mean(0)) ** 2).sum() + np.trace(np.cov(b.T))
    assert frechet_distance(repeated, b) == pytest.approx(wanted, rel=1e-9)
    assert frechet_distance(repeated, repeated) == pytest.approx(0, abs=1e-9)


def test_by_class_is_that_of_each_class():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(90, 6)), rng.normal(size=(80, 6))
    y_a, y_b = np.repeat([0, 1, 2], 30), np.array([0] * 40 + [2] * 39 + [3])
    by_class = classwise_frechet_distance(a, y_a, b, y_b)
    assert sorted(by_class) == [0, 2]
    assert by_class[2] == pytest.approx(definition(a[60:], b[40:79]), rel=1e-9)

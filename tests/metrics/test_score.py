import math

import numpy as np
import pytest

from sagan.metrics.score import classifier_score


def definition(p):
    """exp of the mean Kullback-Leibler divergence of p(y|x) from p(y), term by term."""
    marginal = [sum(row[k] for row in p) / len(p) for k in range(len(p[0]))]
    divergences = [sum(q * math.log(q / m) for q, m in zip(row, marginal, strict=True) if q > 0) for row in p]
    return math.exp(sum(divergences) / len(p))


def test_against_the_definition():
    p = np.random.default_rng(0).dirichlet(np.ones(7), 50)
    mean, spread = classifier_score(p, splits=5)
    parts = [definition(part.tolist()) for part in np.split(p, 5)]
    assert mean == pytest.approx(np.mean(parts), rel=1e-12)
    assert spread == pytest.approx(np.std(parts), rel=1e-9)


def test_bounds():
    certain = np.eye(8)[np.arange(80) % 8]
    assert classifier_score(certain, splits=10) == (pytest.approx(8), pytest.approx(0, abs=1e-12))
    assert classifier_score(np.tile([[0.2, 0.8]], (20, 1)))[0] == pytest.approx(1)
    assert classifier_score(np.tile([[0.0, 1.0]], (20, 1)))[0] == pytest.approx(1)


def test_fewer_images_than_splits():
    p = np.random.default_rng(0).dirichlet(np.ones(3), 4)
    assert classifier_score(p, splits=10)[0] == pytest.approx(1)  # each alone is its own marginal

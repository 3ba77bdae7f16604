import re

import pytest

from sagan.training.diagnostics import find_problems


def evaluations(*values, key="fid", diversity=None):
    return [{"step": 100 * (i + 1), key: v, "diversity": diversity or 1.0} for i, v in enumerate(values)]


@pytest.mark.parametrize("key", ["fid", "frechet_distance/EfficientNet-Lite0"])
def test_a_distance_that_keeps_rising(key):
    problems = find_problems(evaluations(90, 50, 60, 70, 80, key=key), 2)
    assert list(problems) == ["worse"]
    assert re.search(rf"{key}\b.*\b3\b.*\b80\b.*\b50\b.*\bstep 200\b", problems["worse"])


@pytest.mark.parametrize(
    "values", [(90, 50, 60, 70), (90, 80, 70, 60, 50), (50, 60, 70, 65), (50, 51, 52, 53), (50, 60, 60, 60)]
)
def test_a_distance_that_does_not(values):
    assert find_problems(evaluations(*values), 2) == {}


def losses(*values):
    return [{"step": 10 * (i + 1), "loss/discriminator": v} for i, v in enumerate(values)]


def test_a_discriminator_that_knows_everything():
    problems = find_problems(losses(1.9, *[0.05] * 10), 2)
    assert list(problems) == ["saturated"]
    assert re.search(r"\bstep 20\b", problems["saturated"])


@pytest.mark.parametrize("values", [[0.05] * 9, [0.05] * 9 + [0.3], [0.05] * 10 + [1.0]])
def test_a_discriminator_that_does_not(values):
    assert find_problems(losses(*values), 2) == {}


def test_a_wasserstein_loss_has_no_floor():
    assert find_problems(losses(*[-5.0] * 20), 0) == {}


def test_samples_that_grow_alike():
    rows = [*evaluations(90, diversity=0.8), *evaluations(91, diversity=0.3)]
    problems = find_problems(rows, 2)
    assert list(problems) == ["collapsed"]
    assert re.search(r"diversity\b.*\b0\.30\b.*\bstep 100\b.*\b0\.80\b", problems["collapsed"])
    assert find_problems([*evaluations(90, diversity=0.8), *evaluations(91, diversity=0.6)], 2) == {}


def test_nothing_logged():
    assert find_problems([], 2) == {}

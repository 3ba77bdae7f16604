"""Outcomes and differences that a study computes from its runs."""

import json
from dataclasses import replace

import numpy as np
import pytest

from sagan.presets import PRESETS
from sagan.study.plan import Plan, StudyFolder
from sagan.study.results import compared_metrics, find_differences, gather, main_metric


@pytest.fixture
def folder(tmp_path):
    base = replace(PRESETS["demo"], model=replace(PRESETS["demo"].model, num_classes=2))
    plan = Plan("attention", base, (0, 1, 2), ("none", "self-16"), 8, "auto", "", ("a", "b"), "key")
    return StudyFolder.create(tmp_path / "study", plan)


def measure(folder, values):
    """Write evaluations as `sagan evaluate` does, with these distances by variant."""
    for job in folder.jobs():
        job.path.parent.mkdir(parents=True, exist_ok=True)
        metrics = [{"name": "Frechet distance", "value": values[job.variant.name][job.seed]}]
        job.evaluation_path.write_text(json.dumps({"figures": metrics, "features": {"network": "test"}}))


def test_a_difference_is_that_within_pairs(folder):
    """Seeds that differ by far more than the variants do not hide a difference."""
    measure(folder, {"self-16": [11, 52, 90], "none": [12, 54, 93]})
    (difference,) = find_differences(folder.plan, gather(folder), "Frechet distance")
    assert difference.differences == (-1, -2, -3)
    # A standard error of sqrt(1 / 3), and 4.303 is Student's t of 2 degrees of freedom.
    half = 4.302653 * np.sqrt(1 / 3)
    mean = difference.mean
    assert (mean.value, mean.low, mean.high) == pytest.approx((-2, -2 - half, -2 + half), abs=1e-5)
    assert not difference.is_larger_than_spread
    assert (difference.first.name, difference.second.name) == ("self-16", "none")
    assert difference.base == 53
    assert difference.spread.value == 1
    # 10 % of 53 is 5.3 standard deviations; of those at the upper end, which is 6.285, it is 0.843 of one.
    assert difference.pairs_needed(0.1) == (3, 14)


def test_a_difference_larger_than_its_spread(folder):
    measure(folder, {"self-16": [11, 52, 90], "none": [21, 62, 101]})
    (difference,) = find_differences(folder.plan, gather(folder), "Frechet distance")
    assert difference.is_larger_than_spread


def test_runs_without_a_partner_do_not_count(folder):
    measure(folder, {"self-16": [1, 2, 3], "none": [4, 6, 900]})
    jobs = {(job.variant.name, job.seed): job for job in folder.jobs()}
    jobs["self-16", 2].evaluation_path.unlink()
    (difference,) = find_differences(folder.plan, gather(folder), "Frechet distance")
    assert difference.differences == (-3, -4)
    assert difference.base == 5
    jobs["none", 1].evaluation_path.unlink()
    assert find_differences(folder.plan, gather(folder), "Frechet distance") == []


def test_metrics_that_a_report_compares_begin_with_the_distance(folder):
    names = [
        "recall",
        "patch correlation error, far",
        "Frechet distance",
        "twin distance",
        "peaks on the twin, generator",
    ]
    for job in folder.jobs():
        job.path.parent.mkdir(parents=True, exist_ok=True)
        metrics = [{"name": name, "value": 1} for name in names]
        job.evaluation_path.write_text(json.dumps({"figures": metrics, "features": {"network": "test"}}))
    expected = ["Frechet distance", "patch correlation error, far", "twin distance"]
    assert compared_metrics(gather(folder)) == expected


def test_gammas_are_those_of_the_last_line_that_has_them(folder):
    jobs = [job for job in folder.jobs() if job.variant.name == "self-16"]
    for job in jobs[:2]:
        start = {"step": 10, "gamma/generator.16.0": 9.0, "gamma/discriminator.16.0": 9.0}
        end = {
            "step": 20,
            "gamma/generator.16.0": 0.2 * job.seed,
            "gamma/generator.16.1": 0.4,
            "gamma/discriminator.16.0": -1,
        }
        text = "".join(json.dumps(row) + "\n" for row in (start, end, {"step": 20, "frechet_distance/test": 7.0}))
        folder.start(job).metrics_path.write_text(text)
    none, attention = gather(folder)
    assert none.gammas == {}
    assert attention.gammas == {"generator": pytest.approx([0.2, 0.3]), "discriminator": [1, 1]}


def test_outcomes_from_logs(folder):
    job = folder.jobs()[0]
    folder.start(job)
    rows = [
        {"step": 10, "images_per_second": 100.0},
        {"step": 20, "images_per_second": 50.0, "frechet_distance/test": 7.0},
        {"step": 30, "frechet_distance/test": 9.0},
    ]
    (job.path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    outcome = gather(folder)[0]
    assert (outcome.best, outcome.last) == ([7.0], [9.0])
    assert outcome.seconds == pytest.approx(10 * 16 / 100 + 10 * 16 / 50)
    assert outcome.images_per_second == 75
    assert main_metric([outcome]) is None
    assert job.steps_done() == 30

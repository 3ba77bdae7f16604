"""A study's figures: samples of the generators that it measured, and curves of what was measured on the way."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats

from helpers.runs import NAMES, make_run
from sagan import draw_latents, load, sample
from sagan.figures.grid import draw_grid
from sagan.presets import PRESETS
from sagan.study.figures import COLUMNS, draw_outcomes, draw_samples
from sagan.study.plan import Plan, StudyFolder
from sagan.study.results import gather


def test_samples_are_drawn_as_sagan_sample_draws_them(tmp_path):
    """In evaluation mode: batch norms use their running statistics, not those of the figure's row."""
    path = make_run(tmp_path / "run").path
    outcome = SimpleNamespace(jobs=[SimpleNamespace(path=path)], variant=SimpleNamespace(title="with attention"))
    generator = load(path)
    y = torch.arange(COLUMNS) * len(NAMES) // COLUMNS
    images = sample(generator, draw_latents(COLUMNS, generator.config.latent_dim, seed=0), y)
    assert images.std() > 10  # images that differ, so that equality says something
    expected = draw_grid(images, columns=COLUMNS, row_labels=["with attention"])
    assert np.array_equal(draw_samples([outcome]), expected)


@pytest.fixture
def folder(tmp_path):
    """Three variants with two seeds, four evaluations each; one run has reached two, and one none."""
    base = replace(PRESETS["demo"], training=replace(PRESETS["demo"].training, steps=8))
    plan = Plan("attention", base, (0, 1), ("none", "self-16", "residual-16"), 8, "auto", "", tuple("abcde"), "key")
    folder = StudyFolder.create(tmp_path / "study", plan)
    worse = {"none": 0, "self-16": -10, "residual-16": -1}
    for job in folder.jobs():
        if (job.variant.name, job.seed) == ("residual-16", 1):
            continue
        rows = []
        for step in (2, 4, 6, 8)[: 2 if (job.variant.name, job.seed) == ("self-16", 1) else 4]:
            distance = 100 - step + 50 * job.seed + worse[job.variant.name] * (1 + job.seed)
            ends = {"patch_correlation/near": 0.2, "patch_correlation/far": 0.1 + distance / 1000}
            rows.append({"step": step, "frechet_distance/test": float(distance), "diversity": 0.5, **ends})
        folder.start(job).metrics_path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def lines(axes, width):
    """The y values of lines of a width, runs or means; not that of the reference."""
    return [line.get_ydata().tolist() for line in axes.lines if line.get_linewidth() == width]


def test_curves_show_runs_means_and_differences_within_pairs(folder):
    outcomes = gather(folder)
    figure = draw_outcomes(outcomes, 8, "none")
    upper, lower = figure.axes[:3], figure.axes[3:]
    assert [axes.get_title(loc="left") for axes in upper] == ["Distance to the data", "Near patches", "Far patches"]
    assert [axes.get_ylabel() for axes in upper] == ["Frechet distance"] + 2 * ["patch correlation error (0 to 2)"]
    assert all("minus that of\nnone" in axes.get_ylabel() for axes in lower)
    assert [text.get_text() for text in figure.legends[0].texts] == [o.variant.title for o in outcomes]
    runs = lines(upper[0], 0.7)
    assert runs[:2] == [[98, 96, 94, 92], [148, 146, 144, 142]]  # none
    assert runs[2:4] == [[88, 86, 84, 82], [128, 126]]  # self-16, of which one run is not finished
    means = lines(upper[0], 1.5)
    assert means[:2] == [[123, 121, 119, 117], [108, 106, 84, 82]]
    # Differences: -10 of seed 0, -20 of seed 1 as long as there is one.
    assert lines(lower[0], 0.7) == [[-10] * 4, [-20] * 2, [-1] * 4]
    assert lines(lower[0], 1.5) == [[-15, -15, -10, -10], [-1] * 4]
    # The band is Student's interval of two pairs; a single pair has none.
    (band,) = lower[0].collections
    low, high = stats.ttest_rel([-10, -20], [0, 0]).confidence_interval(0.95)
    vertices = band.get_paths()[0].vertices
    assert (vertices[:, 1].min(), vertices[:, 1].max()) == pytest.approx((low, high))
    assert (vertices[:, 0].min(), vertices[:, 0].max()) == (2, 4)
    assert lines(lower[2], 0.7)[0] == pytest.approx([-0.01] * 4)
    # Without a reference there are no differences, and without structure in the log there is one column.
    assert len(draw_outcomes(outcomes[1:], 8, "none").axes) == 3
    for outcome in outcomes:
        for end in ("near", "far"):
            outcome.curves[end].clear()
    assert len(draw_outcomes(outcomes, 8, "none").axes) == 2

"""The samples of a study are those of the generators that it measured."""

from types import SimpleNamespace

import numpy as np
import torch

from helpers.runs import NAMES, make_run
from sagan import draw_latents, load, sample
from sagan.figures.grid import draw_grid
from sagan.study.figures import COLUMNS, draw_samples


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

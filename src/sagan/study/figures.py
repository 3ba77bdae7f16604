"""Draw a study's figures: curves with their spread over seeds, and samples of all variants next to each other."""

from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from sagan.figures.curves import DPI, MARKERS, SERIES, STYLE
from sagan.figures.grid import draw_grid
from sagan.run import load_generator
from sagan.sampling import draw_latents, sample
from sagan.study.results import Outcome

COLUMNS = 10  # samples per variant


def draw_outcomes(outcomes: list[Outcome], steps: int) -> Figure:
    """Draw the distance during training: the mean over seeds, and the range from smallest to largest as a band.

    The horizontal axis is the cost in steps of the base, which trains for `steps`: all variants end at the same place,
    though some take fewer steps.
    """
    shown = [outcome for outcome in outcomes if outcome.curves]
    with matplotlib.rc_context(STYLE):
        figure = Figure((8.6, 4.2), layout="constrained", dpi=DPI)
        axes = figure.add_subplot()
        for i, outcome in enumerate(shown):
            # Runs that are not finished, or that diverged, have fewer evaluations than others.
            longest = max((steps for steps, _ in outcome.curves), key=len)
            table = np.full((len(outcome.curves), len(longest)), np.nan)
            for row, (_, values) in zip(table, outcome.curves, strict=True):
                row[: len(values)] = values
            x = longest * steps / outcome.variant.config.training.steps
            colour, dashes = SERIES[i % len(SERIES)], "-" if i < len(SERIES) else "--"
            look: dict[str, Any] = {"color": colour, "marker": MARKERS[i % len(MARKERS)], "markersize": 3}
            axes.plot(x, np.nanmean(table, 0), dashes, label=outcome.variant.title, **look)
            axes.fill_between(x, np.nanmin(table, 0), np.nanmax(table, 0), color=colour, alpha=0.12, linewidth=0)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_xlabel("step of the base, or the same cost")
        axes.set_ylabel("distance (logarithmic)")
        axes.set_title("Distance to the data during training (mean and range over seeds)")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def draw_samples(outcomes: list[Outcome]) -> Image.Image | None:
    """Draw a row of samples of each variant's first seed, from the same latents and classes; None without any yet."""
    rows, titles = [], []
    for outcome in outcomes:
        path = outcome.jobs[0].path
        if not (path / "generator.safetensors").exists():
            continue
        generator, names, _ = load_generator(path)
        z = draw_latents(COLUMNS, generator.config.latent_dim, seed=0)
        y = torch.arange(COLUMNS) * len(names) // COLUMNS if names else torch.zeros(COLUMNS, dtype=torch.int64)
        rows.append(sample(generator, z, y))
        titles.append(outcome.variant.title)
    return draw_grid(np.concatenate(rows), columns=COLUMNS, row_labels=titles) if rows else None

"""Draw a study's figures: curves with their spread over seeds, and samples of all variants next to each other."""

from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from sagan.figures.curves import DPI, MARKERS, SERIES, STYLE
from sagan.figures.grid import draw_grid
from sagan.run import load_generator
from sagan.sampling import draw_latents, sample
from sagan.study.paired import paired_difference
from sagan.study.results import CURVES, DISTANCE, Curve, Outcome

COLUMNS = 10  # samples per variant
_WIDTH = 4.0  # inches of a panel
_LABELS = {
    DISTANCE: ("Distance to the data", "Frechet distance"),
    "near": ("Near patches", "patch correlation error (0 to 2)"),
    "far": ("Far patches", "patch correlation error (0 to 2)"),
}
"""Title and unit of the curves."""
_THIN: dict[str, Any] = {"linewidth": 0.7, "alpha": 0.5, "marker": ""}  # of single runs


def draw_outcomes(outcomes: list[Outcome], steps: int, reference: str) -> Figure:
    """Draw what was measured during training: a column each for the distance, the near and the far error.

    The upper row shows each run as a thin line and each variant's mean as a bold one; the lower row, differences of
    runs to those of the reference variant with the same seed, with the 95 % interval of their mean as a band.

    The horizontal axis is the cost in steps of the base, which trains for `steps`: all variants end at the same place,
    though some take fewer steps.

    Args:
        reference: name of a variant. There is no lower row without runs of it and of another one with the same seed.
    """
    names = [name for name in CURVES if any(outcome.curves[name] for outcome in outcomes)]
    base = next((o for o in outcomes if o.variant.name == reference), None)
    paired = base is not None and any(_pairs(o, base, DISTANCE) for o in outcomes if o is not base)
    with matplotlib.rc_context(STYLE):
        figure = Figure((_WIDTH * len(names) + 1.6, 3.1 * (1 + paired) + 0.3), layout="constrained", dpi=DPI)
        panels = figure.subplots(1 + paired, len(names), sharex=True, squeeze=False)
        for i, outcome in enumerate(outcomes):
            style: dict[str, Any] = {"color": SERIES[i % len(SERIES)], "linestyle": "-" if i < len(SERIES) else "--"}
            style |= {"marker": MARKERS[i % len(MARKERS)], "markersize": 3}
            scale = steps / outcome.variant.config.training.steps
            for name, column in zip(names, panels.T, strict=True):
                _draw_runs(column[0], list(outcome.curves[name].values()), scale, style, outcome.variant.title)
                if paired and base is not None and outcome is not base:
                    _draw_differences(column[1], _pairs(outcome, base, name), scale, style)
        for name, column in zip(names, panels.T, strict=True):
            title, unit = _LABELS[name]
            column[0].set_title(title)
            column[0].set_ylabel(unit)
            column[0].set_yscale("log")
            for which in (column[0].yaxis.set_major_formatter, column[0].yaxis.set_minor_formatter):
                which(matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:g}"))
            if paired and base is not None:
                column[1].axhline(0, color=SERIES[outcomes.index(base) % len(SERIES)], linewidth=1)
                column[1].set_ylabel(f"{unit}, minus that of\n{base.variant.title} with the same seed")
            column[-1].set_xlabel("step of the base, or the same cost")
        handles, titles = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, titles, loc="outside right upper")
    return figure


def _draw_runs(axes: Axes, curves: list[Curve], scale: float, style: dict[str, Any], title: str) -> None:
    """Draw curves, their steps multiplied by `scale`, and their mean as far as there are any."""
    for steps, values in curves:
        axes.plot(steps * scale, values, **style | _THIN)
    if curves:
        x, table = _table(curves)
        axes.plot(x * scale, np.nanmean(table, 0), **style, label=title)


def _draw_differences(axes: Axes, curves: list[Curve], scale: float, style: dict[str, Any]) -> None:
    """Draw differences within pairs, their mean, and its 95 % interval where there are two pairs or more."""
    for steps, values in curves:
        axes.plot(steps * scale, values, **style | _THIN)
    if not curves:
        return
    x, table = _table(curves)
    axes.plot(x * scale, np.nanmean(table, 0), **style)
    columns = [values[np.isfinite(values)].tolist() for values in table.T]
    enough = [len(values) > 1 for values in columns]
    intervals = [paired_difference(values) for values in columns if len(values) > 1]
    if intervals:
        low, high = np.array([(i.low, i.high) for i in intervals]).T
        axes.fill_between(x[enough] * scale, low, high, color=style["color"], alpha=0.12, linewidth=0)


def _pairs(outcome: Outcome, base: Outcome, name: str) -> list[Curve]:
    """Return curves of differences to the runs of `base` with the same seed, by steps of `outcome`.

    Both have the same number of evaluations, though perhaps at other steps.
    """
    pairs = []
    for seed, (steps, values) in outcome.curves[name].items():
        if seed in base.curves[name]:
            theirs = base.curves[name][seed][1]
            n = min(len(values), len(theirs))
            pairs.append((steps[:n], values[:n] - theirs[:n]))
    return pairs


def _table(curves: list[Curve]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the steps of the longest curve and the values of all of them, a row each, NaN where a curve has ended."""
    # Runs that are not finished, or that diverged, have fewer evaluations than others.
    longest = max((steps for steps, _ in curves), key=len)
    table = np.full((len(curves), len(longest)), np.nan)
    for row, (_, values) in zip(table, curves, strict=True):
        row[: len(values)] = values
    return longest, table


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

"""Draw the curves of a metrics log: one panel per group of values."""

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import Formatter, FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from sagan.errors import UserError
from sagan.files import write_atomically
from sagan.marks import FIGURE_KEY, figure_text
from sagan.metric_names import is_distance

Rows = Sequence[Mapping[str, Any]]

_INK, _FAINT, _BEST = "#28282e", "#8a8a94", "#c2255c"
_GENERATOR, _DISCRIMINATOR = "#e8590c", "#1971c2"
_REAL, _FAKE = "#2f9e44", "#9c36b5"
_EVALUATION = "#0b7285"
# The colour map of a network with several layers, and the colour of a single one.
_RAMPS = {"generator": ("Oranges", _GENERATOR), "discriminator": ("Blues", _DISCRIMINATOR)}
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#28282e")
"""Colours of things that are compared in one panel (Okabe & Ito 2008): told apart by colour-blind readers too."""
MARKERS = "osD^vP*"
"""Their markers, for prints without colour."""
_PANEL = (4.3, 2.7)  # inches
_COLUMNS = 3
DPI = 160
_SMOOTH_FROM = 50  # values from which on a running mean is drawn
_SMOOTH_SHARE = 25  # the window of the running mean is this fraction of the values
STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # names are not formulas
    "font.size": 9,
    "text.color": _INK,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4ea",
    "grid.linewidth": 0.7,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "lines.solid_joinstyle": "round",
}


@dataclass(frozen=True)
class Panel:
    """A panel: values of the log that share an axis."""

    title: str
    keys: tuple[str, ...]
    names: tuple[str, ...] = ()
    """Names of the keys in the legend; empty: derived from the keys."""
    noisy: bool = False
    """Whether the values come from single batches: a running mean is drawn over them."""
    logarithmic: bool = False
    from_zero: bool = False
    zero_line: bool = False
    best: bool = False
    """Whether the smallest value is marked."""


_GROUPS = {  # panel by first part of a key
    "loss": Panel("Losses", (), noisy=True),
    "logits": Panel("Mean logits", (), noisy=True, zero_line=True),
    "gamma": Panel("Gamma", (), zero_line=True),
    "gradient_norm": Panel("Gradient norms", (), noisy=True, logarithmic=True),
    "learning_rate": Panel("Learning rates", (), from_zero=True),
    "images_per_second": Panel("Images per second", (), noisy=True, from_zero=True),
    "peak_share": Panel("Share of the device's peak", (), noisy=True, from_zero=True),
    "seconds": Panel("Seconds", (), logarithmic=True),
    "memory_gib": Panel("Peak memory, GiB", (), from_zero=True),
}


def arrange(rows: Rows) -> list[Panel]:
    """Arrange a log in panels: first one per evaluation metric, then the known groups of values.

    A key that belongs to no group is an evaluation metric.
    """
    keys = list(dict.fromkeys(key for row in rows for key, value in row.items() if key != "step" and _is_number(value)))
    of_group = {name: tuple(sorted((k for k in keys if _group(k) == name), key=_place)) for name in _GROUPS}
    others = [key for key in keys if _group(key) not in _GROUPS]
    evaluations = [Panel(_title(key), (key,), best=is_distance(key)) for key in others]
    evaluations.sort(key=lambda panel: not panel.best)
    known = [replace(panel, keys=of_group[name]) for name, panel in _GROUPS.items() if of_group[name]]
    return evaluations + [part for panel in known for part in _split_gammas(panel)]


def draw_curves(rows: Rows, keys: Iterable[str] | None = None) -> Figure:
    """Draw a metrics log over the step, one panel per group of values.

    Args:
        rows: dictionaries of a 'step' and values by name, oldest first, as `Run.metrics` returns them. NaN and
            infinite values leave a gap.
        keys: the values to draw; None: all.

    Raises:
        ValueError: no row has one of these values.
    """
    rows = [row for row in rows if _is_number(row.get("step"))]
    keys = None if keys is None else tuple(keys)
    if keys is not None:
        wanted = {"step", *keys}
        rows = [{key: value for key, value in row.items() if key in wanted} for row in rows]
    panels = arrange(rows)
    if not panels:
        raise ValueError("nothing to draw: no row has a value" + (f" of {', '.join(keys)}" if keys else ""))
    columns = min(_COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    with matplotlib.rc_context(STYLE):
        layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1, wspace=0.03, hspace=0.03)
        figure = Figure((columns * _PANEL[0], lines * _PANEL[1] + 0.3), layout=layout, dpi=DPI)
        grid = figure.add_gridspec(lines, columns)
        for i, panel in enumerate(panels):
            _draw_panel(figure.add_subplot(grid[divmod(i, columns)]), panel, rows)
        smoothed = any(panel.noisy and _window(len(_curve(rows, panel.keys[0])[0])) > 1 for panel in panels)
        figure.supxlabel("step" + ("   (faint: as logged; bold: running mean)" if smoothed else ""), fontsize=9)
    return figure


def figure_format(path: Path) -> str:
    """Return 'png' or 'svg' from the file name. Raises UserError if it is neither."""
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("png", "svg"):
        raise UserError(f"{path}: give a .png or a .svg")
    return kind


def save_figure(figure: Figure, path: Path, *, step: int | None = None) -> None:
    """Write a figure as .png or .svg, atomically; the same figure gives the same bytes.

    A .png is marked with the step of the networks that it shows, if it is given.

    Raises:
        UserError: another suffix, or the file cannot be written.
    """
    if figure_format(path) == "svg":
        write_atomically(path, lambda temporary: temporary.write_bytes(to_svg(figure)))
    else:
        # The resolution by name: without it, savefig takes the one that the figure had when it was made.
        options: dict[str, Any] = {"dpi": figure.dpi, "metadata": {"Software": None, FIGURE_KEY: figure_text(step)}}
        write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", **options))


def to_svg(figure: Figure, *, transparent: bool = False) -> bytes:
    """Return a figure as SVG, on white or transparent."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "sagan"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=transparent)
    return buffer.getvalue()


def _split_gammas(panel: Panel) -> list[Panel]:
    """Split a panel of many layers into one for the generator and one for the discriminator."""
    parts = {network: tuple(key for key in panel.keys if f"/{network}." in key) for network in _RAMPS}
    if len(panel.keys) <= 2 or sum(map(len, parts.values())) < len(panel.keys):
        return [panel]
    return [
        replace(panel, title=f"{panel.title}, {network}", keys=keys, names=tuple(_layer(key)[1] for key in keys))
        for network, keys in parts.items()
        if keys
    ]


def _draw_panel(axes: Axes, panel: Panel, rows: Rows) -> None:
    colours = _colours(panel.keys)
    if panel.zero_line:
        axes.axhline(0, color=_FAINT, linewidth=0.8)
    for key, name in zip(panel.keys, panel.names or map(_name, panel.keys), strict=True):
        steps, values = _curve(rows, key)
        window = _window(len(values)) if panel.noisy else 1
        drawn = _running_mean(values, window)
        marker = "o" if len(values) <= 30 else ""
        style: dict[str, Any] = {"color": colours[key], "marker": marker, "markersize": 3.5, "label": name}
        if window > 1:
            axes.plot(steps, values, color=colours[key], alpha=0.25, linewidth=0.8, zorder=1.5)
        axes.plot(steps, drawn, gid=key, **style)  # gid: what an SVG calls it
    values = np.concatenate([_curve(rows, key)[1] for key in panel.keys])
    values = values[np.isfinite(values)]
    _scale_axes(axes, panel, values)
    axes.set_xlim(0, 1.03 * max(1, *(row["step"] for row in rows)))
    if not len(values):
        axes.text(0.5, 0.5, "no finite value logged", transform=axes.transAxes, ha="center", color=_FAINT)
    elif panel.best:
        _mark_best(axes, *_curve(rows, panel.keys[0]))
    _add_legend(axes, panel)


def _scale_axes(axes: Axes, panel: Panel, values: NDArray[np.float64]) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(_format_step))
    if panel.logarithmic and len(values) and values.min() > 0:
        axes.set_yscale("log")
        decades = np.log10(values.max() / values.min())
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5) if decades < 1.5 else (1,)))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(_ValueFormatter())
    if panel.from_zero and len(values) and values.min() >= 0:
        axes.set_ylim(0, max(1.08 * values.max(), 1e-12))


def _mark_best(axes: Axes, steps: NDArray[np.float64], values: NDArray[np.float64]) -> None:
    """Ring the smallest value; its label goes below, where the curve cannot be."""
    best = int(np.nanargmin(np.where(np.isfinite(values), values, np.nan)))
    low, high = axes.get_ylim()
    axes.set_ylim(low - 0.22 * (high - low), high)
    left, right = axes.get_xlim()
    share = (steps[best] - left) / (right - left)
    side = "left" if share < 0.25 else "right" if share > 0.75 else "center"
    axes.plot(steps[best], values[best], "o", markersize=8, markerfacecolor="none", color=_BEST, clip_on=False)
    axes.annotate(
        f"best: {values[best]:.4g} at step {steps[best]:,.0f}",
        (steps[best], values[best]),
        (0, -9),
        textcoords="offset points",
        ha=side,
        va="top",
        color=_BEST,
        fontsize=8.5,
    )


def _add_legend(axes: Axes, panel: Panel) -> None:
    """Put the legend next to the title for up to two names, otherwise below it."""
    handles, names = axes.get_legend_handles_labels()
    next_to_title = len(names) <= 2
    columns = 2 if next_to_title else max(1, 60 // (max(map(len, names)) + 6))
    axes.set_title(panel.title, pad=8 if next_to_title else 10 + 14 * -(-len(names) // columns))
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (-0.02, 1.005)}
    if next_to_title:
        place = {"loc": "lower right", "bbox_to_anchor": (1.02, 1.005)}
    place |= {"handlelength": 1, "handletextpad": 0.5, "columnspacing": 1, "borderaxespad": 0.2}
    if len(names) > 1:
        axes.legend(handles, names, ncols=columns, **place)


def _curve(rows: Rows, key: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return steps and values of the rows that have the key; infinite values become NaN."""
    pairs = [(row["step"], row[key]) for row in rows if _is_number(row.get(key))]
    steps, values = np.array(pairs, np.float64).reshape(-1, 2).T
    return steps, np.where(np.isfinite(values), values, np.nan)


def _running_mean(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Average the finite values in a centred window, truncated at both ends; NaN where there are none."""
    kernel, known = np.ones(window), np.isfinite(values)
    count = np.convolve(known, kernel, "same")
    total = np.convolve(np.where(known, values, 0), kernel, "same")
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _window(count: int) -> int:
    return 1 if count < _SMOOTH_FROM else count // _SMOOTH_SHARE | 1  # odd: centred


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _group(key: str) -> str:
    return key.partition("/")[0]


def _place(key: str) -> tuple[bool, list[tuple[int, str]]]:
    """Return the sorting key: generator before discriminator, real before generated images, 8 before 16."""
    name = key.partition("/")[2]
    return name.startswith(("discriminator", "fake")), [(int(n or 0), s) for n, s in re.findall(r"(\d+)|(\D+)", name)]


def _title(key: str) -> str:
    """Turn 'frechet_distance/EfficientNet-Lite0' into 'Frechet distance, EfficientNet-Lite0'."""
    name, _, of = key.partition("/")
    name = name.upper() if name in ("fid", "kid") else name.replace("_", " ")
    return name[:1].upper() + name[1:] + (f", {of}" if of else "")


def _name(key: str) -> str:
    """Turn 'loss/generator' into 'generator', 'gamma/generator.16.0' into 'generator 16'."""
    return " ".join(_layer(key)).strip()


def _layer(key: str) -> tuple[str, str]:
    """Turn 'gamma/generator.16.0' into ('generator', '16'), 'gamma/generator.16.1' into ('generator', '16.1')."""
    network, _, layer = (key.partition("/")[2] or key).partition(".")
    return network, layer.removesuffix(".0")


def _colours(keys: Sequence[str]) -> dict[str, Any]:
    """Choose a colour per key: one per network, shades of it for its layers, one each for real and generated images."""
    of_name = {"logits/real": _REAL, "logits/fake": _FAKE}
    found: dict[str, Any] = {}
    for network, (ramp, colour) in _RAMPS.items():
        own = [key for key in keys if _layer(key)[0] == network]
        shades = matplotlib.colormaps[ramp](np.linspace(0.45, 0.95, len(own)))
        found |= {key: tuple(shade) if len(own) > 1 else colour for key, shade in zip(own, shades, strict=True)}
    others = [key for key in keys if key not in found and key not in of_name]
    cycle = [_EVALUATION, _REAL, _FAKE, _GENERATOR, _DISCRIMINATOR]
    return found | of_name | {key: cycle[i % len(cycle)] for i, key in enumerate(others)}


class _ValueFormatter(Formatter):
    """Formats the ticks of an axis in one way: all as decimals, or all as powers of ten where one is very small.

    `{value:g}` alone would put 5e-05 next to 0.0001.
    """

    def __call__(self, value: float, pos: int | None = None) -> str:
        return self.format_ticks([value])[0]

    def format_ticks(self, values: Sequence[float]) -> list[str]:
        texts = [f"{value:g}" for value in values]
        if not any("e" in text for text in texts):
            return texts
        return [_scientific(value) for value in values]


def _scientific(value: float) -> str:
    """Format 0.00025 as '2.5e-4', and 0 as '0'."""
    if not value:
        return "0"
    digits, _, exponent = f"{value:.6e}".partition("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(exponent)}"


def _format_step(step: float, _: int) -> str:
    """Format a step: 1500 unchanged, from 10,000 on in thousands or millions."""
    if abs(step) >= 1e6:
        return f"{step / 1e6:g}M"
    return f"{step / 1e3:g}k" if abs(step) >= 1e4 else f"{step:g}"

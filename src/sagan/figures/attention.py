"""Draw the paper's last figure: images with coloured query points, next to what each point attends to."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from numpy.typing import NDArray
from PIL import Image

from sagan.attention_maps import resize_maps
from sagan.figures import curves
from sagan.figures.grid import opaque
from sagan.figures.labels import Fitted, fit_labels

COLOURS = ("#ff3b4e", "#19b34a", "#2f7bff", "#ff9500", "#b44cff", "#00b8c8", "#f032c6", "#9a6b1e")
"""Colours of the query points in order; a figure accepts as many points as there are colours."""

MOST_ROWS = 100
"""Rows of one figure, at most."""

_INK, _GREY = "#28282e", "#76767e"
_TILE, _GUTTER, _MARGIN = 112, 6, 14  # layout units; a tile is the smallest multiple of the image of at least _TILE
_LABEL_SIZE = 7.5  # points
_LABEL_WIDTH = 120  # layout units to which a label is shortened
_TITLE, _HEAD, _CAPTION, _GAP, _FOOT = 44, 24, 16, 16, 34  # heights of the texts, and between two sections
_LEAST_WIDTH = 640  # layout units right of the labels, for the texts
_UNITS_PER_INCH, _DPI = 100, 200
_LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue in the luma
_GRID = 32  # cells per side among which points are chosen
_NEARNESS = 0.7  # weight of position against colour when an image is split into regions
_RAMP = 90  # width of the colour scale at the foot, layout units
_FOOTNOTE = "Each map is scaled from 0 to its own peak, given below it in multiples of uniform attention."
_INTERPOLATED = "Maps are interpolated between the centres of the keys."


@dataclass(frozen=True)
class MapSection:
    """A section of the figure: the rows of one layer, each an image and a map per query point."""

    title: str
    subtitle: str
    images: NDArray[np.uint8]
    """(N, R, R, C) uint8; C is 1 (grey), 3 (RGB) or 4 (RGBA)."""
    points: NDArray[np.int64]
    """(N, Q, 2): x and y in pixels."""
    maps: NDArray[np.float32]
    """(N, Q, K, K), each summing to 1; K divides R."""
    labels: Sequence[str] | None = None
    """One per row, written to its left."""


def draw_maps(sections: Sequence[MapSection], *, smooth: bool = False) -> Figure:
    """Draw sections one below the other: in each row an image with its numbered points, and a map per point.

    A map is composited over the dimmed image in the colour of its point; `smooth` interpolates it between the centres
    of the keys.

    Raises:
        ValueError: there are more points than colours, or the shapes do not fit together.
    """
    for section in sections:
        count, queries = section.points.shape[:2]
        if len(section.images) != count or section.maps.shape[:2] != (count, queries) or queries < 1:
            raise ValueError(f"{section.images.shape} images, {section.points.shape} points, {section.maps.shape} maps")
        if queries > len(COLOURS):
            raise ValueError(f"{queries} points, but {len(COLOURS)} colours")
    tiles = [_tile(section.images.shape[1]) for section in sections]
    labels = [fit_row_labels(section.labels or ()) for section in sections]
    widest = max((_width(*label) for rows in labels for label in rows), default=0)
    left = _MARGIN + (round(widest) + _GUTTER if widest else 0)
    width = max((1 + s.points.shape[1]) * (tile + _GUTTER) for s, tile in zip(sections, tiles, strict=True))
    heights = [
        _TITLE + _HEAD + len(s.images) * (t + _CAPTION + _GUTTER) + _GAP for s, t in zip(sections, tiles, strict=True)
    ]
    page = _Page(left + max(width, _LEAST_WIDTH) + _MARGIN, sum(heights) + _FOOT + 2 * _MARGIN)
    top = _MARGIN
    for section, names, tile, height in zip(sections, labels, tiles, heights, strict=True):
        _draw_section(page, section, names, left, top, tile, smooth)
        top += height
    _draw_scale(page, left, top + 8)
    page.text(left + _RAMP + 52, top + 8, _FOOTNOTE, size=6.5, colour=_GREY)
    if smooth:
        page.text(left + _RAMP + 52, top + 22, _INTERPOLATED, size=6.5, colour=_GREY)
    return page.figure


def overlay(image: NDArray[np.uint8], weights: NDArray[np.float32], colour: str = COLOURS[0]) -> NDArray[np.uint8]:
    """Composite a map (R, R) over its image (R, R, C), dimmed and grey: (R, R, 3) uint8.

    A weight of 0 shows the dimmed image; the largest weight covers it almost completely in the colour.
    """
    share = (weights / max(float(weights.max()), 1e-30))[..., None]
    grey = (_rgb(image) @ np.array(_LUMA))[..., None] / 255
    dimmed = 0.12 + 0.26 * grey
    tint = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    glow = tint + (1 - tint) * 0.75 * np.clip(2 * share - 1, 0, 1)  # the upper half of the scale turns to white
    mixed = dimmed + (glow - dimmed) * 0.92 * np.sqrt(share)
    return np.asarray((mixed * 255).round().clip(0, 255), np.uint8)


def choose_points(images: NDArray[np.uint8], count: int = 5) -> NDArray[np.int64]:
    """Choose points (N, count, 2) in images (N, R, R, C): one inside each distinct region, the last on an edge.

    Regions are clusters of similar colour and position, the largest (often the background) first. The choice depends
    on the image alone, not on the attention: the same image always gets the same points.
    """
    return np.stack([_choose(_rgb(image).astype(np.float64) / 255, count) for image in images])


def to_image(figure: Figure) -> Image.Image:
    """Rasterise a figure."""
    canvas = FigureCanvasAgg(figure)
    with _quiet():
        canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as .png or .svg, atomically; the same figure gives the same bytes.

    Raises:
        UserError: another suffix, or the file cannot be written.
    """
    with _quiet():
        curves.save_figure(figure, path)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the warning per glyph that the font lacks; such glyphs are drawn as boxes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")
        yield


class _Page:
    """A figure laid out in units from the upper left corner, so that tiles align with whole pixels."""

    def __init__(self, width: float, height: float):
        self.width, self.height = width, height
        self.figure = Figure((width / _UNITS_PER_INCH, height / _UNITS_PER_INCH), dpi=_DPI, facecolor="white")

    def text(self, x: float, y: float, text: str, *, size: float, colour: str = _INK, **options: Any) -> None:
        options = {"ha": "left", "va": "center", **options}
        place = (x / self.width, 1 - y / self.height)
        self.figure.text(*place, text, fontsize=size, color=colour, parse_math=False, **options)

    def image(self, image: NDArray[np.uint8], x: float, y: float, side: float, frame: str) -> Axes:
        """Place a square image; its axes are in pixels of the image, (0, 0) the corner of the upper left pixel."""
        place = (x / self.width, 1 - (y + side) / self.height, side / self.width, side / self.height)
        axes = self.figure.add_axes(place)
        resolution = image.shape[0]
        axes.imshow(image, interpolation="nearest", extent=(0, resolution, resolution, 0))
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set(color=frame, linewidth=1.5)
        return axes


def _draw_section(
    page: _Page, section: MapSection, labels: Sequence[Fitted], left: float, top: float, tile: int, smooth: bool
) -> None:
    page.text(left, top + 8, section.title, size=9.5, weight="bold")
    page.text(left, top + 25, section.subtitle, size=7, colour=_GREY)
    resolution, keys = section.images.shape[1], section.maps.shape[-1] ** 2
    weights = resize_maps(torch.from_numpy(section.maps), resolution, smooth=smooth).numpy()
    queries = section.points.shape[1]
    columns = [left, *(left + 2 * _GUTTER + tile + i * (tile + _GUTTER) for i in range(queries))]
    first = top + _TITLE + _HEAD
    for i, x in enumerate(columns[1:]):
        disc = page.figure.add_axes(
            ((x + tile / 2 - 9) / page.width, 1 - (first - 5) / page.height, 18 / page.width, 18 / page.height)
        )
        disc.set_axis_off()
        disc.set(xlim=(-1, 1), ylim=(-1, 1))
        _dot(disc, 0, 0, i, 12)
    for row, image in enumerate(section.images):
        y = first + row * (tile + _CAPTION + _GUTTER)
        if labels:
            text, font = labels[row]
            page.text(left - _GUTTER, y + tile / 2, text, size=_LABEL_SIZE, ha="right", font=font)
        axes = page.image(_rgb(image), columns[0], y, tile, "#d0d0d6")
        for i, (px, py) in enumerate(section.points[row]):
            _dot(axes, px + 0.5, py + 0.5, i, 9)
        for i, (px, py) in enumerate(section.points[row]):
            axes = page.image(overlay(image, weights[row, i], COLOURS[i]), columns[1 + i], y, tile, COLOURS[i])
            _dot(axes, px + 0.5, py + 0.5, i, 5, number=False)
            peak = float(section.maps[row, i].max()) * keys
            caption = f"{peak:.1f}×" if peak < 9.95 else f"{peak:.0f}×"
            page.text(
                columns[1 + i] + tile / 2, y + tile + _CAPTION / 2 + 1, caption, size=6, colour=_GREY, ha="center"
            )


def _draw_scale(page: _Page, left: float, y: float) -> None:
    """Draw the colour scale: from no weight to the peak, over mid-grey."""
    page.text(left, y, "0", size=6.5, colour=_GREY)
    share = np.linspace(0, 1, 256, dtype=np.float32)[None]
    axes = page.figure.add_axes(
        ((left + 10) / page.width, 1 - (y + 4) / page.height, _RAMP / page.width, 8 / page.height)
    )
    axes.imshow(overlay(np.full((1, 256, 1), 128, np.uint8), share), aspect="auto")
    axes.set_axis_off()
    page.text(left + _RAMP + 15, y, "peak", size=6.5, colour=_GREY)


def _dot(axes: Axes, x: float, y: float, i: int, size: float, *, number: bool = True) -> None:
    style: dict[str, Any] = {
        "markerfacecolor": COLOURS[i],
        "markeredgecolor": "white",
        "markeredgewidth": 0.8 if number else 1.0,
    }
    axes.plot([x], [y], "o", markersize=size, clip_on=False, zorder=5, **style)
    if number:
        options: dict[str, Any] = {"color": "white", "fontsize": size * 0.62, "weight": "bold", "zorder": 6}
        axes.text(x, y, str(i + 1), ha="center", va="center_baseline", **options)


def _tile(resolution: int) -> int:
    """Return the side of a tile: a whole number of units per pixel, so that all pixels have the same size."""
    return resolution * max(1, -(-_TILE // resolution))


def fit_row_labels(labels: Sequence[str]) -> list[Fitted]:
    """Return the labels of rows as they can be drawn, shortened to the width that they may have."""
    return fit_labels(labels, [_LABEL_WIDTH] * len(labels), _width)


def _width(text: str, font: Path) -> float:
    """Return the width of a row's label in a font, layout units."""
    properties = FontProperties(fname=str(font), size=_LABEL_SIZE)
    points = text_to_path.get_text_width_height_descent(text, properties, ismath=False)[0]
    return points / 72 * _UNITS_PER_INCH


def _rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(opaque(image).convert("RGB"))


def _choose(image: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Choose points (count, 2) in one image (R, R, 3) in [0, 1]."""
    side = image.shape[0]
    grid = min(side, _GRID)
    cells = image.reshape(grid, side // grid, grid, side // grid, 3).mean((1, 3))
    rows, columns = (t.ravel() for t in np.indices((grid, grid)))
    place = np.stack((columns, rows), 1) + 0.5  # (G², 2)
    regions = count - 1 if count > 2 else count
    cluster = _regions(np.hstack((cells.reshape(-1, 3), _NEARNESS * place / grid)), regions)

    # Distance of each cell from the border of its region; the border of the image counts.
    between = np.linalg.norm(place[:, None] - place[None], axis=2)
    inside = np.where(cluster[:, None] != cluster, between, np.inf).min(1)
    inside = np.minimum(inside, np.minimum(place, grid - place).min(1) + 0.5)
    largest_first = sorted(range(regions), key=lambda r: (-(cluster == r).sum(), r))
    chosen = [int(np.where(cluster == r, inside, -1).argmax()) for r in largest_first]
    if count > len(chosen):
        down, across = np.gradient(cells, axis=(0, 1))
        edge = np.sqrt((down**2 + across**2).sum(2)).ravel() + 1e-3
        apart = np.minimum(between[:, chosen].min(1), grid / 4)
        bordering = np.minimum(place, grid - place).min(1) < grid / 16
        chosen.append(int((edge * apart * ~bordering).argmax()))
    return np.floor(place[chosen] * side / grid).astype(np.int64)


def _regions(features: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Assign each row to a region 0, ..., count - 1 by k-means, started from the median row and the farthest ones."""

    def squared(centres: NDArray[np.float64]) -> NDArray[np.float64]:
        return ((features[:, None] - centres) ** 2).sum(2)

    centres = features[squared(np.median(features, axis=0)[None]).argmin()][None]
    while len(centres) < count:
        centres = np.vstack((centres, features[squared(centres).min(1).argmax()]))
    for _ in range(30):
        region = squared(centres).argmin(1)
        centres = np.stack([features[region == r].mean(0) if (region == r).any() else centres[r] for r in range(count)])
    return region

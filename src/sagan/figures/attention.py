"""Draw the paper's last figure: images with coloured query points, next to what each point attends to."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from sagan.attention_maps import format_share, resize_maps
from sagan.figures import curves
from sagan.figures.labels import Fitted
from sagan.figures.layout import (
    GREY,
    GUTTER,
    LABEL_SIZE,
    MARGIN,
    Page,
    fit_row_labels,
    label_width,
    quiet,
    rgb,
    text_width,
    tile_side,
)
from sagan.figures.map_colours import COLOURS, TOP, paint_map, scale_position

MOST_ROWS = 100
"""Rows of one figure, at most."""

_TITLE, _LINE, _HEAD, _CAPTION, _GAP, _FOOT = 30, 14, 24, 16, 16, 88  # heights of the texts, and between two sections
_TITLE_SIZE, _SUBTITLE_SIZE, _NOTE_SIZE = 9.5, 7, 6.5  # points
_GRID = 32  # cells per side among which points are chosen
_NEARNESS = 0.7  # weight of position against colour when an image is split into regions
_BAR = 150  # width of the colour bar at the foot, layout units
_TICKS = (0, 1, 2, 4, 8)  # on the common scale, in multiples of even attention
_COMMON_NOTES = ("In multiples of even attention: 1× everywhere is no preference at all.", "Below each map: its peak.")
_OWN_NOTES = ("Each map is scaled from 0 to its own peak.", "Below each map: its peak, in multiples of even attention.")
_SHARE_NOTE = "What the layer adds to the features at the point is |γ·o| / |x| there."
_INTERPOLATED = "Maps are interpolated between the centres of the keys."


@dataclass(frozen=True)
class MapSection:
    """A section of the figure: the rows of one layer, each an image and a map per query point."""

    title: str
    subtitle: str
    """May have several lines."""
    images: NDArray[np.uint8]
    """(N, R, R, C) uint8; C is 1 (grey), 3 (RGB) or 4 (RGBA)."""
    points: NDArray[np.int64]
    """(N, Q, 2): x and y in pixels."""
    maps: NDArray[np.float32]
    """(N, Q, K, K), each summing to 1; K divides R."""
    labels: Sequence[str] | None = None
    """One per row, written to its left."""
    shares: NDArray[np.float32] | None = None
    """(N, Q): |gamma · o| / |x| at each point, written below its map."""

    @property
    def title_height(self) -> int:
        """Height of the title and the subtitle, layout units."""
        return _TITLE + _LINE * len(self.subtitle.splitlines())


def draw_maps(sections: Sequence[MapSection], *, smooth: bool = False, own_scale: bool = False) -> Figure:
    """Draw sections one below the other: in each row an image with its numbered points, and a map per point.

    All maps have one scale, in multiples of even attention, so that an even map looks even. `own_scale` scales each
    map to its own peak instead. `smooth` interpolates maps between the centres of the keys.

    Raises:
        ValueError: there are more points than colours, or the shapes do not fit together.
    """
    for section in sections:
        count, queries = section.points.shape[:2]
        if len(section.images) != count or section.maps.shape[:2] != (count, queries) or queries < 1:
            raise ValueError(f"{section.images.shape} images, {section.points.shape} points, {section.maps.shape} maps")
        if queries > len(COLOURS):
            raise ValueError(f"{queries} points, but {len(COLOURS)} colours")
    notes = [*(_OWN_NOTES if own_scale else _COMMON_NOTES)]
    notes += [] if all(section.shares is None for section in sections) else [_SHARE_NOTE]
    notes += [_INTERPOLATED] if smooth else []
    # With few points the texts are wider than the tiles, which then grow to fill the page.
    text: float = max(
        _BAR + GUTTER,
        *(text_width(note, _NOTE_SIZE) for note in notes),
        *(text_width(section.title, _TITLE_SIZE, "bold") for section in sections),
        *(text_width(line, _SUBTITLE_SIZE) for section in sections for line in section.subtitle.splitlines()),
    )
    text = math.ceil(text)  # whole units, so that tiles keep whole pixels
    tiles = []
    for section in sections:
        columns = 1 + section.points.shape[1]
        tiles.append(tile_side(section.images.shape[1], room=(text - columns * GUTTER) / columns))
    labels = [fit_row_labels(section.labels or ()) for section in sections]
    widest = max((label_width(*label) for rows in labels for label in rows), default=0)
    left = MARGIN + (round(widest) + GUTTER if widest else 0)
    width = max(text, *((1 + s.points.shape[1]) * (t + GUTTER) for s, t in zip(sections, tiles, strict=True)))
    heights = [
        s.title_height + _HEAD + len(s.images) * (t + _CAPTION + GUTTER) + _GAP
        for s, t in zip(sections, tiles, strict=True)
    ]
    page = Page(left + width + MARGIN, sum(heights) + _FOOT + 2 * MARGIN)
    top = MARGIN
    for section, names, tile, height in zip(sections, labels, tiles, heights, strict=True):
        _draw_section(page, section, names, left, top, tile, smooth, own_scale)
        top += height
    _draw_scale(page, left, top + 8, own_scale)
    for i, note in enumerate(notes):
        page.text(left, top + 38 + _LINE * i, note, size=_NOTE_SIZE, colour=GREY)
    return page.figure


def choose_points(images: NDArray[np.uint8], count: int = 5) -> NDArray[np.int64]:
    """Choose points (N, count, 2) in images (N, R, R, C): one inside each distinct region, the last on an edge.

    Regions are clusters of similar colour and position, the largest (often the background) first. The choice depends
    on the image alone, not on the attention: the same image always gets the same points.
    """
    return np.stack([_choose(rgb(image).astype(np.float64) / 255, count) for image in images])


def to_image(figure: Figure) -> Image.Image:
    """Rasterise a figure."""
    canvas = FigureCanvasAgg(figure)
    with quiet():
        canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def save_figure(figure: Figure, path: Path, *, step: int | None = None) -> None:
    """Write a figure as .png or .svg, atomically; the same figure gives the same bytes.

    Raises:
        UserError: another suffix, or the file cannot be written.
    """
    with quiet():
        curves.save_figure(figure, path, step=step)


def _draw_section(
    page: Page,
    section: MapSection,
    labels: Sequence[Fitted],
    left: float,
    top: float,
    tile: int,
    smooth: bool,
    own_scale: bool,
) -> None:
    page.text(left, top + 8, section.title, size=_TITLE_SIZE, weight="bold")
    for i, line in enumerate(section.subtitle.splitlines()):
        page.text(left, top + 25 + _LINE * i, line, size=_SUBTITLE_SIZE, colour=GREY)
    resolution, keys = section.images.shape[1], section.maps.shape[-1] ** 2
    weights = resize_maps(torch.from_numpy(section.maps), resolution, smooth=smooth).numpy() * resolution**2
    queries = section.points.shape[1]
    columns = [left, *(left + 2 * GUTTER + tile + i * (tile + GUTTER) for i in range(queries))]
    first = top + section.title_height + _HEAD
    for i, x in enumerate(columns[1:]):
        _dot(page, x + tile / 2, first - 14, i, 12)
    for row, image in enumerate(section.images):
        y = first + row * (tile + _CAPTION + GUTTER)
        if labels:
            text, font = labels[row]
            page.text(left - GUTTER, y + tile / 2, text, size=LABEL_SIZE, ha="right", font=font)
        places = (section.points[row] + 0.5) * tile / resolution  # layout units from the corner of a tile
        page.image(rgb(image), columns[0], y, tile, "#d0d0d6")
        for i, (px, py) in enumerate(places):
            _dot(page, columns[0] + px, y + py, i, 9)
        for i, (px, py) in enumerate(places):
            shown = paint_map(weights[row, i], top=None if own_scale else TOP)
            page.image(shown, columns[1 + i], y, tile, COLOURS[i])
            _dot(page, columns[1 + i] + px, y + py, i, 5, number=False)
            peak = float(section.maps[row, i].max()) * keys
            caption = f"{peak:.1f}×" if peak < 9.95 else f"{peak:.0f}×"
            if section.shares is not None:
                caption += f" · adds {format_share(float(section.shares[row, i]))}"
            page.text(columns[1 + i] + tile / 2, y + tile + _CAPTION / 2 + 1, caption, size=6, colour=GREY, ha="center")


def _draw_scale(page: Page, left: float, y: float, own_scale: bool) -> None:
    """Draw the colour bar, with ticks in multiples of even attention."""
    share = np.linspace(0, 1, 256, dtype=np.float32)[None]
    page.bar(paint_map(share**2, top=1), left + 4, y - 4, _BAR, 8)
    ticks = {0.0: "0", 1.0: "peak"} if own_scale else {scale_position(t): f"{t}×" for t in _TICKS}
    for position, text in ticks.items():
        page.text(left + 4 + position * _BAR, y + 13, text, size=6.5, colour=GREY, ha="center")


def _dot(page: Page, x: float, y: float, i: int, size: float, *, number: bool = True) -> None:
    page.dot(x, y, size=size, colour=COLOURS[i], edge=0.8 if number else 1.0)
    if number:
        options: dict[str, Any] = {"weight": "bold", "ha": "center", "va": "center_baseline"}
        options["zorder"] = 2.7  # above its disc
        page.text(x, y, str(i + 1), size=size * 0.62, colour="white", **options)


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
    dx, dy = (axis[:, None] - axis for axis in place.T)
    between = np.sqrt(dx**2 + dy**2)
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
        moved = np.stack([features[region == r].mean(0) if (region == r).any() else centres[r] for r in range(count)])
        if np.array_equal(moved, centres):
            break
        centres = moved
    return region

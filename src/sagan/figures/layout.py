"""Lay figures out in units that align image tiles with whole pixels."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.image import BboxImage
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.textpath import text_to_path
from matplotlib.transforms import Affine2D, Bbox, TransformedBbox
from numpy.typing import NDArray

from sagan.figures.grid import opaque
from sagan.figures.labels import Fitted, fit_labels

INK, GREY = "#28282e", "#6b6b73"
GUTTER, MARGIN = 6, 14  # layout units
LABEL_SIZE = 7.5  # points
_TILE = 112  # layout units; a tile is the smallest multiple of the image of at least this
_LABEL_WIDTH = 120  # layout units to which a label is shortened
_UNITS_PER_INCH, _DPI = 100, 200


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the warning per glyph that the font lacks; such glyphs are drawn as boxes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")
        yield


class Page:
    """A figure laid out in units from the upper left corner, so that tiles align with whole pixels.

    Images, discs and texts are artists of the figure itself: axes for each tile would take most of the time.
    """

    def __init__(self, width: float, height: float):
        self.width, self.height = width, height
        self.figure = Figure((width / _UNITS_PER_INCH, height / _UNITS_PER_INCH), dpi=_DPI, facecolor="white")
        self.figure.suppressComposite = True  # an SVG keeps each image by itself
        self._units = Affine2D().scale(1 / width, -1 / height).translate(0, 1) + self.figure.transFigure

    def text(self, x: float, y: float, text: str, *, size: float, colour: str = INK, **options: Any) -> None:
        options = {"ha": "left", "va": "center", **options}
        place = (x / self.width, 1 - y / self.height)
        self.figure.text(*place, text, fontsize=size, color=colour, parse_math=False, **options)

    def image(self, image: NDArray[np.uint8], x: float, y: float, side: float, frame: str) -> None:
        """Place a square image in a frame, its upper left corner at (x, y)."""
        self._place(image, x, y, side, side, interpolation="nearest")
        style: dict[str, Any] = {"fill": False, "edgecolor": frame, "linewidth": 1.5}
        self.figure.add_artist(Rectangle((x, y), side, side, transform=self._units, **style))

    def bar(self, image: NDArray[np.uint8], x: float, y: float, width: float, height: float) -> None:
        """Stretch an image over a rectangle without a frame, its upper left corner at (x, y)."""
        self._place(image, x, y, width, height)

    def dot(self, x: float, y: float, *, size: float, colour: str, edge: float) -> None:
        """Draw a disc with a white edge around (x, y). Its diameter `size` and the width `edge` are in points."""
        style: dict[str, Any] = {"markerfacecolor": colour, "markeredgecolor": "white", "markeredgewidth": edge}
        style |= {"marker": "o", "markersize": size, "zorder": 2.6}  # above frames, below texts
        self.figure.add_artist(Line2D([x], [y], transform=self._units, **style))

    def _place(self, image: NDArray[np.uint8], x: float, y: float, width: float, height: float, **options: Any) -> None:
        placed = BboxImage(TransformedBbox(Bbox.from_bounds(x, y, width, height), self._units), **options)
        placed.set_data(image)
        self.figure.add_artist(placed)


def tile_side(resolution: int, room: float = 0) -> int:
    """Return the side of a tile: a whole number of units per pixel, so that all pixels have the same size.

    Args:
        resolution: side of the image, pixels.
        room: layout units for the tile: a larger one is drawn if it fits.
    """
    return resolution * max(1, -(-_TILE // resolution), int(room / resolution))


def fit_row_labels(labels: Sequence[str]) -> list[Fitted]:
    """Return the labels of rows as they can be drawn, shortened to the width that they may have."""
    return fit_labels(labels, [_LABEL_WIDTH] * len(labels), label_width)


def label_width(text: str, font: Path) -> float:
    """Return the width of a row's label in a font, layout units."""
    return _width(text, FontProperties(fname=str(font), size=LABEL_SIZE))


def text_width(text: str, size: float, weight: str = "normal") -> float:
    """Return the width of a line of text of a size in points, layout units."""
    return _width(text, FontProperties(size=size, weight=weight))


def _width(text: str, font: FontProperties) -> float:
    with quiet():
        points = text_to_path.get_text_width_height_descent(text, font, ismath=False)[0]
    return points / 72 * _UNITS_PER_INCH


def rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert an image (H, W, C) to RGB, alpha composited over a checkerboard."""
    return np.asarray(opaque(image).convert("RGB"))

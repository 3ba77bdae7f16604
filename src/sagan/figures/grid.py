"""Grids of pictures: arrays in, one picture out; and the two ways a figure reaches the disk."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from sagan.errors import UserError
from sagan.files import write_atomically

_INK, _PAPER = (40, 40, 46), (255, 255, 255)
_MARGIN, _GUTTER, _TILE = 12, 3, 64  # pixels; a tile is at least _TILE wide
_LABEL_SIZE, _TITLE_SIZE, _LABEL_WIDTH = 15, 19, 180  # pixels
_CHECKER = (255, 226)  # the two greys under transparent pixels
GRID_COLUMNS = 8
"""Columns of a grid of samples."""


def draw_grid(
    images: NDArray[np.uint8],
    *,
    columns: int,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    title: str | None = None,
    scale: int | None = None,
) -> Image.Image:
    """Pictures row by row on white, as they are or magnified without smoothing.

    Args:
        images: (N, H, W, C) uint8; C is 1 (grey), 3 (RGB) or 4 (RGBA, shown over a light checkerboard).
        columns: pictures a row; the last row may be shorter.
        row_labels: one name for every row, written left of it.
        column_labels: one name for every column, written above it; neighbours of one name share it.
        title: one line above the grid.
        scale: magnification; None: the smallest that makes a picture 64 pixels wide or more.
    """
    count, height, width, channels = images.shape
    if images.dtype != np.uint8 or channels not in (1, 3, 4) or count < 1 or columns < 1:
        raise ValueError(f"a grid of {columns} columns cannot show {images.dtype} images of shape {images.shape}")
    columns = min(columns, count)
    rows = -(-count // columns)
    if row_labels is not None and len(row_labels) != rows:
        raise ValueError(f"{len(row_labels)} labels for {rows} rows")
    if column_labels is not None and len(column_labels) != columns:
        raise ValueError(f"{len(column_labels)} labels for {columns} columns")
    scale = scale or _scale(width)
    height, width = height * scale, width * scale

    label_font, title_font = ImageFont.load_default(_LABEL_SIZE), ImageFont.load_default(_TITLE_SIZE)
    labels = [_shorten(label, label_font, _LABEL_WIDTH) for label in row_labels or ()]
    left = _MARGIN + max((int(label_font.getlength(label)) + _MARGIN for label in labels), default=0)
    head = _MARGIN + (_TITLE_SIZE + _MARGIN if title else 0)  # where the column labels begin
    top = head + (_LABEL_SIZE + _MARGIN // 2 if column_labels else 0)
    size = (
        left + columns * (width + _GUTTER) - _GUTTER + _MARGIN,
        top + rows * (height + _GUTTER) - _GUTTER + _MARGIN,
    )
    if title:  # a long title over a narrow grid makes the page wider
        size = (max(size[0], int(title_font.getlength(title)) + 2 * _MARGIN), size[1])
    page = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(page)
    if title:
        draw.text((left, _MARGIN + _TITLE_SIZE // 2), title, _INK, title_font, anchor="lm")
    for row, label in enumerate(labels):
        middle = top + row * (height + _GUTTER) + height // 2
        draw.text((left - _MARGIN, middle), label, _INK, label_font, anchor="rm")
    column = 0
    for label, group in groupby(column_labels or ()):
        number = len(list(group))
        middle = left + column * (width + _GUTTER) + (number * (width + _GUTTER) - _GUTTER) // 2
        text = _shorten(label, label_font, number * (width + _GUTTER) - 2 * _GUTTER)
        draw.text((middle, head + _LABEL_SIZE // 2), text, _INK, label_font, anchor="mm")
        column += number
    for number, image in enumerate(images.repeat(scale, axis=1).repeat(scale, axis=2)):
        row, column = divmod(number, columns)
        page.paste(opaque(image), (left + column * (width + _GUTTER), top + row * (height + _GUTTER)))
    return page


def cut_grid(page: Image.Image, side: int, *, columns: int) -> NDArray[np.uint8]:
    """The pictures on a page that `draw_grid` drew of square ones, without title or column labels.

    Args:
        page: RGB.
        side: of the pictures before they were magnified, in pixels.
        columns: pictures a row.

    Returns (rows, columns, side, side, 3) uint8. Raises ValueError if the page is of another size than that.
    """
    scale = _scale(side)
    step = side * scale + _GUTTER
    left, rows = page.width - _MARGIN + _GUTTER - columns * step, (page.height - 2 * _MARGIN + _GUTTER) // step
    if left < _MARGIN or rows < 1 or page.height != rows * step - _GUTTER + 2 * _MARGIN:
        raise ValueError(f"{page.width} x {page.height} pixels are no grid of {columns} pictures of {side} a row")
    pixels = np.asarray(page.convert("RGB"))
    tops, lefts = (start + step * np.arange(n) for start, n in ((_MARGIN, rows), (left, columns)))
    inside = scale * np.arange(side)  # one pixel of each magnified one
    y, x = tops[:, None] + inside, lefts[:, None] + inside
    return pixels[y[:, None, :, None], x[None, :, None, :]]


def save(image: Image.Image, path: Path | str) -> None:
    """Write a PNG file, whole or not at all, with its folder if need be. UserError when that is not possible."""
    write_atomically(Path(path), lambda temporary: image.save(temporary, format="PNG"))


def read(path: Path) -> Image.Image:
    """A PNG file as `save` wrote it. Raises UserError if it is damaged, or something else."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return image.copy()
    except Exception as error:  # a decoder may raise anything on a damaged file
        raise UserError(f"{path} is damaged, no PNG that can be read: delete it") from error


def animate(frames: Sequence[Image.Image], path: Path | str, seconds_per_frame: float) -> None:
    """Write frames of one size as an endless GIF, whole or not at all. UserError when that is not possible."""
    if not frames:
        raise ValueError("no frames to animate")
    # One palette for all keeps still areas from flickering; a few frames know its colours.
    some = [np.asarray(frames[at].convert("RGB")) for at in np.linspace(0, len(frames) - 1, 8).round().astype(int)]
    colours = np.reshape(Image.fromarray(np.concatenate(some)).quantize(256).getpalette() or [], (-1, 3))
    colours[(colours >= 248).all(1)] = _PAPER  # or the paper would take on a tint
    palette = Image.new("P", (1, 1))
    palette.putpalette(colours.ravel().tolist())
    pictures = [frame.convert("RGB").quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    write_atomically(
        Path(path),
        lambda temporary: pictures[0].save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=pictures[1:],
            duration=round(1000 * seconds_per_frame),
            loop=0,
        ),
    )


def opaque(image: NDArray[np.uint8]) -> Image.Image:
    """One picture (H, W, C) in mode L or RGB; alpha shown over a checkerboard."""
    height, width, channels = image.shape
    if channels == 1:
        return Image.fromarray(image[..., 0])
    if channels == 3:
        return Image.fromarray(image)
    rows, columns = np.ogrid[:height, :width]
    greys = np.where((rows // 8 + columns // 8) % 2, *_CHECKER)[..., None]
    alpha = image[..., 3:] / 255
    return Image.fromarray((image[..., :3] * alpha + greys * (1 - alpha)).round().astype(np.uint8))


def _scale(width: int) -> int:
    """The smallest magnification that makes a picture a tile wide or more."""
    return -(-_TILE // width)


def _shorten(label: str, font: Any, width: int) -> str:
    if font.getlength(label) <= width:
        return label
    while label and font.getlength(label + "...") > width:
        label = label[:-1]
    return label.rstrip() + "..."

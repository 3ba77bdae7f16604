"""Draw grids of images, and write images as PNG and GIF."""

import warnings
from collections.abc import Sequence
from functools import cache
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from sagan.errors import UserError
from sagan.figures.labels import Fitted, default_font, fit_labels
from sagan.files import write_atomically
from sagan.marks import FIGURE, FIGURE_KEY, FILM_KEY, SAMPLE, figure_text, sample_text

_INK, _PAPER = (40, 40, 46), (255, 255, 255)
_MARGIN, _GUTTER = 12, 3  # pixels
_TILE = 64  # least width of a magnified image, pixels
_LABEL_SIZE, _TITLE_SIZE, _LABEL_WIDTH = 15, 19, 180  # pixels
_CHECKER = (255, 226)  # the two greys under transparent pixels
GRID_COLUMNS = 8
"""Columns of a grid of samples."""
GRID_ROWS = 12
"""Classes in a grid of samples at most: the first ones."""
MAX_PIXELS = 64_000_000
"""Pixels of one page."""


def draw_grid(
    images: NDArray[np.uint8],
    *,
    columns: int,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    title: str | None = None,
    scale: int | None = None,
) -> Image.Image:
    """Draw images row by row on white, magnified without smoothing.

    Args:
        images: (N, H, W, C) uint8; C is 1 (grey), 3 (RGB) or 4 (RGBA, shown over a light checkerboard).
        columns: images per row; the last row may be shorter.
        row_labels: one name per row, written to its left as `fit_labels` fits it.
        column_labels: one name per column, written above it; equal neighbouring names are written once.
        title: a line above the grid.
        scale: magnification, an integer; None: the smallest that makes an image at least 64 pixels wide.

    Raises:
        ValueError: another shape or dtype, or another number of labels than rows or columns.
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
    scale = scale or default_scale(width)
    height, width = height * scale, width * scale

    title_font = _font(default_font(), _TITLE_SIZE)
    labels = fit_labels(row_labels or (), [_LABEL_WIDTH] * len(row_labels or ()), _measure)
    left = _MARGIN + max((int(_measure(*label)) + _MARGIN for label in labels), default=0)
    head = _MARGIN + (_TITLE_SIZE + _MARGIN if title else 0)  # top of the column labels
    top = head + (_LABEL_SIZE + _MARGIN // 2 if column_labels else 0)
    size = (
        left + columns * (width + _GUTTER) - _GUTTER + _MARGIN,
        top + rows * (height + _GUTTER) - _GUTTER + _MARGIN,
    )
    if title:  # a long title over a narrow grid widens the page
        size = (max(size[0], int(title_font.getlength(title)) + 2 * _MARGIN), size[1])
    page = Image.new("RGB", size, _PAPER)
    page.info[FIGURE_KEY] = FIGURE
    draw = ImageDraw.Draw(page)
    if title:
        draw.text((left, _MARGIN + _TITLE_SIZE // 2), title, _INK, title_font, anchor="lm")
    for row, label in enumerate(labels):
        middle = top + row * (height + _GUTTER) + height // 2
        _write(draw, (left - _MARGIN, middle), label, "rm")
    groups = [(label, len(list(group))) for label, group in groupby(column_labels or ())]
    widths = [number * (width + _GUTTER) - 2 * _GUTTER for _, number in groups]
    column = 0
    for label, (_, number) in zip(fit_labels([name for name, _ in groups], widths, _measure), groups, strict=True):
        middle = left + column * (width + _GUTTER) + (number * (width + _GUTTER) - _GUTTER) // 2
        _write(draw, (middle, head + _LABEL_SIZE // 2), label, "mm")
        column += number
    for number, image in enumerate(images.repeat(scale, axis=1).repeat(scale, axis=2)):
        row, column = divmod(number, columns)
        page.paste(opaque(image), (left + column * (width + _GUTTER), top + row * (height + _GUTTER)))
    return page


def wrap_rows(
    images: NDArray[np.uint8], labels: Sequence[str] | None, columns: int
) -> tuple[NDArray[np.uint8], list[str] | None]:
    """Continue long rows on the next ones, the last of which may end in white.

    Args:
        images: (rows, N, H, W, C) uint8.
        labels: one per row, or None.
        columns: images that a row has at most.

    Returns:
        The images for `draw_grid`, and their labels: '' where a row is continued.
    """
    rows = -(-images.shape[1] // columns)  # that one becomes
    missing = rows * columns - images.shape[1] if rows > 1 else 0
    tiles = np.pad(images, ((0, 0), (0, missing), (0, 0), (0, 0), (0, 0)), constant_values=255)
    wrapped = None if labels is None else [label if i == 0 else "" for label in labels for i in range(rows)]
    return tiles.reshape(-1, *images.shape[2:]), wrapped


def cut_grid(page: Image.Image, side: int, *, columns: int) -> NDArray[np.uint8]:
    """Return the images of a page that `draw_grid` drew of square images, without title or column labels.

    Args:
        page: RGB.
        side: side of the images before magnification, pixels.
        columns: images per row.

    Returns:
        (rows, columns, side, side, 3) uint8.

    Raises:
        ValueError: the page does not have the size of such a grid.
    """
    scale = default_scale(side)
    step = side * scale + _GUTTER
    left, rows = page.width - _MARGIN + _GUTTER - columns * step, (page.height - 2 * _MARGIN + _GUTTER) // step
    if left < _MARGIN or rows < 1 or page.height != rows * step - _GUTTER + 2 * _MARGIN:
        expected = f"a grid of {columns} images of {side} pixels per row"
        raise ValueError(f"{page.width} x {page.height} pixels is not the size of {expected}")
    pixels = np.asarray(page.convert("RGB"))
    tops, lefts = (start + step * np.arange(n) for start, n in ((_MARGIN, rows), (left, columns)))
    inside = scale * np.arange(side)  # one pixel of each magnified pixel
    y, x = tops[:, None] + inside, lefts[:, None] + inside
    return pixels[y[:, None, :, None], x[None, :, None, :]]


def save(image: Image.Image, path: Path | str, *, step: int | None = None) -> None:
    """Write a PNG file atomically, creating its folder; a page of `draw_grid` is marked as a figure of sagan.

    The mark names the step of the generator that drew it, if it is given. An image of `mark_sample` is marked too.

    Raises UserError if the file cannot be written.
    """
    info = png_marks(image, step)
    write_atomically(Path(path), lambda temporary: image.save(temporary, format="PNG", pnginfo=info))


def png_marks(image: Image.Image, step: int | None = None) -> PngInfo:
    """Return the text chunks of an image's PNG: whether it is a figure, and of which step, or a sample."""
    info = PngInfo()
    if image.info.get(FIGURE_KEY) == FIGURE:
        info.add_text(FIGURE_KEY, figure_text(step))
    elif image.info.get(FIGURE_KEY, "").startswith(SAMPLE):
        info.add_text(FIGURE_KEY, image.info[FIGURE_KEY])
    return info


def mark_sample(image: Image.Image, checksum: str) -> Image.Image:
    """Mark an image as generated, with the checksum of its weights and latents, for `save` to write; return it."""
    image.info[FIGURE_KEY] = sample_text(checksum)
    return image


def read(path: Path) -> Image.Image:
    """Read a PNG file that `save` wrote. Raises UserError if it is damaged, too large or not a PNG."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=["PNG"]) as image:
            if image.width * image.height > MAX_PIXELS:  # before any is decoded
                raise UserError(f"{path} has {image.width:,} x {image.height:,} pixels, more than a grid: delete it")
            return image.copy()
    except UserError:
        raise
    except Exception as error:  # a decoder may raise anything on a damaged file
        raise UserError(f"{path} is damaged, not a readable PNG: delete it") from error


def animate(
    frames: Sequence[Image.Image], path: Path | str, seconds_per_frame: float, *, step: int | None = None
) -> None:
    """Write frames of one size as an endless GIF, atomically, marked as `save` marks a figure.

    Raises UserError if it cannot be written.
    """
    if not frames:
        raise ValueError("no frames to animate")
    # One palette for all frames keeps still areas from flickering; a few frames contain its colours.
    some = [np.asarray(frames[at].convert("RGB")) for at in np.linspace(0, len(frames) - 1, 8).round().astype(int)]
    colours = np.reshape(Image.fromarray(np.concatenate(some)).quantize(256).getpalette() or [], (-1, 3))
    colours[(colours >= 248).all(1)] = _PAPER  # otherwise the paper would be tinted
    palette = Image.new("P", (1, 1))
    palette.putpalette(colours.ravel().tolist())
    images = [frame.convert("RGB").quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    write_atomically(
        Path(path),
        lambda temporary: images[0].save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=images[1:],
            duration=round(1000 * seconds_per_frame),
            loop=0,
            comment=(FILM_KEY + figure_text(step)).encode(),
        ),
    )


def opaque(image: NDArray[np.uint8]) -> Image.Image:
    """Convert an image (H, W, C) to mode L or RGB, alpha composited over a checkerboard."""
    height, width, channels = image.shape
    if channels == 1:
        return Image.fromarray(image[..., 0])
    if channels == 3:
        return Image.fromarray(image)
    rows, columns = np.ogrid[:height, :width]
    greys = np.where((rows // 8 + columns // 8) % 2, *_CHECKER)[..., None]
    alpha = image[..., 3:] / 255
    return Image.fromarray((image[..., :3] * alpha + greys * (1 - alpha)).round().astype(np.uint8))


def check_page(count: int, columns: int, height: int, width: int, scale: int | None, advice: str) -> None:
    """Check, before images are drawn, that a page of `draw_grid` is not too large for memory.

    Args:
        count: number of images.
        columns: images per row.
        height, width: size of an image before magnification, pixels.
        scale: magnification; None: the default one.
        advice: what to do if the page is too large.

    Raises:
        UserError: the page has more than MAX_PIXELS.
    """
    scale = scale or default_scale(width)
    columns = min(columns, count)
    size = columns * (width * scale + _GUTTER), -(-count // columns) * (height * scale + _GUTTER)
    if size[0] * size[1] > MAX_PIXELS:
        at_most = f"at most {MAX_PIXELS // 1_000_000} million pixels"
        raise UserError(f"a grid of {count:,} images would be {size[0]:,} x {size[1]:,} pixels ({at_most}): {advice}")


def default_scale(width: int) -> int:
    """Return the smallest magnification that makes an image at least a tile wide."""
    return -(-_TILE // width)


@cache
def _font(path: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(path), size)


def _measure(text: str, font: Path) -> float:
    """Return the width of a label in pixels."""
    return _font(font, _LABEL_SIZE).getlength(text)


def _write(draw: ImageDraw.ImageDraw, place: tuple[float, float], label: Fitted, anchor: str) -> None:
    draw.text(place, label.text, _INK, _font(label.font, _LABEL_SIZE), anchor=anchor)

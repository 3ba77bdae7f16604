"""What a notebook shows: grids of images, and figures of attention results as PNG.

What draws figures is imported when it draws: matplotlib takes a second.
"""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sagan.attention_effect import AttentionEffect
from sagan.attention_maps import AttentionMaps
from sagan.figures.grid import draw_grid
from sagan.pixels import to_bytes

SHOWN = 6  # rows of a figure at most, of each layer


def grid(images: Sequence[Image.Image] | NDArray[np.uint8], columns: int | None = None) -> Image.Image:
    """Draw images row by row on white, small ones magnified without smoothing.

    Args:
        images: PIL images of one size, or an array (N, H, W, C) uint8.
        columns: images per row; None: about as many as rows.

    Raises:
        ValueError: there is no image, sizes differ, or columns is below 1.
    """
    arrays = [np.asarray(_plain(image)) for image in images]
    shapes = {array.shape for array in arrays}
    if len(shapes) != 1:
        raise ValueError("a grid needs at least one image" if not arrays else "the images of a grid must have one size")
    stacked = np.stack(arrays)
    columns = max(1, round(len(arrays) ** 0.5)) if columns is None else columns
    if columns < 1:
        raise ValueError(f"columns must be 1 or more, got {columns}")
    return draw_grid(stacked if stacked.ndim == 4 else stacked[..., None], columns=columns)


def maps_png(maps: AttentionMaps) -> bytes | None:
    """Draw attention maps next to the images that they are of, as PNG; None if there are too many points to tell apart.

    Shows the first `SHOWN` images.
    """
    from sagan.figures.attention import MapSection, draw_maps, to_image
    from sagan.figures.map_colours import COLOURS

    if isinstance(maps.queries, str):
        return None
    images = to_bytes(maps.images[:SHOWN]).permute(0, 2, 3, 1).contiguous().numpy()
    points = np.floor(np.asarray(maps.queries, np.float64)).astype(np.int64)
    points = np.broadcast_to(points, (len(maps.images), *points.shape[-2:]))[:SHOWN]
    if points.shape[1] > len(COLOURS):
        return None
    sections = [MapSection(f"Layer {name}", "", images, points, _array(t)) for name, t in maps.items()]
    return _png(to_image(draw_maps(sections, smooth=True)))


def effect_png(effect: AttentionEffect) -> bytes:
    """Draw the first `SHOWN` images with and without attention, and their difference, as PNG."""
    from sagan.figures.attention import to_image
    from sagan.figures.attention_effect import draw_effect

    first = AttentionEffect(effect.layers, effect.on[:SHOWN], effect.off[:SHOWN])
    title = f"Layer{'s' if len(effect.layers) > 1 else ''} {', '.join(effect.layers)}: as trained and off"
    return _png(to_image(draw_effect(first, title=title, subtitle=f"The images change by {effect.total}")))


def _plain(image: Any) -> Any:
    """Return an image in a mode that grids show."""
    is_other = isinstance(image, Image.Image) and image.mode not in ("L", "RGB", "RGBA")
    return image.convert("RGB") if is_other else image


def _array(maps: Any) -> NDArray[np.float32]:
    array: NDArray[np.float32] = maps[:SHOWN].float().cpu().numpy()
    return array


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()

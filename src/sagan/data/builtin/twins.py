"""The built-in set 'twins': two copies of one small robot in opposite corners, so that distant parts agree exactly.

The robots are those of the built-in set 'robots', in its order and with its classes, at half of the side. One copy
fills the upper left quarter of the image, the other the lower right one. The twin of a location in one quarter lies in
the other quarter, half of the side further right and down, or left and up.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from sagan.data.builtin import robots

CLASS_NAMES = robots.CLASS_NAMES
canvas, version = robots.canvas, robots.version


def copy_side(resolution: int) -> int:
    """Return the side of a copy, in pixels, in images of this side: half of it, rounded down, and at least 1."""
    return max(1, resolution // 2)


def copies(images: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return views (n, S, S, C) of the upper left and the lower right copy in images (n, R, R, C)."""
    side = copy_side(images.shape[1])
    return images[:, :side, :side], images[:, -side:, -side:]


def render_batches(
    count: int,
    resolution: int,
    image_channels: int,
    seed: int,
    background: tuple[int, int, int] = (255, 255, 255),
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """Yield images (n, R, R, C) uint8 and labels (n,). The arguments are those of `robots.render_batches`."""
    empty = robots.finish(np.zeros((1, 1, 1, 4), np.float32), image_channels, background)
    side = copy_side(resolution)
    for robot, labels in robots.render_batches(count, side, image_channels, seed, background):
        images = np.tile(empty, (len(robot), resolution, resolution, 1))
        for copy in copies(images):
            copy[:] = robot
        yield images, labels

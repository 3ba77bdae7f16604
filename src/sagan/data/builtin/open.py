"""One interface to the built-in image sets 'robots', 'twins' and 'digits'."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sagan.config import DataConfig
from sagan.data.builtin import digits, robots, twins
from sagan.errors import UserError


@dataclass(frozen=True)
class BuiltIn:
    """A built-in image set."""

    name: str
    count: int
    """Number of images."""
    class_names: tuple[str, ...]
    canvas: Callable[[str], tuple[int, int]]
    """Width and height in pixels at which the class of this name was drawn. Opens a file."""
    version: str
    """Version of the package that supplies the images: the same version and options give the same images."""
    batches: Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]
    """Images (n, R, R, C) uint8 and labels (n,). Each batch is drawn when it is requested; can be iterated once."""


def open_built_in(config: DataConfig, *, resolution: int, image_channels: int) -> BuiltIn | None:
    """Open the built-in set that the source names; return None if the source is not built in.

    Raises:
        UserError: the package that supplies the images is not installed, or the number of robots is below 1.
    """
    if config.source in ("robots", "twins"):
        if config.robots < 1:
            raise UserError(f"robots is {config.robots}: must be 1 or more")
        drawn = robots if config.source == "robots" else twins
        return BuiltIn(
            name=config.source,
            count=config.robots,
            class_names=drawn.CLASS_NAMES,
            canvas=drawn.canvas,
            version=drawn.version(),
            batches=drawn.render_batches(config.robots, resolution, image_channels, 0, config.background),
        )
    if config.source == "digits":
        return BuiltIn(
            name="digits",
            count=digits.COUNT,
            class_names=digits.CLASS_NAMES,
            canvas=lambda name: digits.CANVAS,
            version=digits.version(),
            batches=digits.render_batches(resolution, image_channels),
        )
    return None

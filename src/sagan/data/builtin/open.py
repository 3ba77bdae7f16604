"""The sets of pictures that are drawn here, 'robots' and 'digits', in one form."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sagan.config import DataConfig
from sagan.data.builtin import digits, robots
from sagan.errors import UserError


@dataclass(frozen=True)
class BuiltIn:
    """One of them."""

    name: str
    count: int
    """Pictures."""
    class_names: tuple[str, ...]
    canvas: Callable[[str], tuple[int, int]]
    """Of a class, by its name: width and height, in pixels, at which it was drawn; opens a file."""
    version: str
    """Of what it is drawn with: of equal versions and options, equal pictures."""
    batches: Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]
    """Images (n, R, R, C) uint8 and labels (n,), drawn as they are asked for; to be walked through once."""


def open_built_in(config: DataConfig, *, resolution: int, image_channels: int) -> BuiltIn | None:
    """The built-in set that is the source; None where it is none.

    Raises:
        UserError: the package it is drawn from is not installed, or no picture is asked for.
    """
    if config.source == "robots":
        if config.robots < 1:
            raise UserError(f"robots is {config.robots}: render 1 picture or more")
        return BuiltIn(
            name="robots",
            count=config.robots,
            class_names=robots.CLASS_NAMES,
            canvas=robots.canvas,
            version=robots.version(),
            batches=robots.render_batches(config.robots, resolution, image_channels, 0, config.background),
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

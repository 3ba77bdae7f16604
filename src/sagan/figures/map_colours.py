"""Colour attention maps and their query points: one scale for all maps, in multiples of even attention.

A map is coloured by sqrt(weight / top), from dark purple (no weight) to yellow (the top of the scale and above). The
root spreads the low end, where most weights are: on the common scale even attention, 1, lies at 35 % of the bar.
"""

import matplotlib
import numpy as np
from numpy.typing import NDArray

from sagan.figures.layout import rgb

COLOURS = ("#d3122b", "#0d7a34", "#1f5eea", "#a85400", "#8434d6", "#00727c", "#b8178f", "#6d5312")
"""Colours of the query points in order, dark enough for white numbers; there are as many points as colours at most."""

TOP = 8.0
"""Top of the common scale, in multiples of even attention. Larger weights have its colour."""

_LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue in the luma
_SHADE = 0.45  # weight of the image where a map is composited over it
_RAMP = np.asarray(matplotlib.colormaps["viridis"](np.linspace(0, 1, 256))[:, :3])  # (256, 3) in [0, 1]


def paint_map(
    weights: NDArray[np.float32], *, top: float | None = TOP, image: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Colour a map (H, W), in multiples of even attention: (H, W, 3) uint8.

    Args:
        weights: 1 everywhere is even attention, no preference at all.
        top: weight at the top of the scale; None: the map's own peak.
        image: (H, W, C) uint8, composited under the map in grey; None: the map alone.
    """
    top = max(float(weights.max()), 1e-30) if top is None else top
    position = np.sqrt(np.clip(weights / top, 0, 1))
    colour = _RAMP[(position * 255).round().astype(np.int64)]
    if image is not None:
        grey = (rgb(image) @ np.array(_LUMA))[..., None] / 255
        colour = (1 - _SHADE) * colour + _SHADE * grey
    return np.asarray((colour * 255).round(), np.uint8)


def scale_position(weight: float, top: float = TOP) -> float:
    """Return where a weight lies on the colour bar, from 0 to 1."""
    return float(np.sqrt(np.clip(weight / top, 0, 1)))


def ramp_colours(count: int) -> list[str]:
    """Return evenly spaced colours of the bar, '#rrggbb', the first for no weight and the last for the top."""
    at = np.linspace(0, 255, count).round().astype(np.int64)
    return ["#" + bytes((_RAMP[i] * 255).round().astype(np.uint8)).hex() for i in at]

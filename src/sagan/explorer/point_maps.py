"""Paint the attention maps of an image's points for the page, and measure them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sagan.attention_maps import resize_maps
from sagan.explorer.schemas import NetworkName
from sagan.figures.map_colours import TOP, paint_map


@dataclass(frozen=True)
class MapStyle:
    """How maps are painted."""

    smooth: bool = True
    """Interpolate between the centres of the keys; False: draw the keys as cells."""
    own_scale: bool = False
    """Scale each map to its own peak, instead of all to the common scale."""
    over_image: bool = False
    """Composite maps over their image, in grey."""


@dataclass(frozen=True)
class PointMap:
    """The attention map of one query point in one layer."""

    painted: NDArray[np.uint8]
    """(R, R, 3): the map in colours."""
    peak: float
    """The largest weight, in multiples of uniform attention."""
    distance: float
    """Mean attention distance, in pixels of the image."""
    share: float
    """|gamma · o| / |x| at the point: how much the layer adds to the features there."""


@dataclass(frozen=True)
class LayerMaps:
    """The maps of one layer."""

    network: NetworkName
    name: str
    strength: float
    """|gamma · o| / |x| over the whole image."""
    maps: dict[int, PointMap]
    """Number of the point -> map."""


def draw_point_maps(
    image: NDArray[np.uint8],
    maps_QKK: Tensor,
    shares: Sequence[float],
    points: Mapping[int, tuple[float, float]],
    grid: int,
    style: MapStyle,
) -> dict[int, PointMap]:
    """Paint maps, and measure them.

    Args:
        image: (R, R, C), which the maps are of.
        maps_QKK: each sums to 1.
        shares: |gamma · o| / |x| at each point.
        points: number -> (x, y) in pixels, in the order of the maps.
        grid: side of the layer's grid of queries.
        style: how to paint them.
    """
    resolution = image.shape[0]
    keys = maps_QKK.shape[-1]
    upsampled_QRR = resize_maps(maps_QKK, resolution, smooth=style.smooth).numpy() * resolution**2
    centres = (torch.arange(keys) + 0.5) * (resolution / keys)  # of the keys, px
    point_maps = {}
    maps = zip(points.items(), maps_QKK, upsampled_QRR, shares, strict=True)
    for (number, point), map_KK, map_RR, share in maps:
        # The query is the grid location that holds the point; distances are from its centre.
        x, y = ((int(c * grid / resolution) + 0.5) * (resolution / grid) for c in point)
        distances = torch.hypot(centres[None, :] - x, centres[:, None] - y)
        point_maps[number] = PointMap(
            painted=paint_map(map_RR, top=None if style.own_scale else TOP, image=image if style.over_image else None),
            peak=float(map_KK.max()) * keys**2,
            distance=float((map_KK * distances).sum()),
            share=share,
        )
    return point_maps

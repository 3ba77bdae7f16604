"""Measure in an evaluation on the built-in set 'twins' what `sagan.metrics.twins` measures, in images and networks."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sagan.attention_maps import attention_layers, attention_maps
from sagan.data.builtin.twins import copy_side
from sagan.errors import UserError
from sagan.metrics.features import BATCH
from sagan.metrics.measurement import Measurement
from sagan.metrics.twins import TwinHits, count_twin_hits, measure_twins
from sagan.model.discriminator import Discriminator
from sagan.model.generator import Generator
from sagan.pixels import to_signed
from sagan.sampling import draw_latents
from sagan.text import short

SOURCE = "twins"
MOST_IMAGES = 2_000
"""Images whose copies are compared at most."""
MAPPED_IMAGES = 256
"""Images whose maps are computed at most."""


def evaluate_copies(read: Callable[[int, int], Tensor], labels: NDArray[np.int64]) -> list[Measurement]:
    """Measure how far the two copies in images of classes (N,) agree.

    Args:
        read: returns the images from i to j, (j - i, C, R, R) uint8; i is a multiple of BATCH.
    """
    count = min(len(labels), MOST_IMAGES)
    images = torch.cat([read(i, min(i + BATCH, count)) for i in range(0, count, BATCH)])
    try:
        found = measure_twins(images.permute(0, 2, 3, 1).numpy(), labels[:count])
    except ValueError:  # no two images of a class
        return []
    unrelated = "copies of two different images"
    return [
        Measurement(
            "twin correlation",
            found.correlation,
            None,
            f"1 is best; {unrelated}: {short(found.unrelated_correlation)}",
        ),
        Measurement(
            "twin distance",
            found.distance,
            None,
            f"0 is best, in grey levels of 255; {unrelated}: {short(found.unrelated_distance)}",
        ),
    ]


def evaluate_peaks(network: Generator | Discriminator, images: Tensor, y: Tensor, *, seed: int) -> list[Measurement]:
    """Measure how often the peak of a query's map lies on the query's twin, over all self-attention layers.

    The queries are all pixels in the middle half of both copies.

    Args:
        network: a generator is shown latents, a discriminator the images.
        images: real images (N, C, R, R) uint8.
        y: their classes (N,), which a generator gets too.
        seed: of the latents.

    Returns:
        Nothing if the network has no self-attention layer.
    """
    try:
        attention_layers(network)
    except UserError:
        return []
    images, y = images[:MAPPED_IMAGES], y[:MAPPED_IMAGES]
    if network.role == "generator":
        inputs = draw_latents(len(y), network.config.latent_dim, seed=seed)
    else:
        inputs = to_signed(images)
    resolution = network.config.resolution
    points = middle_points(resolution)
    maps = attention_maps(network, inputs, y, queries=points)
    hits = [count_twin_hits(of_layer, points, resolution) for of_layer in maps.values()]
    return [
        Measurement(
            f"peaks on the twin, {network.role}",
            _mean(hits, "twin"),
            None,
            f"1 is best; by chance {short(_mean(hits, 'chance'))}; on the query itself {short(_mean(hits, 'own'))}",
        )
    ]


def middle_points(resolution: int) -> NDArray[np.float64]:
    """Return the pixels (Q, 2), (x, y), in the middle half of both copies: where the robots are."""
    side = copy_side(resolution)
    along = np.arange(side // 4, side - side // 4)
    upper = np.stack(np.meshgrid(along, along), -1).reshape(-1, 2)
    return np.concatenate([upper, upper + resolution - side]).astype(np.float64)


def _mean(hits: list[TwinHits], name: str) -> float:
    return float(np.mean([getattr(of_layer, name) for of_layer in hits]))

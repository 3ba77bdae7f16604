"""Compare long-range structure: the patch correlation error, by the distance between two patches.

An image is reduced to 8 x 8 patches, the means of red, green and blue in each: 192 values. The class mean of every
value is removed, since a conditional generator gets it from the label. Over a set of images the correlations of these
values form a 192 x 192 matrix. The error at a distance is the root mean square difference between the matrices of
generated and of real images, over all pairs of values in two different patches whose centres lie that far apart. It is
above 0 for finite sets even if nothing is wrong: its floor is the error between two disjoint real sets of that size.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sagan.distributed import Processes
from sagan.metrics.features import BATCH, Features, to_rgb

SIDE = 8
"""Patches along a side of an image."""
BIN_WIDTH = 1.5
"""Width of a distance bin, in patches. Bin k holds the distances from 1.5 k up to, but not including, 1.5 (k + 1)."""
NEAR_BELOW, FAR_ABOVE = 3.0, 5.0
"""A bin is near if its middle lies below 3 patches, and far if its middle lies above 5."""
LEAST_DEVIATION = 1.0
"""Standard deviation within classes, in grey levels of 255, below which a value hardly varies."""
LEAST_IMAGES = 10
"""Images that each of the three sets needs."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class PatchCorrelation:
    """The patch correlation error of generated images and its floor, by distance."""

    distance: tuple[float, ...]
    """Mean distance between the patches of a bin's pairs, in patches. A bin without pairs is not listed."""
    error: tuple[float, ...]
    """Error between generated and real images in each bin, 0 to 2."""
    floor: tuple[float, ...]
    """The same between two disjoint sets of real images."""
    images: int
    """Images in each of the three sets: generated, real, other real. All have the same number of each class."""
    pairs: int
    """Pairs of values that were compared."""
    excluded: int
    """Pairs not compared because one of their values hardly varies in one of the real sets.

    Which pairs these are does not depend on the generated images.
    """

    @property
    def near(self) -> float:
        """The mean error of the near bins; NaN if there is none."""
        return _mean_of(self.error, self._is_near())

    @property
    def far(self) -> float:
        """The mean error of the far bins; NaN if there is none."""
        return _mean_of(self.error, self._is_far())

    @property
    def near_floor(self) -> float:
        """The mean floor of the near bins; NaN if there is none."""
        return _mean_of(self.floor, self._is_near())

    @property
    def far_floor(self) -> float:
        """The mean floor of the far bins; NaN if there is none."""
        return _mean_of(self.floor, self._is_far())

    def as_json(self) -> dict[str, Any]:
        """Return all values as JSON values; null where there is no bin."""
        ends = {name: getattr(self, name) for name in ("near", "far", "near_floor", "far_floor")}
        return asdict(self) | {name: None if np.isnan(value) else value for name, value in ends.items()}

    def _is_near(self) -> list[bool]:
        return [_middle(distance) < NEAR_BELOW for distance in self.distance]

    def _is_far(self) -> list[bool]:
        return [_middle(distance) > FAR_ABOVE for distance in self.distance]


class PatchReader:
    """Reads images for another metric and keeps their patch values, so that images are drawn or decoded once.

    Args:
        read: returns the images from i to j, (j - i, C, H, W) uint8; i is a multiple of BATCH.
    """

    def __init__(self, read: Callable[[int, int], Tensor]):
        self.read = read
        self._values: dict[int, Array] = {}

    def __call__(self, i: int, j: int) -> Tensor:
        """Return the images from i to j."""
        images = self.read(i, j)
        self._values[i] = patch_values(images)
        return images

    def values(self, total: int, share: Processes) -> Array:
        """Return the patch values (total, D) of all images; those that were not read yet are read now.

        All processes that share the work call this.
        """

        def of_batch(number: int) -> Array:
            i = number * BATCH
            j = min(i + BATCH, total)
            if len(self._values.get(i, ())) != j - i:
                self(i, j)
            return self._values[i]

        return np.concatenate(share.map(of_batch, -(-total // BATCH)))


def patch_values(images: Tensor) -> Array:
    """Return the means (N, 192) float64 of 64 patches of images (N, C, H, W) uint8, channel by channel.

    Grey is repeated and RGBA is composited over white. Sides that 8 does not divide give patches that overlap.
    """
    values: Array = F.adaptive_avg_pool2d(to_rgb(images).double(), SIDE).flatten(1).numpy()
    return values


class PatchMeans(Features):
    """Compute patch values (D = 192) in float32, as features, so that those of reference images are cached."""

    name, size, resize = "patch means", None, "bilinear"
    checksum = "1"
    """Version of the values."""

    def embed(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(x, SIDE).flatten(1)


def compare_patch_correlation(
    generated: Array, y_generated: NDArray[np.int64], real: Array, y_real: NDArray[np.int64]
) -> PatchCorrelation | None:
    """Compare the correlations of patch values of generated (N, D) and real (M, D) images with classes (N,) and (M,).

    Three sets with the same number of images of each class are formed: the first generated images of a class, its
    first real images, and the real images that follow. A class with fewer than two images in a set is skipped. Without
    classes, all labels are 0.

    Returns:
        None if a set has fewer than 10 images.
    """
    sets: tuple[list[Array], list[Array], list[Array]] = ([], [], [])
    for y in np.unique(y_generated):
        ours, theirs = generated[y_generated == y], real[y_real == y]
        n = min(len(ours), len(theirs) // 2)
        if n < 2:
            continue
        for of_set, values in zip(sets, (ours[:n], theirs[:n], theirs[n : 2 * n]), strict=True):
            of_set.append(values - values.mean(0))
    images = sum(map(len, sets[0]))
    if images < LEAST_IMAGES:
        return None
    (of_generated, _), *of_real = (_correlations(np.concatenate(of_set)) for of_set in sets)
    (of_first, deviation_first), (of_second, deviation_second) = of_real
    varies = np.minimum(deviation_first, deviation_second) >= LEAST_DEVIATION
    compared = varies[:, None] & varies

    distances = _distances(generated.shape[1])
    bins = (distances // BIN_WIDTH).astype(np.int64)
    other_patch = np.triu(distances > 0)  # each pair once, and none within a patch
    listed: list[tuple[float, float, float]] = []
    for number in range(bins.max() + 1):
        pairs = other_patch & compared & (bins == number)
        if pairs.any():
            error, floor = (_root_mean_square((x - of_first)[pairs]) for x in (of_generated, of_second))
            listed.append((float(distances[pairs].mean()), error, floor))
    distance, errors, floors = zip(*listed, strict=True) if listed else ((), (), ())
    return PatchCorrelation(
        distance,
        errors,
        floors,
        images=images,
        pairs=int((other_patch & compared).sum()),
        excluded=int((other_patch & ~compared).sum()),
    )


def _correlations(x: Array) -> tuple[Array, Array]:
    """Return the correlations (D, D) and standard deviations (D,) of centred values (N, D).

    A constant value correlates with nothing: its rows are 0, so a generator that never varies has an error.
    """
    deviation = np.sqrt((x**2).mean(0))
    z = x / np.where(deviation > 1e-9, deviation, np.inf)
    return z.T @ z / len(x), deviation


def _distances(values: int) -> Array:
    """Return the distances (D, D) between the centres of the patches of two values, in patches."""
    rows, columns = np.divmod(np.arange(values) % SIDE**2, SIDE)
    return np.hypot(rows[:, None] - rows, columns[:, None] - columns)


def _middle(distance: float) -> float:
    """Return the middle of the bin that holds a distance."""
    return (distance // BIN_WIDTH + 0.5) * BIN_WIDTH


def _root_mean_square(x: Array) -> float:
    return float(np.sqrt((x**2).mean()))


def _mean_of(values: tuple[float, ...], chosen: list[bool]) -> float:
    selected = [value for value, is_chosen in zip(values, chosen, strict=True) if is_chosen]
    return float(np.mean(selected)) if selected else float("nan")

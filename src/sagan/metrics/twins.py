"""Measure on the built-in set 'twins' what is known there: distant parts agree, and a point should look at its twin."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sagan.data.builtin.twins import copies, copy_side

REACH = 2
"""Pixels by which a copy may be displaced, along each axis."""


@dataclass(frozen=True)
class TwinAgreement:
    """How far the two copies in an image agree after alignment.

    Real twins have correlation 1, distance 0 and displacement 0. The values of unrelated copies, those of two different
    images of a class, say what copies have in common without agreeing: alignment alone makes their correlation
    positive.
    """

    correlation: float
    """Correlation between the pixel values of the two copies, the mean image of each class and copy removed."""
    distance: float
    """Root mean square difference between the two copies, in grey levels of 255."""
    displacement: float
    """Mean displacement of a copy from its place, in pixels."""
    unrelated_correlation: float
    unrelated_distance: float
    images: int
    """Number of images; a class with a single one is skipped."""


@dataclass(frozen=True)
class TwinHits:
    """Where the peaks of attention maps lie. Shares are of all maps."""

    twin: float
    """Share of maps whose peak is the key that holds the query's twin."""
    own: float
    """Share of maps whose peak is the key that holds the query itself."""
    chance: float
    """Share that uniformly random peaks would reach, of either kind."""
    maps: int


def measure_twins(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> TwinAgreement:
    """Measure how far the copies in images (N, R, R, C) uint8 of classes (N,) agree.

    The lower right copy of each image is aligned first: displaced by whole pixels, at most 2 along each axis, to where
    its squared distance from the upper left copy is smallest. Beyond the edge of the image, the edge is repeated.
    Unrelated copies are aligned in the same way. Without classes, all labels are 0.

    Raises:
        ValueError: no class has two images.
    """
    counts = {int(y): int((labels == y).sum()) for y in np.unique(labels)}
    of_class = [np.flatnonzero(labels == y) for y, count in counts.items() if count > 1]
    if not of_class:
        raise ValueError("twins are measured on two or more images of a class")
    related, unrelated = _Sums(), _Sums()
    displacements = []
    for positions in of_class:
        upper = copies(images[positions])[0].astype(np.float64)
        aligned, displacement = _align(upper, images[positions])
        related.add(upper, aligned)
        displacements.append(displacement)
        others = np.roll(positions, 1)
        unrelated.add(upper, _align(upper, images[others])[0])
    return TwinAgreement(
        correlation=related.correlation(),
        distance=related.distance(),
        displacement=float(np.concatenate(displacements).mean()),
        unrelated_correlation=unrelated.correlation(),
        unrelated_distance=unrelated.distance(),
        images=sum(map(len, of_class)),
    )


def twin_of(points: NDArray[np.float64], resolution: int) -> NDArray[np.float64]:
    """Return the twins (..., 2) of points (..., 2), both (x, y) in pixels of an image of this side.

    Raises:
        ValueError: a point lies in neither copy.
    """
    points = np.asarray(points, np.float64)
    side = copy_side(resolution)
    offset = resolution - side
    in_upper = ((points >= 0) & (points < side)).all(-1)
    in_lower = ((points >= offset) & (points < resolution)).all(-1)
    if not (in_upper | in_lower).all():
        x, y = points[~(in_upper | in_lower)][0]
        raise ValueError(f"point {x:g},{y:g} lies in neither copy of a {resolution} x {resolution} image of twins")
    return points + np.where(in_upper, offset, -offset)[..., None]


def count_twin_hits(maps: Tensor, points: NDArray[np.float64], resolution: int) -> TwinHits:
    """Count how often the peak of a query's attention map lies on the query's twin.

    Args:
        maps: attention maps (N, Q, K, K), as `sagan.attention_maps` returns them.
        points: the query points (Q, 2), the same for every image, or (N, Q, 2): (x, y) in pixels.
        resolution: side of the images, in pixels.

    Raises:
        ValueError: a point lies in neither copy.
    """
    keys = maps.shape[-1]
    # A key covers resolution / keys pixels along each axis.
    own, twin = (
        np.floor(at * keys / resolution).astype(np.int64)
        for at in (np.asarray(points, np.float64), twin_of(points, resolution))
    )
    peaks = maps.flatten(2).argmax(-1).cpu().numpy()
    hits = [np.broadcast_to(at[..., 0] + keys * at[..., 1], peaks.shape) == peaks for at in (twin, own)]
    return TwinHits(float(hits[0].mean()), float(hits[1].mean()), 1 / keys**2, peaks.size)


class _Sums:
    """Sums over classes from which correlation and distance follow."""

    def __init__(self) -> None:
        self.products, self.squares = 0.0, np.zeros(2)
        self.difference, self.count = 0.0, 0

    def add(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> None:
        """Add the copies a and b (n, S, S, C) of a class."""
        self.difference += float(((a - b) ** 2).sum())
        self.count += a.size
        a, b = a - a.mean(0), b - b.mean(0)
        self.products += float((a * b).sum())
        self.squares += ((a**2).sum(), (b**2).sum())

    def correlation(self) -> float:
        """Return the correlation; NaN if one of the copies never varies."""
        scale = np.sqrt(self.squares.prod())
        return self.products / float(scale) if scale > 0 else float("nan")

    def distance(self) -> float:
        return float(np.sqrt(self.difference / self.count))


def _align(upper: NDArray[np.float64], images: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the lower copies (n, S, S, C) in images, aligned with `upper`, and their displacements (n,) in pixels."""
    side, resolution = upper.shape[1], images.shape[1]
    padded = np.pad(images, ((0, 0), (REACH, REACH), (REACH, REACH), (0, 0)), mode="edge").astype(np.float64)
    start = resolution - side + REACH
    aligned = np.empty_like(upper)
    least = np.full(len(upper), np.inf)
    displacement = np.zeros(len(upper))
    shifts = [(y, x) for y in range(-REACH, REACH + 1) for x in range(-REACH, REACH + 1)]
    for y, x in sorted(shifts, key=lambda shift: np.hypot(*shift)):  # of equal distances, the smallest displacement
        candidate = padded[:, start + y : start + y + side, start + x : start + x + side]
        distance = ((candidate - upper) ** 2).sum((1, 2, 3))
        better = distance < least
        aligned[better], least[better] = candidate[better], distance[better]
        displacement[better] = np.hypot(y, x)
    return aligned, displacement

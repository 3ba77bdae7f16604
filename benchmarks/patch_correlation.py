"""What can the patch correlation error tell apart? Its floor, its sensitivity to the number of images, known faults.

    python benchmarks/patch_correlation.py --save patch_correlation
    python benchmarks/patch_correlation.py --data robots

20,000 built-in images at 32 px, in one fixed random order, are cut into disjoint groups of three sets of equal size:
real, other real, and the images that a fault is put into. Means over the groups, ± the standard deviation over them:

* fade: within a class, the values (class means removed) of each image fade across the columns into those of another,
  with weights cos and sin. Correlations of neighbouring columns stay above 0.97 of what they were, those of the first
  and the last column vanish: what a generator would do that sees only its neighbourhood.
* joined: the right half of each image comes from another image of its class. On robots, pairs across the seam are an
  error of the near end too. On twins, the copies are then of two robots, and the far end alone rises.

The last lines are the cost for 2,000 images against 4,000 real ones, in CPU time of one core: 0.1 s to read them and
reduce them to patches, and 0.02 s for the correlations.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from machine import Table
from sagan.config import DataConfig
from sagan.data import prepare
from sagan.metrics.patch_correlation import (
    BIN_WIDTH,
    SIDE,
    PatchCorrelation,
    compare_patch_correlation,
    patch_values,
)
from sagan.metrics.reference import choose

COUNTS = (500, 1000, 2000, 4000)
COST_COUNT = 2000
BINS = 7

Values = NDArray[np.float64]
Labels = NDArray[np.int64]
Images = NDArray[np.uint8]


def partners(labels: Labels) -> NDArray[np.int64]:
    """For each image, the position of another image of its class."""
    found = np.arange(len(labels))
    for y in np.unique(labels):
        positions = np.flatnonzero(labels == y)
        found[positions] = np.roll(positions, 1)
    return found


def fade(images: Images, labels: Labels) -> Values:
    values = values_of(images)
    means = np.stack([values[labels == y].mean(0) for y in np.unique(labels)])[labels]
    columns = np.arange(values.shape[1]) % SIDE
    turn = np.pi / 2 * columns / (SIDE - 1)
    deviations = values - means
    return means + np.cos(turn) * deviations + np.sin(turn) * deviations[partners(labels)]


def joined(images: Images, labels: Labels) -> Values:
    changed = images.copy()
    half = images.shape[2] // 2
    changed[:, :, half:] = images[partners(labels), :, half:]
    return values_of(changed)


def values_of(images: Images) -> Values:
    return patch_values(torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2))


def mean_of(values: list[float]) -> str:
    spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"


def add_row(table: Table, source: str, count: int, name: str, found: list[PatchCorrelation], *, floor: bool) -> None:
    of_bins: dict[int, list[float]] = {k: [] for k in range(BINS)}
    for result in found:
        for distance, value in zip(result.distance, result.floor if floor else result.error, strict=True):
            of_bins[int(distance // BIN_WIDTH)].append(value)
    near = mean_of([result.near_floor if floor else result.near for result in found])
    far = mean_of([result.far_floor if floor else result.far for result in found])
    bins = [f"{np.mean(values):.3f}" if values else "" for values in of_bins.values()]
    table.row(source, f"{count:,}", len(found), name, near, far, *bins)


def measure(table: Table, source: str) -> None:
    store = prepare(DataConfig(source=source), resolution=32, image_channels=3)
    order = choose(store, len(store))
    images, labels = np.asarray(store.images)[order], store.labels[order]
    values = values_of(images)
    faults: dict[str, Callable[[Images, Labels], Values]] = {"fade": fade, "joined": joined}
    for count in COUNTS:
        found: dict[str, list[PatchCorrelation]] = {name: [] for name in faults}
        for start in range(0, len(images) - 3 * count + 1, 3 * count):
            ours = slice(start, start + count)
            theirs = slice(start + count, start + 3 * count)
            for name, fault in faults.items():
                faulty = fault(images[ours], labels[ours])
                result = compare_patch_correlation(faulty, labels[ours], values[theirs], labels[theirs])
                assert result is not None
                found[name].append(result)
        add_row(table, source, count, "two real sets", found["fade"], floor=True)
        for name, results in found.items():
            add_row(table, source, count, name, results, floor=False)
    share = result.excluded / (result.pairs + result.excluded)
    table.note(f"{source}: {result.pairs:,} pairs of values compared, {share:.1%} excluded.")

    begin = time.process_time()
    reduced = values_of(np.asarray(store.images[order[: 3 * COST_COUNT]]))
    middle = time.process_time()
    a, b = slice(0, COST_COUNT), slice(COST_COUNT, 3 * COST_COUNT)
    compare_patch_correlation(reduced[a], labels[a], reduced[b], labels[b])
    end = time.process_time()
    table.note(
        f"{source}: {COST_COUNT:,} images against {2 * COST_COUNT:,} take {middle - begin:.2f} s to read and reduce, "
        f"and {end - middle:.2f} s to compare (CPU time of one core)."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["robots", "twins"], choices=("robots", "twins"))
    parser.add_argument("--save", default="", metavar="NAME")
    options = parser.parse_args()
    torch.set_num_threads(1)
    bins = [f"{BIN_WIDTH * k:g} to {BIN_WIDTH * (k + 1):g}" for k in range(BINS)]
    columns = ["data", "images a set", "groups", "what", "near", "far", *bins]
    table = Table("Patch correlation error: floor, number of images, known faults", columns, save=options.save)
    for source in options.data:
        measure(table, source)


if __name__ == "__main__":
    main()

"""What can the patch correlation error tell apart? Its floor, its sensitivity to the number of images, and known faults.

    python benchmarks/patch_correlation.py > benchmarks/results/patch_correlation.md
    python benchmarks/patch_correlation.py --data twins

20,000 built-in images at 32 px, one fixed random order, cut into disjoint groups of three sets of equal size: real, other
real, and the images of a fault. Means over the groups, ± the standard deviation over them. The faults:

* fade: within a class, the values (class means removed) of each image fade across the columns into those of another,
  with weights cos and sin. Correlations of neighbouring columns stay above 0.97 of what they were, those of the first
  and the last column vanish: what a generator would do that sees only its neighbourhood.
* joined: the right half of each image comes from another image of its class. Pairs across the seam are an error of the
  near end too.

Cost for 2,000 against 4,000 real images at 32 px, on one core (the last line of the output): reading them and reducing
them to patches, and the correlations.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from sagan.config import DataConfig
from sagan.data import prepare
from sagan.data.builtin import twins
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


def strangers(images: Images, labels: Labels) -> Values:
    """Twins whose lower right copy is that of another image."""
    changed = images.copy()
    twins.copies(changed)[1][:] = twins.copies(images)[1][partners(labels)]
    return values_of(changed)


def values_of(images: Images) -> Values:
    return patch_values(torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2))


def describe(values: list[float]) -> str:
    spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"


def row(count: int, name: str, found: list[PatchCorrelation], *, floor: bool) -> str:
    by_bin = [dict(zip((int(d // BIN_WIDTH) for d in f.distance), f.floor if floor else f.error)) for f in found]  # noqa: B905
    cells = [describe([bins[k] for bins in by_bin if k in bins]) for k in range(BINS) if any(k in b for b in by_bin)]
    near = describe([f.near_floor if floor else f.near for f in found])
    far = describe([f.far_floor if floor else f.far for f in found])
    return f"| {count:,} | {len(found)} | {name} | {near} | {far} | " + " | ".join(c.split()[0] for c in cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="robots", choices=("robots", "twins"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    store = prepare(DataConfig(source=arguments.data), resolution=32, image_channels=3)
    order = choose(store, len(store))
    images, labels = np.asarray(store.images)[order], store.labels[order]
    values = values_of(images)
    faults: dict[str, Callable[[Images, Labels], Values]] = {"fade": fade, "joined": joined}
    if arguments.data == "twins":
        faults["strangers"] = strangers
    edges = [BIN_WIDTH * k for k in range(BINS + 1)]
    names = [f"{low:g} to {high:g}" for low, high in zip(edges[:-1], edges[1:], strict=True)]
    print(f"| {arguments.data}: images a set | groups | what | near | far | " + " | ".join(names) + " |")
    print("|---" * (5 + BINS) + "|")
    for count in COUNTS:
        starts = range(0, len(images) - 3 * count + 1, 3 * count)
        found: dict[str, list[PatchCorrelation]] = {name: [] for name in faults}
        for start in starts:
            ours = slice(start, start + count)
            theirs = slice(start + count, start + 3 * count)
            for name, fault in faults.items():
                faulty = fault(images[ours], labels[ours])
                result = compare_patch_correlation(faulty, labels[ours], values[theirs], labels[theirs])
                assert result is not None
                found[name].append(result)
        print(row(count, "two real sets", found["fade"], floor=True))
        for name, results in found.items():
            print(row(count, name, results, floor=False))
        result = found["fade"][0]
    share = result.excluded / (result.pairs + result.excluded)
    print(f"\n{result.pairs:,} pairs of values compared, {share:.1%} excluded.")

    begin = time.process_time()
    reduced = values_of(np.asarray(store.images[order[: 3 * COST_COUNT]]))
    middle = time.process_time()
    a, b = slice(0, COST_COUNT), slice(COST_COUNT, 3 * COST_COUNT)
    compare_patch_correlation(reduced[a], labels[a], reduced[b], labels[b])
    end = time.process_time()
    print(
        f"\nCost for {COST_COUNT:,} images against {2 * COST_COUNT:,}: {middle - begin:.2f} s to read and reduce all, "
        f"{end - middle:.2f} s to compare (CPU time, one core)."
    )


if __name__ == "__main__":
    main()

"""What a run would be trained on, for people to read before they spend hours on it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sagan.data.sources import Skipped
from sagan.data.store import Store
from sagan.text import counted, printable

_BAR = 24  # characters of the longest bar
_MOST_CLASSES = 30
_MOST_LEFT_OUT = 20
_FEW_PICTURES, _FEW_IN_CLASS = 200, 50
_SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation"}


def summarise(store: Store) -> str:
    """Source, classes, original sizes, what preparing did to the pictures, what was left out, and advice."""
    side, channels = store.resolution, store.images.shape[3]
    kind = {1: "grey", 3: "RGB", 4: "RGBA"}[channels]
    classes = f"{counted(store.num_classes, 'class', 'classes')}" if store.num_classes else "no classes"
    parts = [
        f"source    {printable(store.source)}\n"
        f"pictures  {len(store):,}, {classes}, kept as {side} x {side} {kind}\n"
        f"store     {store.path}",
        _sizes(store),
    ]
    if store.num_classes:
        parts.append(_table(store))
    if store.skipped:
        parts.append(list_left_out(store.skipped))
    if remarks := _remarks(store):
        parts.append("remarks\n" + "\n".join(f"  {remark}" for remark in remarks))
    return "\n\n".join(parts)


def list_left_out(skipped: Sequence[Skipped]) -> str:
    """How many pictures were left out, and why the first 20 of them: a line for each."""
    lines = [f"  {printable(one.name)}: {one.reason}" for one in skipped[:_MOST_LEFT_OUT]]
    if len(skipped) > _MOST_LEFT_OUT:
        lines.append(f"  and {len(skipped) - _MOST_LEFT_OUT:,} more")
    return f"left out: {len(skipped):,}\n" + "\n".join(lines)


def _sizes(store: Store) -> str:
    if not store.sizes.all():  # shards that were not packed by sagan, which do not say
        return "original sizes  known when a picture is decoded"
    by_area = store.sizes[np.argsort(store.sizes.prod(1), kind="stable")]
    short, side = store.sizes.min(1), store.resolution
    smallest, median, largest = (" x ".join(map(str, by_area[at])) for at in (0, len(by_area) // 2, -1))
    lines = [
        f"original sizes  {smallest} (smallest), {median} (median), {largest} (largest)",
        f"cropped         {_of(store.sizes[:, 0] != store.sizes[:, 1])}",
        f"shrunk          {_of(short > side)}",
        f"enlarged        {_of(short < side)}",
    ]
    return "\n".join(lines)


def _table(store: Store) -> str:
    counts = np.bincount(store.labels, minlength=store.num_classes).tolist()
    names = [printable(name) if len(name) <= 32 else printable(name[:29]) + "..." for name in store.class_names]
    wide, most = max(map(len, names)), max(counts)
    rows = [
        f"  {name:<{wide}}  {count:>{len(f'{most:,}')},}  {'#' * -(-count * _BAR // most)}"
        for name, count in zip(names, counts, strict=True)
    ]
    if len(rows) > _MOST_CLASSES:
        half = _MOST_CLASSES // 2
        left = counts[half:-half]
        between = f"  ... {len(left):,} more classes of {min(left):,} to {max(left):,} pictures ..."
        rows = [*rows[:half], between, *rows[-half:]]
    return "classes\n" + "\n".join(rows)


def _remarks(store: Store) -> Sequence[str]:
    remarks = []
    if len(store) < _FEW_PICTURES:
        remarks.append(
            f"{counted(len(store), 'picture is', 'pictures are')} few: the discriminator will soon know them by heart. "
            "Add pictures; mirroring and augmentation help."
        )
    enlarged = float(((store.sizes.min(1) < store.resolution) & store.sizes.all(1)).mean())
    if enlarged > 0.5:
        remarks.append(f"{enlarged:.0%} of the pictures are enlarged: a lower resolution loses nothing.")
    if store.num_classes:
        counts = np.bincount(store.labels, minlength=store.num_classes)
        few = int((counts < _FEW_IN_CLASS).sum())
        if counts.max() > 10 * max(counts.min(), 1):
            remarks.append(
                f"The classes are uneven, from {counts.min():,} to {counts.max():,} pictures: the small ones will be "
                "learnt worse."
            )
        if few and len(store) >= _FEW_PICTURES:
            remarks.append(
                f"{counted(few, 'class has', 'classes have')} fewer than {_FEW_IN_CLASS} pictures: merge classes, or "
                "train without labels."
            )
        if {name.lower() for name in store.class_names} <= _SPLITS:
            remarks.append("The classes look like splits of a data set: give one of these folders as the source.")
        if store.num_classes == 1:
            remarks.append("There is only one class: the same as training without classes.")
    return remarks


def _of(which: NDArray[np.bool_]) -> str:
    count = int(which.sum())
    return "none" if not count else "all" if count == len(which) else f"{count:,} ({100 * count / len(which):.2g}%)"

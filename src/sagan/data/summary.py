"""Summarise a data set as text, to be read before hours are spent on training."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sagan.data.source import Skipped
from sagan.data.store import Store
from sagan.text import format_count, printable

_BAR_WIDTH = 24  # characters of the longest bar
_MAX_CLASSES_LISTED = 30
_MAX_SKIPPED_LISTED = 20
_FEW_IMAGES = 200  # fewer images in all bring a remark
_FEW_IN_CLASS = 50  # fewer images in a class bring a remark
_MAX_LOOKED_AT = 256  # images whose brightness is looked at
_DARK = 63  # 14 bits in 16 reach 63 of 255, 12 bits reach 15
_SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation"}


def summarise(store: Store) -> str:
    """Describe a store: source, classes, original sizes, how the images were resized, skipped images, advice."""
    side, channels = store.resolution, store.images.shape[3]
    kind = {1: "grey", 3: "RGB", 4: "RGBA"}[channels]
    classes = format_count(store.num_classes, "class", "classes") if store.num_classes else "no classes"
    parts = [
        f"source    {printable(store.source)}\n"
        f"images    {len(store):,}, {classes}, stored as {side} x {side} {kind}\n"
        f"store     {store.path}",
        _sizes(store),
    ]
    if store.num_classes:
        parts.append(_class_table(store))
    if store.skipped:
        parts.append(list_skipped(store.skipped))
    if remarks := _remarks(store):
        parts.append("remarks\n" + "\n".join(f"  {remark}" for remark in remarks))
    return "\n\n".join(parts)


def list_skipped(skipped: Sequence[Skipped]) -> str:
    """State the number of skipped images, and name the first 20 with the reason, one a line."""
    lines = [f"  {printable(one.name)}: {one.reason}" for one in skipped[:_MAX_SKIPPED_LISTED]]
    if len(skipped) > _MAX_SKIPPED_LISTED:
        lines.append(f"  and {len(skipped) - _MAX_SKIPPED_LISTED:,} more")
    return f"skipped: {len(skipped):,}\n" + "\n".join(lines)


def _sizes(store: Store) -> str:
    if not store.sizes.all():  # shards from elsewhere, whose headers do not state the size of images
        return "original sizes  not known before an image is decoded"
    by_area = store.sizes[np.argsort(store.sizes.prod(1), kind="stable")]
    smallest, median, largest = (" x ".join(map(str, by_area[at])) for at in (0, len(by_area) // 2, -1))
    shorter_side = store.sizes.min(1)
    lines = [
        f"original sizes  {smallest} (smallest), {median} (median), {largest} (largest)",
        f"{'cropped' if store.crop == 'centre' else 'padded':<16}{_share(store.sizes[:, 0] != store.sizes[:, 1])}",
        f"shrunk          {_share(shorter_side > store.resolution)}",
        f"enlarged        {_share(shorter_side < store.resolution)}",
    ]
    return "\n".join(lines)


def _class_table(store: Store) -> str:
    counts = np.bincount(store.labels, minlength=store.num_classes).tolist()
    names = [printable(name) if len(name) <= 32 else printable(name[:29]) + "..." for name in store.class_names]
    name_width, largest = max(map(len, names)), max(counts)
    count_width = len(f"{largest:,}")
    rows = [
        f"  {name:<{name_width}}  {count:>{count_width},}  {'#' * -(-count * _BAR_WIDTH // largest)}"
        for name, count in zip(names, counts, strict=True)
    ]
    if len(rows) > _MAX_CLASSES_LISTED:
        half = _MAX_CLASSES_LISTED // 2
        rest = counts[half:-half]
        between = f"  ... {len(rest):,} more classes of {min(rest):,} to {max(rest):,} images ..."
        rows = [*rows[:half], between, *rows[-half:]]
    return "classes\n" + "\n".join(rows)


def _remarks(store: Store) -> Sequence[str]:
    remarks = [*store.notes]
    if len(store) < _FEW_IMAGES:
        remarks.append(
            f"{format_count(len(store), 'image is', 'images are')} few: the discriminator will soon have memorised "
            "them. Add images; mirroring and augmentation help."
        )
    enlarged = float(((store.sizes.min(1) < store.resolution) & store.sizes.all(1)).mean())
    if enlarged > 0.5:
        remarks.append(f"{enlarged:.0%} of the images are enlarged: a lower resolution loses nothing.")
    dark, looked_at = _count_dark(store)
    if dark > looked_at // 20:
        remarks.append(
            f"{dark} of {looked_at} images have no value above {_DARK} of 255: if their files hold 10, 12 or 14 bits "
            "in 16, scale them to 16 bits, since 65535 is read as white."
        )
    if store.num_classes:
        counts = np.bincount(store.labels, minlength=store.num_classes)
        small_classes = int((counts < _FEW_IN_CLASS).sum())
        if counts.max() > 10 * max(counts.min(), 1):
            remarks.append(
                f"The classes are uneven, from {counts.min():,} to {counts.max():,} images: the network will learn the "
                "small ones less well."
            )
        if small_classes and len(store) >= _FEW_IMAGES:
            remarks.append(
                f"{format_count(small_classes, 'class has', 'classes have')} fewer than {_FEW_IN_CLASS} images: merge "
                "classes, or train without labels."
            )
        if {name.lower() for name in store.class_names} <= _SPLITS:
            remarks.append("The classes look like splits of a data set: use one of these folders as the source.")
        if store.num_classes == 1:
            remarks.append("There is only one class: the same as training without classes.")
    return remarks


def _count_dark(store: Store) -> tuple[int, int]:
    """Return how many of some evenly spread images are nearly black, and how many were looked at."""
    positions = np.unique(np.linspace(0, len(store) - 1, _MAX_LOOKED_AT).astype(np.int64))
    colours = np.asarray(store.images[positions])[..., :3]
    return int((colours.max((1, 2, 3)) <= _DARK).sum()), len(positions)


def _share(selected: NDArray[np.bool_]) -> str:
    """Format the number of selected images and their percentage."""
    count = int(selected.sum())
    if count == 0:
        return "none"
    if count == len(selected):
        return "all"
    return f"{count:,} ({100 * count / len(selected):.2g}%)"

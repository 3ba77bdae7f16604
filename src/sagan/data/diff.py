"""Describe how a source of images differs from its state when a run was started."""

from collections.abc import Sequence

import numpy as np

from sagan.data.packed import PackedImages
from sagan.data.store import Store, find
from sagan.text import printable

_MAX_COMPARED = 10_000  # images whose pixels are compared, so that the answer comes quickly


def is_unchanged(key: str, now: Store) -> bool:
    """Return whether a source has the images, labels and classes of an earlier state, in the same order.

    What else lies next to the images may differ, if the earlier store is still in the cache.

    Args:
        key: key of the earlier store.
        now: the store of the source as it is now.
    """
    if key == now.key:
        return True
    if not isinstance(now.images, PackedImages):
        return False
    before = find(now.path.parent.parent, key)
    return (
        before is not None
        and isinstance(before.images, PackedImages)
        and before.class_names == now.class_names
        and np.array_equal(before.labels, now.labels)
        and before.images.has_same_checksums(now.images)
    )


def describe_changes(key: str, now: Store) -> str:
    """Say in a few words how a source has changed.

    Args:
        key: key of the earlier store, which may still be in the cache.
        now: the store of the source as it is now.
    """
    before = find(now.path.parent.parent, key)
    if before is None or not now.names:  # images without names cannot be told apart
        return f"now {len(now):,} images; the earlier state is not in the cache"
    before_at = {name: position for position, name in enumerate(before.names)}
    now_at = {name: position for position, name in enumerate(now.names)}
    removed = [name for name in before.names if name not in now_at]
    added = [name for name in now.names if name not in before_at]
    kept = [name for name in before.names if name in now_at]
    changed = [
        name
        for name in kept[:_MAX_COMPARED]
        if before.labels[before_at[name]] != now.labels[now_at[name]]
        or not np.array_equal(before.images[before_at[name]], now.images[now_at[name]])
    ]
    parts = [_first_and_count("gone", removed), _first_and_count("new", added), _first_and_count("changed", changed)]
    if before.class_names != now.class_names:
        parts.append(f"the classes differ ({len(before.class_names)} classes before, {len(now.class_names)} now)")
    return "; ".join(filter(None, parts)) or "the same images in other files, or other images skipped"


def note_on_changes(key: str, now: Store) -> str | None:
    """Return a line that says how the data changed since a run was trained; None if they did not.

    Args:
        key: the run's data key.
        now: the store of the run's source as it is now.
    """
    if is_unchanged(key, now):
        return None
    return f"{printable(now.source)} has changed since training ({describe_changes(key, now)})"


def _first_and_count(what: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
    return f"{what}: {printable(names[0])}{more}"

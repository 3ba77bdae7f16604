"""What is different about a source of pictures that a run was started with."""

from collections.abc import Sequence

import numpy as np

from sagan.data.shards.reader import ShardImages
from sagan.data.store import Store, find
from sagan.text import printable

_COMPARED = 10_000  # pictures, so that nobody waits for an answer


def what_changed(key: str, now: Store) -> str:
    """How a source differs from what it was, in a few words.

    Args:
        key: of the store that was made of it then, which the cache may still have.
        now: what is made of it now.
    """
    before = find(now.path.parent.parent, key)
    if before is None or isinstance(now.images, ShardImages):  # shards are packed nowhere
        return f"now {len(now):,} pictures; what it was is not in the cache"
    places = ({name: i for i, name in enumerate(store.names)} for store in (before, now))
    then_at, now_at = places
    kept = [name for name in before.names if name in now_at]
    differ = [
        name
        for name in kept[:_COMPARED]
        if before.labels[then_at[name]] != now.labels[now_at[name]]
        or not np.array_equal(before.images[then_at[name]], now.images[now_at[name]])
    ]
    parts = [
        _counted([name for name in before.names if name not in now_at], "gone"),
        _counted([name for name in now.names if name not in then_at], "new"),
        _counted(differ, "changed"),
    ]
    if before.class_names != now.class_names:
        parts.append(f"{len(before.class_names)} classes then, {len(now.class_names)} now, or other names")
    found = [part for part in parts if part]
    return "; ".join(found) or "the same pictures in other files, or other pictures left out"


def _counted(names: Sequence[str], what: str) -> str:
    if not names:
        return ""
    more = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
    return f"{what}: {printable(names[0])}{more}"

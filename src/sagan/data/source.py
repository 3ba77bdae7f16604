"""A source of images that was opened, and what all kinds of sources share."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sagan.data.decode import Unreadable
from sagan.errors import UserError
from sagan.text import format_count, printable

MAX_BYTES = 2**29
"""Largest image file that is read, in bytes."""
_MAX_CLASSES = 100_000


@dataclass(frozen=True)
class Skipped:
    """An image, or a folder, that was skipped."""

    name: str
    reason: str


@dataclass(frozen=True)
class Source:
    """The images of a source, not yet decoded."""

    title: str
    """Name in messages. It is part of the fingerprint."""
    entries: Sequence[tuple[str, int]]
    """Name and label of every image. The label is 0 if there are no classes."""
    read: Callable[[int], bytes]
    """Read the bytes of the image of this number. Thread-safe. Raises `decode.Unreadable`."""
    class_names: tuple[str, ...]
    """Empty: no classes."""
    stamp: Sequence[object]
    """JSON values that change whenever the content may have changed."""
    problems: tuple[Skipped, ...] = ()
    """Files and folders that are not among the entries, with the reason. They are part of the store's key."""
    remarks: tuple[Skipped, ...] = ()
    """More that was skipped, known from names alone: it changes neither the images nor the key."""
    notes: tuple[str, ...] = ()
    """Lines about the source as a whole, each with what to do."""
    refusal: str = ""
    """The note for which training on the source is refused; '': it is not."""
    samples: int = 0
    """Number of samples that sagan wrote and that are not among the entries."""


def no_usable_image(source: str, skipped: Sequence[Skipped], notes: Sequence[str] = ()) -> UserError:
    """Return the error for a source of which every image was skipped. It names the first three with the reason."""
    reasons = "; ".join(f"{printable(one.name)}: {one.reason}" for one in skipped[:3])
    more = f"; and {len(skipped) - 3} more" if len(skipped) > 3 else ""
    return UserError(
        f"data source '{printable(source)}' has no usable image"
        + (f" ({reasons}{more})" if reasons else "")
        + "".join(f"; {note}" for note in notes)
    )


def drop_empty_classes(
    counts: NDArray[np.int64], class_names: tuple[str, ...]
) -> tuple[NDArray[np.int64], tuple[str, ...], tuple[Skipped, ...]]:
    """Number the classes that have images from 0 on.

    Args:
        counts: number of images of each class.
        class_names: name of each class.

    Returns:
        The new number of each class (-1: no images), the names of those with images, and a line about the others.
    """
    used = np.flatnonzero(counts)
    number_of = np.full(len(counts), -1)
    number_of[used] = np.arange(len(used))
    empty = [class_names[number] for number in np.flatnonzero(counts == 0).tolist()]
    listed = ", ".join(printable(name)[:40] for name in empty[:5]) + (", ..." if len(empty) > 5 else "")
    what = format_count(len(empty), "class", "classes")
    problem = (Skipped(f"{what} without a usable image", f"not trained: {listed}"),) if empty else ()
    return number_of, tuple(class_names[number] for number in used.tolist()), problem


def natural_key(text: str) -> list[tuple[bool, int, str]]:
    """Return a sorting key that puts '2' before '10' and ignores case."""
    return [
        # The number with more digits is greater. int() would refuse numbers of thousands of digits.
        (not digits, len(digits.lstrip("0")), digits.lstrip("0") or other.lower())
        for digits, other in re.findall("([0-9]+)|([^0-9]+)", text)
    ]


def name_order(name: str) -> tuple[object, str]:
    """Return a sorting key of a file: natural order, then the name, for paths that differ in case only."""
    return natural_key(name), name


def limited(data: bytes, limit: int) -> bytes:
    """Return the bytes of a file. Raises `decode.Unreadable` if they are more than the limit."""
    if len(data) > limit:
        raise Unreadable(f"more than the limit of {limit // 2**20} megabytes")
    return data


def check_present(path: Path) -> None:
    """Raise UserError if the source itself is gone, so that its images are not skipped one by one."""
    if not path.exists():
        raise UserError(
            f"data source '{printable(str(path))}' disappeared while it was read (disk unmounted, or source moved or "
            "deleted): restore it, then start again"
        )


def refused_run(source: str) -> UserError:
    """Return the error for a source that is a run."""
    return UserError(
        f"data source '{printable(source)}' is a run that sagan wrote, not data: pass the images that it was trained on"
    )


def numbered_classes(highest: int, lowest: int, where: str) -> tuple[str, ...]:
    """Return the class names "0", "1", ... up to the highest label."""
    if lowest < 0 or highest >= _MAX_CLASSES:
        raise UserError(
            f"{where}: labels range from {lowest} to {highest}: number the classes from 0 to at most {_MAX_CLASSES - 1}"
        )
    return tuple(map(str, range(highest + 1)))

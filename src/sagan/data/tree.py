"""Images and labels of files in folders, as a source: class folders, a flat folder, or a dataset.json."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sagan.data.decode import INSTALL, Unreadable, extra_formats
from sagan.data.hints import find_hints
from sagan.data.names import (
    EXTRA_SUFFIXES,
    SUFFIXES,
    UNSUPPORTED,
    is_companion,
    is_image,
    normal,
    reason_unread,
)
from sagan.data.source import Skipped, Source, name_order, numbered_classes
from sagan.errors import UserError
from sagan.text import canonical, format_count, printable

MAX_LABEL_BYTES = 2**27
"""Largest dataset.json, in bytes. ImageNet's is half as large."""
LABEL_BYTES = 2**23, 1000
"""Largest dataset.json for the images of its source: so many bytes, and so many for each image. Parsed, it takes up to
thirty times its size."""


def tree_source(
    title: str,
    files: Mapping[str, object],
    folders: Iterable[str],
    read: Callable[..., bytes],
    labels: bool,
    extra: object = None,
    runs: Sequence[str] = (),
    twice: Sequence[str] = (),
    drawn: Mapping[str, bool] | None = None,
) -> Source:
    """Build a source from the files in a folder or an archive.

    Args:
        title: path of the folder or the archive.
        files: relative path -> JSON value that changes with the file.
        folders: names of the folders of the first level.
        read: read the bytes of a relative path; a second argument limits their number.
        labels: find classes.
        extra: JSON value that changes with the source as a whole.
        runs: relative paths of folders that are runs, whose files are not among `files`.
        twice: files that an archive contains more than once.
        drawn: images that sagan wrote and that are left out, each with whether it is a sample.
    """
    unread = tuple(ending for kind, ending in EXTRA_SUFFIXES if kind not in extra_formats())
    images = sorted((name for name in files if is_image(name) and not name.lower().endswith(unread)), key=name_order)
    if drawn:
        before = {name.split("/", 1)[0] for name in images}
        images = [name for name in images if name not in drawn]
        folders = set(folders) - (before - {name.split("/", 1)[0] for name in images})
    others = sorted(
        name for name in files if name.lower().endswith(unread) or not (is_image(name) or is_companion(name))
    )
    unsupported = [name for name in others if name.lower().endswith(UNSUPPORTED + unread)]
    # The key of a store contains these reasons: their words change with its format only.
    problems = [Skipped(name, "not a format that is read: convert it to PNG or JPEG") for name in unsupported]
    remarks = [Skipped(name, "is in the archive more than once: the last one is used") for name in twice]
    remarks += [
        Skipped(name, reason_unread(name)) for name in others if not name.lower().endswith(UNSUPPORTED + unread)
    ]
    empty: list[str] = []
    class_names: tuple[str, ...] = ()
    label_of: dict[str, int] = {}
    if labels and "dataset.json" in files:
        limit = min(LABEL_BYTES[0] + LABEL_BYTES[1] * len(images), MAX_LABEL_BYTES)
        label_of, class_names = _read_labels(f"dataset.json in '{printable(title)}'", lambda name: read(name, limit))
        label_of = _match_names(label_of, files)
        if class_names:
            problems += [Skipped(name, "has no label in dataset.json") for name in images if name not in label_of]
            problems += [Skipped(name, "is in dataset.json, but not there") for name in label_of if name not in files]
    elif labels and any("/" in name for name in images):
        class_names = tuple(sorted({name.split("/", 1)[0] for name in images if "/" in name}, key=name_order))
        numbers = {name: number for number, name in enumerate(class_names)}
        label_of = {name: numbers[name.split("/", 1)[0]] for name in images if "/" in name}
        # A folder of nothing but runs is no class that lacks images.
        without = sorted(set(folders) - set(class_names) - {run.split("/", 1)[0] for run in runs}, key=name_order)
        # One with other files only, such as exports or shards, is no class that still lacks its images.
        filled = {name.split("/", 1)[0] for name in files if "/" in name}
        filled -= {name.split("/", 1)[0] for name in unsupported}
        empty = [name for name in without if name not in filled]
        other = "holds other files only: not a class"
        remarks += [Skipped(name, f"class folder '{printable(name)}' {other}") for name in without if name in filled]
        problems += [Skipped(name, f"class folder '{printable(name)}' holds no pictures") for name in empty]
        problems += [Skipped(name, "lies beside the class folders: left out") for name in images if "/" not in name]
    entries = [(name, label_of.get(name, 0)) for name in images if not class_names or name in label_of]
    if not entries and not problems:
        written = f" (and {len(runs)} folders are runs that sagan wrote, not data)" if runs else ""
        raise UserError(
            f"data source '{printable(title)}' has no images: none of its {len(files)} files ends in "
            f"{', '.join(SUFFIXES)}{written}"
        )
    hints = find_hints(title, images, class_names) if not ("dataset.json" in files and label_of) else []
    notes = tuple(hint.text for hint in hints)
    if phones := sum(name.lower().endswith(unread) for name in unsupported) if unread else 0:
        notes += (f"{format_count(phones, 'HEIC or AVIF image is', 'HEIC or AVIF images are')} not read: {INSTALL}",)
    return Source(
        title=title,
        entries=entries,
        read=lambda number: read(entries[number][0]),
        class_names=class_names,
        stamp=[labels, extra, empty, *([name, files.get(name)] for name in [*images, *unsupported, "dataset.json"])],
        problems=tuple(problems),
        remarks=tuple(remarks),
        notes=notes,
        refusal=next((hint.text for hint in hints if hint.refuses), ""),
        samples=sum((drawn or {}).values()),
    )


def _match_names(label_of: dict[str, int], files: Mapping[str, object]) -> dict[str, int]:
    """Replace names of a dataset.json that are not there by the file of the same canonical name, if there is one."""
    if all(name in files for name in label_of):
        return label_of
    canonical_files = {canonical(name): name for name in files}
    return {
        name if name in files else canonical_files.get(canonical(name), name): label for name, label in label_of.items()
    }


def _read_labels(where: str, read: Callable[[str], bytes]) -> tuple[dict[str, int], tuple[str, ...]]:
    """Read the labels and class names of a dataset.json as in StyleGAN and EDM.

    The file holds {"labels": [["folder/name.png", 3], ...]}, or {"labels": null} if there are no classes.
    """
    try:
        content: Any = json.loads(read("dataset.json"), object_pairs_hook=_without_doubles)
    except UserError:
        raise
    except (Unreadable, ValueError, RecursionError) as error:
        raise UserError(f"{where} is not readable JSON ({error}): repair or remove it") from error
    pairs = content.get("labels") if isinstance(content, dict) else content
    if pairs is None:
        return {}, ()
    if not isinstance(content, dict) or not isinstance(pairs, list):
        raise UserError(f'{where} does not have the form {{"labels": [["name.png", 0], ...]}}: repair or remove it')
    labels: dict[str, int] = {}
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[0], str):
            raise UserError(f'{where}: {str(pair)[:60]} is not a pair ["name.png", label]: repair or remove it')
        name, label = pair
        if type(label) is not int:
            raise UserError(
                f"{where}: the label of {printable(name)} is {str(label)[:60]}: only integer class labels are supported"
            )
        name = normal(name)
        if labels.setdefault(name, label) != label:
            raise UserError(f"{where} labels {printable(name)} twice, {labels[name]} and {label}: keep one of them")
    return labels, numbered_classes(max(labels.values(), default=-1), min(labels.values(), default=0), where)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of a JSON file. Raises ValueError if it has a key twice, of which the last would win."""
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("it has a key twice")
    return content

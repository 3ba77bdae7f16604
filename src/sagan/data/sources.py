"""Open a source of images (folder, .zip, .npz, Hugging Face Hub): names, labels, and a reader of bytes."""

import contextlib
import difflib
import io
import json
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sagan.compat import few_seconds_of_hub
from sagan.data.arrays import ImageArrays, is_npz
from sagan.data.decode import INSTALL, Unreadable, extra_formats
from sagan.data.hints import find_drawn, hints
from sagan.data.names import (
    EXTRA_SUFFIXES,
    RUN_FILE,
    SUFFIXES,
    UNSUPPORTED,
    is_companion,
    is_hidden,
    is_image,
    is_run,
    normal,
    reason_unread,
)
from sagan.errors import UserError
from sagan.files import expand_home
from sagan.marks import SEARCHED
from sagan.text import canonical, format_count, printable

BUILT_IN = ("robots", "twins", "digits")
MAX_BYTES = 2**29
"""Largest image file that is read, in bytes."""
MAX_LABEL_BYTES = 2**27
"""Largest dataset.json, in bytes. ImageNet's is half as large."""
LABEL_BYTES = 2**23, 1000
"""Largest dataset.json for the images of its source: so many bytes, and so many for each image. Parsed, it takes up to
thirty times its size."""

_MAX_CLASSES = 100_000
_TEXT_LABELS = ("label", "labels", "class", "class_name", "category")  # columns that may hold classes as text or number
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


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
    samples: int = 0
    """Number of samples that sagan wrote and that are not among the entries."""


def open_source(name: str, labels: bool, samples: bool = False) -> Source:
    """List the images of a source without reading them.

    Args:
        name: a folder, a .zip or .npz file, or 'hf:USER/NAME' with an optional '@SPLIT'.
        labels: find classes; otherwise the images have none.
        samples: include images that sagan wrote.

    Raises:
        UserError: the source does not exist, cannot be read, or has no images.
    """
    path = expand_home(name)
    if name.startswith("hf:") and not path.exists():
        return hub_source(name, labels)
    try:
        if path.is_dir():
            return folder_source(path.absolute(), labels, samples)
        if path.is_file() and is_npz(path):
            return npz_source(path.absolute(), labels)
        if path.is_file():
            return zip_source(path.absolute(), labels, samples)
    except OSError as error:
        raise UserError(
            f"data source '{printable(name)}' cannot be read: {error.strerror or error}; check its permissions"
        ) from error
    guess = difflib.get_close_matches(name, BUILT_IN, 1)
    hint = f"did you mean '{guess[0]}'? Otherwise name" if guess else "name"
    raise UserError(
        f"data source '{printable(name)}' does not exist: {hint} a folder, a .zip, .tar shards, 'hf:USER/NAME', "
        "'robots', 'twins' or 'digits'"
    )


def folder_source(root: Path, labels: bool, samples: bool = False) -> Source:
    """Open a folder of class folders, a flat folder, or either with a dataset.json."""
    runs: list[str] = []
    files = dict(_walk(root, runs))
    folders = [entry.name for entry in os.scandir(root) if entry.is_dir() and not is_hidden(entry.name)]

    def read(name: str, limit: int = MAX_BYTES) -> bytes:
        try:
            with (root / name).open("rb") as file:
                return _limited(file.read(limit + 1), limit)
        except OSError as error:
            _check_present(root)
            raise Unreadable(f"cannot be read: {error.strerror or error}") from None

    def start(name: str) -> bytes:
        with contextlib.suppress(OSError), (root / name).open("rb") as file:
            return file.read(SEARCHED)
        return b""

    drawn = {} if samples else find_drawn(files, start)
    return _tree(str(root), files, folders, read, labels, runs=runs, drawn=drawn)


def zip_source(path: Path, labels: bool, samples: bool = False) -> Source:
    """Open a .zip as `folder_source` opens a folder. A single folder around all files is ignored.

    Members are read one by one in memory; nothing is unpacked to disk.
    """
    try:
        archive = zipfile.ZipFile(path)  # stays open: its members are read from many threads
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise UserError(
            f"data source '{printable(str(path))}' is not a readable .zip ({error}): use a folder or an intact .zip"
        ) from error
    # List the members by their normal names. The last of several with one name counts, as when a .zip is unpacked.
    members: dict[str, zipfile.ZipInfo] = {}
    twice: list[str] = []
    for info in archive.infolist():
        if ".." in info.filename and ".." in re.split(r"[/\\]", info.filename):
            raise UserError(
                f"data source '{printable(str(path))}': the member '{printable(info.filename[:100])}' points outside "
                "the archive; refusing to read it"
            )
        name = normal(info.filename)
        if not is_hidden(name):
            if name in members and not name.endswith("/"):
                twice.append(name)
            members[name] = info

    def read_member(info: zipfile.ZipInfo, count: int) -> bytes:
        if info.flag_bits & 1:
            raise Unreadable("encrypted")
        try:
            with archive.open(info) as file:
                return file.read(count)  # the archive may state a wrong size
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError):
            _check_present(path)
            raise Unreadable("damaged in the archive") from None

    # Leave out the folders of runs.
    runs = [
        name.removesuffix(RUN_FILE).rstrip("/")
        for name, info in members.items()
        if name.endswith(RUN_FILE) and name.rsplit("/", 1)[-1] == RUN_FILE and _is_run_member(read_member, info)
    ]
    if "" in runs:
        raise _is_a_run(str(path))
    if runs:
        inside = tuple(f"{run}/" for run in runs)
        members = {name: info for name, info in members.items() if not name.startswith(inside)}
    # Strip a single folder around all files.
    used = [name for name in members if name.endswith("/dataset.json") or is_image(name)]
    top_folders = {name.split("/", 1)[0] if "/" in name else "" for name in used}
    if "dataset.json" not in members and len(top_folders) == 1 and (wrapper := top_folders.pop()):
        around = f"{wrapper}/"
        members = {name[len(around) :]: info for name, info in members.items() if name.startswith(around)}
        twice = [name[len(around) :] for name in twice if name.startswith(around)]
        runs = [run[len(around) :] for run in runs if run.startswith(around)]
    folders = {name.split("/", 1)[0] for name in members if "/" in name}
    members = {name: info for name, info in members.items() if name and not name.endswith("/")}

    def read(name: str, limit: int = MAX_BYTES) -> bytes:
        info = members[name]
        if not info.file_size and not info.CRC:  # said once more, without opening it: there may be a million
            return b""
        return _limited(read_member(info, limit + 1), limit)

    def start(name: str) -> bytes:
        try:
            return read_member(members[name], SEARCHED)
        except Unreadable:
            return b""

    drawn = {} if samples else find_drawn(members, start)
    state = path.stat()
    stamps = {name: [info.file_size, info.CRC] for name, info in members.items()}
    stamp = [state.st_size, state.st_mtime_ns]
    return _tree(str(path), stamps, folders, read, labels, extra=stamp, runs=runs, twice=twice, drawn=drawn)


def npz_source(path: Path, labels: bool) -> Source:
    """Open a .npz of images and, if there are several classes, their numbers as `sagan sample` writes it."""
    arrays = ImageArrays(path)
    numbers, class_names = [0] * len(arrays), tuple[str, ...]()
    if labels and any(arrays.labels):
        numbers = arrays.labels
        class_names = _numbered(max(numbers), min(numbers), f"the labels in '{printable(str(path))}'")
    state = path.stat()
    return Source(
        title=str(path),
        entries=[(f"{number:08d}", label) for number, label in enumerate(numbers)],
        read=arrays.read,
        class_names=class_names,
        stamp=[labels, state.st_size, state.st_mtime_ns],
    )


def _is_run_member(read: Callable[[zipfile.ZipInfo, int], bytes], info: zipfile.ZipInfo) -> bool:
    try:
        return is_run(lambda count: read(info, count))
    except Unreadable:
        return False


def _is_a_run(source: str) -> UserError:
    return UserError(
        f"data source '{printable(source)}' is a run that sagan wrote, not data: pass the images that it was trained on"
    )


def hub_source(name: str, labels: bool) -> Source:
    """Open 'hf:USER/NAME' or 'hf:USER/NAME@SPLIT': a data set of the Hugging Face Hub, or a folder `datasets` reads.

    The images are in its first image column, the classes in its first ClassLabel column, an integer column 'label', or
    a column of texts that is named like a label.
    """
    where, _, split = name.removeprefix("hf:").partition("@")
    split = split or "train"
    # Anything else would be looked for, for minutes, in whatever lies there and on the network.
    if not (_HUB_NAME.fullmatch(where) and ".." not in where) and not (os.path.isabs(where) and os.path.isdir(where)):
        raise UserError(
            f"data source '{printable(name)}' is not hf:USER/NAME (or hf: and the absolute path of a folder that "
            "`datasets` reads): check the name"
        )
    try:
        import datasets
    except ImportError:
        raise UserError(f"data source '{name}' needs the package datasets: pip install 'sagan[hub]'") from None
    # Load the table and find the column of images.
    try:
        with contextlib.nullcontext() if os.path.isabs(where) else few_seconds_of_hub():
            table = datasets.load_dataset(where, split=split)
    except Exception as error:  # `datasets` raises many types: network, access, name, split
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(
            f"data source '{printable(name)}' cannot be loaded ({printable(reason)}): check the name, the split after "
            "'@', and the network"
        ) from error
    columns = table.features
    image_columns = [column for column, feature in columns.items() if isinstance(feature, datasets.Image)]
    if not image_columns:
        raise UserError(
            f"data source '{printable(name)}' has no column of images (its columns: {', '.join(columns)}): "
            "choose a data set of images"
        )
    column = image_columns[0]
    table = table.cast_column(column, datasets.Image(decode=False))  # leave the bytes to our own decoder

    # Find the classes. Rows without a class are skipped.
    numbers, class_names, remarks = _hub_classes(table, columns, name) if labels else ([0] * len(table), (), ())
    has_label = [number is not None and number >= 0 for number in numbers] if class_names else [True] * len(numbers)
    rows = [row for row, labelled in enumerate(has_label) if labelled]

    def read(number: int) -> bytes:
        cell = table[rows[number]][column]
        if cell is None:
            raise Unreadable("no image in this row")
        if cell["bytes"] is not None:
            return _limited(cell["bytes"], MAX_BYTES)
        try:
            with open(cell["path"], "rb") as file:
                return _limited(file.read(MAX_BYTES + 1), MAX_BYTES)
        except (OSError, TypeError) as error:
            raise Unreadable(f"cannot be read: {error}") from None

    files = [Path(file["filename"]) for file in table.cache_files]
    return Source(
        title=name,
        entries=[(f"{row:08d}", (numbers[row] if class_names else 0) or 0) for row in rows],
        read=read,
        class_names=class_names,
        stamp=[labels, column, [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files]],
        problems=tuple(Skipped(f"{row:08d}", "has no label") for row, known in enumerate(has_label) if not known),
        remarks=remarks,
    )


def _hub_classes(
    table: Any, columns: Mapping[str, Any], name: str
) -> tuple[list[int | None], tuple[str, ...], tuple[Skipped, ...]]:
    """Return the class of every row of a data set of the Hub, the class names, and a remark if there are none."""
    # Look for a column of named classes, of numbers, or of texts.
    for column, feature in columns.items():
        if hasattr(feature, "names") and hasattr(feature, "int2str"):  # datasets.ClassLabel
            return table[column][:], tuple(feature.names), ()
    source = f"data source '{printable(name)}'"
    if str(getattr(columns.get("label"), "dtype", "")).startswith(("int", "uint")):
        numbers = table["label"][:]
        known = [number for number in numbers if number is not None]
        return numbers, _numbered(max(known, default=-1), min(known, default=0), source), ()
    for column in _TEXT_LABELS:
        if getattr(columns.get(column), "dtype", "") not in ("string", "large_string"):
            continue
        texts = table[column][:]
        names = sorted({text for text in texts if text}, key=_order)
        if 2 * len(names) <= len(texts) or len(names) == 1:  # else captions rather than classes
            number_of = {text: number for number, text in enumerate(names)}
            return [number_of.get(text) for text in texts], tuple(names), ()
    listed = ", ".join(f"{printable(column)} ({_kind(feature)})" for column, feature in columns.items())
    remark = f"has no classes that are recognised; its columns: {listed}"
    return [0] * len(table), (), (Skipped(name, remark),)


def _kind(feature: Any) -> str:
    kind = type(feature).__name__
    return str(feature.dtype) if kind == "Value" else kind


def _check_present(path: Path) -> None:
    """Raise UserError if the source itself is gone, so that its images are not skipped one by one."""
    if not path.exists():
        raise UserError(
            f"data source '{printable(str(path))}' disappeared while it was read (disk unmounted, or source moved or "
            "deleted): restore it, then start again"
        )


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


def _tree(
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
    images = sorted((name for name in files if is_image(name) and not name.lower().endswith(unread)), key=_order)
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
        class_names = tuple(sorted({name.split("/", 1)[0] for name in images if "/" in name}, key=_order))
        numbers = {name: number for number, name in enumerate(class_names)}
        label_of = {name: numbers[name.split("/", 1)[0]] for name in images if "/" in name}
        # A folder of nothing but runs is no class that lacks images.
        without = sorted(set(folders) - set(class_names) - {run.split("/", 1)[0] for run in runs}, key=_order)
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
    notes = hints(title, images, class_names) if not ("dataset.json" in files and label_of) else ()
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


def _order(name: str) -> tuple[object, str]:
    return natural_key(name), name  # the name orders paths that differ in case only


def _walk(root: Path, runs: list[str]) -> Iterator[tuple[str, object]]:
    """Yield the relative path and [size, modification time] of every file in a folder; follow linked folders once.

    Folders of runs are not entered, but appended to `runs`.
    """
    seen: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link to a folder that contains it
            folders.clear()
            continue
        seen.add(real)
        if RUN_FILE in files and is_run(lambda count, folder=folder: _start_of(folder, count)):  # type: ignore[misc]
            if os.path.samefile(folder, root):
                raise _is_a_run(str(root))
            runs.append(os.path.relpath(folder, root).replace(os.sep, "/"))
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        for name in files:
            if is_hidden(name):
                continue
            path = os.path.join(folder, name)
            try:
                state = os.stat(path)
                stamp: object = [state.st_size, state.st_mtime_ns]
                if not stat.S_ISREG(state.st_mode):  # reading from a pipe would block
                    continue
            except OSError:
                stamp = None  # reading the file will give the reason
            yield os.path.relpath(path, root).replace(os.sep, "/"), stamp


def _start_of(folder: str, count: int) -> bytes:
    """Read the start of a folder's RUN_FILE; return nothing if that fails."""
    path = Path(folder) / RUN_FILE
    try:
        with path.open("rb") if path.is_file() else contextlib.nullcontext(io.BytesIO()) as file:
            return file.read(count)
    except OSError:
        return b""


def _limited(data: bytes, limit: int) -> bytes:
    if len(data) > limit:
        raise Unreadable(f"more than the limit of {limit // 2**20} megabytes")
    return data


def _read_labels(where: str, read: Callable[[str], bytes]) -> tuple[dict[str, int], tuple[str, ...]]:
    """Read the labels and class names of a dataset.json as in StyleGAN and EDM.

    The file holds {"labels": [["folder/name.png", 3], ...]}, or {"labels": null} if there are no classes.
    """
    try:
        content: Any = json.loads(read("dataset.json"), object_pairs_hook=_without_doubles)
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
    return labels, _numbered(max(labels.values(), default=-1), min(labels.values(), default=0), where)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of a JSON file. Raises ValueError if it has a key twice, of which the last would win."""
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("it has a key twice")
    return content


def _numbered(highest: int, lowest: int, where: str) -> tuple[str, ...]:
    """Return the class names "0", "1", ... up to the highest label."""
    if lowest < 0 or highest >= _MAX_CLASSES:
        raise UserError(
            f"{where}: labels range from {lowest} to {highest}: number the classes from 0 to at most {_MAX_CLASSES - 1}"
        )
    return tuple(map(str, range(highest + 1)))

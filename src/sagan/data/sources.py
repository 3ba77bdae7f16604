"""Open a source of images (folder, .zip, Hugging Face Hub) as a list of names and labels with a reader of bytes."""

import difflib
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

from sagan.data.decode import Unreadable
from sagan.errors import UserError
from sagan.text import printable

BUILT_IN = ("robots", "twins", "digits")
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
"""Endings of image files; all other files in a source are ignored."""
MAX_BYTES = 2**29
"""Largest image file that is read, in bytes."""
MAX_LABEL_BYTES = 2**27
"""Largest dataset.json, in bytes. ImageNet's is half as large."""

_UNSUPPORTED = (".heic", ".heif", ".avif", ".jxl", ".jp2", ".svg", ".psd", ".cr2", ".nef", ".dng", ".ico", ".tga")
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
    """Files and folders that are not among the entries, with the reason."""


def open_source(name: str, labels: bool) -> Source:
    """List the images of a source without reading them.

    Args:
        name: a folder, a .zip file, or 'hf:USER/NAME' with an optional '@SPLIT'.
        labels: find classes; otherwise the images have none.

    Raises:
        UserError: the source does not exist, cannot be read, or has no images.
    """
    if name.startswith("hf:"):
        return hub_source(name, labels)
    path = Path(name).expanduser()
    try:
        if path.is_dir():
            return folder_source(path.absolute(), labels)
        if path.is_file():
            return zip_source(path.absolute(), labels)
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


def folder_source(root: Path, labels: bool) -> Source:
    """Open a folder of class folders, a flat folder, or either with a dataset.json."""
    files = dict(_walk(root))
    folders = [entry.name for entry in os.scandir(root) if entry.is_dir() and not _hidden(entry.name)]

    def read(name: str) -> bytes:
        try:
            with (root / name).open("rb") as file:
                return _limited(file.read(MAX_BYTES + 1))
        except OSError as error:
            _check_present(root)
            raise Unreadable(f"cannot be read: {error.strerror or error}") from None

    return _tree(str(root), files, folders, read, labels)


def zip_source(path: Path, labels: bool) -> Source:
    """Open a .zip as `folder_source` opens a folder. A single folder around all files is ignored.

    Members are read one by one in memory; nothing is unpacked to disk.
    """
    try:
        archive = zipfile.ZipFile(path)  # stays open: its members are read from many threads
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise UserError(
            f"data source '{printable(str(path))}' is not a readable .zip ({error}): use a folder or an intact .zip"
        ) from error
    outside = [info.filename for info in archive.infolist() if ".." in re.split(r"[/\\]", info.filename)]
    if outside:
        raise UserError(
            f"data source '{printable(str(path))}': the member '{printable(outside[0][:100])}' points outside the "
            "archive; refusing to read it"
        )
    members = {
        info.filename.replace("\\", "/").lstrip("/"): info
        for info in archive.infolist()
        if not _hidden(info.filename.rstrip("/"))
    }
    # Strip a single folder around all files.
    used = [name for name in members if name.endswith("/dataset.json") or _is_image(name)]
    top_folders = {name.split("/", 1)[0] if "/" in name else "" for name in used}
    if "dataset.json" not in members and len(top_folders) == 1 and (wrapper := top_folders.pop()):
        members = {name[len(wrapper) + 1 :]: info for name, info in members.items() if name.startswith(wrapper + "/")}
    folders = {name.split("/", 1)[0] for name in members if "/" in name}
    members = {name: info for name, info in members.items() if name and not name.endswith("/")}

    def read(name: str) -> bytes:
        info = members[name]
        if info.flag_bits & 1:
            raise Unreadable("encrypted")
        try:
            with archive.open(info) as file:
                return _limited(file.read(MAX_BYTES + 1))  # the archive may state a wrong size
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError):
            _check_present(path)
            raise Unreadable("damaged in the archive") from None

    state = path.stat()
    stamps = {name: [info.file_size, info.CRC] for name, info in members.items()}
    return _tree(str(path), stamps, folders, read, labels, extra=[state.st_size, state.st_mtime_ns])


def hub_source(name: str, labels: bool) -> Source:
    """Open 'hf:USER/NAME' or 'hf:USER/NAME@SPLIT': a data set of the Hugging Face Hub, or a folder `datasets` reads.

    The images are in its first image column, the classes in its first ClassLabel column or an integer column 'label'.
    """
    try:
        import datasets
    except ImportError:
        raise UserError(f"data source '{name}' needs the package datasets: pip install 'sagan[hub]'") from None
    # Load the table and find the column of images.
    where, _, split = name.removeprefix("hf:").partition("@")
    split = split or "train"
    try:
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
    numbers, class_names = [0] * len(table), tuple[str, ...]()
    class_columns = [column for column, feature in columns.items() if isinstance(feature, datasets.ClassLabel)]
    if labels and class_columns:
        numbers, class_names = table[class_columns[0]][:], tuple(columns[class_columns[0]].names)
    elif labels and "label" in columns and str(getattr(columns["label"], "dtype", "")).startswith(("int", "uint")):
        numbers = table["label"][:]
        known = [number for number in numbers if number is not None]
        class_names = _numbered(max(known, default=-1), min(known, default=0), f"data source '{printable(name)}'")
    has_label = [number is not None and number >= 0 for number in numbers] if class_names else [True] * len(numbers)
    rows = [row for row, labelled in enumerate(has_label) if labelled]

    def read(number: int) -> bytes:
        cell = table[rows[number]][column]
        if cell is None:
            raise Unreadable("no image in this row")
        if cell["bytes"] is not None:
            return _limited(cell["bytes"])
        try:
            with open(cell["path"], "rb") as file:
                return _limited(file.read(MAX_BYTES + 1))
        except (OSError, TypeError) as error:
            raise Unreadable(f"cannot be read: {error}") from None

    files = [Path(file["filename"]) for file in table.cache_files]
    return Source(
        title=name,
        entries=[(f"{row:08d}", numbers[row] if class_names else 0) for row in rows],
        read=read,
        class_names=class_names,
        stamp=[labels, column, [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files]],
        problems=tuple(Skipped(f"{row:08d}", "has no label") for row, known in enumerate(has_label) if not known),
    )


def _check_present(path: Path) -> None:
    """Raise UserError if the source itself is gone, so that its images are not skipped one by one."""
    if not path.exists():
        raise UserError(
            f"data source '{printable(str(path))}' disappeared while it was read (disk unmounted, or source moved or "
            "deleted): restore it, then start again"
        )


def no_usable_image(source: str, skipped: Sequence[Skipped]) -> UserError:
    """Return the error for a source of which every image was skipped. It names the first three with the reason."""
    reasons = "; ".join(f"{printable(one.name)}: {one.reason}" for one in skipped[:3])
    more = f"; and {len(skipped) - 3} more" if len(skipped) > 3 else ""
    return UserError(
        f"data source '{printable(source)}' has no usable image" + (f" ({reasons}{more})" if reasons else "")
    )


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
    read: Callable[[str], bytes],
    labels: bool,
    extra: object = None,
) -> Source:
    """Build a source from the files in a folder or an archive.

    Args:
        title: path of the folder or the archive.
        files: relative path -> JSON value that changes with the file.
        folders: names of the folders of the first level.
        read: read the bytes of a relative path.
        labels: find classes.
        extra: JSON value that changes with the source as a whole.
    """
    images = sorted(filter(_is_image, files), key=_order)
    unsupported = sorted(name for name in files if name.lower().endswith(_UNSUPPORTED))
    # The key of a store contains these reasons: their words change with its format only.
    problems = [Skipped(name, "not a format that is read: convert it to PNG or JPEG") for name in unsupported]
    empty: list[str] = []
    class_names: tuple[str, ...] = ()
    label_of: dict[str, int] = {}
    if labels and "dataset.json" in files:
        label_of, class_names = _read_labels(f"dataset.json in '{printable(title)}'", read)
        if class_names:
            problems += [Skipped(name, "has no label in dataset.json") for name in images if name not in label_of]
            problems += [Skipped(name, "is in dataset.json, but not there") for name in label_of if name not in files]
    elif labels and any("/" in name for name in images):
        class_names = tuple(sorted({name.split("/", 1)[0] for name in images if "/" in name}, key=_order))
        numbers = {name: number for number, name in enumerate(class_names)}
        label_of = {name: numbers[name.split("/", 1)[0]] for name in images if "/" in name}
        empty = sorted(set(folders) - set(class_names), key=_order)
        problems += [Skipped(name, f"class folder '{printable(name)}' holds no pictures") for name in empty]
        problems += [Skipped(name, "lies beside the class folders: left out") for name in images if "/" not in name]
    entries = [(name, label_of.get(name, 0)) for name in images if not class_names or name in label_of]
    if not entries and not problems:
        raise UserError(
            f"data source '{printable(title)}' has no images: none of its {len(files)} files ends in "
            f"{', '.join(SUFFIXES)}"
        )
    return Source(
        title=title,
        entries=entries,
        read=lambda number: read(entries[number][0]),
        class_names=class_names,
        stamp=[labels, extra, empty, *([name, files.get(name)] for name in [*images, *unsupported, "dataset.json"])],
        problems=tuple(problems),
    )


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _order(name: str) -> tuple[object, str]:
    return natural_key(name), name  # the name orders paths that differ in case only


def _walk(root: Path) -> Iterator[tuple[str, object]]:
    """Yield the relative path and [size, modification time] of every file in a folder; follow linked folders once."""
    seen: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link to a folder that contains it
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not _hidden(name))
        for name in files:
            if _hidden(name):
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


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.replace("\\", "/").split("/"))


def _limited(data: bytes) -> bytes:
    if len(data) > MAX_BYTES:
        raise Unreadable(f"more than the limit of {MAX_BYTES // 2**20} megabytes")
    return data


def _read_labels(where: str, read: Callable[[str], bytes]) -> tuple[dict[str, int], tuple[str, ...]]:
    """Read the labels and class names of a dataset.json as in StyleGAN and EDM.

    The file holds {"labels": [["folder/name.png", 3], ...]}, or {"labels": null} if there are no classes.
    """
    try:
        text = read("dataset.json")
        if len(text) > MAX_LABEL_BYTES:
            raise Unreadable(f"more than the limit of {MAX_LABEL_BYTES // 2**20} megabytes")
        content: Any = json.loads(text)
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
        labels[name.replace("\\", "/")] = label
    return labels, _numbered(max(labels.values(), default=-1), min(labels.values(), default=0), where)


def _numbered(highest: int, lowest: int, where: str) -> tuple[str, ...]:
    """Return the class names "0", "1", ... up to the highest label."""
    if lowest < 0 or highest >= _MAX_CLASSES:
        raise UserError(
            f"{where}: labels range from {lowest} to {highest}: number the classes from 0 to at most {_MAX_CLASSES - 1}"
        )
    return tuple(map(str, range(highest + 1)))

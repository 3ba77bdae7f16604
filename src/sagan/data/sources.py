"""Where pictures come from: each kind of source as a list of names and labels, and a way to read the bytes of one."""

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

BUILT_IN = ("robots", "digits")
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
"""Files with other endings are not pictures of a source."""
MAX_BYTES = 2**29
"""Largest picture file that is read, in bytes."""
MAX_LABEL_BYTES = 2**27
"""Largest dataset.json, in bytes: that of ImageNet is half as large."""

_UNSUPPORTED = (".heic", ".heif", ".avif", ".jxl", ".jp2", ".svg", ".psd", ".cr2", ".nef", ".dng", ".ico", ".tga")
_MAX_CLASSES = 100_000


@dataclass(frozen=True)
class Skipped:
    """A picture, or a folder of them, that was left out."""

    name: str
    reason: str


@dataclass(frozen=True)
class Source:
    """Pictures not yet decoded."""

    title: str
    """For people to read, and one part of the fingerprint."""
    entries: Sequence[tuple[str, int]]
    """Name and label of every picture; the label is 0 without classes."""
    read: Callable[[int], bytes]
    """Bytes of the picture of that number; may be called from many threads; raises `decode.Unreadable`."""
    class_names: tuple[str, ...]
    """Empty: no classes."""
    stamp: Sequence[object]
    """JSON values that change whenever the content may have."""
    problems: tuple[Skipped, ...] = ()


def open_source(name: str, labels: bool) -> Source:
    """Find out what a source holds, without reading its pictures. UserError when it cannot be used.

    Args:
        name: a folder, a .zip file, or 'hf:USER/NAME' (and '@SPLIT').
        labels: find classes; else the pictures come without.
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
    hint = f"did you mean '{guess[0]}'? Else give" if guess else "give"
    raise UserError(
        f"data source '{printable(name)}' does not exist: {hint} a folder, a .zip, .tar shards, 'hf:USER/NAME', "
        "'robots' or 'digits'"
    )


def folder_source(root: Path, labels: bool) -> Source:
    """A folder of class folders, a flat folder, or either with a dataset.json."""
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
    """The same as `folder_source`, inside an archive; a single folder around everything does not count.

    Members are read in memory, one by one: nothing is unpacked to disk.
    """
    try:
        archive = zipfile.ZipFile(path)  # stays open: its members are read from many threads
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise UserError(
            f"data source '{printable(str(path))}' is not a readable .zip ({error}): give a folder or an intact .zip"
        ) from error
    leading_out = [info.filename for info in archive.infolist() if ".." in re.split(r"[/\\]", info.filename)]
    if leading_out:
        raise UserError(
            f"data source '{printable(str(path))}' is refused: '{printable(leading_out[0][:100])}' in it leads out of "
            "the archive, which no honest one does; nothing of it was read"
        )
    members = {
        info.filename.replace("\\", "/").lstrip("/"): info
        for info in archive.infolist()
        if not _hidden(info.filename.rstrip("/"))
    }
    wanted = [name for name in members if name.endswith("/dataset.json") or _is_picture(name)]
    tops = {name.split("/", 1)[0] if "/" in name else "" for name in wanted}
    if "dataset.json" not in members and len(tops) == 1 and (wrapper := tops.pop()):
        members = {name[len(wrapper) + 1 :]: info for name, info in members.items() if name.startswith(wrapper + "/")}
    folders = {name.split("/", 1)[0] for name in members if "/" in name}
    members = {name: info for name, info in members.items() if name and not name.endswith("/")}

    def read(name: str) -> bytes:
        info = members[name]
        if info.flag_bits & 1:
            raise Unreadable("encrypted")
        try:
            with archive.open(info) as file:
                return _limited(file.read(MAX_BYTES + 1))  # the size that the archive states may be a lie
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError):
            _check_present(path)
            raise Unreadable("damaged in the archive") from None

    times = path.stat()
    stamps = {name: [info.file_size, info.CRC] for name, info in members.items()}
    return _tree(str(path), stamps, folders, read, labels, extra=[times.st_size, times.st_mtime_ns])


def hub_source(name: str, labels: bool) -> Source:
    """'hf:USER/NAME' or 'hf:USER/NAME@SPLIT': a data set of the Hugging Face Hub, or a folder that `datasets` reads.

    Pictures are in its first image column; classes in its first ClassLabel column, or an integer column 'label'.
    """
    try:
        import datasets
    except ImportError:
        raise UserError(f"data source '{name}' needs the package datasets: pip install 'sagan[hub]'") from None
    where, _, split = name.removeprefix("hf:").partition("@")
    split = split or "train"
    try:
        table = datasets.load_dataset(where, split=split)
    except Exception as error:  # network, access, a wrong name, a wrong split: all the user's to see, in one line
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(
            f"data source '{printable(name)}' cannot be loaded ({printable(reason)}): check the name, the split after "
            "'@', and the network"
        ) from error
    columns = table.features
    pictures = [column for column, feature in columns.items() if isinstance(feature, datasets.Image)]
    if not pictures:
        raise UserError(
            f"data source '{printable(name)}' has no column of pictures (its columns: {', '.join(columns)}): "
            "choose a data set of images"
        )
    column = pictures[0]
    table = table.cast_column(column, datasets.Image(decode=False))  # our own decoder is to see the bytes

    numbers, class_names = [0] * len(table), tuple[str, ...]()
    named = [one for one, feature in columns.items() if isinstance(feature, datasets.ClassLabel)]
    if labels and named:
        numbers, class_names = table[named[0]][:], tuple(columns[named[0]].names)
    elif labels and "label" in columns and str(getattr(columns["label"], "dtype", "")).startswith(("int", "uint")):
        numbers = table["label"][:]
        known = [number for number in numbers if number is not None]
        class_names = _numbered(max(known, default=-1), min(known, default=0), f"data source '{printable(name)}'")
    good = [number is not None and number >= 0 for number in numbers] if class_names else [True] * len(numbers)
    rows = [row for row, fine in enumerate(good) if fine]

    def read(number: int) -> bytes:
        cell = table[rows[number]][column]
        if cell is None:
            raise Unreadable("no picture in this row")
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
        problems=tuple(Skipped(f"{row:08d}", "has no label") for row, fine in enumerate(good) if not fine),
    )


def _check_present(path: Path) -> None:
    """Raises UserError if a source is gone: what is left to read is not to be left out picture by picture."""
    if not path.exists():
        raise UserError(
            f"data source '{printable(str(path))}' has vanished while it was read (its disk was taken away, or it was "
            "moved or deleted): put it back, then start again"
        )


def nothing_left(source: str, skipped: Sequence[Skipped]) -> str:
    """What to say of a source of which every picture was left out: the first three, and why."""
    why = "; ".join(f"{printable(one.name)}: {one.reason}" for one in skipped[:3])
    more = f"; and {len(skipped) - 3} more" if len(skipped) > 3 else ""
    return f"data source '{printable(source)}' holds no usable picture" + (f" ({why}{more})" if why else "")


def natural(text: str) -> list[tuple[bool, int, str]]:
    """Sorting key in which '2' comes before '10', whatever the case of letters."""
    return [
        # Of two numbers the one with more digits is greater; int() would refuse the thousands an archive can hold.
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
    """A source from the files below a folder or in an archive.

    `files` maps relative paths to a stamp of their state, `folders` are those of the first level, `read` is given a
    relative path.
    """
    pictures = sorted(filter(_is_picture, files), key=_order)
    foreign = sorted(name for name in files if name.lower().endswith(_UNSUPPORTED))
    problems = [Skipped(name, "not a format that is read: convert it to PNG or JPEG") for name in foreign]
    empty: list[str] = []
    class_names: tuple[str, ...] = ()
    label_of: dict[str, int] = {}
    if labels and "dataset.json" in files:
        label_of, class_names = _read_labels(f"dataset.json in '{printable(title)}'", read)
        if class_names:
            problems += [Skipped(name, "has no label in dataset.json") for name in pictures if name not in label_of]
            problems += [Skipped(name, "is in dataset.json, but not there") for name in label_of if name not in files]
    elif labels and any("/" in name for name in pictures):
        class_names = tuple(sorted({name.split("/", 1)[0] for name in pictures if "/" in name}, key=_order))
        numbers = {name: number for number, name in enumerate(class_names)}
        label_of = {name: numbers[name.split("/", 1)[0]] for name in pictures if "/" in name}
        empty = sorted(set(folders) - set(class_names), key=_order)
        problems += [Skipped(name, f"class folder '{printable(name)}' holds no pictures") for name in empty]
        problems += [Skipped(name, "lies beside the class folders: left out") for name in pictures if "/" not in name]
    entries = [(name, label_of.get(name, 0)) for name in pictures if not class_names or name in label_of]
    if not entries and not problems:
        raise UserError(
            f"data source '{printable(title)}' holds no pictures: none of its {len(files)} files ends in "
            f"{', '.join(SUFFIXES)}"
        )
    return Source(
        title=title,
        entries=entries,
        read=lambda number: read(entries[number][0]),
        class_names=class_names,
        stamp=[labels, extra, empty, *([name, files.get(name)] for name in [*pictures, *foreign, "dataset.json"])],
        problems=tuple(problems),
    )


def _is_picture(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _order(name: str) -> tuple[object, str]:
    return natural(name), name  # the name itself settles what differs in case only


def _walk(root: Path) -> Iterator[tuple[str, object]]:
    """Relative path, and [size, time of change] of every file below a folder; linked folders are followed, once."""
    seen: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link to a folder further up
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
                state_now: object = [state.st_size, state.st_mtime_ns]
                if not stat.S_ISREG(state.st_mode):  # a pipe would be waited for
                    continue
            except OSError:
                state_now = None  # reading it will say why
            yield os.path.relpath(path, root).replace(os.sep, "/"), state_now


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.replace("\\", "/").split("/"))


def _limited(data: bytes) -> bytes:
    if len(data) > MAX_BYTES:
        raise Unreadable(f"more than the limit of {MAX_BYTES // 2**20} megabytes")
    return data


def _read_labels(where: str, read: Callable[[str], bytes]) -> tuple[dict[str, int], tuple[str, ...]]:
    """The labels of StyleGAN's and EDM's dataset.json: {"labels": [["folder/name.png", 3], ...]}, or null."""
    try:
        text = read("dataset.json")
        if len(text) > MAX_LABEL_BYTES:
            raise Unreadable(f"more than the limit of {MAX_LABEL_BYTES // 2**20} megabytes")
        content: Any = json.loads(text)
    except (Unreadable, ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON ({error}): repair or remove it") from error
    pairs = content.get("labels") if isinstance(content, dict) else content
    if pairs is None:
        return {}, ()
    if not isinstance(content, dict) or not isinstance(pairs, list):
        raise UserError(f'{where} should hold {{"labels": [["name.png", 0], ...]}}: repair or remove it')
    labels: dict[str, int] = {}
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[0], str):
            raise UserError(f'{where}: {str(pair)[:60]} is not a pair ["name.png", class]: repair or remove it')
        name, label = pair
        if type(label) is not int:
            raise UserError(
                f"{where}: the label of {printable(name)} is {str(label)[:60]}: only integer class labels are supported"
            )
        labels[name.replace("\\", "/")] = label
    return labels, _numbered(max(labels.values(), default=-1), min(labels.values(), default=0), where)


def _numbered(highest: int, lowest: int, where: str) -> tuple[str, ...]:
    """Class names "0", "1", ... to the highest label."""
    if lowest < 0 or highest >= _MAX_CLASSES:
        raise UserError(
            f"{where}: labels go from {lowest} to {highest}: number the classes from 0, to {_MAX_CLASSES - 1} at most"
        )
    return tuple(map(str, range(highest + 1)))

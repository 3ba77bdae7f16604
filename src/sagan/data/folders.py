"""Open a folder or a .zip of images."""

import contextlib
import io
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from sagan.data.decode import Unreadable
from sagan.data.hints import find_drawn
from sagan.data.names import (
    RUN_FILE,
    is_hidden,
    is_image,
    is_run,
    normal,
)
from sagan.data.source import (
    MAX_BYTES,
    Source,
    check_present,
    limited,
    refused_run,
)
from sagan.data.tree import tree_source
from sagan.errors import UserError
from sagan.marks import SEARCHED
from sagan.text import printable


def folder_source(root: Path, labels: bool, samples: bool = False) -> Source:
    """Open a folder of class folders, a flat folder, or either with a dataset.json."""
    runs: list[str] = []
    files = dict(_walk(root, runs))
    folders = [entry.name for entry in os.scandir(root) if entry.is_dir() and not is_hidden(entry.name)]

    def read(name: str, limit: int = MAX_BYTES) -> bytes:
        try:
            with (root / name).open("rb") as file:
                return limited(file.read(limit + 1), limit)
        except OSError as error:
            check_present(root)
            raise Unreadable(f"cannot be read: {error.strerror or error}") from None

    def start(name: str) -> bytes:
        with contextlib.suppress(OSError), (root / name).open("rb") as file:
            return file.read(SEARCHED)
        return b""

    drawn = {} if samples else find_drawn(files, start)
    return tree_source(str(root), files, folders, read, labels, runs=runs, drawn=drawn)


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
                raise refused_run(str(root))
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
            check_present(path)
            raise Unreadable("damaged in the archive") from None

    # Leave out the folders of runs.
    runs = [
        name.removesuffix(RUN_FILE).rstrip("/")
        for name, info in members.items()
        if name.endswith(RUN_FILE) and name.rsplit("/", 1)[-1] == RUN_FILE and _is_run_member(read_member, info)
    ]
    if "" in runs:
        raise refused_run(str(path))
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
        return limited(read_member(info, limit + 1), limit)

    def start(name: str) -> bytes:
        try:
            return read_member(members[name], SEARCHED)
        except Unreadable:
            return b""

    drawn = {} if samples else find_drawn(members, start)
    state = path.stat()
    stamps = {name: [info.file_size, info.CRC] for name, info in members.items()}
    stamp = [state.st_size, state.st_mtime_ns]
    return tree_source(str(path), stamps, folders, read, labels, extra=stamp, runs=runs, twice=twice, drawn=drawn)


def _is_run_member(read: Callable[[zipfile.ZipInfo, int], bytes], info: zipfile.ZipInfo) -> bool:
    try:
        return is_run(lambda count: read(info, count))
    except Unreadable:
        return False

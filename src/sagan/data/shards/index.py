"""Where the pictures of a tar file lie, from its headers alone: what is inside is neither unpacked nor trusted.

A sample is what WebDataset takes for one: members of the same name up to the first dot, its picture in .jpg, .png or
the like and its class in .cls. The standard library reads the headers, through a file that bounds what it may ask for.
"""

import posixpath
import re
import tarfile
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sagan.data.sources import SUFFIXES, Skipped
from sagan.errors import UserError
from sagan.text import printable

ROW = np.dtype([("offset", "<i8"), ("size", "<i8"), ("label", "<i8"), ("sides", "<i4", 2)])
"""A picture: its first byte in the shard and its length; its class, or -1; width and height, 0 where not known."""
MAX_BYTES = 2**26
"""Largest picture in a shard, in bytes."""
MAX_LABEL = 100_000
MOST_PROBLEMS = 100
"""Problems of a shard that are named one by one."""

_PICKLES = (".pyd", ".pkl", ".pickle", ".pth", ".pt")
_MAX_HEADER = 2**20  # bytes between two members: long names and the like
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"\x28\xb5": "zstd", b"PK": "zip"}


@dataclass(frozen=True)
class Scan:
    """What the headers of one shard say."""

    rows: NDArray[Any]
    """ROW, in the order of the shard."""
    problems: tuple[Skipped, ...]


def scan(name: str, size: int, read: Callable[[int, int], bytes], block: int) -> Scan:
    """Find the pictures of a tar file.

    Args:
        name: of the shard, for people to read.
        size: its bytes.
        read: bytes from a start to before a stop.
        block: bytes to read at once.

    Raises:
        UserError: it is compressed, or no tar file from its first header on. Later damage is a problem of the shard.
    """
    file = _Bounded(size, read, block)
    kind = _COMPRESSED.get(file.read(2))
    if kind:
        raise UserError(
            f"{printable(name)} is compressed ({kind}): pictures in it cannot be reached one by one; unpack it to a "
            "plain .tar (pictures are compressed already)"
        )
    file.seek(0)
    found = _Found(posixpath.basename(name))
    end = 0
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:  # type: ignore[call-overload]
            while (member := tar.next()) is not None:
                tar.members = []  # else it keeps them all
                if member.offset_data <= end:
                    raise tarfile.ReadError("its headers lead back")
                end = member.offset_data
                if not _take(found, member, file, size):
                    break
                file.begin()
            else:
                _check_end(found, file, tar.offset, size)
    except (tarfile.TarError, ValueError, OverflowError, RecursionError, EOFError) as error:
        if not end:
            raise UserError(f"{printable(name)} is not a readable .tar ({error}): give an intact one") from error
        found.problem("", f"damaged after byte {end:,} ({error}): the rest of the shard is left out")
    found.flush()
    return Scan(found.rows(), found.all_problems())


def _take(found: "_Found", member: tarfile.TarInfo, file: "_Bounded", size: int) -> bool:
    """Notes a member, if it is part of a sample; False where the shard ends within it."""
    base, suffix = _split(member.name)
    if member.isreg() and member.offset_data + member.size > size:
        found.problem(member.name, f"claims {member.size:,} bytes, past the end of the shard: cut off there")
        return False
    picture = suffix.endswith(SUFFIXES)
    if suffix.endswith(_PICKLES):
        found.problem(member.name, "may be a pickle: never read")
    elif not picture and suffix != ".cls":
        pass
    elif not member.isreg() or member.issparse():
        found.problem(member.name, f"is {'a link' if member.islnk() or member.issym() else 'no plain file'}: not read")
    elif member.name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", member.name):
        found.problem(member.name, "its name leads out of the archive")
    elif not picture:
        file.seek(member.offset_data)
        found.label(base, member.name, file.read(min(member.size, 64)))
    elif member.size > MAX_BYTES:
        found.problem(member.name, f"more than the limit of {MAX_BYTES // 2**20} megabytes")
    else:
        found.picture(base, member)
    return True


def _check_end(found: "_Found", file: "_Bounded", offset: int, size: int) -> None:
    """tarfile takes any block that is no header for the end; the end is zeros, or nothing at all."""
    file.begin()
    file.seek(offset)
    if offset > size or file.read(512).strip(b"\0"):
        found.problem("", f"damaged or cut off after byte {min(offset, size):,}: the rest of the shard is left out")


def _split(name: str) -> tuple[str, str]:
    """Name up to the first dot of its last part, and the rest from the dot on in lower case."""
    folder, last = posixpath.split(name.removeprefix("./"))
    base, dot, suffix = last.partition(".")
    return posixpath.join(folder, base), (dot + suffix).lower()


class _Found:
    """Pictures and problems of one shard; a sample's members are expected side by side, as WebDataset has them."""

    def __init__(self, shard: str) -> None:
        self.shard = shard
        self._numbers = array("q")  # offset, size and label in turn
        self._problems: list[Skipped] = []
        self._more = 0
        self._key: str | None = None
        self._picture: tarfile.TarInfo | None = None
        self._label = -1

    def picture(self, key: str, member: tarfile.TarInfo) -> None:
        self._open(key)
        if self._picture is not None:
            self.problem(member.name, "a second picture of the same sample (names are the same up to the first dot)")
        elif not member.size:
            self.problem(member.name, "empty file")
        else:
            self._picture = member

    def label(self, key: str, name: str, text: bytes) -> None:
        self._open(key)
        if re.fullmatch(rb"\s*\d{1,6}\s*", text) and int(text) < MAX_LABEL:
            self._label = int(text)
        else:
            self.problem(name, f"{text[:20]!r} is no class: a number from 0 to {MAX_LABEL - 1}")

    def flush(self) -> None:
        """The sample in hand is complete."""
        if self._picture is not None:
            self._numbers.extend((self._picture.offset_data, self._picture.size, self._label))
        self._picture, self._label = None, -1

    def rows(self) -> NDArray[Any]:
        """ROW, in the order of the shard."""
        numbers = np.array(self._numbers, np.int64).reshape(-1, 3)
        rows = np.zeros(len(numbers), ROW)
        rows["offset"], rows["size"], rows["label"] = numbers.T
        return rows

    def problem(self, name: str, reason: str) -> None:
        if len(self._problems) < MOST_PROBLEMS:
            self._problems.append(Skipped(f"{self.shard}: {name[:200]}" if name else self.shard, reason))
        else:
            self._more += 1

    def all_problems(self) -> tuple[Skipped, ...]:
        more = [Skipped(self.shard, f"and {self._more:,} more members left out")] if self._more else []
        return (*self._problems, *more)

    def _open(self, key: str) -> None:
        if key != self._key:
            self.flush()
            self._key = key


class _Bounded:
    """A file for tarfile to read headers from: in blocks, and not more between two members than headers need."""

    def __init__(self, size: int, read: Callable[[int, int], bytes], block: int) -> None:
        self.size, self._read, self._block = size, read, block
        self._at = self._start = 0
        self._buffer = b""
        self._spent = 0

    def begin(self) -> None:
        """The next member begins."""
        self._spent = 0

    def seek(self, at: int, whence: int = 0) -> int:
        if at < 0 or whence:
            raise tarfile.ReadError("a header leads before the beginning")
        self._at = at
        return at

    def tell(self) -> int:
        return self._at

    def read(self, count: int) -> bytes:
        self._spent += count
        if count < 0 or self._spent > _MAX_HEADER:
            raise tarfile.ReadError("a header claims more than a megabyte")
        stop = min(self._at + count, self.size)
        if self._at >= stop:
            return b""
        if not self._start <= self._at <= stop <= self._start + len(self._buffer):
            self._start = self._at
            self._buffer = self._read(self._at, min(max(stop, self._at + self._block), self.size))
        data = self._buffer[self._at - self._start : stop - self._start]
        self._at += len(data)
        return data

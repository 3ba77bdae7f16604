"""Locate the images of a tar file by its headers, without unpacking or trusting its content.

A sample is defined as in WebDataset: the members with the same name up to the first dot, with the image in .jpg, .png
or another image suffix and the class in .cls. The standard library's `tarfile` reads the headers, through a file object
that limits how much it can read.
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
"""An image: its first byte in the shard and its bytes; its class, or -1; width and height, 0 if unknown."""
MAX_BYTES = 2**26
"""Largest image in a shard, in bytes."""
MAX_LABEL = 100_000
"""Number of classes that a shard may use: labels are below it."""
MAX_PROBLEMS = 100
"""Problems of a shard that are listed; the rest are counted."""

_PICKLES = (".pyd", ".pkl", ".pickle", ".pth", ".pt")
_MAX_HEADER = 2**20  # bytes of headers between two members, e.g. for long names
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"\x28\xb5": "zstd", b"PK": "zip"}


@dataclass(frozen=True)
class Scan:
    """The images that the headers of one shard list."""

    rows: NDArray[Any]
    """ROW, in the order of the shard."""
    problems: tuple[Skipped, ...]


def scan(name: str, size: int, read: Callable[[int, int], bytes], block: int) -> Scan:
    """List the images of a tar file.

    Args:
        name: name of the shard in messages.
        size: size of the shard, in bytes.
        read: `read(start, stop)` returns the bytes from `start` up to `stop`.
        block: bytes to read at once.

    Raises:
        UserError: the file is compressed, or its first header is not that of a tar file. Damage further on is listed
            in `Scan.problems`.
    """
    file = _LimitedFile(size, read, block)
    kind = _COMPRESSED.get(file.read(2))
    if kind:
        raise UserError(
            f"{printable(name)} is compressed ({kind}), so its images cannot be read one by one: unpack it to a "
            "plain .tar (images are compressed already)"
        )
    file.seek(0)
    samples = _Samples(posixpath.basename(name))
    end = 0  # first byte of the content of the last member
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:  # type: ignore[call-overload]
            while (member := tar.next()) is not None:
                tar.members = []  # else tarfile keeps all of them
                if member.offset_data <= end:
                    raise tarfile.ReadError("a header points backwards")
                end = member.offset_data
                if not _add_member(samples, member, file, size):
                    break
                file.reset_limit()
            else:
                _check_end(samples, file, tar.offset, size)
    except (tarfile.TarError, ValueError, OverflowError, RecursionError, EOFError) as error:
        if not end:
            raise UserError(f"{printable(name)} is not a readable .tar ({error}): use an intact file") from error
        samples.add_problem("", f"damaged after byte {end:,} ({error}): the rest of the shard is skipped")
    samples.finish_sample()
    return Scan(samples.rows(), samples.problems())


def _add_member(samples: "_Samples", member: tarfile.TarInfo, file: "_LimitedFile", size: int) -> bool:
    """Record a member if it belongs to a sample; return False if the shard ends within the member."""
    base, suffix = _split(member.name)
    if member.isreg() and member.offset_data + member.size > size:
        samples.add_problem(member.name, f"claims {member.size:,} bytes, past the end of the shard: truncated there")
        return False
    is_image = suffix.endswith(SUFFIXES)
    if suffix.endswith(_PICKLES):
        samples.add_problem(member.name, "may be a pickle: never read")
    elif not is_image and suffix != ".cls":
        pass
    elif not member.isreg() or member.issparse():
        kind = "a link" if member.islnk() or member.issym() else "not a plain file"
        samples.add_problem(member.name, f"is {kind}: not read")
    elif member.name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", member.name):
        samples.add_problem(member.name, "its name points outside the archive")
    elif not is_image:
        file.seek(member.offset_data)
        samples.add_label(base, member.name, file.read(min(member.size, 64)))
    elif member.size > MAX_BYTES:
        samples.add_problem(member.name, f"more than the limit of {MAX_BYTES // 2**20} megabytes")
    else:
        samples.add_image(base, member)
    return True


def _check_end(samples: "_Samples", file: "_LimitedFile", offset: int, size: int) -> None:
    """Report damage at the end that tarfile assumes: it ends at any invalid header, a real end is zeros or nothing."""
    file.reset_limit()
    file.seek(offset)
    if offset > size or file.read(512).strip(b"\0"):
        samples.add_problem(
            "", f"damaged or truncated after byte {min(offset, size):,}: the rest of the shard is skipped"
        )


def _split(name: str) -> tuple[str, str]:
    """Split a name at the first dot of its last part; return the suffix with its dots and in lower case."""
    folder, last = posixpath.split(name.removeprefix("./"))
    base, dot, suffix = last.partition(".")
    return posixpath.join(folder, base), (dot + suffix).lower()


class _Samples:
    """Collect the images and problems of one shard. The members of a sample are adjacent, as in WebDataset."""

    def __init__(self, shard: str) -> None:
        self.shard = shard
        self._numbers = array("q")  # offset, size and label of each image in turn
        self._problems: list[Skipped] = []
        self._unlisted = 0  # problems past MAX_PROBLEMS
        # The current sample.
        self._key: str | None = None
        self._image: tarfile.TarInfo | None = None
        self._label = -1

    def add_image(self, key: str, member: tarfile.TarInfo) -> None:
        self._begin_sample(key)
        if self._image is not None:
            self.add_problem(member.name, "a second image of the same sample (same name up to the first dot)")
        elif not member.size:
            self.add_problem(member.name, "empty file")
        else:
            self._image = member

    def add_label(self, key: str, name: str, text: bytes) -> None:
        self._begin_sample(key)
        if re.fullmatch(rb"\s*\d{1,6}\s*", text) and int(text) < MAX_LABEL:
            self._label = int(text)
        else:
            self.add_problem(name, f"{text[:20]!r} is not a class: must be a number from 0 to {MAX_LABEL - 1}")

    def finish_sample(self) -> None:
        """Store the current sample, if it has an image."""
        if self._image is not None:
            self._numbers.extend((self._image.offset_data, self._image.size, self._label))
        self._image = None
        self._label = -1

    def rows(self) -> NDArray[Any]:
        """Return the images as ROW, in the order of the shard."""
        numbers = np.array(self._numbers, np.int64).reshape(-1, 3)
        rows = np.zeros(len(numbers), ROW)
        rows["offset"], rows["size"], rows["label"] = numbers.T
        return rows

    def add_problem(self, name: str, reason: str) -> None:
        if len(self._problems) < MAX_PROBLEMS:
            self._problems.append(Skipped(f"{self.shard}: {name[:200]}" if name else self.shard, reason))
        else:
            self._unlisted += 1

    def problems(self) -> tuple[Skipped, ...]:
        """Return the listed problems, and the number of the others."""
        more = [Skipped(self.shard, f"and {self._unlisted:,} more members skipped")] if self._unlisted else []
        return (*self._problems, *more)

    def _begin_sample(self, key: str) -> None:
        if key != self._key:
            self.finish_sample()
            self._key = key


class _LimitedFile:
    """A file object from which tarfile reads headers: in blocks, and at most _MAX_HEADER bytes between two members."""

    def __init__(self, size: int, read: Callable[[int, int], bytes], block: int) -> None:
        self.size = size
        self._read = read
        self._block = block
        self._position = 0
        self._buffer = b""
        self._buffer_start = 0  # position of the buffer's first byte
        self._spent = 0  # bytes read since the last member

    def reset_limit(self) -> None:
        """Allow _MAX_HEADER bytes again."""
        self._spent = 0

    def seek(self, position: int, whence: int = 0) -> int:
        if position < 0 or whence:
            raise tarfile.ReadError("a header points before the beginning")
        self._position = position
        return position

    def tell(self) -> int:
        return self._position

    def read(self, count: int) -> bytes:
        self._spent += count
        if count < 0 or self._spent > _MAX_HEADER:
            raise tarfile.ReadError("a header claims more than a megabyte")
        start, stop = self._position, min(self._position + count, self.size)
        if start >= stop:
            return b""
        if not self._buffer_start <= start <= stop <= self._buffer_start + len(self._buffer):
            self._buffer_start = start
            self._buffer = self._read(start, min(max(stop, start + self._block), self.size))
        data = self._buffer[start - self._buffer_start : stop - self._buffer_start]
        self._position += len(data)
        return data

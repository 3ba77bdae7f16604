"""Locate the images of a tar file by its headers, without unpacking or trusting its content.

A sample is defined as in WebDataset: the members with the same name up to the first dot, with the image in .jpg, .png
or another image suffix and the class in .cls. The standard library's `tarfile` reads the headers, through a file object
that limits how much it can read.

Members of a sample are adjacent in WebDataset. Labels and images that lie apart are paired by their name at the end.
"""

import hashlib
import posixpath
import re
import tarfile
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sagan.data.names import RUN_FILE, SUFFIXES, is_companion, is_hidden, is_run, normal, reason_unread
from sagan.data.source import Skipped
from sagan.errors import UserError
from sagan.text import canonical, printable

UNCHECKED_ROW = np.dtype([("offset", "<i8"), ("size", "<i8"), ("label", "<i8"), ("sides", "<i4", 2)])
"""An image: its first byte in the shard and its size in bytes; its class, or -1; width and height in pixels, 0 if
unknown. Tables next to shards of earlier versions have such rows."""
ROW = np.dtype([*UNCHECKED_ROW.descr, ("checksum", "<u4")])
"""The same, and the CRC-32 of the image's bytes, 0 if unknown: only `pack` computes it."""
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


def scan(
    name: str, size: int, read: Callable[[int, int], bytes], block: int, runs: frozenset[str] = frozenset()
) -> Scan:
    """List the images of a tar file. Hidden members and the folders of runs are not data.

    Args:
        name: name of the shard in messages.
        size: size of the shard, in bytes.
        read: `read(start, stop)` returns the bytes from `start` up to `stop`.
        block: bytes to read at once.
        runs: folders of runs, which are known from an earlier scan.

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
    samples = _Samples(posixpath.basename(name), runs)
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
    except UserError:  # of `read`: the file is not damaged, but out of reach
        raise
    except (tarfile.TarError, ValueError, OverflowError, RecursionError, EOFError) as error:
        if not end:
            raise UserError(f"{printable(name)} is not a readable .tar ({error}): use an intact file") from error
        samples.add_problem("", f"damaged after byte {end:,} ({error}): the rest of the shard is skipped")
    if samples.runs - runs:  # the configuration of a run may follow its images: look again, without its folder
        return scan(name, size, read, block, frozenset(samples.runs))
    samples.finish()
    return Scan(samples.rows(), samples.problems())


def _add_member(samples: "_Samples", member: tarfile.TarInfo, file: "_LimitedFile", size: int) -> bool:
    """Record a member if it belongs to a sample; return False if the shard ends within the member."""
    name = normal(member.name)
    folder = posixpath.dirname(name)
    if name.endswith(RUN_FILE) and posixpath.basename(name) == RUN_FILE and _is_run_file(member, file):
        samples.runs.add(folder)
    if is_hidden(name) or (samples.runs and samples.is_in_run(folder)):
        return True
    base, suffix = _split(name)
    if member.isreg() and member.offset_data + member.size > size:
        samples.add_problem(member.name, f"claims {member.size:,} bytes, past the end of the shard: truncated there")
        return False
    is_image = suffix.endswith(SUFFIXES)
    if suffix.endswith(_PICKLES):
        samples.add_problem(member.name, "may be a pickle: never read")
    elif not is_image and suffix != ".cls":
        if member.isreg() and not is_companion(name):
            samples.add_problem(member.name, reason_unread(name))
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


def _is_run_file(member: tarfile.TarInfo, file: "_LimitedFile") -> bool:
    if not member.isreg() or member.issparse():
        return False
    file.seek(member.offset_data)
    return is_run(lambda count: file.read(min(member.size, count)))


def _check_end(samples: "_Samples", file: "_LimitedFile", offset: int, size: int) -> None:
    """Report damage at the end that tarfile assumes: it ends at any invalid header, a real end is zeros or nothing."""
    file.reset_limit()
    file.seek(offset)
    if offset > size or file.read(512).strip(b"\0"):
        samples.add_problem(
            "", f"damaged or truncated after byte {min(offset, size):,}: the rest of the shard is skipped"
        )


def _split(name: str) -> tuple[str, str]:
    """Split a normal name at the first dot of its last part; return the suffix with its dots and in lower case."""
    folder, last = posixpath.split(name)
    base, dot, suffix = last.partition(".")
    return posixpath.join(folder, base), (dot + suffix).lower()


class _Samples:
    """Collect the images and problems of one shard."""

    def __init__(self, shard: str, runs: frozenset[str]) -> None:
        self.shard = shard
        self.runs = set(runs)
        """Folders of runs that sagan wrote."""
        self._numbers = array("q")  # offset, size and label of each image in turn
        self._problems: list[Skipped] = []
        self._unlisted = 0  # problems past MAX_PROBLEMS
        # Hash of the key in turn with: the number of an image without a label; a label without an image.
        self._lone_images, self._lone_labels = array("q"), array("q")
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
            if self._label not in (-1, int(text)):
                self.add_problem(name, f"a second class of the same sample, {int(text)}: it replaces {self._label}")
            self._label = int(text)
        else:
            self.add_problem(name, f"{text[:20]!r} is not a class: must be a number from 0 to {MAX_LABEL - 1}")

    def finish_sample(self) -> None:
        """Store the current sample, if it has an image, and what it lacks."""
        if self._image is not None:
            if self._label < 0:
                self._lone_images.extend((_hash(self._key or ""), len(self._numbers) // 3))
            self._numbers.extend((self._image.offset_data, self._image.size, self._label))
        elif self._label >= 0:
            self._lone_labels.extend((_hash(self._key or ""), self._label))
        self._image = None
        self._label = -1

    def finish(self) -> None:
        """Store the last sample, and pair labels and images of the same key that were not adjacent."""
        self.finish_sample()
        if not self._lone_labels:
            return
        image_keys, images, images_with_key = _group(self._lone_images)
        label_keys, labels, labels_with_key = _group(self._lone_labels)
        _, at_image, at_label = np.intersect1d(image_keys, label_keys, assume_unique=True, return_indices=True)
        single = (images_with_key[at_image] == 1) & (labels_with_key[at_label] == 1)
        for image, label in zip(images[at_image[single]].tolist(), labels[at_label[single]].tolist(), strict=True):
            self._numbers[3 * image + 2] = label
        if lone := len(self._lone_labels) // 2 - int(single.sum()):
            self.add_problem("", f"{lone:,} labels (.cls) have no image of the same name")

    def is_in_run(self, folder: str) -> bool:
        """Return whether a folder is that of a run, or in one."""
        while folder not in self.runs and folder:
            folder = posixpath.dirname(folder)
        return folder in self.runs

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


def _hash(key: str) -> int:
    key = canonical(key)  # macOS may have decomposed one of two equal names
    digest = hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _group(pairs: "array[int]") -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the distinct keys of (key, value) pairs, the first value of each, and how many values it has."""
    keys, values = np.array(pairs, np.int64).reshape(-1, 2).T
    distinct, first, counts = np.unique(keys, return_index=True, return_counts=True)
    return distinct, values[first], counts


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

"""The images of a packed store: read from their file on access, and checked the first time."""

import contextlib
import math
import shutil
import threading
import weakref
import zlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sagan.data.images import Random, Unavailable
from sagan.files import DamagedFile, read_npy_header, temporary_path

_MAX_CHECKED = 2**26  # bytes of images that are checked when a store is opened
_FEW_CHECKED = 256  # images that are checked then if there are more bytes; every one is a seek on a slow disk


class DamagedStore(DamagedFile, Unavailable):
    """Report that packed images were changed or truncated while a store was in use."""


class PackedImages:
    """The images of a packed store, indexed as an array (N, H, W, C) uint8: `images[positions]`.

    The file is read, not memory-mapped: a file that is truncated meanwhile raises an error, a mapping would kill the
    process. Each image is compared with its checksum the first time that it is read, so that opening a store of any
    size takes no longer than its metadata.

    Args:
        path: images.npy.
        checksums: CRC-32 of every image, (N,) uint32; None: they are not known, and nothing is compared.

    Raises:
        DamagedFile: the file does not have the length that its header states, or another number of checksums.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, path: Path, checksums: NDArray[np.uint32] | None) -> None:
        self.path = path
        self._file = path.open("rb", buffering=0)
        weakref.finalize(self, self._file.close)
        shape, dtype = read_npy_header(self._file)
        self._start = self._file.tell()
        self.shape = shape
        size = path.stat().st_size - self._start
        if dtype != np.uint8 or len(shape) != 4 or not all(shape) or size != math.prod(shape):
            raise DamagedFile(f"{size:,} bytes are not the images {dtype}{list(shape)} of its header")
        if checksums is not None and checksums.shape != shape[:1]:
            raise DamagedFile(f"{len(checksums):,} checksums of {shape[0]:,} images")
        self._bytes = math.prod(shape[1:])  # of an image
        self._checksums = checksums
        self._checked = np.zeros(shape[0], bool)
        self._lock = threading.Lock()  # guards the position in the file

    def __len__(self) -> int:
        return self.shape[0]

    def has_same_checksums(self, other: "PackedImages") -> bool:
        """Return whether both have the same images in the same order, by checksums; False if they are not known."""
        ours, theirs = self._checksums, other._checksums
        return ours is not None and theirs is not None and self.shape == other.shape and np.array_equal(ours, theirs)

    def __getitem__(self, index: Any) -> NDArray[np.uint8]:
        """Return a copy of the selected images; the first axis may be indexed by a number, a slice or an array.

        Raises:
            DamagedStore: an image was changed, or the file was truncated. The store is removed, to be packed again.
        """
        first, *others = index if isinstance(index, tuple) else (index,)
        if first is Ellipsis:
            first, others = slice(None), [Ellipsis, *others]
        if isinstance(first, int | np.integer):
            images = self._read(np.arange(len(self))[first : first + 1 or None])
            if not len(images):
                raise IndexError(f"image {first} of {len(self)}")
            return images[(0, *others)]
        images = self._read(np.arange(len(self))[first])
        return images[(slice(None), *others)] if others else images

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        images = self[:]
        return images if dtype is None else images.astype(dtype)

    def order(self, random: Random) -> NDArray[np.int64]:
        """Return the order of an epoch: any image may follow any other, since each is one read away."""
        return np.argsort(random(count=len(self)), kind="stable")

    def read_ahead(self, number: int, positions: Callable[[int], NDArray[np.int64]]) -> None:
        """Do nothing: the images are on a local disk."""

    def check_some(self) -> None:
        """Compare images with their checksums: all of a small store, evenly spread ones of a large store.

        Raises:
            DamagedFile: an image was changed, or the file is truncated. The store stays.
        """
        if self._checksums is None:
            return
        if len(self) * self._bytes <= _MAX_CHECKED:
            chosen = np.arange(len(self))
        else:
            chosen = np.unique(np.linspace(0, len(self) - 1, _FEW_CHECKED).astype(np.int64))
        for position in chosen.tolist():
            self._read_run(position, np.empty((1, self._bytes), np.uint8))

    def _read(self, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        images = np.empty((len(positions), self._bytes), np.uint8)
        # Read neighbours at once.
        starts = [*np.flatnonzero(np.diff(positions, prepend=-2) != 1).tolist(), len(positions)]
        try:
            for start, stop in pairwise(starts):
                self._read_run(int(positions[start]), images[start:stop])
        except (DamagedFile, OSError) as error:
            reason = error if isinstance(error, DamagedFile) else error.strerror or error
            discard(self.path.parent)
            raise DamagedStore(
                f"the packed images in {self.path.parent} are damaged ({reason}) and were removed: repeat the command, "
                "and they are packed again"
            ) from error
        return images.reshape(-1, *self.shape[1:])

    def _read_run(self, position: int, images: NDArray[np.uint8]) -> None:
        """Read the images from a position on into an array (n, bytes), and compare those that were not yet read."""
        view = memoryview(images.data).cast("B")
        with self._lock:
            self._file.seek(self._start + position * self._bytes)
            while len(view):
                count = self._file.readinto(view)
                if not count:
                    raise DamagedFile("images.npy is truncated")
                view = view[count:]
        if self._checksums is None:
            return
        for number in np.flatnonzero(~self._checked[position : position + len(images)]).tolist():
            if checksum(images[number]) != self._checksums[position + number]:
                raise DamagedFile(f"image {position + number} of images.npy was changed")
            self._checked[position + number] = True


def checksum(image: NDArray[np.uint8]) -> int:
    """Return the CRC-32 of an image's bytes."""
    return zlib.crc32(image.data)


def discard(path: Path) -> None:
    """Remove the folder of a damaged store; another process may do so at the same time."""
    damaged = temporary_path(path)
    with contextlib.suppress(OSError):
        path.rename(damaged)
    shutil.rmtree(damaged, ignore_errors=True)

"""A data set that is ready for training, and the packed store: images decoded once and kept in the cache."""

import contextlib
import json
import logging
import os
import re
import shutil
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sagan.config import CropName, DataConfig
from sagan.data.images import Images
from sagan.data.packed import PackedImages, checksum, discard
from sagan.data.source import Skipped, drop_empty_classes
from sagan.errors import UserError
from sagan.files import DamagedFile, expand_home, load_array, temporary_path, write_npy_header
from sagan.text import as_class_names, printable

FORMAT = 1
"""Version of the layout and of the decoding. A new version invalidates every store in a cache."""

_IMAGES, _LABELS, _META = "images.npy", "labels.npy", "meta.json"
_CHECKSUMS = "checksums.npy"  # of every image; stores of earlier versions have none
_CRC32 = re.compile(rb'\{"crc32": (\d+),\n')  # first line of meta.json: checksum of what follows and of both arrays
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Store:
    """The images of one source at one resolution."""

    path: Path
    """Folder of the store, <cache>/stores/<key>. For shards: their table in the cache, <cache>/shards/<key>.npy."""
    key: str
    """Digest of the content: the same key means the same images and labels in the same order."""
    source: str
    """Name of the source in messages."""
    images: Images
    """(N, H, W, C) uint8, read from disk on access, and checked. Images in shards are decoded on every access."""
    labels: NDArray[np.int64]
    """(N,), from 0 to the number of classes - 1; all 0 if there are no classes."""
    class_names: tuple[str, ...]
    """Every class has an image; the names are in canonical form. Empty: train without classes."""
    names: Sequence[str]
    """Paths of the N images in the folder or the archive; empty for shards."""
    sizes: NDArray[np.int64]
    """(N, 2): original width and height of every image, in pixels; 0 if shards do not state them."""
    skipped: tuple[Skipped, ...]
    """Skipped images, with the reason."""
    notes: tuple[str, ...] = ()
    """Lines about the source as a whole, each with what to do."""
    refusal: str = ""
    """The note for which training on the source is refused; '': it is not."""
    crop: CropName = "centre"
    """How the images were made square."""

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 if there are none."""
        return len(self.class_names)

    @property
    def resolution(self) -> int:
        """Height and width of the images, in pixels."""
        return int(self.images.shape[1])

    def __len__(self) -> int:
        return len(self.images)

    def check_trainable(self) -> None:
        """Check that the source was probably read as the user meant.

        Raises:
            UserError: it was probably not; the message is `refusal`.
        """
        if self.refusal:
            raise UserError(f"{printable(self.source)}: {self.refusal}")

    def with_classes(self, names: tuple[str, ...]) -> "Store":
        """Return the store with the classes in the order of `names`, or as it is if it has other classes."""
        if self.class_names == names or sorted(self.class_names) != sorted(names):
            return self
        numbers = np.array([names.index(name) for name in self.class_names])
        return replace(self, labels=numbers[self.labels], class_names=names)

    def load_images(self, positions: NDArray[np.int64]) -> Tensor:
        """Read the images at these positions, (n, C, H, W) uint8 in channels_last memory."""
        return torch.from_numpy(np.asarray(self.images[positions])).permute(0, 3, 1, 2)


def find(cache: Path, key: str) -> Store | None:
    """Open the store of a key in a cache folder; return None if it does not exist."""
    return _open(cache, key) if re.fullmatch("[0-9a-f]{64}", key) else None


def cache_folder(config: DataConfig) -> Path:
    """Return the folder of the stores: the configured one, $SAGAN_CACHE, or `sagan` in the user's cache folder."""
    configured = config.cache or os.environ.get("SAGAN_CACHE")
    if configured:
        return expand_home(configured).absolute()
    folder = Path(os.environ.get("XDG_CACHE_HOME") or expand_home("~/.cache"))
    if str(folder).startswith("~"):
        raise UserError("no home folder is known for the cache: name a folder with --cache or $SAGAN_CACHE")
    return folder / "sagan"


class StoreWriter:
    """Write a store into a temporary folder, which `finish` moves to its place and the end of the context removes."""

    def __init__(self, cache: Path, options: dict[str, Any]) -> None:
        self.cache = cache
        self.options = options
        self.names: list[str] = []
        self._labels: list[int] = []
        self._checksums: list[int] = []
        self._sizes: list[tuple[int, int]] = []
        self._folder = temporary_path(cache / "stores" / "store")

    def __enter__(self) -> "StoreWriter":
        self._folder.mkdir()
        # Written, not memory-mapped: on a full disk a write raises an error, a mapping would kill the process.
        self._file: BinaryIO = (self._folder / _IMAGES).open("wb")
        self._write_header()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, image: NDArray[np.uint8], label: int, name: str, size: tuple[int, int]) -> None:
        """Append one image, (R, R, C) uint8; `size` is its original width and height."""
        image = np.ascontiguousarray(image)
        self._file.write(image.data)
        self._checksums.append(checksum(image))
        self._labels.append(label)
        self.names.append(name)
        self._sizes.append(size)

    def empty_classes(self, class_names: tuple[str, ...]) -> list[str]:
        """Return the classes that have no image so far."""
        used = set(self._labels)
        return [name for number, name in enumerate(class_names) if number not in used]

    def finish(self, key: str, source: str, class_names: tuple[str, ...], skipped: tuple[Skipped, ...]) -> Store:
        """Move the store to its place, unless another process has done so, and open it."""
        self._file.seek(0)
        self._write_header()
        self._file.close()
        labels, problem = np.array(self._labels, np.int64) * bool(class_names), tuple[Skipped, ...]()
        if class_names:
            counts = np.bincount(labels, minlength=len(class_names))
            number_of, class_names, problem = drop_empty_classes(counts, class_names)
            labels = number_of[labels]
        checksums = np.array(self._checksums, np.uint32)
        np.save(self._folder / _LABELS, labels)
        np.save(self._folder / _CHECKSUMS, checksums)
        meta = {
            **self.options,
            "source": source,
            "class_names": class_names,
            "names": self.names,
            "sizes": self._sizes,
            "skipped": [(one.name, one.reason) for one in (*problem, *skipped)],
        }
        text = json.dumps(meta)[1:].encode()  # without its brace: the checksum is the first field
        start = f'{{"crc32": {_crc32(text, labels, checksums)},\n'.encode()
        (self._folder / _META).write_bytes(start + text)
        place = self.cache / "stores" / key
        try:
            self._folder.rename(place)
        except OSError:
            if not place.is_dir():
                raise
        store = _open(self.cache, key)
        if store is None:
            raise OSError(f"{place} cannot be read back")
        return store

    def _write_header(self) -> None:
        side, channels = self.options["resolution"], self.options["image_channels"]
        write_npy_header(self._file, np.dtype(np.uint8), (len(self.names), side, side, channels))


def _crc32(text: bytes, labels: NDArray[np.int64], checksums: NDArray[np.uint32]) -> int:
    return zlib.crc32(text, zlib.crc32(labels.data, zlib.crc32(checksums.data)))


def _open(cache: Path, key: str) -> Store | None:
    """Open the store of this key. Return None if it does not exist, or if it is damaged; then remove it."""
    path = cache / "stores" / key
    if not path.is_dir():
        return None
    try:
        text = (path / _META).read_bytes()
        meta = json.loads(text)
        labels = load_array(path / _LABELS)
        checksums = load_array(path / _CHECKSUMS) if (path / _CHECKSUMS).exists() or "crc32" in meta else None
        if checksums is not None:
            first_line = _CRC32.match(text)
            if first_line is None or int(first_line[1]) != _crc32(text[first_line.end() :], labels, checksums):
                raise ValueError("its checksum does not match")
        images = PackedImages(path / _IMAGES, checksums)
        store = Store(
            path=path,
            key=key,
            source=str(meta["source"]),
            images=images,
            labels=labels,
            class_names=as_class_names(meta["class_names"]),
            names=[str(name) for name in meta["names"]],
            sizes=np.array(meta["sizes"], np.int64).reshape(-1, 2),
            skipped=tuple(Skipped(str(name), str(reason)) for name, reason in meta["skipped"]),
        )
        side, channels = meta["resolution"], meta["image_channels"]
        if not (
            images.shape == (len(labels), side, side, channels)
            and labels.dtype == np.int64
            and 0 < len(labels) == len(store.names) == len(store.sizes)
            and labels.min() >= 0
            and labels.max() <= max(len(store.class_names) - 1, 0)
        ):
            raise ValueError("images, labels and metadata do not match")
        images.check_some()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, DamagedFile) as error:
        if isinstance(error, PermissionError):
            raise
        _log.warning("the store %s is damaged (%s): packing it again", path, printable(str(error)))
        discard(path)
        return None
    return store

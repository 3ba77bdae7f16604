"""The packed store: every image of a source decoded once, kept in the cache, and memory-mapped from then on."""

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import warnings
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from sagan.config import CropName, DataConfig
from sagan.data.builtin.open import BuiltIn, open_built_in
from sagan.data.decode import DRAWN, NO_DECODER, SAMPLED, Unreadable, decode, extra_formats
from sagan.data.hints import consist_of_samples
from sagan.data.packed import PackedImages, checksum, discard
from sagan.data.shards.reader import ShardImages, is_shards, open_shards
from sagan.data.sources import (
    BUILT_IN,
    Skipped,
    drop_empty_classes,
    no_usable_image,
    open_source,
)
from sagan.errors import UserError
from sagan.files import (
    DamagedFile,
    Digest,
    digest_of,
    expand_home,
    load_array,
    sweep,
    temporary_path,
    write_atomically,
    write_npy_header,
)
from sagan.marks import is_sample
from sagan.text import as_class_names, is_text, printable

FORMAT = 1
"""Version of the layout and of the decoding. A new version invalidates every store in a cache."""

_IMAGES, _LABELS, _META = "images.npy", "labels.npy", "meta.json"
_CHECKSUMS = "checksums.npy"  # of every image; stores of earlier versions have none
_CRC32 = re.compile(rb'\{"crc32": (\d+),\n')  # first line of meta.json: checksum of what follows and of both arrays
_MAX_JUNK = 10_000  # unusable images from the start on, after which a source is refused
_T = TypeVar("_T")
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
    images: PackedImages | ShardImages
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

    def load_images(self, positions: NDArray[np.int64]) -> Tensor:
        """Read the images at these positions, (n, C, H, W) uint8 in channels_last memory."""
        return torch.from_numpy(np.asarray(self.images[positions])).permute(0, 3, 1, 2)


def prepare(
    config: DataConfig, *, resolution: int, image_channels: int, progress: bool = True, samples: bool = False
) -> Store:
    """Decode a source into a packed store in the cache, or open the store if it exists.

    A source whose files have the same names, sizes and modification times as before is not read again. Shards are
    not decoded into a store, but every time their images are needed.

    Args:
        config: source, labels, background, and cache folder.
        resolution: side of the images in pixels.
        image_channels: 1 (grey), 3 (RGB) or 4 (RGBA).
        progress: show a progress bar while decoding, if standard error is a terminal.
        samples: also use images that `sagan sample` wrote. Otherwise they are skipped, unless there are no others.

    Raises:
        UserError: the source cannot be found, has no usable image, or the cache cannot be written.
    """
    # Check the arguments.
    if not config.source:
        raise UserError(
            "no source of images is given (and an imported run has none of its own): name a folder, a .zip, "
            "hf:USER/NAME, robots, twins or digits"
        )
    if image_channels not in (1, 3, 4):
        raise UserError(f"image_channels is {image_channels}: must be 1 (grey), 3 (RGB) or 4 (RGBA)")
    path = str(expand_home(config.source).absolute()) if is_path(config.source) else ""
    if not is_text(config.source + path):
        raise UserError(
            f"data source '{printable(config.source)}' has a name (or lies in a folder) that is not UTF-8, so a run "
            "could not record it: rename it"
        )
    if resolution < 1:
        raise UserError(f"resolution is {resolution}: must be the side of the images in pixels, 1 or more")
    if len(config.background) != 3 or not all(0 <= value <= 255 for value in config.background):
        raise UserError(f"background is {config.background}: must be red, green and blue from 0 to 255")
    options: dict[str, Any] = {
        "format": FORMAT,
        "resolution": resolution,
        "image_channels": image_channels,
        "background": list(config.background) if image_channels != 4 else None,
        "labels": config.labels,
    }
    if config.crop != "centre":  # so that the keys of stores from before there was a choice stay
        options |= {"crop": config.crop, "background": list(config.background)}
    # Open the source in the way of its kind.
    cache = cache_folder(config)
    try:
        (cache / "stores").mkdir(parents=True, exist_ok=True)
        (cache / "index").mkdir(exist_ok=True)
        for folder in ("stores", "index"):
            sweep(cache / folder)
        with quiet():
            if built_in := open_built_in(config, resolution=resolution, image_channels=image_channels):
                return _prepare_built_in(built_in, config, cache, options, progress)
            if is_shards(config.source):
                return _prepare_shards(config, cache, options, progress)
            return replace(_prepare_files(config, cache, options, progress, samples), crop=config.crop)
    except OSError as error:  # of the cache: sources raise UserError
        raise UserError(
            f"cannot write the packed images to {cache}: {error.strerror or error}; "
            "make room there, or choose another folder with --cache"
        ) from error


def is_path(source: str) -> bool:
    """Return whether a source is a file or folder that exists, not a built-in set, a pattern, a URL or 'hf:...'."""
    return source not in BUILT_IN and expand_home(source).exists()


def first_size(name: str) -> int:
    """Return the shorter side, in pixels, of the first usable image of a source.

    Raises:
        UserError: the source does not exist, has no usable image, or has no image size of its own.
    """
    if name in BUILT_IN:
        raise UserError(f"--resolution is missing: {name} can be drawn at any size; pass the side in pixels")
    if is_shards(name):
        raise UserError(f"--resolution is missing: pass the side, in pixels, at which to compare {printable(name)}")
    source = open_source(name, labels=False)
    problems = list(source.problems)
    for number, (image_name, _) in enumerate(source.entries):
        try:
            with quiet():
                _, size = decode(source.read(number), resolution=8, image_channels=3, background=(255, 255, 255))
            return min(size)
        except Unreadable as error:
            problems.append(Skipped(image_name, str(error)))
    raise no_usable_image(name, problems)


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


def _prepare_built_in(
    built_in: BuiltIn, config: DataConfig, cache: Path, options: dict[str, Any], progress: bool
) -> Store:
    """Open or draw a built-in set. Its key follows from versions and options, so no file is read to find the store."""
    names = built_in.class_names
    key = digest_of([options, built_in.name, built_in.version, built_in.count])
    if (store := _open(cache, key)) is not None:
        if _every_class_has_images(store):
            return store
        discard(store.path)
    canvases = [built_in.canvas(name) for name in names]
    with _Writer(cache, options) as writer, progress_bar(built_in.count, progress, f"drawing {built_in.name}") as bar:
        for images, labels in built_in.batches:
            for image, label in zip(images, labels.tolist(), strict=True):
                writer.add(image, label, f"{names[label]}/{len(writer.names):06d}", canvases[label])
            bar.update(len(images))
        return writer.finish(key, built_in.name, names if config.labels else (), ())


def _prepare_shards(config: DataConfig, cache: Path, options: dict[str, Any], progress: bool) -> Store:
    """Open shards, with their table in the cache."""
    shards = open_shards(config.source, config.labels, cache, progress=progress)
    images = ShardImages(shards, options["resolution"], options["image_channels"], config.background, config.crop)
    return Store(
        path=cache / "shards" / f"{shards.key}.npy",
        key=digest_of([options, shards.key]),
        source=shards.title,
        images=images,
        labels=shards.table["label"],
        class_names=shards.class_names,
        names=(),
        sizes=shards.table["sides"],
        skipped=shards.skipped,
        crop=config.crop,
    )


def _prepare_files(config: DataConfig, cache: Path, options: dict[str, Any], progress: bool, samples: bool) -> Store:
    """Open or pack a folder, a .zip or a data set of the Hub."""
    # Look for the store of this state of the source.
    source = open_source(config.source, config.labels, samples)
    fingerprint = digest_of([options, source.title, extra_formats(), samples], source.stamp)
    index = cache / "index" / f"{fingerprint}.json"
    key, samples_packed, only_samples = _read_index(index)
    notes = source.notes + _notes_on_samples(source.samples + samples_packed, only_samples)
    if key is not None and (store := _open(cache, key)) is not None and _every_class_has_images(store):
        # The store may have been packed from a copy of the source.
        return replace(store, source=source.title, skipped=store.skipped + source.remarks, notes=notes)
    if not source.entries:
        raise no_usable_image(config.source, source.problems, source.notes)

    only_samples = not samples and consist_of_samples(source.read, len(source.entries))

    def read(number: int) -> tuple[str, NDArray[np.uint8] | None, tuple[int, int], str]:
        """Return digest, image or None, original size, and the reason if the image cannot be used."""
        digest = ""
        try:
            data = source.read(number)
            if is_sample(data) and not (samples or only_samples):
                raise Unreadable(SAMPLED)
            digest = hashlib.sha256(data).hexdigest()
            image, size = decode(
                data,
                resolution=options["resolution"],
                image_channels=options["image_channels"],
                background=config.background,
                crop=config.crop,
            )
        except Unreadable as error:
            return digest, None, (0, 0), str(error)
        return digest, image, size, ""

    # Decode all images on all cores, and write them in their order.
    content = Digest()
    content.add([options, source.class_names, [(problem.name, problem.reason) for problem in source.problems]])
    skipped, drawn = list(source.problems), list[Skipped]()
    count = len(source.entries)
    tried = 0
    with _Writer(cache, options) as writer, progress_bar(count, progress, f"reading {printable(config.source)}") as bar:
        for (name, label), (digest, image, size, reason) in zip(source.entries, map_in_order(read, count), strict=True):
            bar.update()
            tried += 1
            if reason in (DRAWN, SAMPLED):  # not part of the key: drawing a contact sheet does not change the data
                drawn.append(Skipped(name, reason))
                continue
            content.add([name, label, digest, *([reason] if reason in NO_DECODER else [])])
            if image is None:
                skipped.append(Skipped(name, reason))
            else:
                writer.add(image, label, name, size)
            if tried == _MAX_JUNK and not writer.names:
                raise no_usable_image(config.source, [*drawn, *skipped])
        if not writer.names:
            raise no_usable_image(config.source, [*drawn, *skipped])
        empty = writer.empty_classes(source.class_names)
        if empty:
            content.add(["classes without images are dropped", empty])
        key = content.hexdigest()
        store = _open(cache, key) or writer.finish(key, source.title, source.class_names, tuple(skipped))
    # Written last: the index must never name a store that does not exist.
    samples_skipped = sum(one.reason == SAMPLED for one in drawn)
    entry = json.dumps({"key": key, "samples_skipped": samples_skipped, "only_samples": only_samples})
    write_atomically(index, lambda path: path.write_text(entry, encoding="utf-8"))
    notes = source.notes + _notes_on_samples(source.samples + samples_skipped, only_samples)
    return replace(store, source=source.title, skipped=store.skipped + source.remarks, notes=notes)


def _notes_on_samples(skipped: int, only_samples: bool) -> tuple[str, ...]:
    """Return a line about images that `sagan sample` wrote, if there are any."""
    if only_samples:
        return ("all images were written by sagan sample: they are used, since there are no others",)
    if not skipped:
        return ()
    were = "image that sagan wrote was" if skipped == 1 else "images that sagan wrote were"
    return (f"{skipped:,} {were} skipped: to use them on purpose, name a folder of nothing else",)


def _every_class_has_images(store: Store) -> bool:
    """Return whether all classes of a store are used. Stores of earlier versions may have classes without images."""
    return not store.class_names or bool(np.bincount(store.labels, minlength=store.num_classes).all())


def map_in_order(function: Callable[[int], _T], count: int) -> Iterator[_T]:
    """Yield `function(0)`, `function(1)`, ..., `function(count - 1)`, computed by threads on all cores.

    Only a few calls run ahead of the caller, so that memory stays bounded.
    """
    workers = os.cpu_count() or 1  # threads suffice: Pillow decodes and resizes outside Python's lock
    pool = ThreadPoolExecutor(workers)
    pending: deque[Future[Any]] = deque()
    try:
        for number in range(count):
            pending.append(pool.submit(function, number))
            if len(pending) >= 4 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


class _Writer:
    """Write a store into a temporary folder, which `finish` moves to its place and the end of the context removes."""

    def __init__(self, cache: Path, options: dict[str, Any]) -> None:
        self.cache = cache
        self.options = options
        self.names: list[str] = []
        self._labels: list[int] = []
        self._checksums: list[int] = []
        self._sizes: list[tuple[int, int]] = []
        self._folder = temporary_path(cache / "stores" / "store")

    def __enter__(self) -> "_Writer":
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


def _read_index(path: Path) -> tuple[str | None, int, bool]:
    """Read the index entry of a fingerprint.

    Returns:
        The key of the store, None if the file is missing or damaged; the number of samples among the images that were
        skipped; and whether there was nothing but samples, which then are used.
    """
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
        key, skipped, only_samples = entry["key"], int(entry.get("samples_skipped", 0)), bool(entry.get("only_samples"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None, 0, False
    key = key if isinstance(key, str) and re.fullmatch("[0-9a-f]{64}", key) else None
    return key, skipped, only_samples


def progress_bar(count: int, progress: bool, what: str) -> "tqdm[Any]":
    """Open a progress bar that counts images, shown if `progress` is set and standard error is a terminal."""
    return tqdm(total=count, desc=what, unit=" images", disable=None if progress else True)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence Pillow's warnings on odd files, which `skipped` lists anyway.

    Enter this context outside of worker threads: Python's warning filters belong to the process.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

"""The packed store: every picture decoded once, kept in the cache, mapped into memory from then on."""

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import warnings
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

from sagan.config import DataConfig
from sagan.data.builtin.open import BuiltIn, open_built_in
from sagan.data.decode import Unreadable, decode
from sagan.data.shards.reader import ShardImages, is_shards, open_shards
from sagan.data.sources import BUILT_IN, Skipped, nothing_left, open_source
from sagan.errors import UserError
from sagan.files import Digest, beside, digest_of, sweep, write_atomically
from sagan.text import printable

FORMAT = 1
"""Version of the layout and of the decoding; a new one makes every store anew."""

_IMAGES, _LABELS, _META = "images.npy", "labels.npy", "meta.json"
_T = TypeVar("_T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Store:
    """The pictures of one source at one resolution."""

    path: Path
    """Folder of the store, <cache>/stores/<key>; of shards the table in the cache, <cache>/shards/<key>.npy."""
    key: str
    """Names the content: equal keys, equal pictures and labels in the same order."""
    source: str
    """What the pictures were read from, for people to read."""
    images: "np.memmap[Any, np.dtype[np.uint8]] | ShardImages"
    """(N, H, W, C) uint8, read-only, on disk until it is touched; of shards decoded anew each time."""
    labels: NDArray[np.int64]
    """(N,), from 0 to the number of classes - 1; all 0 without classes."""
    class_names: tuple[str, ...]
    """Empty: train without classes."""
    names: Sequence[str]
    """N names: the path in the folder or the archive; empty for shards."""
    sizes: NDArray[np.int64]
    """(N, 2): width and height of every picture as it came, in pixels; 0 in shards of others, which do not say."""
    skipped: tuple[Skipped, ...]
    """What was left out, and why."""

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 without classes."""
        return len(self.class_names)

    @property
    def resolution(self) -> int:
        """Height and width of the pictures."""
        return int(self.images.shape[1])

    def __len__(self) -> int:
        return len(self.images)

    def pictures(self, chosen: NDArray[np.int64]) -> Tensor:
        """The pictures at these positions, (n, C, H, W) uint8 in channels_last memory; read from disk now."""
        return torch.from_numpy(np.asarray(self.images[chosen])).permute(0, 3, 1, 2)


def prepare(config: DataConfig, *, resolution: int, image_channels: int, progress: bool = True) -> Store:
    """Decode the source once into a packed store in the cache, or open the one that is there.

    A source that has not changed since (by the names, sizes and times of its files) opens at once, unread. Shards are
    never decoded into a store, but each time they are needed.

    Args:
        config: source, labels, background, and cache folder.
        resolution: side of the pictures in pixels.
        image_channels: 1 (grey), 3 (RGB) or 4 (RGBA).
        progress: show a bar while decoding, where standard error is a terminal.

    Raises:
        UserError: the source cannot be found or holds no usable picture, or the cache cannot be written.
    """
    if not config.source:
        raise UserError(
            "no source of pictures is given, and an imported run has none of its own: name a folder, a .zip, "
            "hf:USER/NAME, robots or digits"
        )
    if image_channels not in (1, 3, 4):
        raise UserError(f"image_channels is {image_channels}: pictures have 1 (grey), 3 (RGB) or 4 (RGBA) channels")
    if resolution < 1:
        raise UserError(f"resolution is {resolution}: give the side of the pictures in pixels")
    if len(config.background) != 3 or not all(0 <= value <= 255 for value in config.background):
        raise UserError(f"background is {config.background}: give red, green and blue from 0 to 255")
    options = {
        "format": FORMAT,
        "resolution": resolution,
        "image_channels": image_channels,
        "background": list(config.background) if image_channels != 4 else None,
        "labels": config.labels,
    }
    cache = cache_folder(config)
    try:
        (cache / "stores").mkdir(parents=True, exist_ok=True)
        (cache / "index").mkdir(exist_ok=True)
        for folder in ("stores", "index"):
            sweep(cache / folder)
        with quiet():
            if drawn := open_built_in(config, resolution=resolution, image_channels=image_channels):
                return _prepare_drawn(drawn, config, cache, options, progress)
            if is_shards(config.source):
                return _prepare_shards(config, cache, options, progress)
            return _prepare_read(config, cache, options, progress)
    except OSError as error:  # the sources report their own
        raise UserError(
            f"cannot keep the prepared pictures in {cache}: {error.strerror or error}; "
            "make room there, or choose another folder with --cache"
        ) from error


def first_size(name: str) -> int:
    """The shorter side, in pixels, of the first usable picture of a source.

    Raises:
        UserError: there is no such source, or no such picture in it; the built-in sets are drawn at any size.
    """
    if name in BUILT_IN:
        raise UserError(f"--resolution is missing: {name} can be drawn at any; give the side in pixels")
    if is_shards(name):
        raise UserError(f"--resolution is missing: give the side, in pixels, at which to compare {printable(name)}")
    source = open_source(name, labels=False)
    problems = list(source.problems)
    for number, (picture, _) in enumerate(source.entries):
        try:
            with quiet():
                _, size = decode(source.read(number), resolution=8, image_channels=3, background=(255, 255, 255))
            return min(size)
        except Unreadable as error:
            problems.append(Skipped(picture, str(error)))
    raise UserError(nothing_left(name, problems))


def find(cache: Path, key: str) -> Store | None:
    """The store of a key in a cache folder, if it is there."""
    return _open(cache, key) if re.fullmatch("[0-9a-f]{64}", key) else None


def cache_folder(config: DataConfig) -> Path:
    """Where stores are kept: the configured folder, or $SAGAN_CACHE, or `sagan` in the user's cache folder."""
    chosen = config.cache or os.environ.get("SAGAN_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sagan"


def _prepare_drawn(drawn: BuiltIn, config: DataConfig, cache: Path, options: dict[str, Any], progress: bool) -> Store:
    """A built-in set: its key follows from the versions of what it is drawn with, so nothing is read to find it."""
    names = drawn.class_names
    key = digest_of([options, drawn.name, drawn.version, drawn.count])
    if (store := _open(cache, key)) is not None:
        return store
    canvases = [drawn.canvas(name) for name in names]
    with _Writer(cache, options) as writer, progress_bar(drawn.count, progress, f"drawing {drawn.name}") as bar:
        for images, labels in drawn.batches:
            for image, label in zip(images, labels.tolist(), strict=True):
                writer.add(image, label, f"{names[label]}/{len(writer.names):06d}", canvases[label])
            bar.update(len(images))
        return writer.finish(key, drawn.name, names if config.labels else (), ())


def _prepare_shards(config: DataConfig, cache: Path, options: dict[str, Any], progress: bool) -> Store:
    shards = open_shards(config.source, config.labels, cache, progress=progress)
    images = ShardImages(shards, options["resolution"], options["image_channels"], config.background)
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
    )


def _prepare_read(config: DataConfig, cache: Path, options: dict[str, Any], progress: bool) -> Store:
    source = open_source(config.source, config.labels)
    fingerprint = digest_of([options, source.title], source.stamp)
    index = cache / "index" / f"{fingerprint}.json"
    key = _read_index(index)
    if key is not None and (store := _open(cache, key)) is not None:
        return replace(store, source=source.title)  # it may have been made from a copy elsewhere
    if not source.entries:
        raise UserError(nothing_left(config.source, source.problems))

    def work(number: int) -> tuple[str, NDArray[np.uint8] | None, tuple[int, int], str]:
        digest = ""
        try:
            data = source.read(number)
            digest = hashlib.sha256(data).hexdigest()
            image, size = decode(
                data,
                resolution=options["resolution"],
                image_channels=options["image_channels"],
                background=config.background,
            )
        except Unreadable as error:
            return digest, None, (0, 0), str(error)
        return digest, image, size, ""

    content = Digest()
    content.add([options, source.class_names, [(problem.name, problem.reason) for problem in source.problems]])
    skipped = list(source.problems)
    count = len(source.entries)
    with _Writer(cache, options) as writer, progress_bar(count, progress, f"reading {printable(config.source)}") as bar:
        for (name, label), (digest, image, size, reason) in zip(source.entries, in_order(work, count), strict=True):
            content.add([name, label, digest])
            if image is None:
                skipped.append(Skipped(name, reason))
            else:
                writer.add(image, label, name, size)
            bar.update()
        if not writer.names:
            raise UserError(nothing_left(config.source, skipped))
        key = content.hexdigest()
        store = _open(cache, key) or writer.finish(key, source.title, source.class_names, tuple(skipped))
    # Not before the store is there: an index without one costs a decoding, a wrong one would cost a wrong result.
    write_atomically(index, lambda path: path.write_text(json.dumps({"key": key}), encoding="utf-8"))
    return replace(store, source=source.title)


def in_order(work: Callable[[int], _T], count: int) -> Iterator[_T]:
    """`work(0)`, `work(1)`, ... computed on all cores, with only a few pictures in flight: memory stays bounded."""
    workers = os.cpu_count() or 1  # threads do: Pillow decodes and resizes outside Python's lock
    pool = ThreadPoolExecutor(workers)
    flying: deque[Future[Any]] = deque()
    try:
        for number in range(count):
            flying.append(pool.submit(work, number))
            if len(flying) >= 4 * workers:
                yield flying.popleft().result()
        while flying:
            yield flying.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


class _Writer:
    """A store in the making: a temporary folder that becomes the store at `finish`, or is gone."""

    def __init__(self, cache: Path, options: dict[str, Any]) -> None:
        self.cache, self.options = cache, options
        self.names: list[str] = []
        self._labels: list[int] = []
        self._sizes: list[tuple[int, int]] = []
        self._folder = beside(cache / "stores" / "store")

    def __enter__(self) -> "_Writer":
        self._folder.mkdir()
        # Appended, not mapped: a full disk is then an error to report, where a mapping would kill the process.
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
        """Append one picture, (R, R, C)."""
        self._file.write(np.ascontiguousarray(image).data)
        self._labels.append(label)
        self.names.append(name)
        self._sizes.append(size)

    def finish(self, key: str, source: str, class_names: tuple[str, ...], skipped: tuple[Skipped, ...]) -> Store:
        """Move the store to its place, unless another process was faster."""
        self._file.seek(0)
        self._write_header()
        self._file.close()
        labels = np.array(self._labels, np.int64) * bool(class_names)
        np.save(self._folder / _LABELS, labels)
        meta = {
            **self.options,
            "source": source,
            "class_names": class_names,
            "names": self.names,
            "sizes": self._sizes,
            "skipped": [(one.name, one.reason) for one in skipped],
        }
        (self._folder / _META).write_text(json.dumps(meta), encoding="utf-8")
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
        """NumPy leaves room in the header for the first dimension to grow, so it can be written again at the end."""
        side, channels = self.options["resolution"], self.options["image_channels"]
        np.lib.format.write_array_header_1_0(
            self._file, {"descr": "|u1", "fortran_order": False, "shape": (len(self.names), side, side, channels)}
        )


def _open(cache: Path, key: str) -> Store | None:
    """The store of this key; None where there is none, or where it is damaged, which then makes way for a new one."""
    path = cache / "stores" / key
    if not path.is_dir():
        return None
    try:
        meta = json.loads((path / _META).read_text(encoding="utf-8"))
        images = np.load(path / _IMAGES, mmap_mode="r", allow_pickle=False)
        labels = np.load(path / _LABELS, allow_pickle=False)
        store = Store(
            path=path,
            key=key,
            source=str(meta["source"]),
            images=images,
            labels=labels,
            class_names=tuple(map(str, meta["class_names"])),
            names=[str(name) for name in meta["names"]],
            sizes=np.array(meta["sizes"], np.int64).reshape(-1, 2),
            skipped=tuple(Skipped(str(name), str(reason)) for name, reason in meta["skipped"]),
        )
        side, channels = meta["resolution"], meta["image_channels"]
        if not (
            images.dtype == np.uint8
            and images.shape == (len(labels), side, side, channels)
            and labels.dtype == np.int64
            and 0 < len(labels) == len(store.names) == len(store.sizes)
            and labels.min() >= 0
            and labels.max() <= max(len(store.class_names) - 1, 0)
        ):
            raise ValueError("its parts do not fit together")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, EOFError) as error:
        if isinstance(error, PermissionError):
            raise
        _log.warning("the store %s is damaged (%s): building it again", path, error)
        aside = beside(path)
        with contextlib.suppress(FileNotFoundError):  # another process did the same
            path.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)
        return None
    return store


def _read_index(path: Path) -> str | None:
    try:
        key = json.loads(path.read_text(encoding="utf-8"))["key"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return key if isinstance(key, str) and re.fullmatch("[0-9a-f]{64}", key) else None


def progress_bar(count: int, progress: bool, what: str) -> "tqdm[Any]":
    """A bar of pictures, where standard error is a terminal."""
    return tqdm(total=count, desc=what, unit=" pictures", disable=None if progress else True)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Pillow's warnings on odd files say nothing that `skipped` does not. Outside the threads: it is not theirs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

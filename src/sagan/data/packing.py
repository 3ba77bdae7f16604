"""Decode the images of a source, on all cores, into a packed store."""

import contextlib
import hashlib
import json
import os
import re
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from sagan.config import DataConfig
from sagan.data.builtin.open import BuiltIn
from sagan.data.decode import DRAWN, NO_DECODER, SAMPLED, Unreadable, decode, extra_formats
from sagan.data.hints import consist_of_samples
from sagan.data.packed import discard
from sagan.data.source import Skipped, Source, no_usable_image
from sagan.data.sources import open_source
from sagan.data.store import Store, StoreWriter, find
from sagan.files import Digest, digest_of, write_atomically
from sagan.marks import is_sample
from sagan.text import printable

_MAX_JUNK = 10_000  # unusable images from the start on, after which a source is refused
_T = TypeVar("_T")


def pack_built_in(built_in: BuiltIn, config: DataConfig, cache: Path, options: dict[str, Any], progress: bool) -> Store:
    """Open or draw a built-in set. Its key follows from versions and options, so no file is read to find the store."""
    names = built_in.class_names
    key = digest_of([options, built_in.name, built_in.version, built_in.count])
    if (store := find(cache, key)) is not None:
        if _every_class_has_images(store):
            return store
        discard(store.path)
    canvases = [built_in.canvas(name) for name in names]
    with (
        StoreWriter(cache, options) as writer,
        progress_bar(built_in.count, progress, f"drawing {built_in.name}") as bar,
    ):
        for images, labels in built_in.batches:
            for image, label in zip(images, labels.tolist(), strict=True):
                writer.add(image, label, f"{names[label]}/{len(writer.names):06d}", canvases[label])
            bar.update(len(images))
        return writer.finish(key, built_in.name, names if config.labels else (), ())


def pack_files(config: DataConfig, cache: Path, options: dict[str, Any], progress: bool, samples: bool) -> Store:
    """Open or pack a folder, a .zip or a data set of the Hub; with `samples`, images that sagan wrote too."""
    # Look for the store of this state of the source.
    source = open_source(config.source, config.labels, samples)
    fingerprint = digest_of([options, source.title, extra_formats(), samples], source.stamp)
    index = cache / "index" / f"{fingerprint}.json"
    key, samples_packed, only_samples = _read_index(index)
    notes = source.notes + _notes_on_samples(source.samples + samples_packed, only_samples)
    if key is not None and (store := find(cache, key)) is not None and _every_class_has_images(store):
        return _with_source(store, source, notes)
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
    with (
        StoreWriter(cache, options) as writer,
        progress_bar(count, progress, f"reading {printable(config.source)}") as bar,
    ):
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
        store = find(cache, key) or writer.finish(key, source.title, source.class_names, tuple(skipped))
    # Written last: the index must never name a store that does not exist.
    samples_skipped = sum(one.reason == SAMPLED for one in drawn)
    entry = json.dumps({"key": key, "samples_skipped": samples_skipped, "only_samples": only_samples})
    write_atomically(index, lambda path: path.write_text(entry, encoding="utf-8"))
    notes = source.notes + _notes_on_samples(source.samples + samples_skipped, only_samples)
    return _with_source(store, source, notes)


def _with_source(store: Store, source: Source, notes: tuple[str, ...]) -> Store:
    """Return a store with the title and the remarks of this source: it may have been packed from a copy."""
    skipped = store.skipped + source.remarks
    return replace(store, source=source.title, skipped=skipped, notes=notes, refusal=source.refusal)


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

"""List the images of tar shards in WebDataset's format, local or at a URL, without a copy on disk.

A memory-mapped table in the cache has a row of 36 bytes for every image (`index.ROW`).
"""

import contextlib
import hashlib
import json
import os
import posixpath
import re
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from sagan.data.decode import Unreadable
from sagan.data.shards import remote
from sagan.data.shards.index import MAX_BYTES, MAX_LABEL, ROW, UNCHECKED_ROW
from sagan.data.shards.tables import (
    INDEX,
    TABLE,
    blocks,
    cached_table,
    convert,
    fetch_table,
    read_scan,
    scan_shard,
)
from sagan.data.source import Skipped, drop_empty_classes, no_usable_image
from sagan.errors import UserError
from sagan.files import (
    digest_of,
    expand_home,
    sweep,
)
from sagan.text import as_class_names, printable

FORMAT = 1
"""Version of the index."""
COUNT = "pictures"
"""Key of a number of images in index.json."""
_MAX_INDEX = 2**24  # bytes of an index.json: 80,000 shards; parsed, it takes up to thirty times its size
_MAX_SKIPPED_LISTED = 1000  # images that `Shards.skipped` lists
_TAR = re.compile(r"\.(tar|tgz|tar\.(gz|bz2|xz|zst))$", re.IGNORECASE)


@dataclass(frozen=True)
class Shards:
    """The images of a set of shards, not yet read."""

    title: str
    """The pattern, folder or URL of the source."""
    key: str
    """Digest of what is known of the content: of the shards' checksums if sagan packed them, otherwise of the table."""
    names: Sequence[str]
    """Path or URL of every shard."""
    ends: NDArray[np.int64]
    """For each shard, the number of images in it and in all shards before it."""
    table: NDArray[Any]
    """`index.ROW` of every image, shard after shard; memory-mapped from the cache."""
    class_names: tuple[str, ...]
    """Empty: no classes."""
    skipped: tuple[Skipped, ...]
    """Skipped images, with the reason."""

    def name(self, position: int) -> str:
        """Return the name of the image at a position in messages."""
        shard = int(np.searchsorted(self.ends, position, side="right"))
        return f"{posixpath.basename(self.names[shard])}, image at byte {int(self.table['offset'][position]):,}"

    def read(self, position: int) -> bytes:
        """Read the bytes of the image at a position. Raises UserError if that fails."""
        shard = int(np.searchsorted(self.ends, position, side="right"))
        start, size = int(self.table["offset"][position]), int(self.table["size"][position])
        return remote.read(self.names[shard], start, start + size)

    def check(self, position: int, data: bytes) -> bytes:
        """Return `data`, the bytes of the image at a position, if they match its checksum or it has none.

        Decoders do not notice every changed byte of a JPEG.

        Raises:
            Unreadable: the bytes do not match.
        """
        checksum = int(self.table["checksum"][position])
        if checksum and zlib.crc32(data) != checksum:
            raise Unreadable("damaged: its checksum does not match")
        return data


def is_shards(name: str) -> bool:
    """Return whether a source is tar shards: .tar files by path, pattern or URL, or a folder or URL of .tar files."""
    path = expand_home(name)
    if name.startswith("hf:") and not path.exists():
        return False
    if remote.is_url(name) or (_TAR.search(name) and not path.is_dir()):
        return True
    with contextlib.suppress(OSError):
        if path.is_dir():
            suffixes = [Path(entry.name).suffix for entry in os.scandir(path) if not entry.name.startswith(".")]
            return ".tar" in suffixes and set(suffixes) <= {".tar", ".json", ".npy", ".txt", ".md"}
    return False


def open_shards(name: str, labels: bool, cache: Path, *, progress: bool = True) -> Shards:
    """List the images of shards: from the index next to them, or from their headers, which are read once.

    Args:
        name: a source for which `is_shards` is true.
        labels: use classes; otherwise the images have none.
        cache: cache folder; the table is stored in its folder `shards`.
        progress: show a progress bar while headers are read, if standard error is a terminal.

    Raises:
        UserError: the shards cannot be read, have no image, or do not match their index.
    """
    title = name if remote.is_url(name) else str(expand_home(name).absolute())
    folder, names = _shard_names(title)
    for cache_folder in (cache / "shards", cache / "shards" / "scans"):
        cache_folder.mkdir(parents=True, exist_ok=True)
        sweep(cache_folder)
    index = read_index(folder)
    indexed_names = {entry["name"] for entry in index["shards"]} if index else set()
    if index and all(posixpath.basename(shard) in indexed_names for shard in names):
        shards = _open_indexed(title, folder, names, index, labels, cache / "shards")
    else:
        shards = _open_scanned(title, names, labels, cache / "shards", progress)
    if not len(shards.table):
        raise no_usable_image(title, shards.skipped)
    shards = _drop_empty_classes(shards, cache / "shards")
    return replace(shards, class_names=as_class_names(shards.class_names))


def _drop_empty_classes(shards: Shards, cache: Path) -> Shards:
    """Renumber the classes if some have no image: in a part of the shards, or where numbers leave gaps."""
    if not shards.class_names:
        return shards
    counts = np.zeros(len(shards.class_names), np.int64)
    for rows in blocks(shards.table):
        counts += np.bincount(rows["label"], minlength=len(counts))
    number_of, class_names, problem = drop_empty_classes(counts, shards.class_names)
    if not problem:
        return shards

    def rows_of_used_classes() -> Iterator[NDArray[Any]]:
        for rows in blocks(shards.table):
            rows = rows.copy()
            rows["label"] = number_of[rows["label"]]
            yield rows

    key = digest_of([shards.key, "classes without images are dropped"])
    table = cached_table(cache / f"{key}.npy", len(shards.table), rows_of_used_classes)
    return replace(shards, key=key, table=table, class_names=class_names, skipped=(*problem, *shards.skipped))


def read_index(folder: str) -> dict[str, Any] | None:
    """Read the index.json of a folder or URL.

    Returns:
        The index, with `left_out` as `Skipped`; None if there is no index.json, or not one of sagan.

    Raises:
        UserError: the index is damaged or cannot be read.
    """
    where = f"{folder}/{INDEX}"
    if not remote.exists(where):
        return None
    try:
        size = remote.size(where)
        if size > _MAX_INDEX:
            raise ValueError(f"it has {size:,} bytes, too many for an index")
        index: Any = json.loads(remote.read(where, 0, size))
        if not isinstance(index, dict) or "sagan_shards" not in index:
            return None
        if index["sagan_shards"] != FORMAT:
            raise ValueError(f"it has version {index['sagan_shards']}, but only {FORMAT} is supported")
        if not index["shards"]:
            raise ValueError("it lists no shard")
        for entry in index["shards"]:
            if not re.fullmatch(r"[\w.-]+\.tar", entry["name"]) or not all(
                type(entry[field]) is int and entry[field] >= 0 for field in ("bytes", COUNT)
            ):
                raise ValueError("an entry is not a shard")
            bytes.fromhex(entry["sha256"])
        if len({entry["name"] for entry in index["shards"]}) < len(index["shards"]):
            raise ValueError("it names a shard twice")
        class_names = index["class_names"]
        if not all(type(name) is str for name in class_names) or len(class_names) > MAX_LABEL:
            raise ValueError("its class names are not valid")
        index["left_out"] = [Skipped(str(name), str(reason)) for name, reason in index["left_out"]]
        bytes.fromhex(index["table_sha256"])
    except UserError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{printable(where)} is damaged ({printable(str(error))}): remove it, and the headers will be read instead"
        ) from error
    return index


def _shard_names(title: str) -> tuple[str, list[str]]:
    """Return the folder of the shards, and the path or URL of each."""
    without_query = title.split("?")[0]
    is_folder = os.path.isdir(title) and not remote.is_url(title)
    if is_folder or (remote.is_url(title) and not _TAR.search(without_query) and not any(c in title for c in "*{[")):
        folder = title.rstrip("/")  # a folder, or its URL
        index = read_index(folder)
        if index is not None:
            return folder, [f"{folder}/{entry['name']}" for entry in index["shards"]]
        if remote.is_url(title):
            raise UserError(
                f"data source '{printable(title)}' is a URL without {INDEX} below it: name the URLs of its shards, "
                "such as .../name-{000000..000009}.tar"
            )
        return folder, sorted(str(path) for path in Path(folder).glob("*.tar") if not path.name.startswith("."))
    names = remote.expand(title)
    if len(set(names)) < len(names):
        raise UserError(f"data source '{printable(title)}' names a shard twice: change the pattern")
    folders = {posixpath.dirname(name) for name in names}
    return (folders.pop() if len(folders) == 1 else posixpath.dirname(names[0])), names


def _open_indexed(
    title: str, folder: str, names: list[str], index: dict[str, Any], labels: bool, cache: Path
) -> Shards:
    """Open shards that `sagan data pack` wrote."""
    # Check that the shards are those in the index. A URL is only checked for the first shard, to fail early.
    entry_of = {entry["name"]: entry for entry in index["shards"]}
    entries = [entry_of[posixpath.basename(name)] for name in names]
    for name, entry in zip(names, entries, strict=True):
        if not remote.is_url(name) and remote.size(name) != entry["bytes"]:
            raise UserError(
                f"{printable(name)} is not the shard that {INDEX} next to it describes ({remote.size(name):,} bytes, "
                f"not {entry['bytes']:,}): copy it again, or remove {INDEX}"
            )
    if remote.is_url(names[0]):
        remote.stamp(names[0])
    class_names = tuple(index["class_names"]) if labels else ()
    ends = np.cumsum([entry[COUNT] for entry in entries], dtype=np.int64)
    key = digest_of([FORMAT, class_names, [entry["sha256"] for entry in entries], index["table_sha256"]])

    def rows() -> Iterator[NDArray[Any]]:
        """Yield the checked rows of each shard."""
        counts = [entry[COUNT] for entry in index["shards"]]
        max_bytes = ROW.itemsize * sum(counts) + 2**12
        table = fetch_table(f"{folder}/{TABLE}", max_bytes, index["table_sha256"], cache)
        first_row = dict(zip(entry_of, np.cumsum([0, *counts]).tolist(), strict=False))
        for entry in entries:
            rows = convert(table[first_row[entry["name"]] :][: entry[COUNT]], ROW)
            stops = rows["offset"] + rows["size"]
            if not (
                len(rows) == entry[COUNT]
                and (rows["size"] > 0).all()
                and (rows["size"] <= MAX_BYTES).all()
                and (rows["offset"] >= 0).all()
                and (rows["offset"][1:] >= stops[:-1]).all()
                and (stops <= entry["bytes"]).all()
                and (rows["label"] >= 0).all()
                and (rows["label"] < max(len(index["class_names"]), 1)).all()
            ):
                raise UserError(f"{printable(folder)}/{TABLE} does not match {INDEX}: copy both again, or remove both")
            rows["label"] *= bool(class_names)
            yield rows

    table = cached_table(cache / f"{key}.npy", int(ends[-1]) if len(ends) else 0, rows)
    return Shards(title, key, names, ends, table, class_names, tuple(index["left_out"]))


def _open_scanned(title: str, names: list[str], labels: bool, cache: Path, progress: bool) -> Shards:
    """Open shards from elsewhere: read their headers in several threads, and keep the scans in the cache."""
    # Scan all shards.
    scans = cache / "scans"
    skipped: list[Skipped] = []
    paths: list[Path] = []
    highest_label, labelled, count = -1, 0, 0
    bar = tqdm(
        total=len(names),
        desc=f"reading headers of {printable(title)[-60:]}",
        unit=" shards",
        disable=None if progress else True,
    )
    pool = ThreadPoolExecutor(8)
    try:
        with bar:
            for path in pool.map(lambda name: scan_shard(name, scans), names):
                rows, problems = read_scan(path)
                skipped += problems[: max(_MAX_SKIPPED_LISTED - len(skipped), 0)]
                highest_label = max(highest_label, int(rows["label"].max(initial=-1)))
                labelled += int((rows["label"] >= 0).sum())
                count += len(rows)
                paths.append(path)
                bar.update()
    finally:
        pool.shutdown(cancel_futures=True)

    # If any image has a class, those without are skipped.
    classes = labels and labelled > 0
    if classes and labelled < count:
        skipped.append(Skipped(title, f"{count - labelled:,} images without a .cls, while others have one"))

    # Build the table of all shards. It is read shard by shard, since it may be larger than memory.
    content = hashlib.sha256(json.dumps([FORMAT, classes]).encode())
    counts: list[int] = []
    for path in paths:
        rows = _with_labels(read_scan(path)[0], classes)
        # Without checksums, so that the key of shards is that of earlier versions and their runs are resumed.
        content.update(convert(rows, UNCHECKED_ROW).tobytes() + len(rows).to_bytes(8))
        counts.append(len(rows))
    table = cached_table(
        cache / f"{content.hexdigest()}.npy",
        sum(counts),
        lambda: (_with_labels(read_scan(path)[0], classes) for path in paths),
    )
    class_names = tuple(map(str, range(highest_label + 1))) if classes else ()
    ends = np.cumsum(counts, dtype=np.int64)
    return Shards(title, content.hexdigest(), names, ends, table, class_names, tuple(skipped))


def _with_labels(rows: NDArray[Any], classes: bool) -> NDArray[Any]:
    """Keep the images that have a class; without classes, set all labels to 0."""
    if classes:
        return rows[rows["label"] >= 0]
    rows["label"] = 0
    return rows

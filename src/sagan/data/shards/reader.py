"""Read images from tar shards in WebDataset's format, local or at a URL, without a copy on disk.

A memory-mapped table in the cache has a row of 32 bytes for every image (`index.ROW`: offset, size, class). Training
reads pieces of PIECE bytes, LANES of them at a time, and reads ahead. The order of an epoch is computed (`ShardOrder`),
so a resumed run has no state to restore.
"""

import contextlib
import hashlib
import io
import json
import logging
import mmap
import os
import posixpath
import re
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from sagan.config import CropName
from sagan.data.decode import Unreadable, decode
from sagan.data.shards import remote
from sagan.data.shards.index import MAX_BYTES, MAX_LABEL, ROW, scan
from sagan.data.sources import Skipped, drop_empty_classes, no_usable_image
from sagan.errors import UserError
from sagan.files import (
    DamagedFile,
    digest_of,
    expand_home,
    map_array,
    read_npy_header,
    sha256,
    sweep,
    write_array,
    write_atomically,
)
from sagan.text import as_class_names, printable

FORMAT = 1
"""Version of the index."""
SCAN_FORMAT = 2
"""Version of the scans in the cache."""
INDEX, TABLE = "index.json", "index.npy"
"""Files that `sagan data pack` writes next to its shards."""
COUNT = "pictures"
"""Key of a number of images in index.json."""
PIECE = 2**22
"""Bytes of a shard that are read at once; more only for a single larger image."""
LANES = 16
"""Pieces from which the images of a batch are drawn. Up to as many more are read ahead."""

_BATCHES_AHEAD = 64  # batches that are read ahead, if their pieces fit
_MAX_INDEX = 2**24  # bytes of an index.json: 80,000 shards; parsed, it takes up to thirty times its size
_MAX_IN_MEMORY = 2**26  # bytes of a table of images; a larger one is mapped
_MAX_BROKEN = 100  # broken images in a row after which a data set is unusable
_MAX_WARNINGS = 20  # broken images that are named during training
_MAX_SKIPPED_LISTED = 1000  # images that `Shards.skipped` lists
_TAR = re.compile(r"\.(tar|tgz|tar\.(gz|bz2|xz|zst))$", re.IGNORECASE)
_log = logging.getLogger(__name__)

Random = Callable[..., NDArray[np.uint64]]
"""`random(*key, count=n)` returns n reproducible random numbers, (n,) uint64."""


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
    for rows in _blocks(shards.table):
        counts += np.bincount(rows["label"], minlength=len(counts))
    number_of, class_names, problem = drop_empty_classes(counts, shards.class_names)
    if not problem:
        return shards

    def rows_of_used_classes() -> Iterator[NDArray[Any]]:
        for rows in _blocks(shards.table):
            rows = rows.copy()
            rows["label"] = number_of[rows["label"]]
            yield rows

    key = digest_of([shards.key, "classes without images are dropped"])
    table = _cached_table(cache / f"{key}.npy", len(shards.table), rows_of_used_classes)
    return replace(shards, key=key, table=table, class_names=class_names, skipped=(*problem, *shards.skipped))


def _blocks(table: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield a table in parts: it may be larger than memory."""
    for start in range(0, len(table), 2**16):
        yield table[start : start + 2**16]


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
        table = _fetch_table(f"{folder}/{TABLE}", max_bytes, index["table_sha256"], cache)
        first_row = dict(zip(entry_of, np.cumsum([0, *counts]).tolist(), strict=False))
        for entry in entries:
            rows = table[first_row[entry["name"]] :][: entry[COUNT]].copy()
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

    table = _cached_table(cache / f"{key}.npy", int(ends[-1]) if len(ends) else 0, rows)
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
            for path in pool.map(lambda name: _scan(name, scans), names):
                rows, problems = _read_scan(path)
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
        rows = _with_labels(_read_scan(path)[0], classes)
        content.update(rows.tobytes() + len(rows).to_bytes(8))
        counts.append(len(rows))
    table = _cached_table(
        cache / f"{content.hexdigest()}.npy",
        sum(counts),
        lambda: (_with_labels(_read_scan(path)[0], classes) for path in paths),
    )
    class_names = tuple(map(str, range(highest_label + 1))) if classes else ()
    ends = np.cumsum(counts, dtype=np.int64)
    return Shards(title, content.hexdigest(), names, ends, table, class_names, tuple(skipped))


def _scan(name: str, folder: Path) -> Path:
    """Return the path of a shard's scan in the cache; scan the shard if the file does not exist."""
    stamp = remote.stamp(name)
    path = folder / f"{digest_of([SCAN_FORMAT, name, stamp])}.npz"
    if not _is_intact(path):
        block = 2**20 if remote.is_url(name) else 2**13
        scanned = scan(name, stamp[0], lambda start, stop: remote.read(name, start, stop), block)
        problems = json.dumps([(one.name, one.reason) for one in scanned.problems]).encode()
        buffer = io.BytesIO()
        np.savez(buffer, rows=scanned.rows, problems=np.frombuffer(problems, np.uint8))
        write_atomically(path, lambda temporary: temporary.write_bytes(buffer.getbuffer()))
    return path


def _is_intact(path: Path) -> bool:
    """Return whether a scan can be read; its .npz is an archive with checksums."""
    try:
        _read_scan(path)
    except Exception:  # NumPy raises SyntaxError, BadZipFile and others on damage
        return False
    return True


def _read_scan(path: Path) -> tuple[NDArray[Any], list[Skipped]]:
    with np.load(path, allow_pickle=False) as content:
        return content["rows"], [Skipped(*pair) for pair in json.loads(content["problems"].tobytes())]


def _with_labels(rows: NDArray[Any], classes: bool) -> NDArray[Any]:
    """Keep the images that have a class; without classes, set all labels to 0."""
    if classes:
        return rows[rows["label"] >= 0]
    rows["label"] = 0
    return rows


def _cached_table(path: Path, count: int, rows: Callable[[], Iterator[NDArray[Any]]]) -> NDArray[Any]:
    """Open a table of `count` images in the cache; write it from `rows` if it does not exist or is damaged."""

    if not count:
        return np.zeros(0, ROW)
    for _ in range(2):
        with contextlib.suppress(OSError, ValueError, DamagedFile):
            table = map_array(path)
            if table.dtype == ROW and table.shape == (count,):
                # Read into memory if it is small: a mapped file that is truncated meanwhile kills the process.
                return np.array(table) if table.nbytes <= _MAX_IN_MEMORY else np.asarray(table)
        write_atomically(path, lambda temporary: write_array(temporary, ROW, (count,), rows()))
    raise OSError(f"{path} cannot be read back")


def _fetch_table(name: str, max_bytes: int, checksum: str, cache: Path) -> NDArray[Any]:
    """Map the table next to the shards. One at a URL is copied into the cache first."""
    path = Path(name)
    size = remote.size(name)
    if remote.is_url(name):
        path = cache / f"fetched-{checksum}.npy"

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            for start in range(0, size, PIECE):
                file.write(remote.read(name, start, min(start + PIECE, size)))

    try:
        if size > max_bytes:
            raise ValueError(f"it has {size:,} bytes, more than the index lists")
        if remote.is_url(name) and not path.is_file():
            write_atomically(path, write)
        if sha256(path) != checksum:
            raise ValueError("its checksum does not match")
        with path.open("rb") as file:
            shape, dtype = read_npy_header(file)
        if dtype != ROW or len(shape) != 1:
            raise ValueError("it is not a table of images")
        table = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        if isinstance(error, UserError) and not isinstance(error, DamagedFile):  # out of reach, not damaged
            raise
        if remote.is_url(name):
            path.unlink(missing_ok=True)
        raise UserError(
            f"{printable(name)} does not match the {INDEX} next to it ({error}): copy both again, or remove both"
        ) from error
    return np.asarray(table)


class ShardOrder:
    """The order of an epoch: `order[places]` are the positions in the table of the images at these places.

    The pieces of all shards are put in a line in random order, and the images of each piece are shuffled. The line is
    divided into LANES equal lanes. Sample k of the epoch is the next image of lane k mod LANES, so a batch mixes the
    images of LANES pieces, and every image occurs once.

    Args:
        firsts: position of the first image of each piece, (pieces,).
        counts: number of images of each piece, (pieces,).
        random: random numbers of this epoch.
    """

    def __init__(self, firsts: NDArray[np.int64], counts: NDArray[np.int64], random: Random) -> None:
        self._firsts = firsts
        self._counts = counts
        self._random = random
        self._pieces = np.argsort(random(count=len(counts)), kind="stable")
        self._ends = np.cumsum(counts[self._pieces])
        self._shuffled: dict[int, NDArray[np.int64]] = {}

    def __getitem__(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        # Lane and position in the line. The first `longer` lanes have one image more than the others.
        lane, step = places % LANES, places // LANES
        shortest, longer = divmod(int(self._ends[-1]), LANES)
        line = lane * shortest + np.minimum(lane, longer) + step
        # Piece, and place in it.
        piece_places = np.searchsorted(self._ends, line, side="right")
        pieces = self._pieces[piece_places]
        within = line - (self._ends[piece_places] - self._counts[pieces])
        return self._firsts[pieces] + np.array(
            [self._shuffle(piece)[place] for piece, place in zip(pieces.tolist(), within.tolist(), strict=True)],
            np.int64,
        )

    def _shuffle(self, piece: int) -> NDArray[np.int64]:
        order = self._shuffled.pop(piece, None)
        if order is None:
            order = np.argsort(self._random(piece, count=int(self._counts[piece])), kind="stable")
            while len(self._shuffled) >= 4 * LANES:
                del self._shuffled[next(iter(self._shuffled))]  # the least recently used
        self._shuffled[piece] = order
        return order


def decode_threads() -> int:
    """Return this process's share of the machine's cores: torchrun starts LOCAL_WORLD_SIZE processes on it."""
    return max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


class ShardImages:
    """The images of shards, indexed as an array (N, H, W, C) uint8 and decoded on access: `images[positions]`.

    An image that cannot be decoded is replaced by the next usable image of its class, with one warning.

    Args:
        shards: the return value of `open_shards`.
        resolution: as in `decode.decode`.
        image_channels: as in `decode.decode`.
        background: as in `decode.decode`.
        crop: as in `decode.decode`.
    """

    dtype = np.dtype(np.uint8)

    def __init__(
        self,
        shards: Shards,
        resolution: int,
        image_channels: int,
        background: tuple[int, int, int],
        crop: CropName = "centre",
    ) -> None:
        self.shards = shards
        self.shape = (len(shards.table), resolution, resolution, image_channels)
        self._options: Any = {
            "resolution": resolution,
            "image_channels": image_channels,
            "background": background,
            "crop": crop,
        }
        self._shard_of, self._firsts, self._counts = _divide_into_pieces(shards)
        self._lock = threading.Lock()  # guards _pieces and _warned
        self._pieces: dict[int, Future[tuple[int, mmap.mmap]]] = {}  # piece -> its start in the shard, and its bytes
        self._ahead: deque[tuple[int, frozenset[int]]] = deque()  # number and pieces of the next batches
        self._replacements: dict[int, int] = {}  # position of a broken image -> position of its replacement
        self._warned: set[int] = set()  # positions of broken images that were named
        self._fetching = ThreadPoolExecutor(LANES // 2, thread_name_prefix="shards")
        self._decoding = ThreadPoolExecutor(decode_threads(), thread_name_prefix="decode")
        # Broken images have warnings of ours. The filter belongs to the process, so it cannot be set per thread.
        warnings.filterwarnings("ignore", module=r"PIL\.")

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, positions: NDArray[np.int64] | int) -> NDArray[np.uint8]:
        if isinstance(positions, int):
            return self._decode(positions)
        return np.stack(list(self._decoding.map(self._decode, np.asarray(positions).tolist())))

    def order(self, random: Random) -> ShardOrder:
        """Return the order of an epoch."""
        return ShardOrder(self._firsts, self._counts, random)

    def read_ahead(self, number: int, positions: Callable[[int], NDArray[np.int64]]) -> None:
        """Start reading the pieces of batch `number` and of later batches, and drop all other pieces.

        At most 2 * LANES pieces are kept, or those of one batch if it needs more.

        Args:
            number: number of the next batch.
            positions: returns the positions of the images of a batch, given its number.
        """
        # Decide which pieces to keep: those of the next batch, and of as many later batches as fit.
        while self._ahead and self._ahead[0][0] != number:
            self._ahead.popleft()
        needed = frozenset[int]().union(*(pieces for _, pieces in self._ahead))
        for later in range(number + len(self._ahead), number + _BATCHES_AHEAD):
            pieces = frozenset(self._piece_of(positions(later)).tolist())
            if self._ahead and len(needed | pieces) > 2 * LANES:
                break
            needed |= pieces
            self._ahead.append((later, pieces))
        # Drop the others, and fetch those that are missing.
        with self._lock:
            for piece in self._pieces.keys() - needed:
                self._pieces.pop(piece).cancel()
            for piece in sorted(needed - self._pieces.keys()):
                self._pieces[piece] = self._fetching.submit(self._fetch, piece)

    def _piece_of(self, positions: Any) -> Any:
        """Return the piece of an image, for one position or an array of them."""
        return np.searchsorted(self._firsts, positions, side="right") - 1

    def _fetch(self, piece: int) -> tuple[int, mmap.mmap]:
        """Read a piece; return its start in the shard, and its bytes."""
        table, first = self.shards.table, int(self._firsts[piece])
        last = first + int(self._counts[piece]) - 1
        start, stop = int(table["offset"][first]), int(table["offset"][last] + table["size"][last])
        data = mmap.mmap(-1, stop - start)  # unlike malloc's memory, returned to the system once it is dropped
        data.write(remote.read(self.shards.names[int(self._shard_of[piece])], start, stop))
        return start, data

    def _read(self, position: int) -> bytes:
        """Return the bytes of an image, from its piece if that is kept or on its way."""
        with self._lock:
            future = self._pieces.get(int(self._piece_of(position)))
        if future is None:
            return self.shards.read(position)
        try:
            start, data = future.result()
        except CancelledError:  # `read_ahead` has dropped the piece
            return self.shards.read(position)
        row = self.shards.table[position]
        return data[row["offset"] - start : row["offset"] - start + row["size"]]

    def _decode(self, position: int) -> NDArray[np.uint8]:
        """Return the image at a position, or its replacement."""
        reason = ""
        for candidate in self._candidates(self._replacements.get(position, position)):
            try:
                image, _ = decode(self._read(candidate), **self._options)
            except Unreadable as error:
                reason = str(error)
                self._warn(candidate, reason)
                continue
            if candidate != position:
                self._replacements[position] = candidate
            return image
        raise UserError(
            f"data source '{printable(self.shards.title)}': {_MAX_BROKEN} images of one class in a row, from "
            f"{printable(self.shards.name(position))}, cannot be used ({reason}): repair the shards"
        )

    def _candidates(self, position: int) -> Iterator[int]:
        """Yield the position, then the next positions of the same class, continuing at the start of the table."""
        yield position
        labels, count = self.shards.table["label"], len(self)
        label = labels[position]
        yielded = 1
        for start in range(position + 1, position + count, 2**16):
            others = np.arange(start, min(start + 2**16, position + count)) % count
            for other in others[labels[others] == label].tolist():
                yield other
                yielded += 1
                if yielded == _MAX_BROKEN:
                    return

    def _warn(self, position: int, reason: str) -> None:
        """Name a broken image, once, and up to _MAX_WARNINGS in all."""
        with self._lock:
            if position in self._warned or len(self._warned) >= _MAX_WARNINGS:
                return
            self._warned.add(position)
        _log.warning("%s: %s; using the next of its class", printable(self.shards.name(position)), reason)


def _divide_into_pieces(shards: Shards) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Divide shards into pieces; return the shard, the position of the first image and the number of images of each."""
    pieces: list[tuple[int, int, int]] = []
    first = 0
    for shard, end in enumerate(shards.ends.tolist()):
        rows = shards.table[first:end]
        stops = np.asarray(rows["offset"] + rows["size"])
        done = 0  # images of the shard that are in a piece
        while done < len(rows):
            count = int(np.searchsorted(stops, int(rows["offset"][done]) + PIECE, side="right")) - done
            count = max(count, 1)
            pieces.append((shard, first + done, count))
            done += count
        first = end
    shard_of, firsts, counts = np.array(pieces, np.int64).T.copy()
    return shard_of, firsts, counts

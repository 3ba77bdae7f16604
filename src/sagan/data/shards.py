"""Tar shards as WebDataset has them, here or at a URL: read as they are needed, and kept nowhere.

What is known of a picture is a row of a table (where it lies, its class), 32 bytes in the cache, mapped. Training reads
pieces of PIECE bytes, LANES of them at a time, and ahead of need; which picture is where in an epoch is arithmetic
(`ShardOrder`), so a run that goes on has nothing to restore.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from sagan.data import remote
from sagan.data.decode import Unreadable, decode
from sagan.data.sources import Skipped, printable
from sagan.data.tar_index import MAX_BYTES, MAX_LABEL, ROW, scan
from sagan.errors import UserError
from sagan.files import digest_of, sha256, sweep, write_atomically

FORMAT = 1
"""Version of the index, and of what a scan keeps in the cache."""
INDEX, TABLE = "index.json", "index.npy"
"""What `sagan data pack` writes beside its shards."""
PIECE = 2**22
"""Bytes of a shard that are read at once; more only for a single larger picture."""
LANES = 16
"""Pieces that pictures are drawn from at a time; as many again may be on their way."""

_BATCHES_AHEAD = 64
_MAX_INDEX = 2**28  # bytes
_MOST_BROKEN = 100  # pictures in a row, before a data set is called unusable
_MOST_NOTED = 20  # broken pictures that are named as training goes on
_MOST_SKIPPED = 1000  # that are named
_TAR = re.compile(r"\.(tar|tgz|tar\.(gz|bz2|xz|zst))$", re.IGNORECASE)
_log = logging.getLogger(__name__)

Random = Callable[..., NDArray[np.uint64]]
"""`random(*key, count=n)`: n reproducible numbers."""


@dataclass(frozen=True)
class Shards:
    """The pictures of a set of shards, not yet read."""

    title: str
    """The pattern, folder or URL that was given."""
    key: str
    """Names the content as far as it is known: checksums of the shards where they were packed by sagan."""
    names: Sequence[str]
    """Path or URL of every shard."""
    ends: NDArray[np.int64]
    """For each shard, the number of pictures to its end and in all those before it."""
    table: NDArray[Any]
    """`tar_index.ROW` of every picture, shard after shard; mapped from the cache."""
    class_names: tuple[str, ...]
    """Empty: no classes."""
    skipped: tuple[Skipped, ...]
    """What was left out, and why."""

    def name(self, position: int) -> str:
        """The picture at a position, for people to read."""
        shard = int(np.searchsorted(self.ends, position, side="right"))
        return f"{posixpath.basename(self.names[shard])}, picture at byte {int(self.table['offset'][position]):,}"

    def read(self, position: int) -> bytes:
        """Bytes of the picture at a position. UserError when they cannot be had."""
        shard = int(np.searchsorted(self.ends, position, side="right"))
        start, size = int(self.table["offset"][position]), int(self.table["size"][position])
        return remote.read(self.names[shard], start, start + size)


def is_shards(name: str) -> bool:
    """Whether a source is tar shards: .tar files by path, pattern or URL, or a folder or URL of such files."""
    if name.startswith("hf:"):
        return False
    if remote.is_url(name) or _TAR.search(name):
        return True
    path = Path(name).expanduser()
    with contextlib.suppress(OSError):
        if path.is_dir():
            suffixes = [Path(entry.name).suffix for entry in os.scandir(path) if not entry.name.startswith(".")]
            return ".tar" in suffixes and set(suffixes) <= {".tar", ".json", ".npy", ".txt", ".md"}
    return False


def open_shards(name: str, labels: bool, cache: Path, *, progress: bool = True) -> Shards:
    """Find out what shards hold: from the index beside them, or by one pass over their headers, which is kept.

    Args:
        name: `is_shards` says what it may be.
        labels: use classes; else the pictures come without.
        cache: where the table is kept, in `shards/`.
        progress: show a bar while headers are read, where standard error is a terminal.

    Raises:
        UserError: they cannot be read, hold no picture, or do not fit their index.
    """
    title = name if remote.is_url(name) else str(Path(name).expanduser().absolute())
    folder, names = _names(title)
    for kept in (cache / "shards", cache / "shards" / "scans"):
        kept.mkdir(parents=True, exist_ok=True)
        sweep(kept)
    index = read_index(folder)
    sizes = {one["name"]: one for one in index["shards"]} if index else {}
    if index and all(posixpath.basename(one) in sizes for one in names):
        return _indexed(title, folder, names, index, labels, cache / "shards")
    return _scanned(title, names, labels, cache / "shards", progress)


def read_index(folder: str) -> dict[str, Any] | None:
    """The index.json of a folder or URL; None where there is none of ours. UserError when it is damaged."""
    where = f"{folder}/{INDEX}"
    if not remote.exists(where):
        return None
    try:
        size = remote.size(where)
        if size > _MAX_INDEX:
            raise ValueError(f"{size:,} bytes are too many")
        index: Any = json.loads(remote.read(where, 0, size))
        if not isinstance(index, dict) or "sagan_shards" not in index:
            return None
        if index["sagan_shards"] != FORMAT:
            raise ValueError(f"it is of version {index['sagan_shards']}, where {FORMAT} is known")
        for one in index["shards"]:
            if not re.fullmatch(r"[\w.-]+\.tar", one["name"]) or not all(
                type(one[field]) is int and one[field] >= 0 for field in ("bytes", "pictures")
            ):
                raise ValueError("it names a shard that cannot be one")
            bytes.fromhex(one["sha256"])
        if len({one["name"] for one in index["shards"]}) < len(index["shards"]):
            raise ValueError("it names a shard twice")
        if not all(type(one) is str for one in index["class_names"]) or len(index["class_names"]) > MAX_LABEL:
            raise ValueError("its class names are none")
        index["left_out"] = [Skipped(str(name), str(reason)) for name, reason in index["left_out"]]
        bytes.fromhex(index["table_sha256"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{printable(where)} is damaged ({printable(str(error))}): remove it, and the headers will be read instead"
        ) from error
    return index


def _names(title: str) -> tuple[str, list[str]]:
    """The folder of the shards, and their paths or URLs."""
    plain = title.split("?")[0]
    if not _TAR.search(plain) and (not remote.is_url(title) or not any(c in title for c in "*{[")):
        folder = title.rstrip("/")  # a folder, or its URL
        index = read_index(folder)
        if index is not None:
            return folder, [f"{folder}/{one['name']}" for one in index["shards"]]
        if remote.is_url(title):
            raise UserError(
                f"data source '{printable(title)}' is a URL without {INDEX} below it: give the URLs of its shards, "
                "such as .../name-{000000..000009}.tar"
            )
        return folder, sorted(str(path) for path in Path(folder).glob("*.tar") if not path.name.startswith("."))
    names = remote.expand(title)
    if len(set(names)) < len(names):
        raise UserError(f"data source '{printable(title)}' names a shard twice: change the pattern")
    folders = {posixpath.dirname(one) for one in names}
    return (folders.pop() if len(folders) == 1 else posixpath.dirname(names[0])), names


def _indexed(title: str, folder: str, names: list[str], index: dict[str, Any], labels: bool, cache: Path) -> Shards:
    """Shards that `sagan data pack` wrote."""
    about = {one["name"]: one for one in index["shards"]}
    chosen = [about[posixpath.basename(name)] for name in names]
    for name, one in zip(names, chosen, strict=True):
        if not remote.is_url(name) and remote.size(name) != one["bytes"]:
            raise UserError(
                f"{printable(name)} is not the shard that {INDEX} beside it describes ({remote.size(name):,} bytes, "
                f"not {one['bytes']:,}): copy it again, or remove {INDEX}"
            )
    if remote.is_url(names[0]):
        remote.stamp(names[0])  # a first sign that they are there
    class_names = tuple(index["class_names"]) if labels else ()
    ends = np.cumsum([one["pictures"] for one in chosen], dtype=np.int64)
    key = digest_of([FORMAT, class_names, [one["sha256"] for one in chosen], index["table_sha256"]])

    def rows() -> Iterator[NDArray[Any]]:
        most = ROW.itemsize * sum(one["pictures"] for one in index["shards"]) + 2**12
        table = _fetch_table(f"{folder}/{TABLE}", most, index["table_sha256"], cache)
        first = dict(zip(about, np.cumsum([0, *(one["pictures"] for one in index["shards"])]).tolist(), strict=False))
        for one in chosen:
            some = table[first[one["name"]] :][: one["pictures"]].copy()
            stops = some["offset"] + some["size"]
            if not (
                len(some) == one["pictures"]
                and (some["size"] > 0).all()
                and (some["size"] <= MAX_BYTES).all()
                and (some["offset"] >= 0).all()
                and (some["offset"][1:] >= stops[:-1]).all()
                and (stops <= one["bytes"]).all()
                and (some["label"] >= 0).all()
                and (some["label"] < max(len(index["class_names"]), 1)).all()
            ):
                raise UserError(f"{printable(folder)}/{TABLE} does not fit {INDEX}: copy both again, or remove both")
            some["label"] *= bool(class_names)
            yield some

    table = _table(cache / f"{key}.npy", int(ends[-1]) if len(ends) else 0, rows)
    return _complete(Shards(title, key, names, ends, table, class_names, tuple(index["left_out"])))


def _scanned(title: str, names: list[str], labels: bool, cache: Path, progress: bool) -> Shards:
    """Shards from elsewhere: their headers are read, in several threads; what was read is kept for another time."""
    scans = cache / "scans"
    skipped: list[Skipped] = []
    paths: list[Path] = []
    highest, labelled = -1, 0
    counts: list[int] = []
    bar = tqdm(total=len(names), desc=f"reading headers of {printable(title)[-60:]}", unit=" shards", disable=None)
    if not progress:
        bar.disable = True
    pool = ThreadPoolExecutor(8)
    try:
        with bar:
            for path in pool.map(lambda one: _scan(one, scans), names):
                rows, problems = _read_scan(path)
                skipped += problems[: max(_MOST_SKIPPED - len(skipped), 0)]
                highest = max(highest, int(rows["label"].max(initial=-1)))
                labelled += int((rows["label"] >= 0).sum())
                counts.append(len(rows))
                paths.append(path)
                bar.update()
    finally:
        pool.shutdown(cancel_futures=True)
    classes = labels and labelled > 0
    if classes and labelled < sum(counts):
        skipped.append(Skipped(title, f"{sum(counts) - labelled:,} pictures without a .cls beside them, unlike others"))
    content = hashlib.sha256(json.dumps([FORMAT, classes]).encode())
    kept: list[int] = []
    for path in paths:
        rows = _with_labels(_read_scan(path)[0], classes)
        content.update(rows.tobytes() + len(rows).to_bytes(8))
        kept.append(len(rows))
    table = _table(
        cache / f"{content.hexdigest()}.npy",
        sum(kept),
        lambda: (_with_labels(_read_scan(path)[0], classes) for path in paths),
    )
    class_names = tuple(map(str, range(highest + 1))) if classes else ()
    ends = np.cumsum(kept, dtype=np.int64)
    return _complete(Shards(title, content.hexdigest(), names, ends, table, class_names, tuple(skipped)))


def _scan(name: str, folder: Path) -> Path:
    """The file in the cache with what a shard's headers say."""
    state = remote.stamp(name)
    path = folder / f"{digest_of([FORMAT, name, state])}.npz"
    if not path.is_file():
        block = 2**20 if remote.is_url(name) else 2**13
        found = scan(name, state[0], lambda start, stop: remote.read(name, start, stop), block)
        problems = json.dumps([(one.name, one.reason) for one in found.problems]).encode()
        buffer = io.BytesIO()
        np.savez(buffer, rows=found.rows, problems=np.frombuffer(problems, np.uint8))
        write_atomically(path, lambda temporary: temporary.write_bytes(buffer.getbuffer()))
    return path


def _read_scan(path: Path) -> tuple[NDArray[Any], list[Skipped]]:
    with np.load(path, allow_pickle=False) as content:
        return content["rows"], [Skipped(*pair) for pair in json.loads(content["problems"].tobytes())]


def _with_labels(rows: NDArray[Any], classes: bool) -> NDArray[Any]:
    if classes:
        return rows[rows["label"] >= 0]
    rows["label"] = 0
    return rows


def _table(path: Path, count: int, rows: Callable[[], Iterator[NDArray[Any]]]) -> NDArray[Any]:
    """The table of this name from the cache, mapped; written from `rows` if it is not there, or is damaged."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": np.lib.format.dtype_to_descr(ROW), "fortran_order": False, "shape": (count,)}
            )
            for some in rows():
                file.write(np.ascontiguousarray(some).data)

    if not count:
        return np.zeros(0, ROW)
    for _ in range(2):
        with contextlib.suppress(OSError, ValueError, EOFError):
            table = np.load(path, mmap_mode="r", allow_pickle=False)
            if table.dtype == ROW and table.shape == (count,):
                return np.asarray(table)
        write_atomically(path, write)
    raise OSError(f"{path} cannot be read back")


def _fetch_table(name: str, most: int, checksum: str, cache: Path) -> NDArray[Any]:
    """The table beside the shards, mapped; one at a URL is copied into the cache first."""
    path = Path(name)
    size = remote.size(name)
    if remote.is_url(name):
        path = cache / f"fetched-{checksum}.npy"

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            for start in range(0, size, PIECE):
                file.write(remote.read(name, start, min(start + PIECE, size)))

    try:
        if size > most:
            raise ValueError(f"{size:,} bytes are too many")
        if remote.is_url(name) and not path.is_file():
            write_atomically(path, write)
        if sha256(path) != checksum:
            raise ValueError("its checksum is another")
        table = np.load(path, mmap_mode="r", allow_pickle=False)
        if table.dtype != ROW or table.ndim != 1:
            raise ValueError("it is no table of pictures")
    except (ValueError, EOFError) as error:
        if remote.is_url(name):
            path.unlink(missing_ok=True)
        raise UserError(
            f"{printable(name)} is not what {INDEX} beside it describes ({error}): copy both again, or remove both"
        ) from error
    return np.asarray(table)


def _complete(shards: Shards) -> Shards:
    if not len(shards.table):
        why = "; ".join(f"{printable(one.name)}: {one.reason}" for one in shards.skipped[:3])
        raise UserError(
            f"data source '{printable(shards.title)}' holds no usable picture" + (f" ({why})" if why else "")
        )
    return shards


class ShardOrder:
    """Which picture is sample k of an epoch: `order[places]` are positions in the table.

    The pieces of all shards are laid end to end in an order of this epoch, and the pictures of each piece are shuffled.
    This line is cut into LANES equal stretches; sample k is the next picture of stretch k mod LANES. So a batch mixes
    pictures of LANES pieces, and every picture comes once.

    Args:
        firsts, counts: position of the first picture, and number of pictures, of each piece.
        random: as `Random`, of this epoch.
    """

    def __init__(self, firsts: NDArray[np.int64], counts: NDArray[np.int64], random: Random) -> None:
        self._firsts, self._counts, self._random = firsts, counts, random
        self._pieces = np.argsort(random(count=len(counts)), kind="stable")
        self._ends = np.cumsum(counts[self._pieces])
        self._shuffled: dict[int, NDArray[np.int64]] = {}

    def __getitem__(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        lane, step = places % LANES, places // LANES
        shortest, longer = divmod(int(self._ends[-1]), LANES)
        line = lane * shortest + np.minimum(lane, longer) + step
        at = np.searchsorted(self._ends, line, side="right")
        pieces = self._pieces[at]
        within = line - (self._ends[at] - self._counts[pieces])
        return self._firsts[pieces] + np.array(
            [self._shuffle(piece)[place] for piece, place in zip(pieces.tolist(), within.tolist(), strict=True)],
            np.int64,
        )

    def _shuffle(self, piece: int) -> NDArray[np.int64]:
        order = self._shuffled.pop(piece, None)
        if order is None:
            order = np.argsort(self._random(piece, count=int(self._counts[piece])), kind="stable")
            while len(self._shuffled) >= 4 * LANES:
                del self._shuffled[next(iter(self._shuffled))]  # the one not used for longest
        self._shuffled[piece] = order
        return order


def decode_threads() -> int:
    """Return this process's share of the machine's cores: torchrun starts LOCAL_WORLD_SIZE processes on it."""
    return max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


class ShardImages:
    """The pictures of shards, decoded when they are asked for: `images[chosen]` as of an array (N, H, W, C) uint8.

    A picture that cannot be decoded is replaced by the next one of its class that can, and named once.

    Args:
        shards: what `open_shards` returned.
        resolution, image_channels, background: as of `decode.decode`.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, shards: Shards, resolution: int, image_channels: int, background: tuple[int, int, int]) -> None:
        self.shards = shards
        self.shape = (len(shards.table), resolution, resolution, image_channels)
        self._options: Any = {"resolution": resolution, "image_channels": image_channels, "background": background}
        self._shard, self._firsts, self._counts = _pieces(shards)
        self._lock = threading.Lock()
        self._held: dict[int, Future[tuple[int, mmap.mmap]]] = {}
        self._ahead: deque[tuple[int, frozenset[int]]] = deque()
        self._broken: dict[int, int] = {}  # position -> the one in its place
        self._noted: set[int] = set()
        self._fetching = ThreadPoolExecutor(LANES // 2, thread_name_prefix="shards")
        self._decoding = ThreadPoolExecutor(decode_threads(), thread_name_prefix="decode")
        # Pillow's remarks on odd files say nothing that we do not. Not per thread: Python's filters are the process's.
        warnings.filterwarnings("ignore", module=r"PIL\.")

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, chosen: NDArray[np.int64] | int) -> NDArray[np.uint8]:
        if isinstance(chosen, int):
            return self._picture(chosen)
        return np.stack(list(self._decoding.map(self._picture, np.asarray(chosen).tolist())))

    def order(self, random: Random) -> ShardOrder:
        """The order of an epoch."""
        return ShardOrder(self._firsts, self._counts, random)

    def read_ahead(self, number: int, chosen: Callable[[int], NDArray[np.int64]]) -> None:
        """Begin to read what batch `number` and those after it are made of, as far as there is room; forget the rest.

        At most 2 * LANES pieces are held, or those of one batch, if they are more.

        Args:
            number: the batch that is wanted next.
            chosen: positions of the pictures of a batch, by its number.
        """
        while self._ahead and self._ahead[0][0] != number:
            self._ahead.popleft()
        wanted = frozenset[int]().union(*(pieces for _, pieces in self._ahead))
        for later in range(number + len(self._ahead), number + _BATCHES_AHEAD):
            pieces = frozenset(np.searchsorted(self._firsts, chosen(later), side="right").tolist())
            if self._ahead and len(wanted | pieces) > 2 * LANES:
                break
            wanted |= pieces
            self._ahead.append((later, pieces))
        with self._lock:
            for gone in self._held.keys() - wanted:
                self._held.pop(gone).cancel()
            for piece in sorted(wanted - self._held.keys()):
                self._held[piece] = self._fetching.submit(self._fetch, piece - 1)

    def _fetch(self, piece: int) -> tuple[int, mmap.mmap]:
        """Where a piece begins in its shard, and its bytes."""
        table, first = self.shards.table, int(self._firsts[piece])
        last = first + int(self._counts[piece]) - 1
        start, stop = int(table["offset"][first]), int(table["offset"][last] + table["size"][last])
        held = mmap.mmap(-1, stop - start)  # given back as soon as it is dropped, which malloc's need not be
        held.write(remote.read(self.shards.names[int(self._shard[piece])], start, stop))
        return start, held

    def _bytes(self, position: int) -> bytes:
        with self._lock:
            held = self._held.get(int(np.searchsorted(self._firsts, position, side="right")))
        if held is None:
            return self.shards.read(position)
        try:
            start, data = held.result()
        except CancelledError:  # training has gone on to elsewhere
            return self.shards.read(position)
        row = self.shards.table[position]
        return data[row["offset"] - start : row["offset"] - start + row["size"]]

    def _picture(self, position: int) -> NDArray[np.uint8]:
        reason = ""
        for candidate in self._candidates(self._broken.get(position, position)):
            try:
                image, _ = decode(self._bytes(candidate), **self._options)
            except Unreadable as error:
                reason = str(error)
                self._note(candidate, reason)
                continue
            if candidate != position:
                self._broken[position] = candidate
            return image
        raise UserError(
            f"data source '{printable(self.shards.title)}': {_MOST_BROKEN} pictures of one class in a row, from "
            f"{printable(self.shards.name(position))}, cannot be used ({reason}): repair the shards"
        )

    def _candidates(self, position: int) -> Iterator[int]:
        """The position itself, and those of the same class after it, round the end."""
        yield position
        labels, count = self.shards.table["label"], len(self)
        label, found = labels[position], 1
        for start in range(position + 1, position + count, 2**16):
            places = np.arange(start, min(start + 2**16, position + count)) % count
            for place in places[labels[places] == label].tolist():
                yield place
                found += 1
                if found == _MOST_BROKEN:
                    return

    def _note(self, position: int, reason: str) -> None:
        with self._lock:
            new = position not in self._noted and len(self._noted) < _MOST_NOTED
            self._noted |= {position} if new else set()
        if new:
            name = printable(self.shards.name(position))
            _log.warning("%s: %s; the next of its class is taken", name, reason)


def _pieces(shards: Shards) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Shard, position of the first picture, and number of pictures of every piece."""
    found: list[tuple[int, int, int]] = []
    first = 0
    for shard, end in enumerate(shards.ends.tolist()):
        rows = shards.table[first:end]
        stops = np.asarray(rows["offset"] + rows["size"])
        done = 0
        while done < len(rows):
            count = int(np.searchsorted(stops, int(rows["offset"][done]) + PIECE, side="right")) - done
            count = max(count, 1)
            found.append((shard, first + done, count))
            done += count
        first = end
    shard_of, firsts, counts = np.array(found, np.int64).T.copy()
    return shard_of, firsts, counts

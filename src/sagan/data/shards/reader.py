"""Read the images of tar shards, as an array that decodes them on access.

Training reads pieces of PIECE bytes, LANES of them at a time, and reads ahead.
"""

import logging
import mmap
import os
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sagan.config import CropName
from sagan.data.decode import Unreadable, decode
from sagan.data.shards import remote
from sagan.data.shards.listing import Shards
from sagan.data.shards.order import LANES, Random, ShardOrder
from sagan.errors import UserError
from sagan.text import printable

PIECE = 2**22
"""Bytes of a shard that are read at once; more only for a single larger image."""
_BATCHES_AHEAD = 64  # batches that are read ahead, if their pieces fit
_MAX_BROKEN = 100  # broken images in a row after which a data set is unusable
_MAX_WARNINGS = 20  # broken images that are named during training
_log = logging.getLogger(__name__)


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
                image, _ = decode(self.shards.check(candidate, self._read(candidate)), **self._options)
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

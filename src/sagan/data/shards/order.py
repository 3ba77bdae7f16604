"""The order of an epoch of shards: computed, so that a resumed run has no state to restore."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

LANES = 16
"""Pieces from which the images of a batch are drawn. Up to as many more are read ahead."""
Random = Callable[..., NDArray[np.uint64]]
"""`random(*key, count=n)` returns n reproducible random numbers, (n,) uint64."""


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

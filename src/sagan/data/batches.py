"""Training batches as a pure function of their number, so that a resumed run has no state to restore."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sagan.data.images import Order
from sagan.data.store import Store


class Batches:
    """Return reproducible shuffled batches: `batches(index)` is the same in every process, at any time.

    Sample k of a run is element k mod N of the permutation of epoch k // N, so every epoch contains each of the N
    images once. A batch may span epochs and may be larger than the store. Orders and flips come from the raw Philox
    stream, which NumPy keeps the same across versions and machines. The images themselves turn random numbers into the
    order that suits how they are read (`Images.order`).

    Args:
        store: the return value of `sagan.data.prepare`.
        batch_size: images per batch, over all processes.
        seed: 0 or more; each seed has its own order.
        flips: mirror each image left to right with probability 1/2, drawn again for every batch.
        rank: index of this process, from 0.
        count: number of processes that share every batch. Each gets every `count`-th image of the batch, starting at
            image number `rank`.
    """

    def __init__(self, store: Store, batch_size: int, *, seed: int, flips: bool, rank: int = 0, count: int = 1) -> None:
        self.store = store
        self.batch_size = batch_size
        self.seed = seed
        self.flips = flips
        self.share = slice(rank, None, count)
        self._orders: dict[int, Order] = {}

    def __call__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return batch number `index` (0, 1, ...).

        The images are (N, C, H, W) uint8 in channels_last memory, the labels (N,) int64.
        """
        positions, flipped = self.choose(index)
        self.store.images.read_ahead(index, lambda later: self.positions(later)[self.share])
        images_NHWC = np.asarray(self.store.images[positions])
        if flipped is not None:
            images_NHWC[flipped] = images_NHWC[flipped, :, ::-1]
        return torch.from_numpy(images_NHWC).permute(0, 3, 1, 2), torch.from_numpy(self.store.labels[positions])

    def choose(self, index: int) -> tuple[NDArray[np.int64], NDArray[np.bool_] | None]:
        """Return the positions of the images of this process's share of batch `index`, (n,), and which are mirrored.

        The second is None without `flips`.
        """
        positions = self.positions(index)[self.share]
        if not self.flips:
            return positions, None
        return positions, self._random(1, index, count=self.batch_size)[self.share] % 2 == 1

    def positions(self, index: int) -> NDArray[np.int64]:
        """Return the positions in the store of the images of batch number `index`, (batch_size,)."""
        samples = np.arange(index * self.batch_size, (index + 1) * self.batch_size)
        epochs, places = np.divmod(samples, len(self.store))
        return np.concatenate([self._order(epoch)[places[epochs == epoch]] for epoch in np.unique(epochs).tolist()])

    def _order(self, epoch: int) -> Order:
        """Return the order of an epoch: `order[places]` are positions in the store."""
        if epoch not in self._orders:
            order = self.store.images.order(lambda *key, count: self._random(0, epoch, *key, count=count))
            newest = list(self._orders.items())[-1:]  # keep two orders: batches may straddle two epochs
            self._orders = dict([*newest, (epoch, order)])
        return self._orders[epoch]

    def _random(self, *key: int, count: int) -> NDArray[np.uint64]:
        return np.random.Philox(np.random.SeedSequence(self.seed, spawn_key=key)).random_raw(count)

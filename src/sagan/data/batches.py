"""Which pictures make up which training batch: a pure function, so a resumed run has nothing to restore."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sagan.data.shards.reader import ShardImages
from sagan.data.store import Store


class Batches:
    """Reproducible shuffled batches without state: `batches(index)` is the same in every process, at any time.

    Sample k of a run is element k mod N of the permutation of epoch k // N: every epoch shows each of the N pictures
    once. Batches straddle epochs, and may be larger than the store. Orders and mirrorings come from the raw Philox
    stream, which NumPy promises to keep across versions and machines. Shards have an order of their own
    (`shards.ShardOrder`), with the same promises.

    Args:
        store: what `sagan.data.prepare` returned.
        batch_size: pictures a batch.
        seed: 0 or more; another seed, another order.
        flips: mirror each picture left to right with probability 1/2, anew every time it is drawn.
        rank, count: of the `count` processes that share every batch this is number `rank`; it gets every `count`-th
            picture of it, from number `rank` on.
    """

    def __init__(self, store: Store, batch_size: int, *, seed: int, flips: bool, rank: int = 0, count: int = 1) -> None:
        self.store, self.batch_size, self.seed, self.flips = store, batch_size, seed, flips
        self.share = slice(rank, None, count)
        self._orders: dict[int, Any] = {}

    def __call__(self, index: int) -> tuple[Tensor, Tensor]:
        """Batch number `index` (0, 1, ...): images (N, C, H, W) uint8 in channels_last memory, labels (N,) int64."""
        chosen = self.chosen(index)[self.share]
        if isinstance(self.store.images, ShardImages):
            self.store.images.read_ahead(index, lambda later: self.chosen(later)[self.share])
        images_NHWC = np.asarray(self.store.images[chosen])
        if self.flips:
            mirrored = self._random(1, index, count=self.batch_size)[self.share] % 2 == 1
            images_NHWC[mirrored] = images_NHWC[mirrored, :, ::-1]
        return torch.from_numpy(images_NHWC).permute(0, 3, 1, 2), torch.from_numpy(self.store.labels[chosen])

    def chosen(self, index: int) -> NDArray[np.int64]:
        """Positions in the store of the pictures of batch number `index`, (batch_size,)."""
        epochs, places = np.divmod(np.arange(index * self.batch_size, (index + 1) * self.batch_size), len(self.store))
        return np.concatenate([self._order(epoch)[places[epochs == epoch]] for epoch in np.unique(epochs).tolist()])

    def _order(self, epoch: int) -> Any:
        """Positions in the store by place in an epoch: `order[places]`."""
        if epoch not in self._orders:
            order: Any
            if isinstance(self.store.images, ShardImages):
                order = self.store.images.order(lambda *key, count: self._random(0, epoch, *key, count=count))
            else:
                order = np.argsort(self._random(0, epoch, count=len(self.store)), kind="stable")
            newest = list(self._orders.items())[-1:]  # two epochs at most: this one and the one before
            self._orders = dict([*newest, (epoch, order)])
        return self._orders[epoch]

    def _random(self, *key: int, count: int) -> NDArray[np.uint64]:
        return np.random.Philox(np.random.SeedSequence(self.seed, spawn_key=key)).random_raw(count)

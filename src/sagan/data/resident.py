"""Batches of images that are all on the device, so that a batch is gathered there and only its positions are sent."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sagan.data.batches import Batches
from sagan.data.packed import PackedImages
from sagan.data.store import Store

SHARE = 0.25
"""Share of the device's free memory that images may fill; the rest is for training."""
_CHUNK = 2**26  # bytes that are read at once


class ResidentBatches:
    """The batches of `Batches`, value for value, from a copy of the store on a device.

    Args:
        batches: says which images a batch has.
        device: where the images are held and the batches are returned.

    Raises:
        Unavailable: the images cannot be read. Each is checked as it is copied.
    """

    def __init__(self, batches: Batches, device: torch.device) -> None:
        self.batches = batches
        self.device = device
        store = batches.store
        self._images_NHWC = torch.empty(store.images.shape, dtype=torch.uint8, device=device)
        count = max(1, _CHUNK // self._images_NHWC[0].numel())
        for start in range(0, len(store), count):
            part = slice(start, start + count)
            self._images_NHWC[part] = torch.from_numpy(store.images[part]).to(device)
        self._labels = torch.from_numpy(store.labels).to(device)

    def __call__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return batch number `index` (0, 1, ...) as `Batches` does, on the device; nothing waits for the device."""
        positions, flipped = self.batches.choose(index)
        rows = self._send(positions)
        images_NHWC = self._images_NHWC[rows]
        if flipped is not None:
            images_NHWC = torch.where(self._send(flipped)[:, None, None, None], images_NHWC.flip(2), images_NHWC)
        return images_NHWC.permute(0, 3, 1, 2), self._labels[rows]

    def _send(self, values: NDArray[np.generic]) -> Tensor:
        t = torch.from_numpy(values)
        if self.device.type == "cuda":  # from pinned memory, which PyTorch keeps until the copy is done
            t = t.pin_memory()
        return t.to(self.device, non_blocking=True)


def fits(store: Store, device: torch.device) -> bool:
    """Return whether a store is to be held on a device: a packed one that fills SHARE of free CUDA memory at most."""
    if device.type != "cuda" or not isinstance(store.images, PackedImages):
        return False
    free, _ = torch.cuda.mem_get_info(device)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # which PyTorch keeps for itself
    return size(store) <= SHARE * (free + unused)


def size(store: Store) -> int:
    """Return the bytes of a store's images."""
    return int(np.prod(store.images.shape, dtype=np.int64))

"""Load the next batch in the background while the training step runs."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor


class Prefetcher:
    """Return batches on the device, and load batch i + 1 in the background once batch i was requested.

    A batch that is not the next one is loaded when it is requested. Batches for CUDA are gathered there, or copied from
    pinned memory, on their own stream, concurrently with the step. One thread loads; its errors are raised where the
    batch is requested.

    Args:
        batches: `Batches`, or another function that returns batch number i.
        device: device of the returned batches.
    """

    def __init__(self, batches: Callable[[int], tuple[Tensor, Tensor]], device: torch.device) -> None:
        self.batches = batches
        self.device = device
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self._next: tuple[int, Future[_Loaded]] | None = None
        self._copy_stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, number: int) -> tuple[Tensor, Tensor]:
        """Return batch number `number`: images (N, C, H, W) uint8 in channels_last memory, labels (N,) int64."""
        # Wait for the batch, or load it now.
        if self._next is not None and self._next[0] == number:
            future = self._next[1]
        else:
            future = self._thread.submit(self._load, number)
        self._next = None
        batch, copied = future.result()

        self._next = number + 1, self._thread.submit(self._load, number + 1)

        if copied is not None:
            stream = torch.cuda.current_stream(self.device)
            stream.wait_event(copied)
            for tensor in batch:  # allocated on the copy stream: its memory must not be reused before the step is done
                tensor.record_stream(stream)
        return batch

    def close(self) -> None:
        """End the thread."""
        self._next = None
        self._thread.shutdown(cancel_futures=True)

    def _load(self, number: int) -> "_Loaded":
        if self._copy_stream is None:
            images, labels = self.batches(number)
            return (images.to(self.device), labels.to(self.device)), None
        with torch.cuda.stream(self._copy_stream):
            images, labels = (_copied(t, self.device) for t in self.batches(number))
            return (images, labels), self._copy_stream.record_event()


def _copied(t: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on CUDA: itself if it is there, else a copy, which nothing waits for."""
    # PyTorch keeps pinned memory until the copy from it is done.
    return t if t.is_cuda else t.pin_memory().to(device, non_blocking=True)


_Loaded = tuple[tuple[Tensor, Tensor], torch.cuda.Event | None]
"""A batch, and the event after its copy to CUDA."""

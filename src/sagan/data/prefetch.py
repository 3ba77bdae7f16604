"""The next batch, made while the training step is busy with this one."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor


class Prefetcher:
    """`Batches`, with batch number i + 1 made in the background from the moment that number i is asked for.

    Returns what `batches(number)` returns, on the device; asked for another number than the next one, it makes that
    now. Batches for CUDA are copied there from pinned memory, beside the step's own work. One thread; errors in it are
    raised where the batch is asked for.

    Args:
        batches: `Batches`, or whatever makes batch number i when called with i.
        device: where they are to be.
    """

    def __init__(self, batches: Callable[[int], tuple[Tensor, Tensor]], device: torch.device) -> None:
        self.batches, self.device = batches, device
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self._next: tuple[int, Future[_Made]] | None = None
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, number: int) -> tuple[Tensor, Tensor]:
        """Batch number `number`: images (N, C, H, W) uint8 in channels_last memory, labels (N,) int64."""
        ready, self._next = self._next, None
        made = ready[1] if ready is not None and ready[0] == number else self._thread.submit(self._make, number)
        batch, copied = made.result()
        self._next = number + 1, self._thread.submit(self._make, number + 1)
        if copied is not None:
            stream = torch.cuda.current_stream(self.device)
            stream.wait_event(copied)
            for tensor in batch:  # its memory belongs to the other stream: not to be reused before this one is done
                tensor.record_stream(stream)
        return batch

    def close(self) -> None:
        """Ends the thread."""
        self._next = None
        self._thread.shutdown(cancel_futures=True)

    def _make(self, number: int) -> "_Made":
        images, labels = self.batches(number)
        if self._copies is None:
            return (images.to(self.device), labels.to(self.device)), None
        with torch.cuda.stream(self._copies):  # pinned memory is kept by PyTorch until the copy from it is done
            batch = (
                images.pin_memory().to(self.device, non_blocking=True),
                labels.pin_memory().to(self.device, non_blocking=True),
            )
            return batch, self._copies.record_event()


_Made = tuple[tuple[Tensor, Tensor], torch.cuda.Event | None]

"""Private functions of libraries, called from here alone; each was last seen in PyTorch 2.13, datasets 5.2."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import Store  # type: ignore[attr-defined]


def softmax_backward_(grad: Tensor, softmax: Tensor) -> None:
    """Replace the gradient of a softmax over the last axis by that of its input, in place."""
    torch._softmax_backward_data(grad, softmax, -1, grad.dtype, grad_input=grad)


def has_amx() -> bool:
    """Return whether this CPU has AMX tiles, which multiply bf16 matrices; False if PyTorch cannot tell."""
    supported = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return supported is not None and bool(supported())


def rendezvous(timeout: timedelta) -> tuple[Store, int, int]:
    """Return torchrun's store, the rank of this process and the number of processes, from the environment."""
    return next(dist.rendezvous("env://", timeout=timeout))  # type: ignore[attr-defined]


@contextmanager
def few_seconds_of_hub(timeout: float = 4.0) -> Iterator[None]:
    """Let `datasets` use its cache alone if the Hugging Face Hub does not answer within `timeout` seconds.

    `datasets` would try each of several files six times, and wait in between; its own options are read at import.
    """
    import datasets
    import huggingface_hub

    flags: tuple[Any, Any] = (datasets.config, huggingface_hub.constants)
    before = [module.HF_HUB_OFFLINE for module in flags]
    try:
        huggingface_hub.get_session().head(huggingface_hub.constants.ENDPOINT, timeout=timeout)
    except Exception:  # each version has its own types; offline, the reason is told by `datasets`
        for module in flags:
            module.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for module, value in zip(flags, before, strict=True):
            module.HF_HUB_OFFLINE = value


def abandon_capture(device: torch.device, pool: Any) -> None:
    """Take the allocator out of a capture into a pool that failed: PyTorch does that only after one that succeeded.

    Until then it would keep every tensor that two streams used.
    """
    with suppress(Exception):  # it says so if there is nothing to end
        index = torch.cuda.current_device() if device.index is None else device.index
        torch._C._cuda_endAllocateToPool(index, pool)  # type: ignore[attr-defined]
        torch._C._cuda_releasePool(index, pool)  # type: ignore[attr-defined]

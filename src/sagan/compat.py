"""Private functions of libraries, called from here alone; each was last seen in PyTorch 2.13."""

from datetime import timedelta

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

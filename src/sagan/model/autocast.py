"""What stays in the precision of the weights where autocast lowers that of convolutions and products."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

# Found once: the compiler of PyTorch 2.11 cannot trace this question.
_KINDS = tuple(kind for kind in ("cpu", "cuda", "mps", "xpu") if torch.amp.is_autocast_available(kind))


def lowered_dtype(device: torch.device) -> torch.dtype | None:
    """Return the dtype that autocast lowers fp32 to on this device, None where autocast is off."""
    kind = device.type
    if kind not in _KINDS or not torch.is_autocast_enabled(kind):
        return None
    return torch.get_autocast_dtype(kind)


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Switch autocast off on this device within the block."""
    if lowered_dtype(device) is None:  # the usual case, at no cost
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def as_dtype_of(x: Tensor, other: Tensor) -> Tensor:
    """Return x in the dtype of another tensor; x itself if it has that dtype, so that exported graphs hold no cast."""
    return x if x.dtype == other.dtype else x.to(other.dtype)

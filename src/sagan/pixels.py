"""Conversion of pixels between uint8 in [0, 255] and float in [-1, 1]."""

import torch
from torch import Tensor

from sagan.errors import UserError


def to_signed(images: Tensor) -> Tensor:
    """Convert images from uint8 in [0, 255] to float in [-1, 1], in the same memory order."""
    return images.to(torch.get_default_dtype()).div_(127.5).sub_(1)


def to_bytes(x: Tensor) -> Tensor:
    """Convert a generator's images from [-1, 1] to uint8 in [0, 255], on the CPU.

    Raises:
        UserError: a value is not finite: the generator's training run has diverged.
    """
    if not torch.isfinite(x).all():
        raise UserError("the generator's images contain NaN or infinity: its training run diverged before this step")
    return x.add(1).mul(127.5).round().clamp(0, 255).byte().cpu()

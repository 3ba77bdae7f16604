"""Pixels: uint8 in [0, 255] and float in [-1, 1]."""

import torch
from torch import Tensor

from sagan.errors import UserError


def to_signed(pictures: Tensor) -> Tensor:
    """uint8 in [0, 255] to float in [-1, 1], memory order kept."""
    return pictures.to(torch.get_default_dtype()).div_(127.5).sub_(1)


def to_bytes(x: Tensor) -> Tensor:
    """A generator's pictures in [-1, 1] to uint8 in [0, 255], on the CPU.

    Raises:
        UserError: a picture is not a number, so the generator's training has come apart.
    """
    if not torch.isfinite(x).all():
        raise UserError("the generator's pictures are not numbers (NaN): its training came apart before this step")
    return x.add(1).mul(127.5).round().clamp(0, 255).byte().cpu()

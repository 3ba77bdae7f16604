"""Differentiable augmentation (Zhao et al. 2020): random changes of the same kinds to real and generated images.

The discriminator then sees too many variants of a small data set to memorise it. The generator, whose gradient passes
through the changes, does not learn to draw them.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sagan.config import AugmentName
from sagan.training.rng import StepRNG


def _uniform(x: Tensor, low: float, high: float, rng: StepRNG) -> Tensor:
    return rng.uniform(len(x), low, high, x.dtype)


def color(x: Tensor, rng: StepRNG) -> Tensor:
    """Shift brightness by up to 1/2; scale saturation by 0 to 2 and contrast by 1/2 to 3/2. Alpha stays as it is."""
    rgb, alpha = x[:, :3], x[:, 3:]
    rgb = rgb + _uniform(x, -0.5, 0.5, rng)
    rgb = torch.lerp(rgb.mean(1, keepdim=True), rgb, _uniform(x, 0.0, 2.0, rng))
    rgb = torch.lerp(rgb.mean((1, 2, 3), keepdim=True), rgb, _uniform(x, 0.5, 1.5, rng))
    return torch.cat([rgb, alpha], 1)


def translation(x: Tensor, rng: StepRNG) -> Tensor:
    """Shift by up to 1/8 of the side in both directions; zeros move in."""
    n, _, height, width = x.shape
    largest = round(height / 8)
    shifts = torch.stack([rng.integers(n, -largest, largest + 1)[:, None] for _ in range(2)])  # (2, N, 1)
    padded = F.pad(x, (1, 1, 1, 1))  # a border of zeros to read from
    rows = (torch.arange(height, device=x.device) + shifts[0] + 1).clamp(0, height + 1)  # (N, H)
    columns = (torch.arange(width, device=x.device) + shifts[1] + 1).clamp(0, width + 1)  # (N, W)
    image = torch.arange(n, device=x.device)[:, None, None]
    moved = padded.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]]  # (N, H, W, C)
    return moved.permute(0, 3, 1, 2)


def cutout(x: Tensor, rng: StepRNG) -> Tensor:
    """Set a square of half the side, anywhere in the image, to zero."""
    n, _, height, _ = x.shape
    side = height // 2
    centre = torch.stack([rng.integers(n, 0, height + 1 - side % 2)[:, None] for _ in range(2)])  # (2, N, 1)
    start = centre - side // 2
    position = torch.arange(height, device=x.device)
    inside = (position >= start) & (position < start + side)  # (2, N, H): rows and columns
    hole = inside[0][:, :, None] & inside[1][:, None, :]
    return x.masked_fill(hole[:, None], 0.0)


AUGMENTS: dict[AugmentName, Callable[[Tensor, StepRNG], Tensor]] = {
    "color": color,
    "translation": translation,
    "cutout": cutout,
}


def augment(x: Tensor, names: Sequence[AugmentName], rng: StepRNG) -> Tensor:
    """Apply the named changes in turn to x (N, C, H, W) in [-1, 1], with other random numbers for each image."""
    for name in names:
        x = AUGMENTS[name](x, rng)
    return x

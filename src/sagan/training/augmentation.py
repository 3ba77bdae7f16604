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

Draws = tuple[Tensor, ...]
"""The random numbers of an augmentation of n images: a tensor for each change, drawn by `draw_augmentation`."""


def draw_color(n: int, side: int, rng: StepRNG) -> Tensor:
    """Draw shifts of brightness and factors of saturation and contrast, (3, n, 1, 1, 1)."""
    ranges = ((-0.5, 0.5), (0.0, 2.0), (0.5, 1.5))
    return torch.stack([rng.uniform(n, low, high, torch.get_default_dtype()) for low, high in ranges])


def color(x: Tensor, draws: Tensor) -> Tensor:
    """Shift brightness by up to 1/2; scale saturation by 0 to 2 and contrast by 1/2 to 3/2. Alpha stays as it is."""
    brightness, saturation, contrast = draws.to(x.dtype)
    rgb, alpha = x[:, :3], x[:, 3:]
    rgb = rgb + brightness
    rgb = torch.lerp(rgb.mean(1, keepdim=True), rgb, saturation)
    rgb = torch.lerp(rgb.mean((1, 2, 3), keepdim=True), rgb, contrast)
    return torch.cat([rgb, alpha], 1)


def draw_translation(n: int, side: int, rng: StepRNG) -> Tensor:
    """Draw shifts of rows and of columns, (2, n, 1), in pixels."""
    largest = round(side / 8)
    return torch.stack([rng.integers(n, -largest, largest + 1)[:, None] for _ in range(2)])


def translation(x: Tensor, shifts: Tensor) -> Tensor:
    """Shift by up to 1/8 of the side in both directions; zeros move in."""
    n, _, height, width = x.shape
    padded = F.pad(x, (1, 1, 1, 1))  # a border of zeros to read from
    rows = (torch.arange(height, device=x.device) + shifts[0] + 1).clamp(0, height + 1)  # (N, H)
    columns = (torch.arange(width, device=x.device) + shifts[1] + 1).clamp(0, width + 1)  # (N, W)
    image = torch.arange(n, device=x.device)[:, None, None]
    moved = padded.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]]  # (N, H, W, C)
    return moved.permute(0, 3, 1, 2)


def draw_cutout(n: int, side: int, rng: StepRNG) -> Tensor:
    """Draw the row and the column of the square's centre, (2, n, 1), in pixels."""
    odd = side // 2 % 2
    return torch.stack([rng.integers(n, 0, side + 1 - odd)[:, None] for _ in range(2)])


def cutout(x: Tensor, centre: Tensor) -> Tensor:
    """Set a square of half the side, anywhere in the image, to zero."""
    _, _, height, _ = x.shape
    side = height // 2
    start = centre - side // 2
    position = torch.arange(height, device=x.device)
    inside = (position >= start) & (position < start + side)  # (2, N, H): rows and columns
    hole = inside[0][:, :, None] & inside[1][:, None, :]
    return x.masked_fill(hole[:, None], 0.0)


AUGMENTS: dict[AugmentName, tuple[Callable[[int, int, StepRNG], Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    "color": (draw_color, color),
    "translation": (draw_translation, translation),
    "cutout": (draw_cutout, cutout),
}
"""What draws the random numbers of n images of a side, and what changes images by them."""


def draw_augmentation(names: Sequence[AugmentName], n: int, side: int, rng: StepRNG) -> Draws:
    """Draw the random numbers of the named changes of n images (C, side, side), other ones for each image."""
    return tuple(AUGMENTS[name][0](n, side, rng) for name in names)


def augment(x: Tensor, names: Sequence[AugmentName], draws: Draws) -> Tensor:
    """Apply the named changes in turn to x (N, C, H, W) in [-1, 1], by the random numbers of `draw_augmentation`."""
    for name, numbers in zip(names, draws, strict=True):
        x = AUGMENTS[name][1](x, numbers)
    return x

"""Differentiable augmentation (Zhao et al. 2020): the same random changes to real and generated pictures.

The discriminator then sees too many variants of a small data set to learn it by heart, and the generator, whose
gradient passes through the changes, is not taught to draw them.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sagan.config import AugmentName
from sagan.training.rng import Noise


def _uniform(x: Tensor, low: float, high: float, noise: Noise) -> Tensor:
    return noise.uniform(len(x), low, high, x.dtype)


def color(x: Tensor, noise: Noise) -> Tensor:
    """Brightness shifted by up to 1/2, saturation scaled by 0 to 2, contrast by 1/2 to 3/2; alpha is left alone."""
    rgb, alpha = x[:, :3], x[:, 3:]
    rgb = rgb + _uniform(x, -0.5, 0.5, noise)
    rgb = torch.lerp(rgb.mean(1, keepdim=True), rgb, _uniform(x, 0.0, 2.0, noise))
    rgb = torch.lerp(rgb.mean((1, 2, 3), keepdim=True), rgb, _uniform(x, 0.5, 1.5, noise))
    return torch.cat([rgb, alpha], 1)


def translation(x: Tensor, noise: Noise) -> Tensor:
    """A shift by up to 1/8 of the side in both directions, zeros moving in."""
    n, _, height, width = x.shape
    reach = round(height / 8)
    shifts = torch.stack([noise.integers(n, -reach, reach + 1)[:, None] for _ in range(2)])  # (2, N, 1)
    padded = F.pad(x, (1, 1, 1, 1))  # a border of zeros to read from
    rows = (torch.arange(height, device=x.device) + shifts[0] + 1).clamp(0, height + 1)  # (N, H)
    columns = (torch.arange(width, device=x.device) + shifts[1] + 1).clamp(0, width + 1)  # (N, W)
    picture = torch.arange(n, device=x.device)[:, None, None]
    moved = padded.permute(0, 2, 3, 1)[picture, rows[:, :, None], columns[:, None, :]]  # (N, H, W, C)
    return moved.permute(0, 3, 1, 2)


def cutout(x: Tensor, noise: Noise) -> Tensor:
    """A square of half the side, anywhere, set to zero."""
    n, _, height, _ = x.shape
    side = height // 2
    centre = torch.stack([noise.integers(n, 0, height + 1 - side % 2)[:, None] for _ in range(2)])  # (2, N, 1)
    start = centre - side // 2
    position = torch.arange(height, device=x.device)
    inside = (position >= start) & (position < start + side)  # (2, N, H): rows and columns
    hole = inside[0][:, :, None] & inside[1][:, None, :]
    return x.masked_fill(hole[:, None], 0.0)


AUGMENTS: dict[AugmentName, Callable[[Tensor, Noise], Tensor]] = {
    "color": color,
    "translation": translation,
    "cutout": cutout,
}


def augment(x: Tensor, names: Sequence[AugmentName], noise: Noise) -> Tensor:
    """x (N, C, H, W) in [-1, 1] with the named changes applied in turn, each picture its own."""
    for name in names:
        x = AUGMENTS[name](x, noise)
    return x

"""Features that cost no time, as a TorchScript file."""

from pathlib import Path

import torch
from torch import nn


class Means(nn.Module):
    """The mean colour of the image and of its left half."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x.mean((2, 3)), x[:, :, :16].mean((2, 3))], 1)


def save_means(path: Path) -> Path:
    torch.jit.script(Means()).save(path)
    return path

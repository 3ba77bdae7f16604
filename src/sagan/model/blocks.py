"""The residual blocks that both networks are stacked from (released code).

ReLUs and additions work in place wherever no backward pass reads what they overwrite: less memory to move.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from sagan.model.config import ModelConfig
from sagan.model.norm import ConditionalBatchNorm2d
from sagan.model.resample import DownConv2d, UpConv2d, upsample
from sagan.model.spectral_norm import Conv2d


class UpBlock(nn.Module):
    """x (N, c_in, H, W), y (N,) to (N, c_out, 2H, 2W): batch norm, ReLU, 3x3, twice; the first 3x3 upsamples."""

    def __init__(self, c_in: int, c_out: int, config: ModelConfig):
        super().__init__()
        sn: dict[str, Any] = {"norm": config.generator_spectral_norm, "eps": config.spectral_norm_eps}
        self.norm1 = ConditionalBatchNorm2d(c_in, config.num_classes, config.batch_norm_eps)
        self.conv1 = UpConv2d(c_in, c_out, 3, **sn)
        self.norm2 = ConditionalBatchNorm2d(c_out, config.num_classes, config.batch_norm_eps)
        self.conv2 = Conv2d(c_out, c_out, 3, **sn)
        self.shortcut = Conv2d(c_in, c_out, 1, **sn)

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        h = self.conv1(F.relu_(self.norm1(x, y)))
        h = self.conv2(F.relu_(self.norm2(h, y)))
        # A 1x1 convolution commutes with upsampling: on the small side it costs a quarter.
        return h.add_(upsample(self.shortcut(x)))


class DownBlock(nn.Module):
    """x (N, c_in, H, W) to (N, c_out, H/2, W/2), or (N, c_out, H, W) without downsampling.

    ReLU, 3x3, twice, the second 3x3 downsampling. The network's first block has no first ReLU: its input is a picture.
    """

    def __init__(self, c_in: int, c_out: int, config: ModelConfig, *, first: bool = False, downsample: bool = True):
        super().__init__()
        self.first, self.downsample = first, downsample
        sn: dict[str, Any] = {"norm": config.discriminator_spectral_norm, "eps": config.spectral_norm_eps}
        self.conv1 = Conv2d(c_in, c_out, 3, **sn)
        self.conv2 = (DownConv2d if downsample else Conv2d)(c_out, c_out, 3, **sn)
        # Without downsampling and at equal width the released code adds x itself.
        self.shortcut = Conv2d(c_in, c_out, 1, **sn) if downsample or c_in != c_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(x if self.first else F.relu(x))
        h = self.conv2(F.relu_(h))
        # A 1x1 convolution commutes with average pooling: on the small side it costs a quarter.
        return h.add_(self.shortcut(F.avg_pool2d(x, 2) if self.downsample else x))

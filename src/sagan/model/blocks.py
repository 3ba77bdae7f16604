"""The residual blocks that both networks are stacked from (released code).

ReLUs and additions work in place wherever no backward pass reads what they overwrite: less memory to move.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from sagan.model.activation import activate, activate_
from sagan.model.batch_norm import ConditionalBatchNorm2d
from sagan.model.config import ModelConfig
from sagan.model.resample import BilinearUpConv2d, DownConv2d, UpConv2d, upsample, upsample_bilinear
from sagan.model.spectral_norm import Conv2d


def conditional_norm(channels: int, config: ModelConfig) -> ConditionalBatchNorm2d:
    """The batch norm of a generator's block."""
    return ConditionalBatchNorm2d(
        channels,
        config.num_classes,
        config.batch_norm_eps,
        class_norm=config.class_spectral_norm,
        norm_eps=config.spectral_norm_eps,
        stored=config.stored,
    )


class UpBlock(nn.Module):
    """x (N, c_in, H, W), y (N,) to (N, c_out, 2H, 2W): batch norm, ReLU, 3x3, twice; the first 3x3 upsamples."""

    def __init__(self, c_in: int, c_out: int, config: ModelConfig):
        super().__init__()
        sn = config.spectral_norm("generator")
        self.activation = config.generator_activation
        nearest = config.upsampling == "nearest"
        self.upsample = upsample if nearest else upsample_bilinear
        self.norm1 = conditional_norm(c_in, config)
        self.conv1 = (UpConv2d if nearest else BilinearUpConv2d)(c_in, c_out, 3, **sn)
        self.norm2 = conditional_norm(c_out, config)
        self.conv2 = Conv2d(c_out, c_out, 3, **sn)
        self.shortcut = Conv2d(c_in, c_out, 1, **sn)

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        h = self.conv1(activate_(self.norm1(x, y), self.activation))
        h = self.conv2(activate_(self.norm2(h, y), self.activation))
        # A 1x1 convolution commutes with upsampling: on the small side it costs a quarter.
        return h.add_(self.upsample(self.shortcut(x)))


class DownBlock(nn.Module):
    """x (N, c_in, H, W) to (N, c_out, H/2, W/2), or (N, c_out, H, W) without downsampling.

    ReLU, 3x3, twice, the second 3x3 downsampling. The network's first block has no first ReLU: its input is a picture.
    """

    def __init__(self, c_in: int, c_out: int, config: ModelConfig, *, first: bool = False, downsample: bool = True):
        super().__init__()
        self.first, self.downsample = first, downsample
        self.activation = config.discriminator_activation
        self.rectified = config.shortcut == "rectified" and not first
        sn = config.spectral_norm("discriminator")
        inner = c_in if config.discriminator_inner == "in" and not first else c_out
        self.conv1 = Conv2d(c_in, inner, 3, **sn)
        self.conv2 = (DownConv2d if downsample else Conv2d)(inner, c_out, 3, **sn)
        # Without downsampling and at equal width the released code adds x itself.
        self.shortcut = Conv2d(c_in, c_out, 1, **sn) if downsample or c_in != c_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if self.rectified:
            x = activate(x, self.activation)
        h = self.conv1(x if self.first or self.rectified else activate(x, self.activation))
        h = self.conv2(activate_(h, self.activation))
        # A 1x1 convolution commutes with average pooling: on the small side it costs a quarter.
        return h.add_(self.shortcut(F.avg_pool2d(x, 2) if self.downsample else x))

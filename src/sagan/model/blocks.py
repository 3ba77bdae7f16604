"""The residual blocks that both networks are stacked from (released code).

ReLUs and additions work in place wherever no backward pass reads what they overwrite: less memory to move.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from sagan.model.batch_norm import ConditionalBatchNorm2d
from sagan.model.config import ModelConfig
from sagan.model.resample import SNDownConv2d, SNLinearUpConv2d, SNUpConv2d, upsample, upsample_linear
from sagan.model.spectral_norm import SNConv2d


class UpBlock(nn.Module):
    """Map x (N, c_in, H, W) and y (N,) to (N, c_out, 2H, 2W).

    Batch norm, ReLU, 3x3 convolution, twice; the first convolution upsamples. The shortcut upsamples too.
    """

    def __init__(self, c_in: int, c_out: int, config: ModelConfig):
        super().__init__()
        sn = config.generator_spectral_norm
        linear = config.upsampling == "linear"
        self.upsample = upsample_linear if linear else upsample
        self.bn1 = ConditionalBatchNorm2d(c_in, config.num_classes)
        self.conv1 = (SNLinearUpConv2d if linear else SNUpConv2d)(c_in, c_out, 3, spectral_norm=sn)
        self.bn2 = ConditionalBatchNorm2d(c_out, config.num_classes)
        self.conv2 = SNConv2d(c_out, c_out, 3, spectral_norm=sn)
        self.shortcut = SNConv2d(c_in, c_out, 1, spectral_norm=sn)

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        h = self.conv1(F.relu_(self.bn1(x, y)))
        h = self.conv2(F.relu_(self.bn2(h, y)))
        # h + shortcut(upsample(x)): a 1x1 convolution commutes with upsampling (where linear upsampling meets the zeros
        # beyond the border, its bias does not); on the small side it costs a quarter.
        return h.add_(self.upsample(self.shortcut(x)))


class DownBlock(nn.Module):
    """Map x (N, c_in, H, W) to (N, c_out, H/2, W/2), or to (N, c_out, H, W) without `downsample`.

    ReLU, 3x3 convolution, twice; the second convolution downsamples. The network's first block has no first ReLU,
    since its input is an image.
    """

    def __init__(self, c_in: int, c_out: int, config: ModelConfig, *, first: bool = False, downsample: bool = True):
        super().__init__()
        self.first = first
        sn = config.discriminator_spectral_norm
        down = SNDownConv2d if downsample else SNConv2d
        self.conv1 = SNConv2d(c_in, c_out, 3, spectral_norm=sn)
        self.conv2 = down(c_out, c_out, 3, spectral_norm=sn)
        # Without downsampling and at equal width the released code adds x itself.
        self.shortcut = down(c_in, c_out, 1, spectral_norm=sn) if downsample or c_in != c_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(x if self.first else F.relu(x))
        h = self.conv2(F.relu_(h))
        return h.add_(self.shortcut(x))

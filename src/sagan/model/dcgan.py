"""Networks of one strided convolution for each size (Radford et al. 2016), with attention between them.

So heykeetae's Self-Attention-GAN has them at 64 pixels. `build_generator` and `build_discriminator` give the networks
that a configuration asks for, these or the paper's.
"""

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from sagan.model.attention import add_attention
from sagan.model.autocast import as_dtype_of
from sagan.model.blocks import conditional_norm
from sagan.model.config import ModelConfig
from sagan.model.discriminator import Discriminator
from sagan.model.generator import Generator
from sagan.model.spectral_norm import Conv2d, ConvTranspose2d, Linear

SLOPE = 0.1  # of the discriminator's leaky ReLUs


class TransposedBlock(nn.Module):
    """x (N, c_in, H, W), y (N,) to (N, c_out, 2H, 2W): 4x4 transposed convolution, batch norm, ReLU.

    The `first` block makes (N, c_out, 4, 4) of (N, c_in, 1, 1).
    """

    def __init__(self, c_in: int, c_out: int, config: ModelConfig, *, first: bool = False):
        super().__init__()
        stride, padding = (1, 0) if first else (2, 1)
        sn = config.spectral_norm("generator")
        self.conv = ConvTranspose2d(c_in, c_out, 4, stride=stride, padding=padding, **sn)
        self.norm = conditional_norm(c_out, config)

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        return F.relu_(self.norm(self.conv(x), y))


class DCGANGenerator(Generator):
    """Maps z (N, latent_dim), y (N,) int64 to pictures (N, image_channels, R, R) in [-1, 1]; y as for a Generator.

    The last transposed convolution, to the picture, has no spectral norm; nor has any attention layer.
    """

    architecture = "dcgan"

    def _build(self, config: ModelConfig) -> None:
        channels = config.generator_channels
        self.stem = TransposedBlock(config.latent_dim, channels[0], config, first=True)
        self.blocks = nn.ModuleList(TransposedBlock(c_in, c_out, config) for c_in, c_out in pairwise(channels))
        self.attention = nn.ModuleDict({str(4 << i): nn.Sequential() for i in range(len(channels))})
        for size, kind in config.attention_at("generator"):
            c = channels[(size // 4).bit_length() - 1]
            add_attention(self.attention, size, kind, c, config, spectral_norm=False)
        self.head = ConvTranspose2d(channels[-1], config.image_channels, 4, stride=2, padding=1, norm=False)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        x = self.attention["4"](self.stem(z[:, :, None, None], y))
        for block in self.blocks:
            x = block(x, y)
            x = self.attention[str(x.shape[-1])](x)
        return self._to_image(x)


class HalvingBlock(nn.Module):
    """x (N, c_in, H, W) to (N, c_out, H/2, W/2): 4x4 convolution, leaky ReLU."""

    def __init__(self, c_in: int, c_out: int, config: ModelConfig):
        super().__init__()
        self.conv = Conv2d(c_in, c_out, 4, stride=2, **config.spectral_norm("discriminator"))

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu_(self.conv(x), SLOPE)


class DCGANDiscriminator(Discriminator):
    """Maps pictures x (N, image_channels, R, R) in [-1, 1], y (N,) int64 to logits (N,).

    Its head reads all of the last feature map h (N, 16 C); with classes it goes on as the paper's does.
    Head and attention layers have no spectral norm.
    """

    architecture = "dcgan"

    def _build(self, config: ModelConfig) -> None:
        channels = config.discriminator_channels
        widths = pairwise((config.image_channels, *channels))
        self.blocks = nn.ModuleList(HalvingBlock(c_in, c_out, config) for c_in, c_out in widths)
        self.attention = nn.ModuleDict({str(4 << i): nn.Sequential() for i in range(len(channels))})
        for size, kind in config.attention_at("discriminator"):
            c = channels[(config.resolution // size).bit_length() - 2]
            add_attention(self.attention, size, kind, c, config, spectral_norm=False)
        features = 4 * 4 * channels[-1]
        self.head = Linear(features, 1, norm=False)
        self._add_class_head(features, config)

    def features(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
            x = self.attention[str(x.shape[-1])](x)
        return as_dtype_of(x.flatten(1), self.head.weight)

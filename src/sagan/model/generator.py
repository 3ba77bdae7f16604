"""The generator: a latent and a class to an image."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sagan.model.attention import build_attention_stacks
from sagan.model.autocast import as_dtype_of
from sagan.model.batch_norm import ConditionalBatchNorm2d
from sagan.model.blocks import UpBlock
from sagan.model.config import ModelConfig, Role
from sagan.model.spectral_norm import SNConv2d, SNLayer, SNLinear


def to_image(head: SNLayer, x: Tensor) -> Tensor:
    """Map the last feature map to an image in [-1, 1]; tanh in the weights' precision, as bf16 has few steps near 1."""
    return torch.tanh(as_dtype_of(head(x), head.weight))


class Generator(nn.Module):
    """Map z (N, latent_dim) and y (N,) int64 to images (N, image_channels, R, R) in [-1, 1].

    A linear layer to 4x4, up-blocks to R x R, attention where the configuration places it, then batch norm, ReLU, a
    3x3 convolution and tanh. y is ignored, and may be omitted, when num_classes is 0; float weights (N, num_classes)
    mix the classes.

    Raises:
        ValueError: the configuration is of another architecture; `sagan.model.build.build_generator` builds any.
    """

    role: Role = "generator"
    class_names: tuple[str, ...] = ()
    """Names of the classes, if they are known, as of a loaded generator."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        config.check_architecture("residual")
        self.config = config
        sizes = config.generator_sizes  # 4, 8, ..., R
        channels = config.generator_channels
        sn = config.generator_spectral_norm

        self.stem = SNLinear(config.latent_dim, 4 * 4 * channels[0], spectral_norm=sn)
        self.blocks = nn.ModuleList(UpBlock(c_in, c_out, config) for c_in, c_out in pairwise(channels))
        self.attention = build_attention_stacks(
            dict(zip(sizes, channels, strict=True)),
            config.attention_at("generator"),
            config,
            spectral_norm=sn,
        )
        self.bn = ConditionalBatchNorm2d(channels[-1], 0)
        self.head = SNConv2d(channels[-1], config.image_channels, 3, spectral_norm=sn)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        # The linear layer's output is read as (N, 4, 4, C): channels last in memory, which the convolutions want.
        x = self.stem(z).unflatten(1, (4, 4, -1)).permute(0, 3, 1, 2)
        x = self.attention["4"](x)
        for block in self.blocks:
            x = block(x, y)
            x = self.attention[str(x.shape[-1])](x)
        return to_image(self.head, F.relu_(self.bn(x, None)))

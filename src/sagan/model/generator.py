"""The generator: a latent and a class to a picture."""

from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from sagan.model.activation import activate_
from sagan.model.attention import add_attention
from sagan.model.autocast import as_dtype_of
from sagan.model.batch_norm import ConditionalBatchNorm2d
from sagan.model.blocks import UpBlock
from sagan.model.config import Architecture, ModelConfig
from sagan.model.spectral_norm import Conv2d, Linear, Normalised


class Generator(nn.Module):
    """Maps z (N, latent_dim), y (N,) int64 to pictures (N, image_channels, R, R) in [-1, 1].

    A linear layer to 4x4, up-blocks to R x R, attention where the configuration puts it, then batch norm, ReLU, a
    3x3 convolution and tanh. y is ignored, and may be left out, when num_classes is 0; as weights (N, num_classes) it
    asks for something between classes.

    Raises:
        ValueError: a configuration of another architecture: sagan.model.dcgan.build_generator knows them all.
    """

    architecture: ClassVar[Architecture] = "residual"
    stem: nn.Module
    head: Normalised

    def __init__(self, config: ModelConfig):
        super().__init__()
        if config.architecture != self.architecture:
            raise ValueError(f"architecture {config.architecture}: build it by sagan.model.dcgan.build_generator")
        self.config = config
        self._build(config)

    def _build(self, config: ModelConfig) -> None:
        channels = config.generator_channels
        sn = config.spectral_norm("generator")

        self.stem = Linear(config.latent_dim, 4 * 4 * channels[0], **sn)
        self.blocks = nn.ModuleList(UpBlock(c_in, c_out, config) for c_in, c_out in pairwise(channels))
        self.attention = nn.ModuleDict({str(4 << i): nn.Sequential() for i in range(len(channels))})
        for size, kind in config.attention_at("generator"):
            c = channels[(size // 4).bit_length() - 1]
            add_attention(self.attention, size, kind, c, config, spectral_norm=config.generator_spectral_norm)
        self.norm = ConditionalBatchNorm2d(channels[-1], 0, config.output_norm_eps or config.batch_norm_eps)
        self.head = Conv2d(channels[-1], config.image_channels, 3, **sn)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        # The linear layer's output is read as (N, 4, 4, C): channels last in memory, as the convolutions like it.
        x = self.stem(z).unflatten(1, (4, 4, -1)).permute(0, 3, 1, 2)
        x = self.attention["4"](x)
        for block in self.blocks:
            x = block(x, y)
            x = self.attention[str(x.shape[-1])](x)
        return self._to_image(activate_(self.norm(x, None), self.config.generator_activation))

    def _to_image(self, x: Tensor) -> Tensor:
        """The image that the last feature map makes; tanh in the weights' precision, as bf16 has few steps near 1."""
        return torch.tanh(as_dtype_of(self.head(x), self.head.weight))

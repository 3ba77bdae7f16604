"""Networks of one strided convolution per size (Radford et al. 2016), with attention between them.

heykeetae's Self-Attention-GAN has these networks at 64 px.
"""

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from sagan.model.attention import build_attention_stacks
from sagan.model.autocast import as_dtype_of
from sagan.model.batch_norm import ConditionalBatchNorm2d
from sagan.model.config import ModelConfig, Role
from sagan.model.discriminator import build_class_layer, classifier_logits, projection_logits
from sagan.model.generator import to_image
from sagan.model.spectral_norm import SNConv2d, SNConvTranspose2d, SNLinear

SLOPE = 0.1  # of the discriminator's leaky ReLUs


class TransposedBlock(nn.Module):
    """Map x (N, c_in, H, W) and y (N,) to (N, c_out, 2H, 2W): 4x4 transposed convolution, batch norm, ReLU.

    The `first` block maps (N, c_in, 1, 1) to (N, c_out, 4, 4).
    """

    def __init__(self, c_in: int, c_out: int, config: ModelConfig, *, first: bool = False):
        super().__init__()
        stride, padding = (1, 0) if first else (2, 1)
        sn = config.generator_spectral_norm
        self.conv = SNConvTranspose2d(c_in, c_out, 4, stride=stride, padding=padding, spectral_norm=sn)
        self.bn = ConditionalBatchNorm2d(c_out, config.num_classes)

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        return F.relu_(self.bn(self.conv(x), y))


class DCGANGenerator(nn.Module):
    """Map z (N, latent_dim) and y (N,) int64 to images (N, image_channels, R, R) in [-1, 1]; y as for a Generator.

    The last transposed convolution, to the image, has no spectral norm, and neither has an attention layer.
    """

    role: Role = "generator"
    class_names: tuple[str, ...] = ()

    def __init__(self, config: ModelConfig):
        super().__init__()
        config.check_architecture("dcgan")
        self.config = config
        sizes = config.generator_sizes  # 4, 8, ..., R/2
        channels = config.generator_channels

        self.stem = TransposedBlock(config.latent_dim, channels[0], config, first=True)
        self.blocks = nn.ModuleList(TransposedBlock(c_in, c_out, config) for c_in, c_out in pairwise(channels))
        self.attention = build_attention_stacks(
            dict(zip(sizes, channels, strict=True)), config.attention_at("generator"), config, spectral_norm=False
        )
        self.head = SNConvTranspose2d(channels[-1], config.image_channels, 4, stride=2, padding=1, spectral_norm=False)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        x = self.attention["4"](self.stem(z[:, :, None, None], y))
        for block in self.blocks:
            x = block(x, y)
            x = self.attention[str(x.shape[-1])](x)
        return to_image(self.head, x)


class HalvingBlock(nn.Module):
    """Map x (N, c_in, H, W) to (N, c_out, H/2, W/2): 4x4 convolution, leaky ReLU."""

    def __init__(self, c_in: int, c_out: int, config: ModelConfig):
        super().__init__()
        self.conv = SNConv2d(c_in, c_out, 4, stride=2, spectral_norm=config.discriminator_spectral_norm)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu_(self.conv(x), SLOPE)


class DCGANDiscriminator(nn.Module):
    """Map images x (N, image_channels, R, R) in [-1, 1] and y (N,) int64 to logits (N,).

    The head reads all of the last feature map h (N, 4 · 4 · C); classes enter as in a Discriminator. Head and
    attention layers have no spectral norm.
    """

    role: Role = "discriminator"

    def __init__(self, config: ModelConfig):
        super().__init__()
        config.check_architecture("dcgan")
        self.config = config
        sizes = config.discriminator_sizes  # R/2, R/4, ..., 4
        channels = config.discriminator_channels
        widths = pairwise((config.image_channels, *channels))

        self.blocks = nn.ModuleList(HalvingBlock(c_in, c_out, config) for c_in, c_out in widths)
        self.attention = build_attention_stacks(
            dict(sorted(zip(sizes, channels, strict=True))),
            config.attention_at("discriminator"),
            config,
            spectral_norm=False,
        )
        features = 4 * 4 * channels[-1]
        self.head = SNLinear(features, 1, spectral_norm=False)
        self.embed, self.classifier = build_class_layer(features, config)

    def features(self, x: Tensor) -> Tensor:
        """Return h (N, 4 · 4 · C), which the logits are linear in, in the weights' precision."""
        for block in self.blocks:
            x = block(x)
            x = self.attention[str(x.shape[-1])](x)
        return as_dtype_of(x.flatten(1), self.head.weight)

    def logits(self, h: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the logits (N,) of features h (N, 4 · 4 · C) and labels y (N,)."""
        return projection_logits(self.head, self.embed, h, y)

    def class_logits(self, h: Tensor) -> Tensor:
        """Return the auxiliary classifier's logits (N, num_classes) of features h."""
        return classifier_logits(self.classifier, h)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.logits(self.features(x), y)

"""The residual networks of other codebases, where they differ from ours: the architecture 'imported'.

An import whose networks are ours in all but names and layouts has our own architecture instead.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sagan.model.attention import build_attention_stacks
from sagan.model.autocast import without_autocast
from sagan.model.batch_norm import ConditionalBatchNorm2d
from sagan.model.build import Architecture, register
from sagan.model.config import ModelConfig, Role
from sagan.model.discriminator import build_class_layer, classifier_logits, projection_logits
from sagan.model.generator import to_image
from sagan.model.resample import SNDownConv2d, SNUpConv2d, upsample
from sagan.model.spectral_norm import SNConv2d, SNLinear, SpectralNorm

NAME = "imported"
ActivationName = Literal["relu", "leaky-relu", "elu"]
SLOPE = 0.1  # of leaky-relu, for negative numbers


@dataclass(frozen=True)
class ImportedConfig(ModelConfig):
    """The shape of imported networks: that of our own, and the details in which other codebases differ.

    Raises:
        ValueError: a field is out of its range; the message names it.
    """

    architecture: Literal["imported"] = "imported"  # type: ignore[assignment]
    """The residual blocks of the released code in the variants of other codebases."""
    class_spectral_norm: bool = False
    """Spectral norm on the generator's tables of class shifts and scales (less 1) too, if it has spectral norms."""
    upsampling: Literal["nearest", "bilinear"] = "nearest"  # type: ignore[assignment]
    """How the generator doubles the size of its feature maps."""
    generator_activation: ActivationName = "relu"
    """Activation of the generator's blocks; leaky-relu has a slope of 0.1 for negative numbers."""
    discriminator_activation: ActivationName = "relu"
    """The same for the discriminator."""
    discriminator_halvings: int | None = None
    """How many of the discriminator's blocks, the first ones, halve the image; None: all but the last."""
    discriminator_inner: Literal["out", "in"] = "out"
    """Width inside the discriminator's blocks after the first: that of their output, or of their input."""
    shortcut: Literal["plain", "rectified"] = "plain"
    """What the discriminator's shortcuts start from: the block's input, or its activation (as in-place ReLUs do)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        blocks = len(self.discriminator_channels)
        most = min(blocks, len(self.generator_sizes))
        if not 1 <= self.halvings <= most:
            raise ValueError(
                f"discriminator_halvings must be from 1 to {most} with {blocks} blocks, got {self.halvings}"
            )

    @property
    def halvings(self) -> int:
        """How many of the discriminator's blocks, the first ones, halve the image."""
        return super().halvings if self.discriminator_halvings is None else self.discriminator_halvings


def activate(x: Tensor, name: ActivationName) -> Tensor:
    """Apply an activation to x."""
    if name == "relu":
        return F.relu(x)
    return F.leaky_relu(x, SLOPE) if name == "leaky-relu" else F.elu(x)


def activate_(x: Tensor, name: ActivationName) -> Tensor:
    """Apply an activation to x in place."""
    if name == "relu":
        return F.relu_(x)
    return F.leaky_relu_(x, SLOPE) if name == "leaky-relu" else F.elu_(x)


def upsample_bilinear(x: Tensor) -> Tensor:
    """Upsample (N, C, H, W) to (N, C, 2H, 2W), linear between the centres of pixels, constant beyond the outermost."""
    with without_autocast(x.device):  # which would lift a bf16 map to fp32 on CUDA
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class BilinearUpConv2d(SNConv2d):
    """Upsample by 2 (bilinear), then convolve 3x3."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(upsample_bilinear(x))


class NormalisedTables(ConditionalBatchNorm2d):
    """A conditional batch norm whose shifts, and scales less 1, are spectrally normalised as (num_classes, C) tables.

    Tables start xavier-uniform: a table of zeros has no spectral norm.
    """

    scale_sn: nn.Module
    shift_sn: nn.Module

    def __init__(self, channels: int, num_classes: int):
        super().__init__(channels, num_classes)
        with torch.no_grad():
            nn.init.xavier_uniform_(self.scale).add_(1)
            nn.init.xavier_uniform_(self.shift)
        self.scale_sn = SpectralNorm(num_classes)
        self.shift_sn = SpectralNorm(num_classes)

    def tables(self) -> tuple[Tensor, Tensor]:
        """Return the normalised scales and shifts of all classes, (num_classes, C) each."""
        if not isinstance(self.scale_sn, SpectralNorm):  # folded: 1 + (scale - 1) would round
            return self.scale, self.shift
        return 1 + self.scale_sn(self.scale - 1), self.shift_sn(self.shift)

    @torch.no_grad()
    def bake(self) -> None:
        """Fold the spectral norms into the tables, in place: the same function, nothing left to compute."""
        scale, shift = self.eval().tables()
        self.scale.copy_(scale)
        self.shift.copy_(shift)
        self.scale_sn = self.shift_sn = nn.Identity()

    def solve(self) -> None:
        """Set the spectral norms' vectors, if there are any, to those of the tables as they are now."""
        for norm, table in ((self.scale_sn, self.scale - 1), (self.shift_sn, self.shift)):
            if isinstance(norm, SpectralNorm):
                norm.solve(table)


def class_batch_norm(channels: int, config: ImportedConfig) -> ConditionalBatchNorm2d:
    """Return the batch norm of a generator's block."""
    normalised = config.num_classes and config.class_spectral_norm and config.generator_spectral_norm
    return (NormalisedTables if normalised else ConditionalBatchNorm2d)(channels, config.num_classes)


class ImportedUpBlock(nn.Module):
    """Map x (N, c_in, H, W) and y (N,) to (N, c_out, 2H, 2W), as `sagan.model.blocks.UpBlock` in its variants."""

    def __init__(self, c_in: int, c_out: int, config: ImportedConfig):
        super().__init__()
        sn = config.generator_spectral_norm
        bilinear = config.upsampling == "bilinear"
        self.activation = config.generator_activation
        self.upsample = upsample_bilinear if bilinear else upsample
        self.bn1 = class_batch_norm(c_in, config)
        self.conv1 = (BilinearUpConv2d if bilinear else SNUpConv2d)(c_in, c_out, 3, spectral_norm=sn)
        self.bn2 = class_batch_norm(c_out, config)
        self.conv2 = SNConv2d(c_out, c_out, 3, spectral_norm=sn)
        self.shortcut = SNConv2d(c_in, c_out, 1, spectral_norm=sn)

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        h = self.conv1(activate_(self.bn1(x, y), self.activation))
        h = self.conv2(activate_(self.bn2(h, y), self.activation))
        return h.add_(self.upsample(self.shortcut(x)))  # bilinear upsampling commutes with a 1x1 convolution too


class ImportedGenerator(nn.Module):
    """Map z (N, latent_dim) and y (N,) int64 to images (N, image_channels, R, R) in [-1, 1], as `Generator` does."""

    role: Role = "generator"
    class_names: tuple[str, ...] = ()

    def __init__(self, config: ImportedConfig):
        super().__init__()
        config.check_architecture(NAME)
        self.config = config
        channels = config.generator_channels
        sn = config.generator_spectral_norm

        self.stem = SNLinear(config.latent_dim, 4 * 4 * channels[0], spectral_norm=sn)
        self.blocks = nn.ModuleList(ImportedUpBlock(c_in, c_out, config) for c_in, c_out in pairwise(channels))
        self.attention = build_attention_stacks(
            dict(zip(config.generator_sizes, channels, strict=True)),
            config.attention_at("generator"),
            config,
            spectral_norm=sn,
        )
        self.bn = ConditionalBatchNorm2d(channels[-1], 0)
        self.head = SNConv2d(channels[-1], config.image_channels, 3, spectral_norm=sn)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        x = self.stem(z).unflatten(1, (4, 4, -1)).permute(0, 3, 1, 2)
        x = self.attention["4"](x)
        for block in self.blocks:
            x = block(x, y)
            x = self.attention[str(x.shape[-1])](x)
        return to_image(self.head, activate_(self.bn(x, None), self.config.generator_activation))


class ImportedDownBlock(nn.Module):
    """Map x (N, c_in, H, W) to (N, c_out, H/2, W/2), or (N, c_out, H, W), as `DownBlock` in its variants."""

    def __init__(self, c_in: int, c_out: int, config: ImportedConfig, *, first: bool, downsample: bool):
        super().__init__()
        sn = config.discriminator_spectral_norm
        inner = c_in if config.discriminator_inner == "in" and not first else c_out
        self.first = first
        self.downsample = downsample
        self.activation = config.discriminator_activation
        self.rectified = config.shortcut == "rectified" and not first
        self.conv1 = SNConv2d(c_in, inner, 3, spectral_norm=sn)
        down = SNDownConv2d if downsample else SNConv2d
        self.conv2 = down(inner, c_out, 3, spectral_norm=sn)
        self.shortcut = down(c_in, c_out, 1, spectral_norm=sn) if downsample or c_in != c_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if self.rectified:
            x = activate(x, self.activation)
        h = self.conv1(x if self.first or self.rectified else activate(x, self.activation))
        h = self.conv2(activate_(h, self.activation))
        return h.add_(self.shortcut(x))


class ImportedDiscriminator(nn.Module):
    """Map images x (N, image_channels, R, R) in [-1, 1] and y (N,) int64 to logits (N,), as `Discriminator` does."""

    role: Role = "discriminator"

    def __init__(self, config: ImportedConfig):
        super().__init__()
        config.check_architecture(NAME)
        self.config = config
        sn = config.discriminator_spectral_norm
        channels = config.discriminator_channels
        widths = (config.image_channels, *channels)
        last = len(channels) - 1

        self.blocks = nn.ModuleList()
        for i in range(last):
            block = ImportedDownBlock(widths[i], widths[i + 1], config, first=i == 0, downsample=i < config.halvings)
            self.blocks.append(block)
        self.attention = build_attention_stacks(
            dict(sorted(zip(config.discriminator_sizes, channels, strict=False))),  # of the halving blocks
            config.attention_at("discriminator"),
            config,
            spectral_norm=sn,
        )
        self.last = ImportedDownBlock(widths[-2], widths[-1], config, first=False, downsample=last < config.halvings)
        self.head = SNLinear(channels[-1], 1, spectral_norm=sn)
        self.embed, self.classifier = build_class_layer(channels[-1], config)

    def features(self, x: Tensor) -> Tensor:
        """Return h (N, C), which the logits are linear in, in the weights' precision."""
        for block in self.blocks:
            x = block(x)
            if block.downsample:
                x = self.attention[str(x.shape[-1])](x)
        h = activate(self.last(x), self.config.discriminator_activation)
        return h.sum(dim=(2, 3), dtype=self.head.weight.dtype)

    def logits(self, h: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the logits (N,) of features h (N, C) and labels y (N,)."""
        return projection_logits(self.head, self.embed, h, y)

    def class_logits(self, h: Tensor) -> Tensor:
        """Return the auxiliary classifier's logits (N, num_classes) of features h (N, C)."""
        return classifier_logits(self.classifier, h)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.logits(self.features(x), y)


register(NAME, Architecture(ImportedConfig, ImportedGenerator, ImportedDiscriminator))

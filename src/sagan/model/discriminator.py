"""The discriminator: a picture and a class to a logit, higher for real."""

from itertools import pairwise
from typing import ClassVar, overload

from torch import Tensor, nn

from sagan.model.activation import activate
from sagan.model.attention import add_attention
from sagan.model.autocast import without_autocast
from sagan.model.blocks import DownBlock
from sagan.model.config import Architecture, ModelConfig
from sagan.model.spectral_norm import Embedding, Linear


class Discriminator(nn.Module):
    """Maps pictures x (N, image_channels, R, R) in [-1, 1], y (N,) int64 to logits (N,).

    Down-blocks to 4x4, one block more (or as the configuration has it), ReLU, the sum over locations h, then a linear
    layer to one number plus the projection <embed(y), h> (Miyato & Koyama 2018). y is ignored when num_classes is 0.

    With the class head 'classifier' (AC-GAN, Odena et al. 2017) y is ignored too; another linear layer makes h into
    logits (N, num_classes) of the classes, which come with the others if `classify` asks for them.

    Raises:
        ValueError: a configuration of another architecture: sagan.model.dcgan.build_discriminator knows them all.
    """

    architecture: ClassVar[Architecture] = "residual"
    embed: Embedding | None
    classifier: Linear | None

    def __init__(self, config: ModelConfig):
        super().__init__()
        if config.architecture != self.architecture:
            raise ValueError(f"architecture {config.architecture}: build it by sagan.model.dcgan.build_discriminator")
        self.config = config
        self._build(config)

    def _build(self, config: ModelConfig) -> None:
        channels, halvings = config.discriminator_channels, config.halvings
        sn = config.spectral_norm("discriminator")

        def block(i: int, c_in: int, c_out: int) -> DownBlock:
            return DownBlock(c_in, c_out, config, first=i == 0, downsample=i < halvings)

        *widths, last = pairwise((config.image_channels, *channels))
        self.blocks = nn.ModuleList(block(i, *width) for i, width in enumerate(widths))
        sizes = [config.resolution >> i for i in range(halvings, 0, -1)]  # from the smallest feature map
        self.attention = nn.ModuleDict({str(size): nn.Sequential() for size in sizes})
        for size, kind in config.attention_at("discriminator"):
            c = channels[(config.resolution // size).bit_length() - 2]
            add_attention(self.attention, size, kind, c, config, spectral_norm=config.discriminator_spectral_norm)
        self.last = block(len(widths), *last)
        self.head = Linear(channels[-1], 1, **sn)
        self._add_class_head(channels[-1], config)

    def _add_class_head(self, features: int, config: ModelConfig) -> None:
        sn, classes = config.spectral_norm("discriminator"), config.num_classes
        projects = config.class_head == "projection"
        self.embed = Embedding(classes, features, **sn) if classes and projects else None
        self.classifier = Linear(features, classes, **sn) if classes and not projects else None

    def features(self, x: Tensor) -> Tensor:
        """h (N, C), which the logits are linear in, in the weights' precision."""
        for block in self.blocks:
            x = block(x)
            if block.downsample:
                x = self.attention[str(x.shape[-1])](x)
        h = activate(self.last(x), self.config.discriminator_activation)
        return h.sum(dim=(2, 3), dtype=self.head.weight.dtype)

    @overload
    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor: ...
    @overload
    def forward(self, x: Tensor, y: Tensor | None = None, *, classify: bool) -> tuple[Tensor, Tensor]: ...
    def forward(self, x: Tensor, y: Tensor | None = None, *, classify: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        h = self.features(x)
        with without_autocast(h.device):  # losses take differences of logits, of which bf16 keeps 3 digits
            logits = self.head(h).squeeze(1)
            if self.embed is not None:
                assert y is not None, "a conditional discriminator needs the labels y"
                logits = logits + (self.embed(y) * h).sum(1)
            if classify:
                assert self.classifier is not None, "the discriminator has no classifier"
                return logits, self.classifier(h)
        return logits

"""The discriminator: an image and a class to a logit, higher for real."""

import torch.nn.functional as F
from torch import Tensor, nn

from sagan.model.attention import build_attention_stacks
from sagan.model.autocast import without_autocast
from sagan.model.blocks import DownBlock
from sagan.model.config import ModelConfig, Role
from sagan.model.spectral_norm import SNEmbedding, SNLinear


def build_class_layer(features: int, config: ModelConfig) -> tuple[SNEmbedding | None, SNLinear | None]:
    """Build the projection's embedding or the auxiliary classifier, whichever the configuration asks for, if any."""
    if not config.num_classes:
        return None, None
    sn = config.discriminator_spectral_norm
    if config.class_head == "projection":
        return SNEmbedding(config.num_classes, features, spectral_norm=sn), None
    return None, SNLinear(features, config.num_classes, spectral_norm=sn)


def projection_logits(head: SNLinear, embed: SNEmbedding | None, h: Tensor, y: Tensor | None) -> Tensor:
    """Return head(h) + <embed(y), h> (N,), the projection discriminator (Miyato & Koyama 2018).

    Without `embed` the second term and y are dropped.

    Raises:
        ValueError: y is None although there is an embedding.
    """
    with without_autocast(h.device):  # losses take differences of logits, of which bf16 keeps 3 digits
        logits: Tensor = head(h).squeeze(1)
        if embed is not None:
            if y is None:
                raise ValueError("a conditional discriminator needs the labels y")
            logits = logits + (embed(y) * h).sum(1)
    return logits


def classifier_logits(classifier: SNLinear | None, h: Tensor) -> Tensor:
    """Return the auxiliary classifier's logits (N, num_classes) (AC-GAN, Odena et al. 2017).

    Raises:
        ValueError: there is no classifier.
    """
    if classifier is None:
        raise ValueError("the discriminator has no classifier: class_head must be classifier, num_classes 1 or more")
    with without_autocast(h.device):
        logits: Tensor = classifier(h)
    return logits


class Discriminator(nn.Module):
    """Map images x (N, image_channels, R, R) in [-1, 1] and y (N,) int64 to logits (N,).

    Down-blocks to 4x4, one more block, ReLU, the sum over locations h, then a linear layer to one number plus the
    projection <embed(y), h>. y is ignored when num_classes is 0, and with the class head 'classifier', where
    `class_logits` gives logits of the classes instead.

    Raises:
        ValueError: the configuration is of another architecture; `sagan.model.build.build_discriminator` builds any.
    """

    role: Role = "discriminator"

    def __init__(self, config: ModelConfig):
        super().__init__()
        config.check_architecture("residual")
        self.config = config
        channels = config.discriminator_channels
        widths = (config.image_channels, *channels)
        sizes = config.discriminator_sizes  # R/2, R/4, ..., 4: of the halving blocks' outputs

        self.blocks = nn.ModuleList()
        for i in range(len(channels) - 1):
            self.blocks.append(DownBlock(widths[i], widths[i + 1], config, first=i == 0))
        self.attention = build_attention_stacks(
            dict(sorted(zip(sizes, channels, strict=False))),  # of the halving blocks, from the smallest map
            config.attention_at("discriminator"),
            config,
            spectral_norm=config.discriminator_spectral_norm,
        )
        self.last = DownBlock(widths[-2], widths[-1], config, downsample=False)
        self.head = SNLinear(channels[-1], 1, spectral_norm=config.discriminator_spectral_norm)
        self.embed, self.classifier = build_class_layer(channels[-1], config)

    def features(self, x: Tensor) -> Tensor:
        """Return h (N, C), which the logits are linear in, in the weights' precision."""
        for block in self.blocks:
            x = block(x)
            x = self.attention[str(x.shape[-1])](x)
        h = F.relu(self.last(x))
        return h.sum(dim=(2, 3), dtype=self.head.weight.dtype)

    def logits(self, h: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the logits (N,) of features h (N, C) and labels y (N,)."""
        return projection_logits(self.head, self.embed, h, y)

    def class_logits(self, h: Tensor) -> Tensor:
        """Return the auxiliary classifier's logits (N, num_classes) of features h (N, C)."""
        return classifier_logits(self.classifier, h)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.logits(self.features(x), y)

"""The discriminator: a picture and a class to a logit, higher for real."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from sagan.model.attention import add_attention
from sagan.model.blocks import DownBlock
from sagan.model.config import ModelConfig
from sagan.model.spectral_norm import Embedding, Linear


class Discriminator(nn.Module):
    """Maps pictures x (N, image_channels, R, R) in [-1, 1], y (N,) int64 to logits (N,).

    Down-blocks to 4x4, one block more, ReLU, the sum over locations h, then a linear layer to one number plus the
    projection <embed(y), h> (Miyato & Koyama 2018). y is ignored when num_classes is 0.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        channels = config.discriminator_channels  # of the feature maps R/2, R/4, ..., 4
        sn: dict[str, Any] = {"norm": config.discriminator_spectral_norm, "eps": config.spectral_norm_eps}

        widths = zip((config.image_channels, *channels[:-1]), channels, strict=True)
        self.blocks = nn.ModuleList(
            DownBlock(c_in, c_out, config, first=i == 0) for i, (c_in, c_out) in enumerate(widths)
        )
        self.attention = nn.ModuleDict({str(4 << i): nn.Sequential() for i in range(len(channels))})
        for size, kind in config.attention_at("discriminator"):
            c = channels[-(size // 4).bit_length()]
            add_attention(self.attention, size, kind, c, config, spectral_norm=config.discriminator_spectral_norm)
        self.last = DownBlock(channels[-1], channels[-1], config, downsample=False)
        self.head = Linear(channels[-1], 1, **sn)
        self.embed = Embedding(config.num_classes, channels[-1], **sn) if config.num_classes else None

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        for block in self.blocks:
            x = block(x)
            x = self.attention[str(x.shape[-1])](x)
        h = F.relu(self.last(x)).sum(dim=(2, 3))  # (N, C)
        logits = self.head(h).squeeze(1)
        if self.embed is not None:
            assert y is not None, "a conditional discriminator needs the labels y"
            logits = logits + (self.embed(y) * h).sum(1)
        return logits

"""The guide: a second discriminator, on maps of a network trained on ImageNet (Projected GAN, Sauer et al. 2021).

The network, EfficientNet-Lite0, is frozen; a small head on its maps of each of four sizes learns to tell real images
from generated ones. The generator is trained against both discriminators.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sagan.errors import UserError
from sagan.metrics.features import EfficientNetLite0
from sagan.model.spectral_norm import SNConv2d, SNEmbedding
from sagan.training.losses import LOSSES

EVERY = 2
"""The guide works in every second step, with twice the weight."""
SMALLEST = 64  # px: smaller images are enlarged, or the network would see too little of them
CHANNELS = (24, 40, 112, 320)  # of the maps, at a 4th, an 8th, a 16th and a 32nd of the image's side
SPREADS = (9.0, 9.0, 7.0, 3.0)  # their standard deviations, roughly, for robots, digits and emoji
HINGE = LOSSES["hinge"]
WIDTH = 64  # of the heads
SLOPE = 0.2  # of the leaky ReLU


class Head(nn.Module):
    """Map a feature map (N, c, H, W) and y (N,) int64 to logits (N,): a mean over locations, and a projection of y."""

    def __init__(self, c: int, num_classes: int) -> None:
        super().__init__()
        self.narrow = SNConv2d(c, WIDTH, 1, spectral_norm=True)
        self.conv = SNConv2d(WIDTH, WIDTH, 3, spectral_norm=True)
        self.logit = SNConv2d(WIDTH, 1, 1, spectral_norm=True)
        self.embed = SNEmbedding(num_classes, WIDTH, spectral_norm=True) if num_classes else None

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        h = F.leaky_relu(self.conv(F.leaky_relu(self.narrow(x), SLOPE)), SLOPE)
        logits: Tensor = self.logit(h).mean(dim=(1, 2, 3))
        return logits if self.embed is None else logits + (self.embed(y) * h.mean(dim=(2, 3))).sum(1)


def why_not_guided() -> str | None:
    """Return why there can be no guide here, in one line; None if there can."""
    try:
        EfficientNetLite0()
    except UserError as error:
        return str(error)
    return None


class Guide:
    """The frozen network and its heads, of which only `heads` is trained and saved.

    Args:
        num_classes: of the images; 0: none.
        device: where it works.

    Raises:
        UserError: the packages of the frozen network are not installed.
    """

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self.network = EfficientNetLite0().to(device).requires_grad_(False)
        self.heads = nn.ModuleList(Head(c, num_classes) for c in CHANNELS).to(device)

    def maps(self, images: Tensor) -> list[Tensor]:
        """Return the feature maps (N, c, H, W) of images (N, C, R, R) in [-1, 1], with a spread of about 1."""
        x = _to_rgb(images)
        if x.shape[-1] < SMALLEST:
            x = F.interpolate(x, size=(SMALLEST, SMALLEST), mode="bilinear")
        x = x.contiguous(memory_format=torch.channels_last)
        return [m / spread for m, spread in zip(self.network.maps(x), SPREADS, strict=True)]

    def generator_loss(self, maps: list[Tensor], y: Tensor) -> Tensor:
        """Return -E[logit] of generated images with these maps, the mean over the heads."""
        logits = torch.stack([head(m, y) for head, m in zip(self.heads, maps, strict=True)])
        return HINGE.generator(None, logits)

    def loss(self, real: list[Tensor], y_real: Tensor, fake: list[Tensor], y_fake: Tensor) -> Tensor:
        """Return the heads' hinge loss on maps of real and of generated images, the mean over the heads: 2 at first."""
        losses = []
        for head, x_real, x_fake in zip(self.heads, real, fake, strict=True):
            # One pass for both: one power iteration of each spectral norm.
            logits = head(torch.cat([x_real, x_fake]), torch.cat([y_real, y_fake]))
            losses.append(HINGE.discriminator(*logits.split([len(x_real), len(x_fake)])))
        return torch.stack(losses).mean()


def _to_rgb(x: Tensor) -> Tensor:
    """Convert images (N, C, H, W) in [-1, 1] to (N, 3, H, W): grey repeated, RGBA composited over white."""
    if x.shape[1] == 4:
        alpha = (x[:, 3:] + 1) / 2
        x = x[:, :3] * alpha + (1 - alpha)
    return x.expand(-1, 3, -1, -1)

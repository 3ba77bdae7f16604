"""The residual blocks that both networks are stacked from (released code).

ReLUs and additions work in place wherever no backward pass reads what they overwrite: less memory to move.
"""

from torch import Tensor, nn

from sagan.model.activation import activate, activate_
from sagan.model.batch_norm import ConditionalBatchNorm2d
from sagan.model.config import ModelConfig
from sagan.model.resample import SNBilinearUpConv2d, SNDownConv2d, SNUpConv2d, upsample, upsample_bilinear
from sagan.model.spectral_norm import SNConv2d


def conditional_batch_norm(channels: int, config: ModelConfig) -> ConditionalBatchNorm2d:
    """Return the batch norm of a generator's block."""
    return ConditionalBatchNorm2d(
        channels,
        config.num_classes,
        config.batch_norm_eps,
        class_spectral_norm=config.class_spectral_norm,
        spectral_norm_eps=config.spectral_norm_eps,
        stored=config.stored,
    )


class UpBlock(nn.Module):
    """Map x (N, c_in, H, W) and y (N,) to (N, c_out, 2H, 2W).

    Batch norm, ReLU, 3x3 convolution, twice; the first convolution upsamples. The shortcut upsamples too.
    """

    def __init__(self, c_in: int, c_out: int, config: ModelConfig):
        super().__init__()
        sn = config.spectral_norm_options("generator")
        self.activation = config.generator_activation
        nearest = config.upsampling == "nearest"
        self.upsample = upsample if nearest else upsample_bilinear
        self.bn1 = conditional_batch_norm(c_in, config)
        self.conv1 = (SNUpConv2d if nearest else SNBilinearUpConv2d)(c_in, c_out, 3, **sn)
        self.bn2 = conditional_batch_norm(c_out, config)
        self.conv2 = SNConv2d(c_out, c_out, 3, **sn)
        self.shortcut = SNConv2d(c_in, c_out, 1, **sn)

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        h = self.conv1(activate_(self.bn1(x, y), self.activation))
        h = self.conv2(activate_(self.bn2(h, y), self.activation))
        # h + shortcut(upsample(x)): a 1x1 convolution commutes with upsampling; on the small side it costs a quarter.
        return h.add_(self.upsample(self.shortcut(x)))


class DownBlock(nn.Module):
    """Map x (N, c_in, H, W) to (N, c_out, H/2, W/2), or to (N, c_out, H, W) without `downsample`.

    ReLU, 3x3 convolution, twice; the second convolution downsamples. The network's first block has no first ReLU,
    since its input is an image.
    """

    def __init__(self, c_in: int, c_out: int, config: ModelConfig, *, first: bool = False, downsample: bool = True):
        super().__init__()
        self.first = first
        self.downsample = downsample
        self.activation = config.discriminator_activation
        self.rectified = config.shortcut == "rectified" and not first
        sn = config.spectral_norm_options("discriminator")
        inner = c_in if config.discriminator_inner == "in" and not first else c_out
        self.conv1 = SNConv2d(c_in, inner, 3, **sn)
        down = SNDownConv2d if downsample else SNConv2d
        self.conv2 = down(inner, c_out, 3, **sn)
        # Without downsampling and at equal width the released code adds x itself.
        self.shortcut = down(c_in, c_out, 1, **sn) if downsample or c_in != c_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if self.rectified:
            x = activate(x, self.activation)
        h = self.conv1(x if self.first or self.rectified else activate(x, self.activation))
        h = self.conv2(activate_(h, self.activation))
        return h.add_(self.shortcut(x))

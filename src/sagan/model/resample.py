"""Convolutions with a resampling folded in: the same function from 16 taps a pixel instead of 36.

Doubling the size by nearest neighbour and then convolving 3x3 reads every input pixel through overlapping copies;
summed up, it is a transposed convolution with stride 2 and a 4x4 kernel. Convolving 3x3 and then averaging 2x2 is,
likewise, a convolution with stride 2 and a 4x4 kernel. In one dimension the 4 taps are
[w0, w0+w1, w1+w2, w2]: the 3-tap kernel and its copy shifted by one, added.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from sagan.model.spectral_norm import Conv2d

# Folding saves arithmetic on every pixel but builds a kernel from the weight: below this many low-resolution
# pixels in the batch the building costs more than it saves (benchmarks/resample.py).
FOLD_FROM_PIXELS = 1024

_SHIFTED = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 1.0, 1.0]])
_FOLD = torch.kron(_SHIFTED, _SHIFTED)  # (9, 16): a flattened 3x3 kernel to its 4x4 sum of shifts


def fold(w: Tensor, *, flip: bool = False) -> Tensor:
    """3x3 kernels (O, I, 3, 3) to the 4x4 kernels (O, I, 4, 4) of the folded convolution, flipped for upsampling."""
    fold_matrix = (_FOLD.flip(1) if flip else _FOLD).to(w)
    return (w.flatten(2) @ fold_matrix).unflatten(2, (4, 4))


def upsample_bilinear(x: Tensor) -> Tensor:
    """(N, C, H, W) to (N, C, 2H, 2W), linear between the centres of pixels, constant beyond the outermost."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def upsample(x: Tensor) -> Tensor:
    """(N, C, H, W) to (N, C, 2H, 2W) by nearest neighbour."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def upsample_conv3x3(x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
    """conv3x3(upsample(x)), zero-padded: (N, I, H, W) to (N, O, 2H, 2W), w of shape (O, I, 3, 3)."""
    if x.shape[0] * x.shape[2] * x.shape[3] < FOLD_FROM_PIXELS:
        return F.conv2d(upsample(x), w, bias, padding=1)
    return F.conv_transpose2d(x, fold(w, flip=True).transpose(0, 1), bias, stride=2, padding=1)


def conv3x3_downsample(x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
    """avg_pool2(conv3x3(x)), zero-padded: (N, I, 2H, 2W) to (N, O, H, W), w of shape (O, I, 3, 3)."""
    if x.shape[0] * x.shape[2] * x.shape[3] < 4 * FOLD_FROM_PIXELS:
        return F.avg_pool2d(F.conv2d(x, w, bias, padding=1), 2)
    return F.conv2d(x, fold(w) / 4, bias, stride=2, padding=1)


class UpConv2d(Conv2d):
    """Nearest-neighbour upsampling by 2, then a 3x3 convolution."""

    def forward(self, x: Tensor) -> Tensor:
        return upsample_conv3x3(x, self.norm(self.weight), self.bias)


class BilinearUpConv2d(Conv2d):
    """Bilinear upsampling by 2, then a 3x3 convolution."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(upsample_bilinear(x))


class DownConv2d(Conv2d):
    """A 3x3 convolution, then 2x2 average pooling."""

    def forward(self, x: Tensor) -> Tensor:
        return conv3x3_downsample(x, self.norm(self.weight), self.bias)

"""Convolutions fused with resampling: the same function from 9 or 16 taps per small pixel instead of 36.

Doubling the size by nearest neighbour is spreading the pixels out, zeros between them, and then summing 2x2 boxes; and
box sums commute with convolutions. So convolving 3x3 after doubling is a transposed 3x3 convolution with stride 2 and a
box sum, and averaging 2x2 after convolving 3x3 is a box mean and a 3x3 convolution with stride 2: the convolution works
on the pixels of the small side only. Zeros beyond the border stay exact.

Linear upsampling is the same with two further box means: spread pixels, filtered by [1, 3, 3, 1] / 4 along each axis
(Karras et al. 2019, section 2). No pixel is then a copy of its neighbour; such copies draw grids of dots
(docs/evaluation.md).

On the CPU box sums are taken of the map, which leaves 9 taps; on CUDA of the kernel, which makes it 4x4 (linear: 6x6),
since a pass over the map costs more there than 7 further taps (docs/speed.md).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sagan.model.autocast import without_autocast
from sagan.model.convolution import conv2d, conv_transpose2d
from sagan.model.spectral_norm import SNConv2d

BOXED_KERNELS = ("cuda",)
"""Devices on which the box sum is taken of the kernel. On an H200 the boxes of maps took 44 % of a step at 128 px."""


class _Box(torch.autograd.Function):
    """Sum 2x2 boxes and divide by `divisor`: (N, C, H, W) to (N, C, H - 1 + 2p, W - 1 + 2p), zero-padded by p, 0 or 1.

    The adjoint is the same with the other padding. Autograd's own form of it would keep the input, and is slower.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, padding: int, divisor: int) -> Tensor:
        ctx.padding = padding
        ctx.divisor = divisor
        return F.avg_pool2d(x, 2, stride=1, padding=padding, divisor_override=divisor)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        return _Box.apply(g, 1 - ctx.padding, ctx.divisor), None, None


def _box_means(x: Tensor, *paddings: int) -> Tensor:
    """Take means of 2x2 boxes, once for each padding: twice is the filter [1, 2, 1] / 4 along each axis."""
    for padding in paddings:
        x = _Box.apply(x, padding, 4)
    return x


def upsample(x: Tensor) -> Tensor:
    """Upsample (N, C, H, W) to (N, C, 2H, 2W) by nearest neighbour."""
    with without_autocast(x.device):  # which would lift a bf16 map to fp32 on CUDA
        return F.interpolate(x, scale_factor=2, mode="nearest")


def upsample_linear(x: Tensor) -> Tensor:
    """Upsample (N, C, H, W) to (N, C, 2H, 2W), linear between the centres of pixels, with zeros beyond the border."""
    return _box_means(upsample(x), 1, 0)


def upsample_conv3x3(x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
    """Compute conv3x3(upsample(x)), zero-padded: (N, I, H, W) to (N, O, 2H, 2W), w of shape (O, I, 3, 3)."""
    if x.device.type in BOXED_KERNELS:
        return conv_transpose2d(x, _Box.apply(w.transpose(0, 1).flip(2, 3), 1, 1), bias, stride=2, padding=1)
    quarter = None if bias is None else bias / 4  # every box sums four of it
    # Contiguous in the convolution's order, or its backward pass would copy it again.
    w = w.transpose(0, 1).flip(2, 3).contiguous(memory_format=torch.channels_last)
    return _Box.apply(conv_transpose2d(x, w, quarter, stride=2), 0, 1)


def upsample_linear_conv3x3(x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
    """Compute conv3x3(upsample_linear(x)) as if x were on a plane of zeros: (N, I, H, W) to (N, O, 2H, 2W).

    Next to the border the convolution sees what the filter spreads beyond it.
    """
    if x.device.type in BOXED_KERNELS:
        w = _box_means(_Box.apply(w.transpose(0, 1).flip(2, 3), 1, 1), 1, 1)
        return conv_transpose2d(x, w, bias, stride=2, padding=2)
    w = w.transpose(0, 1).flip(2, 3).contiguous(memory_format=torch.channels_last)
    h = _box_means(_Box.apply(conv_transpose2d(x, w, None, stride=2), 1, 1), 0, 0)
    return h if bias is None else h.add_(bias[:, None, None])


def conv3x3_downsample(x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
    """Compute avg_pool2(conv3x3(x)), zero-padded: (N, I, 2H, 2W) to (N, O, H, W), w of shape (O, I, 3, 3)."""
    if x.device.type in BOXED_KERNELS:
        return conv2d(x, _Box.apply(w, 1, 4), bias, stride=2, padding=1)
    return conv2d(_Box.apply(x, 1, 4), w, bias, stride=2)


def conv1x1_downsample(x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
    """Compute avg_pool2(conv1x1(x)): (N, I, 2H, 2W) to (N, O, H, W), w of shape (O, I, 1, 1)."""
    if x.device.type in BOXED_KERNELS:
        return conv2d(x, w.expand(-1, -1, 2, 2) / 4, bias, stride=2)
    # A 1x1 convolution commutes with the mean; on the small side it costs a quarter.
    return conv2d(F.avg_pool2d(x, 2), w, bias)


class SNUpConv2d(SNConv2d):
    """Upsample by 2 (nearest neighbour), then convolve 3x3."""

    def forward(self, x: Tensor) -> Tensor:
        # conv3x3(upsample(x))
        return upsample_conv3x3(x, self.sn(self.weight), self.bias)


class SNLinearUpConv2d(SNConv2d):
    """Upsample by 2 (linear), then convolve 3x3."""

    def forward(self, x: Tensor) -> Tensor:
        # conv3x3(upsample_linear(x))
        return upsample_linear_conv3x3(x, self.sn(self.weight), self.bias)


class SNDownConv2d(SNConv2d):
    """Convolve 3x3 or 1x1, then average 2x2."""

    def forward(self, x: Tensor) -> Tensor:
        # avg_pool2(conv(x))
        resample = conv3x3_downsample if self.weight.shape[-1] == 3 else conv1x1_downsample
        return resample(x, self.sn(self.weight), self.bias)

"""A generator in plain operations only, ready for export as a graph."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sagan.exporters.truncation import Truncation
from sagan.model.attention import SelfAttention2d
from sagan.model.generator import Generator
from sagan.model.resample import SNLinearUpConv2d, SNUpConv2d, upsample
from sagan.model.spectral_norm import bake_spectral_norm


class StandaloneGenerator(nn.Module):
    """Copy a generator, and include truncation and rounding to uint8 in its forward pass.

    Maps z (N, latent_dim) float32, standard normal, and y (N,) int64 (omitted without classes) to images
    (N, C, H, W): float32 in [-1, 1], or with `uint8` in [0, 255], rounded as `sagan.pixels.to_bytes` does.
    Spectral norms are folded into the weights. Layers that choose an algorithm by the batch size, or pad for a fused
    kernel, are replaced by plain ones: the same function in operations that every runtime has.
    """

    def __init__(self, generator: Generator, *, truncation: float | None = None, uint8: bool = False):
        super().__init__()
        self.truncation = nn.Identity() if truncation is None else Truncation(truncation)
        self.generator = bake_spectral_norm(copy.deepcopy(generator).eval()).requires_grad_(False)
        self.uint8 = uint8
        _replace_fast_layers(self.generator)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        x = self.generator(self.truncation(z), y)
        if self.uint8:
            x = x.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
        return x


class PlainAttention(nn.Module):
    """Compute a self-attention layer literally: softmax(q k^T) v."""

    def __init__(self, layer: SelfAttention2d):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.layer.project(x)
        o = torch.softmax(q @ k.transpose(1, 2), dim=-1) @ v  # (N, H·W, E)
        o = self.layer.output(o.transpose(1, 2).unflatten(2, x.shape[2:]))
        return torch.addcmul(x, self.layer.gamma, o)  # gamma * o + x (equation 3)


class PlainUpConv(nn.Module):
    """Upsample (nearest neighbour), then convolve: a smaller graph than the fused form, and as fast in runtimes."""

    def __init__(self, layer: SNUpConv2d):
        super().__init__()
        self.weight = layer.weight
        self.bias = layer.bias

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(upsample(x), self.weight, self.bias, padding=1)


class PlainLinearUpConv(nn.Module):
    """Convolve, transposed, and average boxes thrice: upsampling (linear) and convolving."""

    def __init__(self, layer: SNLinearUpConv2d):
        super().__init__()
        self.weight = nn.Parameter(4 * layer.weight.transpose(0, 1).flip(2, 3), requires_grad=False)
        self.bias = layer.bias

    def forward(self, x: Tensor) -> Tensor:
        h = F.conv_transpose2d(x, self.weight, stride=2)
        for padding in (1, 0, 0):
            h = F.avg_pool2d(h, 2, stride=1, padding=padding)
        return h if self.bias is None else h + self.bias[:, None, None]


def _replace_fast_layers(network: nn.Module) -> None:
    """Replace attention and upsampling layers, at any depth, by their plain forms."""
    for name, layer in network.named_children():
        if isinstance(layer, SelfAttention2d):
            setattr(network, name, PlainAttention(layer))
        elif isinstance(layer, SNUpConv2d):
            setattr(network, name, PlainUpConv(layer))
        elif isinstance(layer, SNLinearUpConv2d):
            setattr(network, name, PlainLinearUpConv(layer))
        else:
            _replace_fast_layers(layer)

"""A generator that needs nothing of ours any more: what leaves as a graph."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sagan.exporters.truncation import Truncation
from sagan.model.attention import SelfAttention2d
from sagan.model.generator import Generator
from sagan.model.resample import UpConv2d, upsample
from sagan.model.spectral_norm import bake_spectral_norm


class Standalone(nn.Module):
    """Latents and classes to pictures, with all folded in that drawing takes; it is given a copy of the generator.

    Maps z (N, latent_dim) float32, standard normal, and y (N,) int64 (left out if there are no classes) to pictures
    (N, C, H, W): float32 in [-1, 1], or with `uint8` bytes in [0, 255], rounded as `sagan.sampling.to_bytes` does.
    Spectral norms are worked into the weights. The forms that choose their way by the size of a batch, or that pad
    for a fused kernel, are replaced by the plain ones: the same function, in operations that any runtime knows.
    """

    def __init__(self, generator: Generator, *, truncation: float | None = None, uint8: bool = False):
        super().__init__()
        self.truncation = nn.Identity() if truncation is None else Truncation(truncation)
        self.generator = bake_spectral_norm(copy.deepcopy(generator).eval()).requires_grad_(False)
        self.uint8 = uint8
        _make_plain(self.generator)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        x = self.generator(self.truncation(z), y)
        return x.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8) if self.uint8 else x


class PlainAttention(nn.Module):
    """A self-attention layer that computes softmax(q k^T) v as it is written."""

    def __init__(self, layer: SelfAttention2d):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.layer.project(x)
        o = torch.softmax(q @ k.transpose(1, 2), dim=-1) @ v  # (N, H·W, E)
        o = self.layer.output(o.transpose(1, 2).unflatten(2, x.shape[2:]))
        return torch.addcmul(x, self.layer.gamma, o)


class PlainUpConv(nn.Module):
    """A convolution after nearest-neighbour upsampling, in plain form: smaller, and as quick where graphs are run."""

    def __init__(self, layer: UpConv2d):
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(upsample(x), self.weight, self.bias, padding=1)


def _make_plain(network: nn.Module) -> None:
    for name, layer in network.named_children():
        if isinstance(layer, SelfAttention2d):
            setattr(network, name, PlainAttention(layer))
        elif isinstance(layer, UpConv2d):
            setattr(network, name, PlainUpConv(layer))
        else:
            _make_plain(layer)

"""Import heykeetae's Self-Attention-GAN for 64 px: N_G.pth and N_D.pth.

Its networks are not residual (architecture 'dcgan' in our configuration). Its spectral norm stores weight_bar,
weight_u and weight_v, iterates in evaluation mode too, and views a transposed convolution's weight (in, out, h, w) as
a matrix of `in` rows. The attention layers have no spectral norm and are numbered in order.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from sagan.errors import UserError
from sagan.importers import torch_layers
from sagan.importers.base import Codebase, ConvertedNetwork, Layer, check_dimensions
from sagan.importers.folding import fold_spectral_norm
from sagan.importers.state_dict import StateDict

SPECTRAL_NORM_EPS = 1e-12
BLOCKS = 4  # l1 to l4
# Sides of the feature maps that attn1 and attn2 read, px: the outputs of l3 and l4.
ATTENTION_SIZES = {"generator": (16, 32), "discriminator": (8, 4)}


class Heykeetae(Codebase):
    """github.com/heykeetae/Self-Attention-GAN."""

    name = "heykeetae"
    assumed_fields: ClassVar[Mapping[str, Any]] = {"batch_norm_eps": 1e-5}

    def recognise(self, keys: set[str]) -> bool:
        return "attn1.query_conv.weight" in keys and not keys.isdisjoint({"l1.0.module.weight_bar", "l1.0.weight"})

    def is_generator(self, keys: set[str]) -> bool:
        return "l1.1.running_mean" in keys

    def generator(self, state: StateDict) -> ConvertedNetwork:
        layers: dict[str, tuple[str, Layer]] = {}  # our name: (their key, tensors)
        for i in range(BLOCKS):
            ours = "stem" if i == 0 else f"blocks.{i - 1}"
            theirs = f"l{i + 1}"
            layers[f"{ours}.conv"] = (f"{theirs}.0", _conv(state, f"{theirs}.0"))
            layers[f"{ours}.bn"] = (f"{theirs}.1", torch_layers.batch_norm(state, f"{theirs}.1"))
        layers["head"] = ("last.0", torch_layers.layer(state, "last.0"))
        convs = [_checked(state, *layers[name]) for name in layers if name.endswith(".conv")]
        fields = {
            "latent_dim": convs[0].shape[0],
            "base_channels": convs[-1].shape[1],
            "generator_widths": tuple(w.shape[1] for w in convs),
            "image_channels": _checked(state, *layers["head"]).shape[1],
        }
        return _convert(state, layers, "generator", fields)

    def discriminator(self, state: StateDict) -> ConvertedNetwork:
        layers: dict[str, tuple[str, Layer]] = {}
        for i in range(BLOCKS):
            layers[f"blocks.{i}.conv"] = (f"l{i + 1}.0", _conv(state, f"l{i + 1}.0"))
        last = torch_layers.layer(state, "last.0")  # a 4 x 4 convolution of 4 x 4 pixels equals a matrix of one row
        if "bias" not in last:
            raise UserError(f"{state.path} lacks last.0.bias, which this network needs: the file is incomplete")
        layers["head"] = ("last.0", {"weight": _checked(state, "last.0", last).flatten(1), "bias": last["bias"]})
        convs = [_checked(state, *layers[f"blocks.{i}.conv"]) for i in range(BLOCKS)]
        fields = {
            "discriminator_widths": tuple(len(w) for w in convs),
            "image_channels": convs[0].shape[1],
        }
        return _convert(state, layers, "discriminator", fields)


def _checked(state: StateDict, key: str, layer: Layer) -> Tensor:
    """Return the weight of a convolution. Raises UserError if it does not have four dimensions."""
    return check_dimensions(layer["weight"], 4, state.path, key)


def _conv(state: StateDict, key: str) -> Layer:
    """Convert a convolution with spectral norm or, as their README recommends for WGAN-GP, without it."""
    if f"{key}.weight" in state:
        return torch_layers.layer(state, key)
    inner = f"{key}.module"
    state.ignore(f"{inner}.weight_v")  # their code recomputes it before each use
    weight, u = state.take(f"{inner}.weight_bar"), state.take(f"{inner}.weight_u")
    folded = fold_spectral_norm(state, key, weight, u, eps=SPECTRAL_NORM_EPS)
    return {**folded, "bias": state.take(f"{inner}.bias")}


def _convert(
    state: StateDict,
    layers: dict[str, tuple[str, Layer]],
    network: Literal["generator", "discriminator"],
    fields: dict[str, Any],
) -> ConvertedNetwork:
    """Add the two attention layers to `layers`, and return the network of all of them."""
    tensors: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    normalised: set[str] = set()
    for number, size in enumerate(ATTENTION_SIZES[network], 1):
        ours, theirs = f"attention.{size}.0", f"attn{number}"
        for name in ("query", "key", "value"):
            conv = f"{theirs}.{name}_conv"
            layers[f"{ours}.{name}"] = (conv, torch_layers.layer(state, conv))
        layers[ours] = (f"{theirs}.gamma", {"gamma": state.take_scalar(f"{theirs}.gamma")})
    for ours, (theirs, layer) in layers.items():
        for name, t in layer.items():
            if name == "sn":
                normalised.add(f"{ours}.sn")
                continue
            tensors[f"{ours}.{name}"] = t.clone(memory_format=torch.contiguous_format)
            origin[f"{ours}.{name}"] = theirs
    state.check_all_taken()
    common_fields = {
        **Heykeetae.assumed_fields,
        "architecture": "dcgan",
        "attention_variant": "direct",
        "resolution": 4 * 2**BLOCKS,
        "num_classes": 0,
        f"{network}_spectral_norm": bool(normalised),
        f"{network}_attention": tuple((size, "self") for size in ATTENTION_SIZES[network]),
    }
    return ConvertedNetwork(tensors, origin, normalised, fields | common_fields)

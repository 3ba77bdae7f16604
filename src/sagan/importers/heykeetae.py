"""heykeetae's Self-Attention-GAN for 64 pixels: N_G.pth and N_D.pth.

Its networks are no residual ones (architecture 'dcgan' of our configuration). Its spectral norm keeps weight_bar,
weight_u and weight_v, iterates in evaluation too, and takes a transposed convolution's weight (in, out, h, w) as a
matrix of `in` rows. The attention layers carry no spectral norm, and are numbered, not named by their place.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from sagan.importers import torch_layers
from sagan.importers.base import Codebase, Layer, Part
from sagan.importers.state_dict import State

BLOCKS = 4  # l1 to l4
# Sides of the feature maps that attn1 and attn2 follow: those of l3 and l4.
ATTENTION = {"generator": (16, 32), "discriminator": (8, 4)}


class Heykeetae(Codebase):
    """github.com/heykeetae/Self-Attention-GAN."""

    name = "heykeetae"
    assumed: ClassVar[Mapping[str, Any]] = {"batch_norm_eps": 1e-5, "spectral_norm_eps": 1e-12}

    def recognise(self, keys: set[str]) -> bool:
        return "attn1.query_conv.weight" in keys and not keys.isdisjoint({"l1.0.module.weight_bar", "l1.0.weight"})

    def is_generator(self, keys: set[str]) -> bool:
        return "l1.1.running_mean" in keys

    def generator(self, state: State) -> Part:
        layers: dict[str, tuple[str, Layer]] = {}  # ours: (theirs, its tensors)
        for i in range(BLOCKS):
            ours, theirs = "stem" if i == 0 else f"blocks.{i - 1}", f"l{i + 1}"
            layers[f"{ours}.conv"] = (f"{theirs}.0", _conv(state, f"{theirs}.0"))
            layers[f"{ours}.norm"] = (f"{theirs}.1", torch_layers.norm(state, f"{theirs}.1"))
        layers["head"] = ("last.0", torch_layers.layer(state, "last.0"))
        convs = [layers[name][1]["weight"] for name in layers if name.endswith(".conv")]
        fields = {
            "latent_dim": convs[0].shape[0],
            "base_channels": convs[-1].shape[1],
            "generator_widths": tuple(w.shape[1] for w in convs),
            "image_channels": layers["head"][1]["weight"].shape[1],
        }
        return _part(state, layers, "generator", fields)

    def discriminator(self, state: State) -> Part:
        layers: dict[str, tuple[str, Layer]] = {}
        for i in range(BLOCKS):
            layers[f"blocks.{i}.conv"] = (f"l{i + 1}.0", _conv(state, f"l{i + 1}.0"))
        last = torch_layers.layer(state, "last.0")  # a 4x4 convolution of 4x4 pixels: a matrix of one row
        layers["head"] = ("last.0", {"weight": last["weight"].flatten(1), "bias": last["bias"]})
        convs = [layers[f"blocks.{i}.conv"][1]["weight"] for i in range(BLOCKS)]
        fields = {
            "discriminator_widths": tuple(len(w) for w in convs),
            "image_channels": convs[0].shape[1],
        }
        return _part(state, layers, "discriminator", fields)


def _conv(state: State, key: str) -> Layer:
    """A convolution with spectral norm or, as their README wants it for WGAN-GP, without."""
    if f"{key}.weight" in state:
        return torch_layers.layer(state, key)
    inner = f"{key}.module"
    state.ignore(f"{inner}.weight_v")  # computed anew before it is used
    bias = {"bias": state.take(f"{inner}.bias")}
    return {"weight": state.take(f"{inner}.weight_bar"), "norm.u": state.take(f"{inner}.weight_u")} | bias


def _part(
    state: State,
    layers: dict[str, tuple[str, Layer]],
    network: Literal["generator", "discriminator"],
    fields: dict[str, Any],
) -> Part:
    """A network of these layers and its two attention layers."""
    tensors: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    for number, size in enumerate(ATTENTION[network], 1):
        ours, theirs = f"attention.{size}.0", f"attn{number}"
        for name in ("query", "key", "value"):
            layers[f"{ours}.{name}"] = (f"{theirs}.{name}_conv", torch_layers.layer(state, f"{theirs}.{name}_conv"))
        layers[ours] = (f"{theirs}.gamma", {"gamma": state.take(f"{theirs}.gamma").reshape(())})
    for ours, (theirs, layer) in layers.items():
        for name, t in layer.items():
            tensors[f"{ours}.{name}"] = t.clone(memory_format=torch.contiguous_format)
            origin[f"{ours}.{name}"] = theirs
    state.finish()
    told = {
        "architecture": "dcgan",
        "attention_variant": "direct",
        "resolution": 4 << BLOCKS,
        "num_classes": 0,
        f"{network}_spectral_norm": any(name.endswith(".norm.u") for name in tensors),
        f"{network}_attention": tuple((size, "self") for size in ATTENTION[network]),
    }
    return Part(tensors, origin, fields | told)

"""Layers and norms as PyTorch itself stores them: weight_orig, weight_u and weight_v; running_mean and running_var.

torch.nn.utils.spectral_norm divides, in evaluation mode, by u'Wv of the two stored vectors; so both are kept
(`spectral_norm_in_evaluation` 'stored').
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sagan.importers.base import Kind, Layer, ResidualCodebase
from sagan.importers.state_dict import State

STORED: dict[str, Any] = {"spectral_norm_in_evaluation": "stored"}


class TorchCodebase(ResidualCodebase):
    """A codebase that leaves layers and norms as PyTorch stores them."""

    def layer(self, state: State, key: str) -> Layer:
        return layer(state, key)

    def norm(self, state: State, key: str) -> Layer:
        return norm(state, key)


def layer(state: State, key: str) -> dict[str, Tensor]:
    """A convolution, linear layer or embedding, with spectral norm or without."""
    if f"{key}.weight_orig" in state:
        found = {
            "weight": state.take(f"{key}.weight_orig"),
            "norm.u": state.take(f"{key}.weight_u"),
            "norm.v": state.take(f"{key}.weight_v"),
        }
    else:
        found = {"weight": state.take(f"{key}.weight")}
    if f"{key}.bias" in state:
        found["bias"] = state.take(f"{key}.bias")
    return found


def statistics(state: State, key: str) -> dict[str, Tensor]:
    """Mean and variance of a batch norm."""
    state.ignore(f"{key}.num_batches_tracked")
    return {name: state.take(f"{key}.{name}") for name in ("running_mean", "running_var")}


def norm(state: State, key: str) -> dict[str, Tensor]:
    """A batch norm without classes."""
    return {"scale": state.take(f"{key}.weight"), "shift": state.take(f"{key}.bias")} | statistics(state, key)


def class_tables(state: State, keys: Mapping[str, str], *, transposed: bool = False) -> dict[str, Tensor]:
    """A conditional norm's 'scale' (stored less 1) and 'shift', (num_classes, C), or `transposed`, from their keys.

    Spectrally normalised tables keep their vectors, and the 1 is added after the norm.
    """
    found: dict[str, Tensor] = {}
    for ours, key in keys.items():
        table = layer(state, key)
        if transposed:
            table["weight"] = table["weight"].T
        if "norm.u" in table:
            inner = "norm.transposed" if transposed else "norm"
            found |= {f"{ours}.{name.replace('norm', inner)}": t for name, t in table.items()}
        else:
            found[ours] = table["weight"] + (ours == "scale")
    return found


def in_a_row(state: State, place: str, attention: str) -> list[tuple[Kind, str]]:
    """The stack of a codebase that numbers blocks and attention layers in one row: `place` with {} for the number.

    `attention` matches what follows in the key of an attention layer's tensor.
    """
    first, last = map(re.escape, place.split("{}"))
    layers = state.numbers(rf"{first}(\d+){last}\.{attention}")
    count = 1 + max(state.numbers(rf"{first}(\d+)\..+"), default=-1)
    return [("attention" if i in layers else "block", place.format(i)) for i in range(count)]

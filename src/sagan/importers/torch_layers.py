"""Convert layers and norms as PyTorch itself stores them: weight_orig, weight_u, weight_v; running_mean, running_var.

In evaluation mode torch.nn.utils.spectral_norm divides by u'Wv of the two stored vectors.
"""

import re
from collections.abc import Mapping

from torch import Tensor

from sagan.importers.base import Kind, Layer, ResidualCodebase, check_dimensions
from sagan.importers.folding import fold_spectral_norm
from sagan.importers.state_dict import StateDict


class TorchCodebase(ResidualCodebase):
    """A codebase that stores layers and norms as PyTorch does."""

    def layer(self, state: StateDict, key: str) -> Layer:
        return layer(state, key)

    def batch_norm(self, state: StateDict, key: str) -> Layer:
        return batch_norm(state, key)


def layer(state: StateDict, key: str) -> dict[str, Tensor]:
    """Convert a convolution, linear layer or embedding, with or without spectral norm."""
    if f"{key}.weight_orig" in state:
        weight = state.take(f"{key}.weight_orig")
        u, v = state.take(f"{key}.weight_u", 1), state.take(f"{key}.weight_v", 1)
        tensors = fold_spectral_norm(state, key, weight, u, v)
    else:
        tensors = {"weight": state.take(f"{key}.weight")}
    if f"{key}.bias" in state:
        tensors["bias"] = state.take(f"{key}.bias")
    return tensors


def running_statistics(state: StateDict, key: str) -> dict[str, Tensor]:
    """Convert the running mean and variance of a batch norm."""
    state.ignore(f"{key}.num_batches_tracked")
    return {name: state.take(f"{key}.{name}", 1) for name in ("running_mean", "running_var")}


def batch_norm(state: StateDict, key: str) -> dict[str, Tensor]:
    """Convert a batch norm without classes."""
    affine = {"scale": state.take(f"{key}.weight"), "shift": state.take(f"{key}.bias")}
    return affine | running_statistics(state, key)


def class_tables(state: StateDict, keys: Mapping[str, str], *, transposed: bool = False) -> dict[str, Tensor]:
    """Convert the tables of a conditional batch norm, with or without spectral norm: 'scale' (stored less 1), 'shift'.

    Args:
        keys: the file's key of 'scale' and of 'shift'.
        transposed: the tables are stored as (C, num_classes), otherwise as (num_classes, C).
    """
    tensors: dict[str, Tensor] = {}
    for ours, key in keys.items():
        table = layer(state, key)
        rows = check_dimensions(table["weight"], 2, state.path, key)
        if transposed:
            rows = rows.T
        tensors[ours] = rows + 1 if ours == "scale" else rows
        if "sn" in table:
            tensors[f"{ours}_sn"] = table["sn"]
    return tensors


def numbered_stack(state: StateDict, template: str, attention: str) -> list[tuple[Kind, str]]:
    """Return the stack of a codebase that numbers blocks and attention layers in one sequence.

    Args:
        template: the key of a block or attention layer, with {} for its number.
        attention: matches the rest of the key of an attention layer's tensor.
    """
    prefix, suffix = map(re.escape, template.split("{}"))
    attention_numbers = state.numbers(rf"{prefix}(\d+){suffix}\.{attention}")
    count = 1 + max(state.numbers(rf"{prefix}(\d+)\..+"), default=-1)
    return [("attention" if i in attention_numbers else "block", template.format(i)) for i in range(count)]

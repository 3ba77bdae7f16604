"""Layers and norms as PyTorch itself stores them: weight_orig, weight_u and weight_v; running_mean and running_var.

torch.nn.utils.spectral_norm divides, in evaluation mode, by u'Wv of the two stored vectors; so both are kept
(`spectral_norm_in_evaluation` 'stored').
"""

from typing import Any

from torch import Tensor

from sagan.interop.state import State

STORED: dict[str, Any] = {"spectral_norm_in_evaluation": "stored"}


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


def normed_table(ours: str, table: dict[str, Tensor], inner: str) -> dict[str, Tensor]:
    """A spectrally normalised table (num_classes, C) under our names; `inner` leads to its norm's vectors."""
    return {f"{ours}.{name.replace('norm', inner)}": t for name, t in table.items()}

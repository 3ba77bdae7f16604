"""BigGAN-PyTorch in its SAGAN configuration (scripts/launch_SAGAN_bs128x2_ema.sh): G.pth, G_ema.pth and D.pth.

Spectral norm keeps u0, (1, out), and sv0, which is for its log. The class tables hold the scales less 1. Batch norms
keep stored_mean and stored_var, with --mybn and --cross_replica one level deeper; standing statistics are sums.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from sagan.errors import UserError
from sagan.importers.base import NON_LOCAL, Kind, Layer, ResidualCodebase
from sagan.importers.state_dict import State


class BigGANPyTorch(ResidualCodebase):
    """github.com/ajbrock/BigGAN-PyTorch."""

    name = "biggan-pytorch"
    generator_stem = "linear"
    generator_names: ClassVar[Mapping[str, str]] = {
        "norm1": "bn1",
        "conv1": "conv1",
        "norm2": "bn2",
        "conv2": "conv2",
        "shortcut": "conv_sc",
    }
    discriminator_names = generator_names
    attention_names: ClassVar[Mapping[str, str]] = NON_LOCAL
    discriminator_embed = "embed"
    assumed: ClassVar[Mapping[str, Any]] = {"batch_norm_eps": 1e-5, "spectral_norm_eps": 1e-8}

    def recognise(self, keys: set[str]) -> bool:
        return "blocks.0.0.conv1.weight" in keys and "linear.weight" in keys

    def is_generator(self, keys: set[str]) -> bool:
        return any(key.startswith("output_layer.") for key in keys)

    def refuse(self, state: State) -> None:
        if "shared.weight" in state:
            raise UserError(f"{state.path} is a BigGAN, no SAGAN: its classes go through shared.weight (--G_shared)")
        if any(key.endswith(".u1") for key in state.tensors):
            raise UserError(f"{state.path} normalises by several singular values (--num_G_SVs): only one is known here")

    def layer(self, state: State, key: str) -> Layer:
        found = {"weight": state.take(f"{key}.weight")}
        if f"{key}.bias" in state:
            found["bias"] = state.take(f"{key}.bias")
        if f"{key}.u0" in state or f"{key}.sv0" in state:
            found["norm.u"] = state.take(f"{key}.u0")[0]
            state.ignore(f"{key}.sv0")
        return found

    def norm(self, state: State, key: str) -> Layer:
        affine = {"scale": state.take(f"{key}.gain"), "shift": state.take(f"{key}.bias")}
        return affine | _statistics(state, key)

    def class_norm(self, state: State, key: str) -> Layer:
        gain, bias = state.take(f"{key}.gain.weight"), state.take(f"{key}.bias.weight")
        return {"scale": 1 + gain, "shift": bias} | _statistics(state, key)

    def generator_stack(self, state: State) -> list[tuple[Kind, str]]:
        return _stack(state)

    def generator_end(self, state: State, blocks: int) -> tuple[str, str]:
        return "output_layer.0", "output_layer.2"

    def discriminator_end(self, blocks: int) -> str:
        return "linear"


def _stack(state: State) -> list[tuple[Kind, str]]:
    """blocks.I.0 are blocks, blocks.I.1 the attention after them."""
    stack: list[tuple[Kind, str]] = []
    for i in range(1 + max(state.numbers(r"blocks\.(\d+)\..+"), default=-1)):
        stack.append(("block", f"blocks.{i}.0"))
        if state.numbers(rf"blocks\.{i}\.(1)\..+"):
            stack.append(("attention", f"blocks.{i}.1"))
    return stack


def _statistics(state: State, key: str) -> dict[str, Tensor]:
    """Mean and variance of a batch norm, wherever its kind keeps them."""
    if f"{key}.bn.running_mean" in state:  # --cross_replica
        state.ignore(f"{key}.bn.num_batches_tracked")
        return {name: state.take(f"{key}.bn.{name}") for name in ("running_mean", "running_var")}
    inner = f"{key}.bn" if f"{key}.bn.stored_mean" in state else key  # --mybn
    mean, var = state.take(f"{inner}.stored_mean"), state.take(f"{inner}.stored_var")
    if f"{inner}.accumulation_counter" in state:
        # Once standing statistics are asked for, the sums are kept, and divided by the counter in use.
        mean, var = (t / state.take(f"{inner}.accumulation_counter").clamp_min(1) for t in (mean, var))
    return {"running_mean": mean, "running_var": var}

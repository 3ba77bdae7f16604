"""Import BigGAN-PyTorch in its SAGAN configuration (scripts/launch_SAGAN_bs128x2_ema.sh): G.pth, G_ema.pth, D.pth.

Spectral norm stores u0 (1, out), from which evaluation mode iterates once more, and sv0, which is only logged. Class
tables hold the scales less 1. Batch norms store stored_mean and stored_var, one level deeper with --mybn and
--cross_replica. Standing statistics are sums.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor

from sagan.errors import UserError
from sagan.importers.base import NON_LOCAL_NAMES, ConvertedNetwork, Kind, Layer, ResidualCodebase
from sagan.importers.folding import fold_spectral_norm
from sagan.importers.state_dict import StateDict

OUTPUT_NORM_EPS = 1e-5
CROSS_REPLICA = (
    "--cross_replica: class gains are factors, as in its training on several GPUs; its own evaluation mode adds them, "
    "which gives other images (docs/import.md)"
)
STANDING = (
    "--mybn: the batch norms count {count} batches, so they are read as sums (--accumulate_stats); if training went on "
    "after that, they hold running averages: import with --standing-statistics False"
)


class BigGANPyTorch(ResidualCodebase):
    """github.com/ajbrock/BigGAN-PyTorch."""

    name = "biggan-pytorch"
    generator_stem = "linear"
    generator_names: ClassVar[Mapping[str, str]] = {
        "bn1": "bn1",
        "conv1": "conv1",
        "bn2": "bn2",
        "conv2": "conv2",
        "shortcut": "conv_sc",
    }
    discriminator_names = generator_names
    attention_names: ClassVar[Mapping[str, str]] = NON_LOCAL_NAMES
    discriminator_embed = "embed"
    assumed_fields: ClassVar[Mapping[str, Any]] = {"batch_norm_eps": 1e-5}

    def recognise(self, keys: set[str]) -> bool:
        return "blocks.0.0.conv1.weight" in keys and "linear.weight" in keys

    def is_generator(self, keys: set[str]) -> bool:
        return any(key.startswith("output_layer.") for key in keys)

    def check_supported(self, state: StateDict) -> None:
        if "shared.weight" in state:
            raise UserError(
                f"{state.path} is a BigGAN, not a SAGAN: its class embedding is shared (shared.weight, --G_shared)"
            )
        if any(key.endswith(".u1") for key in state.tensors):
            raise UserError(f"{state.path} normalises by several singular values (--num_G_SVs): only one is supported")

    def generator(self, state: StateDict) -> ConvertedNetwork:
        converted = super().generator(state)
        # --BN_eps does not reach the batch norm of the output layer.
        return replace(converted, fields=converted.fields | {"output_norm_eps": OUTPUT_NORM_EPS})

    def layer(self, state: StateDict, key: str) -> Layer:
        tensors = {"weight": state.take(f"{key}.weight")}
        if f"{key}.bias" in state:
            tensors["bias"] = state.take(f"{key}.bias")
        if f"{key}.u0" in state or f"{key}.sv0" in state:
            tensors |= fold_spectral_norm(state, key, tensors["weight"], state.take_row(f"{key}.u0"))
            state.ignore(f"{key}.sv0")
        return tensors

    def batch_norm(self, state: StateDict, key: str) -> Layer:
        affine = {"scale": state.take(f"{key}.gain"), "shift": state.take(f"{key}.bias")}
        return affine | _running_statistics(state, key)

    def class_batch_norm(self, state: StateDict, key: str) -> Layer:
        gain, bias = state.take(f"{key}.gain.weight", 2), state.take(f"{key}.bias.weight", 2)
        return {"scale": 1 + gain, "shift": bias} | _running_statistics(state, key)

    def generator_stack(self, state: StateDict) -> list[tuple[Kind, str]]:
        return _stack(state)

    def generator_end(self, state: StateDict, blocks: int) -> tuple[str, str]:
        return "output_layer.0", "output_layer.2"

    def discriminator_end(self, blocks: int) -> str:
        return "linear"


def _stack(state: StateDict) -> list[tuple[Kind, str]]:
    """Return the stack: blocks.I.0 is a block, blocks.I.1 the attention layer after it, if there is one."""
    stack: list[tuple[Kind, str]] = []
    for i in range(1 + max(state.numbers(r"blocks\.(\d+)\..+"), default=-1)):
        stack.append(("block", f"blocks.{i}.0"))
        if state.numbers(rf"blocks\.{i}\.(1)\..+"):
            stack.append(("attention", f"blocks.{i}.1"))
    return stack


def _running_statistics(state: StateDict, key: str) -> dict[str, Tensor]:
    """Convert the running mean and variance of a batch norm from where its kind stores them."""
    if f"{key}.bn.running_mean" in state:  # --cross_replica
        state.ignore(f"{key}.bn.num_batches_tracked")
        state.note(CROSS_REPLICA)
        return {name: state.take(f"{key}.bn.{name}") for name in ("running_mean", "running_var")}
    inner = f"{key}.bn" if f"{key}.bn.stored_mean" in state else key  # --mybn
    mean = state.take(f"{inner}.stored_mean")
    var = state.take(f"{inner}.stored_var")
    count = state.take_scalar(f"{inner}.accumulation_counter") if f"{inner}.accumulation_counter" in state else None
    if count is not None and _are_sums(state, count.item(), f"{inner}.accumulation_counter"):
        mean = mean / count
        var = var / count
    return {"running_mean": mean, "running_var": var}


def _are_sums(state: StateDict, count: float, key: str) -> bool:
    """Return whether a batch norm of --mybn holds sums over `count` batches rather than running averages.

    --accumulate_stats stores sums, which their code divides by the counter at each use. Training that is resumed from
    such a file stores running averages and leaves the counter as it was: the file does not tell the two apart.

    Raises:
        UserError: the counter contradicts `state.standing_statistics`, or decides nothing without it.
    """
    if state.standing_statistics is False or count == 0:
        if state.standing_statistics:
            raise UserError(f"--standing-statistics True: {key} in {state.path} is 0, so it holds running averages")
        return False
    if count < 0 or count != round(count):  # such as the moving average of a counter
        if state.standing_statistics is None:
            raise UserError(
                f"{key} in {state.path} is {count:g}, not a number of batches: pass --standing-statistics False if its "
                "batch norms hold running averages, True if they hold sums (--accumulate_stats)"
            )
        if count < 0:
            raise UserError(f"--standing-statistics True: {key} in {state.path} is {count:g}, not a number of batches")
    if state.standing_statistics is None:
        state.note(STANDING.format(count=f"{count:g}"))
    return True

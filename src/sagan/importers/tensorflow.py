"""Import the released code's networks (brain-research/self-attention-gan, TensorFlow 1): its variables in a .npz file.

Generator and discriminator are both under model/. Convolutions are (height, width, in, out), matrices (in, out).
docs/import.md says how to make the .npz file from a checkpoint.
"""

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from sagan.errors import UserError
from sagan.importers.base import Kind, Layer, ResidualCodebase
from sagan.importers.folding import fold_spectral_norm
from sagan.importers.state_dict import StateDict, select_tensors

SPECTRAL_NORM_EPS = 1e-12
OPTIMISER = re.compile(  # variables that the networks do not need
    r".*/(Adam|Adam_1|ExponentialMovingAverage)|.*beta[12]_power|.*global_step|.*_step"
)


class TensorFlow(ResidualCodebase):
    """github.com/brain-research/self-attention-gan."""

    name = "tensorflow"
    generator_stem = "model/g_snh0"
    generator_names: ClassVar[Mapping[str, str]] = {
        "bn1": "cbn_0",
        "conv1": "snconv1",
        "bn2": "cbn_1",
        "conv2": "snconv2",
        "shortcut": "snconv3",
    }
    discriminator_names: ClassVar[Mapping[str, str]] = {
        "conv1": "sn_conv1",
        "conv2": "sn_conv2",
        "shortcut": "sn_conv3",
    }
    attention_names: ClassVar[Mapping[str, str]] = {
        "query": "sn_conv_theta",
        "key": "sn_conv_phi",
        "value": "sn_conv_g",
        "output": "sn_conv_attn",
        "gamma": "sigma_ratio",
    }
    discriminator_embed = "model/d_embedding"
    assumed_fields: ClassVar[Mapping[str, Any]] = {"batch_norm_eps": 1e-5}
    stem_order = "channels last"
    separator = "/"

    def recognise(self, keys: set[str]) -> bool:
        return any(key.startswith(("model/g_snh0/Matrix", "model/d_sn_linear/Matrix")) for key in keys)

    def is_generator(self, keys: set[str]) -> bool:
        return any(key.startswith("model/g_snh0/") for key in keys)

    def split(self, checkpoint: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
        networks: dict[str, dict[str, Tensor]] = {"generator": {}, "discriminator": {}}
        for name, t in select_tensors(checkpoint).items():
            key = name.removesuffix(":0")
            if not OPTIMISER.fullmatch(key):
                networks["discriminator" if key.startswith("model/d_") else "generator"][key] = t
        return {network: tensors for network, tensors in networks.items() if tensors}

    def layer(self, state: StateDict, key: str) -> Layer:
        if f"{key}/embedding_map" in state:
            tensors = {"weight": state.take(f"{key}/embedding_map", 2)}
        elif f"{key}/Matrix" in state:
            tensors = {"weight": state.take(f"{key}/Matrix", 2).T, "bias": state.take(f"{key}/bias")}
        else:
            tensors = {"weight": state.take(f"{key}/w", 4).permute(3, 2, 0, 1)}
            if f"{key}/biases" in state:
                tensors["bias"] = state.take(f"{key}/biases")
        u = state.take_row(f"{key}/u")
        return tensors | fold_spectral_norm(state, key, tensors["weight"], u, eps=SPECTRAL_NORM_EPS)

    def batch_norm(self, state: StateDict, key: str) -> Layer:
        return _batch_norm(state, key, "moving_mean", "moving_variance")

    def class_batch_norm(self, state: StateDict, key: str) -> Layer:
        return _batch_norm(state, key, "mean", "var")

    def generator_stack(self, state: StateDict) -> list[tuple[Kind, str]]:
        last = max(state.numbers(r"model/g_block(\d+)/.+"), default=0)
        return _stack(state, [f"model/g_block{i}" for i in range(1, last + 1)], "model/g_non_local", "snconv2")

    def discriminator_stack(self, state: StateDict) -> list[tuple[Kind, str]]:
        last = max(state.numbers(r"model/d_block(\d+)/.+"), default=1)
        blocks = ["model/d_optimized_block1", *(f"model/d_block{i}" for i in range(2, last + 1))]
        return _stack(state, blocks, "model/d_non_local", "sn_conv2")

    def generator_end(self, state: StateDict, blocks: int) -> tuple[str, str]:
        return "model/g_bn", "model/g_snconv_last"

    def discriminator_end(self, blocks: int) -> str:
        return "model/d_sn_linear"


def _batch_norm(state: StateDict, key: str, mean: str, var: str) -> dict[str, Tensor]:
    return {
        "scale": state.take(f"{key}/gamma"),
        "shift": state.take(f"{key}/beta"),
        "running_mean": state.take(f"{key}/{mean}").flatten(),
        "running_var": state.take(f"{key}/{var}").flatten(),
    }


def _stack(state: StateDict, blocks: list[str], attention: str, conv: str) -> list[tuple[Kind, str]]:
    """Return the stack; the attention layer, whose name is unnumbered, follows the block with the same channels."""
    stack: list[tuple[Kind, str]] = [("block", key) for key in blocks]
    theta = state.tensors.get(f"{attention}/sn_conv_theta/w")
    if theta is not None:
        kernels = [state.tensors[f"{key}/{conv}/w"] for key in blocks if f"{key}/{conv}/w" in state]
        if any(w.dim() != 4 for w in (theta, *kernels)):
            raise UserError(
                f"{state.path} is not a supported SAGAN: the kernels of {attention} or of a block are not 4-D"
            )
        widths = [w.shape[3] for w in kernels]
        if theta.shape[2] not in widths:
            raise UserError(
                f"{state.path} has an attention layer of {theta.shape[2]} channels, but no block of that width"
            )
        stack.insert(widths.index(theta.shape[2]) + 1, ("attention", attention))
    return stack

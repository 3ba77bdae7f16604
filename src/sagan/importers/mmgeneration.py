"""mmgeneration's SAGANGenerator and ProjDiscriminator, in one file: generator., generator_ema. and discriminator.

Not in the tensors are the batch norms' epsilon, whether ReLUs work in place, and whether 1 is added to the class
scales; they are read from the configuration that mmgeneration keeps in the file, or else taken as its defaults.
"""

import ast
from collections.abc import Mapping
from typing import Any, ClassVar

from sagan.errors import UserError
from sagan.importers import torch_layers
from sagan.importers.base import Kind, Layer
from sagan.importers.state_dict import State, tensors_of

NETWORKS = {"generator": "generator.", "average": "generator_ema.", "discriminator": "discriminator."}


class MMGeneration(torch_layers.TorchCodebase):
    """github.com/open-mmlab/mmgeneration."""

    name = "mmgeneration"
    generator_stem = "noise2feat"
    generator_names: ClassVar[Mapping[str, str]] = {
        "norm1": "norm_1",
        "conv1": "conv_1.conv",
        "norm2": "norm_2",
        "conv2": "conv_2.conv",
        "shortcut": "shortcut.conv",
    }
    discriminator_names = generator_names
    attention_names: ClassVar[Mapping[str, str]] = {
        "query": "theta.conv",
        "key": "phi.conv",
        "value": "g.conv",
        "output": "o.conv",
        "gamma": "gamma",
    }
    discriminator_embed = "proj_y"
    assumed: ClassVar[Mapping[str, Any]] = {
        "batch_norm_eps": 1e-4,
        "spectral_norm_eps": 1e-12,
        "shortcut": "plain",
        **torch_layers.STORED,
    }

    def recognise(self, keys: set[str]) -> bool:
        return any(
            key.startswith((f"{prefix}noise2feat.", f"{prefix}from_rgb.conv_1.conv."))
            for key in keys
            for prefix in ("", *NETWORKS.values())
        )

    def is_generator(self, keys: set[str]) -> bool:
        return any(key.startswith("noise2feat.") for key in keys)

    def split(self, found: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
        tensors = tensors_of(found)
        parts = {
            network: {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
            for network, prefix in NETWORKS.items()
        }
        return {network: part for network, part in parts.items() if part}

    def facts(self, found: Mapping[str, Any]) -> dict[str, Any]:
        meta = found.get("meta")
        text = meta.get("config") if isinstance(meta, Mapping) else None
        model = model_of(text) if isinstance(text, str) else None
        if not isinstance(model, dict):
            return {}
        generator, discriminator = (model.get(name) or {} for name in ("generator", "discriminator"))
        for network in (generator, discriminator):
            act = (network.get("act_cfg") or {}).get("type", "ReLU")
            other = sorted(network.keys() & {"blocks_cfg", "from_rgb_cfg", "downsample_cfg"})
            if act != "ReLU" or other:
                what = f"activation {act}" if act != "ReLU" else other[0]
                raise UserError(f"mmgeneration's configuration in the file has {what}: not covered")
        kind = str((generator.get("init_cfg") or {}).get("type", "BigGAN")).upper()
        if kind not in ("BIGGAN", "STUDIO"):
            raise UserError(f"init_cfg {kind} of mmgeneration's configuration adds no 1 to class scales: not covered")
        inplace = bool((discriminator.get("act_cfg") or {}).get("inplace", False))
        return {
            "batch_norm_eps": float(generator.get("norm_eps", 1e-4)),
            "spectral_norm_eps": float(generator.get("sn_eps", 1e-12)),
            "shortcut": "rectified" if inplace else "plain",
        }

    def halvings(self, blocks: int) -> int:
        return {4: 2, 5: 5}.get(blocks, blocks - 1)  # at 64 pixels down to 2 x 2

    def class_norm(self, state: State, key: str) -> Layer:
        tables = {"scale": f"{key}.weight_embedding", "shift": f"{key}.bias_embedding"}
        return torch_layers.statistics(state, f"{key}.norm") | torch_layers.class_tables(state, tables)

    def generator_stack(self, state: State) -> list[tuple[Kind, str]]:
        return _stack(state)

    def discriminator_stack(self, state: State) -> list[tuple[Kind, str]]:
        return [("block", "from_rgb"), *_stack(state)]

    def generator_end(self, state: State, blocks: int) -> tuple[str, str]:
        return "to_rgb.bn", "to_rgb.conv"

    def discriminator_end(self, blocks: int) -> str:
        return "decision"


def _stack(state: State) -> list[tuple[Kind, str]]:
    return torch_layers.in_a_row(state, "conv_blocks.{}", r"(?:gamma|theta|phi|g|o)\b.*")


def model_of(text: str) -> Any:
    """What the assignment `model = dict(...)` of a configuration file says: read, not run; None if it has none."""
    try:
        statements = ast.parse(text).body
        for statement in statements:
            if isinstance(statement, ast.Assign) and any(getattr(t, "id", None) == "model" for t in statement.targets):
                return _value(statement.value)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):  # whatever Python makes of it
        pass
    return None


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "dict" and not node.args:
        return {keyword.arg: _value(keyword.value) for keyword in node.keywords}
    if isinstance(node, ast.Dict):
        return {_value(key): _value(value) for key, value in zip(node.keys, node.values, strict=True) if key}
    return ast.literal_eval(node)

"""Import mmgeneration's SAGANGenerator and ProjDiscriminator: generator., generator_ema., discriminator. in one file.

The tensors do not determine the epsilon of the batch norms, whether ReLUs work in place, or whether 1 is added to the
class scales. These are read from the configuration that mmgeneration stores in the file; without it, its defaults hold.
"""

import ast
from collections.abc import Mapping
from typing import Any, ClassVar

from sagan.errors import UserError
from sagan.importers import torch_layers
from sagan.importers.base import Kind, Layer
from sagan.importers.state_dict import StateDict, select_tensors

NETWORK_PREFIXES = {"generator": "generator.", "average": "generator_ema.", "discriminator": "discriminator."}


class MMGeneration(torch_layers.TorchCodebase):
    """github.com/open-mmlab/mmgeneration."""

    name = "mmgeneration"
    generator_stem = "noise2feat"
    generator_names: ClassVar[Mapping[str, str]] = {
        "bn1": "norm_1",
        "conv1": "conv_1.conv",
        "bn2": "norm_2",
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
    assumed_fields: ClassVar[Mapping[str, Any]] = {
        "batch_norm_eps": 1e-4,
        "spectral_norm_eps": 1e-12,
        "shortcut": "plain",
        **torch_layers.STORED_VECTORS,
    }

    def recognise(self, keys: set[str]) -> bool:
        return any(
            key.startswith((f"{prefix}noise2feat.", f"{prefix}from_rgb.conv_1.conv."))
            for key in keys
            for prefix in ("", *NETWORK_PREFIXES.values())
        )

    def is_generator(self, keys: set[str]) -> bool:
        return any(key.startswith("noise2feat.") for key in keys)

    def split(self, checkpoint: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
        all_tensors = select_tensors(checkpoint)
        networks = {
            network: {key.removeprefix(prefix): t for key, t in all_tensors.items() if key.startswith(prefix)}
            for network, prefix in NETWORK_PREFIXES.items()
        }
        return {network: tensors for network, tensors in networks.items() if tensors}

    def stored_fields(self, checkpoint: Mapping[str, Any]) -> dict[str, Any]:
        meta = checkpoint.get("meta")
        text = meta.get("config") if isinstance(meta, Mapping) else None
        model = parse_model_config(text) if isinstance(text, str) else None
        if not isinstance(model, dict):
            return {}
        generator = model.get("generator") or {}
        discriminator = model.get("discriminator") or {}

        # Refuse what changes the networks in ways that ModelConfig cannot express.
        for network in (generator, discriminator):
            activation = (network.get("act_cfg") or {}).get("type", "ReLU")
            if activation != "ReLU":
                raise UserError(f"the file's mmgeneration config has activation {activation}, which is not supported")
            unsupported = sorted(network.keys() & {"blocks_cfg", "from_rgb_cfg", "downsample_cfg"})
            if unsupported:
                raise UserError(f"the file's mmgeneration config has {unsupported[0]}, which is not supported")
        kind = str((generator.get("init_cfg") or {}).get("type", "BigGAN")).upper()
        if kind not in ("BIGGAN", "STUDIO"):
            raise UserError(
                f"the file's mmgeneration config has init_cfg {kind}, which does not add 1 to the class scales: "
                "this is not supported"
            )

        inplace = bool((discriminator.get("act_cfg") or {}).get("inplace", False))
        return {
            "batch_norm_eps": float(generator.get("norm_eps", 1e-4)),
            "spectral_norm_eps": float(generator.get("sn_eps", 1e-12)),
            "shortcut": "rectified" if inplace else "plain",
        }

    def halvings(self, blocks: int) -> int:
        return {4: 2, 5: 5}.get(blocks, blocks - 1)  # at 64 px down to 2 x 2

    def class_batch_norm(self, state: StateDict, key: str) -> Layer:
        tables = {"scale": f"{key}.weight_embedding", "shift": f"{key}.bias_embedding"}
        return torch_layers.running_statistics(state, f"{key}.norm") | torch_layers.class_tables(state, tables)

    def generator_stack(self, state: StateDict) -> list[tuple[Kind, str]]:
        return _stack(state)

    def discriminator_stack(self, state: StateDict) -> list[tuple[Kind, str]]:
        return [("block", "from_rgb"), *_stack(state)]

    def generator_end(self, state: StateDict, blocks: int) -> tuple[str, str]:
        return "to_rgb.bn", "to_rgb.conv"

    def discriminator_end(self, blocks: int) -> str:
        return "decision"


def _stack(state: StateDict) -> list[tuple[Kind, str]]:
    return torch_layers.numbered_stack(state, "conv_blocks.{}", r"(?:gamma|theta|phi|g|o)\b.*")


def parse_model_config(text: str) -> Any:
    """Return the value of `model = dict(...)` in a configuration file, parsed without running it; None if absent."""
    try:
        statements = ast.parse(text).body
        for statement in statements:
            if isinstance(statement, ast.Assign) and any(getattr(t, "id", None) == "model" for t in statement.targets):
                return _literal(statement.value)
    except (
        SyntaxError,
        ValueError,
        TypeError,
        RecursionError,
        MemoryError,
    ):  # the text is not a literal, or not Python
        pass
    return None


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "dict" and not node.args:
        return {keyword.arg: _literal(keyword.value) for keyword in node.keywords}
    if isinstance(node, ast.Dict):
        return {_literal(key): _literal(value) for key, value in zip(node.keys, node.values, strict=True) if key}
    return ast.literal_eval(node)

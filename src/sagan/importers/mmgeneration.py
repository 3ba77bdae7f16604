"""Import mmgeneration's SAGANGenerator and ProjDiscriminator: generator., generator_ema., discriminator. in one file.

The tensors do not determine the epsilon of the batch norms, whether ReLUs work in place, or whether 1 is added to the
class scales. These are read from the configuration that mmgeneration stores in the file; without it, its defaults hold.
"""

import ast
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from sagan.errors import UserError
from sagan.importers import torch_layers
from sagan.importers.base import Kind, Layer
from sagan.importers.state_dict import StateDict, select_tensors
from sagan.text import printable

NETWORK_PREFIXES = {"generator": "generator.", "average": "generator_ema.", "discriminator": "discriminator."}

# Options of SNGANGenerator and ProjDiscriminator that are read here, or that the tensors determine.
_COMMON_OPTIONS = {
    *("type", "num_classes", "base_channels", "channels_cfg", "attention_cfg", "attention_after_nth_block", "act_cfg"),
    *("with_spectral_norm", "sn_style", "sn_eps", "init_cfg", "pretrained"),
}
SUPPORTED_OPTIONS = {
    "generator": _COMMON_OPTIONS
    | {"output_scale", "out_channels", "input_scale", "noise_size", "use_cbn", "auto_sync_bn"}
    | {"with_embedding_spectral_norm", "norm_eps"},
    "discriminator": _COMMON_OPTIONS | {"input_scale", "input_channels"},
}


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
        "shortcut": "plain",
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
        if model is None:
            return {}
        model = _mapping(model, "model")
        # An absent network, or none (of an unconditional test configuration), is as by default.
        generator = _mapping(model.get("generator") or {}, "model.generator")
        discriminator = _mapping(model.get("discriminator") or {}, "model.discriminator")

        # Refuse what changes the networks in ways that our networks cannot express.
        for name, network in (("generator", generator), ("discriminator", discriminator)):
            for key, value in network.items():
                if isinstance(value, NotLiteral) or key not in SUPPORTED_OPTIONS[name]:
                    raise _refusal(f"model.{name}.{_show(key)}", f"= {_show(value)}, which is not supported")
            activation = _mapping(network.get("act_cfg", {}), f"model.{name}.act_cfg").get("type", "ReLU")
            if activation != "ReLU":
                raise _refusal(f"model.{name}.act_cfg", f"of activation {_show(activation)}, which is not supported")
            attention = _mapping(network.get("attention_cfg", {}), f"model.{name}.attention_cfg")
            if attention.keys() - {"type"} or attention.get("type", "SelfAttentionBlock") != "SelfAttentionBlock":
                raise _refusal(f"model.{name}.attention_cfg", f"= {_show(attention)}, which is not supported")
        init = _mapping(generator.get("init_cfg", {}), "model.generator.init_cfg").get("type", "BigGAN")
        if str(init).upper() not in ("BIGGAN", "STUDIO"):
            raise _refusal(
                "model.generator.init_cfg", f"{_show(init)}, which does not add 1 to the class scales: not supported"
            )

        inplace = discriminator.get("act_cfg", {}).get("inplace", False)
        if not isinstance(inplace, bool):
            raise _refusal("model.discriminator.act_cfg.inplace", f"= {_show(inplace)}, expected True or False")
        return {
            "batch_norm_eps": _batch_norm_epsilon(generator),
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


@dataclass(frozen=True)
class NotLiteral:
    """A value of a configuration file that only running the file would give."""

    source: str
    """The expression as Python."""


def parse_model_config(text: str) -> Any:
    """Return the value of `model = dict(...)` in a configuration file, parsed without running it; None if absent.

    A value in it that is not a literal is returned as NotLiteral.

    Raises:
        UserError: the text is not Python, or it changes `model` after the assignment.
    """
    model: Any = None
    try:
        for statement in ast.parse(text).body:
            names = _names(statement)
            targets = statement.targets if isinstance(statement, ast.Assign) else []
            if [getattr(target, "id", None) for target in targets] == ["model"]:
                assert isinstance(statement, ast.Assign)
                model = _literal(statement.value)
            elif "model" in names and not (targets and all("model" not in _names(target) for target in targets)):
                raise _refusal("model", f"changed in line {statement.lineno}, which is not supported")
    except UserError:
        raise
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UserError("the file's mmgeneration config is not Python: it cannot be read") from error
    return model


def _names(node: ast.AST) -> set[str]:
    """Return the names of variables in a piece of Python."""
    return {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "dict" and not node.args:
        if all(keyword.arg for keyword in node.keywords):
            return {keyword.arg: _literal(keyword.value) for keyword in node.keywords}
        return NotLiteral(ast.unparse(node))
    if isinstance(node, ast.Dict):
        if all(isinstance(key, ast.Constant) for key in node.keys):
            keys = [ast.literal_eval(key) for key in node.keys if key]
            return {key: _literal(value) for key, value in zip(keys, node.values, strict=True)}
        return NotLiteral(ast.unparse(node))
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        return NotLiteral(ast.unparse(node))


def _mapping(value: Any, name: str) -> dict[str, Any]:
    """Return a configuration's dictionary. Raises UserError if it is of another type."""
    if not isinstance(value, dict):
        raise _refusal(name, f"= {_show(value)}, expected a dict")
    return value


def _batch_norm_epsilon(generator: Mapping[str, Any]) -> float:
    """Return the epsilon in a generator's configuration. Raises UserError if it is not a finite number above 0."""
    value = generator.get("norm_eps", 1e-4)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise _refusal("model.generator.norm_eps", f"= {_show(value)}, expected a finite number above 0")
    return float(value)


def _show(value: object) -> str:
    text = value.source if isinstance(value, NotLiteral) else str(value)
    return printable(" ".join(text.split()))[:80]


def _refusal(name: str, problem: str) -> UserError:
    return UserError(f"the file's mmgeneration config has {name} {problem}")

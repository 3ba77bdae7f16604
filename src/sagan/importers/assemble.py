"""Assemble our networks from converted ones: one configuration of both, and the tensors where they belong."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from sagan.errors import UserError
from sagan.importers.base import ConvertedNetwork
from sagan.importers.folding import fold_epsilon
from sagan.importers.networks import ImportedConfig
from sagan.importers.state_dict import StateDict
from sagan.model.config import ModelConfig
from sagan.model.spectral_norm import SpectralNorm, drop_spectral_norm

_FIELDS = [field.name for field in fields(ModelConfig)]


@dataclass(frozen=True)
class Epsilons:
    """The file's batch-norm epsilons, which are folded into the running variances."""

    blocks: float
    output: float
    """That of the residual generator's last batch norm."""

    def of(self, name: str) -> float:
        """Return the epsilon of a running variance, by our name."""
        return self.output if name == "bn.running_var" else self.blocks


def merge_fields(
    generator: ConvertedNetwork, discriminator: ConvertedNetwork | None, overrides: Mapping[str, Any]
) -> tuple[ModelConfig, Epsilons]:
    """Merge what both networks determine into one configuration, of our own architecture if that suffices.

    Args:
        overrides: fields that take precedence over those of the networks.

    Raises:
        UserError: the networks contradict each other, or our networks cannot express them.
    """
    merged = dict(generator.fields)
    for name, value in (discriminator.fields if discriminator else {}).items():
        if merged.setdefault(name, value) != value:
            raise UserError(
                f"the discriminator does not match the generator: {name} is {value} in the discriminator, "
                f"{merged[name]} in the generator"
            )
    merged |= overrides
    blocks = merged.pop("batch_norm_eps")
    epsilons = Epsilons(blocks, merged.pop("output_norm_eps", blocks))
    if not 0 < blocks < math.inf:
        raise UserError(f"batch_norm_eps must be above 0 and finite, got {blocks}")
    try:
        return _smallest_config(merged), epsilons
    except ValueError as error:
        raise UserError(f"this network is not supported: {error}") from error


def _smallest_config(values: dict[str, Any]) -> ModelConfig:
    """Return the configuration with these fields, without those that are as by default."""
    own = [field.name for field in fields(ImportedConfig) if field.name not in _FIELDS]
    if "architecture" in values:
        for name in own:
            if name in values:
                raise ValueError(f"architecture {values['architecture']} has no {name} to choose")
        config = ModelConfig(**values)
    else:
        config = ImportedConfig(**values)
    for name in ("generator_widths", "discriminator_widths", "discriminator_halvings"):
        if hasattr(config, name):
            unset: dict[str, Any] = {name: None}
            default = replace(config, **unset)
            if _sizes(default) == _sizes(config):
                config = default
    plain = {name: getattr(config, name) for name in _FIELDS if name != "architecture"}
    if isinstance(config, ImportedConfig) and config == ImportedConfig(**plain):
        return ModelConfig(**plain)
    return config


def _sizes(config: ModelConfig) -> tuple[Any, ...]:
    return config.generator_channels, config.discriminator_channels, config.halvings


def build_network(
    converted: ConvertedNetwork,
    build: Callable[[ModelConfig], nn.Module],
    config: ModelConfig,
    state: StateDict,
    epsilons: Epsilons,
    dtype: torch.dtype,
) -> Any:
    """Build one of our networks with `build`, its spectral norms folded, and load the converted tensors into it.

    Raises:
        UserError: a tensor has another shape, is missing or is unexpected, or a spectral norm is; the message names the
            file's key.
    """
    refusal = f"{state.path} is not a supported SAGAN"
    with torch.device("meta"):
        network = build(config)
    expected_norms = {name for name, module in network.named_modules() if isinstance(module, SpectralNorm)}
    drop_spectral_norm(network)
    expected = {name: t.shape for name, t in network.state_dict().items()}
    tensors: dict[str, Tensor] = {}
    for name, t in converted.tensors.items():
        key = converted.origin[name]
        if name not in expected:
            raise UserError(f"{refusal}: {key} has no counterpart in our network")
        if t.shape != expected[name]:
            raise UserError(f"{refusal}: {key} has the shape {tuple(t.shape)}, expected {tuple(expected[name])}")
        if name.endswith("running_var"):
            t = fold_epsilon(state.path, key, t, epsilons.of(name))
        tensors[name] = t.to(dtype)
    missing = sorted(expected.keys() - tensors.keys())
    if missing:
        raise UserError(f"{refusal}: the file has no tensor for our {missing[0]}")
    for norm in sorted(expected_norms ^ set(converted.normalised)):
        layer = norm.rpartition(".")[0]
        key = next(key for name, key in converted.origin.items() if name.startswith(f"{layer}."))
        which = "lacks the spectral norm that" if norm in expected_norms else "has a spectral norm, unlike what"
        raise UserError(f"{refusal}: {key} {which} our network has there")
    network.load_state_dict(tensors, assign=True)
    return network.requires_grad_(True)

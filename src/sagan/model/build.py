"""The door to the networks: build those of a configuration's architecture.

Other rooms add architectures by `register`, so that whoever reads a run needs to know none of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from sagan.model.config import ModelConfig
from sagan.model.dcgan import DCGANDiscriminator, DCGANGenerator
from sagan.model.discriminator import Discriminator
from sagan.model.generator import Generator


@dataclass(frozen=True)
class Architecture:
    """An architecture: its configuration, and its networks by that configuration."""

    config: type[ModelConfig]
    generator: Callable[[Any], nn.Module]
    """Has the attributes and the forward pass of `Generator`."""
    discriminator: Callable[[Any], nn.Module]
    """Has the attributes and methods of `Discriminator`."""


_architectures = {
    "residual": Architecture(ModelConfig, Generator, Discriminator),
    "dcgan": Architecture(ModelConfig, DCGANGenerator, DCGANDiscriminator),
}


def register(name: str, architecture: Architecture) -> None:
    """Add an architecture, whose configurations have this name in their field `architecture`."""
    _architectures[name] = architecture


def find_architecture(name: object) -> Architecture:
    """Return a registered architecture. Raises ValueError if there is none of this name."""
    if not isinstance(name, str) or name not in _architectures:
        raise ValueError(f"architecture must be one of {', '.join(_architectures)}, got {str(name)[:80]!r}")
    return _architectures[name]


def build_generator(config: ModelConfig) -> Generator:
    """Build the generator of a configuration. Raises ValueError if its architecture is unknown."""
    # Of another class for another architecture, with the same interface.
    return cast(Generator, find_architecture(config.architecture).generator(config))


def build_discriminator(config: ModelConfig) -> Discriminator:
    """Build the discriminator of a configuration. Raises ValueError if its architecture is unknown."""
    return cast(Discriminator, find_architecture(config.architecture).discriminator(config))


def count_parameters(config: ModelConfig) -> tuple[int, int]:
    """Return the number of parameters of the generator and of the discriminator, without allocating them."""
    with torch.device("meta"):
        networks = build_generator(config), build_discriminator(config)
    generator, discriminator = (sum(p.numel() for p in network.parameters()) for network in networks)
    return generator, discriminator

"""The door to the networks: build those of a configuration's architecture."""

from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import nn

from sagan.model.config import ModelConfig
from sagan.model.dcgan import DCGANDiscriminator, DCGANGenerator
from sagan.model.discriminator import Discriminator
from sagan.model.generator import Generator

GENERATORS: dict[str, Callable[[ModelConfig], nn.Module]] = {"residual": Generator, "dcgan": DCGANGenerator}
"""Architecture -> generator. All have the attributes and the forward pass of `Generator`."""
DISCRIMINATORS: dict[str, Callable[[ModelConfig], nn.Module]] = {
    "residual": Discriminator,
    "dcgan": DCGANDiscriminator,
}
"""Architecture -> discriminator. All have the attributes and methods of `Discriminator`."""


def build_generator(config: ModelConfig) -> Generator:
    """Build the generator of a configuration. Raises ValueError if its architecture is unknown."""
    # Of another class for another architecture, with the same interface.
    return cast(Generator, _build(GENERATORS, config))


def build_discriminator(config: ModelConfig) -> Discriminator:
    """Build the discriminator of a configuration. Raises ValueError if its architecture is unknown."""
    return cast(Discriminator, _build(DISCRIMINATORS, config))


def count_parameters(config: ModelConfig) -> tuple[int, int]:
    """Return the number of parameters of the generator and of the discriminator, without allocating them."""
    with torch.device("meta"):
        networks = build_generator(config), build_discriminator(config)
    generator, discriminator = (sum(p.numel() for p in network.parameters()) for network in networks)
    return generator, discriminator


def _build(networks: Mapping[str, Callable[[ModelConfig], nn.Module]], config: ModelConfig) -> nn.Module:
    if config.architecture not in networks:
        raise ValueError(f"architecture must be one of {', '.join(networks)}, got {config.architecture!r}")
    return networks[config.architecture](config)

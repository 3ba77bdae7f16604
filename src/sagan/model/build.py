"""Build the networks that a configuration asks for."""

import torch

from sagan.model.config import ModelConfig
from sagan.model.dcgan import DCGANDiscriminator, DCGANGenerator
from sagan.model.discriminator import Discriminator
from sagan.model.generator import Generator


def build_generator(config: ModelConfig) -> Generator:
    """The generator that a configuration asks for."""
    return DCGANGenerator(config) if config.architecture == "dcgan" else Generator(config)


def build_discriminator(config: ModelConfig) -> Discriminator:
    """The discriminator that a configuration asks for."""
    return DCGANDiscriminator(config) if config.architecture == "dcgan" else Discriminator(config)


def count_parameters(config: ModelConfig) -> tuple[int, int]:
    """Return the number of parameters of the generator and of the discriminator, without allocating them."""
    with torch.device("meta"):
        networks = build_generator(config), build_discriminator(config)
    generator, discriminator = (sum(p.numel() for p in network.parameters()) for network in networks)
    return generator, discriminator

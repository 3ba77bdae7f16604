"""Build the networks that a configuration asks for."""

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

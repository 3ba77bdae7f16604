"""Count the operations of a training step."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from sagan.model.build import build_discriminator, build_generator
from sagan.model.config import ModelConfig

_IMAGES = 2  # images of the counted step: batch norm needs more than one value


def count_operations(model: ModelConfig, *, discriminator_steps: int = 1) -> float:
    """Return the operations of convolutions and products in a step, per image of the batch, without penalties.

    A multiply-add is 2 operations. The count is that of our form of the networks, on the meta device: fewer than in
    the usual form (docs/speed.md).
    """
    with torch.device("meta"):
        generator, discriminator = build_generator(model), build_discriminator(model)
        z, y = torch.zeros(_IMAGES, model.latent_dim), torch.zeros(_IMAGES, dtype=torch.int64)
        with FlopCounterMode(display=False) as of_discriminator:
            with torch.no_grad():
                fake = generator(z, y)
            discriminator(torch.cat([fake, fake]), torch.cat([y, y])).sum().backward()
        discriminator.requires_grad_(False)
        with FlopCounterMode(display=False) as of_generator:
            discriminator(generator(z, y), y).sum().backward()
    total = discriminator_steps * of_discriminator.get_total_flops() + of_generator.get_total_flops()
    return total / _IMAGES

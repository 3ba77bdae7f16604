"""A small trainer on the CPU, and images to train it on."""

import torch

from sagan import ModelConfig, TrainingConfig
from sagan.training.step import Trainer

MODEL = ModelConfig(resolution=32, num_classes=3, latent_dim=8, base_channels=4)
CPU = torch.device("cpu")


def images(number, size=8):
    """Batch `number` of random images in three classes."""
    rng = torch.Generator().manual_seed(number)
    x = torch.randint(256, (size, 32, 32, 3), generator=rng, dtype=torch.uint8).permute(0, 3, 1, 2)
    return x, torch.randint(3, (size,), generator=rng)


def trainer(model=MODEL, **options):
    return Trainer(model, TrainingConfig(**{"batch_size": 8, "precision": "fp32", "steps": 100} | options), CPU)

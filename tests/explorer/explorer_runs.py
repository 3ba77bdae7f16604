"""Runs to explore, made without training."""

import torch

from sagan import Config, ModelConfig, TrainingConfig
from sagan.run import Run, RunInfo
from sagan.training.checkpoint import save_checkpoint
from sagan.training.step import Trainer

NAMES = ("cats", "dogs", "white mice")


def make_run(path, names=NAMES, checkpoint=True, **options):
    """A run whose networks are random throughout, so that classes, layers and points all make a difference."""
    model = ModelConfig(resolution=32, latent_dim=8, base_channels=4, num_classes=len(names), **options)
    made = Run.create(path, RunInfo(Config(model=model), names, "key"))
    torch.manual_seed(0)
    trainer = Trainer(model, TrainingConfig(), torch.device("cpu"))
    with torch.no_grad():
        for network in (trainer.generator, trainer.discriminator):
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.3)
    if checkpoint:
        save_checkpoint(made.checkpoint_path(3), trainer, 3)
    made.save_generator(trainer.generator, 3)
    return made.path

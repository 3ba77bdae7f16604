"""Runs as training leaves them, made without training."""

import json

import numpy as np
import torch

from sagan.config import Config, DataConfig, OutputConfig, TrainingConfig
from sagan.figures.grid import draw_grid, save
from sagan.model.build import build_generator, find_architecture
from sagan.run import Run, RunInfo
from sagan.training.checkpoint import take_snapshot, write_checkpoint
from sagan.training.step import Trainer

NAMES = ("cats", "dogs", "white mice")
STEP = 7


def make_run(
    path, names=NAMES, *, source="images", weights=True, checkpoint=False, step=STEP, rows=(), samples=(), seed=0,
    **options,
):  # fmt: skip
    """Create a run of a tiny 32 px model, in which classes, layers and positions all make a difference.

    Args:
        names: of the classes; () for a model without classes.
        source: of the images, as in config.json.
        weights: whether there is a generator.safetensors, of `step`.
        checkpoint: whether there is a checkpoint of both networks, of `step`; the average is the generator.
        rows: of metrics.jsonl.
        samples: steps that have a grid of samples, of noise, a row for each class.
        options: of ModelConfig, or of the configuration of the `architecture` among them.
    """
    model = find_architecture(options.get("architecture", "residual")).config(
        **{"resolution": 32, "base_channels": 4, "latent_dim": 8} | options,
        num_classes=len(names),
    )
    config = Config(DataConfig(source=source), model, TrainingConfig(), OutputConfig())
    run = Run.create(path, RunInfo(config, tuple(names), "the key"))
    torch.manual_seed(seed)
    generator = disturb(build_generator(model), seed)
    if weights:
        run.save_generator(generator, step)
    if checkpoint:
        trainer = Trainer(model, config.training, torch.device("cpu"))
        disturb(trainer.discriminator, seed)
        for network in (trainer.generator, trainer.ema.network):
            network.load_state_dict(generator.state_dict())
        write_checkpoint(run.checkpoint_path(step), take_snapshot(trainer, step))
    if rows:
        run.metrics_path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    rng = np.random.default_rng(seed)
    for at in samples:
        images = rng.integers(256, size=(8 * max(1, len(names)), 32, 32, 3), dtype=np.uint8)
        save(draw_grid(images, columns=8, row_labels=names or None), run.sample_path(at))
    return run


def disturb(network, seed):
    """Put random numbers into weights, gammas, class tables, batch-norm statistics and spectral vectors."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, t in network.state_dict().items():
            random = torch.randn(t.shape, generator=rng)
            if name.endswith("running_var"):
                t.copy_(random.square() + 0.5)
            elif name.endswith((".u", ".v")):
                t.copy_(random / random.norm())
            elif name.endswith("gamma"):
                t.copy_(torch.tensor(0.7))
            else:
                t.add_(0.5 * random)
    return network

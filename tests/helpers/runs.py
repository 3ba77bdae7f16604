"""Runs with networks that were never trained, but have all that training leaves in them."""

import torch

from sagan.config import Config, DataConfig, OutputConfig, TrainingConfig
from sagan.model.build import build_generator
from sagan.model.config import ModelConfig
from sagan.run import Run, RunInfo

NAMES = ("cats", "dogs", "owls")


def make_run(path, *, names=NAMES, seed=0, **options):
    """A run of a 32 px generator with random weights, gammas, tables, batch-norm statistics and spectral vectors."""
    model = ModelConfig(**{"resolution": 32, "base_channels": 4, "latent_dim": 8} | options, num_classes=len(names))
    info = RunInfo(Config(DataConfig(source="pictures"), model, TrainingConfig(), OutputConfig()), names, "key")
    run = Run.create(path, info)
    torch.manual_seed(seed)
    run.save_generator(disturb(build_generator(model), seed), step=7)
    return run


def disturb(network, seed):
    """Random numbers in everything that starts at 0 or 1, and in the rest too."""
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, t in network.state_dict().items():
            random = torch.randn(t.shape, generator=noise)
            if name.endswith("running_var"):
                t.copy_(random.square() + 0.5)
            elif name.endswith((".u", ".v")):
                t.copy_(random / random.norm())
            elif name.endswith("gamma"):
                t.copy_(torch.tensor(0.7))
            else:
                t.add_(0.2 * random)
    return network

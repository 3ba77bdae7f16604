"""Trainers on any device that draw the same random numbers, and the names of the package that these tests use."""

import contextlib
from collections.abc import Iterator

import torch

from sagan import ModelConfig, TrainingConfig
from sagan.device import enough_memory  # noqa: F401
from sagan.distributed import Processes
from sagan.training import step as step_module
from sagan.training.checkpoint import load_checkpoint, state, take_snapshot, write_checkpoint  # noqa: F401
from sagan.training.rng import StepRNG
from sagan.training.step import Trainer

CPU = torch.device("cpu")
SMALL = ModelConfig(resolution=32, num_classes=3, latent_dim=8, base_channels=8)
BATCH = 8
EVERYTHING = {  # every part of a step that a preset or an option can add
    "loss": "relativistic",
    "r1": 0.5,
    "r2": 0.5,
    "gradient_penalty": 0.1,
    "penalty_every": 2,
    "lecam": 0.1,
    "augment": ("color", "translation", "cutout"),
    "accumulate": 2,
}


class CpuRNG(StepRNG):
    """Draws on the CPU and moves the numbers to a device: no two devices draw the same numbers themselves.

    Numbers are drawn in float64 at every precision, so that fp32 gets the rounded numbers of float64.
    """

    def __init__(self, seed: int, device: torch.device):
        super().__init__(seed, CPU)
        self.target = device

    def normal(self, n, dim):
        numbers = torch.randn(n, dim, generator=self.stream, dtype=torch.float64)
        return numbers.to(self.target, torch.get_default_dtype())

    def uniform(self, n, low, high, dtype):
        return super().uniform(n, low, high, torch.float64).to(self.target, dtype)

    def integers(self, n, low, high):
        return super().integers(n, low, high).to(self.target)


def draw_on_the_cpu(monkeypatch) -> None:
    """Make every trainer draw its random numbers on the CPU."""

    def cpu_rng(seed: int, index: int, processes: Processes, restarts: int = 0) -> CpuRNG:
        return CpuRNG(1000 * seed + index, processes.device)

    monkeypatch.setattr(step_module, "step_rng", cpu_rng)


@contextlib.contextmanager
def arithmetic(name: str) -> Iterator[dict[str, str]]:
    """Compute in 'float64', 'fp32', 'tf32' or 'bf16' inside; yield the options of TrainingConfig for it."""
    cudnn, cublas = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, cublas.allow_tf32
    cudnn.allow_tf32 = cublas.allow_tf32 = name in ("tf32", "bf16")
    torch.set_default_dtype(torch.float64 if name == "float64" else torch.float32)
    try:
        yield {"precision": "fp32" if name == "float64" else name}
    finally:
        torch.set_default_dtype(torch.float32)
        cudnn.allow_tf32, cublas.allow_tf32 = before


@contextlib.contextmanager
def deterministic() -> Iterator[dict[str, bool]]:
    """Compute the same bits every time inside; yield the options of TrainingConfig for it."""
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic
    cudnn.benchmark, cudnn.deterministic = False, True
    torch.use_deterministic_algorithms(True)
    try:
        yield {}
    finally:
        torch.use_deterministic_algorithms(False)
        cudnn.benchmark, cudnn.deterministic = before


def images(device: torch.device, model: ModelConfig = SMALL, number: int = 0, count: int = BATCH):
    """Return batch `number` of synthetic images and labels, the same on every device."""
    rng = torch.Generator().manual_seed(number)
    shape = (count, model.resolution, model.resolution, model.image_channels)
    x = torch.randint(256, shape, generator=rng, dtype=torch.uint8).permute(0, 3, 1, 2)
    y = torch.randint(max(1, model.num_classes), (count,), generator=rng)
    return x.to(device), y.to(device)


def trainer(device: torch.device, model: ModelConfig = SMALL, **options) -> Trainer:
    """Return a trainer whose attention layers take part from the first step on, as they do after some training."""
    t = Trainer(model, TrainingConfig(**{"batch_size": BATCH, "precision": "fp32", "steps": 100} | options), device)
    for network in (t.generator, t.discriminator, t.ema.network):
        for name, parameter in network.named_parameters():
            if name.endswith("gamma"):
                torch.nn.init.constant_(parameter, 0.5)
    return t


def load_weights(to: Trainer, source: Trainer) -> None:
    """Copy the networks of a trainer into another one, whatever their devices and dtypes."""
    to.generator.load_state_dict(source.generator.state_dict())
    to.discriminator.load_state_dict(source.discriminator.state_dict())
    to.ema.network.load_state_dict(source.ema.network.state_dict())


def distance(x: torch.Tensor, reference: torch.Tensor) -> float:
    """Return |x - reference| / |reference|, in float64 on the CPU."""
    x, reference = x.detach().cpu().double(), reference.detach().cpu().double()
    return ((x - reference).norm() / reference.norm()).item()

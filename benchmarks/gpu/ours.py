"""The internals of sagan that these measurements use, in one place."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from typing import Any

import torch
from torch import Tensor

from peers import OURS, real_batch
from sagan import PRESETS, ModelConfig, TrainingConfig
from sagan.device import keep_memory
from sagan.model import resample
from sagan.model.resample import conv3x3_downsample, upsample, upsample_conv3x3  # noqa: F401
from sagan.training.checkpoint import state  # noqa: F401
from sagan.training.graphs import WARM_UP  # noqa: F401
from sagan.training.step import Trainer

Precision = str
"""'auto' or 'bf16'; 'fp32'; 'tf32': fp32 with products rounded to 10 bits; 'default': PyTorch's own, TF32 in
convolutions only."""


@contextlib.contextmanager
def arithmetic(precision: Precision) -> Iterator[str]:
    """Set the flags of a precision inside, with a search for the fastest convolutions; yield TrainingConfig's name."""
    keep_memory()
    cudnn, cublas = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.benchmark, cudnn.allow_tf32, cublas.allow_tf32
    cudnn.benchmark = True  # as in all of these codebases
    cudnn.allow_tf32, cublas.allow_tf32 = precision != "fp32", precision not in ("fp32", "default")
    try:
        yield "fp32" if precision == "default" else precision
    finally:
        cudnn.benchmark, cudnn.allow_tf32, cublas.allow_tf32 = before


@contextlib.contextmanager
def boxes_of_kernels_on(*devices: str) -> Iterator[None]:
    """Take the box sums of resampling layers of the kernels on these devices, of the maps on others."""
    before, resample.BOXED_KERNELS = resample.BOXED_KERNELS, devices
    try:
        yield
    finally:
        resample.BOXED_KERNELS = before


TOY = replace(PRESETS["demo"].model, base_channels=4)
"""Small enough for a busy CPU."""


def start(
    model: ModelConfig, device: str, batch_size: int, **options: Any
) -> tuple[Trainer, Callable[[], dict[str, Tensor]]]:
    """Return a trainer, and a function that trains one step after another on images that are on the device already."""
    training = TrainingConfig(**{"steps": 10**6, "batch_size": batch_size} | options)
    trainer = Trainer(model, training, torch.device(device))
    images, labels = (t.to(device) for t in real_batch(OURS, model, batch_size))
    numbers = count()
    return trainer, lambda: trainer.train_step(next(numbers), lambda _: (images, labels))


def stepper(model: ModelConfig, device: str, batch_size: int, **options: Any) -> Callable[[], dict[str, Tensor]]:
    """Return a function that trains one step after another, on synthetic images that are on the device already."""
    return start(model, device, batch_size, **options)[1]


def describe_graphs(trainer: Trainer) -> str:
    """Return how a trainer's steps run: by how many CUDA graphs, or why by none."""
    if trainer.graphs is None:
        return "eager"
    return "capture failed: eager" if trainer.graphs.failed else f"{trainer.graphs.count} graphs"

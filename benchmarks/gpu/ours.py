"""What these measurements use of sagan's insides, in one place."""

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
from sagan.model.resample import conv3x3_downsample, upsample, upsample_conv3x3  # noqa: F401
from sagan.training.step import Trainer

Precision = str
"""'auto' or 'bf16'; 'fp32'; 'tf32': fp32 whose products are rounded to 10 bits; 'default': PyTorch's, TF32 in
convolutions only."""


@contextlib.contextmanager
def arithmetic(precision: Precision) -> Iterator[str]:
    """Computes so inside, and searches for the fastest convolutions; yields `precision` of TrainingConfig."""
    keep_memory()
    cudnn, cublas = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.benchmark, cudnn.allow_tf32, cublas.allow_tf32
    cudnn.benchmark = True  # as all of these codebases have it
    cudnn.allow_tf32, cublas.allow_tf32 = precision != "fp32", precision not in ("fp32", "default")
    try:
        yield "fp32" if precision == "default" else precision
    finally:
        cudnn.benchmark, cudnn.allow_tf32, cublas.allow_tf32 = before


TOY = replace(PRESETS["demo"].model, base_channels=4)
"""Small enough for a CPU that has other things to do."""


def stepper(model: ModelConfig, device: str, batch_size: int, **options: Any) -> Callable[[], dict[str, Tensor]]:
    """One training step after another, of made-up images that lie on the device already."""
    training = TrainingConfig(**{"steps": 10**6, "batch_size": batch_size} | options)
    trainer = Trainer(model, training, torch.device(device))
    images, labels = (t.to(device) for t in real_batch(OURS, model, batch_size))
    numbers = count()
    return lambda: trainer.train_step(next(numbers), lambda _: (images, labels))

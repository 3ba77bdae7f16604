"""The inputs of a training step: its real images and labels and all its random numbers, as tensors on the device.

With them a step is a function of the weights, statistics, moments and learning rates that it finds.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sagan.config import TrainingConfig
from sagan.model.config import ModelConfig
from sagan.training.augmentation import Draws, draw_augmentation
from sagan.training.guide import EVERY as GUIDE_EVERY
from sagan.training.losses import LOSSES
from sagan.training.rng import StepRNG

Batch = tuple[Tensor, Tensor]  # images (N, C, H, W) uint8, labels (N,) int64


class MicroBatch(NamedTuple):
    """What one pass of an update reads: n = batch_size / accumulate real images, and as many to generate."""

    real: Tensor
    """Images (n, C, H, W), uint8; the generator's update has those of the last discriminator step."""
    y_real: Tensor
    """Their classes (n,), int64."""
    z: Tensor
    """Latents (n, latent_dim) of the generated images."""
    y_fake: Tensor
    """Classes (n,) of the generated images."""
    augment_real: Draws
    """Empty in the generator's update, unless the loss compares in pairs or the guide works."""
    augment_fake: Draws
    mix: Tensor | None
    """(n, 1, 1, 1) in [0, 1): where between real and generated images the gradient penalty is computed, if it is."""


class StepInputs(NamedTuple):
    """All inputs of a step."""

    discriminator: tuple[tuple[MicroBatch, ...], ...]
    """Of each discriminator step, its micro-batches."""
    penalised: tuple[bool, ...]
    """Which discriminator steps compute R1, R2 and the gradient penalty."""
    guided: bool
    """Whether the guide works in this step."""
    generator: tuple[MicroBatch, ...]
    """The micro-batches of the generator step."""

    @property
    def kind(self) -> tuple[bool, ...]:
        """What the step computes: steps of one kind have inputs of the same shapes."""
        return (*self.penalised, self.guided)


def draw_inputs(
    index: int,
    get_batch: Callable[[int], Batch],
    rng: StepRNG,
    model: ModelConfig,
    config: TrainingConfig,
    device: torch.device,
) -> StepInputs:
    """Fetch the batches of a step and draw its random numbers, in the order in which the step uses them.

    Args:
        index: the step, from 0.
        get_batch: maps i = 0, 1, ... to this process's share of the i-th batch of real images.
        rng: the step's random numbers.
        device: where the networks are.
    """
    penalties = bool(config.r1 or config.r2 or config.gradient_penalty)
    numbers = range(index * config.discriminator_steps, (index + 1) * config.discriminator_steps)
    penalised = tuple(penalties and number % config.penalty_every == 0 for number in numbers)
    guided = config.guide > 0 and index % GUIDE_EVERY == GUIDE_EVERY - 1
    reads_real = LOSSES[config.loss].needs_real or guided

    def draw(parts: list[Batch], *, augments_real: bool, mixes: bool) -> tuple[MicroBatch, ...]:
        return tuple(_draw(*part, rng, model, config, augments_real=augments_real, mixes=mixes) for part in parts)

    discriminator: list[tuple[MicroBatch, ...]] = []
    for number, penalise in zip(numbers, penalised, strict=True):
        parts = _split(get_batch(number), config.accumulate, device)
        discriminator.append(draw(parts, augments_real=True, mixes=penalise and config.gradient_penalty > 0))
    generator = draw(parts, augments_real=reads_real, mixes=False)
    return StepInputs(tuple(discriminator), penalised, guided, generator)


def _split(batch: Batch, count: int, device: torch.device) -> list[Batch]:
    """Move a batch to the device and split it into micro-batches."""
    images, labels = (t.to(device) for t in batch)
    return list(zip(images.chunk(count), labels.chunk(count), strict=True))


def _draw(
    real: Tensor,
    y_real: Tensor,
    rng: StepRNG,
    model: ModelConfig,
    config: TrainingConfig,
    *,
    augments_real: bool,
    mixes: bool,
) -> MicroBatch:
    n = len(real)
    z, y_fake = draw_latents(y_real, rng, model, config)
    augment_real = draw_augmentation(config.augment, n, model.resolution, rng) if augments_real else ()
    augment_fake = draw_augmentation(config.augment, n, model.resolution, rng)
    mix = rng.uniform(n, 0.0, 1.0, torch.get_default_dtype()) if mixes else None
    return MicroBatch(real, y_real, z, y_fake, augment_real, augment_fake, mix)


def draw_latents(labels: Tensor, rng: StepRNG, model: ModelConfig, config: TrainingConfig) -> tuple[Tensor, Tensor]:
    """Return latents (n, latent_dim) and classes (n,) of n images to generate, one for each of `labels`.

    Classes are uniform, as in the released code, or the real images' where the loss compares images in pairs.
    """
    n = len(labels)
    z = rng.normal(n, model.latent_dim)
    if LOSSES[config.loss].needs_real or not model.num_classes:
        return z, labels
    return z, rng.integers(n, 0, model.num_classes)


def tensors(inputs: Any) -> Iterator[Tensor]:
    """Yield the tensors of nested inputs, in a fixed order."""
    if isinstance(inputs, Tensor):
        yield inputs
    elif isinstance(inputs, tuple):
        for part in inputs:
            yield from tensors(part)


def cloned(inputs: Any) -> Any:
    """Return nested inputs whose tensors are copies."""
    if isinstance(inputs, Tensor):
        return inputs.clone()
    if not isinstance(inputs, tuple):
        return inputs
    parts = map(cloned, inputs)
    return type(inputs)(*parts) if hasattr(inputs, "_fields") else type(inputs)(parts)  # a NamedTuple, or a tuple


def copy_into(static: StepInputs, inputs: StepInputs) -> None:
    """Copy the values of a step's inputs into the tensors of another one's.

    Raises:
        ValueError: they differ in shape.
    """
    pairs = list(zip(tensors(static), tensors(inputs), strict=True))
    if static.kind != inputs.kind or any(old.shape != new.shape for old, new in pairs):
        raise ValueError("the inputs of this step differ in shape from those of the step that was captured")
    for old, new in pairs:
        old.copy_(new)

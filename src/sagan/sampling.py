"""Latents, and images from latents. The same seed gives the same images, whatever the batch size."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from sagan.device import full_precision
from sagan.errors import UserError
from sagan.model.batch_norm import MOMENTUM, ConditionalBatchNorm2d
from sagan.model.generator import Generator
from sagan.pixels import to_bytes
from sagan.text import find_name

BATCH = 64  # images drawn at once


def draw_latents(count: int, latent_dim: int, *, seed: int, truncation: float | None = None) -> Tensor:
    """Draw latents (count, latent_dim) float32 from a normal distribution, truncated to |z| <= truncation if given.

    Row i depends only on the seed and i, and moves smoothly with the truncation (Brock et al. 2019, section 3.1).
    """
    uniform = np.random.Generator(np.random.Philox(seed)).random((count, latent_dim))
    u = torch.from_numpy(uniform).clamp_min(2.0**-54)
    if truncation is not None:
        tail = torch.special.ndtr(torch.tensor(-truncation, dtype=torch.float64))
        u = tail + u * (1 - 2 * tail)
    return torch.special.ndtri(u).float()


@torch.no_grad()
def sample_batches(generator: Generator, z: Tensor, y: Tensor, batch_size: int = BATCH) -> Iterator[Tensor]:
    """Draw images (n, C, H, W) uint8 on the CPU, batch by batch.

    Args:
        generator: the generator, on any device.
        z: latents (N, latent_dim).
        y: classes (N,) int64, or weights (N, num_classes) that mix the classes.
        batch_size: images per batch.

    Raises:
        UserError: an image contains NaN or infinity, because the generator's training diverged.
    """
    device = next(generator.parameters()).device
    for z_part, y_part in zip(z.split(batch_size), y.split(batch_size), strict=True):
        with full_precision():  # not around the yield, which runs the caller's code
            x = generator(z_part.to(device), y_part.to(device))
        yield to_bytes(x)


def sample(generator: Generator, z: Tensor, y: Tensor) -> np.ndarray:
    """Draw images (N, H, W, C) uint8 as an array; see `sample_batches`."""
    return torch.cat(list(sample_batches(generator, z, y))).permute(0, 2, 3, 1).contiguous().numpy()


@torch.no_grad()
@full_precision()
def estimate_statistics(generator: Generator, *, batches: int, batch_size: int, seed: int) -> None:
    """Set a generator's batch norms to standing statistics: means over batches of new latents, classes uniform.

    Nothing else in the generator changes. Source: Brock et al. 2019, section 3.1.
    """
    norms = [m for m in generator.modules() if isinstance(m, ConditionalBatchNorm2d)]
    z = draw_latents(batches * batch_size, generator.config.latent_dim, seed=seed)
    classes = np.random.Generator(np.random.Philox(seed)).integers(generator.config.num_classes or 1, size=len(z))
    y = torch.from_numpy(classes)
    device = next(generator.parameters()).device
    for i, (z_part, y_part) in enumerate(zip(z.split(batch_size), y.split(batch_size), strict=True)):
        for norm in norms:
            norm.train().momentum = 1 / (i + 1)  # the running mean of all batches so far
        generator(z_part.to(device), y_part.to(device))
    for norm in norms:
        norm.eval().momentum = MOMENTUM


def use_batch_statistics(generator: Generator) -> None:
    """Make a generator's batch norms use each batch's own statistics, as in training; the running ones are kept."""
    for norm in generator.modules():
        if isinstance(norm, ConditionalBatchNorm2d):
            norm.train().momentum = 0


def find_classes(classes: Sequence[str], class_names: Sequence[str]) -> list[int]:
    """Return the numbers of classes given by name or number; of all classes if none is given.

    Raises:
        UserError: the run does not have such a class.
    """
    if not classes:
        return list(range(len(class_names)))
    by_number = {str(i): i for i in range(len(class_names))}
    numbers = []
    for name in classes:
        number = find_name(name, class_names)
        if number is None:
            number = by_number.get(name)
        if number is None:
            known = ", ".join(f"{i} {n}" for i, n in enumerate(class_names[:20]))
            classes_of_run = f"the run has {known}" if known else "the run has no classes"
            raise UserError(f"--classes {name}: no such class; {classes_of_run}")
        numbers.append(number)
    return numbers

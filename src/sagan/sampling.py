"""Latents to pictures: the same seed gives the same pictures, however many are drawn at once."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from sagan.device import full_precision
from sagan.errors import UserError
from sagan.model.batch_norm import MOMENTUM, ConditionalBatchNorm2d
from sagan.model.generator import Generator
from sagan.pixels import to_bytes

BATCH = 64  # pictures drawn at once


def draw_latents(count: int, latent_dim: int, *, seed: int, truncation: float | None = None) -> Tensor:
    """(count, latent_dim) float32 from a standard normal distribution, or that cut off at |z| <= truncation.

    Row i depends on seed and i only, and moves smoothly with the truncation (Brock et al. 2019, section 3.1).
    """
    uniform = np.random.Generator(np.random.Philox(seed)).random((count, latent_dim))
    u = torch.from_numpy(uniform).clamp_min(2.0**-54)
    if truncation is not None:
        tail = torch.special.ndtr(torch.tensor(-truncation, dtype=torch.float64))
        u = tail + u * (1 - 2 * tail)
    return torch.special.ndtri(u).float()


@torch.no_grad()
def sample_batches(generator: Generator, z: Tensor, y: Tensor, batch_size: int = BATCH) -> Iterator[Tensor]:
    """Pictures (n, C, H, W) uint8 of latents z (N, latent_dim) and classes y, batch by batch, on the CPU.

    y is (N,) int64, or (N, num_classes) weights of the classes.

    Raises:
        UserError: a picture is not a number, so the generator's training has come apart.
    """
    device = next(generator.parameters()).device
    for z_part, y_part in zip(z.split(batch_size), y.split(batch_size), strict=True):
        with full_precision():  # not around the yield: what is done between batches is not ours
            x = generator(z_part.to(device), y_part.to(device))
        yield to_bytes(x)


def sample(generator: Generator, z: Tensor, y: Tensor) -> np.ndarray:
    """The pictures as an array (N, H, W, C) uint8."""
    return torch.cat(list(sample_batches(generator, z, y))).permute(0, 2, 3, 1).contiguous().numpy()


@torch.no_grad()
@full_precision()
def estimate_statistics(generator: Generator, *, batches: int, batch_size: int, seed: int) -> None:
    """Puts standing statistics into a generator's batch norms: means over batches of new latents, classes uniform.

    As in Brock et al. 2019 (section 3.1); nothing else in the generator changes.
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
    """Makes a generator's batch norms use each batch's own statistics, as in training, and leave the others alone."""
    for norm in generator.modules():
        if isinstance(norm, ConditionalBatchNorm2d):
            norm.train().momentum = 0


def find_classes(wanted: Sequence[str], class_names: Sequence[str]) -> list[int]:
    """Class names or numbers to numbers, all of them if none is asked for.

    Raises:
        UserError: a class that the run does not have.
    """
    if not wanted:
        return list(range(len(class_names)))
    numbers = {name: i for i, name in enumerate(class_names)}
    by_number = {str(i): i for i in range(len(class_names))}
    found = []
    for name in wanted:
        number = numbers.get(name, by_number.get(name))
        if number is None:
            known = ", ".join(f"{i} {n}" for i, n in enumerate(class_names[:20]))
            raise UserError(f"--classes {name}: no such class; " + (f"the run has {known}" if known else "it has none"))
        found.append(number)
    return found

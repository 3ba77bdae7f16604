"""Latents, and images from latents: an image depends on its seed, its class and its number, and on nothing else."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sagan.device import full_precision
from sagan.errors import UserError
from sagan.model.batch_norm import MOMENTUM, ConditionalBatchNorm2d
from sagan.model.generator import Generator
from sagan.pixels import to_bytes
from sagan.text import find_name

BATCH = 64  # images drawn at once for metrics
SAMPLE_BATCH = 16  # images drawn at once by `sample`, always as many, so that rounding is the same for every count


def draw_latents(
    count: int,
    latent_dim: int,
    *,
    seed: int,
    truncation: float | None = None,
    label: int | None = None,
    start: int = 0,
) -> Tensor:
    """Draw latents (count, latent_dim) float32 from a normal distribution, truncated to |z| <= truncation if given.

    Row i is latent number `start + i` of the seed and label. It depends on nothing else, and moves smoothly with the
    truncation (Brock et al. 2019, section 3.1). Number k of a label is what `sagan sample` draws image k of that class
    from. Each label has latents of its own, so that many images of many classes have as many different latents.

    The normal values are quantiles of uniform ones from a Philox generator, whose seed sequence has the spawn key
    (label,), or () without a label.

    Args:
        count: number of latents.
        latent_dim: their length.
        seed: 0 or more.
        truncation: above 0.
        label: number of the class; None: the latents of a generator without classes.
        start: number of the first latent. Earlier ones are not computed.

    Raises:
        ValueError: an argument is out of its range.
    """
    if count < 0 or start < 0 or seed < 0 or (label is not None and label < 0):
        raise ValueError(f"count {count}, start {start}, seed {seed} and label {label} must be 0 or more")
    if truncation is not None and not 0 < truncation < math.inf:
        raise ValueError(f"truncation must be above 0 and finite, got {truncation}")
    bits = np.random.Philox(np.random.SeedSequence(seed, spawn_key=() if label is None else (label,)))
    blocks, rest = divmod(start * latent_dim, 4)  # Philox computes four values at a time
    bits.advance(blocks)
    bits.random_raw(rest)
    u = torch.from_numpy(np.random.Generator(bits).random((count, latent_dim))).clamp_min(2.0**-54)
    if truncation is not None:
        tail = torch.special.ndtr(torch.tensor(-truncation, dtype=torch.float64))
        u = tail + u * (1 - 2 * tail)
    return torch.special.ndtri(u).float()


@dataclass(frozen=True)
class SampleSet:
    """The images that `sagan sample` draws: of each class, `count` images of each seed, or one of each given latent.

    Images are numbered class by class, within a class seed by seed. Nothing is computed before `inputs` is called, so
    that a set may be larger than the memory.
    """

    latent_dim: int
    count: int
    """Images of each class and seed; ignored if `latents` are given."""
    labels: Sequence[int] = ()
    """Numbers of the classes; empty: the generator has no classes."""
    seeds: Sequence[int] = (0,)
    truncation: float | None = None
    latents: NDArray[np.floating] | None = field(default=None, compare=False)
    """(N, latent_dim), used for every class instead of latents drawn from seeds."""

    @property
    def per_class(self) -> int:
        """Number of images of each class."""
        return self.count * len(self.seeds) if self.latents is None else len(self.latents)

    @property
    def total(self) -> int:
        """Number of images."""
        return self.per_class * max(1, len(self.labels))

    def place(self, i: int) -> tuple[int | None, int | None, int]:
        """Return class, seed and number of image i; None for a class or seed that the set does not have."""
        label_at, j = divmod(i, self.per_class)
        label = self.labels[label_at] if self.labels else None
        if self.latents is not None:
            return label, None, j
        seed_at, k = divmod(j, self.count)
        return label, self.seeds[seed_at], k

    def inputs(self, start: int = 0, stop: int | None = None) -> tuple[Tensor, Tensor]:
        """Return latents z (n, latent_dim) float32 and classes y (n,) int64 of the images from start to stop."""
        stop = self.total if stop is None else min(stop, self.total)
        z, y = [torch.empty(0, self.latent_dim)], [torch.empty(0, dtype=torch.int64)]
        while start < stop:
            # The images that follow one another within a class and seed.
            label, seed, k = self.place(start)
            count = min(stop - start, (self.count if self.latents is None else self.per_class) - k)
            if self.latents is not None:
                z.append(torch.from_numpy(np.array(self.latents[k : k + count], np.float32)))
            else:
                assert seed is not None
                part = draw_latents(count, self.latent_dim, seed=seed, truncation=self.truncation, label=label, start=k)
                z.append(part)
            y.append(torch.full((count,), label or 0))
            start += count
        return torch.cat(z), torch.cat(y)


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


def sample(generator: Generator, z: Tensor, y: Tensor) -> NDArray[np.uint8]:
    """Draw images (N, H, W, C) uint8 as an array; arguments as for `sample_batches`.

    Equal latents and classes give equal images, whatever else is drawn: the last batch is filled up, since batches of
    other sizes round differently.
    """
    filled = torch.arange(-(-len(z) // SAMPLE_BATCH) * SAMPLE_BATCH).clamp_max(len(z) - 1)
    batches = [batch.permute(0, 2, 3, 1) for batch in sample_batches(generator, z[filled], y[filled], SAMPLE_BATCH)]
    return torch.cat(batches)[: len(z)].contiguous().numpy()


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

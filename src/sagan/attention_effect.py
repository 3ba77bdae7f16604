"""Measure what self-attention layers do to a generator's images: their gammas scaled, or the layers off."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sagan.attention_maps import attention_layers, evaluation
from sagan.labels import Labels, as_labels, names_of
from sagan.model.discriminator import Discriminator
from sagan.model.generator import Generator
from sagan.sampling import sample


@contextmanager
def scaled_gammas(network: Generator | Discriminator, factors: Mapping[str, float]) -> Iterator[None]:
    """Multiply the gammas of self-attention layers by factors while the context lasts: 1 as trained, 0 off.

    Args:
        network: its gammas are restored bit for bit afterwards.
        factors: by the layers' names or sizes, as `attention_layers` accepts them.

    Raises:
        UserError: the network does not have a layer.
    """
    scaled = [(layer, f) for name, f in factors.items() for layer in attention_layers(network, [name]).values()]
    trained = [layer.gamma.detach().clone() for layer, _ in scaled]
    try:
        with torch.no_grad():
            for layer, factor in scaled:
                layer.gamma.mul_(factor)
        yield
    finally:
        with torch.no_grad():
            for (layer, _), gamma in zip(scaled, trained, strict=True):
                layer.gamma.copy_(gamma)


@dataclass(frozen=True)
class Difference:
    """How far two versions of an image are apart, in grey levels of 255."""

    mean: float
    """Mean absolute difference over all pixels and channels."""
    largest: int
    """The largest absolute difference of a pixel in a channel."""

    @property
    def average(self) -> str:
        """The mean in words; a difference that is there is never called 0.0."""
        return "less than 0.1" if 0 < self.mean < 0.05 else f"{self.mean:.1f}"

    def __str__(self) -> str:
        return f"{self.average} grey levels of 255 on average, {self.largest} at most"


def difference_of(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> Difference:
    """Compare images of the same shape."""
    apart = np.abs(a.astype(np.int16) - b)
    return Difference(float(apart.mean()), int(apart.max()))


def amplified_difference(a: NDArray[np.uint8], b: NDArray[np.uint8], gain: int) -> NDArray[np.uint8]:
    """Return gain · |a - b| as images (..., 1 or 3) uint8: black where they agree. Transparency is not shown."""
    colours = 3 if a.shape[-1] > 1 else 1
    apart = np.abs(a[..., :colours].astype(np.int16) - b[..., :colours])
    return np.minimum(apart * gain, 255).astype(np.uint8)


def visible_gain(largest: int) -> int:
    """Return the largest power of two, up to 32, by which a difference can be amplified without clipping."""
    gain = 1
    while gain < 32 and 2 * gain * largest <= 255:
        gain *= 2
    return gain


@dataclass(frozen=True)
class AttentionEffect:
    """Images of a generator as trained, and the same with self-attention layers off."""

    layers: tuple[str, ...]
    """Names of the layers that are off."""
    on: NDArray[np.uint8]
    """(N, R, R, C), as trained."""
    off: NDArray[np.uint8]
    """(N, R, R, C), from the same latents with every gamma of these layers at 0."""

    @property
    def total(self) -> Difference:
        """The difference over all images."""
        return difference_of(self.on, self.off)

    @property
    def each(self) -> list[Difference]:
        """The difference of each image."""
        return [difference_of(on, off) for on, off in zip(self.on, self.off, strict=True)]


def attention_effect(
    generator: Generator, z: Tensor, y: Labels | None = None, *, layers: Sequence[str] | None = None
) -> AttentionEffect:
    """Generate images as trained, and the same with self-attention layers off. The generator is left unchanged.

    Args:
        generator: as trained, or from `sagan.load`.
        z: latents (N, latent_dim).
        y: classes, one for all images or one for each: a tensor (N,), numbers, or names of a loaded generator's;
            optional if the generator is unconditional.
        layers: names or sizes of the layers to turn off; None: all.

    Raises:
        UserError: the layer does not exist, or the generator has no self-attention layer.
        ValueError: a class is missing or does not exist.
    """
    chosen = tuple(attention_layers(generator, layers))
    labels = as_labels(y, len(z), names_of(generator))
    with evaluation(generator):
        on = sample(generator, z, labels)
        with scaled_gammas(generator, dict.fromkeys(chosen, 0.0)):
            off = sample(generator, z, labels)
    return AttentionEffect(chosen, on, off)

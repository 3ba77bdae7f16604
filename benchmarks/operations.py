"""Count the operations of a training step from the networks' shapes, and check the count on other codebases.

    python benchmarks/operations.py [FOLDER_OF_CHECKOUTS]

A multiply-add is 2 operations. Convolutions, linear layers and attention's products are counted; the rest is below one
per cent. There are two counts:

plain: the usual form: 3x3 convolutions and 1x1 shortcuts on the large side of every resampling.
least: the same function in direct form with the fewest taps. A 3x3 convolution of a doubled image is a box sum of a
    transposed 3x3 convolution with stride 2, and the mean of 2x2 of a 3x3 convolution is a 3x3 convolution with stride
    2 of the image's box means: 9 taps for each pixel of the small side instead of 36. Shortcuts on the small side.

A training step runs G once without gradients and D on real and generated images, then G and D once with gradients.
The backward pass goes to weights and inputs, except to unused gradients: those of G's latents, of D's images in the D
step and of D's weights in the G step. With FOLDER_OF_CHECKOUTS, the plain count is compared with that of
torch.utils.flop_counter in the forward passes of the codebases found there.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from machine import Table, argument_parser
from peers import OURS, SIZES, Contender, build, names
from sagan import ModelConfig, TrainingConfig
from sagan.importers.networks import ImportedConfig
from sagan.model.attention import VALUE_REDUCTION


@dataclass(frozen=True)
class Product:
    """Operations of the forward pass of a convolution, a linear layer or a matrix product on one image."""

    plain: float
    least: float
    weights: bool = True
    """Whether one factor is a weight; otherwise both depend on the image."""
    first: bool = False
    """Whether the gradient of its input is unused."""


def convolution(c_in: int, c_out: int, taps: int, plain_side: int, least_side: int = 0, first: bool = False) -> Product:
    plain, least = (2.0 * taps * c_in * c_out * side**2 for side in (plain_side, least_side or plain_side))
    return Product(plain, least, first=first)


def attention(c: int, side: int, config: ModelConfig) -> Iterator[Product]:
    keys = side**2 // 4 if config.attention_variant == "released" else side**2
    d = max(1, c // config.query_reduction)
    e = max(1, c // (config.value_reduction or VALUE_REDUCTION[config.attention_variant]))
    for c_in, c_out in ((c, d), (c, d), (c, e), (e, c)):
        yield convolution(c_in, c_out, 1, side)
    for width in (d, e):
        yield Product(*2 * (2.0 * side**2 * keys * width,), weights=False)


def generator(config: ModelConfig) -> Iterator[Product]:
    channels = config.generator_channels
    yield Product(*2 * (2.0 * config.latent_dim * 16 * channels[0],), first=True)
    for i, (c_in, c_out) in enumerate(pairwise(channels)):
        small, side = 4 << i, 8 << i
        yield convolution(c_in, c_out, 9, side, small)
        yield convolution(c_out, c_out, 9, side)
        yield convolution(c_in, c_out, 1, side, small)
    for side, kind in config.attention_at("generator"):
        assert kind == "self", "counted for self-attention only"
        yield from attention(channels[(side // 4).bit_length() - 1], side, config)
    yield convolution(channels[-1], config.image_channels, 9, config.resolution)


def discriminator(config: ModelConfig) -> Iterator[Product]:
    channels, side = config.discriminator_channels, config.resolution
    for i, (c_in, c_out) in enumerate(pairwise((config.image_channels, *channels))):
        inner = c_in if i and isinstance(config, ImportedConfig) and config.discriminator_inner == "in" else c_out
        halved = i < config.halvings
        small = side // 2 if halved else side
        yield convolution(c_in, inner, 9, side, first=not i)
        yield convolution(inner, c_out, 9, side, small)
        if halved or c_in != c_out:
            yield convolution(c_in, c_out, 1, side if i else small, small, first=not i)
        side = small
    for at, kind in config.attention_at("discriminator"):
        assert kind == "self", "counted for self-attention only"
        yield from attention(channels[(config.resolution // at).bit_length() - 2], at, config)
    yield Product(*2 * (2.0 * channels[-1],))


def operations(config: ModelConfig, *, least: bool = True) -> float:
    """Return the operations of one training step per real image in the batch."""

    def total(products: Iterator[Product], passes: Callable[[Product], int]) -> float:
        return sum((p.least if least else p.plain) * passes(p) for p in products)

    def in_generator(p: Product) -> int:
        """Count two forward passes and one backward pass: to the weights, and to the inputs where needed."""
        return 2 + (2 - p.first)

    def in_discriminator(p: Product) -> int:
        """Count forward passes with three images, backward passes with three to the inputs and two to the weights."""
        return 3 + (3 - 2 * p.first) + 2 if p.weights else 3 + 2 * 3

    return total(generator(config), in_generator) + total(discriminator(config), in_discriminator)


def forward(config: ModelConfig, *, least: bool = False) -> tuple[float, float]:
    """Return the operations of one image's forward pass in G and in D."""
    g, d = (sum(p.least if least else p.plain for p in n(config)) for n in (generator, discriminator))
    return g, d


def describe_operations(config: ModelConfig) -> str:
    """Describe both counts in a line."""
    plain, least = (operations(config, least=which) / 1e9 for which in (False, True))
    g, d = (n / 1e9 for n in forward(config))
    return (
        f"Operations of a training step per image: {least:.3g} GFLOP at least, {plain:.3g} in the usual "
        f"form (forward: G {g:.3g}, D {d:.3g})."
    )


def counted(one: Contender, config: ModelConfig) -> tuple[float, float]:
    """Return PyTorch's count of the forward passes of a codebase's networks on one image: of 3 images minus of 2."""

    def flops(network: nn.Module, count: int) -> int:
        y = torch.zeros(count, dtype=torch.int64)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            if network is one.generator:
                one.draw(network, torch.randn(count, config.latent_dim), y)
            else:
                network(torch.randn(count, config.image_channels, config.resolution, config.resolution), y)
        return counter.get_total_flops()

    g, d = (flops(n.eval(), 3) - flops(n, 2) for n in (one.generator, one.discriminator))
    return g, d


def shaped_as(name: str, config: ModelConfig) -> ModelConfig:
    """Return the configuration in which our networks have the shapes of a codebase's."""
    if name == "mimicry":
        return ImportedConfig(**asdict(config) | {"architecture": "imported", "discriminator_inner": "in"})
    if config.resolution == 128 and name in ("BigGAN-PyTorch", "PyTorch-StudioGAN"):
        return replace(config, generator_attention=((64, "self"),), discriminator_attention=((64, "self"),))
    return config


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("folder", type=Path, nargs="?")
    folder = parser.parse_args().folder
    notes = [f"{size}: {describe_operations(config)}" for size, config in SIZES.items()]
    columns = ("size", "codebase", "PyTorch counts G, D, GFLOP", "we count G, D, GFLOP")
    table = Table("Operations of a forward pass, one image", columns, notes=notes)
    for size, config in SIZES.items():
        for name in names(folder, size) if folder else ():
            if name == OURS:
                continue
            theirs = counted(build(name, folder, config, TrainingConfig(batch_size=2)), config)
            plain = forward(shaped_as(name, config))
            table.row(size, name, *(f"{g / 1e9:.4f}, {d / 1e9:.4f}" for g, d in (theirs, plain)))


if __name__ == "__main__":
    main()

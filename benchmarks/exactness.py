"""Measure the largest relative difference of each fast form from its plain form or definition.

    python benchmarks/exactness.py [--save exactness]

The plain forms are those of the tests (tests/reference.py). Differences are |fast - plain| / |plain|, with norms over
all elements, for values and for gradients with respect to inputs and weights.
"""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import reference
from machine import Table, argument_parser
from sagan import Discriminator, Generator, ModelConfig, SelfAttention2d, TrainingConfig
from sagan.model import attention, resample, spectral_norm
from sagan.training.step import Trainer


def compare(fast: Callable[..., Tensor], plain: Callable[..., Tensor], inputs: Iterable[Tensor]) -> tuple[float, float]:
    """Return the difference of the values, and the largest of the gradients."""
    inputs = [t.requires_grad_() for t in inputs]
    a, b = fast(), plain()
    direction = torch.randn_like(a)
    gradients = zip(*(torch.autograd.grad((y * direction).sum(), inputs) for y in (a, b)), strict=True)
    return relative(a, b), max(relative(*pair) for pair in gradients)


def relative(a: Tensor, b: Tensor) -> float:
    return ((a - b).norm() / b.norm().clamp_min(1e-300)).item()


def layer(table: Table, dtype: torch.dtype) -> None:
    for variant in ("released", "paper", "full"):
        worst = [0.0, 0.0]
        for size in ((7, 5), (16, 16), (13, 32)):
            x = torch.randn(2, 32, *size, dtype=dtype)
            module = SelfAttention2d(32, variant, spectral_norm=False).to(dtype)
            torch.nn.init.constant_(module.gamma, 0.7)
            weights = [getattr(module, name).weight for name in ("query", "key", "value", "output")]

            def plain(x=x, module=module, weights=weights):
                flat = (w.flatten(1) for w in weights)
                return reference.attention(x, *flat, module.gamma, module.pooled)[0]

            pair = compare(lambda x=x, module=module: module(x), plain, [x, *module.parameters()])
            worst = [max(both) for both in zip(worst, pair, strict=True)]
        table.row(f"self-attention, {variant}: equations 1-3, {name_of(dtype)}", *map(short, worst))


def resampling(table: Table, dtype: torch.dtype) -> None:
    for name in ("upsample_conv3x3", "conv3x3_downsample"):
        tensors = [torch.randn(s, dtype=dtype) for s in ((4, 64, 32, 32), (48, 64, 3, 3), (48,))]
        fast, plain = getattr(resample, name), getattr(reference, name)
        pair = compare(lambda f=fast, t=tensors: f(*t), lambda f=plain, t=tensors: f(*t), tensors)
        table.row(f"{name}, {name_of(dtype)}", *map(short, pair))


def norm(table: Table) -> None:
    weight = torch.randn(256, 128, 3, 3, dtype=torch.float64)
    module = spectral_norm.SpectralNorm(256).double()
    for iterations in (1, 10, 100, 1000):
        for _ in range(iterations - (iterations > 1) * iterations // 10):
            normalised = module(weight)
        largest = torch.linalg.svdvals(normalised.flatten(1))[0].item()
        table.row(f"spectral norm: singular value after {iterations} iterations, from 1", short(abs(largest - 1)))


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def short(value: float) -> str:
    return f"{value:.1e}"


def losses(fast: bool, dtype: torch.dtype, steps: int) -> Tensor:
    torch.set_default_dtype(dtype)
    model = ModelConfig(resolution=32, num_classes=3, latent_dim=16, base_channels=8)
    trainer = Trainer(model, TrainingConfig(batch_size=8, precision="fp32"), torch.device("cpu"))
    for network in (trainer.generator, trainer.discriminator):
        for name, parameter in network.named_parameters():
            if name.endswith("gamma"):
                torch.nn.init.constant_(parameter, 0.5)

    def batch(i: int) -> tuple[Tensor, Tensor]:
        rng = torch.Generator().manual_seed(i)
        x = torch.randint(256, (8, 3, 32, 32), generator=rng, dtype=torch.uint8)
        return x, torch.randint(3, (8,), generator=rng)

    plain = {
        (resample, "upsample_conv3x3"): reference.upsample_conv3x3,
        (resample, "conv3x3_downsample"): reference.conv3x3_downsample,
        (attention, "attend"): reference.attend,
        (spectral_norm.SpectralNorm, "forward"): reference.spectral_norm,
    }
    patches = [mock.patch.object(*where, what) for where, what in plain.items()] if not fast else []
    for patch in patches:
        patch.start()
    rows = [trainer.train_step(i, batch) for i in range(steps)]
    mock.patch.stopall()
    torch.set_default_dtype(torch.float32)
    return torch.tensor([[r["loss/discriminator"], r["loss/generator"]] for r in rows], dtype=torch.float64)


def main() -> None:
    options = argument_parser(__doc__, save=True).parse_args()
    torch.manual_seed(0)
    table = Table("Fast forms against plain ones", ("what", "values", "gradients"), save=options.save)
    for dtype in (torch.float64, torch.float32):
        layer(table, dtype)
        resampling(table, dtype)
    norm(table)
    for dtype, steps in ((torch.float64, 200), (torch.float32, 10), (torch.float32, 200)):
        difference = (losses(True, dtype, steps) - losses(False, dtype, steps)).abs().max().item()
        table.row(f"losses of {steps} training steps, {name_of(dtype)}, absolute", short(difference))
    config = ModelConfig(resolution=128, num_classes=1000)
    for network in (Generator(config), Discriminator(config)):
        count = sum(p.numel() for p in network.parameters())
        table.row(f"parameters of the {type(network).__name__.lower()} at 128 px, 1000 classes", f"{count:,}")


if __name__ == "__main__":
    main()

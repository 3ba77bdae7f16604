"""How far is a training step in bf16 from the same step in float64? Differences of losses and gradients.

    python benchmarks/bf16_error.py [--width 8] [--seeds 16] [--save bf16_error]

32 px, 3 classes, batch 16, gamma 0.5: the first step from the same weights, images and random numbers. Losses: absolute
difference; gradients: |bf16 - float64| / |float64|, norms over all weights of a network. Means over seeds.
"""

import argparse
from typing import Any

import torch
from torch import Tensor, nn

from machine import Table
from sagan import ModelConfig, TrainingConfig
from sagan.training.step import Trainer

BATCH = 16
CASES: dict[str, dict[str, Any]] = {
    "hinge": {},
    "relativistic": {"loss": "relativistic"},
    "hinge, color": {"augment": ("color",)},
}


def images(number: int) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(number)
    x = torch.randint(256, (BATCH, 32, 32, 3), generator=rng, dtype=torch.uint8).permute(0, 3, 1, 2)
    return x, torch.randint(3, (BATCH,), generator=rng)


def to_float64(network: nn.Module) -> None:
    def convert(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(t.double() if t.is_floating_point() else t for t in inputs)

    network.double().register_forward_pre_hook(convert)


def first_step(width: int, precision: str, options: dict[str, Any], *, exact: bool = False) -> list[Tensor]:
    """Both losses, then D's and G's gradient, of the first step; in float64 if `exact`."""
    model = ModelConfig(resolution=32, num_classes=3, latent_dim=64, base_channels=width)
    training = TrainingConfig(batch_size=BATCH, precision=precision, steps=100, discriminator_lr=1e-12, **options)
    trainer = Trainer(model, training, torch.device("cpu"))
    networks = (trainer.discriminator, trainer.generator)
    for network in networks:
        for name, parameter in network.named_parameters():
            if name.endswith("gamma"):
                nn.init.constant_(parameter, 0.5)
    if exact:
        trainer.ema.network.double()
        for network in networks:
            to_float64(network)
    log = trainer.train_step(0, images)
    gradients = [torch.cat([p.grad.double().flatten() for p in network.parameters()]) for network in networks]
    return [log["loss/discriminator"].double(), log["loss/generator"].double(), *gradients]


def error(width: int, seed: int, options: dict[str, Any]) -> Tensor:
    rounded = first_step(width, "bf16", options | {"seed": seed})
    exact = first_step(width, "fp32", options | {"seed": seed}, exact=True)
    scales = [torch.tensor(1.0), torch.tensor(1.0), exact[2].norm(), exact[3].norm()]
    return torch.stack([(a - b).norm() / s for a, b, s in zip(rounded, exact, scales, strict=True)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=8, help="base_channels")
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--save", default="", metavar="NAME", help="also write benchmarks/results/NAME.md")
    options = parser.parse_args()
    title = "How far is a training step in bf16 from the same step in float64?"
    table = Table(title, ("step", "loss of D", "loss of G", "gradient of D", "gradient of G"), save=options.save)
    for name, case in CASES.items():
        mean = torch.stack([error(options.width, seed, case) for seed in range(options.seeds)]).mean(0)
        table.row(f"{name}, width {options.width}", *(f"{value:.1e}" for value in mean.tolist()))


if __name__ == "__main__":
    main()

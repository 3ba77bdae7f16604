"""Each loss against its formula, written out number by number."""

import math
from typing import get_args

import pytest
import torch

from sagan.config import LossName
from sagan.training.losses import LOSSES

REAL, FAKE = [1.5, -0.5, 0.2], [-2.0, 0.3, 0.9]


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def softplus(x):
    return math.log1p(math.exp(x))


WANTED = {
    "hinge": (
        mean(max(0, 1 - r) for r in REAL) + mean(max(0, 1 + f) for f in FAKE),
        -mean(FAKE),
    ),
    "non-saturating": (
        mean(-math.log(sigmoid(r)) for r in REAL) + mean(-math.log(1 - sigmoid(f)) for f in FAKE),
        mean(-math.log(sigmoid(f)) for f in FAKE),
    ),
    "least-squares": (
        0.5 * mean((r - 1) ** 2 for r in REAL) + 0.5 * mean(f**2 for f in FAKE),
        0.5 * mean((f - 1) ** 2 for f in FAKE),
    ),
    "wasserstein": (mean(FAKE) - mean(REAL), -mean(FAKE)),
    "relativistic": (
        mean(softplus(f - r) for r, f in zip(REAL, FAKE, strict=True)),
        mean(softplus(r - f) for r, f in zip(REAL, FAKE, strict=True)),
    ),
}


def test_the_names_of_losses_are_those_of_the_option():
    assert get_args(LossName) == tuple(LOSSES)


@pytest.mark.parametrize("name", LOSSES)
def test_formula(name):
    real, fake = torch.tensor(REAL, dtype=torch.float64), torch.tensor(FAKE, dtype=torch.float64)
    loss = LOSSES[name]
    wanted_discriminator, wanted_generator = WANTED[name]
    assert loss.discriminator(real, fake).item() == pytest.approx(wanted_discriminator, rel=1e-12)
    assert loss.generator(real, fake).item() == pytest.approx(wanted_generator, rel=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_each_side_pulls_its_way(name):
    """The discriminator wants real logits up and fake ones down; the generator wants fake ones up."""
    real, fake = torch.zeros(4, requires_grad=True), torch.zeros(4, requires_grad=True)
    LOSSES[name].discriminator(real, fake).backward()
    assert (real.grad < 0).all()
    assert (fake.grad >= 0).all()
    (gradient,) = torch.autograd.grad(LOSSES[name].generator(real, fake), fake)
    assert (gradient < 0).all()

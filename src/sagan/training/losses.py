"""Pairs of adversarial losses: logits in, scalars out. D(x) is high for real images."""

from typing import Protocol

import torch.nn.functional as F
from torch import Tensor

from sagan.config import LossName


class Loss(Protocol):
    """A pair of losses to minimise. `real` and `fake` are logits (N,) of real and of generated images."""

    needs_real: bool  # the generator's loss uses `real`

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor: ...

    def generator(self, real: Tensor | None, fake: Tensor) -> Tensor: ...


class Hinge:
    """L_D = E[max(0, 1 - D(x))] + E[max(0, 1 + D(G(z)))], L_G = -E[D(G(z))] (paper, section 3)."""

    needs_real = False

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()

    def generator(self, real: Tensor | None, fake: Tensor) -> Tensor:
        return -fake.mean()


class NonSaturating:
    """L_D = E[softplus(-D(x))] + E[softplus(D(G(z)))], L_G = E[softplus(-D(G(z)))] (Goodfellow et al. 2014)."""

    needs_real = False

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return F.softplus(-real).mean() + F.softplus(fake).mean()

    def generator(self, real: Tensor | None, fake: Tensor) -> Tensor:
        return F.softplus(-fake).mean()


class LeastSquares:
    """L_D = (E[(D(x) - 1)^2] + E[D(G(z))^2]) / 2, L_G = E[(D(G(z)) - 1)^2] / 2 (Mao et al. 2017, equation 9)."""

    needs_real = False

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return ((real - 1).square().mean() + fake.square().mean()) / 2

    def generator(self, real: Tensor | None, fake: Tensor) -> Tensor:
        return (fake - 1).square().mean() / 2


class Wasserstein:
    """L_D = E[D(G(z))] - E[D(x)], L_G = -E[D(G(z))] (Arjovsky et al. 2017)."""

    needs_real = False

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return fake.mean() - real.mean()

    def generator(self, real: Tensor | None, fake: Tensor) -> Tensor:
        return -fake.mean()


class Relativistic:
    """L_D = E[softplus(D(G(z)) - D(x))], L_G = E[softplus(D(x) - D(G(z)))], in pairs (R3GAN, Huang et al. 2024)."""

    needs_real = True

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return F.softplus(fake - real).mean()

    def generator(self, real: Tensor | None, fake: Tensor) -> Tensor:
        if real is None:
            raise ValueError("the relativistic loss of the generator needs the logits of real images")
        return F.softplus(real - fake).mean()


LOSSES: dict[LossName, Loss] = {
    "hinge": Hinge(),
    "non-saturating": NonSaturating(),
    "least-squares": LeastSquares(),
    "wasserstein": Wasserstein(),
    "relativistic": Relativistic(),
}

"""What may be added to the discriminator's loss: gradient penalties and LeCam."""

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel


def _gradient(discriminator: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The gradient of D at each picture, (N, C·H·W), itself differentiable."""
    x = x.detach().requires_grad_(True)
    # The fused attention kernels have no second derivative; the plain one, which stores the map, does.
    with sdpa_kernel(SDPBackend.MATH):
        logits = discriminator(x, y)
    (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    return gradient.flatten(1)


def zero_centred(discriminator: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """E[|grad D(x)|^2] / 2: R1 at real pictures x (N, C, H, W), R2 at generated ones (Mescheder et al. 2018)."""
    return _gradient(discriminator, x, y).square().sum(1).mean() / 2


def one_centred(discriminator: nn.Module, real: Tensor, fake: Tensor, y: Tensor, noise: torch.Generator) -> Tensor:
    """E[(|grad D(x)| - 1)^2] at x drawn uniformly between real and generated pictures (Gulrajani et al. 2017)."""
    t = torch.rand(len(real), 1, 1, 1, generator=noise, device=real.device).to(real)
    norms = _gradient(discriminator, torch.lerp(fake, real, t), y).norm(dim=1)
    return (norms - 1).square().mean()


class LeCam(nn.Module):
    """E[(D(x) - a_F)^2] + E[(D(G(z)) - a_R)^2], a_R and a_F the moving averages of the logits (Tseng et al. 2021).

    The averages, of decay 0.99, are buffers: a checkpoint keeps them.
    """

    real: Tensor
    fake: Tensor

    def __init__(self, decay: float = 0.99):
        super().__init__()
        self.decay = decay
        self.register_buffer("real", torch.zeros(()))
        self.register_buffer("fake", torch.zeros(()))

    def forward(self, real: Tensor, fake: Tensor) -> Tensor:
        self.real.lerp_(real.detach().mean().float(), 1 - self.decay)
        self.fake.lerp_(fake.detach().mean().float(), 1 - self.decay)
        return (real - self.fake.clone()).square().mean() + (fake - self.real.clone()).square().mean()

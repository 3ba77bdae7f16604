"""What may be added to the discriminator's loss: gradient penalties and LeCam."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from sagan.model.autocast import without_autocast
from sagan.model.convolution import only_input_gradients
from sagan.training.rng import Noise


def _gradient(discriminator: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The gradient of D at each picture, (N, C·H·W), itself differentiable, in the precision of x and the weights."""
    x = x.detach().requires_grad_(True)
    # The fused attention kernels have no second derivative; the plain one, which stores the map, does.
    with without_autocast(x.device), sdpa_kernel(SDPBackend.MATH):
        logits = discriminator(x, y)
        with only_input_gradients():
            (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    return gradient.flatten(1)


def zero_centred(discriminator: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """E[|grad D(x)|^2] / 2: R1 at real pictures x (N, C, H, W), R2 at generated ones (Mescheder et al. 2018)."""
    return _gradient(discriminator, x, y).square().sum(1).mean() / 2


def one_centred(discriminator: nn.Module, real: Tensor, fake: Tensor, y: Tensor, noise: Noise) -> Tensor:
    """E[(|grad D(x)| - 1)^2] at x drawn uniformly between real and generated pictures (Gulrajani et al. 2017)."""
    t = noise.uniform(len(real), 0.0, 1.0, torch.get_default_dtype()).to(real)
    norms = _gradient(discriminator, torch.lerp(fake, real, t), y).norm(dim=1)
    return (norms - 1).square().mean()


class LeCam(nn.Module):
    """E[(D(x) - a_F)^2] + E[(D(G(z)) - a_R)^2], a_R and a_F the moving averages of the logits (Tseng et al. 2021).

    The averages, of decay 0.99, are buffers: a checkpoint keeps them.

    Args:
        average: the mean of a tensor over the processes that share a batch; None: there is but this one.
    """

    real: Tensor
    fake: Tensor

    def __init__(self, decay: float = 0.99, average: Callable[[Tensor], Tensor] | None = None):
        super().__init__()
        self.decay, self.average = decay, average
        self.register_buffer("real", torch.zeros(()))
        self.register_buffer("fake", torch.zeros(()))

    def forward(self, real: Tensor, fake: Tensor) -> Tensor:
        means = torch.stack([real.detach().mean(), fake.detach().mean()]).to(self.real)
        if self.average is not None:
            means = self.average(means)
        self.real.lerp_(means[0], 1 - self.decay)
        self.fake.lerp_(means[1], 1 - self.decay)
        return (real - self.fake.clone()).square().mean() + (fake - self.real.clone()).square().mean()

"""Regularisers of the discriminator's loss: gradient penalties and LeCam."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from sagan.model.autocast import without_autocast
from sagan.model.convolution import only_input_gradients


def _gradient(discriminator: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the gradient of D at each image, (N, C·H·W), differentiable, in the precision of x and the weights."""
    x = x.detach().requires_grad_(True)
    # Fused attention kernels have no second derivative. The plain kernel, which stores the map, has one.
    with without_autocast(x.device), sdpa_kernel(SDPBackend.MATH):
        logits = discriminator(x, y)
        with only_input_gradients():
            (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    return gradient.flatten(1)


def zero_centred(discriminator: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return |grad D(x)|^2 / 2 of each image, (N,), for x (N, C, H, W) and y (N,).

    The mean is R1 at real images, R2 at generated ones (Mescheder et al. 2018).
    """
    return _gradient(discriminator, x, y).square().sum(1) / 2


def one_centred(discriminator: nn.Module, real: Tensor, fake: Tensor, y: Tensor, mix: Tensor) -> Tensor:
    """Return E[(|grad D(x)| - 1)^2] at x between real and generated images (Gulrajani et al. 2017).

    Args:
        mix: (N, 1, 1, 1), uniform in [0, 1): x = fake + mix * (real - fake).
    """
    norms = _gradient(discriminator, torch.lerp(fake, real, mix.to(real)), y).norm(dim=1)
    return (norms - 1).square().mean()


class LeCam(nn.Module):
    """Computes E[(D(x) - a_F)^2] + E[(D(G(z)) - a_R)^2] (Tseng et al. 2021).

    a_R and a_F, the moving averages of the logits of real and of generated images, are buffers: a checkpoint has them.

    Args:
        decay: of the moving averages.
        average: returns the mean of a tensor over the processes that share a batch; None: one process has all of it.
    """

    real: Tensor
    fake: Tensor

    def __init__(self, decay: float = 0.99, average: Callable[[Tensor], Tensor] | None = None):
        super().__init__()
        self.decay, self.average = decay, average
        self.register_buffer("real", torch.zeros(()))
        self.register_buffer("fake", torch.zeros(()))
        self._before = torch.zeros(2)  # both averages before this step
        self._total = torch.zeros(2)  # sums of the means of this step's micro-batches

    def forward(self, real: Tensor, fake: Tensor, *, micro_batch: int = 0) -> Tensor:
        """Update the averages by the logits (N,) of real and of generated images, and return the penalty.

        The averages move once a step, by the mean over its micro-batches; each micro-batch sees the mean so far.

        Args:
            micro_batch: number of this micro-batch in the step, from 0.
        """
        means = torch.stack([real.detach().mean(), fake.detach().mean()]).to(self.real)
        if self.average is not None:
            means = self.average(means)
        if micro_batch == 0:
            self._before, self._total = torch.stack([self.real, self.fake]), means
        else:
            self._total = self._total + means
        moved = torch.lerp(self._before, self._total / (micro_batch + 1), 1 - self.decay)
        self.real.copy_(moved[0])
        self.fake.copy_(moved[1])
        return (real - self.fake.clone()).square().mean() + (fake - self.real.clone()).square().mean()

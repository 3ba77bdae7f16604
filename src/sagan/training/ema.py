"""The exponential moving average of the generator, from which pictures are drawn."""

import copy

import torch
from torch import nn


class EMA:
    """Follows a network: each of its floating-point tensors becomes decay · average + (1 - decay) · current.

    Batch-norm statistics are averaged too, so that they fit the averaged weights; the spectral norms' vectors and
    the counters are copied. Before step `start` the average equals the network.
    """

    def __init__(self, network: nn.Module, decay: float, start: int = 0):
        self.decay, self.start = decay, start
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        averaged: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
        for (name, average), current in zip(
            self.network.state_dict().items(), network.state_dict().values(), strict=True
        ):
            if step < self.start or not average.is_floating_point() or name.endswith(".norm.u"):
                average.copy_(current)
            else:
                averaged[0].append(average)
                averaged[1].append(current)
        if averaged[0]:
            torch._foreach_lerp_(averaged[0], averaged[1], 1 - self.decay)

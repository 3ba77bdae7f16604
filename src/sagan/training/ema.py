"""The exponential moving average of the generator, from which images are drawn."""

import copy

import torch
from torch import Tensor

from sagan.model.generator import Generator


class EMA:
    """Averages a generator: each floating-point tensor becomes decay · average + (1 - decay) · current.

    Batch-norm statistics are averaged too, so that they fit the averaged weights; the vectors of spectral norms are
    copied. Before step `start` the average equals the generator. t steps later the decay is at most
    (1 + t) / (10 + t), so that the weights at `start` do not dominate a young average.

    Args:
        network: the generator; the average starts as a copy.
        decay: in [0, 1).
        start: the first step that is averaged.
    """

    def __init__(self, network: Generator, decay: float, start: int = 0):
        self.decay, self.start = decay, start
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, network: Generator, step: int) -> None:
        """Add the generator as it is after a step, numbered from 0."""
        t = max(0, step - self.start)
        decay = min(self.decay, (1 + t) / (10 + t))
        # (averages, currents), for one call each.
        to_copy: tuple[list[Tensor], list[Tensor]] = ([], [])
        to_average: tuple[list[Tensor], list[Tensor]] = ([], [])
        for (name, average), current in zip(
            self.network.state_dict().items(), network.state_dict().values(), strict=True
        ):
            spectral_norm_vector = name.endswith((".u", ".v"))
            copies = step < self.start or not average.is_floating_point() or spectral_norm_vector
            averages, currents = to_copy if copies else to_average
            averages.append(average)
            currents.append(current)
        if to_copy[0]:  # empty if no weight is spectrally normalised
            torch._foreach_copy_(*to_copy)
        if to_average[0]:  # empty before `start`
            torch._foreach_lerp_(*to_average, 1 - decay)

"""The exponential moving average of the generator, from which pictures are drawn."""

import copy

import torch

from sagan.model.generator import Generator


class EMA:
    """Follows a generator: each of its floating-point tensors becomes decay · average + (1 - decay) · current.

    Batch-norm statistics are averaged too, so that they fit the averaged weights; the spectral norms' vectors are
    copied. Before step `start` the average equals the generator; in the first steps after it the decay is
    (1 + t) / (10 + t) at most, so that a young average is not held back by the weights it started from.
    """

    def __init__(self, network: Generator, decay: float, start: int = 0):
        self.decay, self.start = decay, start
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, network: Generator, step: int) -> None:
        t = max(0, step - self.start)
        decay = min(self.decay, (1 + t) / (10 + t))
        # Pairs of (average's, current) tensors, each kind in one call.
        copied: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
        averaged: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
        for (name, average), current in zip(
            self.network.state_dict().items(), network.state_dict().values(), strict=True
        ):
            vector = name.endswith((".u", ".v"))  # of a spectral norm
            pairs = copied if step < self.start or not average.is_floating_point() or vector else averaged
            pairs[0].append(average)
            pairs[1].append(current)
        if copied[0]:  # nothing, where no weight is spectrally normalised
            torch._foreach_copy_(*copied)
        if averaged[0]:
            torch._foreach_lerp_(*averaged, 1 - decay)

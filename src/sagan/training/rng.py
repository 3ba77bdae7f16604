"""The random numbers of a step: every process draws them for the whole batch and takes its own rows."""

import torch
from torch import Tensor


class StepRNG:
    """A stream of random numbers, one row an image.

    All processes draw the same numbers, for the images of all; of n times `count` rows, process `rank` gets every
    `count`-th. So several processes together draw what a single one draws.

    Args:
        seed: determines the stream.
        device: where the numbers are drawn.
        rank: number of this process.
        count: number of processes.
    """

    def __init__(self, seed: int, device: torch.device | None = None, *, rank: int = 0, count: int = 1):
        self.device = device or torch.device("cpu")
        self.rank = rank
        self.count = count
        self.stream = torch.Generator(self.device).manual_seed(seed)

    def normal(self, n: int, dim: int) -> Tensor:
        """Return (n, dim) standard normal numbers."""
        return self._share(torch.randn(n * self.count, dim, generator=self.stream, device=self.device))

    def uniform(self, n: int, low: float, high: float, dtype: torch.dtype) -> Tensor:
        """Return (n, 1, 1, 1) uniform numbers in [low, high)."""
        rows = torch.empty(n * self.count, 1, 1, 1, device=self.device, dtype=dtype)
        return self._share(rows.uniform_(low, high, generator=self.stream))

    def integers(self, n: int, low: int, high: int) -> Tensor:
        """Return (n,) uniform int64 in [low, high)."""
        return self._share(torch.randint(low, high, (n * self.count,), generator=self.stream, device=self.device))

    def _share(self, rows: Tensor) -> Tensor:
        return rows[self.rank :: self.count]

"""The random numbers of a step: drawn for the whole batch by every process, each of which takes its share."""

import torch
from torch import Tensor


class Noise:
    """A stream of random numbers, one row a picture.

    All processes draw the same numbers for all pictures; of n times `count` rows, process `rank` gets every
    `count`-th. So any number of processes draw together what one draws alone.

    Args:
        seed: the same seed, the same stream.
        device: where the numbers are to be.
        rank, count: which process this is, and of how many.
    """

    def __init__(self, seed: int, device: torch.device | None = None, *, rank: int = 0, count: int = 1):
        self.device, self.rank, self.count = device or torch.device("cpu"), rank, count
        self.stream = torch.Generator(self.device).manual_seed(seed)

    def normal(self, n: int, dim: int) -> Tensor:
        """(n, dim), standard normal."""
        return self._share(torch.randn(n * self.count, dim, generator=self.stream, device=self.device))

    def uniform(self, n: int, low: float, high: float, dtype: torch.dtype) -> Tensor:
        """(n, 1, 1, 1) in [low, high)."""
        rows = torch.empty(n * self.count, 1, 1, 1, device=self.device, dtype=dtype)
        return self._share(rows.uniform_(low, high, generator=self.stream))

    def integers(self, n: int, low: int, high: int) -> Tensor:
        """(n,) int64 in [low, high)."""
        return self._share(torch.randint(low, high, (n * self.count,), generator=self.stream, device=self.device))

    def _share(self, rows: Tensor) -> Tensor:
        return rows[self.rank :: self.count]

"""What training needs of images, wherever they lie: their number, an order, access, and reading ahead."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sagan.errors import UserError

Random = Callable[..., NDArray[np.uint64]]
"""`random(*key, count=n)` returns n reproducible random numbers, (n,) uint64."""


class Unavailable(UserError):
    """Report images that were there when a source was opened and cannot be read now."""


class Order(Protocol):
    """The order of an epoch: `order[places]` are the positions of the images at these places."""

    def __getitem__(self, places: NDArray[np.int64]) -> NDArray[np.int64]: ...


class Images(Protocol):
    """Images indexed as an array (N, H, W, C) uint8: `images[positions]` is a copy.

    Raises:
        Unavailable: on access, if the images cannot be read.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, positions: Any) -> NDArray[np.uint8]: ...

    def order(self, random: Random) -> Order:
        """Return the order of an epoch, in which every image occurs once, from the epoch's random numbers."""

    def read_ahead(self, number: int, positions: Callable[[int], NDArray[np.int64]]) -> None:
        """Prepare for batch `number` and for later ones.

        Args:
            number: number of the next batch.
            positions: returns the positions of the images of a batch, given its number.
        """

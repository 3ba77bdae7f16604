"""What the generator's attention does to one image, as the page shows it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sagan.attention_effect import Difference, amplified_difference, visible_gain


@dataclass(frozen=True)
class Effect:
    """What the generator's attention does to an image."""

    on: NDArray[np.uint8]
    """(R, R, C), as trained."""
    off: NDArray[np.uint8]
    """(R, R, C), with every gamma of the generator at 0."""
    difference: Difference
    """Between `on` and `off`."""
    now: Difference
    """Between `on` and the image with the gammas that were asked for."""

    @property
    def gain(self) -> int:
        """Factor by which `amplified` shows the difference."""
        return visible_gain(self.difference.largest)

    @property
    def amplified(self) -> NDArray[np.uint8]:
        """(R, R, 1 or 3): the amplified difference between `on` and `off`."""
        return amplified_difference(self.on, self.off, self.gain)

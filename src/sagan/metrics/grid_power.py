"""Measure grids of dots: local contrast that varies over an image with a period of 2, 4, 8 or 16 pixels.

An upsampling generator and a discriminator that halves its maps treat odd and even locations differently, at each of
their resolutions; what is left of it stands at the same places in all images, a grid whose period is a power of two.
The power spectrum of single images does not show it, as drawn shapes have as much power at those frequencies, and a
grid that is seen inside shapes only has no sharp line. But contents have no preferred place modulo such a period: the
local contrast, averaged over many images, is as high at one place of a period as at another, unless there is a grid.
Taking the contrast, not the values, makes dark and light dots count alike.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BATCH = 256  # images: bounds the memory
_KERNEL = np.array([1, 4, 6, 4, 1]) / 16  # binomial: local contrast is measured against this neighbourhood


@dataclass(frozen=True)
class GridPower:
    """Variance of the mean local contrast at one period, as a share of its squared mean.

    It is an unbiased estimate over images: around 0, and below it as often as above, if there is no grid. A modulation
    1 + a cos(2 pi x / period) has a^2 / 2, or a^2 at period 2.
    """

    across: float
    """Along x: columns that differ."""
    down: float
    """Along y: rows that differ."""
    diagonal: float
    """Along both, as a chessboard."""

    @property
    def total(self) -> float:
        return self.across + self.down + self.diagonal


def grid_power(images: NDArray[np.generic]) -> dict[int, GridPower]:
    """Return the power of a grid in images (N, R, R, C), R a power of two, for each period from 2 to R/4 pixels.

    Values differ with what the images show: flags have edges at the same place in each. Compare with real images of the
    same classes in the same proportions. The estimate's standard deviation falls as 1/N; 500 images are enough to see
    a modulation of a few percent.

    Raises:
        ValueError: fewer than two images, or not square with a side of a power of two, at least 8.
    """
    count, side = images.shape[:2]
    if count < 2 or images.shape[2] != side or side < 8 or side & (side - 1):
        raise ValueError(f"expected two or more square images with a side of 8, 16, 32, ..., got {images.shape}")
    return _pattern_power(_contrast(images[i : i + _BATCH]) for i in range(0, count, _BATCH))


def _contrast(images: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return the local contrast (N, R, R): the mean absolute difference of channels from their neighbourhood."""
    x = images.astype(np.float64)
    smooth = x
    for axis in (1, 2):
        width = [(2, 2) if i == axis else (0, 0) for i in range(4)]
        padded = np.pad(smooth, width, mode="edge")
        smooth = sum(w * np.take(padded, range(i, i + x.shape[axis]), axis) for i, w in enumerate(_KERNEL))
    return np.abs(x - smooth).mean(3)


def _pattern_power(parts: Iterator[NDArray[np.float64]]) -> dict[int, GridPower]:
    """Return the power at each period of what maps (N, R, R), in parts of any size, have in common."""
    count = 0
    total: NDArray[np.complex128] | float = 0.0
    squares: NDArray[np.float64] | float = 0.0
    for maps in parts:
        side = maps.shape[1]
        # Attenuate the borders, where contents differ from those inside.
        window = np.sin(np.pi * (np.arange(side) + 0.5) / side) ** 2
        spectra = np.fft.fft2(maps * np.outer(window, window))
        count += len(maps)
        total = total + spectra.sum(0)
        squares = squares + (np.abs(spectra) ** 2).sum(0)
    # The mean of products of different maps: of |mean spectrum|^2, without what a map shares only with itself.
    power = (np.abs(total) ** 2 - squares) / (count * (count - 1))

    def line(y: int, x: int) -> float:
        """Return the power of a frequency; the window spreads it over the next ones."""
        return float(sum(power[(y + j) % side, (x + i) % side] for j in (-1, 0, 1) for i in (-1, 0, 1)))

    mean = line(0, 0)
    result = {}
    for period in (2**i for i in range(1, side.bit_length() - 2)):
        k = side // period
        signs = (k,) if period == 2 else (k, -k)  # at period 2 both are one frequency
        across, down = (sum(line(y, x) for y, x in at) for at in ([(0, s) for s in signs], [(s, 0) for s in signs]))
        diagonal = sum(line(y, x) for y in signs for x in signs)
        result[period] = GridPower(across / mean, down / mean, diagonal / mean)
    return result

"""The truncation of `sagan.sampling.draw_latents` as a layer, from operations that every runtime has."""

import torch
from torch import Tensor, nn

KNOTS_PER_UNIT = 256
LARGEST = 9.0  # a standard normal number beyond it does not occur: 2e-19


def truncate(z: Tensor, truncation: float) -> Tensor:
    """Standard normal z to latents cut off at |z| <= truncation, float64: ndtri(tail + (1 - 2 tail) ndtr(z)).

    Exactly what draw_latents does with the uniform number that z came from; from the side on which it is accurate.
    """
    tail = _upper_tail(torch.tensor(truncation, dtype=torch.float64))
    below = tail + (1 - 2 * tail) * _upper_tail(z.abs().double())
    return -torch.special.ndtri(below) * z.sign()


def _upper_tail(z: Tensor) -> Tensor:
    """1 - ndtr(z), accurate for large z too, where torch.special.ndtr loses its digits."""
    return torch.erfc(z * 0.5**0.5) / 2


class Truncation(nn.Module):
    """Standard normal latents z (N, D) float32 to those cut off at |z| <= truncation, as `truncate`.

    ONNX has no inverse of the error function. So the map is interpolated between 256 knots a unit by cubics that meet
    its values and its slopes (Hermite): their error, h^4/384 times the fourth derivative, is far below the rounding
    of float32, at every truncation (tests/exporters/test_truncation.py).
    """

    cubics: Tensor

    def __init__(self, truncation: float):
        super().__init__()
        h = 1 / KNOTS_PER_UNIT
        z = torch.arange(LARGEST * KNOTS_PER_UNIT + 2, dtype=torch.float64) * h
        f = truncate(z, truncation)
        share = 1 - 2 * _upper_tail(torch.tensor(truncation, dtype=torch.float64))
        slope = share * torch.exp((f.square() - z.square()) / 2)  # of ndtri(tail + share ndtr(z)) at z
        rise, a, b = f.diff() / h, slope[:-1], slope[1:]
        cubics = torch.stack([f[:-1], a, (3 * rise - 2 * a - b) / h, (a + b - 2 * rise) / h**2], dim=1)
        self.register_buffer("cubics", cubics.float())  # (knots, 4): coefficients of 1, t, t^2, t^3

    def forward(self, z: Tensor) -> Tensor:
        size = z.abs().clamp(max=LARGEST)
        knot = (size * KNOTS_PER_UNIT).floor()
        t = size - knot / KNOTS_PER_UNIT
        c0, c1, c2, c3 = self.cubics[knot.long()].unbind(-1)
        return (c0 + t * (c1 + t * (c2 + t * c3))) * z.sign()

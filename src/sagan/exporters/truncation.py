"""The truncation of `sagan.sampling.draw_latents` as a layer of operations that every runtime has."""

import torch
from torch import Tensor, nn

KNOTS_PER_UNIT = 256
MAX_Z = 9.0  # |z| beyond it has a probability of 2e-19


def truncate(z: Tensor, truncation: float) -> Tensor:
    """Map standard normal z to truncated latents, |z| <= truncation, float64: ndtri(tail + (1 - 2 tail) ndtr(z)).

    draw_latents computes the same from the uniform number ndtr(z). For accuracy, z is mapped on its lower tail.
    """
    tail = _upper_tail(torch.tensor(truncation, dtype=torch.float64))
    probability = tail + (1 - 2 * tail) * _upper_tail(z.abs().double())
    return -torch.special.ndtri(probability) * z.sign()


def _upper_tail(z: Tensor) -> Tensor:
    """Return 1 - ndtr(z), also accurate for large z, where torch.special.ndtr loses digits."""
    return torch.erfc(z * 0.5**0.5) / 2


class Truncation(nn.Module):
    """Map standard normal latents z (N, D) float32 to truncated ones, |z| <= truncation, like `truncate`.

    ONNX has no inverse of the error function, so the map is interpolated between 256 knots a unit by cubics that match
    its values and slopes (Hermite). Their error, h^4/384 times the fourth derivative, is far below the rounding of
    float32 at every truncation (tests/exporters/test_truncation.py).
    """

    cubics: Tensor

    def __init__(self, truncation: float):
        super().__init__()
        h = 1 / KNOTS_PER_UNIT
        z = torch.arange(MAX_Z * KNOTS_PER_UNIT + 2, dtype=torch.float64) * h
        f = truncate(z, truncation)
        mass = 1 - 2 * _upper_tail(torch.tensor(truncation, dtype=torch.float64))
        slope = mass * torch.exp((f.square() - z.square()) / 2)  # d/dz ndtri(tail + mass ndtr(z))
        rise = f.diff() / h
        a = slope[:-1]
        b = slope[1:]
        cubics = torch.stack([f[:-1], a, (3 * rise - 2 * a - b) / h, (a + b - 2 * rise) / h**2], dim=1)
        self.register_buffer("cubics", cubics.float())  # (knots, 4): coefficients of 1, t, t^2, t^3

    def forward(self, z: Tensor) -> Tensor:
        magnitude = z.abs().clamp(max=MAX_Z)
        knot = (magnitude * KNOTS_PER_UNIT).floor()
        t = magnitude - knot / KNOTS_PER_UNIT
        c0, c1, c2, c3 = self.cubics[knot.long()].unbind(-1)
        return (c0 + t * (c1 + t * (c2 + t * c3))) * z.sign()

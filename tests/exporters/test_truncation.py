"""The truncation that goes into exported graphs, against the one that draws latents."""

import numpy as np
import pytest
import torch
from scipy.special import ndtr, ndtri

from sagan.exporters.truncation import Truncation, truncate
from sagan.sampling import draw_latents

TRUNCATIONS = [0.05, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0]
ULP = 2.0**-23  # of a float32 between 1 and 2


@pytest.mark.parametrize("truncation", TRUNCATIONS)
def test_is_the_map_in_float64(truncation):
    z = np.linspace(-6, 0, 2001)  # ndtr is accurate on this side
    tail = ndtr(-truncation)
    wanted = ndtri(tail + (1 - 2 * tail) * ndtr(z))
    found = truncate(torch.from_numpy(z), truncation).numpy()
    assert np.abs(found - wanted).max() < 1e-11
    assert np.array_equal(truncate(torch.from_numpy(-z), truncation).numpy(), -found)


@pytest.mark.parametrize("truncation", TRUNCATIONS)
def test_the_layer_rounds_as_float32_does(truncation):
    """Between, on and beyond the knots: never further from the exact map than two roundings."""
    z = torch.cat([torch.linspace(-9, 9, 200_001), torch.randn(200_000), torch.tensor([0.0, -20.0, 20.0])])
    wanted = truncate(z.clamp(-9, 9), truncation)
    error = (Truncation(truncation)(z).double() - wanted).abs()
    assert (error <= 2 * ULP * wanted.abs().clamp_min(1e-3)).all(), error.max()


@pytest.mark.parametrize("truncation", TRUNCATIONS)
def test_gives_the_latents_that_are_drawn_with_truncation(truncation):
    z = draw_latents(500, 64, seed=3)
    wanted = draw_latents(500, 64, seed=3, truncation=truncation)
    assert (Truncation(truncation)(z) - wanted).abs().max() < 4 * ULP * max(1, wanted.abs().max())

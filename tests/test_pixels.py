import numpy as np
import pytest
import torch

from sagan import UserError
from sagan.pixels import to_bytes, to_signed

ALL_BYTES = torch.arange(256, dtype=torch.uint8)


def test_the_range_is_from_minus_one_to_one():
    x = to_signed(ALL_BYTES)
    assert x.dtype == torch.float32
    np.testing.assert_allclose(x.numpy(), np.linspace(-1, 1, 256), atol=1e-7)
    assert (x[0], x[-1]) == (-1, 1)


def test_every_byte_comes_back():
    assert torch.equal(to_bytes(to_signed(ALL_BYTES)), ALL_BYTES)


def test_values_are_rounded_to_the_nearest_level_and_clamped():
    step = 2 / 255
    x = torch.tensor([-7.0, -1 + 0.49 * step, -1 + 0.51 * step, 1 - 0.51 * step, 1 - 0.49 * step, 7.0])
    assert to_bytes(x).tolist() == [0, 0, 1, 254, 255, 255]


def test_the_memory_format_is_kept():
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    assert to_signed(images).is_contiguous(memory_format=torch.channels_last)


def test_the_input_is_left_as_it_was():
    x = torch.full((2,), 0.5)
    to_bytes(x)
    assert x.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_generator_that_diverged_is_an_error(value):
    with pytest.raises(UserError, match=r"NaN\b.*\bdiverged\b"):
        to_bytes(torch.tensor([0.0, value]))

import pytest
import torch

import reference
from sagan.model import resample


@pytest.mark.parametrize("name", ["upsample_conv3x3", "conv3x3_downsample"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("size", [(4, 4), (6, 10), (2, 2)])
def test_equals_resampling_and_convolving_apart(name, dtype, tolerance, size):
    torch.manual_seed(0)
    x = torch.randn(2, 3, *size, dtype=dtype, requires_grad=True)
    w = torch.randn(5, 3, 3, 3, dtype=dtype, requires_grad=True)
    bias = torch.randn(5, dtype=dtype, requires_grad=True)
    got, wanted = getattr(resample, name)(x, w, bias), getattr(reference, name)(x, w, bias)
    assert (got - wanted).norm() / wanted.norm() < tolerance
    direction = torch.randn_like(got)
    fast = torch.autograd.grad((got * direction).sum(), (x, w, bias))
    plain = torch.autograd.grad((wanted * direction).sum(), (x, w, bias))
    for a, b in zip(fast, plain, strict=True):
        assert (a - b).norm() / b.norm() < tolerance

import pytest
import torch

import reference
from sagan.model import resample


@pytest.fixture(params=[0, 10**9], ids=["folded", "plain"])
def forced(request, monkeypatch):
    monkeypatch.setattr(resample, "FOLD_FROM_PIXELS", request.param)


@pytest.mark.parametrize("name", ["upsample_conv3x3", "conv3x3_downsample"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("size", [(4, 4), (6, 10), (2, 2)])
@pytest.mark.usefixtures("forced")
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


def test_the_folded_form_is_used_from_the_threshold_on(monkeypatch):
    calls = []
    fold = resample.fold
    monkeypatch.setattr(resample, "fold", lambda *args, **options: calls.append(1) or fold(*args, **options))
    w = torch.randn(1, 1, 3, 3)
    resample.upsample_conv3x3(torch.randn(1, 1, 32, 31), w, None)
    resample.conv3x3_downsample(torch.randn(1, 1, 64, 62), w, None)
    assert not calls
    resample.upsample_conv3x3(torch.randn(1, 1, 32, 32), w, None)
    resample.conv3x3_downsample(torch.randn(1, 1, 64, 64), w, None)
    assert len(calls) == 2

import contextlib

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import reference
from sagan.model import resample


@pytest.fixture(params=["boxes of maps", "boxes of kernels"])
def form(request, monkeypatch):
    """Both forms, of which a device has one."""
    monkeypatch.setattr(resample, "BOXED_KERNELS", ("cpu",) if request.param == "boxes of kernels" else ())
    return request.param


@pytest.mark.parametrize(
    "name", ["upsample_conv3x3", "upsample_linear_conv3x3", "conv3x3_downsample", "conv1x1_downsample"]
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("size", [(4, 4), (6, 10), (2, 2)])
def test_equals_resampling_and_convolving_apart(form, name, dtype, tolerance, size):
    torch.manual_seed(0)
    x = torch.randn(2, 3, *size, dtype=dtype, requires_grad=True)
    kernel = 1 if "1x1" in name else 3
    w = torch.randn(5, 3, kernel, kernel, dtype=dtype, requires_grad=True)
    bias = torch.randn(5, dtype=dtype, requires_grad=True)
    got, wanted = getattr(resample, name)(x, w, bias), getattr(reference, name)(x, w, bias)
    assert (got - wanted).norm() / wanted.norm() < tolerance
    direction = torch.randn_like(got)
    fast = torch.autograd.grad((got * direction).sum(), (x, w, bias))
    plain = torch.autograd.grad((wanted * direction).sum(), (x, w, bias))
    for a, b in zip(fast, plain, strict=True):
        assert (a - b).norm() / b.norm() < tolerance


@pytest.mark.parametrize("size", [(4, 4), (6, 10), (1, 2)])
def test_linear_upsampling(size):
    torch.manual_seed(0)
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    got, wanted = resample.upsample_linear(x), reference.upsample_linear(x)
    assert torch.allclose(got, wanted, atol=1e-14)
    inside = F.interpolate(x, scale_factor=2, mode="bilinear")[..., 1:-1, 1:-1]  # which is constant beyond the border
    assert torch.allclose(got[..., 1:-1, 1:-1], inside, atol=1e-14)
    direction = torch.randn_like(got)
    a, b = (torch.autograd.grad((y * direction).sum(), x)[0] for y in (got, wanted))
    assert torch.allclose(a, b, atol=1e-14)


def test_the_forms_do_what_their_names_say(form):
    """On the CPU the convolution has 9 taps, on CUDA 16: the padded map of the first is one pixel larger."""
    x, w = torch.randn(1, 2, 8, 8), torch.randn(3, 2, 3, 3, requires_grad=True)
    kernels = []
    with record_convolutions(kernels):
        resample.upsample_conv3x3(x, w, None)
        resample.upsample_linear_conv3x3(x, w, None)
        resample.conv3x3_downsample(x, w, None)
    assert kernels == ([(4, 4), (6, 6), (4, 4)] if form == "boxes of kernels" else [(3, 3)] * 3)


@contextlib.contextmanager
def record_convolutions(kernels):
    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), options=None):
            if function is torch.ops.aten.convolution.default:
                kernels.append(tuple(arguments[1].shape[2:]))
            return function(*arguments, **(options or {}))

    with Record():
        yield

"""Convolutions against PyTorch's own: values, first, second and third derivatives."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import reference
from sagan import TrainingConfig
from sagan.model import convolution, resample
from sagan.model.convolution import conv2d, conv_transpose2d, only_input_gradients
from sagan.presets import PRESETS
from sagan.training.step import Trainer

# Ours, the plain form, the shape of x and that of w.
FORMS = {
    "3x3": (
        lambda x, w, b: conv2d(x, w, b, padding=1),
        lambda x, w, b: F.conv2d(x, w, b, padding=1),
        (2, 3, 6, 5),
        (4, 3, 3, 3),
    ),
    "1x1": (conv2d, F.conv2d, (2, 3, 6, 5), (4, 3, 1, 1)),
    "strided 4x4": (
        lambda x, w, b: conv2d(x, w, b, stride=2, padding=1),
        lambda x, w, b: F.conv2d(x, w, b, 2, 1),
        (2, 3, 8, 6),
        (4, 3, 4, 4),
    ),
    "transposed": (conv_transpose2d, F.conv_transpose2d, (2, 3, 1, 1), (3, 4, 4, 4)),
    "transposed, strided": (
        lambda x, w, b: conv_transpose2d(x, w, b, stride=2, padding=1),
        lambda x, w, b: F.conv_transpose2d(x, w, b, 2, 1),
        (2, 3, 4, 3),
        (3, 4, 4, 4),
    ),
    "up": (resample.upsample_conv3x3, reference.upsample_conv3x3, (2, 3, 4, 3), (4, 3, 3, 3)),
    "down": (resample.conv3x3_downsample, reference.conv3x3_downsample, (2, 3, 6, 4), (4, 3, 3, 3)),
    "down 1x1": (resample.conv1x1_downsample, reference.conv1x1_downsample, (2, 3, 6, 4), (4, 3, 1, 1)),
}


def derivatives(function, tensors, order):
    """Values and all derivatives up to the order, each taken of a fixed nonlinear function of the ones before."""
    found = [function(*tensors)]
    for _ in range(order):
        weights = [torch.linspace(-1, 2, t.numel(), dtype=t.dtype).view_as(t) for t in found]
        total = sum((w * (t / t.detach().abs().max()).sin()).sum() for w, t in zip(weights, found, strict=True))
        found = [*found, *torch.autograd.grad(total, [t for t in tensors if t is not None], create_graph=True)]
    return found


def leaves(form, biased, dtype=torch.float64):
    torch.manual_seed(0)
    _, _, of_x, of_w = FORMS[form]
    channels = of_w[1] if form.startswith("transposed") else of_w[0]
    shapes = (of_x, of_w, (channels,) if biased else None)
    return [None if shape is None else torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("form", ["up", "down", "down 1x1"])
def test_derivatives_of_cuda_s_forms_up_to_the_third_equal_autograd_s(form, biased, monkeypatch):
    monkeypatch.setattr(resample, "BOXED_KERNELS", ("cpu",))
    test_derivatives_up_to_the_third_equal_autograd_s(form, biased)


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_derivatives_up_to_the_third_equal_autograd_s(form, biased):
    ours, plain, *_ = FORMS[form]
    tensors = leaves(form, biased)
    for a, b in zip(derivatives(ours, tensors, 3), derivatives(plain, tensors, 3), strict=True):
        assert (a - b).norm() <= 1e-14 * b.norm()


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("form", [form for form in FORMS if not form.startswith(("up", "down"))])
@pytest.mark.parametrize("lowered", [False, True])
def test_values_and_first_derivatives_are_pytorch_s_bit_for_bit(form, biased, lowered):
    ours, plain, *_ = FORMS[form]
    tensors = leaves(form, biased, torch.float32)
    found = []
    for function in (ours, plain):
        with torch.autocast("cpu", torch.bfloat16, enabled=lowered):
            y = function(*tensors)
        gradients = torch.autograd.grad(y.float().square().sum(), [t for t in tensors if t is not None])
        found.append([y, *gradients])
    assert found[0][0].dtype == (torch.bfloat16 if lowered else torch.float32)
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


def test_nothing_of_ours_where_nothing_is_differentiated(monkeypatch):
    x, w, _ = leaves("3x3", False)
    assert conv2d(x, w).grad_fn.name() != F.conv2d(x, w).grad_fn.name()
    monkeypatch.setattr(convolution, "_Convolution", None)
    assert conv2d(x.detach(), w.detach()).grad_fn is None
    with torch.no_grad():
        assert torch.equal(conv2d(x, w), F.conv2d(x, w))


def test_autocast_leaves_float64_alone():
    x, w, _ = leaves("3x3", False)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(conv2d(x, w), F.conv2d(x, w))
        assert conv2d(x, w).dtype == torch.float64


class Kernels(TorchDispatchMode):
    """Counts convolutions, those with larger kernels than any layer has, and gradients of weights by the operator."""

    def __init__(self):
        super().__init__()
        self.all = self.large = self.of_weights = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket
        if name in (torch.ops.aten.convolution, torch.ops.aten.convolution_backward):
            backward = name is torch.ops.aten.convolution_backward
            self.all += 1
            self.large += max(args[2 if backward else 1].shape[2:]) > 4
            self.of_weights += backward and args[-1][1]
        return function(*args, **(kwargs or {}))


def test_only_input_gradients_computes_no_others():
    x, w, b = leaves("3x3", True)
    for limited, count in ((False, 1), (True, 0)):
        y = conv2d(x, w * 1, b, padding=1)
        with Kernels() as kernels:
            if limited:
                with only_input_gradients():
                    (g,) = torch.autograd.grad(y.sum(), x, create_graph=True)
            else:
                (g,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        assert kernels.of_weights == count
        assert torch.autograd.grad(g.square().sum(), w)[0].norm() > 0  # the second derivative is all there
    conv2d(x, w, b, padding=1).sum().backward()
    assert w.grad.norm() > 0


@pytest.mark.parametrize("preset", ["demo", "small"])
def test_no_kernel_as_large_as_a_feature_map_in_a_penalty_step(preset):
    config = PRESETS[preset]
    options = {"r1": config.training.r1, "r2": config.training.r2, "gradient_penalty": 10.0}
    assert options["r1"]
    assert options["r2"]
    training = TrainingConfig(batch_size=2, precision="fp32", loss=config.training.loss, **options)
    trainer = Trainer(config.model, training, torch.device("cpu"))
    size = config.model.resolution
    images = torch.randint(256, (2, 3, size, size), dtype=torch.uint8)
    with Kernels() as kernels:
        trainer.train_step(0, lambda i: (images, torch.zeros(2, dtype=torch.int64)))
    assert kernels.all > 100
    assert kernels.large == 0


@pytest.mark.parametrize("form", ["3x3", "transposed, strided"])
def test_compilers_see_pytorch_s_own_operators(form):
    ours, plain, *_ = FORMS[form]
    tensors = leaves(form, True)
    compiled = torch.compile(ours, fullgraph=True, backend="eager")
    assert torch.equal(compiled(*tensors), plain(*tensors))
    assert compiled(*tensors).grad_fn.name() == plain(*tensors).grad_fn.name()

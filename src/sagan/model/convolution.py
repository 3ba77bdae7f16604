"""Convolutions whose second derivatives are convolutions with the same small kernels.

A gradient penalty differentiates the gradient with respect to the image once more, with respect to the weights. PyTorch
computes that by a convolution whose kernel is a whole feature map, which cuDNN has no good algorithm for. But the
gradient of a convolution with respect to its input is linear in the incoming gradient and in the weight, and both
derivatives are a convolution and a weight gradient again, of the same stride and padding. So three functions that are
each other's derivatives suffice for derivatives of any order (as in StyleGAN2's conv2d_gradfix, Karras et al. 2020).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sagan.model.autocast import lowered_dtype

Geometry = tuple[int, int, bool]  # stride, padding, transposed

_only_inputs = False  # of the process, as the backward pass of CUDA tensors runs in a thread of its own


@contextmanager
def only_input_gradients() -> Iterator[None]:
    """Compute no gradients of weights and biases in backward passes that are differentiated again.

    For torch.autograd.grad with respect to an image: a function in Python cannot see that nobody asks for the rest.
    """
    global _only_inputs
    _only_inputs = True
    try:
        yield
    finally:
        _only_inputs = False


def conv2d(x: Tensor, w: Tensor, bias: Tensor | None = None, *, stride: int = 1, padding: int = 0) -> Tensor:
    """Convolve x (N, I, H, W) with w (O, I, h, w): bit for bit what PyTorch's conv2d gives."""
    if _plain(x, w, bias):
        return F.conv2d(x, w, bias, stride, padding)
    return _Convolution.apply(*_lowered(x, w, bias), (stride, padding, False))


def conv_transpose2d(x: Tensor, w: Tensor, bias: Tensor | None = None, *, stride: int = 1, padding: int = 0) -> Tensor:
    """Convolve x (N, I, H, W) with w (I, O, h, w), transposed: bit for bit what PyTorch's conv_transpose2d gives."""
    if _plain(x, w, bias):
        return F.conv_transpose2d(x, w, bias, stride, padding)
    return _Convolution.apply(*_lowered(x, w, bias), (stride, padding, True))


def _plain(x: Tensor, w: Tensor, bias: Tensor | None) -> bool:
    """Whether PyTorch's own operator does: nothing is differentiated, or a compiler derives it (once at most)."""
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return True
    return not (x.requires_grad or w.requires_grad or (bias is not None and bias.requires_grad))


def _lowered(*tensors: Tensor | None) -> Iterator[Tensor | None]:
    """The tensors as autocast would cast them; it does not reach into a function of our own."""
    for t in tensors:
        dtype = None if t is None or t.dtype == torch.float64 else lowered_dtype(t.device)
        yield t if t is None or dtype is None else t.to(dtype)


def _backward(
    g: Tensor, x: Tensor, w: Tensor, geometry: Geometry, wanted: tuple[bool, bool, bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The wanted ones of the gradients of x, w and the bias, by the operator that PyTorch's own backward pass calls."""
    stride, padding, transposed = geometry
    biases = [w.shape[1 if transposed else 0]] if wanted[2] else None
    sizes = ([stride] * 2, [padding] * 2, [1, 1], transposed, [0, 0], 1)  # dilation 1, no output padding, one group
    gradients: Any = torch.ops.aten.convolution_backward(g, x, w, biases, *sizes, wanted)
    return gradients


class _Convolution(torch.autograd.Function):
    """y = w * x + bias, plain or transposed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.geometry = stride, padding, transposed = geometry
        return torch.ops.aten.convolution(x, w, bias, [stride] * 2, [padding] * 2, [1, 1], transposed, [0, 0], 1)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:  # type: ignore[override]
        x, w = ctx.saved_tensors
        of_x, of_w, of_bias, _ = ctx.needs_input_grad
        if not torch.is_grad_enabled():  # the usual backward pass: one call, as PyTorch's
            return *_backward(g, x, w, ctx.geometry, (of_x, of_w, of_bias)), None
        of_w, of_bias = of_w and not _only_inputs, of_bias and not _only_inputs
        gx = _InputGradient.apply(g, w, x, ctx.geometry) if of_x else None
        gw = _WeightGradient.apply(g, x, w, ctx.geometry) if of_w else None
        return gx, gw, g.sum((0, 2, 3)) if of_bias else None, None


class _InputGradient(torch.autograd.Function):
    """The gradient of x, linear in g and in w; x itself gives but its shape."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, w: Tensor, x: Tensor, geometry: Geometry) -> Tensor | None:
        ctx.save_for_backward(g, w)
        ctx.geometry = geometry
        return _backward(g, x, w, geometry, (True, False, False))[0]

    @staticmethod
    def backward(ctx: Any, h: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:  # type: ignore[override]
        g, w = ctx.saved_tensors
        of_g, of_w, *_ = ctx.needs_input_grad
        gg = _Convolution.apply(h, w, None, ctx.geometry) if of_g else None
        gw = _WeightGradient.apply(g, h, w, ctx.geometry) if of_w else None
        return gg, gw, None, None


class _WeightGradient(torch.autograd.Function):
    """The gradient of w, linear in g and in x; w itself gives but its shape."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, w: Tensor, geometry: Geometry) -> Tensor | None:
        ctx.save_for_backward(g, x)
        ctx.geometry = geometry
        return _backward(g, x, w, geometry, (False, True, False))[1]

    @staticmethod
    def backward(ctx: Any, h: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:  # type: ignore[override]
        g, x = ctx.saved_tensors
        of_g, of_x, *_ = ctx.needs_input_grad
        gg = _Convolution.apply(x, h, None, ctx.geometry) if of_g else None
        gx = _InputGradient.apply(g, h, x, ctx.geometry) if of_x else None
        return gg, gx, None, None

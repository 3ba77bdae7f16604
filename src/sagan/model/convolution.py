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

_only_inputs = False  # of the process: the backward pass of CUDA tensors runs in a thread of its own


@contextmanager
def only_input_gradients() -> Iterator[None]:
    """Compute no gradients of weights and biases in backward passes that are differentiated again.

    For torch.autograd.grad with respect to an image: a function in Python cannot see which gradients are needed.
    """
    global _only_inputs
    _only_inputs = True
    try:
        yield
    finally:
        _only_inputs = False


def conv2d(x: Tensor, w: Tensor, bias: Tensor | None = None, *, stride: int = 1, padding: int = 0) -> Tensor:
    """Convolve x (N, I, H, W) with w (O, I, h, w): bit for bit as PyTorch's conv2d."""
    if _is_plain(x, w, bias):
        return F.conv2d(x, w, bias, stride, padding)
    return _Convolution.apply(*_lowered(x, w, bias), (stride, padding, False))


def conv_transpose2d(x: Tensor, w: Tensor, bias: Tensor | None = None, *, stride: int = 1, padding: int = 0) -> Tensor:
    """Convolve x (N, I, H, W) with w (I, O, h, w), transposed: bit for bit as PyTorch's conv_transpose2d."""
    if _is_plain(x, w, bias):
        return F.conv_transpose2d(x, w, bias, stride, padding)
    return _Convolution.apply(*_lowered(x, w, bias), (stride, padding, True))


def _is_plain(x: Tensor, w: Tensor, bias: Tensor | None) -> bool:
    """Return whether PyTorch's operator suffices: no gradient is needed, or a compiler derives it (once at most)."""
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return True
    return not (x.requires_grad or w.requires_grad or (bias is not None and bias.requires_grad))


def _lowered(*tensors: Tensor | None) -> Iterator[Tensor | None]:
    """Cast tensors as autocast would, which does not reach into an autograd.Function."""
    for t in tensors:
        dtype = None if t is None or t.dtype == torch.float64 else lowered_dtype(t.device)
        yield t if t is None or dtype is None else t.to(dtype)


def _backward(
    g: Tensor, x: Tensor, w: Tensor, geometry: Geometry, needed: tuple[bool, bool, bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return the gradients of x, w and the bias that are needed, by the operator that PyTorch's backward pass calls."""
    stride, padding, transposed = geometry
    biases = [w.shape[1 if transposed else 0]] if needed[2] else None
    options = ([stride] * 2, [padding] * 2, [1, 1], transposed, [0, 0], 1)  # dilation 1, no output padding, one group
    gradients: Any = torch.ops.aten.convolution_backward(g, x, w, biases, *options, needed)
    return gradients


class _Convolution(torch.autograd.Function):
    """Compute y = w * x + bias, plain or transposed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.geometry = stride, padding, transposed = geometry
        return torch.ops.aten.convolution(x, w, bias, [stride] * 2, [padding] * 2, [1, 1], transposed, [0, 0], 1)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:  # type: ignore[override]
        x, w = ctx.saved_tensors
        needs_x, needs_w, needs_bias, _ = ctx.needs_input_grad
        if not torch.is_grad_enabled():  # an ordinary backward pass: one call, as PyTorch's
            return *_backward(g, x, w, ctx.geometry, (needs_x, needs_w, needs_bias)), None
        if _only_inputs:
            needs_w = needs_bias = False
        gx = _InputGradient.apply(g, w, x, ctx.geometry) if needs_x else None
        gw = _WeightGradient.apply(g, x, w, ctx.geometry) if needs_w else None
        return gx, gw, g.sum((0, 2, 3)) if needs_bias else None, None


class _InputGradient(torch.autograd.Function):
    """Compute the gradient of x, which is linear in g and in w. Only the shape of x matters."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, w: Tensor, x: Tensor, geometry: Geometry) -> Tensor | None:
        ctx.save_for_backward(g, w)
        ctx.geometry = geometry
        return _backward(g, x, w, geometry, (True, False, False))[0]

    @staticmethod
    def backward(ctx: Any, h: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:  # type: ignore[override]
        g, w = ctx.saved_tensors
        needs_g, needs_w, *_ = ctx.needs_input_grad
        gg = _Convolution.apply(h, w, None, ctx.geometry) if needs_g else None
        gw = _WeightGradient.apply(g, h, w, ctx.geometry) if needs_w else None
        return gg, gw, None, None


class _WeightGradient(torch.autograd.Function):
    """Compute the gradient of w, which is linear in g and in x. Only the shape of w matters."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, w: Tensor, geometry: Geometry) -> Tensor | None:
        ctx.save_for_backward(g, x)
        ctx.geometry = geometry
        return _backward(g, x, w, geometry, (False, True, False))[1]

    @staticmethod
    def backward(ctx: Any, h: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:  # type: ignore[override]
        g, x = ctx.saved_tensors
        needs_g, needs_x, *_ = ctx.needs_input_grad
        gg = _Convolution.apply(x, h, None, ctx.geometry) if needs_g else None
        gx = _InputGradient.apply(g, h, x, ctx.geometry) if needs_x else None
        return gg, gx, None, None

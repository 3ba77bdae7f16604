"""The plain forms of what the package computes the fast way, straight from the definitions."""

import torch
import torch.nn.functional as F
from torch import Tensor


def attention(x: Tensor, query: Tensor, key: Tensor, value: Tensor, output: Tensor, gamma: Tensor, pooled: bool):
    """Equations 1-3 of the paper, written with the whole map beta (N, H·W, K). Weights are matrices (out, in)."""
    n, c, height, width = x.shape
    f, g, h = (torch.einsum("oc,nchw->nohw", w, x) for w in (key, query, value))
    if pooled:
        f, h = (max_pool2(t) for t in (f, h))
    f, g, h = f.flatten(2), g.flatten(2), h.flatten(2)  # (N, C', locations)
    s = torch.einsum("ndi,ndj->nij", f, g)  # s_ij = f(x_i)^T g(x_j)
    beta = s.exp() / s.exp().sum(dim=1, keepdim=True)  # over i, for each j
    o = torch.einsum("oe,nei,nij->noj", output, h, beta)
    return gamma * o.view(n, c, height, width) + x, beta.transpose(1, 2)


def max_pool2(x: Tensor) -> Tensor:
    height, width = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
    corners = [x[:, :, i:height:2, j:width:2] for i in (0, 1) for j in (0, 1)]
    return torch.stack(corners).amax(0)


def upsample_conv3x3(x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
    return F.conv2d(x.repeat_interleave(2, 2).repeat_interleave(2, 3), w, bias, padding=1)


def upsample_linear(x: Tensor, beyond: int = 0) -> Tensor:
    """Pixel i of the doubled map is 3/4 of the nearest small pixel and 1/4 of the next; all around it are zeros."""
    for axis in (2, 3):
        x = x.movedim(axis, -1)
        small = F.pad(x, (2, 2))
        positions = range(-beyond, 2 * x.shape[-1] + beyond)
        near = [p // 2 + 2 for p in positions]
        far = [p // 2 + 2 + (1 if p % 2 else -1) for p in positions]
        x = (0.75 * small[..., near] + 0.25 * small[..., far]).movedim(-1, axis)
    return x


def upsample_linear_conv3x3(x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
    return F.conv2d(upsample_linear(x, beyond=1), w, bias)


def conv3x3_downsample(x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
    return _mean_of_boxes(F.conv2d(x, w, bias, padding=1))


def conv1x1_downsample(x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
    return _mean_of_boxes(F.conv2d(x, w, bias))


def _mean_of_boxes(y: Tensor) -> Tensor:
    return (y[:, :, ::2, ::2] + y[:, :, 1::2, ::2] + y[:, :, ::2, 1::2] + y[:, :, 1::2, 1::2]) / 4


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.softmax(q @ k.transpose(1, 2), dim=2) @ v


def spectral_norm(module, weight: Tensor) -> Tensor:
    """W / (u^T W v) after one power iteration, differentiated by autograd alone."""
    w = weight.flatten(1)
    with torch.no_grad():
        v = F.normalize(w.T @ module.u, dim=0)
        u = F.normalize(w @ v, dim=0)
        if module.training:
            module.u.copy_(u)
    return (w / (u @ (w @ v))).view_as(weight)

"""Attention by tiles of the map, for the CPU: as few operations as the equations have, on blocks that stay in cache.

PyTorch's fused kernel wants queries as wide as values. Padded to that, the products of this layer's queries, which are
C/8 wide, cost up to eight times the work they need. Here every product has its own width.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from sagan.compat import softmax_backward_

TILE = 2**18
"""Entries of the map, per thread, that are in memory at any time."""
LEAST_ROWS = 32
"""Least number of the map's rows in a tile: with fewer the products are slow."""


class TiledAttention(torch.autograd.Function):
    """Compute softmax(q k^T) v, shapes as for `attend`. The backward pass computes the map again.

    Gradients are summed as (N, width, locations): products with so narrow a result are several times faster that way.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        ctx.save_for_backward(q, k, v)
        kt = k.transpose(1, 2)
        o = q.new_empty(*q.shape[:2], v.shape[2])
        for i, j in _tiles(q, k):
            o[i, j] = _rows(q[i, j], kt[i]) @ v[i]
        return o

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = ctx.saved_tensors
        (do,) = gradients
        if torch.is_grad_enabled():  # the result is to be differentiated again
            return _plain_gradients(q, k, v, do)
        kt, vt = k.transpose(1, 2), v.transpose(1, 2)
        dq, dk, dv = (torch.zeros_like(t.transpose(1, 2), memory_format=torch.contiguous_format) for t in (q, k, v))
        for i, j in _tiles(q, k):
            beta = _rows(q[i, j], kt[i])
            dv[i].baddbmm_(do[i, j].transpose(1, 2), beta)
            ds = do[i, j] @ vt[i]
            softmax_backward_(ds, beta)
            dk[i].baddbmm_(q[i, j].transpose(1, 2), ds)
            dq[i, :, j] = kt[i] @ ds.transpose(1, 2)
            del beta, ds  # freed before the next ones are made
        return dq.transpose(1, 2), dk.transpose(1, 2), dv.transpose(1, 2)


def _tiles(q: Tensor, k: Tensor) -> Iterator[tuple[slice, slice]]:
    """Yield slices of the images and of their queries: many small maps, or some rows of one large map."""
    n, queries, _ = q.shape
    keys = k.shape[1]
    entries = TILE * torch.get_num_threads()
    images = max(1, entries // (queries * keys))
    rows = max(LEAST_ROWS, entries // keys)
    for i in range(0, n, images):
        for j in range(0, queries, rows):
            yield slice(i, i + images), slice(j, j + rows)


def _rows(q: Tensor, kt: Tensor) -> Tensor:
    """Return rows of the map beta (equation 1)."""
    s = torch.bmm(q, kt)
    return torch.softmax(s, -1, out=s)


def _plain_gradients(q: Tensor, k: Tensor, v: Tensor, do: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q, k and v in operations that autograd can differentiate, with the whole map."""
    beta = torch.softmax(q @ k.transpose(1, 2), -1)
    ds = beta * (do @ v.transpose(1, 2) - (do * (beta @ v)).sum(-1, keepdim=True))
    return ds @ k, ds.transpose(1, 2) @ q, beta.transpose(1, 2) @ do

"""Spectral normalisation (Miyato et al. 2018): a weight divided by its largest singular value."""

from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sagan.model.autocast import without_autocast
from sagan.model.convolution import conv2d, conv_transpose2d

Network = TypeVar("Network", bound=nn.Module)


def to_rows(weight: Tensor) -> Tensor:
    """(out, ...) to (out, rest), as the numbers lie in memory: a view, where a kernel (out, in, h, w) is channels_last.

    The singular values are those of any other order of the columns.
    """
    return weight.flatten(1) if weight.dim() != 4 else weight.permute(0, 2, 3, 1).flatten(1)


def from_rows(rows: Tensor, shape: torch.Size) -> Tensor:
    """The inverse of to_rows: (out, rest) to (out, ...), the rest as in `shape`."""
    if len(shape) != 4:
        return rows.unflatten(1, shape[1:])
    return rows.unflatten(1, (*shape[2:], shape[1])).permute(0, 3, 1, 2)


class _DivideBySigma(torch.autograd.Function):
    """W / sigma with sigma = u^T W v, u and v constants.

    By the quotient rule dW_sn = (dW - W_sn · u^T dW v) / sigma. Written out, the backward pass reads the weight
    once; autograd on the formula would read and write it five times.
    """

    @staticmethod
    def forward(ctx: Any, w: Tensor, u: Tensor, v: Tensor, sigma: Tensor) -> Tensor:
        w_sn = w / sigma
        ctx.save_for_backward(w_sn, u, v, sigma)
        return w_sn

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        w_sn, u, v, sigma = ctx.saved_tensors
        along = torch.dot(g.flatten(), w_sn.flatten()) / sigma
        return torch.addr(g / sigma, u, v * -along), None, None, None


class SpectralNorm(nn.Module):
    """Maps a weight W of shape (out, ...) to W / sigma(W), its largest singular value as an (out, rest) matrix.

    sigma is estimated by one power iteration a call. In training mode the iteration's vector u is kept, so that
    the estimate follows the weight from step to step; in evaluation mode nothing changes.

    Autocast is off within: rounded to bf16, sigma would be wrong by up to 1 %, in another way in every pass.
    """

    u: Tensor

    def __init__(self, rows: int, eps: float = 1e-8):
        super().__init__()
        self.eps = eps
        self.register_buffer("u", F.normalize(torch.randn(rows), dim=0))

    def forward(self, weight: Tensor) -> Tensor:
        with without_autocast(weight.device):
            w = to_rows(weight)
            with torch.no_grad():
                u, v, wv = self.iterate(w)
                sigma = torch.dot(u, wv)
            return from_rows(_DivideBySigma.apply(w, u, v, sigma), weight.shape)

    def iterate(self, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """u (out,), v (rest,) and W v (out,) of the rows W (out, rest) of a weight."""
        v = F.normalize(self.u @ w, dim=0, eps=self.eps)
        wv = w @ v
        u = F.normalize(wv, dim=0, eps=self.eps)
        if self.training:
            self.u.copy_(u)
        return u, v, wv

    @torch.no_grad()
    def solve(self, weight: Tensor) -> None:
        """Set the stored vectors to the first singular vectors of a weight, of any device and dtype."""
        weight = weight.to(self.u)
        self.u.copy_(torch.linalg.svd(to_rows(weight), full_matrices=False).U[:, 0])


class StoredSpectralNorm(SpectralNorm):
    """The same in training mode; in evaluation mode sigma = u^T W v with the u and v of the last iteration.

    So does torch.nn.utils.spectral_norm: since W has moved on by a step, or is an average, the sigmas differ a little.
    """

    v: Tensor  # in the order of weight.flatten(1)

    def __init__(self, shape: torch.Size, eps: float = 1e-8):
        super().__init__(shape[0], eps)
        self.shape = torch.Size([1, *shape[1:]])
        self.register_buffer("v", F.normalize(torch.randn(self.shape.numel()), dim=0))

    def iterate(self, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if not self.training:
            v = to_rows(self.v.view(self.shape))[0]
            return self.u, v, w @ v
        u, v, wv = super().iterate(w)
        self._keep(v)
        return u, v, wv

    @torch.no_grad()
    def solve(self, weight: Tensor) -> None:
        weight = weight.to(self.u)
        super().solve(weight)
        self._keep(F.normalize(self.u @ to_rows(weight), dim=0, eps=self.eps))

    def _keep(self, v: Tensor) -> None:
        self.v.copy_(from_rows(v[None], self.shape).flatten())


def spectral_norm(weight: Tensor, *, norm: bool = True, eps: float = 1e-8, stored: bool = False) -> nn.Module:
    """The norm of a weight of this shape, or the identity. `stored`: as in StoredSpectralNorm."""
    if not norm:
        return nn.Identity()
    if stored:
        return StoredSpectralNorm(weight.shape, eps)
    return SpectralNorm(weight.shape[0], eps)


class Normalised(nn.Module):
    """A layer whose weight goes through `norm`: a spectral norm, or the identity."""

    weight: Tensor
    norm: nn.Module

    @torch.no_grad()
    def bake(self) -> None:
        """Replaces the weight by its normalised form, in place: the same function, nothing left to compute."""
        if not isinstance(self.norm, nn.Identity):
            self.weight.copy_(self.norm.eval()(self.weight))
            self.norm = nn.Identity()


class Conv2d(Normalised, nn.Conv2d):
    """A "same" convolution of odd kernel size, xavier-uniform, its weight spectrally normalised if asked.

    With stride 2 and a kernel of even size it halves the sides.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        size: int,
        *,
        norm: bool,
        eps: float = 1e-8,
        stored: bool = False,
        bias: bool = True,
        stride: int = 1,
    ):
        super().__init__(c_in, c_out, size, stride, (size - 1) // 2, bias=bias)
        # As feature maps lie in memory: neither convolutions nor their gradients then move weights around.
        self.weight.data = self.weight.data.contiguous(memory_format=torch.channels_last)
        self.norm = spectral_norm(self.weight, norm=norm, eps=eps, stored=stored)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        stride, padding = self.stride[0], int(self.padding[0])
        return conv2d(x, self.norm(self.weight), self.bias, stride=stride, padding=padding)


class ConvTranspose2d(Normalised, nn.ConvTranspose2d):
    """A transposed convolution, xavier-uniform, its weight (in, out, h, w) spectrally normalised if asked."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        size: int,
        *,
        stride: int,
        padding: int,
        norm: bool,
        eps: float = 1e-8,
        stored: bool = False,
    ):
        super().__init__(c_in, c_out, size, stride, padding)
        self.norm = spectral_norm(self.weight, norm=norm, eps=eps, stored=stored)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        stride, padding = self.stride[0], int(self.padding[0])
        return conv_transpose2d(x, self.norm(self.weight), self.bias, stride=stride, padding=padding)


class Linear(Normalised, nn.Linear):
    """A linear layer, xavier-uniform, its weight spectrally normalised if asked."""

    def __init__(self, c_in: int, c_out: int, *, norm: bool, eps: float = 1e-8, stored: bool = False):
        super().__init__(c_in, c_out)
        self.norm = spectral_norm(self.weight, norm=norm, eps=eps, stored=stored)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.norm(self.weight), self.bias)


class Embedding(Normalised, nn.Embedding):
    """An embedding table, xavier-uniform, spectrally normalised if asked."""

    def __init__(self, count: int, dim: int, *, norm: bool, eps: float = 1e-8, stored: bool = False):
        super().__init__(count, dim)
        self.norm = spectral_norm(self.weight, norm=norm, eps=eps, stored=stored)
        _initialise(self)

    def forward(self, y: Tensor) -> Tensor:
        return F.embedding(y, self.norm(self.weight))

    def table(self) -> Tensor:
        """All rows (count, dim)."""
        return self.norm(self.weight)


def _initialise(layer: Normalised) -> None:
    nn.init.xavier_uniform_(layer.weight)
    if getattr(layer, "bias", None) is not None:
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


def bake_spectral_norm(network: Network) -> Network:
    """Replaces every weight by its normalised form, in place: the same function, nothing left to compute.

    For inference: the network can no longer be trained as it was.
    """
    for layer in list(network.modules()):  # some are gone when those that hold them are baked
        bake: Any = getattr(layer, "bake", None)
        if bake is not None:
            bake()
    return network

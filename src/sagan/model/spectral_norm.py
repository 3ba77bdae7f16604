"""Spectral normalisation (Miyato et al. 2018): divide a weight by its largest singular value."""

from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sagan.model.autocast import without_autocast
from sagan.model.convolution import conv2d, conv_transpose2d

Network = TypeVar("Network", bound=nn.Module)

EPS = 1e-8  # least norm that the power iteration divides by


def to_rows(weight: Tensor) -> Tensor:
    """View a weight (out, ...) as an (out, rest) matrix.

    The order of the columns follows memory, so that a channels_last kernel (out, in, h, w) is not copied. The singular
    values do not depend on it.
    """
    return weight.flatten(1) if weight.dim() != 4 else weight.permute(0, 2, 3, 1).flatten(1)


def from_rows(rows: Tensor, shape: torch.Size) -> Tensor:
    """View rows (out, rest) of `to_rows` as a weight (out, ...), with the trailing dimensions of `shape`."""
    if len(shape) != 4:
        return rows.unflatten(1, shape[1:])
    return rows.unflatten(1, (*shape[2:], shape[1])).permute(0, 3, 1, 2)


def _length(x: Tensor) -> Tensor:
    """Return |x| of a vector, EPS at least."""
    return torch.linalg.vector_norm(x).clamp_min_(EPS)


def _power_iteration(w: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Move u by one power iteration of W, in place; return W v, v and sigma = u^T W v, with the new u.

    Shapes: w (rows, columns), u (rows,) to (rows,), (columns,) and ().
    """
    wu = torch.mv(w.t(), u)  # W^T u
    v = wu / _length(wu)
    wv = torch.mv(w, v)
    torch.div(wv, _length(wv), out=u)
    return wv, v, torch.dot(u, wv)


# As one operator, for the compiler: it would compute what it sees again in the backward pass, from the u of that time.
_compiled_power_iteration = torch.library.custom_op("sagan::power_iteration", mutates_args=("u",))(_power_iteration)


@_compiled_power_iteration.register_fake
def _power_iteration_shapes(w: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    rows, columns = w.shape
    return w.new_empty(rows), w.new_empty(columns), w.new_empty(())


class _DivideBySigma(torch.autograd.Function):
    """Divide W by sigma = u^T W v, with u = W v / |W v|, which is W v / sigma, and v as constants.

    For a gradient g of W_sn, the quotient rule gives (g - <g, W_sn> u v^T) / sigma for W. Written out, the backward
    pass reads the weight once; autograd on the formula would read and write it five times. W is a weight
    (out, ...), and wv and v are vectors of the matrix that `to_rows` makes of it.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, wv: Tensor, v: Tensor, sigma: Tensor) -> Tensor:
        w_sn = weight / sigma
        ctx.save_for_backward(w_sn, wv, v, sigma)
        return w_sn

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        w_sn, wv, v, sigma = ctx.saved_tensors
        rows = to_rows(g) / sigma
        along = torch.dot(rows.flatten(), to_rows(w_sn).flatten())
        # g / sigma - along · u v^T
        return from_rows(torch.addr(rows, wv, v * (-along / sigma)), g.shape), None, None, None


class SpectralNorm(nn.Module):
    """Divide a weight W (out, ...) by sigma(W), its largest singular value as an (out, rest) matrix.

    sigma is estimated by one power iteration per call. In training mode the iteration's vector u is kept, so that the
    estimate follows the weight from step to step; in evaluation mode nothing changes.

    Autocast is off within: rounded to bf16, sigma would be wrong by up to 1 %, differently in every pass.
    """

    u: Tensor

    def __init__(self, rows: int):
        super().__init__()
        u = torch.randn(rows)
        # A meta tensor has no values to normalise, and trying to is slow.
        self.register_buffer("u", u if u.is_meta else F.normalize(u, dim=0))

    def forward(self, weight: Tensor) -> Tensor:
        with without_autocast(weight.device):
            if weight.dim() == 4:  # the memory order of `to_rows`, so that neither pass copies the weight again
                weight = weight.contiguous(memory_format=torch.channels_last)
            with torch.no_grad():
                iterate = _compiled_power_iteration if torch.compiler.is_compiling() else _power_iteration
                wv, v, sigma = iterate(to_rows(weight), self.u if self.training else self.u.clone())
            return _DivideBySigma.apply(weight, wv, v, sigma)

    @torch.no_grad()
    def solve(self, weight: Tensor) -> None:
        """Set u to the first left singular vector of a weight on any device and of any dtype.

        It is an eigenvector of W W^T, or W times one of W^T W: of the smaller of the two, which takes less time than
        an SVD.
        """
        w = to_rows(weight.to(self.u))
        if len(w) <= w.shape[1]:
            u = torch.linalg.eigh(w @ w.T).eigenvectors[:, -1]
        else:
            u = w @ torch.linalg.eigh(w.T @ w).eigenvectors[:, -1]
        self.u.copy_(F.normalize(u, dim=0, eps=EPS))


def make_spectral_norm(weight: Tensor, *, spectral_norm: bool) -> nn.Module:
    """Return the spectral norm of a weight of this shape, or the identity without `spectral_norm`."""
    return SpectralNorm(weight.shape[0]) if spectral_norm else nn.Identity()


class SNLayer(nn.Module):
    """A layer whose weight passes through `sn`: a spectral norm, or the identity without the option `spectral_norm`.

    Weights start xavier-uniform, biases at 0.
    """

    weight: Tensor
    sn: nn.Module

    @torch.no_grad()
    def bake(self) -> None:
        """Fold the spectral norm into the weight, in place: the same function, nothing left to compute."""
        if not isinstance(self.sn, nn.Identity):
            self.weight.copy_(self.sn.eval()(self.weight))
            self.sn = nn.Identity()

    def solve(self) -> None:
        """Set the spectral norm's vector, if there is one, to that of the weight as it is now."""
        if isinstance(self.sn, SpectralNorm):
            self.sn.solve(self.weight)


class SNConv2d(SNLayer, nn.Conv2d):
    """Convolve x (N, c_in, H, W) with a kernel of odd size, zero-padded to the same H and W.

    With stride 2 and a kernel of even size it halves H and W.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        size: int,
        *,
        spectral_norm: bool,
        bias: bool = True,
        stride: int = 1,
    ):
        super().__init__(c_in, c_out, size, stride, (size - 1) // 2, bias=bias)
        # As feature maps lie in memory: neither convolutions nor their gradients then move weights around.
        self.weight.data = self.weight.data.contiguous(memory_format=torch.channels_last)
        self.sn = make_spectral_norm(self.weight, spectral_norm=spectral_norm)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        stride, padding = self.stride[0], int(self.padding[0])
        return conv2d(x, self.sn(self.weight), self.bias, stride=stride, padding=padding)


class SNConvTranspose2d(SNLayer, nn.ConvTranspose2d):
    """Convolve x (N, c_in, H, W), transposed. The weight (in, out, h, w) is normalised as a matrix of `in` rows."""

    def __init__(self, c_in: int, c_out: int, size: int, *, stride: int, padding: int, spectral_norm: bool):
        super().__init__(c_in, c_out, size, stride, padding)
        self.sn = make_spectral_norm(self.weight, spectral_norm=spectral_norm)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        stride, padding = self.stride[0], int(self.padding[0])
        return conv_transpose2d(x, self.sn(self.weight), self.bias, stride=stride, padding=padding)


class SNLinear(SNLayer, nn.Linear):
    """Map x (N, c_in) to (N, c_out)."""

    def __init__(self, c_in: int, c_out: int, *, spectral_norm: bool):
        super().__init__(c_in, c_out)
        self.sn = make_spectral_norm(self.weight, spectral_norm=spectral_norm)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.sn(self.weight), self.bias)


class SNEmbedding(SNLayer, nn.Embedding):
    """Map y (N,) int64 in [0, count) to rows (N, dim) of a table."""

    def __init__(self, count: int, dim: int, *, spectral_norm: bool):
        super().__init__(count, dim)
        self.sn = make_spectral_norm(self.weight, spectral_norm=spectral_norm)
        _initialise(self)

    def forward(self, y: Tensor) -> Tensor:
        return F.embedding(y, self.table())

    def table(self) -> Tensor:
        """Return all rows (count, dim)."""
        return self.sn(self.weight)


def _initialise(layer: SNLayer) -> None:
    nn.init.xavier_uniform_(layer.weight)
    if getattr(layer, "bias", None) is not None:
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


def bake_spectral_norm(network: Network) -> Network:
    """Fold every spectral norm of a network into its weights, in place: the same function, nothing left to compute.

    For inference: the network can no longer be trained as before.
    """
    for layer in list(network.modules()):  # a list: baking removes modules
        bake: Any = getattr(layer, "bake", None)
        if bake is not None:
            bake()
    return network


def for_inference(network: Network, device: torch.device) -> Network:
    """Return a network on a device, changed in place: in evaluation mode, baked, without gradients."""
    return bake_spectral_norm(network.eval()).requires_grad_(False).to(device)


def drop_spectral_norm(network: Network) -> Network:
    """Remove every spectral norm of a network, in place, and leave its weights: for weights that are folded already."""
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, SpectralNorm):
                setattr(module, name, nn.Identity())
    return network


def has_spectral_norm(network: nn.Module) -> bool:
    """Return whether a network has a spectral norm that is not folded into its weight."""
    return any(isinstance(module, SpectralNorm) for module in network.modules())

"""Batch normalisation whose scale and shift depend on the class."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sagan.model.autocast import as_dtype_of
from sagan.model.config import ClassNorm
from sagan.model.spectral_norm import Embedding, spectral_norm

MOMENTUM = 0.1


def of_classes(table: Tensor, y: Tensor) -> Tensor:
    """The rows (N, C) of a table (num_classes, C) that labels (N,) name, or mixtures by weights (N, num_classes)."""
    return y @ table if y.is_floating_point() else F.embedding(y, table)


class FromChannels(nn.Module):
    """The spectral norm of a table (num_classes, C), its power iteration started from a vector over the channels."""

    def __init__(self, table: Tensor, *, eps: float, stored: bool):
        super().__init__()
        self.transposed: Any = spectral_norm(table.T, eps=eps, stored=stored)

    def forward(self, table: Tensor) -> Tensor:
        return self.transposed(table.T).T

    def solve(self, table: Tensor) -> None:
        self.transposed.solve(table.T)


class ConditionalBatchNorm2d(nn.Module):
    """Batch norm with a learnt scale and shift for each class (de Vries et al. 2017); one of each if unconditional.

    Maps x (N, C, H, W) and y (N,) int64 in [0, num_classes) to (N, C, H, W); y may also be (N, num_classes) weights,
    which mix the classes' scales and shifts. In training mode the batch's own mean and variance are used and the
    running ones follow with momentum 0.1; in evaluation mode the running ones are used.

    With `class_norm` the tables are spectrally normalised, and 1 is added to the scales; `stored` as elsewhere.

    Where processes share a batch, `total` may be set to what sums a tensor over them, differentiably: in training mode
    the mean and variance are then those of the whole batch.
    """

    running_mean: Tensor
    running_var: Tensor
    scale: Any  # a parameter or, spectrally normalised, an Embedding
    shift: Any
    total: Callable[[Tensor], Tensor] | None = None

    def __init__(
        self,
        channels: int,
        num_classes: int,
        eps: float = 1e-5,
        *,
        class_norm: ClassNorm = "none",
        norm_eps: float = 1e-8,
        stored: bool = False,
    ):
        super().__init__()
        self.num_classes, self.eps, self.momentum = num_classes, eps, MOMENTUM
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        if num_classes and class_norm != "none":
            self.scale, self.shift = (
                Embedding(num_classes, channels, norm=True, eps=norm_eps, stored=stored) for _ in range(2)
            )
            if class_norm == "channels":
                for table in (self.scale, self.shift):
                    table.norm = FromChannels(table.weight, eps=norm_eps, stored=stored)
        else:
            rows = (num_classes,) if num_classes else ()
            self.scale = nn.Parameter(torch.ones(*rows, channels))
            self.shift = nn.Parameter(torch.zeros(*rows, channels))

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        statistics = (self.running_mean, self.running_var)
        if self.training and self.total is not None:
            return self._over_processes(x, y, self.total)
        if not self.num_classes:
            return F.batch_norm(x, *statistics, self.scale, self.shift, self.training, self.momentum, self.eps)
        assert y is not None, "a conditional generator needs the labels y"
        x = F.batch_norm(x, *statistics, None, None, self.training, self.momentum, self.eps)
        # In the map's dtype: fp32 tables would lift a bf16 map, and all that follows up to a convolution, to fp32.
        scale, shift = (as_dtype_of(of_classes(table, y)[:, :, None, None], x) for table in self.tables())
        return torch.addcmul(shift, x, scale)

    def _over_processes(self, x: Tensor, y: Tensor | None, total: Callable[[Tensor], Tensor]) -> Tensor:
        """The same in training mode with the statistics of all processes' x, by one message each way."""
        part = x.to(self.running_mean.dtype)
        variance, mean = torch.var_mean(part, (0, 2, 3), correction=0)
        # Squares about the running mean, which all processes share and which is near enough for nothing to cancel.
        offset = mean - self.running_mean
        n = part.new_full((1,), part.numel() / len(mean))
        sums = total(torch.cat([n * offset, n * (variance + offset.square()), n]))
        offset, square = (sums[:-1] / sums[-1]).chunk(2)
        mean, variance, n = self.running_mean + offset, square - offset.square(), sums[-1].detach()
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * n / (n - 1), self.momentum)
        scale, shift = self.tables()
        if self.num_classes:
            assert y is not None, "a conditional generator needs the labels y"
            scale, shift = of_classes(scale, y), of_classes(shift, y)
        scale = scale * torch.rsqrt(variance + self.eps)
        shift = shift - mean * scale
        return torch.addcmul(shift[..., None, None], part, scale[..., None, None]).to(x.dtype)

    @torch.no_grad()
    def bake(self) -> None:
        """Makes plain tables of spectrally normalised ones: the same function."""
        if isinstance(self.scale, Embedding):
            self.scale.bake()
            self.shift.bake()
            self.scale, self.shift = (nn.Parameter(table.clone()) for table in self.tables())

    def tables(self) -> tuple[Tensor, Tensor]:
        """The scales and the shifts of all classes, (num_classes, C) each."""
        if isinstance(self.scale, Embedding):
            return 1 + self.scale.table(), self.shift.table()
        return self.scale, self.shift

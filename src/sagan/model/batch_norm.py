"""Batch normalisation whose scale and shift depend on the class."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sagan.model.autocast import as_dtype_of

MOMENTUM = 0.1  # of the running statistics
EPS = 1e-5  # added to the variance


def class_rows(table: Tensor, y: Tensor) -> Tensor:
    """Return rows (N, C) of a table (num_classes, C): those of labels (N,), or mixtures by weights (N, num_classes)."""
    return y @ table if y.is_floating_point() else F.embedding(y, table)


class ConditionalBatchNorm2d(nn.Module):
    """Batch norm with a learnt scale and shift for each class (de Vries et al. 2017); one of each if unconditional.

    Maps x (N, C, H, W) and y (N,) int64 in [0, num_classes) to (N, C, H, W); y may also be (N, num_classes) weights,
    which mix the classes' scales and shifts. In training mode the batch's own mean and variance are used and the
    running ones follow with momentum 0.1; in evaluation mode the running ones are used.

    Where processes share a batch, `total` may be set to a function that sums a tensor over them, differentiably: in
    training mode the mean and variance are then those of the whole batch.
    """

    running_mean: Tensor
    running_var: Tensor
    total: Callable[[Tensor], Tensor] | None = None

    def __init__(self, channels: int, num_classes: int):
        super().__init__()
        self.num_classes = num_classes
        self.eps = EPS
        self.momentum = MOMENTUM
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        shape = (num_classes, channels) if num_classes else (channels,)
        self.scale = nn.Parameter(torch.ones(shape))
        self.shift = nn.Parameter(torch.zeros(shape))

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        if self.num_classes and y is None:
            raise ValueError("a conditional generator needs the labels y")
        if self.training and self.total is not None:
            return self._over_processes(x, y, self.total)
        statistics = (self.running_mean, self.running_var)
        if y is None or not self.num_classes:
            return F.batch_norm(x, *statistics, self.scale, self.shift, self.training, self.momentum, self.eps)
        x = F.batch_norm(x, *statistics, None, None, self.training, self.momentum, self.eps)
        # In the map's dtype: fp32 tables would lift a bf16 map, and all that follows up to a convolution, to fp32.
        scale, shift = (as_dtype_of(class_rows(table, y)[:, :, None, None], x) for table in self.tables())
        return torch.addcmul(shift, x, scale)  # scale * x + shift

    def _over_processes(self, x: Tensor, y: Tensor | None, total: Callable[[Tensor], Tensor]) -> Tensor:
        """Compute the same in training mode with the statistics of all processes' x, by one message each way."""
        part = x.to(self.running_mean.dtype)
        variance, mean = torch.var_mean(part, (0, 2, 3), correction=0)
        # Squares about the running mean, which all processes share and which is close enough to avoid cancellation.
        offset = mean - self.running_mean
        n = part.new_full((1,), part.numel() / len(mean))
        sums = total(torch.cat([n * offset, n * (variance + offset.square()), n]))

        # Moments of the whole batch: mean offset, mean square about the running mean, number of values per channel.
        offset, square = (sums[:-1] / sums[-1]).chunk(2)
        n = sums[-1].detach()
        mean = self.running_mean + offset
        variance = square - offset.square()
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * n / (n - 1), self.momentum)

        # scale * (x - mean) / sqrt(variance + eps) + shift
        scale, shift = self.tables()
        if y is not None and self.num_classes:
            scale, shift = class_rows(scale, y), class_rows(shift, y)
        scale = scale * torch.rsqrt(variance + self.eps)
        shift = shift - mean * scale
        return torch.addcmul(shift[..., None, None], part, scale[..., None, None]).to(x.dtype)

    def tables(self) -> tuple[Tensor, Tensor]:
        """Return the scales and the shifts of all classes, (num_classes, C) each; (C,) if unconditional."""
        return self.scale, self.shift

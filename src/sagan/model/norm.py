"""Batch normalisation whose scale and shift depend on the class."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MOMENTUM = 0.1


def of_classes(table: Tensor, y: Tensor) -> Tensor:
    """The rows (N, C) of a table (num_classes, C) that labels (N,) name, or mixtures by weights (N, num_classes)."""
    return y @ table if y.is_floating_point() else F.embedding(y, table)


class ConditionalBatchNorm2d(nn.Module):
    """Batch norm with a learnt scale and shift for each class (de Vries et al. 2017); one of each if unconditional.

    Maps x (N, C, H, W) and y (N,) int64 in [0, num_classes) to (N, C, H, W); y may also be (N, num_classes) weights,
    which mix the classes' scales and shifts. In training mode the batch's own mean and variance are used and the
    running ones follow with momentum 0.1; in evaluation mode the running ones are used.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, num_classes: int, eps: float = 1e-5):
        super().__init__()
        self.num_classes, self.eps, self.momentum = num_classes, eps, MOMENTUM
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        rows = (num_classes,) if num_classes else ()
        self.scale = nn.Parameter(torch.ones(*rows, channels))
        self.shift = nn.Parameter(torch.zeros(*rows, channels))

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        statistics = (self.running_mean, self.running_var)
        if not self.num_classes:
            return F.batch_norm(x, *statistics, self.scale, self.shift, self.training, self.momentum, self.eps)
        assert y is not None, "a conditional generator needs the labels y"
        x = F.batch_norm(x, *statistics, None, None, self.training, self.momentum, self.eps)
        scale, shift = (of_classes(table, y)[:, :, None, None] for table in (self.scale, self.shift))
        return torch.addcmul(shift, x, scale)

"""Batch normalisation whose scale and shift depend on the class."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConditionalBatchNorm2d(nn.Module):
    """Batch norm with a learnt scale and shift for each class (de Vries et al. 2017); one of each if unconditional.

    Maps x (N, C, H, W) and y (N,) int64 in [0, num_classes) to (N, C, H, W). In training mode the batch's own mean
    and variance are used and the running ones follow with momentum 0.1; in evaluation mode the running ones are used.
    """

    def __init__(self, channels: int, num_classes: int, eps: float = 1e-5):
        super().__init__()
        self.num_classes = num_classes
        self.statistics = nn.BatchNorm2d(channels, eps=eps, affine=False)
        rows = (num_classes,) if num_classes else ()
        self.scale = nn.Parameter(torch.ones(*rows, channels))
        self.shift = nn.Parameter(torch.zeros(*rows, channels))

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        if not self.num_classes:
            bn = self.statistics
            if self.training:
                bn.num_batches_tracked.add_(1)
            return F.batch_norm(
                x, bn.running_mean, bn.running_var, self.scale, self.shift, self.training, bn.momentum, bn.eps
            )
        scale = F.embedding(y, self.scale)[:, :, None, None]
        shift = F.embedding(y, self.shift)[:, :, None, None]
        return torch.addcmul(shift, self.statistics(x), scale)

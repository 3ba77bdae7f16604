"""The activations of the networks' blocks, by name."""

import torch.nn.functional as F
from torch import Tensor

from sagan.model.config import ActivationName

SLOPE = 0.1  # of leaky-relu, for negative numbers


def activate(x: Tensor, name: ActivationName) -> Tensor:
    """Apply an activation to x."""
    if name == "relu":
        return F.relu(x)
    return F.leaky_relu(x, SLOPE) if name == "leaky-relu" else F.elu(x)


def activate_(x: Tensor, name: ActivationName) -> Tensor:
    """Apply an activation to x in place."""
    if name == "relu":
        return F.relu_(x)
    return F.leaky_relu_(x, SLOPE) if name == "leaky-relu" else F.elu_(x)

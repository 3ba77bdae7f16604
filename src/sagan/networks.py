"""Build a network with the tensors of a file."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from sagan.files import DamagedFile, load_into
from sagan.model.config import ModelConfig
from sagan.model.spectral_norm import drop_spectral_norm

Network = TypeVar("Network", bound=nn.Module)


def build_from(
    build: Callable[[ModelConfig], Network],
    config: ModelConfig,
    tensors: dict[str, Tensor],
    path: Path,
    *,
    folded: bool,
) -> Network:
    """Build a network with the tensors of a file, without the spectral norms that are folded into them.

    Before that check that the file has as many numbers as its configuration requires. Otherwise a file of a few bytes,
    from an unknown source, could make the machine run out of memory.

    Raises:
        DamagedFile: the tensors are not those of the network.
    """
    make = (lambda: drop_spectral_norm(build(config))) if folded else (lambda: build(config))
    try:
        with torch.device("meta"):  # shapes only
            required = sum(t.numel() for t in make().state_dict().values())
    except (RuntimeError, TypeError, OverflowError) as error:  # a size overflows
        raise DamagedFile(f"{path} does not fit its configuration, whose networks are too large") from error
    present = sum(t.numel() for t in tensors.values())
    if required > present:
        raise DamagedFile(f"{path} does not fit its configuration: it has {present:,} of {required:,} numbers")
    network = make()
    load_into(network, tensors, path)
    return network


def select(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of one network in a checkpoint, without the prefix of their names."""
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}

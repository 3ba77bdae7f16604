"""A generator as a torch.export program (.pt2): runs where PyTorch is and sagan is not, C++ included."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from sagan.exporters.standalone import Standalone


def write_program(network: Standalone, path: Path, *, about: dict[str, str]) -> None:
    """Writes a generator as a program of z (N, latent_dim) and, with classes, y (N,); N is free.

    `about` goes beside it into the file, as extra files of these names.
    """
    config = network.generator.config
    inputs = [torch.zeros(2, config.latent_dim)]  # two, since a batch of 1 is taken for one that is always 1
    if config.num_classes:
        inputs.append(torch.zeros(2, dtype=torch.int64))
    shapes = tuple({0: torch.export.Dim("batch")} for _ in inputs)
    program = torch.export.export(network, tuple(inputs), dynamic_shapes=shapes)
    # The exporter notes the lines of code, and where on this machine they lie, beside every operation.
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    torch.export.save(program, path, extra_files=about)


def open_program(path: Path) -> Callable[[Tensor, Tensor | None], Tensor]:
    """What draws pictures of z and y from a file that `write_program` wrote."""
    program = torch.export.load(path).module()

    def draw(z: Tensor, y: Tensor | None) -> Tensor:
        return program(z) if y is None else program(z, y)

    return draw

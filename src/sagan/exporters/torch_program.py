"""Write a generator as a torch.export program (.pt2), which runs in PyTorch without sagan, also from C++."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from sagan.exporters.standalone import StandaloneGenerator


def write_program(network: StandaloneGenerator, path: Path, *, metadata: dict[str, str]) -> None:
    """Write a generator as a program of z (N, latent_dim) and, with classes, y (N,); N is dynamic.

    `metadata` is stored in the archive as extra files: name -> content.
    """
    config = network.generator.config
    inputs = [torch.zeros(2, config.latent_dim)]  # batches of 2: torch.export specialises on a batch of 1
    if config.num_classes:
        inputs.append(torch.zeros(2, dtype=torch.int64))
    shapes = tuple({0: torch.export.Dim("batch")} for _ in inputs)
    program = torch.export.export(network, tuple(inputs), dynamic_shapes=shapes)
    # The exporter stores source lines and file names of this machine with every operation.
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    torch.export.save(program, path, extra_files=metadata)


def open_program(path: Path) -> Callable[[Tensor, Tensor | None], Tensor]:
    """Return a function that generates images from z and y with a file of `write_program`."""
    program = torch.export.load(path).module()

    def draw(z: Tensor, y: Tensor | None) -> Tensor:
        return program(z) if y is None else program(z, y)

    return draw

"""Write a generator as one self-contained ONNX file, and run it in onnxruntime."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sagan.errors import UserError
from sagan.exporters.standalone import StandaloneGenerator

OPSET = 18  # version of the operator set: the default of PyTorch's exporter, read by runtimes since 2023


def check_installed() -> None:
    """Raise UserError if a package that writes or runs ONNX is missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"--to onnx needs onnx, onnxscript and onnxruntime ({error.name} is missing): pip install 'sagan[export]'"
        ) from error


def write_onnx(network: StandaloneGenerator, path: Path, *, opset: int, metadata: dict[str, str]) -> None:
    """Write a generator as ONNX: inputs z (N, latent_dim) and, with classes, y (N,); output 'pictures' (N, C, H, W).

    N is dynamic. `metadata` is stored in the file; file names of this machine are not.

    Raises:
        UserError: the exporter cannot write this opset.
    """
    import onnx

    config = network.generator.config
    # Batches of 2, because torch.export specialises on a batch of 1.
    inputs: dict[str, Tensor] = {"z": torch.zeros(2, config.latent_dim)}
    if config.num_classes:
        inputs["y"] = torch.zeros(2, dtype=torch.int64)
    batch = torch.export.Dim("batch")
    with _quiet():
        program: Any = torch.onnx.export(
            network,
            tuple(inputs.values()),
            dynamo=True,
            opset_version=opset,
            input_names=list(inputs),
            output_names=["pictures"],
            dynamic_shapes={name: {0: batch} for name in inputs},
            verbose=False,
        )
    model = program.model_proto
    written_opset = next(s.version for s in model.opset_import if not s.domain)
    if written_opset != opset:
        raise UserError(f"--opset {opset}: this generator cannot be written in it; use {OPSET} or newer")

    # The exporter stores source lines and file names of this machine with every operation.
    for part in (model.graph, *model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    model.producer_name = "sagan"
    model.producer_version = metadata["sagan"]
    model.graph.name = "generator"
    onnx.helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def open_onnx(path: Path, *, threads: int = 0) -> Callable[[Tensor, Tensor | None], Tensor]:
    """Return a function that generates images from z and y in onnxruntime on the CPU.

    Args:
        threads: 0: onnxruntime's default.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def draw(z: Tensor, y: Tensor | None) -> Tensor:
        inputs = {"z": z.numpy()}
        if y is not None:
            inputs["y"] = y.numpy()
        return torch.from_numpy(session.run(["pictures"], inputs)[0])

    return draw


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's log messages and warnings; its errors are still raised."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

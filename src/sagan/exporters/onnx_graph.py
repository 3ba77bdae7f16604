"""A generator as one ONNX file that stands alone, checked in onnxruntime before it is kept."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sagan.errors import UserError
from sagan.exporters.standalone import Standalone

OPSET = 18  # what PyTorch's exporter writes by itself, and runtimes since 2023 read


def check_installed() -> None:
    """Raises UserError where a package that writes or runs ONNX is missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"--to onnx needs onnx, onnxscript and onnxruntime ({error.name} is missing): pip install 'sagan[export]'"
        ) from error


def write_onnx(network: Standalone, path: Path, *, opset: int, about: dict[str, str]) -> None:
    """Writes a generator as ONNX: inputs z (N, latent_dim) and, with classes, y (N,); output pictures (N, C, H, W).

    N is free. `about` goes into the file's metadata. Nothing of the machine that wrote it does.

    Raises:
        UserError: an opset that cannot be written.
    """
    import onnx

    config = network.generator.config
    # Two of each, since a batch of 1 is taken for one that is always 1.
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
    written = next(s.version for s in model.opset_import if not s.domain)
    if written != opset:
        raise UserError(f"--opset {opset}: this generator cannot be written in it; take {OPSET} or a newer one")
    # The exporter notes the lines of code, and where on this machine they lie, beside every operation.
    for part in (model.graph, *model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    model.producer_name, model.producer_version = "sagan", about["sagan"]
    model.graph.name = "generator"
    onnx.helper.set_model_props(model, about)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def open_onnx(path: Path, *, threads: int = 0) -> Callable[[Tensor, Tensor | None], Tensor]:
    """What draws pictures of z and y in onnxruntime, on the CPU, with as many threads as it likes (0) or so many."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def draw(z: Tensor, y: Tensor | None) -> Tensor:
        inputs = {"z": z.numpy()} | ({} if y is None else {"y": y.numpy()})
        return torch.from_numpy(session.run(["pictures"], inputs)[0])

    return draw


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on itself; what goes wrong is raised all the same."""
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

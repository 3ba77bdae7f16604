"""Write a generator as one self-contained ONNX file, and run it in onnxruntime."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sagan.errors import UserError
from sagan.exporters.standalone import StandaloneGenerator

OPSET = 18  # version of the operator set: the default of PyTorch's exporter, read by runtimes since 2023
OUTPUT = "pictures"  # name of the output, part of the file format


def check_installed() -> None:
    """Raise UserError if a package that writes or runs ONNX is missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"--to onnx needs onnx, onnxscript and onnxruntime ({error.name} is missing): "
            "pip install 'sagan-torch[export]'"
        ) from error


def write_onnx(network: StandaloneGenerator, path: Path, *, opset: int, metadata: dict[str, str]) -> None:
    """Write a generator as ONNX: inputs z (N, latent_dim) and, with classes, y (N,); output `OUTPUT` (N, C, H, W).

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
            output_names=[OUTPUT],
            dynamic_shapes={name: {0: batch} for name in inputs},
            verbose=False,
        )
    model = program.model_proto
    written_opset = next(s.version for s in model.opset_import if not s.domain)
    if written_opset != opset:
        raise UserError(f"--opset {opset}: this generator cannot be written in it; use {OPSET} or newer")

    if config.num_classes:
        _check_classes(model.graph, config.num_classes)

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


def _check_classes(graph: Any, num_classes: int) -> None:
    """Let the graph fail for a y of another length than z, and for negative class numbers.

    ONNX itself broadcasts a y of one class over all latents, and counts negative numbers from the last class.
    """
    from onnx import TensorProto, helper, numpy_helper

    for node in graph.node:
        node.input[:] = ["y_checked" if name == "y" else name for name in node.input]
    constants = {"class_zero": np.array(0, np.int64), "class_count": np.array(num_classes, np.int64)}
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    checks = [
        helper.make_node("Shape", ["z"], ["batch_size"], start=0, end=1),
        helper.make_node("Reshape", ["y", "batch_size"], ["y_of_batch"]),  # fails for another number of elements
        helper.make_node("Less", ["y_of_batch", "class_zero"], ["y_is_negative"]),
        # Beyond the last class: looking it up fails.
        helper.make_node("Where", ["y_is_negative", "class_count", "y_of_batch"], ["y_checked"]),
    ]
    for i, node in enumerate(checks):
        graph.node.insert(i, node)
    for name, kind in (("y_of_batch", TensorProto.INT64), ("y_checked", TensorProto.INT64)):
        graph.value_info.append(helper.make_tensor_value_info(name, kind, ["batch"]))


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
        return torch.from_numpy(session.run([OUTPUT], inputs)[0])

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

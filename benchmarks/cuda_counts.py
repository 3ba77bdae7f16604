"""Count the operations, kernels and memory traffic of a training step on a GPU, without a GPU.

    python benchmarks/cuda_counts.py [--save NAME]

The step runs on a fake GPU (tests/helpers/fake_cuda; a CPU build of PyTorch and a C++ compiler), whose tensors have no
memory. All counts come from shapes and dtypes, nothing is timed, and the machine does not matter.

operations: ATen operations; views are counted separately.
kernels: an estimate. An operation counts as one; an operation on a list of tensors (foreach, fused Adam) as one per 64
    tensors; a batch norm, a norm, a softmax and a dot product as two; a convolution's backward as one per gradient.
GB: inputs and outputs of every operation, as if each passed through memory once. Caches and fusion reduce it.
casts: copies of feature maps between fp32 and bf16, and the bytes that they move.
large kernels: convolutions with kernels wider than 4 pixels, as in PyTorch's double backward.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from helpers.fake_cuda import guard

try:
    guard.load(guard.build())  # before PyTorch is imported
except guard.Unavailable as reason:
    sys.exit(f"error: {reason}")

import torch

from helpers.fake_cuda.gpu import FakeGPU, Op
from machine import Table, argument_parser
from sagan import PRESETS, ModelConfig, TrainingConfig
from sagan.training.step import Trainer

CUDA = torch.device("cuda", 0)
COLUMNS = ("step", "operations", "views", "kernels ~", "GB", "casts", "GB of casts", "large kernels")


def cases() -> Iterator[tuple[str, ModelConfig, TrainingConfig]]:
    large = replace(PRESETS["imagenet128"].model, num_classes=1000)
    for precision, batch in (("bf16", 64), ("bf16", 256), ("fp32", 256)):
        yield (
            f"128 px, {precision}, batch {batch}",
            large,
            replace(PRESETS["imagenet128"].training, batch_size=batch, precision=precision),
        )
    for name in ("demo", "small"):
        for precision in ("bf16", "fp32"):
            training = replace(PRESETS[name].training, precision=precision)
            yield f"{name}, {precision}, batch {training.batch_size}", PRESETS[name].model, training


def kernels(op: Op) -> int:
    """Estimate the kernels that an operation launches."""
    if op.is_view:
        return 0
    if op.name.startswith("_foreach") or op.name.startswith("_fused"):
        return -(-len(op.outputs or op.inputs) // 64)
    if op.name in ("native_batch_norm", "linalg_vector_norm", "_softmax", "dot"):
        return 2
    return max(1, len(op.outputs)) if op.name == "convolution_backward" else 1


def is_map(shape: tuple[int, ...]) -> bool:
    """Return whether a tensor is a feature map: (N, C, H, W) of more channels than an image and more than one pixel."""
    return len(shape) == 4 and shape[1] > 4 and shape[2] * shape[3] >= 16


def is_cast(op: Op) -> bool:
    """Return whether an operation copies a feature map between fp32 and bf16."""
    return op.name == "_to_copy" and op.inputs[0].dtype != op.outputs[0].dtype and is_map(op.inputs[0].shape)


def has_large_kernel(op: Op) -> bool:
    """Return whether an operation is a convolution with a kernel wider than 4 pixels."""
    if op.name not in ("convolution", "convolution_backward"):
        return False
    weight = op.inputs[1 if op.name == "convolution" else 2]
    return max(weight.shape[2:]) > 4


def row(name: str, gpu: FakeGPU) -> list[str]:
    work = [op for op in gpu.ops if not op.is_view]
    casts = [op for op in work if is_cast(op)]
    return [
        name,
        f"{len(work):,}",
        f"{len(gpu.ops) - len(work):,}",
        f"{sum(map(kernels, gpu.ops)):,}",
        f"{sum(op.bytes for op in work) / 1e9:.3g}",
        f"{len(casts):,}",
        f"{sum(op.bytes for op in casts) / 1e9:.3g}",
        f"{sum(map(has_large_kernel, work))}",
    ]


def main() -> None:
    options = argument_parser(__doc__, save=True).parse_args()
    table = Table("Operations and memory traffic of a training step on a GPU", COLUMNS, save=options.save)
    for name, model, training in cases():
        with FakeGPU() as gpu:
            trainer = Trainer(model, training, CUDA)
            shape = (training.batch_size, model.resolution, model.resolution, model.image_channels)
            batch = (
                torch.zeros(shape, dtype=torch.uint8, device=CUDA).permute(0, 3, 1, 2),
                torch.zeros(training.batch_size, dtype=torch.int64, device=CUDA),
            )
            trainer.train_step(1, lambda number, batch=batch: batch)  # which creates the optimisers' state
            steps = {"": 2 * training.penalty_every + 1}
            if training.r1:
                steps = {", plain": 2 * training.penalty_every + 1, ", with R1 and R2": 2 * training.penalty_every}
            for kind, number in steps.items():
                gpu.forget()
                trainer.train_step(number, lambda number, batch=batch: batch)
                table.row(*row(name + kind, gpu))


if __name__ == "__main__":
    main()

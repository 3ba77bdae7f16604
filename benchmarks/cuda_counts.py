"""What does a training step ask of a GPU? Operations, kernels and memory traffic, counted without one.

    python benchmarks/cuda_counts.py [--save NAME]

The step runs on a fake GPU (tests/helpers/fake_cuda; a CPU build of PyTorch and a C++ compiler), whose tensors have no
memory: all of this is counted from shapes and dtypes, nothing is timed, and no machine matters.

operations: what ATen computes, views besides.
kernels: an estimate. An operation is one; a list of n tensors at once (foreach, fused Adam) one for 64 of them; a batch
    norm, a norm, a softmax and a dot product two; a convolution's backward one for each gradient.
GB: inputs and outputs of every operation, as if each went through memory once. Caches and fusing make it less.
casts: copies between fp32 and bf16 of what is as large as a feature map, and what they move.
large kernels: convolutions whose kernel is wider than 4 pixels, as the double backward of PyTorch makes them.
"""

import argparse
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
from machine import Table
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
    """An estimate of the kernels that an operation launches."""
    if op.is_view:
        return 0
    if op.name.startswith("_foreach") or op.name.startswith("_fused"):
        return -(-len(op.outputs or op.inputs) // 64)
    if op.name in ("native_batch_norm", "linalg_vector_norm", "_softmax", "dot"):
        return 2
    return max(1, len(op.outputs)) if op.name == "convolution_backward" else 1


def is_map(shape: tuple[int, ...]) -> bool:
    """Whether a tensor is a feature map: (N, C, H, W) of more channels than an image and more than one pixel."""
    return len(shape) == 4 and shape[1] > 4 and shape[2] * shape[3] >= 16


def is_cast(op: Op) -> bool:
    """Whether it copies a feature map between fp32 and bf16."""
    return op.name == "_to_copy" and op.inputs[0].dtype != op.outputs[0].dtype and is_map(op.inputs[0].shape)


def has_large_kernel(op: Op) -> bool:
    """Whether it is a convolution with a kernel wider than 4 pixels."""
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", default="", metavar="NAME", help="keep the table as results/NAME.md")
    table = Table("What does a training step ask of a GPU?", COLUMNS, save=parser.parse_args().save)
    for name, model, training in cases():
        with FakeGPU() as gpu:
            trainer = Trainer(model, training, CUDA)
            shape = (training.batch_size, model.resolution, model.resolution, model.image_channels)
            batch = (
                torch.zeros(shape, dtype=torch.uint8, device=CUDA).permute(0, 3, 1, 2),
                torch.zeros(training.batch_size, dtype=torch.int64, device=CUDA),
            )
            trainer.train_step(1, lambda number, batch=batch: batch)  # which makes the optimisers' state
            steps = {"": 2 * training.penalty_every + 1}
            if training.r1:
                steps = {", plain": 2 * training.penalty_every + 1, ", with R1 and R2": 2 * training.penalty_every}
            for kind, number in steps.items():
                gpu.forget()
                trainer.train_step(number, lambda number, batch=batch: batch)
                table.row(*row(name + kind, gpu))


if __name__ == "__main__":
    main()

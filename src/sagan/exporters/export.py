"""`sagan export`: write a run's generator in a format that needs no sagan, and check it before keeping it."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from sagan.device import CPU, full_precision
from sagan.errors import UserError
from sagan.exporters import onnx_graph, torch_program
from sagan.exporters.standalone import StandaloneGenerator
from sagan.files import save_tensors, write_atomically
from sagan.model.config import ModelConfig, baked
from sagan.model.generator import Generator
from sagan.model.spectral_norm import for_inference
from sagan.run import default_output, load_generator, read_generator
from sagan.sampling import draw_latents
from sagan.version import __version__

Format = Literal["onnx", "safetensors", "torch-export"]
FILE_NAMES: dict[Format, str] = {
    "onnx": "generator.onnx",
    "safetensors": "generator-plain.safetensors",
    "torch-export": "generator.pt2",
}
CHECK_BATCHES = (1, 15)  # batch sizes of the check, images
TOLERANCE = 1e-3  # of the check, for images in [-1, 1]: an eighth of a grey level
Draw = Callable[[Tensor, Tensor | None], Tensor]  # z, y -> images


@dataclass(frozen=True)
class ExportedFile:
    """A file that was written and checked; str() describes it."""

    path: Path
    content: str
    interface: str
    """Inputs and outputs."""
    runtime: str
    """The package that ran the check, and its version."""
    difference: float
    """Largest absolute difference from the generator's images, in [-1, 1]; for uint8 images, beyond their rounding."""

    def __str__(self) -> str:
        uint8 = "uint8" in self.interface
        if self.difference or uint8:
            difference = f"largest difference {self.difference:.2g}" + (" beyond rounding to uint8" if uint8 else "")
        else:
            difference = "identical, bit for bit"
        return (
            f"{self.path}: {self.content}, {self.path.stat().st_size / 1e6:.2f} MB\n{self.interface}\n"
            f"checked in {self.runtime}, {sum(CHECK_BATCHES)} images against the run's: {difference}"
        )


def export(
    run: str | Path,
    to: Format,
    out: Path | None = None,
    *,
    truncation: float | None = None,
    uint8: bool = False,
    opset: int | None = None,
    device: torch.device = CPU,
) -> ExportedFile:
    """Write the averaged generator of a run in another format, with spectral norms folded into the weights.

    Args:
        run: the run's folder, its generator.safetensors or one of its checkpoints.
        to: 'onnx', 'torch-export' (.pt2: needs PyTorch but not sagan) or 'safetensors' (plain weights, for `load`).
        out: the file; None: in the run's folder, under a name that tells the options.
        truncation: the graph truncates its standard normal latents to this magnitude, as `draw_latents` does.
        uint8: the graph returns uint8 images in [0, 255] instead of float32 in [-1, 1].
        opset: version of the ONNX operator set; None: 18.
        device: where the images are drawn that the file's must equal; a graph is written and run on the CPU.

    Raises:
        UserError: there is no such run, a package is missing, the file cannot be written, or its images differ from
            the generator's; no file is left then.
        ValueError: the format does not support an option.
    """
    if to == "safetensors" and (truncation is not None or uint8):
        raise ValueError("truncation and uint8 require onnx or torch-export: a safetensors file holds only weights")
    if to != "onnx" and opset is not None:
        raise ValueError(f"opset requires onnx: {to} has no opset")
    run = Path(run)
    generator, class_names, step = read_generator(run)
    out = out or _default_path(run, to, truncation=truncation, uint8=uint8, opset=opset)
    suffix = Path(FILE_NAMES[to]).suffix
    if out.suffix.lower() != suffix:
        raise UserError(f"--out {out}: the file name must end in {suffix}")
    if to == "onnx":
        onnx_graph.check_installed()

    # Describe the file.
    network = StandaloneGenerator(generator, truncation=truncation, uint8=uint8).eval()
    generator = for_inference(generator, device)
    config = generator.config
    images = "uint8 in [0, 255]" if uint8 else "float32 in [-1, 1]"
    metadata = {
        "sagan": __version__,
        "step": str(step),
        "model": json.dumps(asdict(config)),
        "class_names": json.dumps(class_names),
        "truncation": json.dumps(truncation),
        "inputs": _describe_inputs(config),
        "pictures": images,  # part of the file format, as is the output's name
    }
    content, package = {
        "onnx": (f"ONNX, opset {opset or onnx_graph.OPSET}", "onnxruntime"),
        "torch-export": ("torch.export program", "torch"),
        "safetensors": ("safetensors, spectral norms folded into the weights", "torch"),
    }[to]
    runtime = f"{package} {version(package)}"
    differences: list[float] = []

    # Write and check it in a temporary place; an exception removes it.
    def write(path: Path) -> None:
        draw: Draw
        if to == "onnx":
            onnx_graph.write_onnx(network, path, opset=opset or onnx_graph.OPSET, metadata=metadata)
            draw = onnx_graph.open_onnx(path)
        elif to == "torch-export":
            torch_program.write_program(network, path, metadata=metadata)
            draw = torch_program.open_program(path)
        else:
            data = {"step": step, "model": asdict(baked(config)), "class_names": class_names}
            save_tensors(path, generator.state_dict(), data)
            draw = _draw_on(device, load_generator(path, device)[0])
        reference = _draw_on(device, generator)
        difference = _largest_difference(draw, config, reference, truncation=truncation, uint8=uint8)
        if not difference <= TOLERANCE:  # so that NaN fails too
            raise UserError(
                f"{out} was not written: in {runtime} its images differ from the run's by {difference:.2g} "
                f"(in [-1, 1]; tolerance {TOLERANCE:g})"
            )
        differences.append(difference)

    with torch.no_grad(), full_precision():
        write_atomically(out, write)
    return ExportedFile(out, content, _interface(config, images), runtime, differences[0])


def _default_path(run: Path, to: Format, *, truncation: float | None, uint8: bool, opset: int | None) -> Path:
    """Return the file of a format in the run, whose name tells the checkpoint and the options that are not default."""
    name = Path(FILE_NAMES[to])
    parts = [name.stem]
    if run.parent.name == "checkpoints":
        parts.append(run.stem)
        run = run.parent.parent
    if truncation is not None:
        parts.append(f"truncation{truncation!r}")
    if uint8:
        parts.append("uint8")
    if opset is not None:
        parts.append(f"opset{opset}")
    return default_output(run, "-".join(parts) + name.suffix)


def _draw_on(device: torch.device, generator: Generator) -> Draw:
    """Return a function from z and y to images, all on the CPU, by a generator on a device."""
    return lambda z, y: generator(z.to(device), None if y is None else y.to(device)).cpu()


def _largest_difference(
    draw: Draw, config: ModelConfig, reference: Draw, *, truncation: float | None, uint8: bool
) -> float:
    """Return the largest absolute difference between images of `draw` and of `reference`, in [-1, 1].

    Raises:
        UserError: the images of `draw` have another shape or dtype.
    """
    largest = torch.tensor(0.0)
    for count in CHECK_BATCHES:
        z = draw_latents(count, config.latent_dim, seed=count)
        z_truncated = draw_latents(count, config.latent_dim, seed=count, truncation=truncation)
        y = torch.arange(count) * 7 % config.num_classes if config.num_classes else None
        expected = reference(z_truncated, y)
        actual = draw(z, y)
        if actual.shape != expected.shape or actual.dtype != (torch.uint8 if uint8 else expected.dtype):
            raise UserError(
                f"the exported images are {tuple(actual.shape)} {actual.dtype}, expected {tuple(expected.shape)}"
            )
        if uint8:  # the distance from the exact grey level, less the half level that rounding may add
            difference = ((actual - expected.add(1).mul(127.5)).abs().max() - 0.5).clamp_min(0) / 127.5
        else:
            difference = (actual - expected).abs().max()
        largest = difference.maximum(largest)  # unlike max(), maximum propagates NaN
    return largest.item()


def _interface(config: ModelConfig, images: str) -> str:
    shape = f"(N, {config.image_channels}, {config.resolution}, {config.resolution})"
    return f"inputs: {_describe_inputs(config)}; output: images {shape} {images}"


def _describe_inputs(config: ModelConfig) -> str:
    classes = f" and y (N,) int64 in [0, {config.num_classes}), of the same N" if config.num_classes else ""
    return f"z (N, {config.latent_dim}) float32, standard normal{classes}"

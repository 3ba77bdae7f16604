"""`sagan export`: a run's generator for where sagan is not, checked before it is kept."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from sagan.device import CPU, full_precision
from sagan.errors import UserError
from sagan.files import save_tensors, write_atomically
from sagan.interop import onnx, torch_export
from sagan.interop.standalone import Standalone
from sagan.model.config import ModelConfig, baked
from sagan.model.generator import Generator
from sagan.model.spectral_norm import bake_spectral_norm
from sagan.run import load, read_generator
from sagan.sampling import draw_latents

Format = Literal["onnx", "safetensors", "torch-export"]
FILE_NAMES: dict[Format, str] = {
    "onnx": "generator.onnx",
    "safetensors": "generator-plain.safetensors",
    "torch-export": "generator.pt2",
}
CHECKED = (1, 15)  # pictures in each batch of the check
TOLERANCE = 1e-3  # of pictures in [-1, 1]: an eighth of a grey level
Draw = Callable[[Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class Exported:
    """A file that was written and checked; printed, it says what it is."""

    path: Path
    content: str
    interface: str
    """What goes in and comes out."""
    runtime: str
    """What the check drew its pictures with."""
    difference: float
    """The largest between these pictures and the generator's, in [-1, 1]; of uint8 pictures beyond their rounding."""

    def __str__(self) -> str:
        uint8 = "uint8" in self.interface
        beyond = " beyond the rounding to bytes" if uint8 else ""
        difference = f"largest difference {self.difference:.2g}{beyond}"
        if not self.difference and not uint8:
            difference = "identical, bit for bit"
        return (
            f"{self.path}: {self.content}, {self.path.stat().st_size / 1e6:.2f} MB\n{self.interface}\n"
            f"checked in {self.runtime}, {sum(CHECKED)} pictures against the run's: {difference}"
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
) -> Exported:
    """Writes the averaged generator of a run in another format, its spectral norms worked into the weights.

    Args:
        run: the run's folder, its generator.safetensors or one of its checkpoints.
        to: 'onnx', 'torch-export' (.pt2: needs PyTorch but not sagan) or 'safetensors' (plain weights, for `load`).
        out: the file; None: in the run, beside its own.
        truncation: the graph cuts its standard normal latents off at this magnitude, as `draw_latents` does.
        uint8: the graph gives bytes in [0, 255], else float32 in [-1, 1].
        opset: ONNX's, 18 if None.
        device: where the pictures are drawn that the file's must equal; a graph is written and run on the CPU.

    Raises:
        UserError: no such run, a package is missing, no place to write, or the file's pictures are not those of the
            generator; then no file is left.
        ValueError: an option that the format has no place for.
    """
    if to == "safetensors" and (truncation is not None or uint8):
        raise ValueError("truncation and uint8 are for onnx and torch-export: safetensors holds weights alone")
    if to != "onnx" and opset is not None:
        raise ValueError(f"opset is ONNX's: {to} has none")
    run = Path(run)
    generator, class_names, step = read_generator(run)
    out = out or (run if run.is_dir() else run.parent) / FILE_NAMES[to]
    suffix = Path(FILE_NAMES[to]).suffix
    if out.suffix.lower() != suffix:
        raise UserError(f"--out {out}: give a {suffix} file")
    network = Standalone(generator, truncation=truncation, uint8=uint8).eval()
    generator = bake_spectral_norm(generator.eval()).requires_grad_(False).to(device)
    config = generator.config
    about = {
        "sagan": metadata.version("sagan"),
        "step": str(step),
        "model": json.dumps(asdict(config)),
        "class_names": json.dumps(class_names),
        "truncation": json.dumps(truncation),
        "pictures": "uint8 in [0, 255]" if uint8 else "float32 in [-1, 1]",
    }
    if to == "onnx":
        onnx.check_installed()
    content, runtime = {
        "onnx": (f"ONNX, opset {opset or onnx.OPSET}", "onnxruntime"),
        "torch-export": ("torch.export program", "torch"),
        "safetensors": ("safetensors, spectral norms worked in", "torch"),
    }[to]
    runtime = f"{runtime} {metadata.version(runtime)}"
    differences: list[float] = []

    def write(path: Path) -> None:
        draw: Draw
        if to == "onnx":
            onnx.write_onnx(network, path, opset=opset or onnx.OPSET, about=about)
            draw = onnx.open_onnx(path)
        elif to == "torch-export":
            torch_export.write_program(network, path, about=about)
            draw = torch_export.open_program(path)
        else:
            data = {"step": step, "model": asdict(baked(config)), "class_names": class_names}
            save_tensors(path, generator.state_dict(), data)
            draw = _on(device, load(path).to(device))
        differences.append(_check(draw, generator.config, _on(device, generator), truncation=truncation, uint8=uint8))
        if not differences[0] <= TOLERANCE:  # so that NaN fails too
            raise UserError(
                f"{out} is not written: in {runtime} its pictures differ from the run's by {differences[0]:.2g} "
                f"(in [-1, 1]; {TOLERANCE:g} would do)"
            )

    with torch.no_grad(), full_precision():
        write_atomically(out, write)
    return Exported(out, content, _interface(config, about["pictures"]), runtime, differences[0])


def _on(device: torch.device, generator: Generator) -> Draw:
    """What draws pictures of z and y by a generator on a device; all three are on the CPU."""
    return lambda z, y: generator(z.to(device), None if y is None else y.to(device)).cpu()


def _check(draw: Draw, config: ModelConfig, reference: Draw, *, truncation: float | None, uint8: bool) -> float:
    """The largest difference between pictures that `draw` draws and those of the reference, in batches of two sizes."""
    largest = 0.0
    for count in CHECKED:
        z, cut_off = (draw_latents(count, config.latent_dim, seed=count, truncation=t) for t in (None, truncation))
        y = torch.arange(count) * 7 % config.num_classes if config.num_classes else None
        wanted, found = reference(cut_off, y), draw(z, y)
        if found.shape != wanted.shape or found.dtype != (torch.uint8 if uint8 else wanted.dtype):
            raise UserError(f"the exported pictures are {tuple(found.shape)} {found.dtype}, not {tuple(wanted.shape)}")
        if uint8:  # how much further they are from the exact grey level than rounding would put them
            difference = ((found - wanted.add(1).mul(127.5)).abs().max() - 0.5).clamp_min(0) / 127.5
        else:
            difference = (found - wanted).abs().max()
        largest = difference.maximum(torch.tensor(largest)).item()  # maximum passes NaN on
    return largest


def _interface(config: ModelConfig, pictures: str) -> str:
    shape = f"(N, {config.image_channels}, {config.resolution}, {config.resolution})"
    classes = f" and y (N,) int64 in [0, {config.num_classes})" if config.num_classes else ""
    return f"z (N, {config.latent_dim}) float32, standard normal,{classes} to pictures {shape} {pictures}"

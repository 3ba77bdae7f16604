"""Measure the speed and size of exported generators: the values of docs/export.md.

python benchmarks/export.py runs/demo
python benchmarks/export.py --resolution 128 --base-channels 64 --classes 1000   # random weights
"""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

import sagan
from machine import Table
from sagan.config import Config
from sagan.exporters.export import Format, export
from sagan.exporters.onnx_graph import open_onnx
from sagan.exporters.torch_program import open_program
from sagan.run import Run, RunInfo
from sagan.sampling import draw_latents


@dataclass(frozen=True)
class Options:
    run: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")] = None
    """A run; default: a network of these sizes with random weights."""
    resolution: int = 64
    base_channels: int = 32
    classes: int = 10
    batch: int = 32
    """Images in a batch."""
    seconds: float = 5.0
    """Time spent on each line of the table, s."""
    threads: int = 2
    save: str = ""
    """Also write the table to results/NAME.md."""


def speed(draw, inputs, seconds):
    """Return images/s of the fastest batch: slower ones shared the machine with other processes."""
    draw(*inputs)
    best = float("inf")
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        draw(*inputs)
        best = min(best, time.perf_counter() - start)
    return len(inputs[0]) / best


def random_run(folder, options):
    model = sagan.ModelConfig(
        resolution=options.resolution, base_channels=options.base_channels, num_classes=options.classes
    )
    names = tuple(map(str, range(options.classes)))
    run = Run.create(folder / "random", RunInfo(Config(model=model), names, ""))
    torch.manual_seed(0)
    generator = sagan.Generator(model)
    for name, parameter in generator.named_parameters():
        if name.endswith("gamma"):
            torch.nn.init.constant_(parameter, 0.5)
    run.save_generator(generator, 0)
    return run.path


def main(options):
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as name, torch.inference_mode():
        folder = Path(name)
        path = options.run or random_run(folder, options)
        generator = sagan.load(path)
        as_trained = sagan.run.read_generator(path)[0].eval()
        config = generator.config
        inputs = (
            draw_latents(options.batch, config.latent_dim, seed=0),
            torch.arange(options.batch) % config.num_classes if config.num_classes else None,
        )
        size = Run(path).generator_path.stat().st_size / 1e6
        millions = sum(p.numel() for p in generator.parameters()) / 1e6
        notes = [f"{config.resolution} px, {millions:.2f} M parameters, batches of {options.batch}."]
        columns = ("format", "images/s", "file, MB", "largest difference")
        table = Table("Exported generators", columns, save=options.save, notes=notes)

        def row(label, draw, size, difference):
            table.row(label, f"{speed(draw, inputs, options.seconds):.1f}", f"{size:.2f}", difference)

        row("PyTorch, as trained", as_trained, size, "")
        row("PyTorch, sagan.load", generator, size, "the reference")
        formats: list[tuple[str, Format, str, dict]] = [
            ("onnxruntime", "onnx", "x.onnx", {}),
            ("onnxruntime, truncation and uint8", "onnx", "y.onnx", {"truncation": 0.7, "uint8": True}),
            ("torch.export program", "torch-export", "x.pt2", {}),
        ]
        for label, to, file, options_of_format in formats:
            with torch.inference_mode(False):
                exported = export(path, to, folder / file, **options_of_format)
            draw = open_onnx(exported.path, threads=options.threads) if to == "onnx" else open_program(exported.path)
            note = " beyond rounding" if options_of_format.get("uint8") else ""
            row(label, draw, exported.path.stat().st_size / 1e6, f"{exported.difference:.1e}{note}")


if __name__ == "__main__":
    main(tyro.cli(Options))

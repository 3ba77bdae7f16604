"""What exported generators cost: the figures of docs/export.md.

python benchmarks/export.py runs/demo
python benchmarks/export.py --resolution 128 --base-channels 64 --classes 1000   # a network of random weights
"""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

import sagan
from sagan.config import Config
from sagan.exporters.export import Format, export
from sagan.exporters.onnx_graph import open_onnx
from sagan.exporters.torch_program import open_program
from sagan.run import Run, RunInfo
from sagan.sampling import draw_latents


@dataclass(frozen=True)
class Options:
    run: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")] = None
    """A run; default: a network of random weights of these sizes."""
    resolution: int = 64
    base_channels: int = 32
    classes: int = 10
    batch: int = 32
    """Pictures drawn at once."""
    seconds: float = 5.0
    """Of drawing, for each line of the table."""
    threads: int = 2


def speed(draw, inputs, seconds):
    """Pictures a second, from the fastest of the batches: the others had to share the machine."""
    draw(*inputs)
    best, end = float("inf"), time.perf_counter() + seconds
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
        generator, as_trained = sagan.load(path), sagan.run.read_generator(path)[0].eval()
        config = generator.config
        inputs = (
            draw_latents(options.batch, config.latent_dim, seed=0),
            torch.arange(options.batch) % config.num_classes if config.num_classes else None,
        )
        size = Run(path).generator_path.stat().st_size / 1e6
        millions = sum(p.numel() for p in generator.parameters()) / 1e6
        print(f"{config.resolution} px, {millions:.2f} M parameters, batches of {options.batch}, ", end="")
        print(f"{options.threads} threads, torch {torch.__version__}")
        print(f"{'':<34}{'pictures/s':>10}  {'file':>9}  largest difference")

        def row(what, draw, size, difference):
            rate = speed(draw, inputs, options.seconds)
            print(f"{what:<34}{rate:>10.1f}  {size:>6.2f} MB  {difference}", flush=True)

        row("PyTorch, as trained", as_trained, size, "")
        row("PyTorch, sagan.load", generator, size, "the reference")
        formats: list[tuple[str, Format, str, dict]] = [
            ("onnxruntime", "onnx", "x.onnx", {}),
            ("onnxruntime, truncation and uint8", "onnx", "y.onnx", {"truncation": 0.7, "uint8": True}),
            ("torch.export program", "torch-export", "x.pt2", {}),
        ]
        for what, to, file, extra in formats:
            with torch.inference_mode(False):
                done = export(path, to, folder / file, **extra)
            draw = open_onnx(done.path, threads=options.threads) if to == "onnx" else open_program(done.path)
            note = " beyond rounding" if extra.get("uint8") else ""
            row(what, draw, done.path.stat().st_size / 1e6, f"{done.difference:.1e}{note}")


if __name__ == "__main__":
    main(tyro.cli(Options))

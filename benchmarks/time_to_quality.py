"""Measure image quality after some minutes of training: ours against the networks and training that others use.

    python benchmarks/time_to_quality.py CHECKOUTS --save time_to_quality                   # robots; about 50 minutes
    python benchmarks/time_to_quality.py CHECKOUTS --data emoji64.zip --resolution 64 --base-channels 24 --minutes 10 \\
        --save time_to_quality_emoji                                                        # about an hour
    python benchmarks/time_to_quality.py CHECKOUTS --minutes 0.1 --count 64                 # smaller
    python benchmarks/time_to_quality.py CHECKOUTS --data emoji.zip --preset small --only ours lightweight-gan \\
        --device cuda                                                                       # a quarter of an hour

CHECKOUTS is a folder that holds BigGAN-PyTorch, PyTorch-StudioGAN and lightweight-gan. All have the same images and
batch size, all but lightweight-gan the same widths, and on a CPU all have fp32. On a GPU ours has its own precision and
CUDA graphs, the others PyTorch's TF32 in convolutions; all images are on the GPU. Each run has its own process, one
after the other. The time is that of the training steps, including reading
batches, without the evaluation. There are two judges: the Frechet distances in EfficientNet-Lite0 and in
EfficientNet-Lite2 features (not FID) between the same number of generated and real images. Diversity is measured in
Lite0 features.

Ours is a preset (demo for robots, else small), and the same with the hinge loss, which theirs have; without the guide,
whose network has learnt from ImageNet, which none of theirs has. Its learning rates
fall at the end of a run, so each number of minutes has its own run, whose schedule follows the clock. Their rates are
those of their SAGAN configurations (PyTorch-StudioGAN's for ImageNet) and constant, so one run is evaluated at each
number of minutes. With DiffAugment, everything that the discriminator sees is augmented (color, translation, cutout).

All sample in evaluation mode: ours and BigGAN-PyTorch from averaged generators (its average equals the generator up to
step 2,000, according to its configuration), PyTorch-StudioGAN from the generator, since its SAGAN has no average.
lightweight-gan (--only) is sampled from its generator; it has no classes, other networks and a step of its own.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from lightweight import NAME as LIGHTWEIGHT
from lightweight import lightweight
from machine import RESULTS, Table, argument_parser, wait
from peers import Contender, add_diffaugment, build
from sagan import PRESETS, Config, ModelConfig
from sagan.config import PrecisionName
from sagan.data import Batches, Store, prepare
from sagan.data.resident import ResidentBatches
from sagan.device import keep_memory
from sagan.figures import curves
from sagan.metrics.features import EfficientNetLite0, EfficientNetLite2, Features
from sagan.metrics.monitor import Monitor
from sagan.study.variants import PAPER_LOSS
from sagan.training.inputs import Batch
from sagan.training.step import Trainer
from workers import cpu_seconds, others_since

OURS, OURS_HINGE = "ours", "ours, hinge loss"
AUGMENTED = ", DiffAugment"
DEFAULT = (OURS, OURS_HINGE, "BigGAN-PyTorch", f"BigGAN-PyTorch{AUGMENTED}", f"PyTorch-StudioGAN{AUGMENTED}")
RUNS = (*DEFAULT, LIGHTWEIGHT)
JUDGES: dict[str, type[Features]] = {"Lite0": EfficientNetLite0, "Lite2": EfficientNetLite2}
COLUMNS = ("run", "seed", "minutes", "steps", "images/s", *(f"distance, {judge}" for judge in JUDGES), "diversity")
DIFFAUGMENT = (
    "DiffAugment is PyTorch-StudioGAN's (src/utils/diffaug.py), for BigGAN-PyTorch too, which has none: its users "
    "apply that of data-efficient-gans, the same code, in the same place."
)


class Clock:
    """Count the seconds of training, out of `total`."""

    def __init__(self, total: float) -> None:
        self.total, self.before, self.since = total, 0.0, 0.0

    @property
    def seconds(self) -> float:
        return self.before + (time.perf_counter() - self.since if self.since else 0)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        self.since = time.perf_counter()
        yield
        self.before, self.since = self.seconds, 0.0


class ByTheClock(Trainer):
    """Follow the learning-rate schedule by the clock, since the number of steps is not known in advance."""

    clock: Clock

    def lr_scale(self, index: int) -> float:
        steps = self.config.steps
        return super().lr_scale(min(int(self.clock.seconds / self.clock.total * steps), steps - 1))


class Drawing(nn.Module):
    """Call the network that they sample from like ours."""

    def __init__(self, one: Contender, config: ModelConfig) -> None:
        super().__init__()
        self.config = replace(config, latent_dim=one.latent_dim or config.latent_dim)
        self.one = one

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        return self.one.draw(self.one.average.eval(), z, y)

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        return self.one.average.parameters(recurse)


def configure(options: argparse.Namespace) -> tuple[Config, Store]:
    """Return our configuration, a preset with the given data and sizes, and the prepared images."""
    demo = PRESETS["demo"]
    config = PRESETS[options.preset or ("demo" if options.data == demo.data.source else "small")]
    sizes = {"resolution": options.resolution, "base_channels": options.base_channels}
    model = replace(config.model, **{name: size for name, size in sizes.items() if size})
    data = replace(config.data, source=options.data)
    store = prepare(data, resolution=model.resolution, image_channels=model.image_channels)
    return replace(config, data=data, model=replace(model, num_classes=store.num_classes)), store


def work(options: argparse.Namespace) -> None:
    """Train in the process of one run, and print a line of JSON for each number of minutes."""
    (seed,), name = options.seeds, options.work
    config, store = configure(options)
    device = torch.device(options.device)
    on_gpu = device.type == "cuda"
    precision: PrecisionName = "auto" if on_gpu else "fp32"
    training = replace(config.training, seed=seed, steps=100_000, precision=precision, guide=0.0, cuda_graph=on_gpu)
    batches: Callable[[int], Batch] = Batches(store, training.batch_size, seed=seed, flips=config.data.flips)
    if on_gpu:
        torch.backends.cudnn.benchmark = True  # as in all of these codebases
        batches = ResidentBatches(batches, device)
    monitors = {judge: Monitor(store, features(), options.count, device) for judge, features in JUDGES.items()}
    clock = Clock(60 * options.minutes[-1])
    step: Callable[[int], object]
    if name in (OURS, OURS_HINGE):
        keep_memory()
        if name == OURS_HINGE:
            training = replace(training, **PAPER_LOSS)
        trainer = ByTheClock(config.model, training, device)
        trainer.clock = clock
        step, average = (lambda i: trainer.train_step(i, batches)), trainer.ema.network
    else:
        with contextlib.redirect_stdout(sys.stderr), device:
            if name == LIGHTWEIGHT:
                one = lightweight(options.folder / name, config.model, training, len(store))
            else:
                one = build(name.removesuffix(AUGMENTED), options.folder, config.model, training)
        if name.endswith(AUGMENTED):
            add_diffaugment(one, options.folder)
        average = Drawing(one, config.model)

        def step(i: int) -> None:
            images, labels = batches(i)
            one.step((images / 127.5 - 1).contiguous(), labels)

    steps = 0
    for minutes in options.minutes:
        with clock.running():
            while clock.seconds < 60 * minutes:
                step(steps)
                steps += 1
            wait(device)
        row = {"minutes": clock.seconds / 60, "steps": steps, "rate": steps * training.batch_size / clock.seconds}
        for judge, monitor in monitors.items():
            values = monitor(average, seed=seed)  # type: ignore[arg-type]
            row[judge] = values[monitor.distance_key]
            row.setdefault("diversity", values["diversity"])
        print(json.dumps(row), flush=True)


def run(arguments: list[str], name: str, seed: int, minutes: list[float]) -> Iterator[dict[str, Any]]:
    """Start one run's process with the arguments of this script, and yield its rows as they arrive."""
    command = [sys.executable, __file__, *arguments, "--work", name, "--seeds", seed, "--minutes", *minutes]
    with subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            yield json.loads(line)
    if process.returncode:
        raise SystemExit(f"{name} ended: {process.returncode}")


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw each judge's distance over minutes: a point for each evaluation, a line through the medians."""
    with matplotlib.rc_context(curves.STYLE):
        figure = Figure((8, 3.8), layout="constrained", dpi=curves.DPI)
        panels = figure.subplots(1, len(JUDGES))
        for axes, judge in zip(panels, JUDGES, strict=True):
            for name, colour, marker in zip(RUNS, curves.SERIES, curves.MARKERS, strict=False):
                own = [row for row in rows if row["run"] == name]
                marks = sorted({row["mark"] for row in own})
                medians = [np.median([row[judge] for row in own if row["mark"] == mark]) for mark in marks]
                axes.plot(marks, medians, color=colour)
                points = [row["mark"] for row in own], [row[judge] for row in own]
                axes.plot(*points, marker, color=colour, markersize=4, label=name if own else None)
            axes.set_title(f"Frechet distance, EfficientNet-{judge}")
            axes.set_xlim(0, None)
            axes.set_ylim(0, 1.05 * max(row[judge] for row in rows))
            axes.set_xlabel("minutes of training")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
        curves.save_figure(figure, path)


def main() -> None:
    parser = argument_parser(__doc__, save=True)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", default=PRESETS["demo"].data.source, help="images with classes, as of sagan train")
    parser.add_argument("--preset", choices=("demo", "small"), help="ours (default: demo for robots, else small)")
    parser.add_argument("--resolution", type=int, choices=(32, 64), help="default: the preset's")
    parser.add_argument("--base-channels", type=int, help="width of all (default: the preset's; 24 fits a CPU)")
    parser.add_argument("--minutes", type=float, nargs="+", default=[2, 5])
    parser.add_argument("--count", type=int, default=2000, help="images in an evaluation, generated and real")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", choices=RUNS, default=DEFAULT)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.minutes.sort()
    if options.work:
        work(options)
        return
    config, store = configure(options)
    if not store.num_classes:
        parser.error(f"{options.data}: the images have no classes, which the other codebases require")
    model, count = config.model, min(options.count, len(store))
    notes = [
        f"Frechet distances of {count:,} generated images to {count:,} of the {len(store):,} real ones; "
        f"{model.num_classes} classes, base_channels {model.base_channels}, batch size {config.training.batch_size}.",
        DIFFAUGMENT,
    ]
    title = f"Quality after minutes of training, {Path(options.data).stem} at {model.resolution} px"
    table = Table(title, COLUMNS, save=options.save, notes=notes)
    rows: list[dict[str, Any]] = []
    before = cpu_seconds()
    for seed in options.seeds:
        for name in options.only:
            parts = [[m] for m in options.minutes] if name in (OURS, OURS_HINGE) else [options.minutes]
            for part in parts:
                for mark, row in zip(part, run(sys.argv[1:], name, seed, part), strict=True):
                    rows.append(row | {"run": name, "mark": mark})
                    distances = [f"{row[judge]:.1f}" for judge in JUDGES]
                    exact, rate, diversity = f"{row['minutes']:.2f}", f"{row['rate']:.1f}", f"{row['diversity']:.2f}"
                    table.row(name, seed, exact, row["steps"], rate, *distances, diversity)
                    if options.save and len(options.minutes) > 1:  # a curve requires two times
                        draw(rows, RESULTS / f"{options.save}.png")
    table.note(others_since(before))


if __name__ == "__main__":
    main()

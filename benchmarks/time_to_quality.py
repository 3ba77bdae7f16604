"""Measure image quality after some minutes of training, ours against BigGAN-PyTorch's networks and training.

    python benchmarks/time_to_quality.py FOLDER_OF_CHECKOUTS --save time_to_quality      # about 50 minutes
    python benchmarks/time_to_quality.py FOLDER_OF_CHECKOUTS --minutes 0.2 --count 64    # smaller

Both sides have the demo's data (robots at 32 px), widths, classes and batch size; each run has its own process, one
after the other. The time is that of the training steps, including reading batches, without the evaluation. The metric
is the Frechet distance in EfficientNet-Lite0 features (not FID) between the same number of generated and real images.

Ours is the preset 'demo', and the same with the hinge loss, which theirs has. Its learning rates fall over the last
30 % of a run, so each number of minutes has its own run, whose schedule follows the clock. BigGAN-PyTorch's rates are
constant, so one run is evaluated at each number of minutes, once with the rates of its SAGAN configuration and once
with the demo's. Both sample from their averaged generators in evaluation mode (theirs equals the generator up to step
2,000, according to its configuration).
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

from machine import RESULTS, Table, argument_parser
from peers import RATES, Contender, build
from sagan import PRESETS
from sagan.data import Batches, prepare
from sagan.device import keep_memory
from sagan.figures import curves
from sagan.metrics.features import EfficientNetLite0
from sagan.metrics.monitor import Monitor
from sagan.study.variants import PAPER_LOSS
from sagan.training.step import Trainer
from workers import cpu_seconds, others_since

DEMO = PRESETS["demo"]
DEMO_RATES = (DEMO.training.generator_lr, DEMO.training.discriminator_lr)
PEER = "BigGAN-PyTorch"
OURS_HINGE = "ours, hinge loss"  # the loss of theirs
RUNS = {  # by name: the learning rates, for theirs
    "ours": None,
    OURS_HINGE: None,
    f"{PEER}, its rates": RATES,
    f"{PEER}, the demo's rates": DEMO_RATES,
}
COLOURS = ("#e8590c", "#fab005", "#1971c2", "#2f9e44")
COLUMNS = ("run", "seed", "minutes", "steps", "images/s", "Frechet distance", "diversity")


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
    """Call their averaged generator like ours."""

    def __init__(self, one: Contender) -> None:
        super().__init__()
        self.config, self.one = DEMO.model, one

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        return self.one.draw(self.one.average.eval(), z, y)

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        return self.one.average.parameters(recurse)


def work(options: argparse.Namespace) -> None:
    """Train in the process of one run, and print a line of JSON for each number of minutes."""
    torch.manual_seed(options.seed)
    store = prepare(DEMO.data, resolution=DEMO.model.resolution, image_channels=DEMO.model.image_channels)
    training = replace(DEMO.training, seed=options.seed, steps=100_000, precision="fp32")
    if options.work != "ours":
        training = replace(training, **PAPER_LOSS)
    batches = Batches(store, training.batch_size, seed=options.seed, flips=DEMO.data.flips)
    monitor = Monitor(store, EfficientNetLite0(), options.count, torch.device("cpu"))
    clock = Clock(60 * options.minutes[-1])
    step: Callable[[int], object]
    if options.work.startswith("ours"):
        keep_memory()
        trainer = ByTheClock(DEMO.model, training, torch.device("cpu"))
        trainer.clock = clock
        step, average = (lambda i: trainer.train_step(i, batches)), trainer.ema.network
    else:
        with contextlib.redirect_stdout(sys.stderr):
            one = build(PEER, options.folder, DEMO.model, training, rates=RUNS[options.work])
        average = Drawing(one)

        def step(i: int) -> None:
            images, labels = batches(i)
            one.step((images / 127.5 - 1).contiguous(), labels)

    steps = 0
    for minutes in options.minutes:
        with clock.running():
            while clock.seconds < 60 * minutes:
                step(steps)
                steps += 1
        row = {"minutes": clock.seconds / 60, "steps": steps, "rate": steps * training.batch_size / clock.seconds}
        values = monitor(average, seed=options.seed)  # type: ignore[arg-type]
        row |= {"distance": values[monitor.distance_key], "diversity": values["diversity"]}
        print(json.dumps(row), flush=True)


def run(name: str, seed: int, minutes: list[float], options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Start one run's process, and yield its rows as they arrive."""
    command = [sys.executable, __file__, options.folder, "--work", name, "--seed", seed, "--count", options.count]
    command += ["--minutes", *minutes]
    with subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            yield json.loads(line)
    if process.returncode:
        raise SystemExit(f"{name} ended: {process.returncode}")


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw the distance over minutes: a point for each evaluation, a line through the medians."""
    with matplotlib.rc_context(curves.STYLE):
        figure = Figure((6, 3.8), layout="constrained", dpi=curves.DPI)
        axes = figure.add_subplot()
        for name, colour in zip(RUNS, COLOURS, strict=True):
            own = [row for row in rows if row["run"] == name]
            if own:
                marks = sorted({row["mark"] for row in own})
                medians = [np.median([row["distance"] for row in own if row["mark"] == mark]) for mark in marks]
                axes.plot(marks, medians, color=colour, label=name)
                axes.plot([r["mark"] for r in own], [r["distance"] for r in own], "o", color=colour, markersize=3.5)
        axes.set_title("Frechet distance, EfficientNet-Lite0, over minutes of training", pad=28)
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.005), ncols=len(RUNS), borderaxespad=0.2)
        axes.set_xlim(0, None)
        axes.set_ylim(0, 1.05 * max(row["distance"] for row in rows))
        axes.set_xlabel("minutes")
        curves.save_figure(figure, path)


def main() -> None:
    parser = argument_parser(__doc__, save=True)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, nargs="+", default=[2, 5, 10])
    parser.add_argument("--count", type=int, default=2000, help="images in an evaluation, generated and real")
    parser.add_argument("--seed", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", choices=RUNS)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.minutes.sort()
    if options.work:
        (options.seed,) = options.seed
        work(options)
        return
    notes = [
        f"{options.count:,} generated against {options.count:,} real images; batch size {DEMO.training.batch_size}."
    ]
    table = Table("Quality after minutes of training on the demo's data", COLUMNS, save=options.save, notes=notes)
    rows: list[dict[str, Any]] = []
    before = cpu_seconds()
    for seed in options.seed:
        for name in options.only or RUNS:
            parts = [[m] for m in options.minutes] if name.startswith("ours") else [options.minutes]
            for part in parts:
                for mark, row in zip(part, run(name, seed, part, options), strict=True):
                    rows.append(row | {"run": name, "mark": mark})
                    exact, rate = f"{row['minutes']:.2f}", f"{row['rate']:.1f}"
                    table.row(
                        name, seed, exact, row["steps"], rate, f"{row['distance']:.1f}", f"{row['diversity']:.2f}"
                    )
                    if options.save:
                        draw(rows, RESULTS / f"{options.save}.png")
    table.note(others_since(before))


if __name__ == "__main__":
    main()

"""Measure how the cost of a training step grows with resolution, batch size and attention's feature map.

    python benchmarks/scaling.py --save scaling            # about six minutes; results/scaling.md and scaling.png
    python benchmarks/scaling.py --rounds 1 --most 64      # smaller: no side above 64 px

Each case runs in its own process: training steps (one of D, one of G) of networks with base_channels 16, without
classes, in fp32, with freed memory kept as in `sagan train`. Time is the median of some steps; memory is the peak above
that before the networks were built. For attention, the generator has 32 channels at every feature map and one attention
layer of the variant 'full' (all keys) at the map that is varied; the discriminator has none. Thin lines show the
expected growth through the last point: time and memory in proportion to pixels and to the batch; for attention over N
locations the cost of the same networks without it, plus time in proportion to N^2 and memory to N.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from statistics import median
from typing import Any

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator

from machine import RESULTS, Table, argument_parser, describe, memory, spread
from sagan import ModelConfig, TrainingConfig
from sagan.device import keep_memory
from sagan.figures.curves import save_figure
from sagan.training.step import Trainer

WIDTH, ATTENTION_WIDTH = 16, 32
RESOLUTIONS, BATCH = (32, 64, 128, 256), 4
BATCHES, BATCH_SIDE = (1, 2, 4, 8, 16, 32, 64), 64
SIZES, ATTENTION_SIDE, ATTENTION_BATCH = (8, 16, 32, 64, 128), 128, 1
LONGEST = 4.0  # seconds per case, after its first step


@dataclass(frozen=True)
class Case:
    resolution: int
    batch: int
    attention: int | None = None
    """Side of the feature map with attention; None: the default, 0: no attention."""


@dataclass
class Cost:
    seconds: list[float]
    mib: float


def measure(case: Case, rounds: int) -> Cost:
    """Measure a case in this process."""
    keep_memory()
    device = torch.device("cpu")
    attention: dict[str, Any] = {}
    if case.attention is not None:
        attention["generator_widths"] = (ATTENTION_WIDTH,) * (case.resolution // 4).bit_length()
        attention["generator_attention"] = ((case.attention, "self"),) if case.attention else ()
        attention |= {"discriminator_attention": (), "attention_variant": "full"}
    model = ModelConfig(resolution=case.resolution, base_channels=WIDTH, **attention)
    images = torch.randint(256, (case.batch, 3, case.resolution, case.resolution), dtype=torch.uint8)
    batch = images.contiguous(memory_format=torch.channels_last), torch.zeros(case.batch, dtype=torch.int64)
    before = memory("VmRSS")
    trainer = Trainer(model, TrainingConfig(batch_size=case.batch), device)
    trainer.train_step(0, lambda _: batch)
    times: list[float] = []
    while len(times) < rounds and sum(times) < LONGEST:
        start = time.perf_counter()
        trainer.train_step(1 + len(times), lambda _: batch)
        times.append(time.perf_counter() - start)
    return Cost(times, 1024 * (memory() - before))


def run_case(case: Case, rounds: int, threads: int) -> Cost:
    """Measure a case in a process of its own."""
    command = [sys.executable, __file__, "--case", json.dumps([case.resolution, case.batch, case.attention])]
    command += ["--rounds", str(rounds), "--threads", str(threads)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return Cost(**json.loads(done.stdout))


@dataclass
class Series:
    """Measured points of one column of the figure, and the expected growth."""

    title: str
    axis: str
    x: list[int]
    seconds: list[float]
    mib: list[float]
    time_slope: tuple[int, str]
    """Exponent of x, and its description."""
    memory_slope: tuple[int, str]
    without: tuple[float, float] = (0.0, 0.0)
    """Seconds and MiB that do not depend on x."""


def draw(series: list[Series], about: str) -> Figure:
    ink, faint, colours = "#28282e", "#8a8a94", ("#e8590c", "#1971c2")
    style = {
        "text.parse_math": False,
        "font.size": 9,
        "axes.edgecolor": faint,
        "axes.labelcolor": ink,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.grid": True,
        "grid.color": "#e4e4ea",
        "xtick.labelcolor": ink,
        "ytick.labelcolor": ink,
        "legend.frameon": False,
    }
    with matplotlib.rc_context(style):
        layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1, wspace=0.03, hspace=0.03)
        figure = Figure((4.3 * len(series), 6.2), layout=layout, dpi=160)
        grid = figure.add_gridspec(2, len(series))
        for column, one in enumerate(series):
            rows = ((one.seconds, "seconds", one.time_slope), (one.mib, "MiB", one.memory_slope))
            for row, (values, unit, slope) in enumerate(rows):
                axes = figure.add_subplot(grid[row, column])
                panel(axes, one, values, slope, one.without[row], colours[row])
                axes.set_ylabel(unit)
                if row == 0:
                    axes.set_title(one.title)
        figure.supxlabel(about, fontsize=8, color=faint)
    return figure


def panel(axes: Axes, series: Series, values: list[float], slope: tuple[int, str], without: float, colour: str) -> None:
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    exponent, label = slope
    last = values[-1] - without
    expected = [without + last * (x / series.x[-1]) ** exponent for x in series.x]
    axes.plot(series.x, expected, color="#8a8a94", linewidth=0.8, label=label)
    axes.plot(series.x, values, "o-", color=colour, linewidth=1.5, markersize=4.5, label="measured")
    axes.legend(loc="upper left")
    axes.set_ylim(min(*values, *expected) / 1.5, max(*values, *expected) * 2.5)
    axes.xaxis.set_major_locator(FixedLocator(series.x))
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=9))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda y, _: f"{y:g}")
    axes.set_xlabel(series.axis)


def main() -> None:
    parser = argument_parser(__doc__, save=True)
    parser.add_argument("--rounds", type=int, default=7, help=f"steps per case; fewer if they take {LONGEST:g} s")
    parser.add_argument("--most", type=int, default=256, help="largest side, and largest batch")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.case:
        print(json.dumps(vars(measure(Case(*json.loads(options.case)), options.rounds))))
        return
    columns = ["what grows", "resolution", "batch", "attention at", "step, s", "peak, MiB", "images/s"]
    notes = [f"base_channels {WIDTH}, no classes, fp32; up to {options.rounds} steps per case, median (least-most)."]
    table = Table("How the cost of a training step grows", columns, save=options.save, notes=notes)

    def run(what: str, case: Case) -> tuple[float, float]:
        cost = run_case(case, options.rounds, options.threads)
        side, place = case.resolution, "default" if case.attention is None else case.attention or "nowhere"
        rate = f"{case.batch / median(cost.seconds):.1f}"
        table.row(what, side, case.batch, place, spread(cost.seconds), f"{cost.mib:,.0f}", rate)
        return median(cost.seconds), cost.mib

    def series(what: str, axis: str, grown: dict[int, Case], slopes: tuple[int, str], base: Case | None) -> Series:
        without = run(what, base) if base else (0.0, 0.0)
        costs = [run(what, case) for case in grown.values()]
        seconds, mib = ([cost[i] for cost in costs] for i in (0, 1))
        memory_slope = (2, "without it + in proportion to N") if base else slopes
        return Series(what, axis, list(grown), seconds, mib, slopes, memory_slope, without)

    resolutions = {side: Case(side, BATCH) for side in RESOLUTIONS if side <= options.most}
    batch_side, side = min(BATCH_SIDE, options.most), min(ATTENTION_SIDE, options.most)
    batches = {batch: Case(batch_side, batch) for batch in BATCHES if batch <= options.most}
    sizes = {size: Case(side, ATTENTION_BATCH, size) for size in SIZES if size <= side}
    nowhere = Case(side, ATTENTION_BATCH, 0)
    maps = f"side of its feature map ({side} px, batch {ATTENTION_BATCH})"
    of_n = (4, "without it + in proportion to N²")
    columns_of_figure = [
        series("Resolution", f"side, pixels (batch {BATCH})", resolutions, (2, "in proportion to pixels"), None),
        series("Batch", f"images ({batch_side} px)", batches, (1, "in proportion to images"), None),
        series("Attention", maps, sizes, of_n, nowhere),
    ]
    if options.save:
        figure = draw(columns_of_figure, f"a training step, base_channels {WIDTH}; {describe()}")
        save_figure(figure, RESULTS / f"{options.save}.png")


if __name__ == "__main__":
    main()

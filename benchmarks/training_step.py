"""Measure how fast a training step is, against other codebases' SAGAN and against the machine's peak.

    python benchmarks/training_step.py FOLDER_OF_CHECKOUTS --batch 8 32 --save training_step
    python benchmarks/training_step.py FOLDER_OF_CHECKOUTS --size demo --batch 32 --rounds 20 --save training_step_demo

One step is one update of D and one of G with their optimisers, and of the average if a codebase keeps one; fp32, the
same widths, classes, batch and threads, and random images. Each codebase runs in its own process, so that allocator
settings do not leak; in every round each has its turn while the others sleep.

The floor is the time of the fewest operations (benchmarks/operations.py) at the machine's measured peak.
"""

import argparse
import statistics
from collections.abc import Callable
from typing import Any

from machine import Table, peak, spread
from operations import describe_operations, operations
from peers import OURS, SIZES, build, chosen_names, comparison_parser, real_batch
from sagan import TrainingConfig
from sagan.device import keep_memory
from workers import Worker, cpu_seconds, others_since, serve, take_turns

COLUMNS = ("batch", "codebase", "parameters G, D", "s/step", "images/s", "ours over it", "of the floor", "peak GiB")


def work(options: argparse.Namespace) -> None:
    """Train in the process of one codebase."""

    def prepare() -> tuple[dict[str, Any], dict[str, Callable[[], object]]]:
        if options.work == OURS:
            keep_memory()
        model, (batch_size,) = SIZES[options.size], options.batch
        training = TrainingConfig(batch_size=batch_size, precision="fp32")
        one = build(options.work, options.folder, model, training)
        batch = real_batch(options.work, model, batch_size)
        return {"about": one.about, "parameters": one.parameters}, {"step": lambda: one.step(*batch)}

    serve(prepare)


def measure(batch_size: int, chosen: list[str], options: argparse.Namespace, table: Table) -> None:
    """Measure one batch size, and add a row for each codebase."""
    common = (options.folder, "--size", options.size, "--batch", batch_size)
    before, best = cpu_seconds(), peak()
    workers = {name: Worker(*common, "--work", name) for name in chosen}
    times = take_turns(workers, "step", options.rounds, options.steps)
    best = max(best, peak())
    least = operations(SIZES[options.size]) * batch_size / best / 1e9
    goal = f"floor {least:.3f} s/step, {batch_size / least:.1f} images/s"
    table.note(f"Batch {batch_size}: peak {best:.0f} GFLOP/s, {goal}.")
    for name, worker in workers.items():
        about = f"{name}: {worker.about['about']}."
        if about not in table.notes:
            table.note(about)
    for name, worker in workers.items():
        if times[name]:
            median = statistics.median(times[name])
            over = median / statistics.median(times[OURS])
            g, d = (f"{n / 1e6:.2f} M" for n in worker.about["parameters"])
            share = f"{least / median:.1%}" if name == OURS else ""
            rate, held = f"{batch_size / median:.2f}", f"{worker.memory():.2f}"
            table.row(batch_size, name, f"{g}, {d}", spread(times[name]), rate, f"{over:.2f}", share, held)
        worker.close()
    table.note(f"Batch {batch_size}: {others_since(before)}")


def main() -> None:
    parser = comparison_parser(__doc__)
    parser.add_argument("--batch", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--rounds", type=int, default=5, help="turns of each codebase")
    parser.add_argument("--steps", type=int, help="steps per turn (default: 1 at 128 px, 5 at the demo's size)")
    options = parser.parse_args()
    if options.work:
        work(options)
        return
    options.steps = options.steps or (1 if options.size == "128" else 5)
    title = f"A training step, {'SAGAN at 128 px' if options.size == '128' else 'the configuration of the demo'}"
    table = Table(title, COLUMNS, save=options.save, notes=[describe_operations(SIZES[options.size])])
    for batch_size in options.batch:
        measure(batch_size, chosen_names(options), options, table)


if __name__ == "__main__":
    main()

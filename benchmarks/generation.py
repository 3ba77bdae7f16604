"""Measure how fast images are generated, in batches and singly, against other codebases' SAGAN.

    python benchmarks/generation.py FOLDER_OF_CHECKOUTS --save generation
    python benchmarks/generation.py FOLDER_OF_CHECKOUTS --count 100 --singles 10      # smaller

Evaluation mode, no gradients, from latents and classes to bytes on the CPU. Ours is measured as `sagan.load` returns
it, with the spectral norms baked into the weights ("ours"), and as it is in training. The weights are random, which
does not change the time. Each codebase runs in its own process, and they take turns: a batch each, and single images.
"""

import argparse
import contextlib
import statistics
from collections.abc import Callable
from typing import Any

import torch

from machine import Table, spread
from peers import OURS, SIZES, build, chosen_names, comparison_parser
from sagan import TrainingConfig
from sagan.device import keep_memory
from sagan.model.spectral_norm import bake_spectral_norm
from sagan.pixels import to_bytes
from sagan.sampling import draw_latents, sample_batches
from workers import Worker, cpu_seconds, others_since, serve, take_turns

TRAINED = "ours, as in training"
A_TURN = 5  # single images per turn
COLUMNS = (
    "codebase",
    "s per batch",
    "s in total",
    "images/s",
    "ours over it",
    "ms for one image",
    "ours over it",
    "peak GiB",
)


def work(options: argparse.Namespace) -> None:
    """Generate in the process of one codebase."""

    def prepare() -> tuple[dict[str, Any], dict[str, Callable[[], object]]]:
        is_ours = options.work in (OURS, TRAINED)
        if is_ours:
            keep_memory()
        model = SIZES[options.size]
        one = build(OURS if is_ours else options.work, options.folder, model, TrainingConfig(batch_size=2))
        generator = one.average.eval().requires_grad_(False)
        if options.work == OURS:
            generator = bake_spectral_norm(generator)
        z = draw_latents(options.batch, model.latent_dim, seed=0)
        y = torch.arange(options.batch) % model.num_classes

        @torch.no_grad()
        def draw(count: int) -> object:
            if is_ours:
                return list(sample_batches(generator, z[:count], y[:count], options.batch))  # type: ignore[arg-type]
            return to_bytes(one.draw(generator, z[:count], y[:count]))

        return {"about": one.about}, {"batch": lambda: draw(options.batch), "single": lambda: draw(1)}

    serve(prepare)


def main() -> None:
    parser = comparison_parser(__doc__)
    parser.add_argument("--count", type=int, default=1000, help="total images")
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--singles", type=int, default=100, help="total single images")
    options = parser.parse_args()
    if options.work:
        work(options)
        return
    others = chosen_names(options)[1:]
    side = SIZES[options.size].resolution
    notes = [f"{options.count} images in batches of {options.batch}, {options.singles} single ones; medians."]
    table = Table(f"Generating images at {side} px", COLUMNS, save=options.save, notes=notes)
    common = (options.folder, "--size", options.size, "--batch", options.batch)
    before = cpu_seconds()
    workers = {name: Worker(*common, "--work", name) for name in (OURS, TRAINED, *others)}
    singles = take_turns(workers, "single", -(-options.singles // A_TURN), A_TURN)
    batches = take_turns(workers, "batch", -(-options.count // options.batch))
    for name, worker in workers.items():
        with contextlib.suppress(statistics.StatisticsError):  # interrupted before its first turn
            median, one = statistics.median(batches[name]), statistics.median(singles[name])
            table.row(
                name,
                spread(batches[name]),
                f"{sum(batches[name]):.1f}",
                f"{options.batch / median:.1f}",
                f"{median / statistics.median(batches[OURS]):.2f}",
                spread([1000 * s for s in singles[name]], 1),
                f"{one / statistics.median(singles[OURS]):.2f}",
                f"{worker.memory():.2f}",
            )
        worker.close()
    table.note(others_since(before))


if __name__ == "__main__":
    main()

"""Compare training that starts from an imported network with training from scratch.

    python benchmarks/finetuning.py FOLDER_OF_CHECKOUTS emoji64.zip --plot docs/images/finetuning.png

The folder holds BigGAN-PyTorch. Its networks, of the demo's size, are trained by its own code on the demo's robots,
saved in its format and imported. Then the same networks train twice on the given images (with other classes), with our
training and the demo's options: once from the import and once from nothing, with the same seed and batches. The table
shows the Frechet distance in EfficientNet-Lite0 features (not FID) between the same number of generated and real images
during training.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import matplotlib
import torch
from matplotlib.figure import Figure

from machine import Table, argument_parser
from peers import build
from sagan import PRESETS
from sagan.data import Batches, Store, prepare
from sagan.device import keep_memory
from sagan.figures import curves
from sagan.importers.importer import import_networks, write_import
from sagan.metrics.features import EfficientNetLite0
from sagan.metrics.monitor import Monitor
from sagan.run import Run
from sagan.study.variants import PAPER_LOSS
from sagan.training.finetune import start_from
from sagan.training.step import Trainer

DEMO = replace(PRESETS["demo"], training=replace(PRESETS["demo"].training, **PAPER_LOSS))
PEER = "BigGAN-PyTorch"
COLOURS = {"from the import": "#e8590c", "from nothing": "#1971c2"}
CPU = torch.device("cpu")


def train_theirs(checkouts: Path, steps: int, folder: Path) -> Path:
    """Train BigGAN-PyTorch on robots, save its files, and return the run that imports them."""
    store = prepare(DEMO.data, resolution=DEMO.model.resolution, image_channels=3)
    model = replace(DEMO.model, num_classes=store.num_classes)
    rates = (DEMO.training.generator_lr, DEMO.training.discriminator_lr)
    one = build(PEER, checkouts, model, DEMO.training, rates=rates)
    batches = Batches(store, DEMO.training.batch_size, seed=0, flips=DEMO.data.flips)
    for i in range(steps):
        images, labels = batches(i)
        one.step((images / 127.5 - 1).contiguous(), labels)
    torch.save(one.generator.state_dict(), folder / "G.pth")
    torch.save(one.discriminator.state_dict(), folder / "D.pth")
    # Its own networks for 32 px halve twice; those with our widths halve three times.
    overrides = {"discriminator_halvings": model.halvings}
    imported = import_networks(folder / "G.pth", discriminator=folder / "D.pth", overrides=overrides)
    return write_import(folder / "imported", imported, folder / "G.pth").path


def train_ours(
    table: Table, start: Path | None, source: Path, store: Store, options: argparse.Namespace
) -> dict[int, float]:
    """Train from `start`, or from nothing; returns distances by step."""
    model = replace(Run(source).info.config.model, num_classes=store.num_classes)
    config = replace(DEMO.training, steps=10**6, precision="fp32")  # so many that rates do not fall yet
    trainer = Trainer(model, config, CPU)
    if start:
        print(start_from(trainer, start, store.class_names).describe())
    batches = Batches(store, config.batch_size, seed=0, flips=DEMO.data.flips)
    monitor = Monitor(store, EfficientNetLite0(), options.count, CPU)
    distances = {}
    begin = time.perf_counter()
    for step in range(options.steps + 1):
        if step % options.every == 0:
            distances[step] = monitor(trainer.ema.network, seed=0)[monitor.distance_key]
            name = "from the import" if start else "from nothing"
            table.row(name, step, f"{time.perf_counter() - begin:.0f}", f"{distances[step]:.1f}")
        trainer.train_step(step, batches)
    return distances


def draw(curves_by_name: dict[str, dict[int, float]], path: Path) -> None:
    with matplotlib.rc_context(curves.STYLE):
        figure = Figure((6, 3.4), layout="constrained", dpi=curves.DPI)
        axes = figure.add_subplot()
        for name, distances in curves_by_name.items():
            axes.plot(list(distances), list(distances.values()), "o-", color=COLOURS[name], label=name, markersize=3.5)
        axes.set_title("Frechet distance to emoji, EfficientNet-Lite0, over training steps", pad=28)
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.005), ncols=2, borderaxespad=0.2)
        axes.set_xlim(0, None)
        axes.set_ylim(0, None)
        axes.set_xlabel(f"steps of {DEMO.training.batch_size} images")
        curves.save_figure(figure, path)


def main() -> None:
    parser = argument_parser(__doc__, save=True)
    parser.add_argument("checkouts", type=Path)
    parser.add_argument("data")
    parser.add_argument("--first", type=int, default=400, help="steps of theirs, on robots")
    parser.add_argument("--steps", type=int, default=300, help="of ours, on the data")
    parser.add_argument("--every", type=int, default=25)
    parser.add_argument("--count", type=int, default=500, help="images in an evaluation, generated and real")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    keep_memory()
    table = Table("Training from an import", ("start", "step", "s", "Frechet distance"), save=options.save)
    with tempfile.TemporaryDirectory() as name:
        source = train_theirs(options.checkouts, options.first, Path(name))
        data = replace(DEMO.data, source=options.data)
        store = prepare(data, resolution=DEMO.model.resolution, image_channels=3)
        starts = {"from the import": source, "from nothing": None}
        distances = {name: train_ours(table, start, source, store, options) for name, start in starts.items()}
    if options.plot:
        draw(distances, options.plot)


if __name__ == "__main__":
    main()

"""Is starting from an import better than from nothing? Emoji from another codebase's networks, against from scratch.

    python benchmarks/finetuning.py FOLDER_OF_CHECKOUTS emoji64.zip --plot docs/images/finetuning.png

The folder holds BigGAN-PyTorch. Its networks, of the demo's size, are trained by its own code on the demo's robots,
saved as it saves them and imported. Then the same networks train twice on the pictures given (other classes
throughout), by our training with the demo's options: once starting from the import, once from nothing, seed and
batches alike. Printed is the Frechet distance in EfficientNet-Lite0 features (no FID) of generated to as many real
pictures, as training goes.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import matplotlib
import torch
from matplotlib.figure import Figure

from machine import describe
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
    """A run of networks that BigGAN-PyTorch trained on robots, imported from its files."""
    store = prepare(DEMO.data, resolution=DEMO.model.resolution, image_channels=3)
    model = replace(DEMO.model, num_classes=store.num_classes)
    rates = (DEMO.training.generator_lr, DEMO.training.discriminator_lr)
    one = build(PEER, checkouts, model, DEMO.training, rates=rates)
    batches = Batches(store, DEMO.training.batch_size, seed=0, flips=DEMO.data.flips)
    for i in range(steps):
        pictures, labels = batches(i)
        one.step((pictures / 127.5 - 1).contiguous(), labels)
    torch.save(one.generator.state_dict(), folder / "G.pth")
    torch.save(one.discriminator.state_dict(), folder / "D.pth")
    # Its own networks for 32 px halve twice; ours, whose widths these have, three times.
    overrides = {"discriminator_halvings": model.halvings}
    imported = import_networks(folder / "G.pth", discriminator=folder / "D.pth", overrides=overrides)
    return write_import(folder / "imported", imported, folder / "G.pth").path


def train_ours(start: Path | None, source: Path, store: Store, options: argparse.Namespace) -> dict[int, float]:
    """Distances by step."""
    model = replace(Run(source).info.config.model, num_classes=store.num_classes)
    config = replace(DEMO.training, steps=10**6, precision="fp32")  # whose rates do not fall yet
    trainer = Trainer(model, config, CPU)
    if start:
        print(start_from(trainer, start, store.class_names).describe())
    batches = Batches(store, config.batch_size, seed=0, flips=DEMO.data.flips)
    monitor = Monitor(store, EfficientNetLite0(), options.count, CPU)
    found = {}
    begin = time.perf_counter()
    for step in range(options.steps + 1):
        if step % options.every == 0:
            found[step] = monitor(trainer.ema.network, seed=0)[monitor.distance_key]
            what = "from the import" if start else "from nothing"
            print(f"{what:16} {step:5} steps {time.perf_counter() - begin:6.0f} s {found[step]:8.1f}", flush=True)
        trainer.train_step(step, batches)
    return found


def draw(found: dict[str, dict[int, float]], path: Path) -> None:
    with matplotlib.rc_context(curves.STYLE):
        figure = Figure((6, 3.4), layout="constrained", dpi=curves.DPI)
        axes = figure.add_subplot()
        for name, distances in found.items():
            axes.plot(list(distances), list(distances.values()), "o-", color=COLOURS[name], label=name, markersize=3.5)
        axes.set_title("Frechet distance to emoji, EfficientNet-Lite0, over training steps", pad=28)
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.005), ncols=2, borderaxespad=0.2)
        axes.set_xlim(0, None)
        axes.set_ylim(0, None)
        axes.set_xlabel(f"steps of {DEMO.training.batch_size} pictures")
        curves.save_figure(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", type=Path)
    parser.add_argument("data")
    parser.add_argument("--first", type=int, default=400, help="steps of theirs, on robots")
    parser.add_argument("--steps", type=int, default=300, help="of ours, on the data")
    parser.add_argument("--every", type=int, default=25)
    parser.add_argument("--count", type=int, default=500, help="pictures of an evaluation, generated and real")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    keep_memory()
    print(describe())
    with tempfile.TemporaryDirectory() as name:
        source = train_theirs(options.checkouts, options.first, Path(name))
        data = replace(DEMO.data, source=options.data)
        store = prepare(data, resolution=DEMO.model.resolution, image_channels=3)
        starts = {"from the import": source, "from nothing": None}
        found = {name: train_ours(start, source, store, options) for name, start in starts.items()}
    if options.plot:
        draw(found, options.plot)


if __name__ == "__main__":
    main()

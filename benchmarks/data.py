"""Measure how fast images are packed and read, and how long a training step waits for its batch.

    python benchmarks/data.py [--save data]
    python benchmarks/data.py --count 200 --rounds 1 --steps 5 --only preparing reading      # smaller

Preparing: a folder of mixed JPEG (quality 90) and PNG files to 128 px, with `sagan.data.prepare` and a fresh cache
against a plain loop over PIL in one process (open, convert, centre crop, Lanczos, to an array). The files are generated
in a temporary folder: random crops of the built-in robots drawn at 800 px, 200 to 800 px a side, in turn JPEG RGB, PNG
RGB, JPEG grey, PNG RGBA.

Reading: batches of 64 from `sagan.data.Batches` against a torch DataLoader over the files with two workers, which
decodes them as the plain loop does and as usual training scripts do. Both read one epoch, shuffled, as uint8.

Checking: random batches from one file of packed images, memory-mapped, read, and read with every image compared with
its checksum; and opening that file with the comparison of a part of its images. The file is in the system's cache.

Waiting: the share of a training step that is spent on getting its batch, as `sagan train` does it, and on converting
the batch to floats. It is measured with the demo preset at batch size 32, and at 128 px with base_channels 64 and batch
size 8, from medians.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from machine import Table, alternate, argument_parser, seconds, spread
from sagan import PRESETS, DataConfig, ModelConfig, TrainingConfig
from sagan.data import Batches, Store, prepare
from sagan.data.builtin import robots
from sagan.data.packed import PackedImages, checksum
from sagan.device import keep_memory
from sagan.files import write_npy_header
from sagan.pixels import to_signed
from sagan.training.step import Trainer

RESOLUTION, BATCH, WORKERS = 128, 64, 2
KINDS = (("jpg", "RGB"), ("png", "RGB"), ("jpg", "L"), ("png", "RGBA"))
DRAWN = 40  # robots that are drawn; every file is a crop of one


def write_files(folder: Path, count: int) -> list[Path]:
    """Generate the image files."""
    rng = np.random.default_rng(0)
    images, _ = robots.render(DRAWN, 800, 4, 0)
    paths = []
    for number in range(count):
        suffix, mode = KINDS[number % len(KINDS)]
        width, height = rng.integers(200, 801, 2)
        left, top = rng.integers(0, 801 - width), rng.integers(0, 801 - height)
        image = Image.fromarray(images[rng.integers(DRAWN), top : top + height, left : left + width])
        if mode != "RGBA":  # composite over white
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert(mode)
        paths.append(folder / f"{number:05d}.{suffix}")
        image.save(paths[-1], **({"quality": 90} if suffix == "jpg" else {}))
    return paths


def plain(path: Path) -> np.ndarray:
    """Decode a file as a short script would."""
    with Image.open(path) as image:
        rgb = image.convert("RGB")
    side = min(rgb.size)
    left, top = (rgb.width - side) // 2, (rgb.height - side) // 2
    square = rgb.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((RESOLUTION, RESOLUTION), Image.Resampling.LANCZOS))


class Files(Dataset[Tensor]):
    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> Tensor:
        return torch.from_numpy(plain(self.paths[number]).copy()).permute(2, 0, 1)


def prepare_with_fresh_cache(folder: Path) -> Store:
    with tempfile.TemporaryDirectory() as cache:
        config = DataConfig(source=str(folder), cache=cache)
        return prepare(config, resolution=RESOLUTION, image_channels=3, progress=False)


def preparing(table: Table, folder: Path, paths: list[Path], rounds: int) -> None:
    calls: dict[str, Callable[[], object]] = {
        "plain PIL loop, one process": lambda: [plain(path) for path in paths],
        "sagan.data.prepare, fresh cache": lambda: prepare_with_fresh_cache(folder),
    }
    compare(table, f"preparing {len(paths):,} files", calls, rounds, len(paths))


def reading(table: Table, folder: Path, paths: list[Path], rounds: int) -> None:
    loader = DataLoader(Files(paths), BATCH, shuffle=True, num_workers=WORKERS, drop_last=True, persistent_workers=True)
    with tempfile.TemporaryDirectory() as cache:
        config = DataConfig(source=str(folder), cache=cache)
        store = prepare(config, resolution=RESOLUTION, image_channels=3, progress=False)
        batches = Batches(store, BATCH, seed=0, flips=True)
        count = len(paths) // BATCH
        calls: dict[str, Callable[[], object]] = {
            f"DataLoader over the files, {WORKERS} workers": lambda: [len(batch) for batch in loader],
            "sagan.data.Batches": lambda: [len(batches(i)[0]) for i in range(count)],
        }
        for call in calls.values():  # warm up: start the workers, map the store
            call()
        compare(table, f"reading batches of {BATCH}", calls, rounds, count * BATCH)


def checking(table: Table, folder: Path, images: int, rounds: int) -> None:
    """Time opening a file of packed images, and reading it in random order: mapped, read, read and checked."""
    path, shape = folder / "images.npy", (images, RESOLUTION, RESOLUTION, 3)
    rng = np.random.default_rng(0)
    checksums = np.empty(images, np.uint32)
    with path.open("wb") as file:
        write_npy_header(file, np.dtype(np.uint8), shape)
        for number in range(images):
            image = rng.integers(256, size=shape[1:], dtype=np.uint8)
            checksums[number] = checksum(image)
            file.write(image.data)
    batches = rng.permutation(images)[: images // BATCH * BATCH].reshape(-1, BATCH)

    def read(open_file: Callable[[], Any]) -> Callable[[], object]:
        def all_batches() -> None:
            opened = open_file()
            for positions in batches:
                np.asarray(opened[positions])

        return all_batches

    calls = {
        "np.memmap": read(lambda: np.load(path, mmap_mode="r")),
        "PackedImages without checksums": read(lambda: PackedImages(path, None)),
        "PackedImages, every image checked": read(lambda: PackedImages(path, checksums)),
    }
    for call in calls.values():  # warm up: the file is in the system's cache
        call()
    compare(table, f"reading {path.stat().st_size / 2**20:,.0f} MiB of packed images", calls, rounds, batches.size)
    opening = [1e3 * seconds(lambda: PackedImages(path, checksums).check_some()) for _ in range(rounds)]
    table.row("opening the same", f"with its first check: {spread(opening, 1)} ms", "", "")


def compare(table: Table, what: str, calls: dict[str, Callable[[], object]], rounds: int, images: int) -> None:
    times = alternate(calls, rounds)
    slowest = statistics.median(next(iter(times.values())))
    for name, values in times.items():
        rates = [images / value for value in values]
        table.row(what, name, spread(rates, 0), f"{slowest / statistics.median(values):,.1f}")


def waiting(table: Table, name: str, model: ModelConfig, training: TrainingConfig, steps: int) -> None:
    """Train some steps; time getting the batch within the step, and the conversion separately."""
    store = prepare(DataConfig(source="robots", robots=2000), resolution=model.resolution, image_channels=3)
    batches = Batches(store, training.batch_size, seed=0, flips=True)
    trainer = Trainer(model, training, torch.device("cpu"))
    waited: list[float] = []

    def batch(number: int) -> tuple[Tensor, Tensor]:
        start = time.perf_counter()
        result = batches(number)
        waited.append(time.perf_counter() - start)
        return result

    trainer.train_step(0, batch)
    trainer.train_step(1, batch)
    waited.clear()
    step_times = [seconds(lambda step=step: trainer.train_step(step, batch)) for step in range(2, 2 + steps)]
    images, _ = batches(0)
    converted = [seconds(lambda: to_signed(images)) for _ in range(steps)]
    share = (statistics.median(waited) + statistics.median(converted)) / statistics.median(step_times)
    times = f"step {spread([1e3 * t for t in step_times], 1)} ms, batch {spread([1e3 * t for t in waited], 2)} ms, "
    times += f"to floats {spread([1e3 * t for t in converted], 2)} ms"
    table.row("waiting in a step", f"{name}: {times}", f"{share:.2%} of the step", "")


PARTS = ("preparing", "reading", "checking", "waiting")


def main() -> None:
    parser = argument_parser(__doc__, save=True)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--count", type=int, default=2000, help="files")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12, help="training steps in each of the two runs")
    options = parser.parse_args()
    keep_memory()
    notes = [
        f"{options.rounds} rounds in turn; images a second, median (least-most). Files: generated (crops of the "
        "built-in robots, 200 to 800 px; JPEG quality 90 and PNG; RGB, grey, RGBA), in a temporary folder; "
        f"to {RESOLUTION} px.",
    ]
    columns = ["what", "how", "images a second", "times faster"]
    table = Table("Preparing and reading images", columns, save=options.save, notes=notes)
    if {"preparing", "reading"} & set(options.only):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            paths = write_files(folder, options.count)
            size = sum(path.stat().st_size for path in paths)
            table.note(f"{len(paths):,} files, {size / 2**20:,.0f} MiB.")
            if "preparing" in options.only:
                preparing(table, folder, paths, options.rounds)
            if "reading" in options.only:
                reading(table, folder, paths, options.rounds)
    if "checking" in options.only:
        with tempfile.TemporaryDirectory() as temporary:
            checking(table, Path(temporary), 4 * options.count, options.rounds)
    if "waiting" in options.only:
        demo = PRESETS["demo"]
        waiting(table, "demo, batch 32", demo.model, demo.training, 5 * options.steps)
        wide = ModelConfig(resolution=128, base_channels=64, num_classes=5)
        waiting(table, "128 px, base_channels 64, batch 8", wide, TrainingConfig(batch_size=8), options.steps)


if __name__ == "__main__":
    main()

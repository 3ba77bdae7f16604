"""Measure the speed of evaluation: distances of many features, features per second, and the share of training time.

    python benchmarks/metrics_speed.py [--save metrics_speed]       # 50,000 against 50,000 features, some minutes
    python benchmarks/metrics_speed.py --count 10000                # smaller

Each part runs in its own process, so that peak memory is its own. The features are random, with 2,048 dimensions and a
spectrum like that of real features.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy import linalg
from torch.nn import functional as F

from machine import Table, argument_parser, memory
from sagan import PRESETS
from sagan.data import Batches, prepare
from sagan.device import keep_memory
from sagan.metrics.features import BATCH, EfficientNetLite0, extract
from sagan.metrics.frechet import frechet_distance
from sagan.metrics.kernel import kernel_distance
from sagan.metrics.monitor import Monitor
from sagan.metrics.neighbours import compare
from sagan.training.step import Trainer

DIMENSIONS = 2048


def features(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    scale = np.geomspace(1, 1e-2, DIMENSIONS).astype(np.float32)
    return tuple(rng.standard_normal((count, DIMENSIONS), np.float32) * scale for _ in range(2))  # type: ignore[return-value]


def plain_frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Compute the distance in the usual way: np.cov, and scipy's square root of the product."""
    moments = [(x.mean(0, dtype=np.float64), np.cov(x.T)) for x in (a, b)]
    (mean_a, cov_a), (mean_b, cov_b) = moments
    root = linalg.sqrtm(cov_a @ cov_b)
    return float(((mean_a - mean_b) ** 2).sum() + np.trace(cov_a + cov_b - 2 * root.real))


DISTANCES: dict[str, Callable[[np.ndarray, np.ndarray], object]] = {
    "frechet": frechet_distance,
    "plain-frechet": plain_frechet,
    "kernel": kernel_distance,
    "neighbours": lambda a, b: compare(a, b, progress=False),
}


def distance(name: str, count: int) -> str:
    """Return the time and memory of a distance, in words."""
    a, b = features(count)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = memory("VmRSS")
    start = time.perf_counter()
    DISTANCES[name](a, b)
    seconds = time.perf_counter() - start
    peak = memory("VmHWM") - before
    return f"{count:,} against {count:,}: {seconds:.1f} s, peak {peak:.2f} GiB above the features"


def extraction() -> str:
    """Compare the features per second of 32 px images with those of a plain loop over the package's network."""
    images = torch.randint(256, (512, 3, 32, 32), dtype=torch.uint8)
    lite = EfficientNetLite0()
    start = time.perf_counter()
    with torch.no_grad():
        plain = EfficientNetLite0().network.to(memory_format=torch.contiguous_format)
        start = time.perf_counter()
        for x in images.split(50):
            big = F.interpolate(x.float(), size=(224, 224), mode="bilinear", antialias=True) / 127.5 - 1
            plain.extract_features(big.contiguous()).mean((2, 3))
    plain_rate = len(images) / (time.perf_counter() - start)
    keep_memory()
    extract(lite, lambda i, j: images[i:j], BATCH, progress=False)
    start = time.perf_counter()
    extract(lite, lambda i, j: images[i:j], len(images), progress=False)
    rate = len(images) / (time.perf_counter() - start)
    return f"{rate:.1f} features/s; plain loop: {plain_rate:.1f} features/s"


def share() -> str:
    """Compare the time of evaluation and of training, at the demo's interval."""
    keep_memory()
    config, device = PRESETS["demo"], torch.device("cpu")
    store = prepare(config.data, resolution=32, image_channels=3)
    trainer = Trainer(config.model, config.training, device)
    batches = Batches(store, config.training.batch_size, seed=0, flips=False)
    monitor = Monitor(store, EfficientNetLite0(), config.output.evaluate_count, device)
    for step in range(5):
        trainer.train_step(step, batches)
    start = time.perf_counter()
    for step in range(5, 45):
        trainer.train_step(step, batches)
    training = (time.perf_counter() - start) / 40 * config.output.evaluate_every
    start = time.perf_counter()
    monitor(trainer.ema.network, seed=0)
    evaluation = time.perf_counter() - start
    return (
        f"demo: {config.output.evaluate_every} steps {training:.1f} s, one evaluation of "
        f"{config.output.evaluate_count} images {evaluation:.2f} s: {evaluation / (evaluation + training):.1%}"
    )


def main() -> None:
    parser = argument_parser(__doc__, save=True)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, default=50_000)
    options = parser.parse_args()
    others = {"extraction": extraction, "share": share}
    if options.part:
        print(others[options.part]() if options.part in others else distance(options.part, options.count))
        return
    table = Table("The speed of evaluation", ("what", "result"), save=options.save)
    for part in (*DISTANCES, *others):
        command = [sys.executable, __file__, "--part", part, "--count", str(options.count)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        table.row(part, done.stdout.strip().splitlines()[-1])


if __name__ == "__main__":
    main()

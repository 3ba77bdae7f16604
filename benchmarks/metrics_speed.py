"""How fast is evaluation? Statistics and distances of many features, features a second, and the share of training.

    python benchmarks/metrics_speed.py            # 50,000 against 50,000 of 2,048 features takes some minutes
    python benchmarks/metrics_speed.py --count 10000

Each part runs in a process of its own, so that peak memory is its own. Features are random with a spectrum like real
ones (made-up data: only time and memory are measured on them).
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

from machine import memory
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
    """The usual way: np.cov, and scipy's square root of the product."""
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


def distance(name: str, count: int) -> None:
    a, b = features(count)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here on
    before = memory("VmRSS")
    start = time.perf_counter()
    DISTANCES[name](a, b)
    seconds = time.perf_counter() - start
    peak = memory("VmHWM") - before
    print(
        f"{name:<16} {count:,} against {count:,}: {seconds:7.1f} s, peak {peak:5.2f} GiB above the features themselves"
    )


def extraction() -> None:
    """Features a second of 32 px pictures, ours against the plain loop: the package's network, as it comes."""
    pictures = torch.randint(256, (512, 3, 32, 32), dtype=torch.uint8)
    lite = EfficientNetLite0()
    start = time.perf_counter()
    with torch.no_grad():
        plain = EfficientNetLite0().network.to(memory_format=torch.contiguous_format)
        start = time.perf_counter()
        for x in pictures.split(50):
            big = F.interpolate(x.float(), size=(224, 224), mode="bilinear", antialias=True) / 127.5 - 1
            plain.extract_features(big.contiguous()).mean((2, 3))
    print(f"plain loop       {len(pictures) / (time.perf_counter() - start):7.1f} features/s")
    keep_memory()
    extract(lite, lambda i, j: pictures[i:j], BATCH, progress=False)
    start = time.perf_counter()
    extract(lite, lambda i, j: pictures[i:j], len(pictures), progress=False)
    print(f"ours             {len(pictures) / (time.perf_counter() - start):7.1f} features/s")


def share() -> None:
    """Evaluation against training, at the demo's interval."""
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
    print(
        f"demo             {config.output.evaluate_every} steps {training:.1f} s, one evaluation of "
        f"{config.output.evaluate_count} pictures {evaluation:.2f} s: {evaluation / (evaluation + training):.1%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, default=50_000)
    arguments = parser.parse_args()
    if arguments.part == "extraction":
        extraction()
    elif arguments.part == "share":
        share()
    elif arguments.part:
        distance(arguments.part, arguments.count)
    else:
        for part in (*DISTANCES, "extraction", "share"):
            subprocess.run([sys.executable, __file__, part, "--count", str(arguments.count)], check=True)


if __name__ == "__main__":
    main()

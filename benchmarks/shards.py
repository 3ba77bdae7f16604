"""Train on shards ten times as large as a memory limit, and compare the rate with that of a packed store.

    python benchmarks/shards.py [--save shards]
    python benchmarks/shards.py --limit 512 --times 1 --steps 5 --rounds 1      # smaller

This benchmark generates the images: 1,000 JPEG files of 256 x 256 smooth random colours with noise, each under several
names with other bytes appended, in shards of 256 MiB without sagan's index. The limit is that of a control group (v1 or
v2), which counts the process's memory and the cached files it reads, and can drop only the latter. If no control group
can be made, the limit is RLIMIT_DATA, which counts the process's own memory alone. Nothing else runs in the group.

Training: the demo preset (64 px, batches of 32) on the CPU, each in its own process, in turn: on a packed store of
5,000 of these images without a limit, and on all shards under the limit. The rate is that of the median step.
Reading: one epoch of all shards under the limit, without training, in which every image is decoded to 64 px once.
"""

import contextlib
import functools
import io
import json
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from machine import Table, argument_parser, memory, seconds, spread
from sagan import PRESETS, DataConfig
from sagan.data import Batches, Prefetcher, prepare
from sagan.device import keep_memory
from sagan.training.step import Trainer

MIB = 2**20
GROUPS = Path("/sys/fs/cgroup")
DIFFERENT = 1000  # images that are generated
STORED = 5000  # images in the packed store
SHARD = 256 * MIB  # bytes of a shard


@functools.cache
def draw(count: int) -> list[bytes]:
    """Generate JPEG files."""
    rng, files = np.random.default_rng(0), []
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(256, size=(6, 6, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((256, 256), Image.Resampling.BICUBIC), np.int16)
        noise = rng.integers(-30, 31, size=(256, 256, 1), dtype=np.int16)
        buffer = io.BytesIO()
        Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    return files


def write_shards(folder: Path, size: int) -> int:
    """Write shards of this many bytes in all; return the number of images."""
    files, count, written, shard = draw(DIFFERENT), 0, 0, 0
    while written < size:
        with tarfile.open(folder / f"set-{shard:06d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            while tar.offset < SHARD and written + tar.offset < size:
                data = files[count % DIFFERENT] + count.to_bytes(8)
                for suffix, content in ((".jpg", data), (".cls", str(count % 5).encode())):
                    member = tarfile.TarInfo(f"{count:09d}{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
                count += 1
            written += tar.offset
            shard += 1
    return count


def write_files(folder: Path, count: int) -> None:
    """Write some of the same images as files, for the packed store."""
    files = draw(DIFFERENT)
    for number in range(count):
        path = folder / str(number % 5) / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files[number % DIFFERENT] + number.to_bytes(8))


@contextlib.contextmanager
def control_group(limit: int) -> Iterator[Path | None]:
    """Make a control group with this memory limit in bytes; yield None if this user may not."""
    v2 = (GROUPS / "cgroup.controllers").exists()
    group = (GROUPS if v2 else GROUPS / "memory") / f"sagan-benchmark-{os.getpid()}"
    try:
        group.mkdir()
        (group / ("memory.max" if v2 else "memory.limit_in_bytes")).write_text(str(limit))
    except OSError:
        group.exists() and group.rmdir()
        yield None
        return
    try:
        yield group
    finally:
        group.rmdir()


def peak_memory(group: Path) -> float:
    """Return the peak memory of a control group, in MiB."""
    for name in ("memory.peak", "memory.max_usage_in_bytes"):
        with contextlib.suppress(OSError):
            return int((group / name).read_text()) / MIB
    return float("nan")


def child(what: str, source: Path, cache: Path, steps: int, group: Path | None, limit: int) -> dict[str, Any]:
    """Return the result of `train` or `read` in a process of its own, under a memory limit unless `limit` is 0."""

    def enter() -> None:
        if group is not None and limit:
            (group / "cgroup.procs").write_text(str(os.getpid()))
        elif limit:
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))

    command = [sys.executable, __file__, "--child", what, str(source), str(cache), str(steps)]
    process = subprocess.run(command, preexec_fn=enter, stdout=subprocess.PIPE, text=True)
    if process.returncode:
        raise SystemExit(f"{what} ended with status {process.returncode} (-9: killed by the kernel, out of memory)")
    result: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return result


def open_source(source: Path, cache: Path) -> Batches:
    config = DataConfig(source=str(source), cache=str(cache))
    store = prepare(config, resolution=PRESETS["demo"].model.resolution, image_channels=3, progress=False)
    return Batches(store, PRESETS["demo"].training.batch_size, seed=0, flips=False)


def train(source: Path, cache: Path, steps: int) -> dict[str, Any]:
    keep_memory()
    start = time.perf_counter()
    batches = open_source(source, cache)
    opened = time.perf_counter() - start
    preset = PRESETS["demo"]
    trainer = Trainer(preset.model, preset.training, torch.device("cpu"))
    ahead = Prefetcher(batches, torch.device("cpu"))
    waited: list[float] = []

    def batch(number: int) -> tuple[torch.Tensor, torch.Tensor]:
        start = time.perf_counter()
        result = ahead(number)
        waited.append(time.perf_counter() - start)
        return result

    for step in range(3):
        trainer.train_step(step, batch)
    waited.clear()
    times = [seconds(lambda step=step: trainer.train_step(step, batch)) for step in range(3, 3 + steps)]
    ahead.close()
    return {"times": times, "waited": float(np.median(waited)), "peak": memory() * 1024, "opened": opened}


def read(source: Path, cache: Path, steps: int) -> dict[str, Any]:
    keep_memory()
    batches = open_source(source, cache)
    count, seen = len(batches.store), np.zeros(len(batches.store), np.uint8)
    start = time.perf_counter()
    for index in range(count // batches.batch_size):
        batches(index)
        seen[batches.positions(index)] += 1
    took = time.perf_counter() - start
    io_lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return {
        "rate": count / took,
        "took": took,
        "once": bool(seen.max() == 1 and (seen == 0).sum() < batches.batch_size),
        "bytes": int(io_lines["rchar"]),
        "peak": memory() * 1024,
    }


def main() -> None:
    children: dict[str, Callable[[Path, Path, int], dict[str, Any]]] = {"train": train, "read": read}
    if sys.argv[1:2] == ["--child"]:
        what, source, cache, steps = sys.argv[2:]
        print(json.dumps(children[what](Path(source), Path(cache), int(steps))))
        return
    parser = argument_parser(__doc__, save=True)
    parser.add_argument("--limit", type=int, default=512, help="MiB")
    parser.add_argument("--times", type=float, default=10, help="size of the shards, in limits")
    parser.add_argument("--steps", type=int, default=100, help="training steps in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", default=None, help="where to make the data, in a temporary folder")
    options = parser.parse_args()
    limit = options.limit * MIB
    notes = [
        f"Limit {options.limit:,} MiB; {options.rounds} rounds of {options.steps} steps in turn; generated images."
    ]
    columns = ["what", "images a second, median (least-most)", "waiting for a batch", "peak memory, MiB"]
    table = Table("Shards under a memory limit", columns, save=options.save, notes=notes)
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary, control_group(limit) as group:
        here = Path(temporary)
        for name in ("shards", "files", "cache"):
            (here / name).mkdir()
        write_files(here / "files", STORED)
        count = write_shards(here / "shards", int(limit * options.times))
        size = sum(path.stat().st_size for path in (here / "shards").iterdir())
        by = (
            "a control group (processes and the files they read)" if group else "RLIMIT_DATA (the process's own memory)"
        )
        table.note(
            f"Limited by {by}. {count:,} images in {len(list((here / 'shards').iterdir()))} shards, "
            f"{size / MIB:,.0f} MiB: {size / limit:.1f} times the limit."
        )
        open_source(here / "files", here / "cache")  # pack the store first, without a limit
        kinds = {"packed store, no limit": ("files", 0), f"shards, {options.limit} MiB": ("shards", limit)}
        rates: dict[str, list[float]] = {kind: [] for kind in kinds}
        last: dict[str, dict[str, Any]] = {}
        for number in range(options.rounds):
            for kind, (name, bound) in kinds.items():
                last[kind] = child("train", here / name, here / "cache", options.steps, group, bound)
                rates[kind].append(PRESETS["demo"].training.batch_size / float(np.median(last[kind]["times"])))
                if bound and not number:
                    table.note(f"Reading the headers of all shards, the first time, took {last[kind]['opened']:.1f} s.")
        for kind, values in rates.items():
            waited = f"{1e3 * last[kind]['waited']:.1f} ms"
            table.row(f"training, {kind}", spread(values, 1), waited, f"{last[kind]['peak']:,.0f}")
        result = child("read", here / "shards", here / "cache", 0, group, limit)
        once = "every image once" if result["once"] else "NOT every image once"
        what = f"reading an epoch, shards, {options.limit} MiB: {once}, {result['bytes'] / MIB:,.0f} MiB read"
        table.row(what, f"{result['rate']:,.0f}", "", f"{result['peak']:,.0f}")
        if group:
            table.note(f"Peak memory of the group: {peak_memory(group):,.0f} MiB.")


if __name__ == "__main__":
    main()

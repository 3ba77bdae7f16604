"""Kill runs with SIGKILL at random moments, resume them, and check that they end bit for bit like an undisturbed run.

    python benchmarks/kills.py [--kills 200] [--seed 0] [--folder FOLDER]

A tiny network trains on the CPU, one run after the other, each from a folder of images to its end: the images are
decoded into a cache, and checkpoints are written after every other step. A third of the kills come at a random moment,
a third while a checkpoint, a grid of samples or the log is written, and a third while the images are prepared; a hidden
temporary file shows these moments. Each start is a process forked after the imports, which saves seconds; then it does
what the command line does. Compared with an undisturbed run are every checkpoint, the inference weights, the grids, the
log (without its speeds), the store, and the list of files.
"""

import importlib
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from machine import argument_parser
from sagan.cli import main as command
from sagan.files import load_tensors
from sagan.metric_names import depends_on_machine
from sagan.run import Run

for module in ("sagan.training.loop", "sagan.render.attention", "torch._dynamo"):  # once, not after each fork
    importlib.import_module(module)

STEPS = 12
IMAGES = 200
LIMIT = 120  # seconds per start
OPTIONS = (
    "--resolution 32 --base-channels 4 --latent-dim 8 --batch-size 4 --precision fp32 --device cpu --lecam 0.1 "
    f"--log-every 2 --sample-every 4 --checkpoint-every 2 --evaluate-every 0 --steps {STEPS} --augment color"
).split()


def make_images(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (folder / name).mkdir(parents=True)
        for i in range(IMAGES // 2):
            pixels = rng.integers(256, size=(300, 320, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png", compress_level=1)


def start(job: Path, images: Path) -> int:
    """Start or resume a job in a new process; returns the process id."""
    run = job / "run"
    has_begun = (run / "config.json").exists()
    arguments = ["--resume", run, "--device", "cpu"] if has_begun else ["--data", images, "--out", run, *OPTIONS]
    process = os.fork()
    if process:
        return process
    os.environ["SAGAN_CACHE"] = str(job / "cache")
    for stream in (1, 2):
        os.dup2(os.open(job / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    status = 3
    try:
        status = command(["train", *map(str, arguments)])
    finally:
        sys.stdout.flush()
        os._exit(status)


def ended(process: int) -> int | None:
    """Return the exit status of a process, negative for a signal; None if it is running."""
    process_id, status = os.waitpid(process, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if process_id else None


def temporary(*folders: Path) -> list[Path]:
    return [path for folder in folders for path in folder.glob(".tmp-*")]


def kill(process: int, job: Path, rng: random.Random, seconds: float) -> str | None:
    """Kill a process at a moment of a random plan; returns what it was doing, None if it ended before."""
    plan = rng.choice(["any", "writing", "preparing"])
    run, stores = job / "run", job / "cache" / "stores"
    watched = {
        "any": (),
        "writing": (run / "checkpoints", run / "samples", run),
        "preparing": (stores, job / "cache" / "index"),
    }[plan]
    everywhere = (run / "checkpoints", run / "samples", run, stores, job / "cache" / "index")
    old = set(temporary(*everywhere))  # of the previous kill, swept during the start
    begin, moment = time.monotonic(), rng.uniform(0, seconds)
    skip, wait = (rng.randrange(8), 0.0) if plan == "writing" else (0, rng.uniform(0, 0.1 * seconds))
    seen: set[Path] = set()
    while (status := ended(process)) is None and time.monotonic() - begin < LIMIT:
        seen |= set(temporary(*watched)) - old
        if len(seen) > skip:
            time.sleep(wait)
            break
        if plan != "writing" and time.monotonic() - begin > moment:
            break
        time.sleep(0.0002)
    if status is None and time.monotonic() - begin > LIMIT:
        raise SystemExit(f"hangs: {job}")
    if status is not None:
        if status:
            raise SystemExit(f"{job} ended with status {status}:\n{(job / 'output.txt').read_text()[-2000:]}")
        return None
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    if left := [path for path in temporary(*everywhere) if path not in old]:
        where = left[0].parent
        return {"stores": "preparing images", "index": "writing the index", "checkpoints": "writing a checkpoint",
                "samples": "writing a grid", "run": f"writing {left[0].name.split('-')[-1]}"}[where.name]  # fmt: skip
    if not (run / "config.json").exists():
        return "before the run existed"
    return "training" if Run(run).metrics() else "before the first row of the log"


def files(job: Path) -> dict[str, bytes]:
    """Read all files in a job's run and cache, except TensorBoard's events and its own output."""
    contents = {}
    for folder in ("run", "cache"):
        for path in (job / folder).rglob("*"):
            name = path.relative_to(job)
            if path.is_file() and "events" not in name.parts:
                contents[str(name)] = path.read_bytes()
    return contents


def differences(job: Path, undisturbed: Path) -> list[str]:
    """Return the files in which a job differs from the undisturbed one."""
    mine, theirs = files(job), files(undisturbed)
    different = sorted(mine.keys() ^ theirs.keys())
    for name in mine.keys() & theirs.keys():
        if name.endswith(".safetensors"):
            (x, meta_x), (y, meta_y) = load_tensors(job / name), load_tensors(undisturbed / name)
            same = meta_x == meta_y and x.keys() == y.keys() and all(torch.equal(x[key], y[key]) for key in x)
        elif name.endswith("metrics.jsonl"):
            rows = (
                [
                    {key: value for key, value in row.items() if not depends_on_machine(key)}
                    for row in Run(each / "run").metrics()
                ]
                for each in (job, undisturbed)
            )
            same = next(rows) == next(rows)
        else:
            same = mine[name] == theirs[name]
        different += [] if same else [name]
    return different


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="keep the runs here; default: a temporary folder")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = options.folder or Path(name)
        make_images(folder / "images")
        undisturbed = folder / "undisturbed"
        undisturbed.mkdir(parents=True)
        begin = time.monotonic()
        process = start(undisturbed, folder / "images")
        while (status := ended(process)) is None:
            time.sleep(0.01)
        if status:
            raise SystemExit((undisturbed / "output.txt").read_text())
        seconds = time.monotonic() - begin
        print(f"undisturbed: {seconds:.1f} s")
        moments: Counter[str] = Counter()
        kills = jobs = 0
        while kills < options.kills:
            job = folder / f"job-{jobs:03d}"
            job.mkdir()
            jobs += 1
            done = False
            while not done:
                process = start(job, folder / "images")
                if kills < options.kills:
                    moment = kill(process, job, rng, seconds)
                    done = moment is None
                    if moment:
                        kills += 1
                        moments[moment] += 1
                        print(f"kill {kills}, run {jobs}: {moment}", flush=True)
                else:
                    while (status := ended(process)) is None:
                        time.sleep(0.01)
                    if status:
                        raise SystemExit((job / "output.txt").read_text()[-2000:])
                    done = True
            if wrong := differences(job, undisturbed):
                raise SystemExit(f"{job} ended differently from the undisturbed run: {', '.join(wrong)}")
            print(f"run {jobs} is finished: every file as undisturbed", flush=True)
        print(
            f"\n{kills} kills in {jobs} runs; each ended like the undisturbed one, bit for bit, without leftover files"
        )
        for moment, count in moments.most_common():
            print(f"  {count:4}  {moment}")


if __name__ == "__main__":
    main()

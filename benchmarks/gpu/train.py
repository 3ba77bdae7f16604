"""Train for some minutes at 64 px, as many steps as fit into the time, then evaluate and draw samples and maps."""

import json
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import time_to_quality
from gpu.check import time_steps
from gpu.ours import arithmetic
from gpu.parts import Part, Work, keep
from lightweight import NAME as LIGHTWEIGHT
from sagan import PRESETS
from time_to_quality import OURS

SLOW = 5  # if a step with penalties takes longer than this many plain ones, the run has no penalties
PREDICTED = 27.0  # ms per step, on one H100
START = 15  # seconds to start a process, prepare the images and warm up
LAST = 20  # seconds to draw the last images and save, also after a request to stop
JUDGING = 60  # seconds for a process to start and to measure two distances
MARGIN = 0.8  # share of the measured rate; evaluations, checkpoints and grids take the rest


def size(work: Work) -> dict[str, int]:
    """Return the options of the model and the batch."""
    if work.toy:
        return {"resolution": 32, "base-channels": 4, "batch-size": 8}
    return {"resolution": 64, "base-channels": 64, "batch-size": 64}


def rate(work: Work) -> None:
    """How long does a step take, with and without penalties?"""
    chosen = size(work)
    shape = {"resolution": chosen["resolution"], "base_channels": chosen["base-channels"], "num_classes": 5}
    model = replace(PRESETS["small"].model, **shape)
    training = PRESETS["small"].training
    batch_size, steps = chosen["batch-size"], 2 if work.toy else 20
    with arithmetic("auto") as precision:
        work.value("predicted for an H100", f"{PREDICTED:g} ms, so 37 steps/s and 2,300 images/s")
        plain = {"loss": "hinge", "precision": precision, "augment": training.augment}
        _, ms = time_steps(work, model, batch_size, steps, **plain)
        work.value("ms of a step without penalties", round(ms, 2))
        penalised = plain | {"loss": training.loss, "r1": training.r1, "r2": training.r2}
        _, ms = time_steps(work, model, batch_size, steps, **penalised)
        work.value("ms of a step with penalties", round(ms, 2))


def training(work: Work) -> None:
    """Does a run of as many steps as fit end well, and what does it draw?"""
    values = work.values()
    plain = values.get("ms of a step without penalties")
    penalised = values.get("ms of a step with penalties")
    options = [f"--{name} {value}" for name, value in size(work).items()]
    mean = plain or PREDICTED  # even if it is wrong, the run is stopped in time, and saves
    if plain is None or penalised is None or penalised > SLOW * plain:
        options.append("--r1 0 --r2 0 --loss hinge")
        work.value("penalties", "none: a step with them takes too long" if penalised else "none: not measured")
    else:
        every = PRESETS["small"].training.penalty_every
        mean = ((every - 1) * plain + penalised) / every
        work.value("penalties", f"R1 and R2 every {every} steps")
    seconds = max(1.0, work.left - START - LAST)
    steps = 12 if work.toy else max(100, int(MARGIN * seconds / mean * 1e3) // 100 * 100)
    work.value("steps", steps)
    third = -(-steps // 3)
    options.append(f"--steps {steps} --log-every {max(1, steps // 100)} --sample-every {max(1, steps // 8)}")
    options.append(f"--checkpoint-every {third} --evaluate-every {third} --evaluate-count {50 if work.toy else 2000}")
    source = ["--data", str(work.options.images)] if work.options.images else ["--data", "robots"]
    arguments = ["train", "--preset", "small", *source, *shlex.split(" ".join(options)), "--device", work.device]
    start, run = time.time(), folder(work)
    status = sagan(work, "train", [*arguments, "--out", str(run)], stop=work.left - LAST)
    work.value("seconds in total", round(time.time() - start, 1))
    rows = [json.loads(line) for line in _lines(run / "metrics.jsonl")]
    for name in ("config.json", "metrics.jsonl", "samples.png", "generator.safetensors"):
        keep(work, run / name)
    if rows:
        work.value("steps done", rows[-1]["step"])
        rates = [row["images_per_second"] for row in rows if row.get("images_per_second")]
        work.value("images/s, the median of the log", round(sorted(rates)[len(rates) // 2], 1) if rates else "-")
    for row in rows:
        if "diversity" in row:
            work.row("Evaluations during training", **{name: _short(value) for name, value in row.items()})
    if status:
        raise SystemExit(f"sagan train ended with exit status {status}: see train.log in the archive")


def distance(work: Work) -> None:
    """How far are its images from those it learnt from?"""
    count = 64 if work.toy else 5000
    out = work.folder / "evaluation.json"
    arguments = ["evaluate", str(folder(work)), "--device", work.device, "--features", "efficientnet-lite0"]
    arguments += ["--count", str(count), "--reference-count", str(count), "--out", str(out)]
    status = sagan(work, "evaluate", arguments, stop=work.left - 2)
    if out.exists():
        for group in json.loads(out.read_text(encoding="utf-8")).values():
            for metric in group if isinstance(group, list) else ():
                if isinstance(metric, dict):  # other entries are remarks
                    work.row("Metrics", **{name: _short(value) for name, value in metric.items()})
    if status:
        raise SystemExit(f"sagan evaluate ended with exit status {status}: see evaluate.log in the archive")


def images(work: Work) -> None:
    """What does it draw, and what does its attention look at?"""
    run = folder(work)
    failed = 0
    for command in ("sample", "attend"):
        arguments = [command, str(run), "--out", str(work.folder / f"{command}.png")]
        failed += bool(sagan(work, command, arguments, stop=work.left - 2))
    for line in _lines(work.folder / "attend.log"):
        if not line.startswith(str(work.folder)):
            work.row("What attention looks at", layer=line)
    if failed:
        raise SystemExit("not all images were drawn: see sample.log and attend.log in the archive")


def quality(work: Work) -> None:
    """How far do the same minutes bring ours and lightweight-gan, on the same images, as `small`?"""
    peers, images = work.options.peers, work.options.images
    if not peers or not (peers / LIGHTWEIGHT).is_dir():
        raise SystemExit(f"--peers lacks {LIGHTWEIGHT}: make bundle PEERS=FOLDER copies it")
    arguments = [str(peers), "--data", str(images or "robots"), "--preset", "small", "--device", work.device]
    arguments += ["--count", "64" if work.toy else "2000"]
    if work.toy:
        arguments += ["--resolution", "32", "--base-channels", "4"]
    minutes = 0.05 if work.toy else (work.left - 2 * JUDGING) / 120
    for name in (OURS, LIGHTWEIGHT):
        for row in time_to_quality.run(arguments, name, 0, [minutes]):
            work.row("The same minutes", run=name, **{key: _short(value) for key, value in row.items()})


def folder(work: Work) -> Path:
    """Return the run's folder, which is not archived because its checkpoints are large."""
    return work.folder.parent / "run"


def sagan(work: Work, name: str, arguments: list[str], *, stop: float) -> int:
    """Run a command of sagan with its output in NAME.log, and stop it after `stop` seconds; returns its status."""
    with (work.folder / f"{name}.log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "sagan", *arguments], stdout=log, stderr=subprocess.STDOUT)
        try:
            return process.wait(max(1.0, stop))
        except subprocess.TimeoutExpired:
            work.value(f"sagan {name}", "stopped: its time was over")
            process.send_signal(signal.SIGINT)
            return process.wait()


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def _short(value: object) -> object:
    return f"{value:.4g}" if isinstance(value, float) else value


PARTS = [
    Part("rate", rate, 50),
    Part("training", training, 600, leave=75),
    Part("distance", distance, 60, leave=15),
    Part("images", images, 60),
    Part("quality", quality, 590, when_asked=True),
]

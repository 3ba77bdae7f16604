"""How fast is a training step on a GPU? Ours, other codebases' on the same card, and where the time goes.

    python benchmarks/gpu.py FOLDER_OF_CHECKOUTS --save gpu
    python benchmarks/gpu.py FOLDER_OF_CHECKOUTS --device cpu --channels 8 --batch 4 --rounds 1     # toy size

128 px, 1000 classes, base_channels 64; one update of D and one of G (benchmarks/peers.py). Each row is a process of its
own, one after the other, so that peak memory is its own; what does not fit in memory says so. The share is that of the
card's bf16 peak (a matrix product or a convolution, measured before the rows) that the least operations of a step
(benchmarks/operations.py) use. Then the kernels of one of our steps, the longest first. It ends of itself before
--minutes are over: rows that no time is left for are named.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from machine import Table, memory, peak, seconds, spread
from operations import operations
from peers import OURS, SIZES, build, real_batch
from sagan import TrainingConfig
from sagan.device import keep_memory

CASES: dict[str, tuple[str, dict[str, Any]]] = {  # by row: the contender, and options of its training or building
    "ours, auto (bf16)": (OURS, {"precision": "auto"}),
    "ours, fp32": (OURS, {"precision": "fp32"}),
    "BigGAN-PyTorch as it comes": ("BigGAN-PyTorch", {}),
    "BigGAN-PyTorch, attention as ours": ("BigGAN-PyTorch, attention as ours", {}),
    "PyTorch-StudioGAN": ("PyTorch-StudioGAN", {}),
    "PyTorch-StudioGAN, mixed precision": ("PyTorch-StudioGAN", {"mixed": True}),
    "ours, auto, compiled": (OURS, {"precision": "auto", "compile": "default"}),
    "ours, auto, compiled, CUDA graphs": (OURS, {"precision": "auto", "compile": "reduce-overhead"}),
}
CUDA_ONLY = ("compile", "mixed")
LONGEST = 150  # seconds that a row may take
COLUMNS = ("batch", "codebase", "ms/step", "images/s", "of bf16 peak", "peak memory GiB", "first step s")


def prepare(case: str, options: argparse.Namespace) -> Callable[[], object]:
    """One training step of a case, its batch already on the device."""
    name, settings = CASES[case]
    settings, (batch_size,) = dict(settings), options.batch
    mode = settings.pop("compile", None)
    model = replace(SIZES["128"], base_channels=options.channels)
    training = TrainingConfig(batch_size=batch_size, precision=settings.pop("precision", "auto"))
    device = torch.device(options.device)
    with device:
        one = build(name, options.folder, model, training, **settings)
    if mode:
        for network in (one.generator, one.discriminator):
            network.compile(mode=mode)
    batch = tuple(t.to(device) for t in real_batch(name, model, batch_size))
    return lambda: one.step(*batch)


def work(options: argparse.Namespace) -> None:
    """The process of one row: its times and memory, as a line of JSON."""
    if options.device == "cpu":
        keep_memory()
    torch.backends.cudnn.benchmark = True  # as all of these codebases have it
    step = prepare(options.work, options)
    first = seconds(step, options.device)
    for _ in range(2):
        step()
    times = [seconds(lambda: [step() for _ in range(options.steps)], options.device) for _ in range(options.rounds)]
    used = torch.cuda.max_memory_allocated() / 2**30 if options.device == "cuda" else memory()
    print(json.dumps({"times": [t / options.steps for t in times], "memory": used, "first": first}))


def kernels(options: argparse.Namespace) -> None:
    """The kernels of one of our steps, by time."""
    torch.backends.cudnn.benchmark = True
    step = prepare(next(iter(CASES)), options)
    for _ in range(3):
        step()
    activities = [torch.profiler.ProfilerActivity.CPU]
    if options.device == "cuda":
        activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        seconds(step, options.device)
    events = profile.key_averages()

    def own(event: Any) -> float:
        return float(event.self_device_time_total if options.device == "cuda" else event.self_cpu_time_total)

    total = sum(map(own, events))
    rows = [
        [e.key[:90].replace("|", "/"), f"{own(e) / 1e3:.2f}", f"{own(e) / total:.1%}", e.count]
        for e in sorted(events, key=own, reverse=True)[: options.kernels]
    ]
    print(json.dumps(rows))


def run(options: argparse.Namespace, batch_size: int, limit: float, *arguments: str) -> Any:
    """What a process of its own says; in words what went wrong, if it did."""
    common = [str(options.folder), "--device", options.device, "--channels", options.channels, "--batch", batch_size]
    common += ["--rounds", options.rounds, "--steps", options.steps, "--kernels", options.kernels]
    command = [sys.executable, __file__, *map(str, common), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return f"not done after {limit:.0f} s"
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["no message"])[-1][:150]
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--channels", type=int, default=64, help="base_channels; the others' widths follow")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5, help="steps of a round")
    parser.add_argument("--kernels", type=int, default=20, help="how many are listed")
    parser.add_argument("--minutes", type=float, default=9.0, help="the most it may take in all")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="ROW")
    parser.add_argument("--save", default="", metavar="NAME")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        (kernels if options.work == "kernels" else work)(options)
        return
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device here: --device cpu at a toy size shows that it works")
    end = time.perf_counter() + 60 * options.minutes
    table = Table("A training step at 128 px on a GPU", COLUMNS, save=options.save, device=options.device)
    best = peak(options.device, torch.bfloat16)
    table.note(f"Peak {best / 1e3:,.2f} TFLOP/s in bf16, {peak(options.device) / 1e3:,.2f} in fp32.")
    model = replace(SIZES["128"], base_channels=options.channels)
    cases = [c for c in options.only if options.device == "cuda" or not set(CUDA_ONLY) & set(CASES[c][1])]
    for batch_size in options.batch:
        for case in cases:
            left = end - time.perf_counter()
            found = run(options, batch_size, min(left, LONGEST), "--work", case) if left > 20 else "no time left"
            if isinstance(found, str):
                table.row(batch_size, case, found, *["-"] * (len(COLUMNS) - 3))
                continue
            median = statistics.median(found["times"])
            share = operations(model) * batch_size / median / 1e9 / best
            table.row(
                batch_size,
                case,
                spread([1e3 * t for t in found["times"]], 1),
                f"{batch_size / median:.1f}",
                f"{share:.1%}" if CASES[case][0] == OURS else "-",
                f"{found['memory']:.2f}",
                f"{found['first']:.1f}",
            )
    found = run(options, options.batch[0], max(20.0, end - time.perf_counter()), "--work", "kernels")
    name = f"{options.save}_kernels" if options.save else ""
    title = f"Where the time of our step goes, batch {options.batch[0]}"
    table = Table(title, ("kernel", "ms", "share", "calls"), save=name, device=options.device)
    for row in found if isinstance(found, list) else [[found, "-", "-", "-"]]:
        table.row(*row)


if __name__ == "__main__":
    main()

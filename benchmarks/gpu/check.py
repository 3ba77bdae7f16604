"""Check correctness on this machine: the tests under its PyTorch, the GPU against the CPU, the cost of a penalty."""

import json
import os
import platform
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from gpu.ours import TOY, arithmetic, describe_graphs, start, state, stepper
from gpu.parts import ROOT, Part, Work
from machine import seconds
from sagan import PRESETS

GRAPH_TESTS = "tests/cuda/test_graph.py"
COMPILED_TESTS = "tests/cuda/test_compiled.py"
TOGETHER = ["-n", "4"]  # these tests wait for the host rather than for the device
PACKAGES = ("torch", "triton", "numpy", "pillow", "safetensors", "pydantic", "tyro", "matplotlib")


def environment(work: Work) -> None:
    """Which versions and settings are these, and how fast is memory copied?"""
    versions = ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    work.value("versions", f"python {platform.python_version()}, {versions}")
    flags = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.benchmark
    work.value("by default TF32 in convolutions, in products, benchmark", flags)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        work.value("TF32 in convolutions while features are extracted", torch.backends.cudnn.allow_tf32)
    after = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.benchmark
    work.value("settings after it are those before", flags == after)
    x = torch.empty(2**24 if work.toy else 2**30, dtype=torch.uint8, device=work.device)
    y = torch.empty_like(x)
    y.copy_(x)
    fastest = min(seconds(lambda: y.copy_(x), work.device) for _ in range(10))
    work.value("copy, TB/s read and written", round(2 * x.nbytes / fastest / 1e12, 3))
    if work.device != "cuda":
        return
    card = torch.cuda.get_device_properties(0)
    work.value("card", f"{card.name}, capability {card.major}.{card.minor}, {card.total_memory / 2**30:.1f} GiB")
    work.value("cuDNN, NCCL", f"{torch.backends.cudnn.version()}, {torch.cuda.nccl.version()}")
    kernels = ("flash_sdp", "mem_efficient_sdp", "cudnn_sdp", "math_sdp")
    allowed = [name for name in kernels if getattr(torch.backends.cuda, f"{name}_enabled")()]
    work.value("attention kernels that are allowed", ", ".join(allowed))


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "missing"


def tests(work: Work) -> None:
    """Do tests/model and tests/training pass under this PyTorch, on the CPU, and tests/cuda on the device?"""
    workers = max(1, (os.cpu_count() or 1) - 4)
    on_cpu = ["tests/model", "tests/training", "-n", str(workers)]
    on_device = ["tests/cuda", "--ignore", GRAPH_TESTS, "--ignore", COMPILED_TESTS, *TOGETHER]  # other parts run these
    if work.toy:
        on_cpu = ["tests/model/test_resample.py", "tests/training/test_ema.py"]
        on_device += ["-k", "(parity and hinge and not full and not paper) or waits or distributed"]
    runs = {
        "tests/cuda": _pytest(work, "cuda", on_device),
        "tests/model and tests/training": _pytest(work, "cpu", on_cpu),
    }
    _report(work, runs)


def graph(work: Work) -> None:
    """Is a step that is replayed as a CUDA graph the step itself? By tests, then by 20 steps of the presets."""
    _report(work, {GRAPH_TESTS: _pytest(work, "graph", [GRAPH_TESTS, *TOGETHER])}, leave=25.0, check=False)
    cases = [("demo", PRESETS["demo"], 32), ("small", PRESETS["small"], 32)]
    for name, preset, batch_size in cases[:1] if work.toy else cases:
        model = TOY if work.toy else preset.model
        options = {key: getattr(preset.training, key) for key in ("loss", "r1", "r2", "penalty_every", "augment")}
        for precision in ("auto", "fp32"):
            trainers = []
            with arithmetic(precision) as chosen:
                torch.backends.cudnn.benchmark = False  # which may choose another kernel in every trainer
                for captures in (False, False, True):
                    trainer, step = start(
                        model, work.device, batch_size, precision=chosen, cuda_graph=captures, **options
                    )
                    for _ in range(4 if work.toy else 20):
                        step()
                    trainers.append(trainer)
            eager, again, captured = (state(trainer) for trainer in trainers)
            work.row(
                "Largest difference of two trainers after 20 steps, of weights, statistics and averages",
                step=name,
                precision=precision,
                mode=describe_graphs(trainers[2]),
                **{
                    "eager, twice": f"{_difference(eager, again):.3g}",
                    "eager against graph": f"{_difference(eager, captured):.3g}",
                    "largest weight": f"{max(t.abs().max().item() for t in _weights(eager).values()):.3g}",
                },
            )


def compiled(work: Work) -> None:
    """Do compiled networks train like plain ones, alone and within a captured step?"""
    _report(work, {COMPILED_TESTS: _pytest(work, "compiled", [COMPILED_TESTS, *TOGETHER])})


def _weights(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: t for name, t in tensors.items() if "_adam/" not in name and t.is_floating_point() and t.numel()}


def _difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max((t - other[name]).abs().max().item() for name, t in _weights(one).items())


def _report(
    work: Work, runs: dict[str, tuple[subprocess.Popen, Path]], *, leave: float = 0.0, check: bool = True
) -> None:
    """Wait for pytest's processes and note their results; stop them `leave` seconds before the part's end.

    Raises:
        SystemExit: with `check`, a test failed, or not all were done.
    """
    for process, _ in runs.values():
        try:
            process.wait(max(0.0, work.left - 4 - leave))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
    for name, (process, notes) in runs.items():
        try:
            process.wait(max(0.1, work.left - 1 - leave))
        except subprocess.TimeoutExpired:
            process.kill()
        results = [json.loads(line) for line in notes.read_text(encoding="utf-8").splitlines()]
        outcomes = ("passed", "failed", "skipped", "error")
        counts = {outcome: sum(t["outcome"] == outcome for t in results) for outcome in outcomes}
        status = {0: "all done", 1: "done"}.get(process.returncode, "not all done")
        work.value(name, f"{status}: " + ", ".join(f"{n} {outcome}" for outcome, n in counts.items() if n))
        for test in results:
            if test["outcome"] in ("failed", "error"):
                lines = [line for line in test["message"].splitlines() if line.startswith("E ")] or [test["message"]]
                work.row("Failed", test=test["test"], message=lines[0][:300])
        if name != "tests/model and tests/training":
            _list(work, results)
    bad = [name for name, (process, _) in runs.items() if process.returncode]
    if bad and check:
        raise SystemExit(f"failed or not all done: {', '.join(bad)}")


def _list(work: Work, results: list[dict[str, Any]]) -> None:
    for test in results:
        measured = "; ".join(f"{name}: {value}" for name, value in test["properties"].items())
        text = measured or (test["message"] if test["outcome"] == "skipped" else "")
        name = test["test"].removeprefix("cuda/").replace(".py::", ": ")
        work.row("On the device", test=name, outcome=test["outcome"], s=test["seconds"], measured=text)


def _pytest(work: Work, name: str, arguments: list[str]) -> tuple[subprocess.Popen, Path]:
    """Start pytest; returns its process, and the file in which it records each test."""
    notes = work.folder / f"tests-{name}.jsonl"
    notes.touch()
    environment = os.environ | {"GPU_NOTES": str(notes), "OMP_NUM_THREADS": "1"}
    if name == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""  # or tests with the device 'auto' would use the GPU
    environment["SAGAN_CUDA_TESTS_DEVICE"] = work.device
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "gpu.pytest_notes", "-p", "no:cacheprovider", *arguments]
    with (work.folder / f"tests-{name}.log").open("w") as log:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT), notes


def penalty(work: Work) -> None:
    """What does a step with R1 and R2 cost, against one without? First as it comes, then the fastest kernels chosen."""
    name, model, batch_size = ("a toy", TOY, 4) if work.toy else ("small", PRESETS["small"].model, 32)
    plain: dict[bool, float] = {}
    for search in (False, True):
        with arithmetic("auto") as precision:
            torch.backends.cudnn.benchmark = search
            for step, options in (("without", {}), ("R1 and R2", {"r1": 1.0, "r2": 1.0})):
                chosen = {"loss": "relativistic", "precision": precision} | options
                first, ms = time_steps(work, model, batch_size, 3 if work.toy else 8, **chosen)
                work.row(
                    f"A step of {name}, batch {batch_size}",
                    step=step,
                    search=search,
                    **{"first step s": round(first, 2), "ms": round(ms, 2)},
                )
                plain.setdefault(search, ms)
        work.value("a step with R1 and R2 takes this many plain ones", round(ms / plain[search], 2))


def time_steps(work: Work, model: Any, batch_size: int, steps: int, **options: Any) -> tuple[float, float]:
    """Return the seconds of the first step, and the mean milliseconds of `steps` steps after two more."""
    step = stepper(model, work.device, batch_size, **options)
    start = time.perf_counter()
    seconds(step, work.device)
    first = time.perf_counter() - start
    step()
    step()
    return first, 1e3 * seconds(lambda: [step() for _ in range(steps)], work.device) / steps


PARTS = [
    Part("environment", environment, 25),
    Part("graph", graph, 100, leave=60),
    Part("tests", tests, 105),
    Part("penalty", penalty, 45),
    Part("compiled", compiled, 400, when_asked=True),
]

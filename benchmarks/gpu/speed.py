"""Measure training steps on this machine: ours and other codebases' in turn, both forms of each layer, the kernels.

The tables show what was predicted before anything had run on a GPU next to what is measured (docs/speed.md says how).
"""

import statistics
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from gpu.ours import (
    TOY,
    WARM_UP,
    arithmetic,
    boxes_of_kernels_on,
    conv3x3_downsample,
    describe_graphs,
    start,
    stepper,
    upsample,
    upsample_conv3x3,
)
from gpu.parts import Part, Work
from machine import peak, seconds, spread
from operations import operations
from peers import OURS, SIZES, build, names, real_batch
from sagan import PRESETS, ModelConfig, TrainingConfig

BIGGAN, BIGGAN_AS_OURS = "BigGAN-PyTorch", "BigGAN-PyTorch, attention as ours"
COMPILED = "ours, auto, compiled"
STUDIOGAN = "PyTorch-StudioGAN"
GRAPH = "ours, auto, graph"  # the whole step replayed as a CUDA graph
TF32 = "TF32"  # PyTorch's default in convolutions; rows that use it say so

# Images/s on one H100 with 80 GB, and the range, before the first measurement.
PREDICTIONS: dict[tuple[str, int], str] = {
    ("ours, auto", 256): "1,850 (1,500-2,200); 1,490 (1,200-1,750) at 607b8dd",
    ("ours, auto", 64): "1,270 (1,000-1,500) at 607b8dd",
    ("ours, tf32", 256): "1,050 (850-1,250) at 607b8dd",
    (f"{BIGGAN} as it comes ({TF32} convolutions)", 256): "480 (380-600)",
    (f"{BIGGAN} as it comes ({TF32} convolutions)", 64): "450 (350-560)",
    (f"{BIGGAN_AS_OURS} ({TF32} convolutions)", 256): "620 (480-760)",
    (COMPILED, 256): "2,500 (2,000-3,000)",
    ("demo, auto", 32): "1,500 (1,000-2,000)",
    ("small, auto", 32): "1,280 (900-1,700)",
    ("64 px, width 64, auto", 64): "2,300",
}


def peaks(work: Work) -> None:
    """What do a matrix product and a convolution reach at best, in TFLOP/s?"""
    rows = [("bf16", torch.bfloat16, "fp32")]
    rows += [("tf32", torch.float32, "tf32")] if work.device == "cuda" else []
    rows += [("fp32", torch.float32, "fp32")]
    for name, dtype, precision in rows[:1] if work.toy else rows:
        with arithmetic(precision):
            work.value(f"peak in {name}", round(peak(work.device, dtype, rounds=1 if work.toy else 5) / 1e3, 3))


def codebases(work: Work) -> None:
    """How many images a second train at 128 px, 1000 classes, base_channels 64, against others in the same process?"""
    here = names(work.options.peers, "128") if work.options.peers else [OURS]
    default = f"({TF32} convolutions)"
    rows: list[tuple[str, str, str, dict[str, Any]]] = [("ours, auto", OURS, "auto", {})]
    rows += [(GRAPH, OURS, "auto", {})]
    rows += [(f"{BIGGAN} as it comes {default}", BIGGAN, "default", {})]
    rows += [(f"{BIGGAN_AS_OURS} {default}", BIGGAN_AS_OURS, "default", {})]
    rows += [("ours, fp32", OURS, "fp32", {})]
    if work.device == "cuda":
        rows += [("ours, tf32", OURS, "tf32", {})]
        rows += [(f"{STUDIOGAN} as it comes {default}", STUDIOGAN, "default", {})]
        rows += [(f"{STUDIOGAN}, mixed precision", STUDIOGAN, "default", {"mixed": True})]
    for batch_size in (2, 1) if work.toy else (256, 64):
        for label, name, precision, settings in rows:
            if name in here:
                _codebase(work, batch_size, label, name, precision, settings)


def compiled(work: Work) -> None:
    """The same with compiled networks, without and with the step as a CUDA graph around them; then the presets."""
    for graph in (False, True):
        label = COMPILED + (", graph" if graph else "")
        settings = {"compile": True, "cuda_graph": graph}
        _codebase(work, 4 if work.toy else 256, label, OURS, "auto", settings)
    for name, batch_size in (("a toy", 4),) if work.toy else (("small", 32), ("demo", 32)):
        model = TOY if work.toy else PRESETS[name].model  # type: ignore[index]
        cells = {"step": name, "batch": batch_size, "precision": "auto", "mode": "compiled"}
        if work.left < 30:
            work.row("Presets, compiled", **cells, **{"ms/step": "no time left"})
            continue
        options = _as_trained("demo" if work.toy else name) | {"compile": True, "cuda_graph": True}
        measured = _preset(work, model, batch_size, "auto", options)
        work.row("Presets, compiled", **cells | measured | {"mode": f"compiled, {measured['mode']}"})


def _codebase(work: Work, batch_size: int, label: str, name: str, precision: str, settings: dict[str, Any]) -> None:
    table, cells = "128 px", {"batch": batch_size, "codebase": label}
    if work.left < 15:
        work.row(table, **cells, **{"ms/step": "no time left"})
        return
    model = replace(SIZES["128"], base_channels=8) if work.toy else SIZES["128"]
    try:
        with arithmetic(precision) as chosen:
            if label == GRAPH or label.startswith(COMPILED):
                options = settings or {"cuda_graph": True}
                trainer, step = start(model, work.device, batch_size, precision=chosen, **options)
                result = measure(work, step, warm_up=WARM_UP + 1)
                cells["codebase"] += f" ({describe_graphs(trainer)})"
            else:
                training = TrainingConfig(batch_size=batch_size, precision=chosen)  # type: ignore[arg-type]
                with torch.device(work.device):
                    one = build(name, work.options.peers or Path(), model, training, **settings)
                batch = [t.to(work.device) for t in real_batch(name, model, batch_size)]
                result = measure(work, lambda: one.step(*batch))
        rate = batch_size / statistics.median(result["times"])
        bf16 = work.values().get("peak in bf16")
        share = operations(model) * rate / (1e12 * bf16) if bf16 and name == OURS else None
        cells |= {
            "ms/step": spread([1e3 * t for t in result["times"]], 1),
            "images/s": f"{rate:,.1f}",
            "predicted for an H100": PREDICTIONS.get((label, batch_size), "-"),
            "of the bf16 peak": f"{share:.1%}" if share else "-",
            "peak memory GiB": result["memory"],
            "first step s": f"{result['first']:.1f}",
        }
    except Exception as error:  # other rows may work: one that does not fit in memory says so
        traceback.print_exc()
        cells |= {"ms/step": f"{type(error).__name__}: {str(error).splitlines()[0][:150] if str(error) else ''}"}
    work.row(table, **cells)


def measure(work: Work, step: Callable[[], object], cycle: int = 1, warm_up: int = 0) -> dict[str, Any]:
    """Measure a step: mean times of rounds of complete cycles, the first step, the host's time, and peak memory.

    Args:
        cycle: steps until the kinds of step repeat.
        warm_up: steps after the first one that are not timed; at least `cycle`, and 2.
    """
    on_gpu = work.device == "cuda"
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    first = seconds(step, work.device)
    for _ in range(max(1, warm_up) if work.toy else max(2, cycle, warm_up)):
        step()
    rounds, steps = (1, cycle) if work.toy else (5, max(4, cycle))
    times = [seconds(lambda: [step() for _ in range(steps)], work.device) / steps for _ in range(rounds)]
    if on_gpu:
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(cycle):
        step()
    host = (time.perf_counter() - start) / cycle
    used = f"{torch.cuda.max_memory_allocated() / 2**30:.2f}" if on_gpu else "-"
    return {"times": times, "first": first, "host": host, "memory": used}


def presets(work: Work) -> None:
    """How fast do the presets' own steps train, penalties and all, eager and as a graph, and 64 px at width 64?"""
    wide = replace(PRESETS["small"].model, base_channels=64)
    cases: list[tuple[str, ModelConfig, int, dict[str, Any]]] = [
        ("demo", PRESETS["demo"].model, 32, _as_trained("demo")),
        ("small", PRESETS["small"].model, 32, _as_trained("small")),
        ("64 px, width 64", wide, 64, {}),
        ("64 px, width 64, as small", wide, 64, _as_trained("small")),
        ("64 px, width 64", wide, 256, {}),
    ]
    if work.toy:
        cases = [("a toy", TOY, 4, _as_trained("demo"))]
    for precision, modes in (("auto", (False, True)), ("fp32", (False,))):
        for name, model, batch_size, options in cases:
            for graph in modes:
                cells = {
                    "step": name,
                    "batch": batch_size,
                    "precision": precision,
                    "mode": "graph" if graph else "eager",
                }
                if work.left < 8:
                    work.row("Presets", **cells, **{"ms/step": "no time left"})
                    continue
                try:
                    cells |= _preset(work, model, batch_size, precision, options | {"cuda_graph": graph})
                except Exception as error:
                    traceback.print_exc()
                    cells |= {"ms/step": f"{type(error).__name__}: {str(error).partition(chr(10))[0][:150]}"}
                if not graph:
                    cells["predicted for an H100"] = PREDICTIONS.get((f"{name}, {precision}", batch_size), "-")
                work.row("Presets", **cells)


def _preset(work: Work, model: ModelConfig, batch_size: int, precision: str, options: dict[str, Any]) -> dict[str, Any]:
    """Measure one row of the table."""
    cycle = options.get("penalty_every", 1)
    with arithmetic(precision) as chosen:
        trainer, step = start(model, work.device, batch_size, precision=chosen, **options)
        result = measure(work, step, cycle=cycle, warm_up=WARM_UP * cycle + 1 if options["cuda_graph"] else 0)
    return {
        "mode": describe_graphs(trainer),
        "ms/step": spread([1e3 * t for t in result["times"]], 2),
        "images/s": f"{batch_size / statistics.median(result['times']):,.0f}",
        "ms until the call returns": f"{1e3 * result['host']:.2f}",
        "peak memory GiB": result["memory"],
        "first step s": f"{result['first']:.1f}",
        "predicted for an H100": "-",
    }


def _as_trained(preset: str) -> dict[str, Any]:
    training = PRESETS[preset].training  # type: ignore[index]
    return {name: getattr(training, name) for name in ("loss", "r1", "r2", "penalty_every", "guide", "augment")}


def resampling(work: Work) -> None:
    """Resample and convolve (36 taps), box sums of maps (9), or box sums of kernels (16)? Of 128 px, in bf16."""
    model, batch_size = (TOY, 4) if work.toy else (SIZES["128"], 64)
    layers = [("up", *pair, 4 << i) for i, pair in enumerate(pairwise(model.generator_channels))]
    layers += [
        ("down", c, c, model.resolution >> i) for i, c in enumerate(model.discriminator_channels[: model.halvings])
    ]
    plain: dict[str, Callable] = {
        "up": lambda x, w: F.conv2d(upsample(x), w, padding=1),
        "down": lambda x, w: F.avg_pool2d(F.conv2d(x, w, padding=1), 2),
    }
    fused: dict[str, Callable] = {
        "up": lambda x, w: upsample_conv3x3(x, w, None),
        "down": lambda x, w: conv3x3_downsample(x, w, None),
    }

    def tensor(*shape: int) -> torch.Tensor:
        t = torch.randn(shape, device=work.device).to(torch.bfloat16)
        return t.to(memory_format=torch.channels_last).requires_grad_()

    for kind, c_in, c_out, side in layers:
        x, w = tensor(batch_size, c_in, side, side), tensor(c_out, c_in, 3, 3)
        cells: dict[str, str] = {}
        with arithmetic("auto"):
            for name, form, boxed_kernels in (
                ("plain", plain[kind], ()),
                ("boxes of maps", fused[kind], ()),
                ("boxes of kernels", fused[kind], (work.device,)),
            ):
                with boxes_of_kernels_on(*boxed_kernels):
                    g = torch.randn_like(form(x, w))
                    both = lambda form=form, g=g: torch.autograd.grad(form(x, w), (x, w), g)  # noqa: B023, E731
                    forward = _best(work, lambda form=form: form(x, w))  # noqa: B023
                    cells[f"{name}, ms forward / and backward"] = f"{forward:.3f} / {_best(work, both):.3f}"
        work.row(f"Resampling layers, batch {batch_size}", layer=f"{kind} {c_in} to {c_out}, from {side} px", **cells)


def _best(work: Work, call: Callable[[], object]) -> float:
    """Return the milliseconds of a call: the fastest of some rounds of five."""
    call()
    call()
    rounds, calls = (1, 1) if work.toy else (4, 5)
    return min(1e3 * seconds(lambda: [call() for _ in range(calls)], work.device) / calls for _ in range(rounds))


def kernels(work: Work) -> None:
    """Which kernels does a step consist of, how long is each, and how much of the step is the device busy?"""
    cases: list[tuple[str, ModelConfig, int, dict[str, Any]]] = [
        ("128 px, batch 256", SIZES["128"], 256, {}),
        ("small, batch 32", PRESETS["small"].model, 32, _as_trained("small") | {"penalty_every": 1}),
    ]
    for name, model, batch_size, options in [("a toy", TOY, 4, {})] if work.toy else cases:
        with arithmetic("auto") as chosen:
            step = stepper(model, work.device, batch_size, precision=chosen, **options)
            for _ in range(3):
                step()
            on_gpu = work.device == "cuda"
            kind = torch.profiler.ProfilerActivity.CUDA if on_gpu else torch.profiler.ProfilerActivity.CPU
            wall = seconds(step, work.device)
            with torch.profiler.profile(activities=[kind]) as profile:
                seconds(step, work.device)
        events = profile.key_averages()
        times = {e.key: e.self_device_time_total if on_gpu else e.self_cpu_time_total for e in events}
        busy = sum(times.values())
        work.value(f"{name}: kernels", sum(e.count for e in events))
        work.value(f"{name}: busy", f"{busy / 1e3:.1f} ms of a step of {1e3 * wall:.1f} ms")
        for event in sorted(events, key=lambda e: -times[e.key])[:25]:
            ms = times[event.key] / 1e3
            cells = {"ms": f"{ms:.2f}", "share": f"{1e3 * ms / busy:.1%}", "calls": event.count}
            work.row(f"Kernels of {name}", **cells, kernel=event.key[:110])


PARTS = [
    Part("peaks", peaks, 25),
    Part("codebases", codebases, 145, leave=80),
    Part("presets", presets, 55),
    Part("kernels", kernels, 35),
    Part("resampling", resampling, 30),
    Part("compiled", compiled, 500, when_asked=True),
]

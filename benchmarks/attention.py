"""Measure the cost of attention without the N x N map (sagan.model.attention.attend) against the naive form.

    python benchmarks/attention.py [--save attention]
    python benchmarks/attention.py --sides 64 --rounds 2          # smaller

The naive form is softmax(q k^T) v in three operations, as in the other codebases; it stores the map. Measured are the
forward and backward passes of one image with C = 64 (queries and keys of C/8 channels), at feature maps of 64 x 64 and
128 x 128, in fp32. 'released' has pooled keys and values of C/2, 'paper' all keys and values of C/8, 'full' all keys
and values of C.

Time: each form has its own process, and they take turns; each is measured with Linux's default allocator (which maps
fresh memory for the map in every step) and with freed memory kept as in `sagan train`. Memory: each case has its own
process; the table shows its peak above what it held with the inputs in place, after a small case. Differences: values
and gradients against the naive form in float64, largest difference over largest value; in brackets those of the naive
form in fp32.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from machine import Table, argument_parser, memory, spread
from sagan.device import keep_memory
from sagan.model.attention import VALUE_REDUCTION, attend
from workers import Worker, serve, take_turns

CHANNELS = 64


def naive(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.bmm(torch.softmax(torch.bmm(q, k.transpose(1, 2)), dim=-1), v)


FORMS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {"naive": naive, "ours": attend}


def inputs(variant: str, side: int) -> list[Tensor]:
    """Return random queries, keys and values, and a gradient of the output."""
    random = torch.Generator().manual_seed(0)
    queries, values = side * side, CHANNELS // VALUE_REDUCTION[variant]
    keys = queries // 4 if variant == "released" else queries
    shapes = ((queries, CHANNELS // 8), (keys, CHANNELS // 8), (keys, values), (queries, values))
    return [torch.randn(1, *shape, generator=random) for shape in shapes]


def both_ways(form: str, tensors: list[Tensor]) -> tuple[Tensor, ...]:
    """Return the output, and the gradients of queries, keys and values."""
    *qkv, direction = tensors
    leaves = [t.detach().requires_grad_() for t in qkv]
    o = FORMS[form](*leaves)
    return o.detach(), *torch.autograd.grad(o, leaves, direction)


def answer(form: str, variant: str, side: int) -> None:
    """Serve a worker's calls."""
    tensors = inputs(variant, side)
    serve(lambda: ({}, {"call": lambda: both_ways(form, tensors)}))


def peak(form: str, variant: str, side: int) -> None:
    """Print the peak memory of one call above the inputs, MiB."""
    both_ways(form, inputs(variant, 8))  # the first call loads libraries
    tensors = inputs(variant, side)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = memory("VmRSS")
    both_ways(form, tensors)
    print(1024 * (memory() - before))


def differences(form: str, variant: str, side: int) -> None:
    """Print the relative differences of values and gradients (the largest of three) from the naive form in float64."""
    tensors = inputs(variant, side)
    wanted = both_ways("naive", [t.double() for t in tensors])
    pairs = zip(both_ways(form, tensors), wanted, strict=True)
    values, *gradients = [((a - b).abs().max() / b.abs().max()).item() for a, b in pairs]
    print(values, max(gradients))


PARTS = {"answer": answer, "peak": peak, "differences": differences}


def arguments(part: str, form: str, variant: str, side: int, threads: int, kept: bool = False) -> list[str]:
    case = [part, form, variant, str(side)]
    return ["--case", *case, "--threads", str(threads), *(["--keep-memory"] if kept else [])]


def run_part(part: str, form: str, variant: str, side: int, threads: int) -> list[float]:
    """Run a part in a process of its own; returns the numbers that it prints."""
    command = [sys.executable, __file__, *arguments(part, form, variant, side, threads)]
    return [float(value) for value in subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.split()]


def timed(variant: str, side: int, threads: int, rounds: int) -> dict[tuple[str, bool], list[float]]:
    """Return the milliseconds of each form, with and without kept memory, measured in turn."""
    cases = {f"{form}{', kept' * kept}": (form, kept) for form in FORMS for kept in (False, True)}
    workers = {name: Worker(*arguments("answer", f, variant, side, threads, k)) for name, (f, k) in cases.items()}
    times = take_turns(workers, "call", rounds)
    for worker in workers.values():
        worker.close()
    return {cases[name]: [1000 * t for t in values] for name, values in times.items()}


def main() -> None:
    parser = argument_parser(__doc__, save=True)
    parser.add_argument("--sides", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--variants", nargs="+", default=list(VALUE_REDUCTION))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--case", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--keep-memory", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.case:
        if options.keep_memory:
            keep_memory()
        part, form, variant, side = options.case
        PARTS[part](form, variant, int(side))
        return
    columns = ["feature map", "variant", "memory", "naive, ms", "ours, ms", "times faster", "naive, MiB", "ours, MiB"]
    columns += ["times less", "values differ", "gradients differ"]
    notes = [
        f"One image, C = {CHANNELS}, fp32, forward and backward; {options.rounds} rounds in turn, median and range.",
        "'memory': freshly mapped, the default on Linux, or kept, as in `sagan train`. MiB: the peak above the inputs. "
        "Differences: ours from the naive form in float64, largest over largest value (in brackets those of the naive "
        "form in fp32).",
    ]
    table = Table("Attention without the map, against the naive form", columns, save=options.save, notes=notes)
    for side in options.sides:
        for variant in options.variants:
            case = variant, side, options.threads
            times = timed(*case, options.rounds)
            mib = {form: run_part("peak", form, *case)[0] for form in FORMS}
            errors = {form: run_part("differences", form, *case) for form in FORMS}
            exact = [f"{errors['ours'][i]:.0e} ({errors['naive'][i]:.0e})" for i in (0, 1)]
            for kept in (False, True):
                slow, fast = times["naive", kept], times["ours", kept]
                cells = [
                    f"{side} x {side}",
                    variant,
                    "kept" if kept else "fresh",
                    spread(slow, 1),
                    spread(fast, 1),
                ]
                cells += [f"{median(slow) / median(fast):.1f}"]
                if not kept:
                    ratio = mib["naive"] / mib["ours"]
                    cells += [f"{mib['naive']:,.0f}", f"{mib['ours']:,.1f}", f"{ratio:.0f}", *exact]
                table.row(*cells)


if __name__ == "__main__":
    main()

"""What does attention cost without the N x N map? Ours (sagan.model.attention.attend) against the naive form.

    python benchmarks/attention.py [--save attention]
    python benchmarks/attention.py --sides 64 --rounds 2          # smaller

The naive form is softmax(q k^T) v by its three operations, as the other codebases write it: it stores the map. Forward
and backward of one picture with C = 64 (queries and keys of C/8 channels), at feature maps of 64 x 64 and 128 x 128,
fp32: 'released' has pooled keys and values of C/2, 'paper' all keys and values of C/8, 'full' all keys and values of C.

Time: each form in a process of its own that stays, asked in turn, and each with the allocator as Linux has it (which
maps the map's memory anew in every step) and with memory kept as `sagan train` keeps it. Memory: a fresh process for
each case; its peak beyond what it held with the inputs in place and a small case behind it. Differences: of values and
of gradients, from the naive form in float64, largest difference over largest value; the naive form's own in fp32 beside
it.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from machine import Table, memory, spread
from sagan.device import keep_memory
from sagan.model.attention import VALUE_REDUCTION, attend
from workers import Worker, serve, take_turns

CHANNELS = 64


def naive(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.bmm(torch.softmax(torch.bmm(q, k.transpose(1, 2)), dim=-1), v)


FORMS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {"naive": naive, "ours": attend}


def inputs(variant: str, side: int) -> list[Tensor]:
    """Queries, keys and values, and the gradient of the output."""
    random = torch.Generator().manual_seed(0)
    queries, values = side * side, CHANNELS // VALUE_REDUCTION[variant]
    keys = queries // 4 if variant == "released" else queries
    shapes = ((queries, CHANNELS // 8), (keys, CHANNELS // 8), (keys, values), (queries, values))
    return [torch.randn(1, *shape, generator=random) for shape in shapes]


def both_ways(form: str, tensors: list[Tensor]) -> tuple[Tensor, ...]:
    """The output, and the gradients of queries, keys and values."""
    *qkv, direction = tensors
    leaves = [t.detach().requires_grad_() for t in qkv]
    o = FORMS[form](*leaves)
    return o.detach(), *torch.autograd.grad(o, leaves, direction)


def answer(form: str, variant: str, side: int) -> None:
    """Seconds of a call, whenever they are asked for."""
    tensors = inputs(variant, side)
    serve(lambda: ({}, {"call": lambda: both_ways(form, tensors)}))


def peak(form: str, variant: str, side: int) -> None:
    """MiB at the peak of one call, beyond the inputs."""
    both_ways(form, inputs(variant, 8))  # loads what the first call loads
    tensors = inputs(variant, side)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here on
    before = memory("VmRSS")
    both_ways(form, tensors)
    print(1024 * (memory() - before))


def differences(form: str, variant: str, side: int) -> None:
    """Of values, and of gradients (the largest of the three), from the naive form in float64."""
    tensors = inputs(variant, side)
    wanted = both_ways("naive", [t.double() for t in tensors])
    apart = [
        ((a - b).abs().max() / b.abs().max()).item() for a, b in zip(both_ways(form, tensors), wanted, strict=True)
    ]
    print(apart[0], max(apart[1:]))


PARTS = {"answer": answer, "peak": peak, "differences": differences}


def arguments(part: str, form: str, variant: str, side: int, threads: int, kept: bool = False) -> list[str]:
    case = [part, form, variant, str(side)]
    return ["--case", *case, "--threads", str(threads), *(["--keep-memory"] if kept else [])]


def ask(part: str, form: str, variant: str, side: int, threads: int) -> list[float]:
    """What a part prints, run in a process of its own."""
    command = [sys.executable, __file__, *arguments(part, form, variant, side, threads)]
    return [float(value) for value in subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.split()]


def timed(variant: str, side: int, threads: int, rounds: int) -> dict[tuple[str, bool], list[float]]:
    """Milliseconds of each form, memory kept or not, in turn."""
    cases = {f"{form}{', kept' * kept}": (form, kept) for form in FORMS for kept in (False, True)}
    workers = {name: Worker(*arguments("answer", f, variant, side, threads, k)) for name, (f, k) in cases.items()}
    times = take_turns(workers, "call", rounds)
    for worker in workers.values():
        worker.close()
    return {cases[name]: [1000 * t for t in found] for name, found in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--variants", nargs="+", default=list(VALUE_REDUCTION))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--save", default="", metavar="NAME")
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
        f"One picture, C = {CHANNELS}, fp32, forward and backward; {options.rounds} rounds in turn, median and range.",
        "'memory': mapped anew, as Linux does it unless told otherwise, or kept, as `sagan train` does. MiB: the peak "
        "beyond the inputs. Differences: ours from the naive form in float64, largest over largest value (in brackets "
        "the naive form's own in fp32).",
    ]
    table = Table("Attention without the map, against the naive form", columns, save=options.save, notes=notes)
    for side in options.sides:
        for variant in options.variants:
            case = variant, side, options.threads
            times = timed(*case, options.rounds)
            mib = {form: ask("peak", form, *case)[0] for form in FORMS}
            apart = {form: ask("differences", form, *case) for form in FORMS}
            exact = [f"{apart['ours'][i]:.0e} ({apart['naive'][i]:.0e})" for i in (0, 1)]
            for kept in (False, True):
                slow, fast = times["naive", kept], times["ours", kept]
                cells = [
                    f"{side} x {side}",
                    variant,
                    "kept" if kept else "mapped anew",
                    spread(slow, 1),
                    spread(fast, 1),
                ]
                cells += [f"{median(slow) / median(fast):.1f}"]
                cells += [f"{mib['naive']:,.0f}", f"{mib['ours']:,.1f}", f"{mib['naive'] / mib['ours']:.0f}", *exact]
                table.row(*(cells if not kept else [*cells[:6], *[""] * 5]))


if __name__ == "__main__":
    main()

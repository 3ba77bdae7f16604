"""Measure what processes send each other in a training step, and model the cost on 8 to 1,024 GPUs.

    python benchmarks/many_gpus.py --save many_gpus         # about two minutes; needs Linux
    python benchmarks/many_gpus.py --model                  # the model alone, in a second

Measured with gloo on the CPU: messages and bytes per step, bytes that the loopback device carried (for all processes
together), seconds per step, and how many of them messages were under way. The model is of imagenet128 (128 px, 1000
classes) on H200s, eight per machine:

    step = max(images per GPU / RATE, LAUNCHING) + messages x latency + bytes / bandwidth

where the all-reduce moves 2 (n - 1) / n of its bytes at NCCL's bus bandwidth, and nothing overlaps. RATE and LAUNCHING
were measured on one H200 (results/gpu/h200); several were not. docs/many-processes.md names the sources of the rest.
"""

import math
import tempfile
from collections.abc import Callable
from pathlib import Path

from machine import Table, argument_parser
from processes import Case, run_case

RATE = 2097.4  # images/s of one H200 in bf16, eager, at batch 256 (results/gpu/h200/speed128.md)
# Seconds in which that machine's host launches an eager step: those of a step at 64 px and batch 64, which a CUDA graph
# brings to 0.0131 (results/gpu/h200/presets.md). A step at 128 px has a layer more in each network.
LAUNCHING = 0.076
PARAMETERS = 42_078_852 + 39_463_618
MESSAGES = 3 + 3  # of at most 64 MiB, for G and for D
NORM_MESSAGES = 11 * 3  # of synchronised batch norm, some kB each: in D's step, and forward and backward in G's
MACHINE = 8  # GPUs per machine
INSIDE = 370e9  # bytes/s, ring over NVLink (nccl-tests issue 212)
BETWEEN = 227e9  # two machines of eight GPUs, messages of 128 MiB (nccl issue 1244)
ETHERNET = 12.5e9 * 0.9  # bytes/s: one 100 Gbit/s card per machine, nine tenths of it usable; assumed
LATENCY_INSIDE, LATENCY = 30e-6, 60e-6  # seconds per small message, and per doubling of machines; assumed
SHARES: dict[str, Callable[[int], int]] = {
    "256": lambda count: 256 // count,
    "2048": lambda count: 2048 // count,
    "32 per GPU": lambda count: 32,
}
DEMO = {"resolution": 32, "num_classes": 5, "latent_dim": 64, "base_channels": 24}


def all_reduce(count: int, size: float, network: float) -> float:
    """Return the seconds of an all-reduce of `size` bytes over `count` GPUs."""
    moved = 2 * (count - 1) / count * size
    if count <= MACHINE:
        return moved / INSIDE
    if network > ETHERNET:
        return moved / network
    machines = count // MACHINE  # eight GPUs share a card: first inside the machine, then between machines
    return moved / INSIDE + 2 * (machines - 1) / machines * size / network


def latency(count: int) -> float:
    return LATENCY_INSIDE + LATENCY * math.log2(max(1, count / MACHINE))


def model(save: str) -> None:
    networks = {"InfiniBand": BETWEEN, "100 GbE": ETHERNET}
    sent = [cell for name in networks for cell in (f"{name}, ms", "efficiency")]
    columns = ["batch", "GPUs", "per GPU", "computing, ms", "or launching, ms", *sent, "synchronised batch norm, ms"]
    notes = [
        f"{4 * PARAMETERS / 1e6:.0f} MB of gradients per step in {MESSAGES} messages. A model, not measured.",
        f"Computing at {RATE:,.0f} images/s and launching in {1e3 * LAUNCHING:.0f} ms or more, as measured on one "
        "H200; the longer of the two counts.",
        "Efficiency: computing / (the longer of the two + sending).",
    ]
    table = Table("A step of imagenet128 on many H200s: the model", columns, save=save, notes=notes)
    for batch, share in SHARES.items():
        for count in (8, 16, 32, 64, 128, 256, 512, 1024):
            if not share(count):
                break
            computing = share(count) / RATE
            busy = max(computing, LAUNCHING)
            cells: list[str] = []
            for network in networks.values():
                sending = MESSAGES * latency(count) + all_reduce(count, 4 * PARAMETERS, network)
                cells += [f"{1e3 * sending:.1f}", f"{computing / (busy + sending):.0%}"]
            norm = f"{1e3 * NORM_MESSAGES * latency(count):.1f}"
            table.row(batch, count, share(count), f"{1e3 * computing:.1f}", f"{1e3 * busy:.1f}", *cells, norm)


def measured(save: str) -> None:
    columns = ["processes", "batch norm", "messages", "MB sent", "MB carried", "step, s", "of it sending, s"]
    notes = ["The networks of the demo, global batch size 16, one thread per process, on two cores."]
    table = Table("What a step sends", columns, save=save, notes=notes)
    with tempfile.TemporaryDirectory() as folder:
        for count, sync in ((1, False), (2, False), (4, False), (2, True), (4, True)):
            _, metrics = run_case(Case(count, sync, steps=8, model=DEMO), Path(folder))
            how = "-" if count == 1 else "synchronised" if sync else "per process"
            cells = [f"{metrics[key] / 1e6:.2f}" for key in ("bytes", "carried")]
            times = [f"{metrics[key]:.3f}" for key in ("seconds", "waiting")]
            table.row(count, how, round(metrics["messages"]), *cells, *times)


def main() -> None:
    parser = argument_parser(__doc__, save=True)
    parser.add_argument("--model", action="store_true", help="only the model")
    options = parser.parse_args()
    model(options.save and f"{options.save}_model")
    if not options.model:
        measured(options.save and f"{options.save}_sent")


if __name__ == "__main__":
    main()

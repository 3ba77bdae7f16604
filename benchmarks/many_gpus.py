"""What do many processes send each other in a step, and what would that cost on 8 to 1,024 GPUs?

    python benchmarks/many_gpus.py --save many_gpus         # about two minutes; needs Linux
    python benchmarks/many_gpus.py --model                  # the model alone, in a second

First measured, with gloo on the CPU: messages and bytes of a step, what the loopback device carried (for all processes
together), seconds of a step and of them with messages under way. Then a model of imagenet128 (128 px, 1000 classes) on
H100s, eight in a machine:

    step = pictures of one GPU x 75.3 GFLOP / (UTILISATION x 790 TFLOP/s) + messages x latency + bytes / bandwidth

with the all-reduce moving 2 (n - 1) / n of its bytes at NCCL's bus bandwidth, nothing overlapped. UTILISATION is a
prediction from counted operations and bytes, for batches that keep the GPU busy; what the host takes to launch the
kernels of a step is left out.
docs/many-processes.md says where the figures come from.
"""

import argparse
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

from machine import Table
from processes import Case, ask

GFLOP = 75.3  # a picture of imagenet128, one update of D and one of G (results/training_step.md)
PARAMETERS = 42_078_852 + 39_463_618
MESSAGES = 3 + 3  # of 64 MiB at most, for G and for D
NORM_MESSAGES = 11 * 3  # of synchronised batch norm, some kB each: in D's step, and in G's there and back
PEAK, UTILISATION = 790e12, 0.14  # bf16: what large products reach of the data sheet's 989; predicted: 1,490 pictures/s
MACHINE = 8
INSIDE = 370e9  # bytes a second, ring over NVLink (nccl-tests issue 212)
BETWEEN = 227e9  # two machines of eight GPUs, messages of 128 MiB (nccl issue 1244)
ETHERNET = 12.5e9 * 0.9  # one 100 Gbit/s card a machine, nine tenths of it usable: assumed
LATENCY_INSIDE, LATENCY = 30e-6, 60e-6  # seconds of a small message, and for each doubling of machines: assumed
SHARES: dict[str, Callable[[int], int]] = {
    "256": lambda count: 256 // count,
    "2048": lambda count: 2048 // count,
    "32 a GPU": lambda count: 32,
}
DEMO = {"resolution": 32, "num_classes": 5, "latent_dim": 64, "base_channels": 24}


def all_reduce(count: int, size: float, network: float) -> float:
    """Seconds of `size` bytes over `count` GPUs."""
    moved = 2 * (count - 1) / count * size
    if count <= MACHINE:
        return moved / INSIDE
    if network > ETHERNET:
        return moved / network
    machines = count // MACHINE  # one card for eight GPUs: first inside, then between
    return moved / INSIDE + 2 * (machines - 1) / machines * size / network


def latency(count: int) -> float:
    return LATENCY_INSIDE + LATENCY * math.log2(max(1, count / MACHINE))


def model(save: str) -> None:
    networks = {"InfiniBand": BETWEEN, "100 GbE": ETHERNET}
    sent = [cell for name in networks for cell in (f"{name}, ms", "efficiency")]
    columns = ["batch", "GPUs", "a GPU", "computing, ms", *sent, "synchronised batch norm, ms"]
    notes = [
        f"{4 * PARAMETERS / 1e6:.0f} MB of gradients a step in {MESSAGES} messages. A model, not measured.",
        f"Computing at {UTILISATION:.0%} of {PEAK / 1e12:.0f} TFLOP/s, which is a prediction: "
        f"{UTILISATION * PEAK / GFLOP / 1e9:,.0f} pictures a second on one GPU, however few they are at a time.",
        "Efficiency: computing / (computing + sending).",
    ]
    table = Table("A step of imagenet128 on many H100s: the model", columns, save=save, notes=notes)
    for batch, share in SHARES.items():
        for count in (8, 16, 32, 64, 128, 256, 512, 1024):
            if not share(count):
                break
            computing = share(count) * GFLOP * 1e9 / (UTILISATION * PEAK)
            cells: list[str] = []
            for network in networks.values():
                sending = MESSAGES * latency(count) + all_reduce(count, 4 * PARAMETERS, network)
                cells += [f"{1e3 * sending:.1f}", f"{computing / (computing + sending):.0%}"]
            norm = f"{1e3 * NORM_MESSAGES * latency(count):.1f}"
            table.row(batch, count, share(count), f"{1e3 * computing:.1f}", *cells, norm)


def measured(save: str) -> None:
    columns = ["processes", "batch norm", "messages", "MB sent", "MB carried", "step, s", "of it sending, s"]
    notes = ["The networks of the demo, batch 16 in all, a thread a process, on two cores."]
    table = Table("What a step sends", columns, save=save, notes=notes)
    with tempfile.TemporaryDirectory() as folder:
        for count, sync in ((1, False), (2, False), (4, False), (2, True), (4, True)):
            _, found = ask(Case(count, sync, steps=8, model=DEMO), Path(folder))
            how = "-" if count == 1 else "synchronised" if sync else "of each part"
            cells = [f"{found[key] / 1e6:.2f}" for key in ("bytes", "carried")]
            times = [f"{found[key]:.3f}" for key in ("seconds", "waiting")]
            table.row(count, how, round(found["messages"]), *cells, *times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", default="", metavar="NAME")
    parser.add_argument("--model", action="store_true", help="the model alone")
    options = parser.parse_args()
    model(options.save and f"{options.save}_model")
    if not options.model:
        measured(options.save and f"{options.save}_sent")


if __name__ == "__main__":
    main()

"""Compare the weights after training with several processes with those of one process.

    python benchmarks/processes.py --save processes         # about three minutes

One, two and four processes (gloo) train the same 20 steps with the same global batch of 16. The table shows the
relative difference of the weights, |many - one| / |one|, and for comparison that of one process with two threads
instead of one, which changes only the order of sums. Biases before a batch norm are skipped: the batch norm subtracts
them, so their gradients are only rounding.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor

from machine import Table, argument_parser
from sagan import ModelConfig, TrainingConfig
from sagan.distributed import Processes, join
from sagan.training.step import Trainer

BATCH = 16
SHOWN = (1, 5, 20)  # steps after which weights are compared
STEPS = SHOWN[-1]
SMALL = {"resolution": 32, "num_classes": 3, "latent_dim": 16, "base_channels": 8}


@dataclass(frozen=True)
class Case:
    """The work of one job."""

    count: int
    sync: bool = True
    dtype: str = "float32"
    optimiser: str = "Adam"
    threads: int = 1
    steps: int = STEPS
    batch: int = BATCH
    model: Any = None


def batch_of(case: Case, processes: Processes, i: int) -> tuple[Tensor, Tensor]:
    noise = torch.Generator().manual_seed(i)
    model = ModelConfig(**(case.model or SMALL))
    side = model.resolution
    x = torch.randint(256, (case.batch, side, side, 3), generator=noise, dtype=torch.uint8).permute(0, 3, 1, 2)
    y = torch.randint(model.num_classes, (case.batch,), generator=noise)
    share = slice(processes.rank, None, processes.count)
    return x[share], y[share]


def loopback() -> int:
    """Return the bytes that the loopback device has carried."""
    lines = Path("/proc/net/dev").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.strip().startswith("lo:")))


def work(case: Case, out: Path) -> None:
    """Train in one process; the first process writes the weights, and the means of what was sent."""
    torch.set_num_threads(case.threads)
    sent: dict[str, Any] = {"messages": 0, "bytes": 0, "waiting": 0.0}
    reduce = dist.all_reduce

    def counted(t: Tensor, *args: Any, async_op: bool = False, **options: Any) -> Any:
        sent["messages"] += 1
        sent["bytes"] += t.numel() * t.element_size()
        start = time.perf_counter()
        message = reduce(t, *args, async_op=async_op, **options)
        if message is not None:
            message.wait()
        sent["waiting"] += time.perf_counter() - start
        return message

    dist.all_reduce = counted
    with join("cpu") as processes:
        torch.set_default_dtype(getattr(torch, case.dtype))
        model = ModelConfig(**(case.model or SMALL))
        augments = ("color", "translation", "cutout")
        config = TrainingConfig(batch_size=case.batch, precision="fp32", sync_batch_norm=case.sync, augment=augments)
        trainer = Trainer(model, config, processes.device, processes)
        for network in (trainer.generator, trainer.discriminator):
            for name, parameter in network.named_parameters():
                if name.endswith("gamma"):
                    torch.nn.init.constant_(parameter, 0.5)  # so that attention has an effect
        if case.optimiser == "SGD":  # at a rate that moves the weights about as far as Adam does
            for name in ("generator", "discriminator"):
                network = getattr(trainer, name)
                setattr(trainer, f"{name}_adam", torch.optim.SGD(network.parameters(), 1e-2))
            trainer._set_learning_rates = lambda step: None
        shown: dict[str, Tensor] = {}

        def keep(step: int) -> None:
            for name in ("generator", "discriminator"):
                state = getattr(trainer, name).state_dict()
                shown.update({f"{step}/{name}/{key}": t.clone().contiguous() for key, t in state.items()})

        trainer.train_step(0, lambda i: batch_of(case, processes, i))
        keep(1)
        sent |= {"messages": 0, "bytes": 0, "waiting": 0.0}
        carried, times = loopback(), []
        for i in range(1, case.steps):
            start = time.perf_counter()
            trainer.train_step(i, lambda i: batch_of(case, processes, i))
            times.append(time.perf_counter() - start)
            if i + 1 in SHOWN:
                keep(i + 1)
        carried = loopback() - carried
        if processes.is_first:
            save_file(shown, out / "weights.safetensors")
            steps = case.steps - 1
            metrics = {key: value / steps for key, value in sent.items()} | {"carried": carried / steps}
            (out / "metrics.json").write_text(json.dumps(metrics | {"seconds": median(times)}))


def run_case(case: Case, folder: Path) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Run a job in processes of its own; returns its weights and metrics."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(case.count)]
    command = [sys.executable, *(launcher if case.count > 1 else []), __file__]
    environment = os.environ | {"OMP_NUM_THREADS": str(case.threads)}
    subprocess.run([*command, "--case", json.dumps(asdict(case)), str(folder)], check=True, env=environment)
    return load_file(folder / "weights.safetensors"), json.loads((folder / "metrics.json").read_text())


def differences(many: dict[str, Tensor], one: dict[str, Tensor]) -> list[str]:
    """Return the differences of the generator after each of the steps SHOWN, then of the discriminator."""
    # The outputs of every conv1 and of the last block go directly into a batch norm.
    last = max(int(name.split(".")[1]) for name in one if "/generator/blocks." in name)
    idle = (".conv1.bias", f".{last}.conv2.bias", f".{last}.shortcut.bias")
    relative = []
    for network in ("generator", "discriminator"):
        for step in SHOWN:
            names = [name for name in one if name.startswith(f"{step}/{network}")]
            if network == "generator":
                names = [name for name in names if not name.endswith(idle)]
            a, b = (torch.cat([weights[name].double().flatten() for name in names]) for weights in (many, one))
            relative.append(f"{((a - b).norm() / b.norm()).item():.0e}")
    return relative


def exactness(save: str, folder: Path) -> None:
    after = [f"{network}, {step}" for network in "GD" for step in SHOWN]
    notes = [f"Batch {BATCH}, all augmentations, attention's gammas at 0.5; G, 5: the generator after five steps."]
    columns = ["processes", "batch norm", "arithmetic", "optimiser", *after]
    table = Table("Weights of several processes against those of one", columns, save=save, notes=notes)
    for dtype, optimiser in (("float32", "SGD"), ("float32", "Adam"), ("float64", "Adam")):
        one, _ = run_case(Case(1, dtype=dtype, optimiser=optimiser), folder)
        cases = [Case(1, dtype=dtype, optimiser=optimiser, threads=2)]
        cases += [Case(n, sync, dtype, optimiser) for sync in (True, False) for n in (2, 4)]
        for case in cases:
            how = "synchronised" if case.sync else "per process"
            what, how = (str(case.count), how) if case.count > 1 else ("1, two threads", "-")
            table.row(what, how, dtype, optimiser, *differences(run_case(case, folder)[0], one))


def main() -> None:
    parser = argument_parser(__doc__, save=True)
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        work(Case(**json.loads(options.case[0])), Path(options.case[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        exactness(options.save, Path(folder))


if __name__ == "__main__":
    main()

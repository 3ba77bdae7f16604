"""Checkpoints: everything that a step changes, as named tensors in one safetensors file."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sagan.errors import UserError
from sagan.files import DamagedFile, load_into, load_tensors, save_tensors
from sagan.run import read_count
from sagan.training.step import Trainer


class Snapshot(NamedTuple):
    """A copy of a trainer's state, which later steps do not change."""

    tensors: dict[str, Tensor]
    """The tensors of `state`, by its names, on the CPU."""
    step: int
    """Steps done."""
    restarts: int
    """Restarts of the run after divergence."""

    def average(self) -> dict[str, Tensor]:
        """Return the averaged generator's tensors, by their names in it."""
        return {name.removeprefix("ema/"): t for name, t in self.tensors.items() if name.startswith("ema/")}


def take_snapshot(trainer: Trainer, step: int) -> Snapshot:
    """Copy the state of a trainer after `step` steps to the host; from CUDA to pinned memory, synchronising once.

    The copies are contiguous, so that writing them computes nothing: an operation of PyTorch in another thread starts a
    second team of OpenMP's threads, and with more threads than cores all teams sleep between operations from then on,
    which makes small steps on a CPU take 1.4 times as long, or more.
    """
    on_cuda = trainer.device.type == "cuda"
    tensors = {}
    for name, t in state(trainer).items():
        copy = torch.empty_like(
            t, device="cpu", pin_memory=on_cuda, requires_grad=False, memory_format=torch.contiguous_format
        )
        tensors[name] = copy.copy_(t.detach(), non_blocking=on_cuda)
    if on_cuda:
        torch.cuda.synchronize(trainer.device)
    return Snapshot(tensors, step, trainer.restarts)


def write_checkpoint(path: Path, snapshot: Snapshot) -> None:
    """Write a snapshot as a checkpoint.

    Raises:
        UserError: the write fails; nothing is left behind.
    """
    save_tensors(path, snapshot.tensors, {"step": snapshot.step, "detours": snapshot.restarts})


def state(trainer: Trainer) -> dict[str, Tensor]:
    """Return everything that a step changes, by name: weights, statistics, averages, and the optimisers' moments."""
    tensors: dict[str, Tensor] = {}
    for prefix, module in _modules(trainer).items():
        tensors |= {f"{prefix}/{name}": t for name, t in module.state_dict().items()}
    for prefix, optimiser, network in _optimisers(trainer):
        for name, parameter in _trained(network):
            tensors |= {f"{prefix}/{name}/{key}": t for key, t in optimiser.state[parameter].items()}
    return tensors


def load_checkpoint(path: Path, trainer: Trainer) -> int:
    """Restore the state that `write_checkpoint` wrote, and return the number of steps done.

    Raises:
        DamagedFile: the file is not intact, or belongs to other networks.
    """
    tensors, metadata = load_tensors(path)
    steps_done = read_count(metadata, "step", path)
    restarts = read_count(metadata, "detours", path)
    groups: dict[str, dict[str, Tensor]] = {}
    for name, t in tensors.items():
        prefix, _, rest = name.partition("/")
        groups.setdefault(prefix, {})[rest] = t
    for prefix, module in _modules(trainer).items():
        load_into(module, groups.get(prefix, {}), path)
    for prefix, optimiser, network in _optimisers(trainer):
        for name, parameter in _trained(network):
            try:
                moments = {key: groups[prefix][f"{name}/{key}"] for key in ("step", "exp_avg", "exp_avg_sq")}
            except KeyError as error:
                raise DamagedFile(f"{path} is damaged: {error} of {prefix} is missing") from error
            step = moments.pop("step").to(trainer.device)
            if any(t.shape != parameter.shape for t in moments.values()):
                raise DamagedFile(f"{path} is damaged: {prefix} of {name} has the wrong shape")
            # The fused optimiser step requires moments in the weight's memory order.
            like = parameter.detach()
            moments = {key: torch.empty_like(like).copy_(t) for key, t in moments.items()}
            optimiser.state[parameter] = {"step": step, **moments}
    trainer.restarts = restarts
    if trainer.graphs:
        trainer.graphs.forget()  # they refer to the moments that were replaced
    return steps_done


def load_newest(checkpoints: list[Path], trainer: Trainer, warn: Callable[[str], None]) -> int:
    """Load the newest intact checkpoint and return the number of steps done.

    Without checkpoints return 0 and leave the trainer as it is.

    Args:
        checkpoints: their paths, oldest first.
        warn: called with a line for each damaged one.

    Raises:
        UserError: all checkpoints are damaged.
    """
    if not checkpoints:
        return 0
    for path in reversed(checkpoints):
        try:
            return load_checkpoint(path, trainer)
        except DamagedFile as error:
            warn(f"{error}; trying the one before")
    folder = checkpoints[0].parent
    raise UserError(f"{folder}: every checkpoint is damaged; delete the folder to start the run again")


def _modules(trainer: Trainer) -> dict[str, nn.Module]:
    modules = {
        "generator": trainer.generator,
        "discriminator": trainer.discriminator,
        "ema": trainer.ema.network,
        "lecam": trainer.lecam,
    }
    return modules | ({"guide": trainer.guide.heads} if trainer.guide else {})


def _optimisers(trainer: Trainer) -> list[tuple[str, torch.optim.Optimizer, nn.Module]]:
    optimisers: list[tuple[str, torch.optim.Optimizer, nn.Module]] = [
        ("generator_adam", trainer.generator_adam, trainer.generator),
        ("discriminator_adam", trainer.discriminator_adam, trainer.discriminator),
    ]
    if trainer.guide and trainer.guide_adam:
        optimisers.append(("guide_adam", trainer.guide_adam, trainer.guide.heads))
    return optimisers


def _trained(network: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Return the parameters that an optimiser has: all except those of frozen blocks."""
    return [(name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]

"""Checkpoints: everything that a step changes, as named tensors in one safetensors file."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from sagan.errors import UserError
from sagan.files import DamagedFile, load_into, load_tensors, save_tensors
from sagan.run import read_count
from sagan.training.step import Trainer


def save_checkpoint(path: Path, trainer: Trainer, step: int) -> None:
    """Writes the trainer's state after `step` steps. Raises UserError if that fails, leaving nothing behind."""
    save_tensors(path, state(trainer), {"step": step, "detours": trainer.detours})


def state(trainer: Trainer) -> dict[str, Tensor]:
    """Everything that a step changes, by name: weights, statistics, averages, and the optimisers' moments."""
    tensors: dict[str, Tensor] = {}
    for prefix, module in _modules(trainer).items():
        tensors |= {f"{prefix}/{name}": t for name, t in module.state_dict().items()}
    for prefix, optimiser, network in _optimisers(trainer):
        for name, parameter in _trained(network):
            tensors |= {f"{prefix}/{name}/{key}": t for key, t in optimiser.state[parameter].items()}
    return tensors


def load_checkpoint(path: Path, trainer: Trainer) -> int:
    """Brings the trainer to the state that `save_checkpoint` wrote, and returns the number of steps done.

    Raises DamagedFile if the file is not whole, or of other networks.
    """
    tensors, metadata = load_tensors(path)
    step_done, detours = (read_count(metadata, name, path) for name in ("step", "detours"))
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
                raise DamagedFile(f"{path} is damaged: it lacks {error} of {prefix}") from error
            step = moments.pop("step").to(trainer.device)
            if any(t.shape != parameter.shape for t in moments.values()):
                raise DamagedFile(f"{path} is damaged: {prefix} of {name} has another shape")
            like = parameter.detach()  # whose order in memory the fused step takes for granted
            kept = {key: torch.empty_like(like).copy_(t) for key, t in moments.items()}
            optimiser.state[parameter] = {"step": step, **kept}
    trainer.detours = detours
    return step_done


def load_newest(checkpoints: list[Path], trainer: Trainer, warn: Callable[[str], None]) -> int:
    """Loads the newest checkpoint that is whole, `warn` called with a line for each that is not.

    Returns the number of steps done; 0, the trainer unchanged, when there is no checkpoint yet.

    Raises:
        UserError: there are checkpoints, all of them damaged.
    """
    if not checkpoints:
        return 0
    for path in reversed(checkpoints):
        try:
            return load_checkpoint(path, trainer)
        except DamagedFile as error:
            warn(f"{error}; going back to the one before")
    folder = checkpoints[0].parent
    raise UserError(f"{folder} holds no checkpoint that is whole: delete the folder to start the run anew")


def _modules(trainer: Trainer) -> dict[str, nn.Module]:
    return {
        "generator": trainer.generator,
        "discriminator": trainer.discriminator,
        "ema": trainer.ema.network,
        "lecam": trainer.lecam,
    }


def _optimisers(trainer: Trainer) -> list[tuple[str, torch.optim.Optimizer, nn.Module]]:
    return [
        ("generator_adam", trainer.generator_adam, trainer.generator),
        ("discriminator_adam", trainer.discriminator_adam, trainer.discriminator),
    ]


def _trained(network: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The parameters that an optimiser has; not those of frozen blocks."""
    return [(name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]

"""Divergence of a training run: noticed before the state is saved, and answered by a restart from the last good one."""

import math
import shlex
from pathlib import Path

import torch
from torch import Tensor

from sagan.config import TrainingConfig
from sagan.training.checkpoint import state
from sagan.training.step import Trainer

MAX_LOSS = 1e5
"""Magnitude of a loss above which a run has diverged: a choice, not a measurement."""
MAX_RESTARTS = 3
"""Restarts of a run from the same checkpoint, each with other random numbers, before it gives up."""


class DivergenceMonitor:
    """Follows the losses of every step on the device; they and the weights are read only in `find_problem`."""

    def __init__(self) -> None:
        self._largest: Tensor | None = None

    def update(self, log: dict[str, Tensor]) -> None:
        """Add what `Trainer.train_step` returned."""
        loss = torch.stack([log["loss/discriminator"], log["loss/generator"]]).abs().amax()
        self._largest = loss if self._largest is None else torch.maximum(self._largest, loss)  # NaN stays NaN

    def find_problem(self, trainer: Trainer) -> str | None:
        """Return why the run has diverged, in a few words, from all losses and the weights; None if it has not."""
        largest_loss = 0.0 if self._largest is None else self._largest.item()
        if not math.isfinite(largest_loss):
            return "the loss is not a number"
        if largest_loss > MAX_LOSS:
            return f"the loss has grown to {largest_loss:.2g}"
        tensors = [t for t in state(trainer).values() if t.is_floating_point() and t.numel()]
        largest = torch.stack([norm.float() for norm in torch._foreach_norm(tensors, ord=math.inf)])
        return None if largest.isfinite().all() else "weights are not numbers"


class RestartPolicy:
    """Counts the restarts of a run from its newest checkpoint. A run that saves the next one gets a new policy."""

    def __init__(self) -> None:
        self.restarts = 0

    @property
    def exhausted(self) -> bool:
        """Whether the run has restarted as often as it may."""
        return self.restarts == MAX_RESTARTS

    def restart(self, trainer: Trainer) -> None:
        """Count a restart, and give a trainer at the newest checkpoint other random numbers than before."""
        self.restarts += 1
        trainer.restarts += self.restarts


def advise(folder: Path, config: TrainingConfig, saved: int, step: int, problem: str) -> str:
    """Return what the user can do about a run that diverges whatever its random numbers are.

    Args:
        folder: the run's folder.
        config: how the run was trained.
        saved: the step of the newest checkpoint; 0 if there is none.
        step: the step at which the problem was found.
    """
    rates = f"--generator-lr {config.generator_lr / 2:g} --discriminator-lr {config.discriminator_lr / 2:g}"
    source = f" from step {saved}, which is kept (--from {shlex.quote(str(folder))})," if saved else ""
    return (
        f"training diverged {MAX_RESTARTS + 1} times after step {saved} (step {step}: {problem}): start a new run "
        f"(--out){source} with lower learning rates, such as {rates}, or with --precision fp32"
    )

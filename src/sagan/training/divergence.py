"""A training that has come apart: noticed before anything of it is kept, and taken back to its last good state."""

import math
import shlex

import torch
from torch import Tensor

from sagan.errors import UserError
from sagan.run import Run
from sagan.training.checkpoint import state
from sagan.training.step import Trainer

EXPLODED = 1e5
"""Magnitude from which a loss counts as exploded: a choice, not a measurement."""
TRIES = 3
"""Times that a run goes on from the same state, with other random numbers, before it gives up."""


class Watch:
    """Follows the losses of every step and looks at the weights when asked: nobody waits for the device in between."""

    def __init__(self) -> None:
        self._worst: Tensor | None = None

    def see(self, values: dict[str, Tensor]) -> None:
        """Takes note of what `Trainer.step` returned."""
        losses = torch.stack([values["loss/discriminator"], values["loss/generator"]]).abs().amax()
        self._worst = losses if self._worst is None else torch.maximum(self._worst, losses)  # NaN stays NaN

    def problem(self, trainer: Trainer) -> str | None:
        """What went wrong since this was asked last, in a few words; None: nothing."""
        worst = 0.0 if self._worst is None else self._worst.item()
        self._worst = None
        if not math.isfinite(worst):
            return "the loss is not a number"
        if worst > EXPLODED:
            return f"the loss has grown to {worst:.2g}"
        numbers = [t for t in state(trainer).values() if t.is_floating_point() and t.numel()]
        largest = torch.stack([norm.float() for norm in torch._foreach_norm(numbers, ord=math.inf)])
        return None if largest.isfinite().all() else "weights are not numbers"


class Retries:
    """How often a run has gone back to the state it is in, or will be in until it saves the next."""

    def __init__(self) -> None:
        self.count = 0

    def go_on(self, run: Run, trainer: Trainer, back: int, step: int, problem: str) -> str:
        """Lets a trainer that was taken back to step `back` go another way from there; returns a line about it.

        Raises:
            UserError: that has been tried often enough; the message says what else to try.
        """
        self.count += 1
        if self.count > TRIES:
            raise UserError(_advice(run, back, step, problem))
        trainer.detours += self.count
        return (
            f"step {step}: {problem}; going back to step {back}, and on from there with other random numbers "
            f"({self.count} of {TRIES} times)"
        )


def _advice(run: Run, back: int, step: int, problem: str) -> str:
    """What to do about a training that comes apart whatever its random numbers are."""
    training = run.info.config.training
    rates = f"--generator-lr {training.generator_lr / 2:g} --discriminator-lr {training.discriminator_lr / 2:g}"
    folder = shlex.quote(str(run.path))
    start = f"from step {back}, which is kept, with --from {folder}" if back else "anew"
    return (
        f"training has come apart {TRIES + 1} times after step {back} (step {step}: {problem}): start {start} in "
        f"another --out with lower rates, such as {rates}, or with --precision fp32"
    )

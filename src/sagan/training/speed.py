"""Measure the speed of training: in a trial before it, or over its first steps."""

import math
import re
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import TypeVar

import torch

from sagan.config import Config, TrainingConfig
from sagan.data import Store
from sagan.device import choose_algorithms, enough_memory, keep_memory, peak_memory
from sagan.distributed import Processes
from sagan.errors import UserError
from sagan.model.build import build_generator
from sagan.text import format_time, short
from sagan.training.batches import open_batches
from sagan.training.guide import EVERY as GUIDE_EVERY
from sagan.training.recorder import open_monitor
from sagan.training.step import Trainer

TRIAL_STEPS = 8  # minimum steps of a timed block
TRIAL_BLOCKS = 6  # maximum number of blocks
TRIAL_TOLERANCE = 0.05  # relative difference of two blocks below which both count as the speed of the run
TRIAL_SHARE = 0.2  # of a budget, after which a trial starts no further block
TRIAL_SECONDS = 60.0  # after which a trial starts no further block, whatever the budget
RESERVE = 0.05  # of a budget: grids of samples, checkpoints and the last figures
FIRST_SECONDS = 5.0  # of training whose speed is told
T = TypeVar("T")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class Speed:
    """What training costs here."""

    step: float
    """Seconds of a step."""
    evaluation: float
    """Seconds of an evaluation; 0 without evaluations."""
    memory: int | None
    """Peak memory of a process in bytes, as `peak_memory` returns it."""

    def describe(self, batch_size: int) -> str:
        """Describe the speed of steps of `batch_size` images, and the memory."""
        memory = "" if self.memory is None else f"; {self.memory / 2**30:.1f} GiB of memory"
        return f"{short(self.step)} s a step, {short(batch_size / self.step)} images/s{memory}"

    def duration(self, steps: int, every: int) -> float:
        """Return the seconds of so many steps, with an evaluation every `every` steps and after the last one."""
        return steps * self.step + (-(-steps // every) * self.evaluation if every else 0.0)


def seconds(text: str) -> float:
    """Convert '2h', '90m', '1.5h' or '45s' to seconds.

    Raises:
        UserError: the text is not a time above 0.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if not match or not float(match[1]):
        raise UserError(f"--budget {text}: give a time such as 2h, 90m or 45s")
    return float(match[1]) * _UNITS[match[2]]


def try_out(config: Config, store: Store, processes: Processes, *, budget: float = math.inf) -> Speed:
    """Train some steps of a run that is then thrown away, evaluate once if the run will, and return the speed.

    All processes call this, and get the first one's values.

    Args:
        budget: seconds that training may take; a part of it, and a minute, limit the trial.
    """
    keep_memory()
    with enough_memory():
        step = seconds_per_step(config, store, processes, limit=min(TRIAL_SHARE * budget, TRIAL_SECONDS))
        evaluation = 0.0
        monitor = open_monitor(config, store, processes)
        if monitor is not None:
            generator = build_generator(config.model).to(processes.device).eval().requires_grad_(False)
            since = time.perf_counter()
            monitor(generator, seed=config.training.seed)
            evaluation = time.perf_counter() - since
    measured = Speed(step, evaluation, peak_memory(processes.device))
    return Speed(**processes.first(lambda: asdict(measured)))


def fitting_steps(budget: float, speed: Speed, every: int, *, spent: float = 0.0) -> int:
    """Return the number of steps that fit a budget, with an evaluation every `every` steps and one after the last.

    Args:
        budget: seconds, of which RESERVE is kept.
        speed: measured by `try_out`.
        every: 0 without evaluations.
        spent: seconds of the budget that are over.

    Raises:
        UserError: not one step fits.
    """
    left = budget * (1 - RESERVE) - spent - speed.evaluation
    steps = int(left / (speed.step + (speed.evaluation / every if every else 0.0)))
    if steps < 1:
        costs = f"a step takes {format_time(speed.step)}"
        if speed.evaluation:
            costs += f" and an evaluation {format_time(speed.evaluation)}"
        raise UserError(f"--budget: {format_time(budget)} are too short: {costs}, after {format_time(spent)} of trial")
    return steps


def seconds_per_step(config: Config, store: Store, processes: Processes, *, limit: float = math.inf) -> float:
    """Return the seconds of a training step after a warm-up, with penalties as often as in training.

    All processes call this, and get the first one's value.

    Args:
        limit: seconds, warm-up included, after which no further block of steps is timed.
    """
    begun = time.perf_counter()
    choose_algorithms(deterministic=config.training.deterministic)  # the search for kernels belongs to the warm-up
    trainer = Trainer(config.model, config.training, processes.device, processes)
    warm_up = _cycle(config.training) + 1  # every kind of step: the first of each loads its kernels
    block = _block(config.training)
    durations: list[float] = []
    with closing(open_batches(config, store, processes, announce=False)) as batches:
        for step in range(warm_up):
            trainer.train_step(step, batches)
        for start in range(warm_up, warm_up + TRIAL_BLOCKS * block, block):
            _synchronise(processes.device)
            since = time.perf_counter()
            for step in range(start, start + block):
                trainer.train_step(step, batches)
            _synchronise(processes.device)
            durations.append((time.perf_counter() - since) / block)
            enough = time.perf_counter() - begun > limit or has_settled(durations)
            if _of_first(processes, enough):
                break
    return _of_first(processes, sum(durations[-2:]) / len(durations[-2:]))


def has_settled(durations: Sequence[float]) -> bool:
    """Return whether the last two durations agree, so that the warm-up is over."""
    return len(durations) > 1 and abs(durations[-1] - durations[-2]) <= TRIAL_TOLERANCE * durations[-1]


class FirstSteps:
    """Times the first steps of training after a warm-up, and describes the speed once.

    Args:
        config: the run's configuration.
        step: steps done.
        device: where training runs.
    """

    def __init__(self, config: Config, step: int, device: torch.device) -> None:
        self.config = config
        self.device = device
        self.told = False
        self._begins = step + _cycle(config.training) + 1  # after every kind of step
        self._start: tuple[int, float] | None = None

    def update(self, step: int, *, interrupted: bool) -> str:
        """Return a line on the speed when enough steps were timed, else ''.

        Args:
            step: steps done.
            interrupted: other work follows, such as an evaluation: the next step does not count.
        """
        if self.told or step < self._begins:
            return ""
        line = ""
        if self._start is None:
            _synchronise(self.device)
            self._start = step, time.perf_counter()
        elif (step - self._start[0]) % _block(self.config.training) == 0:
            _synchronise(self.device)
            passed = time.perf_counter() - self._start[1]
            if passed >= FIRST_SECONDS or interrupted:
                line = self._describe(step, passed / (step - self._start[0]))
                self.told = True
        if interrupted:
            self._start = None
        return line

    def _describe(self, step: int, step_seconds: float) -> str:
        training = self.config.training
        speed = Speed(step_seconds, 0.0, peak_memory(self.device))
        left = format_time(speed.duration(training.steps - step, 0))
        others = "evaluations not counted" if self.config.output.evaluate_every else "evaluations are off"
        return f"speed: {speed.describe(training.batch_size)}; about {left} left, {others}"


def _of_first(processes: Processes, value: T) -> T:
    """Return the first process's value in all of them."""
    return processes.first(lambda: value)


def _cycle(training: TrainingConfig) -> int:
    """Return after how many steps the kinds of step repeat: with and without penalties, with and without the guide."""
    return math.lcm(training.penalty_every, GUIDE_EVERY if training.guide else 1)


def _block(training: TrainingConfig) -> int:
    """Return the steps of a timed block, so that every block has the same steps of each kind."""
    cycle = _cycle(training)
    return -(-TRIAL_STEPS // cycle) * cycle


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

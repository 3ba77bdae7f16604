"""Search the largest learning rate that a training run survives, for each variant of Figure 3 (`sagan study rates`).

A trial trains one variant with one seed from the start, at constant rates. It survives if its losses and weights stay
numbers (`DivergenceMonitor`) and if it has learnt something that has not collapsed: at its end the distance to the data
is at most a share of the untrained generator's, and the diversity at least a value.

Layout of the folder:

rates.json                    what is searched
trials/VARIANT/seed-N.json    the trials so far
report.md, report.html        the report
"""

import math
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from pydantic import ConfigDict

from sagan.config import Config
from sagan.data import Batches, Prefetcher, Store
from sagan.device import choose_algorithms, keep_memory
from sagan.distributed import Processes
from sagan.errors import UserError
from sagan.files import write_json
from sagan.metrics.monitor import Monitor
from sagan.parsing import CheckedConfig, read_as
from sagan.study.plan import with_seed
from sagan.study.variants import STUDIES, Variant, equal_rate
from sagan.text import format_count
from sagan.training.divergence import DivergenceMonitor
from sagan.training.step import Trainer

VARIANTS = ("sn-d", "sn-both", "sn-both-ttur")
"""Figure 3's variants, as the study 'stability' has them."""
FACTOR = 4.0
"""Ratio of two rates until one survives and one fails; between them the search bisects their logarithms."""
PRECISION = 1.25
"""Ratio of the smallest rate that fails to the largest that survives, at which a search ends."""
FURTHEST = 5
"""Factors above or below the first rate at which a search gives up."""
CHECK_EVERY = 20
"""Steps between two looks at losses and weights."""


def all_variants(base: Config) -> list[Variant]:
    """Return all variants of a search, at constant learning rates."""
    every = STUDIES["stability"].variants(base)
    return [replace(v, config=with_rate(v.config, None)) for v in every if v.name in VARIANTS]


@dataclass(frozen=True)
class RatesPlan:
    """The content of rates.json."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    base: CheckedConfig
    """The configuration that every variant changes; its steps are those of a trial."""
    seeds: tuple[int, ...]
    variants: tuple[str, ...]
    max_distance: float
    """Largest distance at the end, as a share of the untrained generator's."""
    min_diversity: float
    """Smallest diversity at the end: the variance within classes as a share of the data's."""
    data_key: str

    def chosen(self) -> list[Variant]:
        """Return the variants, at constant learning rates."""
        return [variant for variant in all_variants(self.base) if variant.name in self.variants]


@dataclass(frozen=True)
class Trial:
    """One training run at one rate."""

    rate: float
    """Geometric mean of the learning rates of G and D."""
    survived: bool
    reason: str
    """Why it did not survive; empty if it did."""
    steps: int
    """Steps trained: fewer than the plan's if it diverged."""
    distance: float | None
    """Distance to the data at the end; None if it was not measured."""
    diversity: float | None
    untrained_distance: float
    seconds: float


@dataclass(frozen=True)
class Search:
    """The trials of one variant with one seed."""

    variant: Variant
    seed: int
    path: Path

    @property
    def config(self) -> Config:
        return with_seed(self.variant.config, self.seed)

    def trials(self) -> list[Trial]:
        """Return the trials so far.

        Raises:
            UserError: the file is damaged.
        """
        return list(read_as(tuple[Trial, ...], self.path, "a list of trials")) if self.path.exists() else []

    def add(self, trial: Trial) -> None:
        write_json(self.path, [asdict(t) for t in [*self.trials(), trial]])

    def next_rate(self) -> float | None:
        """Return the rate to try next; None if the search is over."""
        return next_rate(self.trials(), equal_rate(self.variant.config))


class RatesFolder:
    """Open the folder of a search.

    Raises:
        UserError: it does not hold a search, or its rates.json cannot be read.
    """

    def __init__(self, path: Path):
        self.path = path
        self.plan = read_as(RatesPlan, path / "rates.json", "a plan of sagan study rates")

    @classmethod
    def create(cls, path: Path, plan: RatesPlan) -> "RatesFolder":
        """Write a plan."""
        write_json(path / "rates.json", asdict(plan))
        return cls(path)

    def searches(self) -> list[Search]:
        """Return all searches, the first seed of all variants first."""
        return [
            Search(variant, seed, self.path / "trials" / variant.name / f"seed-{seed}.json")
            for seed in self.plan.seeds
            for variant in self.plan.chosen()
        ]


def with_rate(config: Config, rate: float | None) -> Config:
    """Return a configuration with constant learning rates whose geometric mean is `rate`, in their old ratio.

    None: the old mean.
    """
    factor = 1.0 if rate is None else rate / equal_rate(config)
    old = config.training
    training = replace(
        old,
        generator_lr=factor * old.generator_lr,
        discriminator_lr=factor * old.discriminator_lr,
        lr_decay_from=1.0,
    )
    return replace(config, training=training)


def next_rate(trials: list[Trial], start: float) -> float | None:
    """Return the rate to try next: `start` first, then up or down by FACTOR, then the middle of the logarithms.

    None if the search is over: the smallest rate that fails is within PRECISION of the largest that survives below it,
    or no rate fails or survives within FURTHEST factors of `start`.
    """
    if not trials:
        return start
    low, high = bounds(trials)
    furthest = 1.001 * FACTOR**FURTHEST
    if high is None:
        assert low is not None
        return FACTOR * low if FACTOR * low <= start * furthest else None
    if low is None:
        return high / FACTOR if high / FACTOR >= start / furthest else None
    return math.sqrt(low * high) if high / low > PRECISION else None


def bounds(trials: list[Trial]) -> tuple[float | None, float | None]:
    """Return the largest rate that survived below the smallest that failed, and that one; None where there is none."""
    high = min((trial.rate for trial in trials if not trial.survived), default=None)
    survived = [trial.rate for trial in trials if trial.survived and (high is None or trial.rate < high)]
    return max(survived, default=None), high


def describe(search: Search, trial: Trial) -> str:
    """Return a line about a trial: what was trained, and how it ended."""
    outcome = "survives" if trial.survived else f"fails: {trial.reason}"
    steps = f"{format_count(trial.steps, 'step', 'steps')}, {trial.seconds:.0f} s"
    return f"{search.variant.name}, seed {search.seed}, rate {trial.rate:.2g} ({steps}): {outcome}"


class Trials:
    """Makes the trials of searches, one after the other, on one device.

    Args:
        plan: the bounds of survival.
        store: the images.
        monitor: measures distance and diversity.
        device: where the networks are.
    """

    def __init__(self, plan: RatesPlan, store: Store, monitor: Monitor, device: torch.device):
        self.plan = plan
        self.store = store
        self.monitor = monitor
        self.processes = Processes(device)

    def run(self, search: Search) -> Iterator[Trial]:
        """Make the trials that a search still needs, and yield each once it is recorded."""
        while (rate := search.next_rate()) is not None:
            trial = self.try_rate(search.config, rate)
            search.add(trial)
            yield trial

    def try_rate(self, config: Config, rate: float) -> Trial:
        """Train a configuration at a rate, from its start to its last step or until it diverges."""
        config = with_rate(config, rate)
        since = time.perf_counter()
        keep_memory()
        choose_algorithms(deterministic=config.training.deterministic)
        trainer = Trainer(config.model, config.training, self.processes.device, self.processes)
        untrained, _ = self._measure(trainer)
        assert untrained is not None

        # Train.
        monitor, reason = DivergenceMonitor(), ""
        steps = config.training.steps
        order = Batches(self.store, config.training.batch_size, seed=config.training.seed, flips=config.data.flips)
        with closing(Prefetcher(order, self.processes.device)) as batches:
            for step in range(1, steps + 1):
                monitor.update(trainer.train_step(step - 1, batches))
                if step % CHECK_EVERY == 0 or step == steps:
                    reason = monitor.find_problem(trainer) or ""
                    if reason:
                        break

        # Judge.
        distance = diversity = None
        if not reason:
            distance, diversity = self._measure(trainer)
            reason = self._find_collapse(distance, diversity, untrained)
        return Trial(
            rate, not reason, reason, step, distance, diversity, untrained, round(time.perf_counter() - since, 1)
        )

    def _measure(self, trainer: Trainer) -> tuple[float | None, float | None]:
        """Return the distance and the diversity of the averaged generator; None if its images are not numbers."""
        try:
            values = self.monitor(trainer.ema.network, seed=trainer.config.seed)
        except UserError:  # weights that are numbers may give images or features that are not
            return None, None
        return values[self.monitor.distance_key], values["diversity"]

    def _find_collapse(self, distance: float | None, diversity: float | None, untrained: float) -> str:
        """Return why a generator that has been trained to the end has not survived; empty if it has."""
        if distance is None or diversity is None:
            return "the images are not numbers"
        share = distance / untrained
        if share > self.plan.max_distance:
            return f"the distance is {share:.2f} of the untrained generator's, above {self.plan.max_distance:g}"
        if diversity < self.plan.min_diversity:
            return f"the diversity is {diversity:.3f}, below {self.plan.min_diversity:g}"
        return ""

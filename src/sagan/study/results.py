"""What a study's runs came to: figures by variant, their spread over seeds, and which differences are larger."""

import statistics
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sagan.errors import UserError
from sagan.metric_names import distance_key
from sagan.study.plan import Job, Plan, StudyFolder
from sagan.study.variants import Variant

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Outcome:
    """One variant, over its seeds."""

    variant: Variant
    jobs: list[Job]
    figures: dict[str, list[float]]
    """Of the evaluations, by name: a value for each run that has been measured."""
    curves: list[tuple[NDArray[np.float64], NDArray[np.float64]]]
    """Of the distance while training, a run each: steps, values."""
    gammas: dict[str, list[float]]
    """By network: the magnitude of gamma at the end of training, a value for each run (of several layers the mean)."""
    images_per_second: float
    """Median of all runs; NaN before the first line of a log."""
    seconds: float
    """Of training, all runs together."""

    @property
    def best(self) -> list[float]:
        """The smallest distance while training, for each run that has one."""
        return [float(np.nanmin(values)) for _, values in self.curves if np.isfinite(values).any()]

    @property
    def last(self) -> list[float]:
        """The distance at the end of training, for each run."""
        return [float(values[-1]) for _, values in self.curves if len(values)]


@dataclass(frozen=True)
class Difference:
    """How a figure of one variant differs from that of another: mean, and the interval that holds it with 95 %."""

    figure: str
    first: Variant
    second: Variant
    mean: float
    low: float
    high: float

    @property
    def is_larger_than_spread(self) -> bool:
        return not self.low <= 0 <= self.high


def gather(folder: StudyFolder) -> list[Outcome]:
    """The outcome of every variant, in the study's order."""
    jobs = folder.jobs()
    return [_outcome(v, [job for job in jobs if job.variant.name == v.name]) for v in folder.plan.chosen()]


def _outcome(variant: Variant, jobs: list[Job]) -> Outcome:
    figures: dict[str, list[float]] = {}
    gammas: dict[str, list[float]] = {}
    curves, speeds, seconds = [], [], 0.0
    for job in jobs:
        for figure in (job.evaluation() or {"figures": []})["figures"]:
            figures.setdefault(str(figure["name"]), []).append(float(figure["value"]))
        rows = job.rows()
        key = distance_key(rows)
        if key:
            curves.append(_curve(rows, key))
        for network, values in _last_gammas(rows).items():
            gammas.setdefault(network, []).append(statistics.fmean(values))
        own = [(row["step"], row["images_per_second"]) for row in rows if row.get("images_per_second")]
        speeds += [speed for _, speed in own]
        before = [0, *(step for step, _ in own)]
        batch = job.config.training.batch_size
        seconds += sum((step - b) * batch / speed for b, (step, speed) in zip(before, own, strict=False))
    return Outcome(
        variant, jobs, figures, curves, gammas, statistics.median(speeds) if speeds else float("nan"), seconds
    )


def _last_gammas(rows: list[dict[str, Any]]) -> dict[str, list[float]]:
    """By network, the magnitudes of the last that a log says of its layers' gammas.

    Their signs mean nothing: a layer whose last convolution has its weights negated computes the same with -gamma.
    """
    last = {key.removeprefix("gamma/"): value for row in rows for key, value in row.items() if key.startswith("gamma/")}
    found: dict[str, list[float]] = {}
    for layer, gamma in last.items():
        found.setdefault(layer.split(".")[0], []).append(abs(float(gamma)))
    return found


def _curve(rows: list[dict[str, Any]], key: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    pairs = [(row["step"], row[key]) for row in rows if key in row]
    steps, values = np.array(pairs, np.float64).reshape(-1, 2).T
    return steps, values


def find_differences(plan: Plan, outcomes: list[Outcome], figure: str) -> list[Difference]:
    """The pairs that the study asks about, where both variants have two seeds or more: Welch's t interval.

    The interval says what would be expected of other seeds; each one of twenty misses.
    """
    by_name = {outcome.variant.name: outcome for outcome in outcomes}
    found = []
    for first, second in plan.definition.pairs(list(by_name)):
        a, b = (by_name[name].figures.get(figure, []) for name in (first, second))
        if min(len(a), len(b)) >= 2:
            low, high = _interval(a, b)
            mean = statistics.fmean(a) - statistics.fmean(b)
            found.append(Difference(figure, by_name[first].variant, by_name[second].variant, mean, low, high))
    return found


def _interval(a: list[float], b: list[float]) -> tuple[float, float]:
    try:
        from scipy.stats import ttest_ind
    except ImportError as error:
        raise UserError("the report of a study needs scipy: pip install 'sagan[study]'") from error
    interval = ttest_ind(a, b, equal_var=False).confidence_interval(CONFIDENCE)
    return float(interval.low), float(interval.high)


def main_figure(outcomes: list[Outcome]) -> str | None:
    """The name of the Frechet distance, as it was measured: FID with Inception's features."""
    names = [name for outcome in outcomes for name in outcome.figures]
    return next((name for name in names if name in ("FID", "Frechet distance")), None)

"""Gather a study's results: metrics by variant, their spread over seeds, and which differences exceed it."""

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
    metrics: dict[str, list[float]]
    """By name: a value for each run that has been evaluated."""
    curves: list[tuple[NDArray[np.float64], NDArray[np.float64]]]
    """The distance during training, one curve per run: steps, values."""
    gammas: dict[str, list[float]]
    """By network: the magnitude of gamma at the end of training, a value per run (the mean over layers)."""
    images_per_second: float
    """Median over all runs; NaN before the first line of a log."""
    seconds: float
    """Training time of all runs together."""

    @property
    def best(self) -> list[float]:
        """Return the smallest distance during training, for each run that has one."""
        return [float(np.nanmin(values)) for _, values in self.curves if np.isfinite(values).any()]

    @property
    def last(self) -> list[float]:
        """Return the distance at the end of training, for each run."""
        return [float(values[-1]) for _, values in self.curves if len(values)]


@dataclass(frozen=True)
class Difference:
    """The difference of two variants in a metric: of the means, and its 95 % confidence interval."""

    metric: str
    first: Variant
    second: Variant
    mean: float
    low: float
    high: float

    @property
    def is_larger_than_spread(self) -> bool:
        return not self.low <= 0 <= self.high


def gather(folder: StudyFolder) -> list[Outcome]:
    """Return the outcome of every variant, in the study's order."""
    jobs = folder.jobs()
    return [_outcome(v, [job for job in jobs if job.variant.name == v.name]) for v in folder.plan.chosen()]


def _outcome(variant: Variant, jobs: list[Job]) -> Outcome:
    metrics: dict[str, list[float]] = {}
    gammas: dict[str, list[float]] = {}
    curves = []
    speeds = []
    seconds = 0.0
    for job in jobs:
        for metric in (job.evaluation() or {"figures": []})["figures"]:
            metrics.setdefault(str(metric["name"]), []).append(float(metric["value"]))
        rows = job.rows()
        key = distance_key(rows)
        if key:
            curves.append(_curve(rows, key))
        for network, values in _last_gammas(rows).items():
            gammas.setdefault(network, []).append(statistics.fmean(values))
        batch_size = job.config.training.batch_size
        previous_step = 0
        for row in rows:
            speed = row.get("images_per_second")
            if speed:
                speeds.append(speed)
                seconds += (row["step"] - previous_step) * batch_size / speed
                previous_step = row["step"]
    return Outcome(
        variant, jobs, metrics, curves, gammas, statistics.median(speeds) if speeds else float("nan"), seconds
    )


def _last_gammas(rows: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Return, by network, the magnitudes of its layers' gammas as last logged.

    Their signs mean nothing: a layer whose last convolution has its weights negated computes the same with -gamma.
    """
    last = {key.removeprefix("gamma/"): value for row in rows for key, value in row.items() if key.startswith("gamma/")}
    magnitudes: dict[str, list[float]] = {}
    for layer, gamma in last.items():
        magnitudes.setdefault(layer.split(".")[0], []).append(abs(float(gamma)))
    return magnitudes


def _curve(rows: list[dict[str, Any]], key: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    pairs = [(row["step"], row[key]) for row in rows if key in row]
    steps, values = np.array(pairs, np.float64).reshape(-1, 2).T
    return steps, values


def find_differences(plan: Plan, outcomes: list[Outcome], metric: str) -> list[Difference]:
    """Return the study's comparisons, where both variants have at least two seeds, with Welch's t interval.

    The interval covers the difference expected of other seeds in 95 % of cases; one in twenty misses it.
    """
    by_name = {outcome.variant.name: outcome for outcome in outcomes}
    differences = []
    for first, second in plan.definition.pairs(list(by_name)):
        a, b = (by_name[name].metrics.get(metric, []) for name in (first, second))
        if min(len(a), len(b)) >= 2:
            low, high = _interval(a, b)
            mean = statistics.fmean(a) - statistics.fmean(b)
            differences.append(Difference(metric, by_name[first].variant, by_name[second].variant, mean, low, high))
    return differences


def _interval(a: list[float], b: list[float]) -> tuple[float, float]:
    try:
        from scipy.stats import ttest_ind
    except ImportError as error:
        raise UserError("the report of a study needs scipy: pip install 'sagan-torch[study]'") from error
    interval = ttest_ind(a, b, equal_var=False).confidence_interval(CONFIDENCE)
    return float(interval.low), float(interval.high)


def main_metric(outcomes: list[Outcome]) -> str | None:
    """Return the name under which the Frechet distance was measured: FID in Inception features; None without one."""
    names = [name for outcome in outcomes for name in outcome.metrics]
    return next((name for name in names if name in ("FID", "Frechet distance")), None)

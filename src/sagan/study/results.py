"""Gather a study's results: metrics by variant, their spread over seeds, and which differences exceed it."""

import statistics
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sagan.metric_names import distance_key
from sagan.study.paired import Interval, paired_difference, pairs_needed, spread_of
from sagan.study.plan import Job, Plan, StudyFolder
from sagan.study.variants import Variant

PILOT_SHARES = (0.05, 0.1, 0.2)
"""Differences for which a pilot says how many pairs they need, as shares of the metric of the second variant."""

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Steps and values."""
DISTANCE = "distance"
CURVES = {DISTANCE: None, "near": "patch_correlation/near", "far": "patch_correlation/far"}
"""Names of curves, and of their values in the metrics log; that of the distance depends on the features."""


@dataclass(frozen=True)
class Outcome:
    """One variant, over its seeds."""

    variant: Variant
    jobs: list[Job]
    values: dict[str, dict[int, float]]
    """By the name of a metric and by seed: the value of each run that has been evaluated."""
    curves: dict[str, dict[int, Curve]]
    """What was measured during training, by name (`CURVES`) and by seed: the curve of each run that has one."""
    gammas: dict[str, list[float]]
    """By network: the magnitude of gamma at the end of training, a value per run (the mean over layers)."""
    images_per_second: float
    """Median over all runs; NaN before the first line of a log."""
    seconds: float
    """Training time of all runs together."""

    @property
    def metrics(self) -> dict[str, list[float]]:
        """Return, by the name of a metric, the values of all runs that have been evaluated."""
        return {name: list(of_seeds.values()) for name, of_seeds in self.values.items()}

    @property
    def best(self) -> list[float]:
        """Return the smallest distance during training, for each run that has one."""
        return [float(np.nanmin(y)) for _, y in self.curves[DISTANCE].values() if np.isfinite(y).any()]

    @property
    def last(self) -> list[float]:
        """Return the distance at the end of training, for each run."""
        return [float(y[-1]) for _, y in self.curves[DISTANCE].values()]


@dataclass(frozen=True)
class Difference:
    """The difference of two variants in a metric, over pairs of runs with the same seed."""

    metric: str
    first: Variant
    second: Variant
    differences: tuple[float, ...]
    """First minus second, of each pair."""
    base: float
    """Mean of the second variant over the pairs."""

    @property
    def pairs(self) -> int:
        return len(self.differences)

    @property
    def mean(self) -> Interval:
        """The mean difference."""
        return paired_difference(self.differences)

    @property
    def spread(self) -> Interval:
        """The standard deviation of the difference."""
        return spread_of(self.differences)

    @property
    def is_larger_than_spread(self) -> bool:
        return not self.mean.low <= 0 <= self.mean.high

    def pairs_needed(self, share: float) -> tuple[int | None, int | None]:
        """Return how many pairs a difference of this share of the base needs.

        The first number is for the spread as it is, the second for the upper end of its interval.
        """
        size = share * abs(self.base)
        spread = self.spread
        return pairs_needed(size, spread.value), pairs_needed(size, spread.high)


def gather(folder: StudyFolder) -> list[Outcome]:
    """Return the outcome of every variant, in the study's order."""
    jobs = folder.jobs()
    return [_outcome(v, [job for job in jobs if job.variant.name == v.name]) for v in folder.plan.chosen()]


def _outcome(variant: Variant, jobs: list[Job]) -> Outcome:
    found: dict[str, dict[int, float]] = {}
    gammas: dict[str, list[float]] = {}
    curves: dict[str, dict[int, Curve]] = {name: {} for name in CURVES}
    speeds = []
    seconds = 0.0
    for job in jobs:
        for metric in (job.evaluation() or {"figures": []})["figures"]:
            found.setdefault(str(metric["name"]), {})[job.seed] = float(metric["value"])
        rows = job.rows()
        for name, key in CURVES.items():
            key = key or distance_key(rows)
            curve = _curve(rows, key) if key else None
            if curve:
                curves[name][job.seed] = curve
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
    return Outcome(variant, jobs, found, curves, gammas, statistics.median(speeds) if speeds else float("nan"), seconds)


def _last_gammas(rows: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Return, by network, the magnitudes of its layers' gammas as last logged.

    Their signs mean nothing: a layer whose last convolution has its weights negated computes the same with -gamma.
    """
    last = {key.removeprefix("gamma/"): value for row in rows for key, value in row.items() if key.startswith("gamma/")}
    magnitudes: dict[str, list[float]] = {}
    for layer, gamma in last.items():
        magnitudes.setdefault(layer.split(".")[0], []).append(abs(float(gamma)))
    return magnitudes


def _curve(rows: list[dict[str, Any]], key: str) -> Curve | None:
    """Return the curve of a value in a metrics log; None if it was never logged."""
    pairs = [(row["step"], row[key]) for row in rows if key in row]
    if not pairs:
        return None
    steps, values = np.array(pairs, np.float64).T
    return steps, values


def find_differences(plan: Plan, outcomes: list[Outcome], metric: str) -> list[Difference]:
    """Return the study's comparisons in a metric, where two or more seeds of both variants have been evaluated."""
    by_name = {outcome.variant.name: outcome for outcome in outcomes}
    differences = []
    for first, second in plan.definition.pairs(list(by_name)):
        a, b = (by_name[name].values.get(metric, {}) for name in (first, second))
        seeds = [seed for seed in a if seed in b]
        if len(seeds) < 2:
            continue
        apart = tuple(a[seed] - b[seed] for seed in seeds)
        base = statistics.fmean(b[seed] for seed in seeds)
        differences.append(Difference(metric, by_name[first].variant, by_name[second].variant, apart, base))
    return differences


def main_metric(outcomes: list[Outcome]) -> str | None:
    """Return the name under which the Frechet distance was measured: FID in Inception features; None without one."""
    names = [name for outcome in outcomes for name in outcome.metrics]
    return next((name for name in names if name in ("FID", "Frechet distance")), None)


def compared_metrics(outcomes: list[Outcome]) -> list[str]:
    """Return the names of the metrics in which a report compares variants: distances, structure, twins."""
    names = list(dict.fromkeys(name for outcome in outcomes for name in outcome.metrics))
    beginnings = ("FID", "Frechet", "intra-FID", "class-wise Frechet", "patch correlation error", "twin ")
    return sorted((n for n in names if n.startswith(beginnings)), key=lambda n: n != main_metric(outcomes))

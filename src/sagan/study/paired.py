"""Statistics of paired runs: the difference within a pair, its spread, and how many pairs would show a difference."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sagan.errors import UserError

CONFIDENCE = 0.95
"""Of every interval. 1 - CONFIDENCE is the level of the two-sided test that `pairs_needed` plans."""
POWER = 0.8
"""Probability with which a planned study shows a difference that exists."""
MOST_PAIRS = 100_000


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % confidence interval."""

    value: float
    low: float
    high: float


def paired_difference(differences: Sequence[float]) -> Interval:
    """Return the mean of two or more differences within pairs, with Student's t interval.

    The interval is that of scipy.stats.ttest_rel. It covers the difference expected of other pairs in 95 % of cases, if
    differences are about normally distributed.
    """
    n = len(differences)
    mean = statistics.fmean(differences)
    half = _critical_t(n) * statistics.stdev(differences) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half)


def spread_of(differences: Sequence[float]) -> Interval:
    """Return the standard deviation of two or more differences within pairs, with its chi-square interval.

    (n - 1) s² / sigma² follows a chi-square distribution of n - 1 degrees of freedom, if differences are normally
    distributed. From two pairs the upper end is 32 times s, from five 2.9 times.
    """
    n = len(differences)
    s = statistics.stdev(differences)
    chi2 = _scipy_stats().chi2
    low, high = (s * math.sqrt((n - 1) / chi2.ppf(p, n - 1)) for p in ((1 + CONFIDENCE) / 2, (1 - CONFIDENCE) / 2))
    return Interval(s, float(low), float(high))


def power_of(pairs: int, difference: float, spread: float) -> float:
    """Return the probability that a two-sided paired t test shows a difference.

    Args:
        pairs: 2 or more.
        difference: the true mean of the differences within pairs.
        spread: their true standard deviation, above 0.
    """
    shift = abs(difference) / spread * math.sqrt(pairs)
    t = _critical_t(pairs)
    distribution = _scipy_stats().nct(pairs - 1, shift)  # of the test's t
    return float(distribution.sf(t) + distribution.cdf(-t))


def pairs_needed(difference: float, spread: float) -> int | None:
    """Return the smallest number of pairs with which the test of `power_of` has a power of 80 %.

    None if it is above 100,000.
    """
    if not spread:
        return 2
    if not difference:
        return None
    low, high = 1, 2  # too few, and perhaps enough
    while power_of(high, difference, spread) < POWER:
        if high >= MOST_PAIRS:
            return None
        low, high = high, min(2 * high, MOST_PAIRS)
    while high - low > 1:
        middle = (low + high) // 2
        if power_of(middle, difference, spread) < POWER:
            low = middle
        else:
            high = middle
    return high


def _critical_t(pairs: int) -> float:
    return float(_scipy_stats().t.ppf((1 + CONFIDENCE) / 2, pairs - 1))


def _scipy_stats() -> Any:
    try:
        from scipy import stats
    except ImportError as error:
        raise UserError("the report of a study needs scipy: pip install 'sagan-torch[study]'") from error
    return stats

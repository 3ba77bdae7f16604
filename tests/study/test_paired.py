"""Statistics of paired runs, against scipy's own test, published sample sizes and simulation."""

import numpy as np
import pytest
from scipy import stats

from sagan.study.paired import MOST_PAIRS, POWER, paired_difference, pairs_needed, power_of, spread_of

# Five differences of mean 2 and variance 2.5.
DIFFERENCES = [0, 1, 2, 3, 4]


def test_the_difference_and_its_interval_as_a_textbook_computes_them():
    """The standard error is sqrt(2.5 / 5), and 2.776 is Student's t of 4 degrees of freedom."""
    found = paired_difference(DIFFERENCES)
    half = 2.776445 * np.sqrt(0.5)
    assert (found.value, found.low, found.high) == pytest.approx((2, 2 - half, 2 + half), abs=1e-5)


def test_the_interval_is_scipy_s():
    a, b = np.random.default_rng(0).normal(size=(2, 7))
    expected = stats.ttest_rel(a, b).confidence_interval(0.95)
    found = paired_difference((a - b).tolist())
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_equal_differences_have_no_spread():
    found = paired_difference([-3.0, -3.0])
    assert (found.value, found.low, found.high) == (-3, -3, -3)
    assert spread_of([-3.0, -3.0]).high == 0


def test_the_spread_and_its_interval_as_a_textbook_computes_them():
    """The quantiles of chi-square with 4 degrees of freedom are 0.4844 and 11.1433."""
    found = spread_of(DIFFERENCES)
    expected = [np.sqrt(2.5), np.sqrt(4 * 2.5 / 11.1433), np.sqrt(4 * 2.5 / 0.4844)]
    assert [found.value, found.low, found.high] == pytest.approx(expected, rel=1e-4)


def test_the_ends_of_intervals_of_small_pilots():
    """As the docstring has them: 32 times from two pairs, 2.9 times from five."""
    for pairs, factor in ((2, 31.9), (5, 2.87)):
        found = spread_of([0] * (pairs - 1) + [1])
        assert found.high / found.value == pytest.approx(factor, abs=0.03)


@pytest.mark.parametrize(("size", "pairs"), [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10), (1.5, 6)])
def test_published_numbers_of_pairs(size, pairs):
    """G*Power's (Faul et al. 2007) for a paired t test, two-sided 5 %, power 80 %, by the effect size d_z."""
    assert pairs_needed(3 * size, 3) == pairs
    assert pairs_needed(-3 * size, 3) == pairs
    assert power_of(pairs, 3 * size, 3) >= POWER > power_of(pairs - 1, 3 * size, 3)


def test_power_and_coverage_in_a_simulation():
    """20,000 studies of six pairs with a true difference of 1.2 and a spread of 1: as often as computed."""
    rng = np.random.default_rng(0)
    studies = rng.normal(1.2, 1, size=(20_000, 6)).tolist()
    intervals = [paired_difference(study) for study in studies[:4000]]
    spreads = [spread_of(study) for study in studies[:4000]]
    t = stats.ttest_1samp(studies, 0, axis=1)
    assert (t.pvalue < 0.05).mean() == pytest.approx(power_of(6, 1.2, 1), abs=0.01)
    assert np.mean([i.low <= 1.2 <= i.high for i in intervals]) == pytest.approx(0.95, abs=0.01)
    assert np.mean([not i.low <= 0 <= i.high for i in intervals]) == pytest.approx(power_of(6, 1.2, 1), abs=0.02)
    assert np.mean([s.low <= 1 <= s.high for s in spreads]) == pytest.approx(0.95, abs=0.01)


def test_the_ends_of_the_range():
    assert pairs_needed(1, 0) == 2
    assert pairs_needed(100, 1) == 2
    assert pairs_needed(0, 1) is None
    assert pairs_needed(1e-4, 1) is None
    # (1.96 + 0.84)² / d² pairs for small d.
    assert pairs_needed(0.01, 1) == pytest.approx((1.9600 + 0.8416) ** 2 / 0.01**2, rel=1e-3)
    assert pairs_needed(0.01, 1) < MOST_PAIRS

"""Intervals against values worked out otherwise, and their coverage."""

import math

import numpy as np
import pytest
from scipy import stats

from hw4.stats import Interval, mean_interval, paired_difference, paired_ratio
from tests.factory import require


def test_the_interval_of_a_mean_is_scipys_t_test() -> None:
    values = [9.1, 10.4, 8.7, 11.2, 9.9]
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    found = mean_interval(values)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-12)
    assert found.estimate == pytest.approx(sum(values) / 5, rel=1e-15)
    assert found.n == 5


def test_paired_differences_and_ratios_are_paired() -> None:
    pairs = [(2.0, 1.0), (20.0, 10.0), (200.0, 100.0)]
    ratio = paired_ratio(pairs)
    assert (ratio.estimate, ratio.low, ratio.high) == pytest.approx((2, 2, 2))
    expected = stats.ttest_rel([a for a, _ in pairs], [b for _, b in pairs]).confidence_interval(0.95)
    found = paired_difference(pairs)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-12)


def test_95_percent_intervals_cover_95_percent_of_the_time() -> None:
    draws = np.random.default_rng(0).normal(3, 2, (2_000, 5))
    covered = np.mean([(i := mean_interval(list(row))).low <= 3 <= i.high for row in draws])
    # Standard deviation of the share of 2,000 is 0.5%; four of them either way.
    assert covered == pytest.approx(0.95, abs=0.02)


def test_three_outcomes() -> None:
    assert Interval(1, 0.8, 1.2, 5).compared_with(2) == "below"
    assert Interval(1, 0.8, 1.2, 5).compared_with(0) == "above"
    assert Interval(1, 0.8, 1.2, 5).compared_with(1.2) == "not decided"
    assert mean_interval([5.0]).compared_with(0) == "not decided", "one seed decides nothing"
    require(Interval(1, 0.8, 1.2, 5), "below", 2)
    for value, words in ((0, "fails"), (1, "is not decided")):
        with pytest.raises(AssertionError, match=f"'below {value}' {words}"):
            require(Interval(1, 0.8, 1.2, 5), "below", value)


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_values_without_a_mean_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="all finite"):
        mean_interval(values)


def test_ratios_need_positive_values() -> None:
    with pytest.raises(ValueError, match="positive"):
        paired_ratio([(1.0, 0.0)])

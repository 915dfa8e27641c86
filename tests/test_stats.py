"""Intervals against values worked out otherwise, and their coverage."""

import itertools
import math
import statistics

import numpy as np
import pytest
from scipy import stats

from hw4.stats import (
    Comparison,
    Interval,
    compare_crossed,
    holm,
    mcnemar,
    mean_interval,
    paired_difference,
    paired_ratio,
    permutation_test,
    prediction_interval,
)
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
    assert [Interval(1, 0.8, 1.2, 5).compared_with(end) for end in (0.8, 1.2)] == ["not decided"] * 2
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


def test_a_prediction_interval_is_the_textbooks() -> None:
    values = [9.1, 10.4, 8.7, 11.2, 9.9]
    mean, reach = statistics.mean(values), stats.t.ppf(0.975, 4) * statistics.stdev(values) * math.sqrt(1 + 1 / 5)
    found = prediction_interval(values)
    assert (found.low, found.estimate, found.high) == pytest.approx((mean - reach, mean, mean + reach), rel=1e-12)


def test_a_permutation_test_counts_partitions() -> None:
    assert permutation_test([3, 4], [1, 2]) == pytest.approx(2 / 6), "the most extreme of six partitions, on two sides"
    assert permutation_test([1, 2, 3], [1, 2, 3]) == 1
    first, second = [1.0, 7.0, 3.5], [8.0, 6.5, 9.25, 2.0]
    seen = statistics.mean(second) - statistics.mean(first)
    parts = [(part, [v for v in first + second if v not in part]) for part in itertools.combinations(first + second, 3)]
    gaps = [statistics.mean(rest) - statistics.mean(part) for part, rest in parts]
    smaller_tail = min(sum(gap >= seen for gap in gaps), sum(gap <= seen for gap in gaps)) / len(gaps)
    assert permutation_test(first, second) == pytest.approx(2 * smaller_tail)
    for sides in (([1.0], [2.0, 3.0]), ([1.0, 2.0], [3.0])):
        with pytest.raises(ValueError, match="at least two values on each side"):
            permutation_test(*sides)


def test_a_crossed_comparison_adds_the_errors_of_trials_and_of_questions() -> None:
    first, second = (
        np.array([[1, 1, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]]),
        np.array([[0, 1, 0, 0], [1, 0, 1, 0], [0] * 4]),
    )
    trials, questions = [0.5, 0.0, 1.0], [2 / 3, 1 / 3, 0.0, 1.0]  # means of the differences, by row and by column
    error = math.sqrt(statistics.variance(trials) / 3 + statistics.variance(questions) / 4)
    reach = float(stats.t.ppf(0.975, 2)) * error
    found = compare_crossed(first, second)
    assert (found.difference.low, found.difference.estimate, found.difference.high) == pytest.approx(
        (0.5 - reach, 0.5, 0.5 + reach), rel=1e-12
    )
    assert found.difference.n == 3
    assert found.p_value == pytest.approx(2 * stats.t.cdf(-0.5 / error, 2), rel=1e-12)
    assert compare_crossed(second, first).p_value == pytest.approx(found.p_value)
    same, more = np.zeros((2, 2)), np.ones((2, 2))
    assert compare_crossed(same, same) == Comparison(Interval(0, 0, 0, 2), 1.0), "nothing differs"
    assert compare_crossed(more, same) == Comparison(Interval(1, 1, 1, 2), 0.0), "everything does, always"
    assert len({compare_crossed(same, same), compare_crossed(same, same)}) == 1, "equal values are one key"


@pytest.mark.parametrize("shapes", [((1, 5), (1, 5)), ((5, 1), (5, 1)), ((2, 3), (3, 2)), ((2, 2, 2), (2, 2, 2))])
def test_crossed_comparisons_need_two_of_each(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="at least 2"):
        compare_crossed(np.ones(shapes[0]), np.ones(shapes[1]))


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_mcnemars_p_value_is_counted() -> None:
    for first, second in itertools.product(range(7), repeat=2):
        n = first + second
        tail = sum(math.comb(n, k) for k in range(min(first, second) + 1)) / 2**n
        assert mcnemar(first, second) == pytest.approx(min(1, 2 * tail), rel=1e-12)
    assert mcnemar(0, 0) == 1
    assert mcnemar(0, 6) == mcnemar(6, 0) == 2 / 64
    with pytest.raises(ValueError, match="at least 0, got -1 and 3"):
        mcnemar(-1, 3)

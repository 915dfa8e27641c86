"""Intervals against values worked out otherwise, and their coverage."""

import itertools
import math
import statistics

import numpy as np
import pytest
from scipy import stats

from hw4.stats import (
    Interval,
    compare_crossed,
    geometric_interval,
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


@pytest.mark.parametrize("n", [2, 5, 10])
def test_every_interval_over_seeds_covers_as_it_says(n: int) -> None:
    """Differences and ratios of n pairs that share their seed's part, and what one more run gives."""
    random = np.random.default_rng(n)
    seeds, noise = random.normal(0, 1, (1_000, n, 1)), random.normal(0, 0.3, (1_000, n, 2))
    new = random.normal(0, math.hypot(1, 0.3), 1_000)
    pairs = seeds + noise + [0.2, 0.0]
    kinds = {
        "difference": ([paired_difference(each) for each in pairs], np.full(1_000, 0.2)),
        "ratio": ([paired_ratio(np.exp(each)) for each in pairs], np.full(1_000, math.exp(0.2))),
        "geometric": ([geometric_interval(np.exp(each[:, 1])) for each in pairs], np.ones(1_000)),
        "prediction": ([prediction_interval(each[:, 1]) for each in pairs], new),
    }
    for name, (found, truths) in kinds.items():
        covered = np.mean([each.low <= truth <= each.high for each, truth in zip(found, truths, strict=True)])
        # The share of 1,000 has a standard deviation of 0.7%; four of them either way.
        assert covered == pytest.approx(0.95, abs=0.028), name


@pytest.mark.parametrize("shape", [(10, 500), (2, 2), (2, 50), (5, 5), (100, 3), (3, 100)], ids=str)
def test_crossed_intervals_cover_at_least_as_they_say(shape: tuple[int, int]) -> None:
    """Whatever of trials, questions and both together the differences vary by; also of answers right or wrong."""
    random, (trials, questions) = np.random.default_rng(0), shape
    for by_trial, by_question, by_both in ((1, 1, 0), (0, 1, 0), (1, 0.2, 0), (0.3, 0.3, 1)):
        covered = 0
        for _ in range(400):
            gap = by_trial * random.normal(size=(trials, 1)) + by_question * random.normal(size=(1, questions))
            found = compare_crossed(gap + by_both * random.normal(size=shape), np.zeros(shape))[0]
            covered += found.low <= 0 <= found.high
        # The share of 400 has a standard deviation of 1.1%; four of them below.
        assert covered / 400 >= 0.95 - 0.044, (by_trial, by_question, by_both)
    covered = refused = 0
    for _ in range(400):
        chances = 0.5 + random.normal(0, 0.05, (2, trials, 1)) + random.normal(0, 0.2, (2, 1, questions))
        try:
            found = compare_crossed(*(random.random((2, *shape)) < chances))[0]
        except ValueError:
            refused += 1
        else:
            covered += found.low <= 0 <= found.high
    assert refused < 100
    assert covered / (400 - refused) >= 0.95 - 0.05


@pytest.mark.parametrize("factor", [2.0**-700, 1.0, 2.0**1020])
def test_sizes_of_numbers_change_nothing_but_the_unit(factor: float) -> None:
    values = [9.1, 10.4, 8.7, 11.2, 9.9]
    plain, found = mean_interval(values), mean_interval(np.array(values) * factor)
    assert [found.estimate, found.low, found.high] == [
        each * factor for each in (plain.estimate, plain.low, plain.high)
    ]
    tables = np.random.default_rng(0).normal(size=(2, 3, 4))
    crossed, scaled = compare_crossed(*tables), compare_crossed(*(tables * factor))
    assert scaled[0].low == crossed[0].low * factor
    assert scaled[1] == crossed[1]
    ratio = paired_ratio([(4 * factor, 2.0), (5 * factor, 2.0)])
    assert ratio.estimate == pytest.approx(math.sqrt(5) * factor, rel=1e-12)
    assert permutation_test(np.array([14, 15]) * factor, np.array([12, 13]) * factor) == pytest.approx(2 / 6)


def test_what_leaves_the_floats_is_unbounded() -> None:
    far = mean_interval([-1.7e308, 1.7e308])
    assert (far.estimate, far.low, far.high) == (0, -math.inf, math.inf)
    assert paired_ratio([(1e308, 1e-308)] * 2).estimate == math.inf
    assert paired_ratio([(1e308, 1e-300), (1e-300, 1e308)]).high == math.inf


def test_three_outcomes() -> None:
    assert Interval(1, 0.8, 1.2, 5).compared_with(2) == "below"
    assert Interval(1, 0.8, 1.2, 5).compared_with(0) == "above"
    assert [Interval(1, 0.8, 1.2, 5).compared_with(end) for end in (0.8, 1.2)] == ["not decided"] * 2
    assert mean_interval([5.0]).compared_with(0) == "not decided", "one seed decides nothing"
    require(Interval(1, 0.8, 1.2, 5), "below", 2)
    for value, words in ((0, "fails"), (1, "is not decided")):
        with pytest.raises(AssertionError, match=f"'below {value}' {words}"):
            require(Interval(1, 0.8, 1.2, 5), "below", value)


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf], np.ones((2, 2))])
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
    with pytest.raises(ValueError, match="all finite"):
        permutation_test([1.0, math.nan], [2.0, 3.0])
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
    assert (found[0].low, found[0].estimate, found[0].high) == pytest.approx((0.5 - reach, 0.5, 0.5 + reach), rel=1e-12)
    assert found[0].n == 3
    assert found[1] == pytest.approx(2 * stats.t.cdf(-0.5 / error, 2), rel=1e-12)
    assert compare_crossed(second, first)[1] == pytest.approx(found[1])
    fewer = compare_crossed(first.T, second.T)
    assert fewer[1] == pytest.approx(found[1]), "the degrees of freedom are the fewer of the two's"
    assert fewer[0].low == pytest.approx(found[0].low)
    assert fewer[0].n == 4
    assert len({found, compare_crossed(first, second)}) == 1, "equal values are one key"


@pytest.mark.parametrize("gap", [np.zeros((2, 2)), np.full((5, 3), 0.1), np.array([[1, -1], [-1, 1]])])
def test_a_crossed_comparison_without_an_error_is_refused(gap: np.ndarray) -> None:
    with pytest.raises(ValueError, match="vary neither by trial nor by question"):
        compare_crossed(gap, np.zeros_like(gap))
    with pytest.raises(ValueError, match="all finite, got \\[nan"):
        compare_crossed(gap, np.full_like(gap, math.nan, dtype=float))


@pytest.mark.parametrize("shapes", [((1, 5), (1, 5)), ((5, 1), (5, 1)), ((2, 3), (3, 2)), ((2, 2, 2), (2, 2, 2))])
def test_crossed_comparisons_need_two_of_each(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="at least 2"):
        compare_crossed(np.ones(shapes[0]), np.ones(shapes[1]))


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == holm(np.array([])) == []
    assert holm(np.array([0.0, 1.0])) == [0.0, 1.0]
    for bad in (math.nan, -0.01, 1.01):
        for place in range(3):
            with pytest.raises(ValueError, match=rf"from 0 to 1, got {bad}"):
                holm([*[0.5] * place, bad, *[0.5] * (2 - place)])


def test_mcnemars_p_value_is_counted() -> None:
    for first, second in itertools.product(range(7), repeat=2):
        n = first + second
        tail = sum(math.comb(n, k) for k in range(min(first, second) + 1)) / 2**n
        assert mcnemar(first, second) == pytest.approx(min(1, 2 * tail), rel=1e-12)
    assert mcnemar(0, 0) == 1
    assert mcnemar(0, 6) == mcnemar(6, 0) == 2 / 64
    with pytest.raises(ValueError, match="at least 0, got -1 and 3"):
        mcnemar(-1, 3)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_scatter_is_told_from_rounding_at_every_scale(scale: float) -> None:
    assert Interval(scale, 0.999 * scale, 1.001 * scale, 3).compared_with(0.5 * scale) == "above"
    assert Interval(scale, scale * (1 - 1e-16), scale, 3).compared_with(0.5 * scale) == "not decided"
    assert Interval(0, 0, 0, 3).compared_with(-scale) == "not decided"

"""Intervals over seeds, thin over scipy.stats. The seed is the unit of replication."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats
from scipy.special import stdtr, stdtrit

CONFIDENCE = 0.95
ROUNDING = 1e-12  # values that differ by less than this share of the largest are equal, but for how they were computed
LARGEST_LOG = math.log(np.finfo(float).max)


@dataclass(frozen=True)
class Interval:
    """An estimate from ``n`` seeds with its confidence interval, which is unbounded when n < 2."""

    estimate: float
    low: float
    high: float
    n: int

    def compared_with(self, value: float) -> Literal["below", "above", "not decided"]:
        """Say on which side of ``value`` the whole interval lies, if on one; without scatter nothing is told apart."""
        if self.n > 1 and self.high - self.low <= ROUNDING * max(abs(self.low), abs(self.high)):
            return "not decided"
        if self.high < value:
            return "below"
        return "above" if self.low > value else "not decided"


Values = Sequence[float] | np.ndarray  # numbers in a row, as a list or as an array of one axis


def _scaled(values: Values) -> tuple[np.ndarray, int]:
    """Values over two to some power, which is exact and keeps their squares in range, and that power.

    Raises ValueError for no values or one that is not finite.
    """
    found = np.asarray(values, dtype=float)
    bad = found[~np.isfinite(found)].tolist()
    if found.ndim != 1 or not found.size or bad:
        raise ValueError(f"expected at least one value in a row, all finite, got {bad[:3] or found.tolist()}")
    exponent = int(np.frexp(np.abs(found).max())[1])
    return np.ldexp(found, -exponent), exponent


def _around(mean: float, half_width: float, n: int, exponent: int = 0) -> Interval:
    """The interval of what was scaled; unbounded where its ends leave what a float can be."""
    with np.errstate(over="ignore"):
        ends = np.ldexp([mean, mean - half_width, mean + half_width], exponent)
    return Interval(float(ends[0]), float(ends[1]), float(ends[2]), n)


def mean_interval(values: Values) -> Interval:
    """Mean over seeds with Student's t interval; raises ValueError for no values or one that is not finite."""
    scaled, exponent = _scaled(values)
    n = len(scaled)
    half_width = math.inf
    if n > 1:
        error = float(np.std(scaled, ddof=1)) / math.sqrt(n)  # scipy's sem, without half a millisecond for each call
        half_width = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * error
    return _around(math.fsum(scaled) / n, half_width, n, exponent)


def prediction_interval(values: Values) -> Interval:
    """Mean of ``values`` with the interval in which one new value lies: Student's t, mean ± t s sqrt(1 + 1/n).

    Exact for values from one normal distribution; put those with bounds on a scale without (log, logit) first. Raises
    ValueError as :func:`mean_interval`, whose interval for the mean is narrower by sqrt(n + 1).
    """
    found = mean_interval(values)
    half_width = (found.high - found.estimate) * math.sqrt(found.n + 1)
    return Interval(found.estimate, found.estimate - half_width, found.estimate + half_width, found.n)


PERMUTATIONS = 20_000
"""So many partitions are taken at most: an adjusted p-value of 0.05 is then known to 0.003 (standard error 0.0015)."""


def permutation_test(first: Values, second: Values) -> float:
    """Two-sided p-value of the difference in means of two independent samples, over partitions of their union.

    All partitions where there are at most ``PERMUTATIONS``, else so many at random, always the same. Raises ValueError
    for fewer than two values on a side, or one that is not finite.
    """
    if min(len(first), len(second)) < 2:
        raise ValueError(f"expected at least two values on each side, got {len(first)} and {len(second)}")

    scaled, _ = _scaled([*first, *second])
    found = stats.permutation_test(
        (scaled[: len(first)], scaled[len(first) :]),
        lambda a, b, axis: a.mean(axis=axis) - b.mean(axis=axis),
        vectorized=True,
        n_resamples=PERMUTATIONS,
        batch=10_000,
        random_state=np.random.default_rng(0),
    )
    return float(found.pvalue)


def paired_difference(pairs: Sequence[tuple[float, float]]) -> Interval:
    """Mean over seeds of first - second, given (first, second) per seed, with the t interval of the differences."""
    return mean_interval([first - second for first, second in pairs])


def geometric_interval(values: Values) -> Interval:
    """Geometric mean of positive values, with the t interval of the logs; raises ValueError for a value <= 0."""
    if any(value <= 0 for value in values):
        raise ValueError(f"a geometric mean needs positive values, got {list(values)}")
    return _of_logs(mean_interval([math.log(value) for value in values]))


def _of_logs(logs: Interval) -> Interval:
    """The interval of what these are the logs of; unbounded above where that leaves what a float can be."""
    estimate, low, high = (
        math.exp(log) if log < LARGEST_LOG else math.inf for log in (logs.estimate, logs.low, logs.high)
    )
    return Interval(estimate, low, high, logs.n)


def paired_ratio(pairs: Sequence[tuple[float, float]]) -> Interval:
    """Geometric mean over seeds of first / second, given (first, second) per seed, with the t interval of the logs.

    Raises ValueError when a value is not positive.
    """
    if any(value <= 0 for pair in pairs for value in pair):
        raise ValueError(f"ratios need positive values, got {list(pairs)}")
    return _of_logs(mean_interval([math.log(first) - math.log(second) for first, second in pairs]))


def compare_crossed(first: np.ndarray, second: np.ndarray) -> tuple[Interval, float]:
    """Mean difference of arrays (trials, questions) paired in both, for new trials and new questions, and its p-value.

    Trials and questions are crossed random samples. The variance of the mean is taken as (variance of the trials'
    means) / trials + (variance of the questions' means) / questions, which counts their interaction twice and so errs
    on the safe side; so does Student's t with the lesser of trials - 1 and questions - 1 degrees of freedom.

    Raises ValueError for shapes that differ, fewer than two trials or questions, values that are not finite, and
    differences whose means vary neither by trial nor by question: how far others would lie cannot be told then.
    """
    if first.shape != second.shape or first.ndim != 2 or min(first.shape) < 2:
        raise ValueError(f"expected equal shapes (trials, questions) of at least 2, got {first.shape}, {second.shape}")
    trials, questions = first.shape
    scaled, exponent = _scaled(np.concatenate([first, second], axis=None))
    gap = np.subtract(*scaled.reshape(2, trials, questions))
    estimate, freedom = float(gap.mean()), min(trials, questions) - 1
    error = math.sqrt(gap.mean(axis=1).var(ddof=1) / trials + gap.mean(axis=0).var(ddof=1) / questions)
    if error <= np.finfo(float).eps:  # of the largest value: nothing but rounding
        raise ValueError("the differences vary neither by trial nor by question, so their error cannot be estimated")
    half_width = float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * error
    return _around(estimate, half_width, trials, exponent), float(2 * stdtr(freedom, -abs(estimate) / error))


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p-value of paired outcomes, from how often one only, or the other only, succeeded.

    McNemar's test (1947) by the binomial distribution; 1 where no pair differs. Raises ValueError below 0.
    """
    if min(only_first, only_second) < 0:
        raise ValueError(f"expected counts of at least 0, got {only_first} and {only_second}")
    pairs = only_first + only_second
    return float(stats.binomtest(only_first, pairs).pvalue) if pairs else 1.0


def holm(p_values: Values) -> list[float]:
    """Holm's step-down adjustment (1979): p-values that may each be held against the family's level, in order.

    Raises ValueError for one that is not from 0 to 1.
    """
    if bad := [p for p in p_values if not 0 <= p <= 1]:
        raise ValueError(f"a p-value lies from 0 to 1, got {', '.join(map(str, bad))}")
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, float((len(p_values) - rank) * p_values[index])))
        adjusted[index] = largest
    return adjusted

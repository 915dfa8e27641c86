"""Intervals over seeds, thin over scipy.stats. The seed is the unit of replication."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate from ``n`` seeds with its confidence interval, which is unbounded when n < 2."""

    estimate: float
    low: float
    high: float
    n: int

    def compared_with(self, value: float) -> Literal["below", "above", "not decided"]:
        """Say on which side of ``value`` the whole interval lies, if on one."""
        if self.high < value:
            return "below"
        return "above" if self.low > value else "not decided"


def mean_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Mean over seeds with Student's t interval; raises ValueError for no values or one that is not finite."""
    if not values or not all(map(math.isfinite, values)):
        raise ValueError(f"expected at least one value, all finite, got {list(values)}")
    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return Interval(mean, -math.inf, math.inf, n)
    half_width = float(stats.t.ppf((1 + confidence) / 2, n - 1) * stats.sem(values))
    return Interval(mean, mean - half_width, mean + half_width, n)


def paired_difference(pairs: Sequence[tuple[float, float]], confidence: float = CONFIDENCE) -> Interval:
    """Mean over seeds of first - second, given (first, second) per seed, with the t interval of the differences."""
    return mean_interval([first - second for first, second in pairs], confidence)


def paired_ratio(pairs: Sequence[tuple[float, float]], confidence: float = CONFIDENCE) -> Interval:
    """Geometric mean over seeds of first / second, given (first, second) per seed, with the t interval of the logs.

    Raises ValueError when a value is not positive.
    """
    if any(value <= 0 for pair in pairs for value in pair):
        raise ValueError(f"ratios need positive values, got {list(pairs)}")
    logs = mean_interval([math.log(first / second) for first, second in pairs], confidence)
    return Interval(math.exp(logs.estimate), math.exp(logs.low), math.exp(logs.high), logs.n)

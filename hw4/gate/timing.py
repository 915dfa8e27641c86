"""Judging times: ratios to a frozen reference, each with the error of its own measurement. Nothing is timed here.

The unit of replication is a visit: some rounds of one benchmark in a row, on a workload built anew. In every round
today's code runs twice (an A/A arm: the two must not differ) and once slowed down by a known share (a planted slowdown:
it must be seen), in random order, with the frozen reference right before and right after.
"""

import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from hw4.gate.verdicts import Finding, refusal

MARGIN = 1.025
"""Slowdowns up to this ratio pass: three standard deviations of what unchanged code measures in other processes."""
Z = 2.33
"""A slowdown or speedup must also exceed its standard error so many times: one-sided 99%, asked for twice."""
PLANTED = 0.10
ROUNDS = 5
"""Rounds in a visit."""
LEAST_VISITS = 12
WANTED_ERROR, LARGEST_ERROR = 0.007, 0.013
"""Standard errors of a log ratio: what is measured for, and beyond which nothing is said."""
PROCESS_ERROR = 0.005
"""Error shared by all visits to the same processes (memory layout); more visits do not reduce it."""
TRIMMED = 0.2

Slice = str | float
Visit = Callable[[str, list[Slice]], list[float]]
"""Times slices of a benchmark in a row: "reference", or a number for today's code slowed down by that share."""


@dataclass(frozen=True)
class Estimate:
    """A log ratio with its standard error."""

    log: float
    error: float

    @property
    def ratio(self) -> float:
        """The ratio itself."""
        return math.exp(self.log)

    def minus(self, other: "Estimate") -> "Estimate":
        """The difference of two independent estimates."""
        return Estimate(self.log - other.log, math.hypot(self.error, other.error))

    @property
    def slower(self) -> bool:
        """Whether it is a slowdown beyond the margin, and beyond what its own error explains."""
        return self.log > math.log(MARGIN) and self.log > Z * self.error

    @property
    def faster(self) -> bool:
        """Whether it is a speedup beyond the margin, and beyond what its own error explains."""
        return Estimate(-self.log, self.error).slower

    def __str__(self) -> str:
        low, high = (math.exp(self.log + sign * 1.96 * self.error) for sign in (-1, 1))
        return f"{self.ratio:.3f} [{low:.3f}, {high:.3f}]"


def estimate(values: Sequence[float]) -> Estimate:
    """Trimmed mean of visits' log ratios with its winsorised standard error (Tukey and McLaughlin, 1963).

    A fifth of the visits is left out at either end, for noise only ever has a tail on one side of a time, and a ratio
    may have it on either.
    """
    ordered = np.sort(np.asarray(values, dtype=float))
    n = len(ordered)
    if n < 3:
        return Estimate(float(ordered.mean()) if n else 0.0, math.inf)
    cut = int(TRIMMED * n)
    winsorised = np.clip(ordered, ordered[cut], ordered[n - cut - 1])
    error = float(winsorised.std(ddof=1)) / ((1 - 2 * cut / n) * math.sqrt(n))
    return Estimate(float(ordered[cut : n - cut].mean()), error)


@dataclass
class Sample:
    """What the visits to one benchmark gave, as log ratios: today's code to the reference, A to A, planted to not."""

    ratios: list[float] = field(default_factory=list)
    same: list[float] = field(default_factory=list)
    planted: list[float] = field(default_factory=list)

    def visit(self, name: str, visit: Visit, rng: random.Random, slower: float = 0.0) -> None:
        """Make one visit; ``slower`` slows today's code down, for the gate's own validation."""
        shares = (slower, slower, (1 + slower) * (1 + PLANTED) - 1)
        orders = [rng.sample(range(3), 3) for _ in range(ROUNDS)]
        slices: list[Slice] = ["reference"]
        for order in orders:
            slices += [*(shares[arm] for arm in order), "reference"]
        logs = np.log(visit(name, slices))
        rounds = []
        for index, order in enumerate(orders):
            piece = logs[4 * index : 4 * index + 5]
            arms = dict(zip(order, piece[1:4], strict=True))
            today = (arms[0] + arms[1]) / 2
            rounds.append((today - (piece[0] + piece[4]) / 2, arms[0] - arms[1], arms[2] - today))
        for into, values in zip((self.ratios, self.same, self.planted), zip(*rounds, strict=True), strict=True):
            into.append(float(np.median(values)))

    @property
    def now(self) -> Estimate:
        """Ratio of today's code to the reference, with the error of the visits and of the process."""
        visits = estimate(self.ratios)
        return Estimate(visits.log, math.hypot(visits.error, PROCESS_ERROR))

    @property
    def self_check(self) -> str:
        """What is wrong with the measurement itself, or nothing."""
        if len(self.ratios) < LEAST_VISITS:
            return f"only {len(self.ratios)} of at least {LEAST_VISITS} visits were made"
        same, planted = estimate(self.same), estimate(self.planted)
        if same.slower or same.faster:
            return f"the same code timed twice differs by a factor of {same}"
        if not planted.slower:
            return f"a planted slowdown of {PLANTED:.0%} was not seen ({planted})"
        return ""

    @property
    def precise(self) -> bool:
        """Whether more visits are not needed."""
        return not self.self_check and estimate(self.ratios).error <= WANTED_ERROR


def judge(name: str, before: Estimate, sample: Sample) -> Finding:
    """Compare a benchmark with what it was, by ratios to the frozen reference."""
    now = sample.now
    change = now.minus(before)
    problem = sample.self_check
    if not problem and change.error > LARGEST_ERROR:
        problem = f"the error of the change is {change.error:.1%}, above {LARGEST_ERROR:.1%}"
    if problem:
        return refusal("timing", name, f"{problem}; run again, or on a machine with less beside it")
    same, planted = estimate(sample.same), estimate(sample.planted)
    advice = ""
    if change.slower:
        advice = "slower, in two independent measurements: find out why, or take it with 'hw4 gate --update'"
    elif change.faster:
        advice = "faster: 'hw4 gate --update' keeps it from being lost again"
    return Finding(
        part="timing",
        what=name,
        before=f"{before.ratio:.3f}",
        now=f"{now.ratio:.3f}",
        change=f"x {change}",
        verdict="REGRESSION" if change.slower else "PASS",
        advice=advice,
        numbers={
            "before": before.ratio,
            "now": now.ratio,
            "change": change.ratio,
            "error": change.error,
            "same_code": same.ratio,
            "planted": planted.ratio,
            "visits": len(sample.ratios),
        },
    )


def wanted(samples: Iterable[tuple[str, Sample]]) -> list[str]:
    """Benchmarks that need more visits."""
    return [name for name, sample in samples if not sample.precise]

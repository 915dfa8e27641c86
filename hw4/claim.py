"""What the records of ``hw4 claim`` decide: criteria, families of tests and their verdicts, fixed in docs/claim.md."""

import itertools
import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from scipy import stats

from hw4.readings import Block
from hw4.records import ConvNetRecord, PassRow
from hw4.specs import HOMEWORK_RATE
from hw4.stats import CONFIDENCE, ROUNDING, Interval, geometric_interval, holm, mcnemar, mean_interval
from hw4.studies import CONTROLS, LOOKED_AFTER, SETTLED_PASS, largest_working
from hw4.variants import EXERCISES, VARIANTS

PLAIN, NORMED = EXERCISES["smoothness"].variants
ACCURATE, FITTED, NEAR_BEST = 0.80, 0.50, 0.01
MATCHED_LOSSES = (0.4, 0.3)
AGREES = 1.25  # a factor agrees with another when their ratio's whole interval lies within this and its inverse
LEVEL = 1 - CONFIDENCE

RowMeasure = Callable[[PassRow], float | None]  # a number of a run after a pass, or None where it was not measured
Side = Literal["above", "below", "not decided"]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One test of a family: what is compared, on how many seeds, how large the effect is and what is decided.

    ``effect`` is a ratio or, with ``null`` 0, a slope or a difference; ``counts`` are pairs in which only the first,
    or only the second, is larger or lost. ``p_value`` is None where nothing can be tested; ``adjusted`` is Holm's in
    the family, in which such a test counts all the same.
    """

    family: str
    name: str
    n: int
    effect: Interval | None = None
    null: float = 1.0
    counts: tuple[int, int] | None = None
    p_value: float | None = None
    adjusted: float | None = None

    @property
    def verdict(self) -> Side:
        """On which side of ``null`` the effect lies, if that is decided."""
        if self.adjusted is None or self.adjusted > LEVEL:
            return "not decided"
        if self.counts is not None:
            return "above" if self.counts[0] > self.counts[1] else "below"
        assert self.effect is not None
        return "above" if self.effect.estimate > self.null else "below"

    @property
    def agrees(self) -> bool:
        """Whether the whole interval of a ratio is near 1: failing to differ alone would not say so."""
        return self.effect is not None and self.effect.low >= 1 / AGREES and self.effect.high <= AGREES


When = Callable[[int, int], bool]  # whether a row counts, by the passes completed and those of the whole run


def under_way(completed: int, passes: int) -> bool:
    """Passes 3 and later: the first ones leave the initialisation."""
    return completed >= min(SETTLED_PASS, passes)


def just(after: int) -> When:
    """After so many passes; 0 is before training."""
    return lambda completed, _passes: completed == after


def paired_counts(family: str, name: str, pairs: Sequence[tuple[bool, bool]]) -> Decision:
    """McNemar's test, or the sign test, on pairs of yes and no."""
    counts = sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
    return Decision(family=family, name=name, n=len(pairs), counts=counts, p_value=mcnemar(*counts) if pairs else None)


def ratio_test(family: str, name: str, ratios: Sequence[float]) -> Decision:
    """Student's t test of the logarithms of ratios, one for each seed."""
    logs = mean_test(family, name, list(map(math.log, ratios)))
    return replace(logs, effect=geometric_interval(ratios) if ratios else None, null=1.0)


def mean_test(family: str, name: str, values: Sequence[float]) -> Decision:
    """Student's t test of a mean against 0; without p-value where there is no scatter to judge by."""
    effect = mean_interval(values) if values else None
    scatter = len(values) > 1 and max(values) - min(values) > ROUNDING * max(map(abs, values))
    p_value = float(stats.ttest_1samp(values, 0.0).pvalue) if scatter else None
    return Decision(family=family, name=name, n=len(values), effect=effect, null=0.0, p_value=p_value)


def adjust(tests: Sequence[Decision]) -> list[Decision]:
    """Holm's adjustment within each family; a test that could not be made counts as one that found nothing."""
    found = []
    for family in dict.fromkeys(test.family for test in tests):
        mine = [test for test in tests if test.family == family]
        values = holm([1.0 if test.p_value is None else test.p_value for test in mine])
        found += [
            replace(test, adjusted=None if test.p_value is None else value)
            for test, value in zip(mine, values, strict=True)
        ]
    return found


def seen_by(test: Decision, tests: Sequence[Decision]) -> str:
    """The smallest effect that a test of this size finds with a power of 80%, in words."""
    family = sum(other.family == test.family for other in tests)
    if test.counts is not None:
        most = next((k for k in range(1, test.n + 1) if family * mcnemar(k, 0) <= LEVEL), None)
        return (
            f"{most} pairs, all one way"
            if most
            else f"nothing: {test.n} pair{' is' if test.n == 1 else 's are'} too few"
        )
    if test.effect is None or test.n < 2 or test.p_value is None:
        return "nothing"
    log = test.null == 1
    low, middle = (math.log(v) if log else v for v in (test.effect.low or math.ulp(0), test.effect.estimate))
    error = (middle - low) / float(stats.t.ppf((1 + CONFIDENCE) / 2, test.n - 1))
    least = error * float(stats.t.ppf(1 - LEVEL / 2 / family, test.n - 1) + stats.t.ppf(0.8, test.n - 1))
    if log:
        return f"a factor of {math.exp(least):.2f}" if least < math.log(10) else "nothing below a factor of 10"
    return f"{least:.2g}"


def accurate(run: ConvNetRecord) -> bool:
    """Whether a run is accurate; one that diverged is not."""
    return (run.last.test_accuracy or 0) >= ACCURATE


class Claim(NamedTuple):
    """A ladder's runs, controls and landscapes, all of one data set."""

    ladder: list[ConvNetRecord]
    landscapes: list[ConvNetRecord]
    controls: list[ConvNetRecord]

    @property
    def seeds(self) -> list[int]:
        """Every seed of the ladder."""
        return sorted({run.spec.seed for run in self.ladder})

    @property
    def rates(self) -> list[float]:
        """The ladder proper: rates that every seed of both networks was trained at; others narrow single brackets."""
        made = Counter(run.spec.learning_rate for run in self.ladder)
        return sorted(rate for rate, runs in made.items() if runs == 2 * len(self.seeds))

    @property
    def views(self) -> list[int]:
        """The seeds that were looked around in."""
        return sorted({run.spec.seed for run in self.landscapes if run.spec.range_view})

    def of(self, variant: str, *, rate: float | None = None) -> list[ConvNetRecord]:
        """The ladder's runs of one network, at one learning rate where one is given, by rate and seed."""
        norm = VARIANTS[variant].norm
        return [run for run in self.ladder if run.spec.norm == norm and rate in {None, run.spec.learning_rate}]

    def best(self, variant: str) -> float:
        """The best mean test accuracy of a network at any rate at which all its runs are finite; 0 without any."""
        runs = [self.of(variant, rate=rate) for rate in self.rates]
        whole = [each for each in runs if None not in {run.last.test_accuracy for run in each}]
        return max(
            (statistics.fmean(run.last.test_accuracy or 0 for run in each) for each in whole if each), default=0.0
        )

    def criteria(self, variant: str) -> dict[str, Callable[[ConvNetRecord], bool]]:
        """When a network's run works, by each criterion."""
        best = self.best(variant)
        return {
            "finite": lambda run: run.last.train_loss is not None,
            "learnt": lambda run: run.outcome == "trained",
            "accurate": accurate,
            "fitted": lambda run: run.last.train_loss is not None and run.last.train_loss <= FITTED,
            "own best": lambda run: (run.last.test_accuracy or 0) >= best - NEAR_BEST,
        }

    def working(self, variant: str, criterion: str) -> dict[int, tuple[float, float]]:
        """By seed, the largest rate up to which it works, and the next; 0 or infinity where censored."""
        works = self.criteria(variant)[criterion]
        runs = self.of(variant)
        return {
            seed: largest_working([run for run in runs if run.spec.seed == seed], works)
            for seed in sorted({run.spec.seed for run in runs})
        }

    def factors(self, criterion: str) -> dict[int, tuple[float, float]]:
        """By seed, between what the factor with over without BatchNorm lies.

        Nothing when any seed is censored in any network: those that are not would be a selected sample.
        """
        plain, normed = (self.working(variant, criterion) for variant in (PLAIN, NORMED))
        both = {seed: (plain[seed], normed[seed]) for seed in plain if seed in normed}
        if not all(low > 0 and high < math.inf for pair in both.values() for low, high in pair):
            return {}
        return {seed: (b[0] / a[1], b[1] / a[0]) for seed, (a, b) in both.items()}

    def smoothness_at(self, rate: float) -> dict[str, dict[int, float]]:
        """Effective smoothness at the end of the ladder's runs at a rate, by network and seed, of those that learnt."""
        return {
            variant: {
                run.spec.seed: run.last.smoothness
                for run in self.of(variant, rate=rate)
                if run.outcome == "trained" and run.last.smoothness
            }
            for variant in (PLAIN, NORMED)
        }

    def control(self, name: str, variant: str, rate: float) -> dict[int, ConvNetRecord]:
        """A control's runs of one network at one rate, by seed."""
        told = {field for control in CONTROLS.values() for field in control.settings}
        settings = {field: getattr(self.ladder[0].spec, field) for field in told} | {**CONTROLS[name].settings}
        return {
            run.spec.seed: run
            for run in self.controls
            if (run.spec.variant, run.spec.learning_rate) == (variant, rate)
            and all(getattr(run.spec, field) == value for field, value in settings.items())
        }

    def values(self, variant: str, measure: RowMeasure, when: When = under_way) -> dict[int, float]:
        """A landscape measure's geometric mean by seed, over the passes meant."""
        found = {}
        for run in (run for run in self.landscapes if run.spec.variant == variant):
            rows = [row for row in run.rows if when(row.completed, run.spec.passes)]
            taken = [value for row in rows if (value := measure(row)) is not None and value > 0]
            if taken:
                found[run.spec.seed] = statistics.geometric_mean(taken)
        return found

    def ratios(self, measure: RowMeasure, when: When = under_way) -> list[float]:
        """A landscape measure with BatchNorm over that without, by paired seed."""
        return divided(*(self.values(variant, measure, when) for variant in (NORMED, PLAIN)))


def divided(first: Mapping[int, float], second: Mapping[int, float]) -> list[float]:
    """Ratios of what two networks have, by paired seed."""
    return [first[seed] / second[seed] for seed in first if seed in second]


def hull(brackets: Sequence[tuple[float, float]]) -> Interval | None:
    """Interval of what lies in the brackets, one for each seed: their own widths count as well as their scatter."""
    if not brackets:
        return None
    low, high = map(geometric_interval, zip(*brackets, strict=True))
    ends = (low.low, high.high) if len(brackets) > 1 else (low.estimate, high.estimate)
    return Interval(math.sqrt(low.estimate * high.estimate), *ends, len(brackets))


# Measures of a row ----------------------------------------------------------------------------------------------------


def smoothness(row: PassRow) -> float | None:
    """Effective smoothness along the update."""
    return row.smoothness


def largest(row: PassRow) -> float | None:
    """Effective smoothness, the largest over the range of steps."""
    return row.view.largest if row.view is not None else None


def sharpest(row: PassRow) -> float | None:
    """Largest Hessian eigenvalue, where it was measured."""
    return row.sharpness.value if row.sharpness is not None else None


def layer(name: str, *, weight: bool = False) -> RowMeasure:
    """Gradient change over update of one layer's weight alone, in the first reading; or that weight's norm."""

    def measure(row: PassRow) -> float | None:
        found: list[Block] = [block for each in row.readings[:1] for block in each.blocks if block.name == name]
        if weight or not found:
            return found[0].weight_norm if found else None
        return found[0].gradient_change_norm / found[0].update_norm if found[0].update_norm > 0 else None

    return measure


def step(direction: str) -> RowMeasure:
    """The largest step in a direction, in learning rates, that does not raise the loss: its bracket's middle."""

    def measure(row: PassRow) -> float | None:
        found = [each for each in row.steps if each.direction == direction]
        return math.sqrt(found[0].stable * found[0].raised) if found and found[0].raised else None

    return measure


def room(row: PassRow) -> float | None:
    """The largest step down the gradient in units of 1/L of the same point."""
    found = step("gradient")(row)
    return found * row.smoothness if found and row.smoothness else None


def at_loss(run: ConvNetRecord, loss: float) -> float | None:
    """A run's smoothness where its train loss first falls to this, interpolated on logarithmic scales."""
    known = [
        (row.train_loss, row.smoothness) for row in run.rows if row.completed and row.train_loss and row.smoothness
    ]
    for (before, high), (after, low) in itertools.pairwise(known):
        if before >= loss >= after and before and after and high and low and before > after:
            share = math.log(before / loss) / math.log(before / after)
            return math.exp(math.log(high) * (1 - share) + math.log(low) * share)
    return None


# Families of tests ----------------------------------------------------------------------------------------------------

LARGER, BY_RATE, SMOOTH, REASON, EDGE, START, HEAD, GROUPS, MOMENTUM, STEPS = FAMILIES = (
    *("larger rates", "rate by rate", "smoothness", "smoothness as the reason", "smoothness and the rate"),
    *("the start", "the head", "batch statistics", "momentum", "steps"),
)
CAUSES = (START, HEAD, GROUPS, MOMENTUM)
"""The families that the controls decide."""


def decide(claim: Claim) -> list[Decision]:
    """Every test, family by family, adjusted within each."""
    families = (_larger, _by_rate, _smoother, _reason, _edge, _causes, _steps)
    return adjust([test for family in families for test in family(claim)])


def _larger(claim: Claim) -> Iterator[Decision]:
    for criterion in claim.criteria(PLAIN):
        plain, normed = (claim.working(variant, criterion) for variant in (PLAIN, NORMED))
        pairs = [(normed[seed][0] >= plain[seed][1], plain[seed][0] >= normed[seed][1]) for seed in plain]
        yield replace(paired_counts(LARGER, criterion, pairs), effect=hull(list(claim.factors(criterion).values())))


def _by_rate(claim: Claim) -> Iterator[Decision]:
    for criterion in claim.criteria(PLAIN):
        for rate in claim.rates:
            pairs = _lost(claim, criterion, [_by_seed(claim.of(name, rate=rate)) for name in (PLAIN, NORMED)])
            yield paired_counts(BY_RATE, f"{criterion}, at {rate:g}", pairs)


def _by_seed(runs: Sequence[ConvNetRecord]) -> dict[int, ConvNetRecord]:
    return {run.spec.seed: run for run in runs}


def _lost(claim: Claim, criterion: str, arms: Sequence[Mapping[int, ConvNetRecord]]) -> list[tuple[bool, bool]]:
    """For every seed that two arms share, whether its run is lost in the first, and in the second."""
    first, second = arms
    variants = {run.spec.variant for run in (*first.values(), *second.values())}
    met = {variant: claim.criteria(variant)[criterion] for variant in variants}
    return [
        (not met[a.spec.variant](a), not met[b.spec.variant](b))
        for a, b in ((first[seed], second[seed]) for seed in first if seed in second)
    ]


def _smoother(claim: Claim) -> Iterator[Decision]:
    yield ratio_test(SMOOTH, "at equal passes", claim.ratios(smoothness))
    for loss in MATCHED_LOSSES:
        known = [(run.spec, level) for run in claim.landscapes if (level := at_loss(run, loss))]
        levels = ({spec.seed: level for spec, level in known if spec.variant == each} for each in (NORMED, PLAIN))
        yield ratio_test(SMOOTH, f"at train loss {loss:g}", divided(*levels))


def predicted(claim: Claim) -> dict[int, float]:
    """By seed, the factor that smoothness at the homework's rate predicts: 1/L with over 1/L without BatchNorm."""
    plain, normed = claim.smoothness_at(HOMEWORK_RATE).values()
    return {seed: plain[seed] / normed[seed] for seed in plain if seed in normed}


def _reason(claim: Claim) -> Iterator[Decision]:
    expected = predicted(claim)
    for criterion in claim.criteria(PLAIN):
        found = [(ends, expected[seed]) for seed, ends in claim.factors(criterion).items() if seed in expected]
        test = ratio_test(REASON, criterion, [math.sqrt(low * high) / factor for (low, high), factor in found])
        yield replace(test, effect=hull([(low / factor, high / factor) for (low, high), factor in found]))


def slopes(claim: Claim, variant: str) -> dict[int, float]:
    """By seed, the slope of log L against log learning rate over the rates it has learnt at, at least three."""
    found = dict[int, float]()
    levels = {rate: claim.smoothness_at(rate)[variant] for rate in claim.rates}
    for seed in claim.seeds:
        points = [(rate, level[seed]) for rate, level in levels.items() if seed in level]
        if len(points) > 2:
            x, y = np.log(np.array(points)).T
            found[seed] = float(np.polyfit(x, y, 1)[0])
    return found


def _edge(claim: Claim) -> Iterator[Decision]:
    plain, normed = (slopes(claim, variant) for variant in (PLAIN, NORMED))
    yield mean_test(EDGE, "slope without BatchNorm", list(plain.values()))
    yield mean_test(EDGE, "slope with BatchNorm", list(normed.values()))
    yield mean_test(EDGE, "slope, with less without", [normed[seed] - plain[seed] for seed in normed if seed in plain])
    yield ratio_test(EDGE, "ratio of L at the largest rate both have learnt at, over that at 0.04", _moved(claim))


def _moved(claim: Claim) -> list[float]:
    """By seed, L with over without BatchNorm at the largest rate that both have learnt at, over the same at 0.04."""
    found, levels = [], [claim.smoothness_at(rate).values() for rate in claim.rates]
    for seed in claim.seeds:
        both = [normed[seed] / plain[seed] for plain, normed in levels if seed in normed and seed in plain]
        if len(both) > 1 and claim.rates[0] == HOMEWORK_RATE:
            found.append(both[-1] / both[0])
    return found


def _causes(claim: Claim) -> Iterator[Decision]:
    """What the controls change: runs lost in a control beside those of the ladder, or of another control."""

    def pair(family: str, name: str, criterion: str, *arms: Mapping[int, ConvNetRecord]) -> Decision:
        return paired_counts(family, name, _lost(claim, criterion, arms))

    without, slow = {PLAIN: "without BatchNorm", NORMED: "with BatchNorm"}, CONTROLS["head"].rates
    for variant, words in without.items():
        for rate in CONTROLS["warmup"].rates:
            late = claim.control("warmup", variant, rate)
            yield pair(START, f"{words} at {rate:g}", "learnt", _by_seed(claim.of(variant, rate=rate)), late)
    for rate in slow:
        arms = [claim.control("head", variant, rate) for variant in without]
        yield pair(HEAD, f"without against with BatchNorm at {rate:g}", "accurate", *arms)
    arms = [_by_seed(claim.of(NORMED, rate=slow[0])), claim.control("head", NORMED, slow[0])]
    yield pair(HEAD, f"BatchNorm at {slow[0]:g} for all against a slow head", "accurate", *arms)
    for rate in CONTROLS["groupnorm"].rates:
        group = claim.control("groupnorm", CONTROLS["groupnorm"].variants[0], rate)
        for variant, words in ((PLAIN, "no normalisation"), (NORMED, "BatchNorm")):
            arm = _by_seed(claim.of(variant, rate=rate))
            yield pair(GROUPS, f"{words} and GroupNorm at {rate:g}", "accurate", arm, group)
    for rate in CONTROLS["momentum"].rates:
        arms = [claim.control("momentum", variant, rate) for variant in without]
        yield pair(MOMENTUM, f"at {rate:g}", "accurate", *arms)


def _steps(claim: Claim) -> Iterator[Decision]:
    names = {
        "down the gradient": step("gradient"),
        "along minibatches": step("minibatch"),
        "down the gradient in units of 1/L": room,
    }
    for after in LOOKED_AFTER["step_passes"]:
        for name, measure in names.items():
            yield ratio_test(STEPS, f"{name}, after pass {after}", claim.ratios(measure, just(after)))

"""What judges: did a change make training slower or worse, and can that be said at all? Nothing is measured here.

Times are ratios to a frozen reference in the same process. The unit of replication is a visit: some rounds in a row, in
which today's code runs twice (an A/A arm: the two must not differ) and once slowed down by a known share (a planted
slowdown: it must come back as its own size), in random order, with the reference right before and right after.

Outcomes of training are paired by seed. The same code with the same libraries, class of processor and thread count
gives the same bits where training is deterministic, so there any difference is a change of the code. Elsewhere rounding
differs and training amplifies it, and one-sided t-tests of the paired differences decide, against a margin and
corrected by Holm's method. What such a test could not have seen is said, and is never a pass.
"""

import functools
import json
import math
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np

Verdict = Literal["PASS", "NEW", "REGRESSION", "CHANGED", "SUSPICIOUS", "UNMEASURABLE"]
FAILING: tuple[Verdict, ...] = ("REGRESSION", "CHANGED", "SUSPICIOUS")
EXIT_CODES = {"PASS": 0, "REGRESSION": 1, "CHANGED": 1, "SUSPICIOUS": 1, "UNMEASURABLE": 3}
Part = Literal["timing", "accuracy"]

MARGIN = 1.025
"""Slowdowns up to this ratio pass: three standard deviations of what unchanged code measures in other processes."""
CONFIDENCE = 0.99
"""A slowdown or speedup must also exceed what its error explains, one-sided; slowdowns are asked for twice."""
SIZE_CONFIDENCE = 0.9995
"""The planted slowdown misses its own size by more than this quantile of its error once in a thousand times."""
PLANTED = 0.10
ROUNDS = 5  # rounds in a visit
LEAST_VISITS = 12
WANTED_ERROR, LARGEST_ERROR = 0.007, 0.013
"""Standard errors of a log ratio: what is measured for, and beyond which nothing is said."""
LARGEST_DRIFT = 0.08
"""The slowdown that machine or hour may cause: twice the largest that was seen of unchanged code."""
PROCESS_ERROR = 0.005  # error shared by all visits to the same processes (memory layout); more visits do not reduce it
TRIMMED = 0.2

LARGEST_RATIO = 50.0
"""A step that takes less of the reference's time than a share of one over this does not do its work."""
MOSTLY_WAITING = 0.8  # where more of a call than this share is waiting, the rest says nothing of it

LEAST_SEEDS = 4  # fewer pairs than this cannot make a paired test see anything but the grossest change
LEVEL = 0.01
"""Chance of a false alarm over all outcomes of a session, worse and better together, beyond what the margins allow."""
ACCURACY_MARGIN, LOSS_MARGIN = 0.005, 0.01
"""What does not count as worse or better: half a percentage point of accuracy, a hundredth of the loss."""

Slice = str | float
Visit = Callable[[list[Slice]], tuple[list[float], float]]
"""Times slices in a row: "reference", or a number for today's code slowed down by that share.

Returns seconds, and the share of today's calls that the clock did not see.
"""


class UnmeasurableError(Exception):
    """Nothing can be said, for a reason that is known before or while measuring."""


class BrokenError(UnmeasurableError):
    """Today's code raised an error where it was to be measured, which is a failure like any other test's."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One row: what was looked at, before and now in words, the change with its interval, verdict and way out.

    ``numbers`` are what the words come from, ``compared`` says with what. ``path`` is its baseline's file, ``key`` its
    name in there, and ``keeps`` what a renewed baseline keeps of it.
    """

    part: Part
    what: str
    before: str = "-"
    now: str = "-"
    change: str = "-"
    verdict: Verdict
    advice: str = ""
    numbers: dict[str, float] = field(default_factory=dict)
    compared: str = ""
    path: str = ""
    key: str = ""
    keeps: dict[str, Any] = field(default_factory=dict)

    @property
    def cells(self) -> tuple[str, ...]:
        """Its row in a table, without the advice."""
        return (f"{self.part}: {self.what}", self.before, self.now, self.change, self.verdict)


def refusal(part: Part, what: str, sentence: str) -> Finding:
    """A finding that says why something cannot be measured."""
    return Finding(part=part, what=what, verdict="UNMEASURABLE", advice=sentence)


def overall(findings: Sequence[Finding]) -> Verdict:
    """One verdict: a failure if there is one, else UNMEASURABLE if anything is, else PASS.

    Every finding checked its own measurement. Nothing found, or a part in which everything is new, is nothing judged.
    """
    verdicts = [finding.verdict for finding in findings]
    for verdict in (*FAILING, "UNMEASURABLE"):
        if verdict in verdicts:
            return verdict
    judged = {finding.part for finding in findings if finding.verdict == "PASS"}
    return "PASS" if findings and judged == {finding.part for finding in findings} else "UNMEASURABLE"


def table(findings: Sequence[Finding]) -> str:
    """The findings as lines of text, columns aligned, advice below the row it belongs to."""
    rows: list[tuple[str, ...]] = [("", "before", "now", "change", "verdict")]
    rows += [finding.cells for finding in findings]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row, advice in zip(rows, ["", *(f.advice for f in findings)], strict=True):
        lines.append("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        lines += [f"    {advice}"] * bool(advice)
    return "\n".join(lines)


def as_json(findings: Sequence[Finding], facts: Mapping[str, object]) -> bytes:
    """The findings, the verdict over all and what is known of the circumstances."""
    verdict = overall(findings)
    head = {"verdict": verdict, "exit_code": EXIT_CODES[verdict], **facts}
    own = ("keeps", "path", "key", "compared")
    told = [{name: value for name, value in asdict(each).items() if name not in own} for each in findings]
    return (json.dumps({**head, "findings": told}, indent=1) + "\n").encode()


# --- times ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """A log ratio with its standard error and the degrees of freedom of that error."""

    log: float
    error: float
    freedom: float = math.inf

    @property
    def ratio(self) -> float:
        """The ratio itself."""
        return math.exp(self.log)

    def quantile(self, confidence: float) -> float:
        """So many standard errors bound the truth from one side (Student, 1908); ValueError for no such share."""
        from scipy.special import stdtrit

        if not 0 < confidence < 1:
            raise ValueError(f"a confidence is a share above 0 and below 1, got {confidence}; 95% is 0.95")
        return float(stdtrit(min(self.freedom, 1e6), confidence))

    def minus(self, other: "Estimate") -> "Estimate":
        """The difference of two independent estimates, degrees of freedom by Satterthwaite (1946)."""
        error = math.hypot(self.error, other.error)
        parts = sum(each.error**4 / each.freedom for each in (self, other))
        return Estimate(self.log - other.log, error, error**4 / parts if parts else math.inf)

    def slower(self, margin: float | None = None) -> bool:
        """Whether it is a slowdown beyond the margin, a ratio, and beyond what its own error explains."""
        return self.log > math.log(margin or MARGIN) and self.log > self.quantile(CONFIDENCE) * self.error

    def plainly_slower(self, margin: float) -> bool:
        """Whether it is a slowdown beyond the margin, even less what its own error explains."""
        return self.log - self.quantile(CONFIDENCE) * self.error > math.log(margin)

    def faster(self, margin: float | None = None) -> bool:
        """Whether it is a speedup beyond the margin, and beyond what its own error explains."""
        return Estimate(-self.log, self.error, self.freedom).slower(margin)

    def __str__(self) -> str:
        reach = self.quantile(0.975) * self.error if math.isfinite(self.error) else math.nan
        return f"{self.ratio:.3f} [{math.exp(self.log - reach):.3f}, {math.exp(self.log + reach):.3f}]"


def estimate(values: Sequence[float]) -> Estimate:
    """Trimmed mean of visits' log ratios with its winsorised standard error (Tukey and McLaughlin, 1963).

    A fifth of the visits is left out at either end, for noise only ever has a tail on one side of a time, and a ratio
    may have it on either. The error has as many degrees of freedom as there are visits kept, less one.
    """
    ordered = np.sort(np.asarray(values, dtype=float))
    n = len(ordered)
    if n < 3:
        return Estimate(float(ordered.mean()) if n else 0.0, math.inf)
    cut = int(TRIMMED * n)
    winsorised = np.clip(ordered, ordered[cut], ordered[n - cut - 1])
    error = float(winsorised.std(ddof=1)) / ((1 - 2 * cut / n) * math.sqrt(n))
    return Estimate(float(ordered[cut : n - cut].mean()), error, n - 2 * cut - 1)


def combined(estimates: Sequence[Estimate]) -> Estimate:
    """The mean of several estimates of one ratio, with the greater of the errors that they state and that they show."""
    n = len(estimates)
    stated = math.sqrt(math.fsum(each.error**2 for each in estimates)) / n
    shown = float(np.std([each.log for each in estimates], ddof=1)) / math.sqrt(n)
    mean = math.fsum(each.log for each in estimates) / n
    return Estimate(mean, max(stated, shown), min(each.freedom for each in estimates) if stated > shown else n - 1)


@dataclass
class Sample:
    """What the visits gave, as log ratios: today's code to the reference, A to A, planted to not.

    ``waiting`` is, for each visit, the share of a call of today's code that the clock did not see.
    """

    ratios: list[float] = field(default_factory=list)
    same: list[float] = field(default_factory=list)
    planted: list[float] = field(default_factory=list)
    waiting: list[float] = field(default_factory=list)

    def visit(self, visit: Visit, rng: random.Random) -> None:
        """Make one visit."""
        shares = (0.0, 0.0, PLANTED)
        orders = [rng.sample(range(3), 3) for _ in range(ROUNDS)]
        slices: list[Slice] = ["reference"]
        for order in orders:
            slices += [*(shares[arm] for arm in order), "reference"]
        with np.errstate(divide="ignore", invalid="ignore"):  # a time of nothing is found out by what it makes
            seconds, waiting = visit(slices)
            self.waiting.append(waiting)
            logs = np.log(seconds)
            rounds = []
            for index, order in enumerate(orders):
                piece = logs[4 * index : 4 * index + 5]
                arms = dict(zip(order, piece[1:4], strict=True))
                today = (arms[0] + arms[1]) / 2
                # A mean of two has another median than one of them, where times have a long tail to one side.
                planted = [arms[2] - arms[0], arms[2] - arms[1]]
                rounds.append((today - (piece[0] + piece[4]) / 2, arms[0] - arms[1], planted))
        for into, values in zip((self.ratios, self.same, self.planted), zip(*rounds, strict=True), strict=True):
            into.append(float(np.median(values)))

    def require_sound(self, where: str = "") -> None:
        """Raises UnmeasurableError where a second measurement fails its own check: it neither confirms nor denies."""
        if self.self_check:
            raise UnmeasurableError(f"it looked slower, and measured once more{where} {self.self_check}; run again")

    def add(self, more: "Sample", *, confirmed: bool) -> None:
        """Add the visits of a second measurement, if it is sound; one that does not confirm the first replaces it."""
        more.require_sound()
        for name, values in vars(more).items():
            setattr(self, name, [*(getattr(self, name) if confirmed else []), *values])

    @property
    def now(self) -> Estimate:
        """Ratio of today's code to the reference, with the error of the visits and of the process."""
        visits, process = estimate(self.ratios), Estimate(0.0, PROCESS_ERROR)
        return visits.minus(process)

    @property
    def self_check(self) -> str:
        """What is wrong with the measurement itself, or nothing."""
        if len(self.ratios) < LEAST_VISITS:
            return f"only {len(self.ratios)} of at least {LEAST_VISITS} visits were made"
        if not all(map(math.isfinite, (*self.ratios, *self.same, *self.planted))):
            return "a call took no time that the clock could see"
        if (waiting := float(np.median(self.waiting))) > MOSTLY_WAITING:
            return f"{waiting:.0%} of a call is waiting, which processor time does not see (clock='wall' does)"
        same, planted = estimate(self.same), estimate(self.planted)
        if same.slower() or same.faster():
            return f"the same code timed twice differs by a factor of {same}"
        off = abs(planted.log - math.log(1 + PLANTED))
        if not planted.slower() or off > planted.quantile(SIZE_CONFIDENCE) * planted.error:
            return f"a planted slowdown by a factor of {1 + PLANTED:.3f} came back as {planted}"
        return ""

    def precise(self, samples: int = 1) -> bool:
        """Whether more visits are not needed, where a change is between so many measurements."""
        return not self.self_check and estimate(self.ratios).error <= WANTED_ERROR / math.sqrt(samples)


def judge_times(
    name: str, before: Estimate, sample: Sample, *, take: str, margin: float | None = None, seen: str = ""
) -> Finding:
    """Compare a step's time with what it was, by ratios to the frozen reference; what is within the margin passes.

    ``take`` says how the new time is accepted, ``seen`` where a slowdown was seen again. UNMEASURABLE unless all is
    finite, known well enough, and the sample passes its own check.
    """
    problem = sample.self_check
    change, margin = sample.now.minus(before), margin or MARGIN
    if not problem and not all(map(math.isfinite, (change.log, change.error))):
        problem = f"the change is {change.log} with an error of {change.error}"
    if not problem and change.error > LARGEST_ERROR and not change.plainly_slower(margin):
        problem = f"the error of the change is {change.error:.1%}, above {LARGEST_ERROR:.1%}"
    if problem:
        return refusal("timing", name, f"{problem}; run again, or on a machine with less beside it")
    advice = ""
    if change.slower(margin):
        advice = f"slower{', ' * bool(seen)}{seen}: find out why, or {take}"
    elif change.faster(margin):
        advice = f"faster: {take}, so that it is not lost again"
    waiting = float(np.median(sample.waiting))
    if waiting > 0.2:
        advice += f"{'; ' * bool(advice)}{waiting:.0%} of a call is waiting, which processor time does not see: "
        advice += "clock='wall' sees it"
    return Finding(
        part="timing",
        what=name,
        before=f"{before.ratio:.3f}",
        now=f"{sample.now.ratio:.3f}",
        change=f"x {change}",
        verdict="REGRESSION" if change.slower(margin) else "PASS",
        advice=advice,
        numbers={
            "before": before.ratio,
            "now": sample.now.ratio,
            "change": change.ratio,
            "error": change.error,
            "same_code": estimate(sample.same).ratio,
            "planted": estimate(sample.planted).ratio,
            "visits": len(sample.ratios),
        },
    )


# --- outcomes of training ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """How a training run ended: accuracy (0 to 1) and loss (above 0, nats), None where not given or where it diverged.

    ``diverged``: whether a number was not finite; ``digest``: equal for equal bits.
    """

    accuracy: float | None
    loss: float | None
    diverged: bool
    digest: str

    def __post_init__(self) -> None:
        """Raises ValueError for what no run can have given."""
        for name, value in (("accuracy", self.accuracy), ("loss", self.loss)):
            if value is not None and not (isinstance(value, float | int) and math.isfinite(value)):
                raise ValueError(f"{name} is {value!r}; a finite number or None is expected")
        if self.accuracy is not None and not 0 <= self.accuracy <= 1:
            raise ValueError(f"accuracy is {self.accuracy:g}; a share from 0 to 1 is expected")
        if self.diverged not in (True, False) or not self.digest.isalnum():
            raise ValueError(f"diverged is {self.diverged!r}, digest {self.digest!r}; true or false, and text expected")


Runs = Mapping[str, Outcome]  # outcomes by seed


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What counts as a change of outcomes, as :meth:`hw4.plugin.Gate.outcomes` takes it.

    Raises ValueError for margins that are none, and for a change that passes and must be seen.
    """

    accuracy: float = ACCURACY_MARGIN
    loss: float = LOSS_MARGIN
    diverged: int = 1
    sees: float = 0.05
    exact: bool = False

    def __post_init__(self) -> None:
        for what, margin, most in (("accuracy", self.accuracy, self.sees), ("loss", self.loss, 2 * self.sees)):
            if not 0 <= margin < most <= 2:
                raise ValueError(
                    f"{what}_margin is {margin} and sees={self.sees} asks for {most:g} to be seen; margins are shares, "
                    f"from 0 to less than that (accuracy in percent has to be divided by 100)"
                )
        if not self.diverged >= 0:
            raise ValueError(f"diverged_margin is {self.diverged}; a number of runs is expected, 0 or more")


@dataclass(frozen=True)
class Shift:
    """Paired differences of one measure, positive where it is for the worse, against a margin."""

    differences: tuple[float, ...]
    margin: float

    @functools.cached_property
    def mean(self) -> float:
        """Mean difference."""
        return math.fsum(self.differences) / len(self.differences) if self.differences else 0.0

    @functools.cached_property
    def error(self) -> float:
        """Standard error of the mean difference."""
        return float(np.std(self.differences, ddof=1)) / math.sqrt(len(self.differences))

    def p_value(self, sign: int, planted: float = 0.0) -> float:
        """One-sided p-value for a shift beyond the margin: ``sign`` 1 for worse, -1 for better.

        ``planted`` is added to every difference.
        """
        from scipy.special import stdtr

        excess = sign * (self.mean + planted) - self.margin
        if self.error == 0:
            return 0.0 if excess > 1e-12 else 1.0  # 0.95 - 0.945 is more than 0.005
        return float(stdtr(len(self.differences) - 1, -excess / self.error))

    def least(self, level: float) -> float:
        """The smallest mean difference that a test at this level sees in half of all cases."""
        from scipy.special import stdtrit

        return self.margin + float(stdtrit(len(self.differences) - 1, 1 - level)) * self.error


def _shifts(both: Sequence[tuple[Outcome, Outcome]], rules: Rules) -> dict[str, Shift]:
    """The measures that were given, over the seeds that converged before and now. Losses are compared as logs."""
    accuracy = [(a.accuracy, b.accuracy) for a, b in both]
    loss = [(a.loss, b.loss) for a, b in both]
    found = {}
    if any(pair != (None, None) for pair in accuracy):
        differences = tuple(a - b for a, b in accuracy if a is not None and b is not None)
        found["accuracy"] = Shift(differences, rules.accuracy)
    if any(pair != (None, None) for pair in loss):
        logs = tuple(math.log(b / a) for a, b in loss if a and b and min(a, b) > 0)
        found["loss"] = Shift(logs, math.log1p(rules.loss))
    return found


def unlike(before: Collection[str], now: Collection[str]) -> str:
    """What keeps outcomes of these seeds from being compared, in words, or nothing."""
    for seed in sorted(set(before) ^ set(now)):
        return f"seed {seed} is only in {'what was before' if seed in before else 'this measurement'}"
    if len(now) < LEAST_SEEDS:
        return f"{len(now)} seed{'s' * (len(now) != 1)} can show nothing: give at least {LEAST_SEEDS}, better 8"
    return ""


ONE_RESULT = (
    "all {} seeds gave one result ({}), and all another now ({}): no test can say anything of that; let training use "
    "its seed"
)


def judge_outcomes(
    name: str, before: Runs, now: Runs, *, rules: Rules, same_machine: bool, tests: int = 1, take: str
) -> Finding:
    """Compare outcomes with what they were, paired by seed.

    ``same_machine`` says that equal code has to give equal bits; ``tests`` counts all outcomes judged in this session,
    over which the level is shared; ``take`` says how new outcomes are accepted. UNMEASURABLE, with the least change
    that could have been seen, where the seeds are too few or too different.
    """
    if problem := unlike(before, now):
        return refusal("accuracy", name, problem)
    both = [(before[seed], now[seed]) for seed in before if not (before[seed].diverged or now[seed].diverged)]
    shifts, level = _shifts(both, rules), LEVEL / tests
    more = sum(run.diverged for run in now.values()) - sum(run.diverged for run in before.values())
    same = all(before[seed].digest == now[seed].digest for seed in before)
    kept = both and all(then.digest == run.digest for then, run in both)
    bad = [f"{more} more diverged"] * (more > (0 if kept else rules.diverged))  # beside equal bits it is no chance
    good = [f"{-more} fewer runs diverge"] * (-more > rules.diverged)
    needed = max(LEAST_SEEDS, len(both))  # one that is left out may be the one that got worse
    few = next((name for name, shift in shifts.items() if len(shift.differences) < needed), "")
    if (few or not shifts) and not (bad or good):
        return refusal("accuracy", name, _too_few(few, shifts, now))
    shifts = {} if few else shifts
    if shifts and not same and len({*before.values()}) == len({*now.values()}) == 1:
        if not (rules.exact and same_machine):
            return refusal("accuracy", name, ONE_RESULT.format(len(now), words(before), words(now)))
        shifts = {}  # one run and not many, of which no test can say anything; that it changed is certain
    worse, better = _told_apart(shifts, level)
    bad, good = bad + worse, good + better
    verdict: Verdict = "PASS"
    advice = ""
    if bad:
        verdict, advice = "REGRESSION", f"{', '.join(bad + good)}: find out why"
    elif good:
        verdict = "SUSPICIOUS"
        advice = f"{', '.join(good)}: look for test data in training, or a change of task, before you {take}"
    elif not same and rules.exact and same_machine:
        verdict = "CHANGED"
        advice = f"not worse, but not the same numbers: if the change was meant to, {take}"
    elif not same and (blind := _blind(shifts, rules, level / (2 * len(shifts)))):
        verdict, advice = "UNMEASURABLE", blind
    elif more > 0:
        advice = f"{more} more diverged, which diverged_margin={rules.diverged} lets pass"
    finding = Finding(part="accuracy", what=name, before=words(before), now=words(now), verdict=verdict, advice=advice)
    return _with_numbers(finding, shifts, more=more, same=same)


def _told_apart(shifts: Mapping[str, Shift], level: float) -> tuple[list[str], list[str]]:
    """Which measures are worse, and which are better, by one-sided tests with Holm's correction, in words."""
    from hw4.stats import holm

    labels = [(measure, sign) for measure in shifts for sign in (1, -1)]
    adjusted = dict(zip(labels, holm([shifts[measure].p_value(sign) for measure, sign in labels]), strict=True))
    found = {label: f"p = {p:.2g}" if p > 0 else "p < 1e-300" for label, p in adjusted.items() if p <= level}
    worse = [f"{m} is worse ({found[m, 1]})" for m in shifts if (m, 1) in found]
    return worse, [f"{m} is better ({found[m, -1]})" for m in shifts if (m, -1) in found]


def _with_numbers(finding: Finding, shifts: Mapping[str, Shift], *, more: int, same: bool) -> Finding:
    """A finding on outcomes, with its change in words and numbers."""
    changes = {"accuracy": 0.0, "loss": 0.0} | {measure: shift.mean for measure, shift in shifts.items()}
    told = {
        "accuracy": f"accuracy {round(-changes['accuracy'], 4) + 0.0:+.4f}",
        "loss": f"loss x {math.exp(changes['loss']):.3f}",
    }
    numbers = {
        "accuracy_change": -changes["accuracy"],
        "loss_ratio": math.exp(changes["loss"]),
        "pairs": min((len(shift.differences) for shift in shifts.values()), default=0),
        "more_diverged": more,
        "same_bits": float(same),
    }
    change = "none, to the last bit" if same else ", ".join(told[measure] for measure in shifts) or "-"
    return replace(finding, change=change, numbers=numbers)


def _too_few(measure: str, shifts: Mapping[str, Shift], runs: Runs) -> str:
    """Why outcomes cannot be paired, and the way out."""
    if not measure:
        return f"all of {len(runs)} runs diverged before or now, so nothing is left to compare: train what converges"
    left = len(shifts[measure].differences)
    why = "above 0" if measure == "loss" else "given by both sides"
    return (
        f"{left} of {len(runs)} seeds have {'an' if measure == 'accuracy' else 'a'} {measure} that is finite and "
        f"{why}, before and now; at least {LEAST_SEEDS} are needed, and all that converge"
    )


def _blind(shifts: Mapping[str, Shift], rules: Rules, level: float) -> str:
    """What a fault of the size that must be seen would not have shown in these runs, in words, or nothing."""
    for measure, shift in shifts.items():
        planted = rules.sees if measure == "accuracy" else math.log1p(2 * rules.sees)
        centred = Shift(tuple(each - shift.mean for each in shift.differences), shift.margin)
        if not centred.p_value(1, planted) <= level:
            least = centred.least(level)
            size = f"{least:.3f}" if measure == "accuracy" else f"{math.expm1(least):.0%}"
            return (
                f"runs of equal seeds differ too much: the least change of {measure} that {len(shift.differences)} "
                f"seeds could show is {size}, where sees={rules.sees:g} is asked for; give more seeds"
            )
    return ""


def _fixed(value: float) -> str:
    """A number with four decimals, where it is neither too large nor too small for that."""
    return f"{value:.4f}" if value == 0 or 1e-4 <= abs(value) < 1e6 else f"{value:.4g}"


def words(runs: Runs) -> str:
    """Mean accuracy (or loss) of the converged runs, and how many diverged."""
    accuracies = [run.accuracy for run in runs.values() if run.accuracy is not None]
    losses = [run.loss for run in runs.values() if run.loss is not None]
    mean = f"{np.mean(accuracies):.4f}" if accuracies else f"loss {_fixed(float(np.mean(losses)))}" if losses else "-"
    diverged = sum(run.diverged for run in runs.values())
    return f"{mean}, {diverged} of {len(runs)} diverged" if diverged else mean

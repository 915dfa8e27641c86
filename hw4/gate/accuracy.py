"""Judging outcomes of training: bit for bit where that can be asked, else by paired tests with a margin.

The same code with the same libraries, class of processor and thread count gives the same bits, so any difference there
is a change of the code (tier 1). Elsewhere rounding differs, training amplifies it, and runs are compared by
seed (tier 2): one-sided t-tests of the paired differences against a margin, Holm-corrected over all groups and both
measures.
"""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from scipy import stats

from hw4.gate.baseline import Outcome
from hw4.gate.verdicts import Finding, Verdict
from hw4.stats import holm

Runs = Mapping[str, Outcome]
"""Outcomes by key of a group of runs that differ in their seed only."""

ACCURACY_MARGIN, LOSS_MARGIN = 0.005, 0.01
"""What does not count as worse or better: half a percentage point of accuracy, a hundredth of the train loss."""
LEVEL = 0.005
"""Of each family of tests, worse and better, so that both together cry wolf once in a hundred times at most."""
DIVERGED_MARGIN = 2
"""Runs at the edge of stability cross it by rounding: of the text CNNs at stride 1 about one in thirty does, so two of
ten do once in thirty measurements, three once in four hundred. Three more or fewer are a change."""


@dataclass(frozen=True)
class Shift:
    """A paired mean difference, positive where it is for the worse, with one-sided p-values for beyond the margin."""

    mean: float
    worse: float
    better: float
    n: int


def shift(differences: list[float], margin: float) -> Shift:
    """Test whether paired differences are for the worse, or for the better, by more than a margin."""
    n = len(differences)
    if n < 2:
        return Shift(differences[0] if n else 0.0, 1.0, 1.0, n)
    mean, error = statistics.fmean(differences), statistics.stdev(differences) / math.sqrt(n)

    def p_value(excess: float) -> float:
        if error == 0:
            return 0.0 if excess > 0 else 1.0
        return float(stats.t.sf(excess / error, n - 1))

    return Shift(mean, p_value(mean - margin), p_value(-mean - margin), n)


def pairs(before: Runs, now: Runs) -> list[tuple[Outcome, Outcome]]:
    """Outcomes of equal seeds."""
    return [(before[key], now[key]) for key in before]


def shifts(before: Runs, now: Runs) -> dict[Literal["test accuracy", "train loss"], Shift]:
    """Both measures of a group, over the seeds that converged before and now. Losses are compared as logs."""
    both = pairs(before, now)
    accuracies = [
        a.test_accuracy - b.test_accuracy
        for a, b in both
        if a.test_accuracy is not None and b.test_accuracy is not None
    ]
    losses = [math.log(b.train_loss / a.train_loss) for a, b in both if a.train_loss and b.train_loss]
    return {"test accuracy": shift(accuracies, ACCURACY_MARGIN), "train loss": shift(losses, LOSS_MARGIN)}


def judge(before: Mapping[str, Runs], now: Mapping[str, Runs], *, exact: bool, allowed: bool = False) -> list[Finding]:
    """Compare every group with what it was.

    ``exact`` asks for equal bits; ``allowed`` lets bits that differ pass when no test says worse or better, as it is
    between two commits. Groups and runs must be the same; see :func:`unlike`.
    """
    found = {name: shifts(before[name], now[name]) for name in before}
    labels = [(name, measure) for name, measures in found.items() for measure in measures]
    worse = dict(zip(labels, holm([found[name][measure].worse for name, measure in labels]), strict=True))
    better = dict(zip(labels, holm([found[name][measure].better for name, measure in labels]), strict=True))
    findings = []
    for name, measures in found.items():
        diverged_before, diverged_now = (sum(run.diverged for run in runs[name].values()) for runs in (before, now))
        more = diverged_now - diverged_before
        complaints = [
            f"{measure} is worse (p = {worse[name, measure]:.2g})"
            for measure in measures
            if worse[name, measure] <= LEVEL
        ]
        praises = [
            f"{measure} is better (p = {better[name, measure]:.2g})"
            for measure in measures
            if better[name, measure] <= LEVEL
        ]
        if more > DIVERGED_MARGIN:
            complaints.append(f"{more} more runs diverge")
        elif -more > DIVERGED_MARGIN:
            praises.append(f"{-more} fewer runs diverge")
        same = all(a.digest == b.digest for a, b in pairs(before[name], now[name]))
        verdict: Verdict = "PASS"
        advice = ""
        if complaints:
            verdict, advice = "REGRESSION", f"{', '.join(complaints + praises)}: find out why"
        elif praises:
            verdict = "SUSPICIOUS"
            advice = (
                f"{', '.join(praises)}: look for test data in training, or a change of task, before 'hw4 gate --update'"
            )
        elif not same and exact and not allowed:
            verdict = "CHANGED"
            advice = "not worse, but not the same numbers: if the change was meant to, 'hw4 gate --update' takes it"
        accuracy, loss = measures["test accuracy"], measures["train loss"]
        findings.append(
            Finding(
                part="accuracy",
                what=name,
                before=words(before[name]),
                now=words(now[name]),
                change="none, to the last bit"
                if same
                else f"accuracy {-accuracy.mean:+.4f}, loss x {math.exp(loss.mean):.3f}",
                verdict=verdict,
                advice=advice,
                numbers={
                    "accuracy_change": -accuracy.mean,
                    "loss_ratio": math.exp(loss.mean),
                    "pairs": accuracy.n,
                    "diverged_before": diverged_before,
                    "diverged_now": diverged_now,
                    "same_bits": float(same),
                },
            )
        )
    return findings


def unlike(before: Mapping[str, Runs], now: Mapping[str, Runs]) -> str:
    """What keeps two sets of outcomes from being compared, in words, or nothing."""
    for name in sorted(set(before) ^ set(now)):
        return f"{name!r} is only in {'the baseline' if name in before else 'this measurement'}"
    for name in before:
        for key in sorted(set(before[name]) ^ set(now[name])):
            return f"the run {key} is only in {'the baseline' if key in before[name] else 'this measurement'}"
    return "" if before else "there are no runs at all"


def words(runs: Runs) -> str:
    """Mean accuracy of the converged runs, and how many diverged."""
    accuracies = [run.test_accuracy for run in runs.values() if run.test_accuracy is not None]
    diverged = len(runs) - len(accuracies)
    words = f"{statistics.fmean(accuracies):.4f}" if accuracies else "-"
    return f"{words}, {diverged} of {len(runs)} diverged" if diverged else words

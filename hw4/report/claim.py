"""The claim's part of the page: what its tests decide, in words, tables and figures."""

import math
import statistics
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hw4 import claim as judge
from hw4 import studies
from hw4.claim import ACCURATE, AGREES, FITTED, NEAR_BEST, NORMED, Claim, Decision, RowMeasure
from hw4.errors import RecordError
from hw4.files import CLAIM_CONTROLS, LADDER, LANDSCAPES
from hw4.records import ConvNetRecord, Store
from hw4.report.drawing import DPI, legend_below, log_y, plain_log, style, told
from hw4.report.entry import CHOICE, Entry, Table, again, data_words, images_words, require_unmixed
from hw4.report.landscapes import LABELS, WITH, of
from hw4.report.landscapes import entries as landscapes_entries
from hw4.report.words import p_value, passes, plural, show, span
from hw4.specs import HOMEWORK_RATE, MEASURED
from hw4.stats import geometric_interval
from hw4.variants import VARIANTS

CRITERIA = {
    "finite": "train loss is finite",
    "learnt": "train loss is at most 0.9 of the initial one",
    "accurate": f"test accuracy is at least {ACCURATE:.2f}",
    "fitted": f"train loss is at most {FITTED:.2f} nats",
    "own best": f"test accuracy is within {NEAR_BEST:g} of the network's best mean",
}
"""When a run of the ladder works, by each criterion."""
Runs = Sequence[ConvNetRecord]


def assemble(ladder: Runs, landscapes: Runs, controls: Runs = ()) -> Claim:
    """Put the records together; raises RecordError when some are missing or they do not belong together."""
    require_unmixed([*ladder, *landscapes, *controls])
    for what, runs in (("ladder and controls", [*ladder, *controls]), ("landscapes", landscapes)):
        lengths = sorted({studies.length(run.spec) for run in runs})
        if len(lengths) > 1:
            raise RecordError(
                f"runs of {what} have {' and '.join(map(str, lengths))} passes and do not belong together; delete "
                f"those of one length, or make each into a folder of its own"
            )
    for run in landscapes:
        if len(run.times) < run.spec.passes or (run.spec.range_view and run.last.view is None):
            raise RecordError(
                f"{run.key} diverged and has no landscape to its end; delete it, and give 'hw4 claim' another "
                f"--first-seed"
            )
    looked = [run for run in landscapes if run.spec.range_view]
    for variant, label in LABELS.items():
        if not all(any(run.spec.variant == variant for run in runs) for runs in (ladder, looked)):
            raise RecordError(f"there are no records of {label} for the claim; make them with 'hw4 claim'")
    claim = Claim(_by_rate(ladder), _by_rate(landscapes), _by_rate(controls))
    made, of_most = Counter(run.spec.learning_rate for run in claim.ladder), len(claim.seeds)  # of twice as many runs
    own = [[run for run in claim.of(variant) if run.spec.seed == seed] for variant in LABELS for seed in claim.seeds]
    ends = [studies.largest_working(runs) for runs in own]
    for rate in sorted(rate for rate, runs in made.items() if of_most < runs < 2 * of_most):
        if any(low < rate < high for low, high in ends):  # else it narrows brackets that some have in common
            raise RecordError(
                f"the ladder is not whole: {made[rate]} of {2 * of_most} runs are there at {rate:g}; 'hw4 claim' with "
                f"that ladder's options makes what is missing"
            )
    if not claim.rates:
        raise RecordError("no learning rate of the ladder has every seed of both networks; run 'hw4 claim' to its end")
    return claim


def _by_rate(runs: Runs) -> list[ConvNetRecord]:
    """Each run once, by learning rate; of one that was made twice that of which more was measured."""
    once: dict[object, ConvNetRecord] = {}
    for run in runs:
        trained = run.spec.model_copy(update=MEASURED)
        once[trained] = max(once.get(trained, run), run, key=lambda each: each.spec.range_view)
    return sorted(once.values(), key=lambda run: run.spec.learning_rate)


def caption(claim: Claim) -> str:
    """What was run."""
    first, rates = claim.ladder[0], claim.rates
    ends = f" from {rates[0]:g} to {rates[-1]:g}" if len(rates) > 1 else f", {rates[0]:g}"
    return (
        f"{images_words(first.data)}; SGD, batch {first.spec.batch_size}; ladder of "
        f"{plural(len(rates), 'learning rate')}{ends}, {passes(first.spec.passes)}, "
        f"{_numbers(claim.seeds)}; landscapes at learning rate {claim.landscapes[0].spec.learning_rate:g}, "
        f"{passes(claim.landscapes[0].spec.passes)}, of {plural(len(claim.views), 'seed')}"
    )


def _numbers(seeds: Sequence[int]) -> str:
    """Which seeds, as in "seeds 5 to 16"."""
    return f"seed{'s' * (len(seeds) > 1)} {span(seeds, 'd')}"


# Answers --------------------------------------------------------------------------------------------------------------


def _p(test: Decision) -> str:
    """How a test is cited: pairs or n, and its adjusted p-value."""
    if test.adjusted is None:
        return f"n = {test.n}, nothing to test"
    pairs = f"{test.counts[0]} against {test.counts[1]} of {plural(test.n, 'seed')}" if test.counts else f"n = {test.n}"
    return f"{pairs}, {p_value(test.adjusted)}"


def _in(tests: Sequence[Decision], family: str) -> dict[str, Decision]:
    """The tests of a family by name."""
    return {test.name: test for test in tests if test.family == family}


OPENINGS: dict[str, dict[str, str]] = {
    judge.LARGER: {
        "above": "BatchNorm allows larger learning rates by the criterion",
        "below": "BatchNorm needs smaller learning rates by the criterion",
        "not decided": "Whether BatchNorm allows larger learning rates is not decided by the criterion",
    },
    judge.SMOOTH: {
        "below": "With BatchNorm the loss is smoother: the gradient changes",
        "above": "With BatchNorm the loss is rougher: the gradient changes",
        "not decided": "Whether BatchNorm makes the loss smoother is not decided: with it the gradient changes",
    },
    judge.REASON: {
        "below": "It promises more than there is; measured is",
        "above": "It promises less than there is; measured is",
        "not decided": "What is measured is not told apart from it:",
    },
    judge.START: {
        "above": f"The start decides: after {studies.WARMUP} passes at 0.04 fewer runs are lost at the high rate,",
        "below": f"After {studies.WARMUP} passes at 0.04 more runs are lost at the high rate,",
        "not decided": "Whether a warm-up changes how many are lost is not decided",
    },
    judge.HEAD: {
        "above": "With head and last affine kept at 0.04, the first of these loses more runs than the second:",
        "below": "With head and last affine kept at 0.04, the first of these loses fewer runs than the second:",
        "not decided": "Which of two loses more runs with head and last affine kept at 0.04 is not decided:",
    },
    judge.GROUPS: {
        "above": "Of these two GroupNorm loses fewer runs:",
        "below": "Of these two GroupNorm loses more runs:",
        "not decided": "Whether GroupNorm loses fewer runs is not decided:",
    },
    judge.MOMENTUM: {
        "above": "With momentum 0.9 BatchNorm loses fewer runs",
        "below": "With momentum 0.9 BatchNorm loses more runs",
        "not decided": "Whether BatchNorm loses fewer runs with momentum 0.9 is not decided",
    },
    judge.STEPS: {
        "above": "The largest step that does not raise the full loss is larger with BatchNorm:",
        "below": "The largest step that does not raise the full loss is smaller with BatchNorm:",
        "not decided": "Whether BatchNorm changes the largest step that raises no full loss is not decided:",
    },
}
"""How the verdicts of each family are opened in words; counts are runs lost in the first of the two named."""


def _grouped(
    tests: Sequence[Decision], family: str, tell: Callable[[Decision], str] = lambda test: test.name
) -> list[str]:
    """A family's tests by their verdict: the words for it, then each with what is told of it; none without seeds.

    Of those that are not decided the names do where all that there is to tell are counts of pairs, as in the table.
    """
    parts = []
    for verdict, opening in OPENINGS[family].items():
        chosen = [test for test in _in(tests, family).values() if test.n and test.verdict == verdict]
        brief = verdict == "not decided" and all(test.counts and not test.effect for test in chosen)
        if chosen:
            told = (test.name if brief else f"{tell(test)} ({_p(test)})" for test in chosen)
            parts.append(f"{opening} {'; '.join(told)}")
    return [f"{'. '.join(parts)} [family: {family}]."] if parts else []


def answers(claim: Claim, tests: Sequence[Decision]) -> list[str]:
    """The answer to the homework's question, from the tests."""

    def limits(test: Decision) -> str:
        ends = [_typical(claim.working(variant, test.name).values()) for variant in LABELS]
        factor = f", a factor of {show(test.effect, digits=2)}" if test.effect is not None else ""
        return f"'{test.name}' ({CRITERIA[test.name]}): {ends[0]} without and {ends[1]} with it{factor}"

    return [
        summary(claim, tests),
        *_grouped(tests, judge.LARGER, limits),
        *_grouped(tests, judge.SMOOTH, lambda test: f"{show(test.effect, digits=2)} times as fast {test.name}"),
        *_predicts(claim, tests),
        *_edge(tests),
        *(words for cause in judge.CAUSES for words in _grouped(tests, cause)),
    ]


def summary(claim: Claim, tests: Sequence[Decision]) -> str:
    """The answer in plain words: what BatchNorm changes here, by which criterion, and what smoothness tells of it."""
    seeds = len(claim.seeds)
    if seeds < 2:
        return "One seed was run, which decides nothing; the tables show what it did."
    parts = [_in_short(_in(tests, judge.LARGER)), *_smoothness_in_short(claim, tests)]
    rates, head = studies.CONTROLS["head"].rates, _in(tests, judge.HEAD).values()
    if apart := [rate for rate, test in zip(rates, head, strict=False) if test.verdict == "above"]:
        runs = [claim.control("head", variant, apart[-1]).values() for variant in LABELS]
        plain, normed = (f"{sum(map(judge.accurate, each))} of {len(each)} runs" for each in runs)
        parts.append(
            f"With the head and the last affine kept at {HOMEWORK_RATE:g}, the layers before them train at rates up to "
            f"{apart[-1]:g} in {normed} with BatchNorm and in {plain} without: these layers are what BatchNorm frees"
        )
    groups = [test for name, test in _in(tests, judge.GROUPS).items() if name.startswith("BatchNorm") and test.n]
    if any(test.verdict == "below" for test in groups):
        parts.append("GroupNorm, which normalises without the batch, does not do the same")
    return f"{'. '.join(parts)} (paired seeds, n = {seeds}; tests and p-values in the table of all tests)."


IN_SHORT = {
    "above": ("it does", "BatchNorm allows larger learning rates"),
    "below": ("it needs smaller ones", "BatchNorm needs smaller learning rates"),
    "not decided": ("not decided", "Whether BatchNorm allows larger learning rates is not decided"),
}
"""How verdicts on the largest working rates are said: of some criteria, and of all of them."""


def _in_short(larger: Mapping[str, Decision]) -> str:
    """The verdicts on the largest working rates, by name alone."""
    words = []
    for verdict, (found, whole) in IN_SHORT.items():
        tests = {name: test for name, test in larger.items() if test.verdict == verdict}
        factors = {test.effect.estimate for test in tests.values() if test.effect and verdict == "above"}
        size = f", by a factor of {span(factors, '.1f')}" if factors else ""
        if len(tests) == len(larger):
            return f"{whole} {_by(tests)}{size}"  # nothing depends on what is meant
        words += [f"{found} {_by(tests)}{size}"] if tests else []
    return f"Whether BatchNorm allows larger learning rates depends on what 'works' means: {'; '.join(words)}"


def _by(criteria: Collection[str]) -> str:
    return f"by the criteri{'on' if len(criteria) == 1 else 'a'} {', '.join(criteria)}"


def _smoothness_in_short(claim: Claim, tests: Sequence[Decision]) -> Iterator[str]:
    """Whether the loss is smoother, and whether that gives the factor measured."""
    passed, *matched = _in(tests, judge.SMOOTH).values()
    if passed.effect is not None and passed.verdict != "not decided":
        open_ = {"not decided": " (not decided)"}
        same = [f"{t.effect.estimate:.2f} {t.name}{open_.get(t.verdict, '')}" for t in matched if t.effect]
        yield (
            f"Along the steps the gradient changes {passed.effect.estimate:.2f} times as fast with BatchNorm at equal "
            f"passes{' and ' * bool(same)}{', '.join(same)}"
        )
    expected, reason = judge.predicted(claim), _in(tests, judge.REASON)
    if len(expected) > 1:
        factor = geometric_interval(list(expected.values())).estimate
        told = {
            "agrees with": [name for name, test in reason.items() if test.agrees],
            "differs from": [name for name, test in reason.items() if test.verdict != "not decided"],
        }
        known = [f"{word} what is measured {_by(names)}" for word, names in told.items() if names]
        held = " and ".join(known) or "is neither confirmed nor refuted"
        yield f"Smoothness predicts a factor of {factor:.1f}, which {held}"


def _typical(brackets: Collection[tuple[float, float]]) -> str:
    """The largest working rate in the median, or how it is censored."""
    low, high = sorted(brackets)[(len(brackets) - 1) // 2]
    if not low:
        return f"below {high:g}"
    return f"{low:g} or more" if high == math.inf else f"{low:g} to {high:g}"


def _predicts(claim: Claim, tests: Sequence[Decision]) -> Iterator[str]:
    """Whether the factor that smoothness predicts is the one measured, criterion by criterion."""
    expected = judge.predicted(claim)
    if len(expected) < 2:
        return
    factor = geometric_interval(list(expected.values()))
    (measured,) = _grouped(
        tests,
        judge.REASON,
        lambda test: f"{show(test.effect, digits=2)} of it by '{test.name}'{' and agrees' if test.agrees else ''}",
    ) or ["No criterion brackets both networks' limits, so nothing is said of it."]
    yield (
        f"Smoothness at rate {HOMEWORK_RATE:g} (1/L with over 1/L without BatchNorm) predicts a factor of "
        f"{show(factor, digits=2)}. {measured} Agreement would need the whole interval between {1 / AGREES:.2f} and "
        f"{AGREES:.2f}."
    )


def _edge(tests: Sequence[Decision]) -> Iterator[str]:
    """How smoothness moves with the learning rate."""

    def cited(test: Decision) -> str:
        return f"({_p(test)}) [family: {test.family}]"

    plain, normed, less, moved = _in(tests, judge.EDGE).values()
    falls = {"below": "falls as the learning rate rises", "above": "rises with the learning rate"}
    for test, words in ((plain, "Without"), (normed, "With")):
        if test.effect is not None:
            yield (
                f"{words} BatchNorm L {falls.get(test.verdict, 'has no decided slope against the rate')}: slope "
                f"{show(test.effect, digits=2, sign=True)} on logarithmic scales {cited(test)}; -1 would be the edge "
                f"of stability, where training moves to smoothness that suits its rate."
            )
    if less.effect is not None:
        known = "not told apart from" if less.verdict == "not decided" else less.verdict
        by = show(less.effect, digits=2, sign=True)
        yield f"With BatchNorm the slope is {known} that without: difference {by} {cited(less)}."
    if moved.effect is not None:
        room = "room by one factor at every rate is not what is seen"
        if moved.verdict == "not decided":
            room = "that the room is one factor at every rate is neither shown nor excluded"
        yield (
            f"At the largest rate that both networks have learnt at, L with over without BatchNorm is "
            f"{show(moved.effect, digits=2)} times that at {HOMEWORK_RATE:g} {cited(moved)}; {room}."
        )


def step_answers(claim: Claim, tests: Sequence[Decision]) -> list[str]:
    """What the largest steps say."""
    found = _grouped(tests, judge.STEPS, lambda test: f"{test.name}, {show(test.effect, digits=2)} times that without")
    lost = []
    for variant, words in WITH.items():
        steps = [step for run in of(claim, variant) for row in run.rows for step in row.steps]
        lost.append(f"{sum(each.stable == 0 for each in steps if each.direction == 'minibatch')} {words}")
    nowhere = f"Minibatch steps that raise the full loss at every rate tried: {' and '.join(lost)}."
    return [*found, nowhere, *_beside(claim)] if found else []


def _beside(claim: Claim) -> Iterator[str]:
    """The largest steps down the gradient beside 1/L and 2/sharpness of the same points."""
    for after in studies.LOOKED_AFTER["step_passes"]:
        parts = []
        for variant, words in WITH.items():
            measures = (judge.step("gradient"), judge.smoothness, judge.sharpest)
            down, here, sharp = (claim.values(variant, measure, judge.just(after)) for measure in measures)
            if down and here and sharp:
                typical = [statistics.geometric_mean(each.values()) for each in (down, here, sharp)]
                bounds = f"1/L {1 / typical[1]:.3f}, 2/sharpness {2 / typical[2]:.3f} in {plural(len(sharp), 'seed')}"
                parts.append(f"{typical[0]:.3f} {words} ({bounds})")
        if parts:
            yield f"After {passes(after)} at 0.04 the largest step down the full gradient is {' and '.join(parts)}."


LITERATURE = (
    "The literature: Santurkar et al. (2018) find loss and gradients smoother along the steps of networks with "
    "BatchNorm; Bjorck et al. (2018) that without it large rates fail because activations grow from layer to layer; "
    "Yang et al. (2019) that in deep networks at initialisation BatchNorm makes gradients explode; Yao et al. (2020) "
    "that in shallow networks taking BatchNorm out can lower the Hessian's spectrum; Arora, Li and Lyu (2018) that "
    "weights before a BatchNorm may be trained at any fixed rate, for their scale adapts; Cohen et al. (2021) that "
    "gradient descent drives sharpness to about 2 over the learning rate."
)
"""One finding of each, to be held against the answers above."""


# Tables ---------------------------------------------------------------------------------------------------------------


def criteria_table(claim: Claim, tests: Sequence[Decision]) -> Table:
    """Largest working rates by criterion, and the factor against the one that smoothness predicts."""
    larger, reason = _in(tests, judge.LARGER), _in(tests, judge.REASON)
    rows = []
    for name, words in CRITERIA.items():
        brackets = [claim.working(variant, name).values() for variant in LABELS]
        ratios = [show(family[name].effect, digits=2) for family in (larger, reason)]
        rows.append((f"{name}: {words}", *map(_level, brackets), ratios[0], _p(larger[name]), ratios[1]))
    limits = (f"{label} (censored)" for label in LABELS.values())
    header = ("works when", *limits, "factor", "larger: with, without", "factor over that of 1/L")
    return "Largest working learning rates, by criterion", header, rows


def _level(brackets: Collection[tuple[float, float]]) -> str:
    """The mean largest working rate; where any seed is censored the median's bracket, and how many are."""
    below, above = sum(not low for low, _ in brackets), sum(high == math.inf for _, high in brackets)
    cut = [f"{n} of {len(brackets)} {where} the ladder" for n, where in ((below, "below"), (above, "above")) if n]
    return f"{_typical(brackets)} ({', '.join(cut)})" if cut else show(judge.hull(list(brackets)), digits=2)


def lost_table(claim: Claim, tests: Sequence[Decision]) -> Table:
    """Runs lost rate by rate, by criterion, with McNemar's adjusted p-value."""
    found = _in(tests, judge.BY_RATE)
    rows, works = [], {variant: claim.criteria(variant) for variant in LABELS}
    for rate in claim.rates:
        cells = [f"{rate:g}"]
        for name in CRITERIA:
            lost = [sum(not works[v][name](run) for run in claim.of(v, rate=rate)) for v in LABELS]
            test = found[f"{name}, at {rate:g}"]
            p = "" if test.adjusted is None or test.verdict == "not decided" else f" ({p_value(test.adjusted)})"
            cells.append(f"{lost[0]} / {lost[1]}{p}")
        rows.append(cells)
    title = f"Runs lost of {len(claim.seeds)}, without / with BatchNorm; p where McNemar's test decides (Holm over all)"
    return title, ("learning rate", *CRITERIA), rows


def tests_table(tests: Sequence[Decision]) -> Table:
    """Every test with its p-value and verdict."""
    header, rows = ("family", "what is compared", "test", "n", "effect or pairs", "p", "p (Holm)", "decided"), []
    for test in tests:
        found = show(test.effect, digits=2) if test.effect else ""
        found = f"{test.counts[0]} : {test.counts[1]}" if test.counts else found
        values = ["-" if p is None else f"{p:.2g}" for p in (test.p_value, test.adjusted)]
        unseen = judge.seen_by(test, tests) if test.verdict == "not decided" else ""
        by = "t" if not test.counts else "sign" if test.family == judge.LARGER else "McNemar's"
        rows.append((test.family, test.name, by, str(test.n), found, *values, test.verdict, unseen))
    return "All tests", (*header, "would have been seen"), rows


# Figures --------------------------------------------------------------------------------------------------------------


def ladder_figure(claim: Claim) -> Figure:
    """Share of runs that work by two criteria, final train loss, and learning rate x L, against the learning rate."""
    canvas = Figure(figsize=(14, 4.8), dpi=DPI, layout="constrained")
    share, loss, edge = canvas.subplots(1, 3)
    for variant, label in LABELS.items():
        line = style(variant)
        for name, look in (("learnt", {"linestyle": ":", "alpha": 0.6}), ("accurate", {})):
            works = claim.criteria(variant)[name]
            shares = [np.mean([works(run) for run in claim.of(variant, rate=rate)]) for rate in claim.rates]
            share.plot(claim.rates, shares, markersize=4, label=f"{label}, {name}", **{**line, **look})
        _draw_ends(loss, claim, variant)
        means = {}
        for rate in claim.rates:
            levels = claim.smoothness_at(rate)[variant]
            _dots(edge, rate, {seed: rate * level for seed, level in levels.items()}, variant, markersize=2)
            if levels:
                means[rate] = rate * statistics.geometric_mean(levels.values())
        edge.plot(list(means), list(means.values()), markersize=4, gid=f"{label}, mean", **line)
    edge.axhline(2, color="#444444", linestyle=":", label="2: bound of gradient descent on a quadratic")
    for ax, title, unit in (
        (share, "Runs that work", "share of seeds"),
        (loss, "Final train loss of finite runs", "mean logistic loss (nats)"),
        (edge, "Learning rate x L at the end", "learning rate x effective smoothness"),
    ):
        if not math.isfinite(ax.dataLim.minposx):  # where no run is, matplotlib has no such axis
            ax.set_xlim(claim.rates[0] / 1.2, claim.rates[-1] * 1.2)
        ax.set(title=title, xlabel="learning rate", ylabel=unit, xscale="log")
        plain_log(ax.xaxis)
        ax.grid(alpha=0.3)
    log_y(loss)
    log_y(edge)
    seeds = plural(len(claim.seeds), "seed")
    legend_below(
        canvas,
        f"learnt and accurate as in the table, one line where they agree; dots: runs (right: that learnt), lines: "
        f"means; {seeds}",
    )
    return canvas


def _draw_ends(ax: Axes, claim: Claim, variant: str) -> None:
    """Final train losses of one network's finite runs, lost or not, and a line through their means."""
    line, means = style(variant), {}
    for rate in claim.rates:
        ends = {r.spec.seed: loss for r in claim.of(variant, rate=rate) if (loss := r.last.train_loss)}
        _dots(ax, rate, ends, variant, markersize=3, alpha=0.5)
        if ends:
            means[rate] = math.fsum(ends.values()) / len(ends)
    ax.plot(list(means), list(means.values()), color=line["color"], linestyle=line["linestyle"])


def _dots(ax: Axes, x: float, values: Mapping[int, float], variant: str, **look: float) -> None:
    """One network's values by seed, above each other."""
    told_by = told(f"{LABELS[variant]}, seed", values)
    ax.plot([x] * len(values), list(values.values()), gid=told_by, **{**style(variant), "linestyle": "", **look})


def reason_figure(claim: Claim) -> Figure:
    """Smoothness against train loss; the largest steps beside 1/L and 2/sharpness; and what the controls lose."""
    columns = 2 + bool(claim.controls)
    canvas = Figure(figsize=(14 * columns / 3, 4.8), dpi=DPI, layout="constrained")
    matched, steps, *controls = canvas.subplots(1, columns)
    for variant, label in LABELS.items():
        line = {**style(variant), "markersize": 3, "alpha": 0.6, "linewidth": 0.8}
        for run in of(claim, variant):
            rows = [row for row in run.rows if row.completed and row.train_loss and row.smoothness]
            gid = f"{label}, seed {run.spec.seed}"
            matched.plot([row.train_loss for row in rows], [row.smoothness for row in rows], gid=gid, **line)
        _draw_steps(steps, claim, variant)
        matched.plot([], [], label=label, **style(variant))
    for loss in judge.MATCHED_LOSSES:
        matched.axvline(loss, color="#888888", linewidth=0.8)
    matched.invert_xaxis()
    matched.set(title="Smoothness as training goes on", xlabel="train loss (nats), falling")
    matched.set_ylabel("effective smoothness")
    matched.grid(alpha=0.3)
    log_y(matched)
    steps.set(title="Largest step that does not raise the loss", ylabel="learning rate")
    log_y(steps)
    for ax in controls:
        _draw_controls(ax, claim)
    legend_below(canvas, "one line or dot for each seed; vertical lines: the losses at which smoothness is compared")
    return canvas


BESIDE: tuple[tuple[str, RowMeasure, float], ...] = (
    ("down the gradient", judge.step("gradient"), 0),
    ("along a minibatch", judge.step("minibatch"), 0),
    ("1/L", judge.smoothness, 1),
    ("2/sharpness", judge.sharpest, 2),
)
"""What is drawn of the steps: a name, the measure, and the share over it where it is a bound."""


def _draw_steps(ax: Axes, claim: Claim, variant: str) -> None:
    """One network's largest steps and bounds, a column for each and each time."""
    names, aside = dict[str, int](), 0.15 if variant == NORMED else -0.15
    for block, after in enumerate(studies.LOOKED_AFTER["step_passes"]):
        for name, measure, over in BESIDE:
            place = names[f"{name}, pass {after}"] = len(names) + block
            found = claim.values(variant, measure, judge.just(after))
            values = {seed: over / value if over else value for seed, value in found.items()}
            _dots(ax, place + aside, values, variant, markersize=4, alpha=0.6)
    ax.set_xticks(list(names.values()), list(names), rotation=40, ha="right", fontsize=8)
    ax.grid(axis="y", alpha=0.3)


def _draw_controls(ax: Axes, claim: Claim) -> None:
    """Share of accurate runs in every control, arm by arm and rate by rate."""
    names: dict[str, int] = {}
    for block, (name, control) in enumerate(studies.CONTROLS.items()):
        for rate in control.rates:
            place = names[f"{control.label}: {rate:g}"] = -len(names) - block
            for variant in control.variants:
                good = list(map(judge.accurate, claim.control(name, variant, rate).values()))
                dot = {**style(variant), "linestyle": "", "label": VARIANTS[variant].label}
                if good:
                    ax.plot([np.mean(good)], [place + (0.12 if variant == NORMED else -0.12)], **dot)
    ax.set_yticks(list(names.values()), list(names), fontsize=8)
    ax.set(title="Controls: accurate runs", xlabel="share of seeds", xlim=(-0.05, 1.05))
    ax.grid(alpha=0.3)


# Entries --------------------------------------------------------------------------------------------------------------


def load(folder: Path, _anyway: bool = False) -> list[Entry]:
    """The report's parts on a folder's ladder, landscapes and controls."""
    return entries(*(Store(folder / part, ConvNetRecord).load_all() for part in (LADDER, LANDSCAPES, CLAIM_CONTROLS)))


def entries(ladder: Runs, landscapes: Runs, controls: Runs = ()) -> list[Entry]:
    """The report's parts on these records; raises RecordError when they cannot stand together."""
    if not ladder and not landscapes:
        return []
    found = assemble(ladder, landscapes, controls)
    tests = judge.decide(found)
    about: dict[str, Any] = {"caption": caption(found), "rerun": _again(found)}
    made = (*ladder, *landscapes, *controls)
    claim_part = Entry(
        title="The claim: does BatchNorm allow larger learning rates?",
        question="Does training with BatchNorm work at larger learning rates, and does smoothness account for it?",
        file_name="ladder.png",
        figure=ladder_figure(found),
        alt="Share of runs that work, final train loss, and learning rate times L, against the learning rate, with and "
        "without BatchNorm. The tables give the values.",
        tables=[criteria_table(found, tests), lost_table(found, tests), tests_table(tests)],
        answer=[*answers(found, tests), LITERATURE],
        seconds=sum(time.cpu_seconds for run in made for time in run.times),
        data=[data_words(ladder[0].data)],
        environments=[run.environment for run in made],
        **about,
    )
    steps = step_answers(found, tests)
    reason_part = Entry(
        title="The claim: steps, smoothness and controls",
        question="How far may one step without raising the loss, and which of the causes is it?",
        file_name="reason.png",
        figure=reason_figure(found),
        alt="Smoothness against train loss, the largest steps beside 1/L and 2/sharpness, and the controls' accurate "
        "runs. The table of all tests gives the values.",
        answer=steps,
        **about,
    )
    return [claim_part, *([reason_part] if steps else []), *landscapes_entries(found, about)]


def _again(found: Claim) -> str:
    spec = found.ladder[0].spec
    tried = max(sum(run.spec.seed == seed for run in found.of(variant)) for seed in found.seeds for variant in LABELS)
    return again(
        "claim",
        data=(CHOICE[spec.data], None),
        seeds=(len(found.seeds), studies.CLAIM_SEEDS),
        first_seed=(found.seeds[0], studies.FIRST_SEED),
        landscapes=(len(found.views), studies.VIEWS),
        passes=(spec.passes, studies.LADDER_PASSES),
        landscape_passes=(found.landscapes[0].spec.passes, studies.LANDSCAPE_PASSES),
        rate=(found.rates, list(studies.LADDER_RATES)),
        bisections=(tried - len(found.rates), studies.BISECTIONS),
        no_controls=(not found.controls, False),
        device=(found.ladder[0].environment.device, "cpu"),
        fresh=(True, False),
    )

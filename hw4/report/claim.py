"""What the ladder of learning rates and the landscapes say about the claim that BatchNorm allows larger rates."""

import math
import statistics
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hw4.errors import RecordError
from hw4.files import LADDER, LANDSCAPES
from hw4.readings import Block
from hw4.records import STUCK, ConvNetRecord, PassRow, Store
from hw4.report.drawing import DPI, error_bar, legend_below, log_y, over_passes, plain_log, style
from hw4.report.entry import CHOICE, Entry, again, changed, data_words, images_words, require_unmixed
from hw4.report.words import SETTLED_PASS, basis, bounded, compared, decide, passes, plural, seen, settled_span, show
from hw4.specs import EXERCISES
from hw4.specs import VARIANTS as ALL_VARIANTS
from hw4.stats import Interval, geometric_interval, mean_interval, paired_ratio
from hw4.studies import BISECTIONS, CLAIM_SEEDS, LADDER_RATES, VIEWS, stable_bracket

VARIANTS = {name: ALL_VARIANTS[name].label for name in EXERCISES["smoothness"].variants}
"""The two networks, without and with BatchNorm, by their labels."""
WITH = {name: "with BatchNorm" if ALL_VARIANTS[name].norm else "without BatchNorm" for name in VARIANTS}
"""The same in sentences."""

Runs = Sequence[ConvNetRecord]
Measure = Callable[[PassRow], float | None]
"""A number of a landscape after a pass, or None where it was not measured."""


def of(runs: Runs, variant: str, *, rate: float | None = None) -> list[ConvNetRecord]:
    """The runs of one network, at one learning rate where one is given."""
    return [run for run in runs if run.spec.variant == variant and rate in {None, run.spec.learning_rate}]


class Claim(NamedTuple):
    """A ladder's runs and the landscapes, all of one data set, each ordered by learning rate."""

    ladder: list[ConvNetRecord]
    landscapes: list[ConvNetRecord]

    @property
    def seeds(self) -> list[int]:
        """Every seed of the ladder."""
        return sorted({run.spec.seed for run in self.ladder})

    @property
    def views(self) -> int:
        """How many landscapes each network has."""
        return len(of(self.landscapes, "pool"))

    @property
    def rates(self) -> list[float]:
        """The ladder proper: rates that every seed of both networks was trained at; others narrow single brackets."""
        made = Counter(run.spec.learning_rate for run in self.ladder)
        return [rate for rate, runs in made.items() if runs == len(VARIANTS) * len(self.seeds)]

    @property
    def rate(self) -> float:
        """Learning rate of the landscapes."""
        return self.landscapes[0].spec.learning_rate

    @property
    def narrowed(self) -> int:
        """How many more rates were tried for the network and seed with the most of them."""
        tried = Counter((run.spec.variant, run.spec.seed) for run in self.ladder)
        return max(tried.values()) - len(self.rates)

    @property
    def span(self) -> str:
        """The passes of the landscapes over which a level is taken."""
        return settled_span(self.landscapes[0].spec.passes)

    @property
    def caption(self) -> str:
        """What was run."""
        first, rates = self.ladder[0], self.rates
        narrowed = f", narrowed by {self.narrowed} more for each network and seed" if self.narrowed else ""
        ends = f" from {rates[0]:g} to {rates[-1]:g}" if len(rates) > 1 else f", {rates[0]:g}"
        return (
            f"{images_words(first.data)}; SGD, batch {first.spec.batch_size}, {passes(first.spec.passes)}; ladder of "
            f"{plural(len(rates), 'learning rate')}{ends}{narrowed}, {plural(len(self.seeds), 'seed')}; landscapes at "
            f"learning rate {self.rate:g}, {plural(self.views, 'seed')}"
        )

    def stable(self, variant: str) -> dict[int, tuple[float, float]]:
        """By seed, the largest rate up to which every run trained, and the next rate, at which one did not.

        Seeds that fail at the first rate or never fail have no bracket; they are left out.
        """
        runs = of(self.ladder, variant)
        found = {seed: stable_bracket([run for run in runs if run.spec.seed == seed]) for seed in self.seeds}
        return {seed: bracket for seed, bracket in found.items() if bracket is not None}

    def largest_stable(self, variant: str) -> Interval | None:
        """Largest stable rate: geometric mean of the brackets' middles, and the hull of their ends' intervals."""
        return _bracketed(list(self.stable(variant).values()))

    def stable_ratio(self) -> Interval | None:
        """How many times larger the stable rate is with BatchNorm: paired seeds, and each bracket's width added."""
        plain, normed = map(self.stable, VARIANTS)
        return _bracketed(
            [(normed[seed][0] / plain[seed][1], normed[seed][1] / plain[seed][0]) for seed in normed if seed in plain]
        )

    def values(self, variant: str, measure: Measure, *, settled: bool) -> dict[int, float]:
        """A measure's geometric mean by seed, over passes 3 and later, or before training."""
        found = {}
        for run in of(self.landscapes, variant):
            rows = run.rows[min(SETTLED_PASS, run.spec.passes) :] if settled else run.rows[:1]
            taken = [value for row in rows if (value := measure(row)) is not None and value > 0]
            if taken:
                found[run.spec.seed] = statistics.geometric_mean(taken)
        return found

    def level(self, variant: str, measure: Measure) -> Interval | None:
        """Interval of a measure's level under way over seeds, on a logarithmic scale."""
        found = self.values(variant, measure, settled=True)
        return geometric_interval(list(found.values())) if found else None

    def ratio(self, measure: Measure, *, settled: bool = True) -> Interval | None:
        """A measure with BatchNorm over that without, paired by seed."""
        plain, normed = (self.values(variant, measure, settled=settled) for variant in VARIANTS)
        pairs = [(normed[seed], plain[seed]) for seed in normed if seed in plain]
        return paired_ratio(pairs) if pairs else None


def _bracketed(brackets: Sequence[tuple[float, float]]) -> Interval | None:
    """Interval of what lies in the brackets, one for each seed: their own widths count as well as their scatter."""
    if not brackets:
        return None
    low, high = map(geometric_interval, zip(*brackets, strict=True))
    ends = (low.low, high.high) if len(brackets) > 1 else (low.estimate, high.estimate)
    return Interval(math.sqrt(low.estimate * high.estimate), *ends, len(brackets))


def _inverse(found: Interval | None, share: float = 1) -> Interval | None:
    """The interval of a share over what an interval is of."""
    if found is None:
        return None
    return Interval(share / found.estimate, share / found.high, share / found.low if found.low else math.inf, found.n)


def at_step(row: PassRow) -> float | None:
    """Effective smoothness at the step that training takes."""
    view = row.view
    return view.smoothness[view.factors.index(1.0)] if view is not None and 1.0 in view.factors else None


def largest(row: PassRow) -> float | None:
    """Effective smoothness, the largest over the range of steps."""
    return row.view.largest if row.view is not None else None


def sharpest(row: PassRow) -> float | None:
    """Largest Hessian eigenvalue, where it was measured."""
    return row.sharpness.value if row.sharpness is not None else None


def layer(name: str, *, weight: bool = False) -> Measure:
    """Gradient change over update of one layer's weight alone, in the first reading; or that weight's norm."""

    def measure(row: PassRow) -> float | None:
        found: list[Block] = [block for each in row.readings[:1] for block in each.blocks if block.name == name]
        if weight or not found:
            return found[0].weight_norm if found else None
        return found[0].gradient_change_norm / found[0].update_norm if found[0].update_norm > 0 else None

    return measure


RANGE_ALT = "Bands of loss, gradient change and effective smoothness over steps of half to four times the update."
CURVATURE_ALT = (
    "Largest Hessian eigenvalue and kink share after some passes, and smoothness of each layer. The answer gives the "
    "values."
)

LAYERS = {
    "convs.0.weight": "first convolution",
    "convs.1.weight": "second convolution",
    "linear.weight": "linear layer",
}


def assemble(ladder: Runs, landscapes: Runs) -> Claim:
    """Put the records together; raises RecordError when some are missing or they do not belong together."""
    for runs in (ladder, landscapes):
        require_unmixed(runs)
    if len({run.data.checksum for run in (*ladder, *landscapes)}) > 1:
        raise RecordError("ladder and landscapes come from 2 data sets; make them again with 'hw4 claim --fresh'")
    for run in landscapes:
        if len(run.times) < run.spec.passes or run.last.view is None:
            raise RecordError(f"{run.key} diverged and has no landscape to its end; choose a smaller learning rate")
    for variant, label in VARIANTS.items():
        if not of(ladder, variant) or not of(landscapes, variant):
            raise RecordError(f"there are no records of {label} for the claim; make them with 'hw4 claim'")
    claim = Claim(_by_rate(ladder), _by_rate(landscapes))
    if not claim.rates:
        raise RecordError("no learning rate of the ladder has every seed of both networks; run 'hw4 claim' to its end")
    return claim


def _by_rate(runs: Runs) -> list[ConvNetRecord]:
    """Each network's and seed's runs once, by learning rate."""
    once = {(run.spec.learning_rate, run.spec.variant, run.spec.seed): run for run in runs}
    return sorted(once.values(), key=lambda run: run.spec.learning_rate)


SHOWN = {"train loss": ("train_loss", math.inf), "test accuracy": ("test_accuracy", 1.0)}
"""What is shown of a ladder's runs that trained: names of a row's fields, and the largest value there can be."""
OUTCOMES = ("trained", "stuck", "diverged")
HEADER = (
    "learning rate",
    *(f"{label}: {what}" for label in VARIANTS.values() for what in (*SHOWN, " / ".join(OUTCOMES))),
)


def _ends(runs: Runs, field: str) -> list[float]:
    """A field's value after the last pass, of the runs that trained."""
    values = (getattr(run.last, field) for run in runs if run.outcome == "trained")
    return [value for value in values if value is not None]


def ladder_rows(claim: Claim) -> list[tuple[str, ...]]:
    """The ladder's table."""
    rows = []
    for rate in claim.rates:
        cells = [f"{rate:g}"]
        for variant in VARIANTS:
            runs = of(claim.ladder, variant, rate=rate)
            for field, upper in SHOWN.values():
                values = _ends(runs, field)
                cells.append(show(bounded(mean_interval(values), upper) if values else None))
            cells.append(" / ".join(str(sum(run.outcome == what for run in runs)) for what in OUTCOMES))
        rows.append(tuple(cells))
    return rows


PREDICTION_CAPTION = "Largest stable learning rates, and what measurements along the runs would allow"
PREDICTION_HEADER = ("learning rates", *VARIANTS.values(), "ratio, BatchNorm over without")
PREDICTIONS: tuple[tuple[str, Measure, int], ...] = (
    ("1 / smoothness", at_step, 1),
    ("2 / smoothness", at_step, 2),
    ("1 / largest smoothness over the range", largest, 1),
    ("2 / sharpness", sharpest, 2),
)
"""What measurements along a run would allow as learning rate: a share over a measure."""


def rates_of(claim: Claim) -> Iterator[tuple[str, list[Interval | None], Interval | None]]:
    """Measured stable rates, and those that smoothness and sharpness would allow: name, networks, their ratio."""
    yield "largest stable, measured", [claim.largest_stable(variant) for variant in VARIANTS], claim.stable_ratio()
    for name, measure, share in PREDICTIONS:
        levels = [_inverse(claim.level(variant, measure), share) for variant in VARIANTS]
        yield name, levels, _inverse(claim.ratio(measure))


def prediction_rows(claim: Claim) -> list[tuple[str, ...]]:
    """The table of rates."""
    return [
        (name, *(show(each, digits=3 if row else 2) for each in levels), show(ratio, digits=1))
        for row, (name, levels, ratio) in enumerate(rates_of(claim))
    ]


def answers(claim: Claim) -> list[str]:
    """The answer to the homework's question, from the numbers."""
    return [_limits(claim), *_predicted(claim), *_rule_of_thumb(claim)]


def _limits(claim: Claim) -> str:
    """Whether BatchNorm allows larger learning rates, as far as the ladder says."""
    (plain, normed), ratio = map(claim.largest_stable, VARIANTS), claim.stable_ratio()
    seeds, unbracketed = len(claim.seeds), ", ".join(_unbracketed(claim))
    if ratio is None or plain is None or normed is None:
        undecided = ", so nothing is decided" if seeds > 1 else ""
        return f"The ladder does not bracket the largest stable rate of both networks{undecided}: {unbracketed}."
    left_out = f"; {unbracketed}" if unbracketed else ""
    if ratio.n == 1:
        brackets = [claim.stable(variant) for variant in VARIANTS]
        (seed,) = set.intersection(*map(set, brackets))
        (low, high), (normed_low, normed_high) = (bracket[seed] for bracket in brackets)
        return (
            f"{seen(seeds)}: training works up to a rate between {low:g} and {high:g} without BatchNorm and between "
            f"{normed_low:g} and {normed_high:g} with it{left_out}."
        )
    words = decide(
        ratio,
        above="BatchNorm does allow larger learning rates",
        below="BatchNorm does not allow larger learning rates here, it needs smaller ones",
        undecided="Whether BatchNorm allows larger learning rates is not decided",
        one="",
    )
    return (
        f"{words}: the largest rate up to which training works is {show(plain, digits=2)} without and "
        f"{show(normed, digits=2)} with it, a factor of {show(ratio, digits=1)}{basis(ratio.n, seeds, brackets=True)}; "
        f"the intervals include the spacing of the rates tried{left_out}."
    )


def _unbracketed(claim: Claim) -> Iterator[str]:
    """Which seeds do not say where their largest stable rate lies, and why."""
    for variant, label in VARIANTS.items():
        runs = of(claim.ladder, variant)
        seeds = {run.spec.seed for run in runs}
        trained = seeds - {run.spec.seed for run in runs if run.outcome != "trained"}
        failed = seeds - trained - claim.stable(variant).keys()
        for what, found in (("trains at every rate tried", trained), ("fails at the smallest rate tried", failed)):
            if found:
                yield f"{label} {what} in {len(found)} of {plural(len(seeds), 'seed')}"


def _predicted(claim: Claim) -> Iterator[str]:
    """What smoothness and sharpness would predict, and whether that is what was measured."""
    predicted, sharper = (_inverse(claim.ratio(measure)) for measure in (at_step, sharpest))
    if predicted is None:
        return
    text = f"moothness along the updates at rate {claim.rate:g} would predict a factor of {show(predicted, digits=1)}"
    if sharper is not None:
        text += f", sharpness one of {show(sharper, digits=1)}"
    if predicted.n == 1:
        yield f"{seen(claim.views)}: s{text}."
    else:
        yield f"S{text}{_agreement(predicted, claim.stable_ratio())}."


def _agreement(predicted: Interval, measured: Interval | None) -> str:
    """Whether a predicted factor is the measured one; both need an interval for that."""
    if measured is None or measured.n < 2 or predicted.n < 2:
        return ""
    inside = measured.low <= predicted.estimate <= measured.high or predicted.low <= measured.estimate <= predicted.high
    if inside:
        no_gain = ", but so does no gain at all" if measured.low <= 1 <= measured.high else ""
        return f"; the first agrees with what was measured within the intervals{no_gain}"
    if predicted.low <= measured.high and measured.low <= predicted.high:
        return (
            "; neither it nor what was measured lies in the other's interval, yet the intervals meet: whether "
            "smoothness accounts for it is not decided"
        )
    return "; smoothness does not account for what was measured, neither in size nor within the intervals"


def _rule_of_thumb(claim: Claim) -> Iterator[str]:
    """Whether training works beyond 1/L, without BatchNorm."""
    plain, rule = claim.largest_stable("pool"), _inverse(claim.level("pool", at_step))
    if plain is None or rule is None:
        return
    times = f"{plain.estimate / rule.estimate:.1f} times that"
    found = f"without BatchNorm 1/L is {rule.estimate:.3f} along a run at rate {claim.rate:g}, and training works up to"
    if min(plain.n, rule.n) < 2:
        yield f"{seen(max(plain.n, rule.n))}: {found} about {times}."
    elif plain.low > rule.high:
        yield (
            f"The rule of thumb itself, 1/L, is no bound: {found} {times}. A value measured along one step at one rate "
            f"is local, and a network that is trained at a larger rate moves to where that rate is stable."
        )
    elif plain.high < rule.low:
        yield f"The rule of thumb itself, 1/L, allows too much here: {found} only {times}."
    else:
        yield f"Whether training works beyond the rule of thumb, 1/L, is not decided: {found} {times}."


def range_answers(claim: Claim) -> list[str]:
    """What the range view adds."""
    ratio = claim.ratio(largest)
    if ratio is None:
        return []
    words = compared(ratio, "largest effective smoothness over the range of steps", claim.views)
    return [f"{words}, {claim.span}{basis(ratio.n, claim.views, brackets=True)}."]


def failures(claim: Claim) -> list[str]:
    """Where the simple story fails: at the start, by layer, through weight scale, at kinks."""
    layers = {label: claim.ratio(layer(name)) for name, label in LAYERS.items()}
    known = [f"{label} {show(ratio, digits=2)}" for label, ratio in layers.items() if ratio is not None]
    by_layer = f"By layer the ratio of gradient change to update, with over without, is: {'; '.join(known)}."
    before = [*_at_the_start(claim), *_first_losses(claim), *([by_layer] if known else [])]
    return [*before, *_weight_scale(claim), *_kinks(claim)]


def _at_the_start(claim: Claim) -> Iterator[str]:
    """The order before training, and whether it is that under way."""
    start, settled = claim.ratio(at_step, settled=False), claim.ratio(at_step)
    if start is not None:
        turned = settled and {start.compared_with(1), settled.compared_with(1)} == {"below", "above"}
        moral = " Under way the order is the other: smoothness at the start does not tell what training will meet."
        words = compared(start, "effective smoothness before training", claim.views)
        yield f"{words}.{moral if turned else ''}"


def _weight_scale(claim: Claim) -> Iterator[str]:
    """What the growth of the convolutions' weights does by itself."""
    for name, label in list(LAYERS.items())[:2]:
        norm = layer(name, weight=True)
        ends = [[(norm(run.rows[0]), norm(run.last)) for run in of(claim.landscapes, variant)] for variant in VARIANTS]
        grown = [[after / before for before, after in each if before and after] for each in ends]
        if not all(grown):
            continue
        plain, normed = map(geometric_interval, grown)
        own = (
            f" Before a BatchNorm the scale of weights does not change what is computed, yet by scale alone this "
            f"layer's smoothness becomes {1 / normed.estimate**2:.2f} of what it was, and its updates matter less."
        )
        yield (
            f"Weight scale: by the end of training the {label}'s norm is {show(plain, digits=2)} times what it was "
            f"without and {show(normed, digits=2)} times with BatchNorm."
            f"{own if normed.compared_with(1) == 'above' else ''}"
        )


def _kinks(claim: Claim) -> Iterator[str]:
    """How much of the gradient's change comes from kinks."""
    parts, beyond = [], False
    for variant, words in WITH.items():
        found = [row.kinks for run in of(claim.landscapes, variant) for row in run.rows if row.kinks is not None]
        if found:
            typical, error = np.median([kinks.share for kinks in found]), max(kinks.quadrature_error for kinks in found)
            beyond |= bool(typical > error)
            most = max(kinks.share for kinks in found)
            parts.append(f"{typical:.0%} {words} (at most {most:.0%}; error of the integral at most {error:.1%})")
    moral = ", so sharpness alone cannot tell the whole story of these networks" if beyond else ""
    if parts:
        yield (
            f"Kinks: the share of the gradient's change along a training step that comes from kinks, which no Hessian "
            f"can see, is typically {' and '.join(parts)}{moral}."
        )


def _first_losses(claim: Claim) -> Iterator[str]:
    """When runs just above the limit are lost: in the first pass, where the start decides, or later."""
    parts = []
    for variant, words in WITH.items():
        failed = {(seed, rate) for seed, (_, rate) in claim.stable(variant).items()}
        lost = [run for run in of(claim.ladder, variant) if (run.spec.seed, run.spec.learning_rate) in failed]
        early = sum(len(run.times) == 1 or _stuck_from_the_first_pass(run) for run in lost)
        parts += [f"{early} of {len(lost)} {words}"] if lost else []
    if parts:
        yield (
            f"Of the runs at the smallest rate that fails, {' and '.join(parts)} were lost within the first pass, "
            f"where the start decides and not the smoothness under way."
        )


def _stuck_from_the_first_pass(run: ConvNetRecord) -> bool:
    first, after = run.rows[0].train_loss, run.rows[1].train_loss
    return run.outcome == "stuck" and first is not None and after is not None and after > STUCK * first


def ladder_figure(claim: Claim) -> Figure:
    """Final train loss and test accuracy against the learning rate, and the rates that measurements predict."""
    canvas = Figure(figsize=(14, 4.8), dpi=DPI, layout="constrained")
    loss, accuracy, rates = canvas.subplots(1, 3, width_ratios=(3, 3, 3))
    ends = [run.spec.learning_rate for run in claim.ladder]
    for ax, what, unit in (
        (loss, "train loss", "mean logistic loss (nats)"),
        (accuracy, "test accuracy", "share of test images"),
    ):
        for variant in VARIANTS:
            _draw_ladder(ax, claim, variant, SHOWN[what][0])
        ax.set(title=f"Final {what}", xlabel="learning rate", ylabel=unit, xscale="log")
        ax.set_xlim(min(ends) / 1.3, max(ends) * 1.5)
        plain_log(ax.xaxis)
        ax.grid(alpha=0.3)
        ax.margins(y=0.2)  # room for the counts of lost runs
    log_y(loss)
    _draw_rates(rates, claim)
    notes = ["dots: runs that trained, line: their mean, numbers at the top: runs lost (stuck or diverged)"]
    if max(len(claim.seeds), claim.views) > 1:
        notes.append("bars: 95% t intervals over seeds")
    if len(claim.seeds) == 1:
        notes.append("bar of the measured rate: from the last rate that trains to the first that does not")
    legend_below(canvas, "; ".join(notes))
    return canvas


def _draw_rates(ax: Axes, claim: Claim) -> None:
    """Draw the table of rates, one row for each; of one seed the measured rate has a bracket, others have nothing."""
    names = []
    for y, (name, levels, _) in enumerate(rates_of(claim)):
        names.append(textwrap.fill(name, 20))
        for offset, (variant, found) in enumerate(zip(VARIANTS, levels, strict=True)):
            if found is not None:
                line = {**style(variant), "linestyle": "none"}
                place = -y + 0.12 - 0.24 * offset
                ax.errorbar(found.estimate, place, xerr=error_bar(found, bracket=y == 0), capsize=3, **line)
    ax.set(title="Measured and predicted rates", xlabel="learning rate", xscale="log")
    plain_log(ax.xaxis)
    ax.set_yticks([-y for y in range(len(names))], names)
    ax.set_ylim(-len(names) + 0.4, 0.6)
    ax.grid(axis="x", alpha=0.3)


def _draw_ladder(ax: Axes, claim: Claim, variant: str, field: str) -> None:
    """Draw one network's ladder: a dot for each run that trained, a line through their means, and counts of others."""
    line, means, offset = style(variant), {}, list(VARIANTS).index(variant)
    mine = of(claim.ladder, variant)
    for rate in dict.fromkeys(run.spec.learning_rate for run in mine):
        runs = of(mine, variant, rate=rate)
        values = _ends(runs, field)
        ax.plot([rate] * len(values), values, **{**line, "linestyle": "none", "markersize": 3, "alpha": 0.5})
        if rate in claim.rates and values:
            means[rate] = math.fsum(values) / len(values)
        if rate in claim.rates and len(values) < len(runs):
            ax.annotate(
                f"{len(runs) - len(values)} of {len(runs)}",
                (rate, 0.98 - 0.06 * offset),
                xycoords=("data", "axes fraction"),
                color=line["color"],
                fontsize=7,
                ha="center",
                va="top",
            )
    ax.plot(list(means), list(means.values()), color=line["color"], linestyle=line["linestyle"])
    ax.plot([], [], label=VARIANTS[variant], markersize=4, **line)


def range_figure(claim: Claim) -> Figure:
    """Loss, gradient change and largest smoothness over the range of steps, after every pass, both models in each."""
    canvas = Figure(figsize=(14, 4.4), dpi=DPI, layout="constrained")
    for ax, quantity, title, unit in zip(
        canvas.subplots(1, 3),
        ("losses", "gradient_changes", "smoothness"),
        ("Loss along the update", "Gradient change along the update", "Effective smoothness over the range"),
        ("mean logistic loss (nats)", "||change of gradient||", "||change of gradient|| / ||step||"),
        strict=True,
    ):
        for variant, label in VARIANTS.items():
            line, runs = style(variant), of(claim.landscapes, variant)
            views = list(zip(*([row.view for row in run.rows if row.view] for run in runs), strict=False))
            lows, highs = (
                [_drawn_mean([end(getattr(view, quantity)) for view in each]) for each in views] for end in (min, max)
            )
            ax.fill_between(range(len(views)), lows, highs, color=line["color"], alpha=0.25, linewidth=0)
            ax.plot(range(len(views)), highs, label=label, markersize=4, **line)
        over_passes(ax, title, unit)
        log_y(ax)
    factors = views[0][0].factors
    legend_below(
        canvas,
        f"bands: smallest to largest over steps of {factors[0]:g} to {factors[-1]:g} times the update, line: the "
        f"largest{'; geometric means over seeds' if len(runs) > 1 else ''}",
    )
    return canvas


def _drawn_mean(values: Sequence[float]) -> float:
    """Geometric mean, or NaN (a gap in the curve) where a value is 0, which a logarithmic axis has no place for."""
    return statistics.geometric_mean(values) if min(values) > 0 else math.nan


def curvature_figure(claim: Claim) -> Figure:
    """Sharpness, kink share, and smoothness by layer."""
    canvas = Figure(figsize=(14, 4.4), dpi=DPI, layout="constrained")
    sharp, kinks, layers = canvas.subplots(1, 3)
    for offset, (variant, label) in enumerate(VARIANTS.items()):
        line, runs = style(variant), of(claim.landscapes, variant)
        for run in runs:
            shown = label if run is runs[0] else None
            for ax, values in (
                (sharp, {row.completed: sharpest(row) for row in run.rows if row.sharpness is not None}),
                (kinks, {row.completed: 100 * row.kinks.share for row in run.rows if row.kinks is not None}),
            ):
                ax.plot(list(values), list(values.values()), markersize=4, alpha=0.8, label=shown, **line)
        for x, name in enumerate(LAYERS):
            level = claim.level(variant, layer(name))
            if level is not None:
                place, bar = x + 0.1 * (2 * offset - 1), {**line, "linestyle": "none"}
                layers.errorbar(place, level.estimate, yerr=error_bar(level), capsize=3, **bar)
    sharp.axhline(2 / claim.rate, color="#444444", linestyle=":", label=f"2 / learning rate = {2 / claim.rate:g}")
    over_passes(sharp, "Sharpness", "largest eigenvalue of the Hessian")
    over_passes(kinks, "Kink share of the gradient's change", "% that no Hessian accounts for")
    kinks.set_ylim(0, None)
    layers.set(title=f"By layer, {claim.span}", ylabel="||gradient change|| / ||update||")
    layers.set_xticks(range(len(LAYERS)), [label.replace(" ", "\n") for label in LAYERS.values()])
    layers.grid(alpha=0.3)
    log_y(sharp)
    log_y(layers)
    legend_below(canvas, "one line for each seed; bars: 95% t intervals over seeds" if claim.views > 1 else "one seed")
    return canvas


def load(folder: Path, _anyway: bool = False) -> list[Entry]:
    """The report's parts on a folder's ladder and landscapes."""
    return entries(*(Store(folder / part, ConvNetRecord).load_all() for part in (LADDER, LANDSCAPES)))


def entries(ladder: Runs, landscapes: Runs) -> list[Entry]:
    """The report's parts on these records; raises RecordError when they cannot stand together."""
    if not ladder and not landscapes:
        return []
    found = assemble(ladder, landscapes)
    limits = "; ".join(f"{label} {show(found.largest_stable(name), digits=2)}" for name, label in VARIANTS.items())
    about: dict[str, Any] = {"caption": found.caption, "rerun": _again(found)}
    ladder_part = Entry(
        title="The claim: does BatchNorm allow larger learning rates?",
        question="Does training with BatchNorm work at larger learning rates, and does smoothness account for it?",
        file_name="ladder.png",
        figure=ladder_figure(found),
        alt=f"Final train loss and test accuracy against the learning rate with and without BatchNorm, and the "
        f"learning rates that smoothness and sharpness would allow. Largest stable rates: {limits}. The tables give "
        f"the values.",
        tables=[
            (PREDICTION_CAPTION, PREDICTION_HEADER, prediction_rows(found)),
            ("The ladder", HEADER, ladder_rows(found)),
        ],
        answer=answers(found),
        seconds=sum(time.cpu_seconds for run in ladder for time in run.times),
        data=[data_words(ladder[0].data)],
        environments=[run.environment for run in (*ladder, *landscapes)],
        **about,
    )
    along, around = range_answers(found), failures(found)
    range_part = Entry(
        title="The claim: along the update, over a range of steps",
        question="How do loss, gradient and smoothness change over steps shorter and longer than the one taken?",
        alt=" ".join([RANGE_ALT, *along]),
        answer=along,
        file_name="range.png",
        figure=range_figure(found),
        **about,
    )
    title, question = "The claim: sharpness, kinks and layers", "Where does the simple story fail?"
    file: dict[str, Any] = {"file_name": "curvature.png", "figure": curvature_figure(found), "alt": CURVATURE_ALT}
    return [ladder_part, range_part, Entry(title=title, question=question, answer=around, **file, **about)]


def _again(found: Claim) -> str:
    """The command that makes the claim's records again."""
    spec = found.ladder[0].spec
    return again(
        "claim",
        data=(CHOICE[spec.data], None),
        seeds=(len(found.seeds), CLAIM_SEEDS),
        landscapes=(found.views, VIEWS),
        **changed(spec, "passes"),
        rate=(found.rates, list(LADDER_RATES)),
        bisections=(found.narrowed, BISECTIONS),
        fresh=(True, False),
    )

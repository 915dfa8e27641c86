"""What the ladder of learning rates and the landscapes say about the claim that BatchNorm allows larger rates."""

import math
import statistics
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hw4.errors import RecordError
from hw4.files import LADDER, LANDSCAPES
from hw4.readings import Block
from hw4.records import STUCK, ConvNetRecord, PassRow, RunOutcome, Store
from hw4.report.drawing import DPI, error_bar, legend_below, log_y, plain_log, style
from hw4.report.entry import CHOICE, Entry, again, data_words
from hw4.report.words import SETTLED_PASS, basis, bounded, passes, plural, seen, settled_span, show, verdict
from hw4.specs import BISECTIONS, EXERCISES, LADDER_RATES, SEEDS, VIEWS
from hw4.specs import VARIANTS as ALL_VARIANTS
from hw4.stats import Interval, mean_interval, paired_ratio
from hw4.studies import stable_bracket

QUESTION = "Does training with BatchNorm work at larger learning rates, and does smoothness account for it?"
VARIANTS = {name: ALL_VARIANTS[name].label for name in EXERCISES["smoothness"].variants}
"""The two networks, without and with BatchNorm, by their labels."""


@dataclass(frozen=True)
class Rung:
    """One network at one learning rate: its runs by seed."""

    rate: float
    runs: dict[int, ConvNetRecord]

    def count(self, what: RunOutcome) -> int:
        """How many runs ended so."""
        return sum(run.outcome == what for run in self.runs.values())

    @property
    def trained(self) -> list[ConvNetRecord]:
        """Runs that learnt."""
        return [run for run in self.runs.values() if run.outcome == "trained"]


@dataclass(frozen=True)
class Claim:
    """Ladders by variant, and landscapes by variant and seed, all of one data set."""

    ladders: dict[str, list[Rung]]
    landscapes: dict[str, dict[int, ConvNetRecord]]

    def records(self) -> tuple[list[ConvNetRecord], list[ConvNetRecord]]:
        """All records, rate by rate and seed by seed."""
        ladder = [run for rungs in self.ladders.values() for rung in rungs for run in rung.runs.values()]
        return ladder, [record for views in self.landscapes.values() for record in views.values()]

    @property
    def any_rung(self) -> ConvNetRecord:
        """A record, for what all share."""
        return next(iter(self.ladders["pool"][0].runs.values()))

    @property
    def seeds(self) -> list[int]:
        """Every seed of the ladder."""
        return sorted({seed for rungs in self.ladders.values() for rung in rungs for seed in rung.runs})

    @property
    def span(self) -> str:
        """The passes of the landscapes over which a level is taken."""
        return settled_span(next(iter(self.landscapes["pool"].values())).spec.passes)

    @property
    def caption(self) -> str:
        """What was run."""
        record, rates = self.any_rung, self.rates
        tried = max(len({run.spec.learning_rate for run in self._runs_of(seed)}) for seed in self.stable("pool") or [0])
        narrowed = f", narrowed by {tried - len(rates)} more for each network and seed" if tried > len(rates) else ""
        ends = f" from {rates[0]:g} to {rates[-1]:g}" if len(rates) > 1 else f", {rates[0]:g}"
        return (
            f"{record.data.title}, {record.data.n_train:,} training images, data sha256 {record.data.checksum[:12]}; "
            f"SGD, batch {record.spec.batch_size}, {passes(record.spec.passes)}; ladder of "
            f"{plural(len(rates), 'learning rate')}{ends}{narrowed}, {plural(len(self.seeds), 'seed')}; landscapes at "
            f"learning rate {self.rate:g}, {plural(len(self.landscapes['pool']), 'seed')}"
        )

    @property
    def rates(self) -> list[float]:
        """The ladder proper: rates that every seed of both networks was trained at; others narrow single brackets."""
        whole = [{rung.rate for rung in rungs if len(rung.runs) == len(self.seeds)} for rungs in self.ladders.values()]
        return sorted(set.intersection(*whole))

    @property
    def rate(self) -> float:
        """Learning rate of the landscapes."""
        return next(iter(self.landscapes["pool"].values())).spec.learning_rate

    def _runs_of(self, seed: int) -> list[ConvNetRecord]:
        return [rung.runs[seed] for rung in self.ladders["pool"] if seed in rung.runs]

    def stable(self, variant: str) -> dict[int, tuple[float, float]]:
        """By seed, the largest rate up to which every run trained, and the next rate, at which one did not.

        Seeds that fail at the first rate or never fail have no bracket; they are left out.
        """
        runs = [run for rung in self.ladders[variant] for run in rung.runs.values()]
        seeds = dict.fromkeys(run.spec.seed for run in runs)
        found = {seed: stable_bracket([run for run in runs if run.spec.seed == seed]) for seed in seeds}
        return {seed: bracket for seed, bracket in found.items() if bracket is not None}

    def largest_stable(self, variant: str) -> Interval | None:
        """Largest stable rate: geometric mean of the brackets' middles, and the hull of their ends' intervals."""
        return _bracketed(list(self.stable(variant).values()))

    def stable_ratio(self) -> Interval | None:
        """How many times larger the stable rate is with BatchNorm: paired seeds, and each bracket's width added."""
        plain, normed = self.stable("pool"), self.stable("pool-batchnorm")
        return _bracketed(
            [(normed[seed][0] / plain[seed][1], normed[seed][1] / plain[seed][0]) for seed in normed if seed in plain]
        )

    def values(self, variant: str, measure: Callable[[PassRow], float | None], *, settled: bool) -> dict[int, float]:
        """A measure's geometric mean by seed, over passes 3 and later, or before training."""
        found = {}
        for seed, record in self.landscapes[variant].items():
            start = min(SETTLED_PASS, record.spec.passes)
            rows = record.rows[start:] if settled else record.rows[:1]
            taken = [value for row in rows if (value := measure(row)) is not None and value > 0]
            if taken:
                found[seed] = statistics.geometric_mean(taken)
        return found

    def level(self, variant: str, measure: Callable[[PassRow], float | None]) -> Interval | None:
        """Interval of a measure's level under way over seeds, on a logarithmic scale."""
        return _geometric(list(self.values(variant, measure, settled=True).values()))

    def ratio(self, measure: Callable[[PassRow], float | None], *, settled: bool = True) -> Interval | None:
        """A measure with BatchNorm over that without, paired by seed."""
        plain, normed = (self.values(variant, measure, settled=settled) for variant in VARIANTS)
        pairs = [(normed[seed], plain[seed]) for seed in normed if seed in plain]
        return paired_ratio(pairs) if pairs else None


def _bracketed(brackets: Sequence[tuple[float, float]]) -> Interval | None:
    """Interval of what lies in the brackets, one for each seed: their own widths count as well as their scatter."""
    if not brackets:
        return None
    low, high = (_geometric([bracket[end] for bracket in brackets]) for end in (0, 1))
    assert low is not None
    assert high is not None
    middle = math.sqrt(low.estimate * high.estimate)
    if len(brackets) == 1:
        return Interval(middle, low.estimate, high.estimate, 1)
    return Interval(middle, low.low, high.high, len(brackets))


def _geometric(values: Sequence[float]) -> Interval | None:
    if not values:
        return None
    logs = mean_interval([math.log(value) for value in values])
    ends = (math.exp(logs.low), math.exp(logs.high)) if logs.n > 1 else (0.0, math.inf)
    return Interval(math.exp(logs.estimate), *ends, logs.n)


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


def _block(row: PassRow, name: str) -> Block | None:
    """One parameter's part in the first reading after a pass."""
    return next((block for reading in row.readings[:1] for block in reading.blocks if block.name == name), None)


def layer(name: str) -> Callable[[PassRow], float | None]:
    """Gradient change over update of one layer's weight alone."""

    def measure(row: PassRow) -> float | None:
        block = _block(row, name)
        return block.gradient_change_norm / block.update_norm if block is not None and block.update_norm > 0 else None

    return measure


def weight(name: str) -> Callable[[PassRow], float | None]:
    """Norm of one layer's weight."""
    return lambda row: block.weight_norm if (block := _block(row, name)) is not None else None


LAYERS = {
    "convs.0.weight": "first convolution",
    "convs.1.weight": "second convolution",
    "linear.weight": "linear layer",
}


def assemble(ladder: Sequence[ConvNetRecord], landscapes: Sequence[ConvNetRecord]) -> Claim:
    """Group the records; raises RecordError when an architecture is missing or they do not belong together."""
    for records in (ladder, landscapes):
        if len({record.environment.code for record in records}) > 1:
            raise RecordError("the records come from several versions of the code; make them with --fresh")
    if len({record.data.checksum for record in (*ladder, *landscapes)}) > 1:
        raise RecordError("the records come from several data sets; make them with --fresh")
    lost = next(
        (record.key for record in landscapes if len(record.times) < record.spec.passes or record.last.view is None),
        None,
    )
    if lost is not None:
        raise RecordError(f"{lost} diverged and has no landscape to its end; choose a smaller learning rate")
    ladders: dict[str, list[Rung]] = {}
    for variant in VARIANTS:
        runs = [record for record in ladder if record.spec.variant == variant]
        ladders[variant] = [
            Rung(rate, {r.spec.seed: r for r in runs if r.spec.learning_rate == rate})
            for rate in sorted({record.spec.learning_rate for record in runs})
        ]
    views = {variant: {r.spec.seed: r for r in landscapes if r.spec.variant == variant} for variant in VARIANTS}
    for variant, label in VARIANTS.items():
        if not ladders[variant] or not views[variant]:
            raise RecordError(f"there are no records of {label} for the claim; make them with 'hw4 claim'")
    claim = Claim(ladders, views)
    if not claim.rates:
        raise RecordError("no learning rate of the ladder has every seed of both networks; run 'hw4 claim' to its end")
    return claim


HEADER = (
    "learning rate",
    *(
        f"{label}: {what}"
        for label in VARIANTS.values()
        for what in ("train loss", "test accuracy", "trained / stuck / diverged")
    ),
)


def ladder_rows(claim: Claim) -> list[tuple[str, ...]]:
    """The ladder's table."""
    rows = []
    for rate in claim.rates:
        cells = [f"{rate:g}"]
        for variant in VARIANTS:
            mine = next(rung for rung in claim.ladders[variant] if rung.rate == rate)
            for pick, upper in ((_final_loss, math.inf), (_final_accuracy, 1)):
                values = [value for run in mine.trained if (value := pick(run)) is not None]
                cells.append(show(bounded(mean_interval(values), upper) if values else None))
            cells.append(" / ".join(str(mine.count(what)) for what in ("trained", "stuck", "diverged")))
        rows.append(tuple(cells))
    return rows


def _final_loss(run: ConvNetRecord) -> float | None:
    return run.last.train_loss


def _final_accuracy(run: ConvNetRecord) -> float | None:
    return run.last.test_accuracy


PREDICTION_CAPTION = "Largest stable learning rates, and what measurements along the runs would allow"
PREDICTION_HEADER = ("learning rates", *VARIANTS.values(), "ratio, BatchNorm over without")
PREDICTIONS: tuple[tuple[str, Callable[[PassRow], float | None], int], ...] = (
    ("1 / smoothness", at_step, 1),
    ("2 / smoothness", at_step, 2),
    ("1 / largest smoothness over the range", largest, 1),
    ("2 / sharpness", sharpest, 2),
)
"""What measurements along a run would allow as learning rate: a share over a measure."""


def prediction_rows(claim: Claim) -> list[tuple[str, ...]]:
    """Measured stable rates beside what smoothness and sharpness would allow."""
    measured = (show(claim.largest_stable(variant), digits=2) for variant in VARIANTS)
    rows = [("largest stable, measured", *measured, show(claim.stable_ratio(), digits=1))]
    for label, measure, share in PREDICTIONS:
        cells = [show(_inverse(claim.level(variant, measure), share), digits=3) for variant in VARIANTS]
        rows.append((label, *cells, show(_inverse(claim.ratio(measure), 1), digits=1)))
    return rows


def _inverse(interval: Interval | None, share: float) -> Interval | None:
    if interval is None:
        return None
    low = share / interval.high if math.isfinite(interval.high) else 0.0
    return Interval(share / interval.estimate, low, share / interval.low if interval.low > 0 else math.inf, interval.n)


def answers(claim: Claim) -> list[str]:
    """The answer to the homework's question, from the numbers."""
    return [_limits(claim), *_predicted(claim), *_rule_of_thumb(claim)]


def _limits(claim: Claim) -> str:
    """Whether BatchNorm allows larger learning rates, as far as the ladder says."""
    plain, normed, ratio = claim.largest_stable("pool"), claim.largest_stable("pool-batchnorm"), claim.stable_ratio()
    seeds, unbracketed = len(claim.seeds), _unbracketed(claim)
    if ratio is None or plain is None or normed is None:
        undecided = ", so nothing is decided" if seeds > 1 else ""
        return f"The ladder does not bracket the largest stable rate of both networks{undecided}: {unbracketed}."
    left_out = f"; {unbracketed}" if unbracketed else ""
    if ratio.n == 1:
        (seed,) = claim.stable("pool").keys() & claim.stable("pool-batchnorm").keys()
        (low, high), (normed_low, normed_high) = (claim.stable(variant)[seed] for variant in VARIANTS)
        return (
            f"{seen(seeds)}: training works up to a rate between {low:g} and {high:g} without BatchNorm and between "
            f"{normed_low:g} and {normed_high:g} with it{left_out}."
        )
    words = {
        "above": "BatchNorm does allow larger learning rates",
        "below": "BatchNorm does not allow larger learning rates here, it needs smaller ones",
        "not decided": "Whether BatchNorm allows larger learning rates is not decided",
    }[ratio.compared_with(1)]
    return (
        f"{words}: the largest rate up to which training works is {show(plain, digits=2)} without and "
        f"{show(normed, digits=2)} with it, a factor of {show(ratio, digits=1)}{basis(ratio.n, seeds, brackets=True)}; "
        f"the intervals include the spacing of the rates tried{left_out}."
    )


def _unbracketed(claim: Claim) -> str:
    """Which seeds do not say where their largest stable rate lies, and why; "" where all do."""
    parts = []
    for variant, label in VARIANTS.items():
        rungs = claim.ladders[variant]
        seeds = {seed for rung in rungs for seed in rung.runs}
        trained = {s for s in seeds if all(r.runs[s].outcome == "trained" for r in rungs if s in r.runs)}
        for what, found in (
            ("trains at every rate tried", trained),
            ("fails at the smallest rate tried", seeds - trained - claim.stable(variant).keys()),
        ):
            if found:
                parts.append(f"{label} {what} in {len(found)} of {plural(len(seeds), 'seed')}")
    return ", ".join(parts)


def _predicted(claim: Claim) -> list[str]:
    """What smoothness and sharpness would predict, and whether that is what was measured."""
    predicted, sharper = (_inverse(claim.ratio(measure), 1) for measure in (at_step, sharpest))
    if predicted is None:
        return []
    text = f"moothness along the updates at rate {claim.rate:g} would predict a factor of {show(predicted, digits=1)}"
    if sharper is not None:
        text += f", sharpness one of {show(sharper, digits=1)}"
    if predicted.n == 1:
        return [f"{seen(len(claim.landscapes['pool']))}: s{text}."]
    return [f"S{text}{_agreement(predicted, claim.stable_ratio())}."]


def _agreement(predicted: Interval, measured: Interval | None) -> str:
    """Whether a predicted factor is the measured one; both need an interval for that."""
    if measured is None or measured.n < 2 or predicted.n < 2:
        return ""
    inside = measured.low <= predicted.estimate <= measured.high or predicted.low <= measured.estimate <= predicted.high
    if inside and measured.low <= 1 <= measured.high:
        return "; the first agrees with what was measured within the intervals, but so does no gain at all"
    if inside:
        return "; the first agrees with what was measured within the intervals"
    if predicted.low <= measured.high and measured.low <= predicted.high:
        return (
            "; neither it nor what was measured lies in the other's interval, yet the intervals meet: whether "
            "smoothness accounts for it is not decided"
        )
    return "; smoothness does not account for what was measured, neither in size nor within the intervals"


def _rule_of_thumb(claim: Claim) -> list[str]:
    """Whether training works beyond 1/L, without BatchNorm."""
    plain, rule = claim.largest_stable("pool"), _inverse(claim.level("pool", at_step), 1)
    if plain is None or rule is None:
        return []
    times = f"{plain.estimate / rule.estimate:.1f} times that"
    found = f"without BatchNorm 1/L is {rule.estimate:.3f} along a run at rate {claim.rate:g}, and training works up to"
    if min(plain.n, rule.n) < 2:
        return [f"{seen(max(plain.n, rule.n))}: {found} about {times}."]
    if plain.low > rule.high:
        return [
            f"The rule of thumb itself, 1/L, is no bound: {found} {times}. A value measured along one step at one rate "
            f"is local, and a network that is trained at a larger rate moves to where that rate is stable."
        ]
    if plain.high < rule.low:
        return [f"The rule of thumb itself, 1/L, allows too much here: {found} only {times}."]
    return [f"Whether training works beyond the rule of thumb, 1/L, is not decided: {found} {times}."]


def range_answers(claim: Claim) -> list[str]:
    """What the range view adds."""
    ratio, seeds = claim.ratio(largest), len(claim.landscapes["pool"])
    if ratio is None:
        return []
    what = "largest effective smoothness over the range of steps"
    words = {
        "below": f"The {what} is smaller with BatchNorm: it is",
        "above": f"The {what} is larger with BatchNorm: it is",
        "not decided": f"Whether BatchNorm changes the {what} is not decided: with it it is",
        "one seed": f"{seen(seeds)}: with BatchNorm the {what} is",
    }[verdict(ratio, 1)]
    return [f"{words} {show(ratio, digits=2)} times that without, {claim.span}{basis(ratio.n, seeds, brackets=True)}."]


def failures(claim: Claim) -> list[str]:
    """Where the simple story fails: at the start, by layer, through weight scale, at kinks."""
    layers = {label: claim.ratio(layer(name)) for name, label in LAYERS.items()}
    known = [f"{label} {show(ratio, digits=2)}" for label, ratio in layers.items() if ratio is not None]
    by_layer = f"By layer the ratio of gradient change to update, with over without, is: {'; '.join(known)}."
    return [
        *_at_the_start(claim),
        *_first_losses(claim),
        *([by_layer] if known else []),
        *_weight_scale(claim),
        *_kinks(claim),
    ]


def _at_the_start(claim: Claim) -> list[str]:
    """The order before training, and whether it is that under way."""
    start, settled = claim.ratio(at_step, settled=False), claim.ratio(at_step)
    if start is None:
        return []
    words = {
        "above": "At initialisation the network with BatchNorm is rougher than the one without",
        "below": "At initialisation the network with BatchNorm is smoother than the one without",
        "not decided": "At initialisation it is not decided which network is smoother",
        "one seed": f"{seen(len(claim.landscapes['pool']))}, at initialisation",
    }[verdict(start, 1)]
    sentence = f"{words}: the effective smoothness with BatchNorm is {show(start, digits=2)} times that without."
    if settled is not None and {verdict(start, 1), verdict(settled, 1)} == {"below", "above"}:
        sentence += " Under way the order is the other: smoothness at the start does not tell what training will meet."
    return [sentence]


def _weight_scale(claim: Claim) -> list[str]:
    """What the growth of the convolutions' weights does by itself."""
    sentences = []
    for name, label in list(LAYERS.items())[:2]:
        ends = {}
        for variant in VARIANTS:
            runs = claim.landscapes[variant].values()
            growth = [b / a for run in runs if (a := weight(name)(run.rows[0])) and (b := weight(name)(run.rows[-1]))]
            ends[variant] = _geometric(growth)
        plain, normed = ends.values()
        if plain is None or normed is None:
            continue
        sentence = (
            f"Weight scale: by the end of training the {label}'s norm is {show(plain, digits=2)} times what it was "
            f"without and {show(normed, digits=2)} times with BatchNorm."
        )
        if verdict(normed, 1) == "above":
            sentence += (
                f" Before a BatchNorm the scale of weights does not change what is computed, yet by scale alone this "
                f"layer's smoothness becomes {1 / normed.estimate**2:.2f} of what it was, and its updates matter less."
            )
        sentences.append(sentence)
    return sentences


def _kinks(claim: Claim) -> list[str]:
    """How much of the gradient's change comes from kinks."""
    parts, beyond = [], False
    for variant in VARIANTS:
        runs = claim.landscapes[variant].values()
        found = [row.kinks for run in runs for row in run.rows if row.kinks is not None]
        if found:
            typical, error = np.median([kinks.share for kinks in found]), max(kinks.quadrature_error for kinks in found)
            beyond |= bool(typical > error)
            parts.append(
                f"{typical:.0%} {'with' if 'batchnorm' in variant else 'without'} BatchNorm (at most "
                f"{max(kinks.share for kinks in found):.0%}; error of the integral at most {error:.1%})"
            )
    if not parts:
        return []
    moral = ", so sharpness alone cannot tell the whole story of these networks" if beyond else ""
    return [
        f"Kinks: the share of the gradient's change along a training step that comes from kinks, which no Hessian can "
        f"see, is typically {' and '.join(parts)}{moral}."
    ]


def _first_losses(claim: Claim) -> list[str]:
    """When runs just above the limit are lost: in the first pass, where the start decides, or later."""
    parts = []
    for variant in VARIANTS:
        runs = {rung.rate: rung.runs for rung in claim.ladders[variant]}
        lost = [runs[bad][seed] for seed, (_, bad) in claim.stable(variant).items()]
        early = sum(len(run.times) == 1 or _stuck_from_the_first_pass(run) for run in lost)
        if lost:
            parts.append(f"{early} of {len(lost)} {'with' if 'batchnorm' in variant else 'without'} BatchNorm")
    if not parts:
        return []
    return [
        f"Of the runs at the smallest rate that fails, {' and '.join(parts)} were lost within the first pass, where "
        f"the start decides and not the smoothness under way."
    ]


def _stuck_from_the_first_pass(run: ConvNetRecord) -> bool:
    first, after = run.rows[0].train_loss, run.rows[1].train_loss
    return run.outcome == "stuck" and first is not None and after is not None and after > STUCK * first


def ladder_figure(claim: Claim) -> Figure:
    """Final train loss and test accuracy against the learning rate, and the rates that measurements predict."""
    canvas = Figure(figsize=(14, 4.8), dpi=DPI, layout="constrained")
    loss, accuracy, rates = canvas.subplots(1, 3, width_ratios=(3, 3, 3))
    for ax, pick, title, unit in (
        (loss, _final_loss, "Final train loss", "mean logistic loss (nats)"),
        (accuracy, _final_accuracy, "Final test accuracy", "share of test images"),
    ):
        for variant in VARIANTS:
            _draw_ladder(ax, claim, variant, pick)
        ax.set(title=title, xlabel="learning rate", ylabel=unit, xscale="log")
        ends = [rung.rate for rungs in claim.ladders.values() for rung in rungs]
        ax.set_xlim(min(ends) / 1.3, max(ends) * 1.5)
        plain_log(ax.xaxis)
        ax.grid(alpha=0.3)
        ax.margins(y=0.2)  # room for the counts of lost runs
    log_y(loss)
    _draw_rates(rates, claim)
    notes = ["dots: runs that trained, line: their mean, numbers at the top: runs lost (stuck or diverged)"]
    if max(len(claim.seeds), len(claim.landscapes["pool"])) > 1:
        notes.append("bars: 95% t intervals over seeds")
    if len(claim.seeds) == 1:
        notes.append("bar of the measured rate: from the last rate that trains to the first that does not")
    legend_below(canvas, "; ".join(notes))
    return canvas


def _draw_rates(ax: Axes, claim: Claim) -> None:
    """Draw the prediction table: measured and predicted rates, one row for each."""
    names = []
    for y, (name, measure, share) in enumerate((("largest stable, measured", None, 1), *PREDICTIONS)):
        names.append(textwrap.fill(name, 20))
        for offset, variant in enumerate(VARIANTS):
            found = claim.largest_stable(variant) if measure is None else _inverse(claim.level(variant, measure), share)
            if found is not None:
                line = style(variant)
                # Of one seed the measured rate has a bracket, the predicted ones have nothing.
                low, high = (found.low, found.high) if found.n > 1 or measure is None else (found.estimate,) * 2
                ax.errorbar(
                    found.estimate,
                    -y + 0.12 - 0.24 * offset,
                    xerr=[[found.estimate - low], [high - found.estimate]],
                    color=line["color"],
                    marker=line["marker"],
                    capsize=3,
                    linestyle="none",
                )
    ax.set(title="Measured and predicted rates", xlabel="learning rate", xscale="log")
    plain_log(ax.xaxis)
    ax.set_yticks([-y for y in range(len(names))], names)
    ax.set_ylim(-len(names) + 0.4, 0.6)
    ax.grid(axis="x", alpha=0.3)


def ladder_alt_text(claim: Claim) -> str:
    """Describe the ladder for those who cannot see it."""
    limits = "; ".join(f"{label} {show(claim.largest_stable(name), digits=2)}" for name, label in VARIANTS.items())
    return (
        "Final train loss and test accuracy against the learning rate with and without BatchNorm, and the learning "
        f"rates that smoothness and sharpness would allow. Largest stable rates: {limits}. The tables give the values."
    )


def _draw_ladder(ax: Axes, claim: Claim, variant: str, pick: Callable[[ConvNetRecord], float | None]) -> None:
    line, means, offset = style(variant), {}, list(VARIANTS).index(variant)
    for rung in claim.ladders[variant]:
        values = [value for run in rung.trained if (value := pick(run)) is not None]
        dots = {**line, "linestyle": "none", "markersize": 3, "alpha": 0.5}
        ax.plot([rung.rate] * len(values), values, **dots)
        if rung.rate not in claim.rates:
            continue
        if values:
            means[rung.rate] = math.fsum(values) / len(values)
        lost = len(rung.runs) - len(values)
        if lost:
            ax.annotate(
                f"{lost} of {len(rung.runs)}",
                (rung.rate, 0.98 - 0.06 * offset),
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
    loss, change, smooth = canvas.subplots(1, 3)
    for variant, label in VARIANTS.items():
        line = style(variant)
        runs = [[row.view for row in run.rows if row.view is not None] for run in claim.landscapes[variant].values()]
        by_pass = list(zip(*runs, strict=False))
        for ax, quantity in ((loss, "losses"), (change, "gradient_changes"), (smooth, "smoothness")):
            ends: tuple[Callable[[list[float]], float], ...] = (min, max)
            lows, highs = (
                [_drawn_mean([end(getattr(view, quantity)) for view in views]) for views in by_pass] for end in ends
            )
            ax.fill_between(range(len(by_pass)), lows, highs, color=line["color"], alpha=0.25, linewidth=0)
            ax.plot(range(len(by_pass)), highs, label=label, markersize=4, **line)
    factors = runs[0][0].factors
    loss.set(title="Loss along the update", ylabel="mean logistic loss (nats)")
    change.set(title="Gradient change along the update", ylabel="||change of gradient||")
    smooth.set(title="Effective smoothness over the range", ylabel="||change of gradient|| / ||step||")
    for ax in (loss, change, smooth):
        ax.set_xlabel("passes through the training data")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        log_y(ax)
        ax.grid(alpha=0.3)
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
        line = style(variant)
        for run in claim.landscapes[variant].values():
            shown = label if run.spec.seed == min(claim.landscapes[variant]) else None
            for ax, values in (
                (sharp, {row.completed: sharpest(row) for row in run.rows if row.sharpness is not None}),
                (kinks, {row.completed: 100 * row.kinks.share for row in run.rows if row.kinks is not None}),
            ):
                ax.plot(list(values), list(values.values()), markersize=4, alpha=0.8, label=shown, **line)
        for x, name in enumerate(LAYERS):
            level = claim.level(variant, layer(name))
            if level is not None:
                place, bar = x + 0.1 * (2 * offset - 1), {"color": line["color"], "marker": line["marker"]}
                layers.errorbar(place, level.estimate, yerr=error_bar(level), capsize=3, linestyle="none", **bar)
    sharp.axhline(2 / claim.rate, color="#444444", linestyle=":", label=f"2 / learning rate = {2 / claim.rate:g}")
    sharp.set(title="Sharpness", ylabel="largest eigenvalue of the Hessian")
    kinks.set(title="Kink share of the gradient's change", ylabel="% that no Hessian accounts for", ylim=(0, None))
    layers.set(title=f"By layer, {claim.span}", ylabel="||gradient change|| / ||update||")
    layers.set_xticks(range(len(LAYERS)), [label.replace(" ", "\n") for label in LAYERS.values()])
    for ax in (sharp, kinks, layers):
        ax.grid(alpha=0.3)
    for ax in (sharp, layers):
        log_y(ax)
    for ax in (sharp, kinks):
        ax.set_xlabel("passes through the training data")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    several = len(claim.landscapes["pool"]) > 1
    legend_below(canvas, "one line for each seed; bars: 95% t intervals over seeds" if several else "one seed")
    return canvas


def load(folder: Path, _anyway: bool = False) -> list[Entry]:
    """The report's parts on a folder's ladder and landscapes."""
    return entries(*(Store(folder / part, ConvNetRecord).load_all() for part in (LADDER, LANDSCAPES)))


def entries(ladder: Sequence[ConvNetRecord], landscapes: Sequence[ConvNetRecord]) -> list[Entry]:
    """The report's parts on these records; raises RecordError when they cannot stand together."""
    if not ladder and not landscapes:
        return []
    found = assemble(ladder, landscapes)
    limits = Entry(
        title="The claim: does BatchNorm allow larger learning rates?",
        question=QUESTION,
        file_name="ladder.png",
        figure=ladder_figure(found),
        alt=ladder_alt_text(found),
        caption=found.caption,
        tables=[
            (PREDICTION_CAPTION, PREDICTION_HEADER, prediction_rows(found)),
            ("The ladder", HEADER, ladder_rows(found)),
        ],
        answer=answers(found),
        rerun=_again(found),
        seconds=sum(time.cpu_seconds for run in ladder for time in run.times),
        data=[data_words(found.any_rung.data)],
        environments=[run.environment for run in (*ladder, *landscapes)],
    )
    return [limits, *_entries_around(found)]


def _entries_around(found: Claim) -> list[Entry]:
    """The parts on what lies around the networks."""
    about: dict[str, Any] = {"caption": found.caption, "rerun": _again(found), "tables": []}
    return [
        Entry(
            title="The claim: along the update, over a range of steps",
            question="How do loss, gradient and smoothness change over steps shorter and longer than the one taken?",
            file_name="range.png",
            figure=range_figure(found),
            answer=range_answers(found),
            alt="Bands of loss, gradient change and effective smoothness over steps of half to four times the update. "
            + " ".join(range_answers(found)),
            **about,
        ),
        Entry(
            title="The claim: sharpness, kinks and layers",
            question="Where does the simple story fail?",
            file_name="curvature.png",
            figure=curvature_figure(found),
            answer=failures(found),
            alt="Largest Hessian eigenvalue and kink share after some passes, and smoothness of each layer. The answer "
            "gives the values.",
            **about,
        ),
    ]


def _again(found: Claim) -> str:
    """The command that makes the claim's records again."""
    spec, rates = found.any_rung.spec, found.rates
    tried = Counter((name, seed) for name, rungs in found.ladders.items() for rung in rungs for seed in rung.runs)
    return again(
        "claim",
        data=(CHOICE[spec.data], None),
        seeds=(len(found.ladders["pool"][0].runs), SEEDS),
        landscapes=(len(found.landscapes["pool"]), VIEWS),
        passes=(spec.passes, type(spec).model_fields["passes"].default),
        rate=(rates, list(LADDER_RATES)),
        bisections=(max(tried.values()) - len(rates), BISECTIONS),
        fresh=(True, False),
    )

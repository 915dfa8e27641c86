"""The landscapes' part of the page: the range of steps, sharpness, kinks and layers along runs at one rate."""

import math
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from matplotlib.figure import Figure

from hw4.claim import NORMED, PLAIN, Claim, just, largest, layer, sharpest, smoothness
from hw4.readings import RangeView
from hw4.records import ConvNetRecord
from hw4.report.drawing import DPI, error_bar, legend_below, log_y, over_passes, style
from hw4.report.entry import Entry
from hw4.report.words import basis, compared, settled_span, show
from hw4.stats import Interval, geometric_interval
from hw4.variants import VARIANTS

LABELS = {name: VARIANTS[name].label for name in (PLAIN, NORMED)}
"""The two networks, without and with BatchNorm, by their labels."""
WITH = {PLAIN: "without BatchNorm", NORMED: "with BatchNorm"}  # the same in sentences
LAYERS = {
    "convs.0.weight": "first convolution",
    "convs.1.weight": "second convolution",
    "linear.weight": "linear layer",
}


def of(claim: Claim, variant: str, *, views: bool = False) -> list[ConvNetRecord]:
    """One network's landscapes, or those that were looked around in."""
    return [run for run in claim.landscapes if run.spec.variant == variant and (run.spec.range_view or not views)]


def _interval(ratios: Sequence[float]) -> Interval | None:
    return geometric_interval(ratios) if ratios else None


def range_answers(claim: Claim) -> list[str]:
    """What the range view adds."""
    ratio, seeds = _interval(claim.ratios(largest)), len(claim.views)
    if ratio is None:
        return []
    words = compared(ratio, "largest effective smoothness over the range of steps", seeds)
    span = settled_span(claim.landscapes[0].spec.passes)
    return [f"{words}, {span}{basis(ratio.n, seeds, brackets=True)}."]


def failures(claim: Claim) -> list[str]:
    """Where the simple story fails: at the start, by layer, through weight scale, at kinks."""
    layers = {label: _interval(claim.ratios(layer(name))) for name, label in LAYERS.items()}
    known = [f"{label} {show(ratio, digits=2)}" for label, ratio in layers.items() if ratio is not None]
    by_layer = f"By layer the ratio of gradient change to update, with over without, is: {'; '.join(known)}."
    return [*_at_the_start(claim), *[by_layer] * bool(known), *_weight_scale(claim), *_kinks(claim)]


def _at_the_start(claim: Claim) -> Iterator[str]:
    """The order before training, and whether it is that under way."""
    start, settled = _interval(claim.ratios(smoothness, just(0))), _interval(claim.ratios(smoothness))
    if start is not None:
        turned = settled and {start.compared_with(1), settled.compared_with(1)} == {"below", "above"}
        moral = " Under way the order is the other: smoothness at the start does not tell what training will meet."
        words = compared(start, "effective smoothness before training", len(claim.seeds))
        yield f"{words}.{moral if turned else ''}"


def _weight_scale(claim: Claim) -> Iterator[str]:
    """What the growth of the convolutions' weights does by itself."""
    for name, label in list(LAYERS.items())[:2]:
        norm = layer(name, weight=True)
        ends = [[(norm(run.rows[0]), norm(run.last)) for run in of(claim, variant)] for variant in LABELS]
        grown = [[after / before for before, after in each if before and after] for each in ends]
        if not all(grown):
            continue
        plain, normed = map(geometric_interval, grown)
        own = (
            f" Before a BatchNorm the common scale of weight and bias does not change what is computed, yet by scale "
            f"alone this layer's smoothness would become {1 / normed.estimate**2:.2f} of what it was, and its updates "
            f"matter less."
        )
        yield (
            f"Weight scale: by the end of training the {label}'s norm is {show(plain, digits=2)} times what it was "
            f"without and {show(normed, digits=2)} times with BatchNorm."
            f"{own if normed.compared_with(1) == 'above' else ''}"
        )


def _kinks(claim: Claim) -> Iterator[str]:
    parts, beyond = [], False
    for variant, words in WITH.items():
        found = [row.kinks for run in of(claim, variant) for row in run.rows if row.kinks is not None]
        if found:
            shares, error = [kinks.share for kinks in found], max(kinks.quadrature_error for kinks in found)
            typical, most = statistics.median(shares), max(shares)
            beyond |= typical > error
            parts.append(f"{typical:.0%} {words} (at most {most:.0%}; error of the integral at most {error:.1%})")
    if parts:
        moral = ", so sharpness alone cannot tell the whole story of these networks" if beyond else ""
        yield (
            f"Kinks: the share of the gradient's change along a training step that comes from kinks, which no Hessian "
            f"can see, is typically {' and '.join(parts)}{moral}."
        )


def range_figure(claim: Claim) -> Figure:
    """Loss, gradient change and largest smoothness over the range of steps, after every pass, both models in each."""
    canvas = Figure(figsize=(14, 4.4), dpi=DPI, layout="constrained")
    drawn = (
        ("losses", "Loss along the update", "mean logistic loss (nats)"),
        ("gradient_changes", "Gradient change along the update", "||change of gradient||"),
        ("smoothness", "Effective smoothness over the range", "||change of gradient|| / ||step||"),
    )
    for ax, (quantity, title, unit) in zip(canvas.subplots(1, 3), drawn, strict=True):
        for variant, label in LABELS.items():
            line, runs = style(variant), of(claim, variant, views=True)
            views = _views(runs)
            ranges = [[getattr(view, quantity) for view in each] for each in views.values()]
            lows, highs = ([_drawn_mean(list(map(end, each))) for each in ranges] for end in (min, max))
            ax.fill_between(list(views), lows, highs, color=line["color"], alpha=0.25, linewidth=0)
            ax.plot(list(views), highs, label=label, markersize=4, **line)
        over_passes(ax, title, unit)
        log_y(ax)
    factors = next(iter(views.values()))[0].factors
    means = "; geometric means over seeds" if len(runs) > 1 else ""
    steps = f"{factors[0]:g} to {factors[-1]:g} times the update"
    legend_below(canvas, f"bands: smallest to largest over steps of {steps}, line: the largest{means}")
    return canvas


def _views(runs: Sequence[ConvNetRecord]) -> dict[int, list[RangeView]]:
    """The range views of some runs, by the passes completed."""
    found: dict[int, list[RangeView]] = {}
    for row in sorted((row for run in runs for row in run.rows), key=lambda row: row.completed):
        if row.view is not None:
            found.setdefault(row.completed, []).append(row.view)
    return found


def _drawn_mean(values: Sequence[float]) -> float:
    """Geometric mean, or NaN (a gap in the curve) where a value is 0, which a logarithmic axis has no place for."""
    return statistics.geometric_mean(values) if min(values) > 0 else math.nan


def curvature_figure(claim: Claim) -> Figure:
    """Sharpness, kink share, and smoothness by layer."""
    canvas = Figure(figsize=(14, 4.4), dpi=DPI, layout="constrained")
    sharp, kinks, layers = canvas.subplots(1, 3)
    for offset, (variant, label) in enumerate(LABELS.items()):
        line = style(variant)
        for run in of(claim, variant, views=True):
            top = {row.completed: sharpest(row) for row in run.rows if row.sharpness is not None}
            share = {row.completed: 100 * row.kinks.share for row in run.rows if row.kinks is not None}
            look = {**line, "markersize": 4, "alpha": 0.8, "gid": f"{label}, seed {run.spec.seed}"}
            for ax, values in ((sharp, top), (kinks, share)):
                ax.plot(list(values), list(values.values()), label=label, **look)
        for x, name in enumerate(LAYERS):
            level = _interval(list(claim.values(variant, layer(name)).values()))
            if level is not None:
                place, bar = x + 0.1 * (2 * offset - 1), {**line, "linestyle": "none"}
                layers.errorbar(place, level.estimate, yerr=error_bar(level), capsize=3, **bar)
    bound, last = 2 / claim.landscapes[0].spec.learning_rate, claim.landscapes[0].spec.passes
    sharp.axhline(bound, color="#444444", linestyle=":", label=f"2 / learning rate = {bound:g}")
    over_passes(sharp, "Sharpness", "largest eigenvalue of the Hessian")
    over_passes(kinks, "Kink share of the gradient's change", "% that no Hessian accounts for")
    kinks.set_ylim(0, None)
    layers.set(title=f"By layer, {settled_span(last)}", ylabel="||gradient change|| / ||update||")
    layers.set_xticks(range(len(LAYERS)), [label.replace(" ", "\n") for label in LAYERS.values()])
    layers.grid(alpha=0.3)
    log_y(sharp)
    log_y(layers)
    several = "one line for each seed; bars: 95% t intervals over seeds"
    legend_below(canvas, several if len(claim.views) > 1 else "one seed")
    return canvas


def entries(claim: Claim, about: dict[str, Any]) -> list[Entry]:
    """The two parts of the report on the landscapes; ``about`` is what they share with the claim's others."""
    along = range_answers(claim)
    bands = "Bands of loss, gradient change and effective smoothness over steps of half to four times the update."
    along_update = Entry(
        title="The claim: along the update, over a range of steps",
        question="How do loss, gradient and smoothness change over steps shorter and longer than the one taken?",
        alt=" ".join([bands, *along]),
        answer=along,
        file_name="range.png",
        figure=range_figure(claim),
        **about,
    )
    around = Entry(
        title="The claim: sharpness, kinks and layers",
        question="Where does the simple story fail?",
        alt="Largest Hessian eigenvalue and kink share after some passes, and smoothness of each layer. The answer "
        "gives the values.",
        answer=failures(claim),
        file_name="curvature.png",
        figure=curvature_figure(claim),
        **about,
    )
    return [along_update, around]

"""Figures of exercises 1 and 3, as matplotlib figures returned to the caller."""

import math
import textwrap
from collections.abc import Callable
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hw4.records import PassRow
from hw4.report.findings import Arm, Section
from hw4.stats import mean_interval

Curve = Callable[[PassRow], float | None]

STYLES: dict[str, dict[str, Any]] = {
    # Okabe and Ito's colours stay apart for colour-blind readers; markers and dashes for readers of grey prints.
    "pool": {"color": "#0072B2", "marker": "o", "linestyle": "-"},
    "pool-batchnorm": {"color": "#D55E00", "marker": "s", "linestyle": "--"},
    "stride": {"color": "#009E73", "marker": "^", "linestyle": "-."},
}
DPI = 150

PANELS: dict[str, tuple[tuple[str, str, Curve, bool], ...]] = {
    "smoothness": (
        ("Train loss", "mean logistic loss (nats)", lambda row: row.train_loss, True),
        ("Test accuracy", "share of test images", lambda row: row.test_accuracy, False),
        ("Effective local smoothness", "||change of gradient|| / ||update||", lambda row: row.smoothness, True),
    ),
    "pooling": (
        ("Train loss", "mean logistic loss (nats)", lambda row: row.train_loss, True),
        ("Train accuracy", "share of training images", lambda row: row.train_accuracy, False),
        ("Test loss", "mean logistic loss (nats)", lambda row: row.test_loss, True),
        ("Test accuracy", "share of test images", lambda row: row.test_accuracy, False),
    ),
}
"""Per exercise: title, unit, what is drawn, and whether zero is the natural floor of the axis."""


def figure(section: Section) -> Figure:
    """Draw an exercise's panels, both architectures in each, over passes 0 (before training) to the last."""
    panels = PANELS[section.exercise]
    rows, columns = (1, 3) if len(panels) == 3 else (2, 2)
    canvas = Figure(figsize=(4.2 * columns, 3.6 * rows + 0.6), dpi=DPI, layout="constrained")
    axes = canvas.subplots(rows, columns, squeeze=False).flat
    for ax, (title, unit, curve, from_zero) in zip(axes, panels, strict=True):
        for arm in section.arms:
            _draw(ax, arm, curve)
        ax.set(title=title, xlabel="passes through the training data", ylabel=unit)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        _limit(ax, section, curve, from_zero=from_zero)
        ax.grid(alpha=0.3)
        ax.legend()
    several = len(section.seeds) > 1
    note = section.caption + ("; line: mean, band: 95% t interval of the mean" if several else "")
    canvas.supxlabel("\n".join(textwrap.wrap(note, 46 * columns)), fontsize=8, color="#444444")
    return canvas


def alt_text(section: Section) -> str:
    """Describe the figure for those who cannot see it."""
    names = " and ".join(arm.label for arm in section.arms)
    titles = ", ".join(title.lower() for title, *_ in PANELS[section.exercise])
    return f"Curves of {names} over passes: {titles}. The table that follows gives the values after the last pass."


def _draw(ax: Axes, arm: Arm, curve: Curve) -> None:
    """Draw an arm: mean and band of its finished runs, and each diverged run as a thin line ending in a cross."""
    style = STYLES[arm.variant]
    finished = list(arm.finished.values())
    if finished:
        passes, means, lows, highs = [], [], [], []
        for position in zip(*(run.rows for run in finished), strict=True):
            values = [value for row in position if (value := curve(row)) is not None]
            if len(values) == len(position):
                interval = mean_interval(values)
                passes.append(position[0].completed)
                means.append(interval.estimate)
                lows.append(interval.low)
                highs.append(interval.high)
        label = f"{arm.label} ({arm.diverged} of {len(arm.runs)} diverged)" if arm.diverged else arm.label
        ax.plot(passes, means, label=label, markersize=4, **style)
        if len(finished) > 1:
            ax.fill_between(passes, lows, highs, color=style["color"], alpha=0.2, linewidth=0)
    lost = [run for run in arm.runs.values() if run.diverged]
    for index, run in enumerate(lost):
        points = [(row.completed, value) for row in run.rows if (value := curve(row)) is not None]
        if points:
            legend = None if finished or index else f"{arm.label} (all {len(lost)} diverged)"
            ax.plot(*zip(*points, strict=True), color=style["color"], linewidth=0.8, alpha=0.7, label=legend)
            ax.plot(*points[-1], color=style["color"], marker="x", markersize=8)


def _limit(ax: Axes, section: Section, curve: Curve, *, from_zero: bool) -> None:
    """Keep the axis to what finished runs span, lest one diverged run flatten every other curve."""
    low, high = ax.get_ylim()
    values = [v for arm in section.arms for run in arm.finished.values() for row in run.rows
              if (v := curve(row)) is not None]  # fmt: skip
    if values and any(arm.diverged for arm in section.arms):
        margin = 0.1 * (max(values) - min(values) or 1)
        low, high = max(low, min(values) - margin), min(high, max(values) + margin)
    elif not values and high > 0 and math.log10(high) > 3:
        ax.set_yscale("symlog")
        return
    ax.set_ylim(0 if from_zero else low, high)

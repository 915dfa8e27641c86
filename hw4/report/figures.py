"""Figures of exercises 1 and 3, as matplotlib figures returned to the caller."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from hw4.records import PassRow
from hw4.report.findings import Arm, Section, bounded
from hw4.specs import Exercise
from hw4.stats import mean_interval

STYLES: dict[str, dict[str, Any]] = {
    # Okabe and Ito's colours stay apart for colour-blind readers; markers and dashes for readers of grey prints.
    "pool": {"color": "#0072B2", "marker": "o", "linestyle": "-"},
    "pool-batchnorm": {"color": "#D55E00", "marker": "s", "linestyle": "--"},
    "stride": {"color": "#009E73", "marker": "^", "linestyle": "-."},
}
DPI = 150


@dataclass(frozen=True)
class Panel:
    """One set of axes: its title, its unit, what is drawn, and on which scale.

    A ``log`` scale suits losses, which fall by factors; ``zero`` starts a linear axis at zero; ``trained`` fits a
    linear axis to what follows the first pass, for beside the leap from chance nothing else would be seen. ``upper`` is
    the largest value that there can be; the smallest is 0.
    """

    title: str
    unit: str
    curve: Callable[[PassRow], float | None]
    scale: Literal["log", "zero", "trained"]
    upper: float = math.inf


_TRAIN_LOSS = Panel("Train loss", "mean logistic loss (nats)", lambda row: row.train_loss, "log")
_TEST_LOSS = Panel("Test loss", "mean logistic loss (nats)", lambda row: row.test_loss, "log")
_TRAIN_ACCURACY = Panel("Train accuracy", "share of training images", lambda row: row.train_accuracy, "trained", 1)
_TEST_ACCURACY = Panel("Test accuracy", "share of test images", lambda row: row.test_accuracy, "trained", 1)
_SMOOTHNESS = Panel(
    "Effective local smoothness", "||change of gradient|| / ||update||", lambda row: row.smoothness, "zero"
)

PANELS: dict[Exercise, tuple[Panel, ...]] = {
    "smoothness": (_TRAIN_LOSS, _TEST_ACCURACY, _SMOOTHNESS),
    "pooling": (_TRAIN_LOSS, _TRAIN_ACCURACY, _TEST_LOSS, _TEST_ACCURACY),
}


def figure(section: Section) -> Figure:
    """Draw an exercise's panels, both architectures in each, over passes 0 (before training) to the last."""
    panels = PANELS[section.exercise]
    rows, columns = (1, 3) if len(panels) == 3 else (2, 2)
    canvas = Figure(figsize=(4.2 * columns, 3.6 * rows + 0.6), dpi=DPI, layout="constrained")
    axes = canvas.subplots(rows, columns, squeeze=False).flat
    for ax, panel in zip(axes, panels, strict=True):
        for arm in section.arms:
            _draw(ax, arm, panel)
        ax.set(title=panel.title, xlabel="passes through the training data", ylabel=panel.unit)
        ax.set_xlim(-0.04 * section.setting.passes, 1.04 * section.setting.passes)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        _scale(ax, section, panel)
        ax.grid(alpha=0.3)
    notes = []
    if any(len(arm.finished) > 1 for arm in section.arms):
        notes.append("line: mean, band: 95% t interval of the mean")
    if any(arm.diverged for arm in section.arms):
        notes.append("thin lines that end in a cross: diverged runs")
    legend_below(canvas, "; ".join(notes))
    return canvas


def legend_below(canvas: Figure, note: str = "") -> None:
    """One legend for all axes, below them where it covers nothing; the note says what lines, bands and bars are."""
    named: dict[str, Any] = {}
    for ax in canvas.axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            named.setdefault(label, handle)
    canvas.legend(
        list(named.values()),
        list(named),
        loc="outside lower center",
        ncols=len(named) or 1,
        frameon=False,
        title=note,
        title_fontsize=9,
    )


def plain_log(axis: Axis) -> None:
    """Label a logarithmic axis at 1, 2 and 5 of every decade, in plain numbers."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def log_y(ax: Axes) -> None:
    """Make the y axis logarithmic where anything positive is drawn on it; matplotlib has no such axis otherwise."""
    if math.isfinite(ax.dataLim.minposy):
        ax.set_yscale("log")
        plain_log(ax.yaxis)


def alt_text(section: Section) -> str:
    """Describe the figure for those who cannot see it."""
    names = " and ".join(arm.label for arm in section.arms)
    titles = ", ".join(panel.title.lower() for panel in PANELS[section.exercise])
    return f"Curves of {names} over passes: {titles}. The table that follows gives the values after the last pass."


def _draw(ax: Axes, arm: Arm, panel: Panel) -> None:
    """Draw an arm: mean and band of its finished runs, and each diverged run as a thin line ending in a cross."""
    style = STYLES[arm.variant]
    found = {}
    for rows in zip(*(run.rows for run in arm.finished.values()), strict=True):
        values = [value for row in rows if (value := panel.curve(row)) is not None]
        if len(values) == len(rows):
            found[rows[0].completed] = bounded(mean_interval(values), panel.upper)
    label = f"{arm.label} ({arm.diverged} of {len(arm.runs)} diverged)" if arm.diverged else arm.label
    ax.plot(list(found), [each.estimate for each in found.values()], label=label, markersize=4, **style)
    if len(arm.finished) > 1:
        ends = ([each.low for each in found.values()], [each.high for each in found.values()])
        ax.fill_between(list(found), *ends, color=style["color"], alpha=0.2, linewidth=0)
    for run in arm.runs.values():
        points = [(row.completed, value) for row in run.rows if (value := panel.curve(row)) is not None]
        if run.diverged and points:
            ax.plot(*zip(*points, strict=True), color=style["color"], linewidth=0.8, alpha=0.7)
            ax.plot(*points[-1], color=style["color"], marker="x", markersize=8)


def _scale(ax: Axes, section: Section, panel: Panel) -> None:
    """Fit the axis to the finished runs' values, so that neither a wide band nor a diverged run flattens the curves."""
    finished = [run for arm in section.arms for run in arm.finished.values()]
    rows = [row for run in finished or (run for arm in section.arms for run in arm.runs.values()) for row in run.rows]
    values = [value for row in rows if (value := panel.curve(row)) is not None]
    later = [value for row in rows if row.completed > 0 and (value := panel.curve(row)) is not None]
    if panel.scale == "log" and min(values, default=0) > 0:
        ax.set_yscale("log")
        plain_log(ax.yaxis)
        ax.set_ylim(min(values) / 1.2, max(values) * 1.2)
    elif panel.scale == "zero" and values:
        ax.set_ylim(0, (max(values) or 1) * 1.05)
    elif panel.scale == "trained" and later:
        margin = 0.1 * (max(later) - min(later)) or 0.01
        ax.set_ylim(min(later) - margin, max(later) + margin)
        first = [value for row in rows if row.completed == 0 and (value := panel.curve(row)) is not None]
        if max(first, default=1) < min(later) - margin:
            chance = f"{min(first):.2f} to {max(first):.2f}" if len(first) > 1 else f"{first[0]:.2f}"
            ax.set_xlabel(f"{ax.get_xlabel()}\n(before training: {chance})")

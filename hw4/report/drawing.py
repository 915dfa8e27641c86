"""Drawing that every part of the report uses: axes, legends, intervals as bars, and figures as bytes."""

import io
import math
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from hw4.specs import VARIANTS
from hw4.stats import Interval

DPI = 150


def style(variant: str) -> dict[str, Any]:
    """How a variant's lines are drawn, for matplotlib."""
    chosen = VARIANTS[variant]
    return {"color": chosen.color, "marker": chosen.marker, "linestyle": chosen.linestyle}


def error_bar(found: Interval, *, bracket: bool = False) -> list[list[float]]:
    """An interval's arms below and above its estimate, for matplotlib; none for one seed, unless it is a bracket."""
    low, high = (found.low, found.high) if found.n > 1 or bracket else (found.estimate, found.estimate)
    return [[found.estimate - low], [high - found.estimate]]


def over_passes(ax: Axes, title: str, unit: str) -> None:
    """Title and label axes on which something is drawn over passes."""
    ax.set(title=title, xlabel="passes through the training data", ylabel=unit)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(alpha=0.3)


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


def png(drawn: Figure) -> bytes:
    """A figure as a file; equal figures give equal bytes."""
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()

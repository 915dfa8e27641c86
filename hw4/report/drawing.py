"""Drawing that every part of the report uses: axes, legends, intervals as bars, and figures as PNG and SVG."""

import io
import math
import re
import textwrap
from collections.abc import Iterable
from typing import Any
from xml.etree import ElementTree

import numpy as np
from matplotlib import rc_context, rcParamsDefault
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullFormatter

from hw4.stats import Interval
from hw4.variants import VARIANTS

DPI = 150
DEFAULT_STYLE = rc_context({name: value for name, value in rcParamsDefault.items() if not name.startswith("backend")})
"""Decorates what draws: not by the settings of whoever runs it, such as white letters, or LaTeX that is not there."""
LONG = 1e4  # a logarithmic axis that spans such a factor has no room for three labels a decade


def style(variant: str) -> dict[str, Any]:
    """How a variant's lines are drawn, for matplotlib."""
    chosen = VARIANTS[variant]
    return {"color": chosen.color, "marker": chosen.marker, "linestyle": chosen.linestyle}


def error_bar(found: Interval) -> list[list[float]]:
    """An interval's arms below and above its estimate, for matplotlib; none for one seed."""
    low, high = (found.low, found.high) if found.n > 1 else (found.estimate, found.estimate)
    return [[found.estimate - low], [high - found.estimate]]


def over_passes(ax: Axes, title: str, unit: str) -> None:
    """Title and label axes on which something is drawn over passes."""
    ax.set(title=title, xlabel="passes through the training data", ylabel=unit)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(alpha=0.3)


def legend_below(canvas: Figure, note: str = "") -> None:
    """One legend for all axes, below them where it covers nothing; the note says what lines, bands and bars are.

    It is no wider than a phone, for on the page it stands by itself.
    """
    named: dict[str, Any] = {}
    for ax in canvas.axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            named.setdefault(label, handle)
    canvas.legend(
        list(named.values()),
        list(named),
        loc="outside lower center",
        ncols=min(2, len(named)) or 1,
        frameon=False,
        title=textwrap.fill(note, 70),
        title_fontsize=9,
    )


def plain_log(axis: Axis) -> None:
    """Label a logarithmic axis at 1, 2 and 5 of every decade, in plain numbers; at some 1 alone where it is long."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < LONG * low else (1,)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def log_y(ax: Axes) -> None:
    """Make the y axis logarithmic where anything positive is drawn on it; matplotlib has no such axis otherwise."""
    if math.isfinite(ax.dataLim.minposy):
        ax.set_yscale("log")
        plain_log(ax.yaxis)


def told(what: str, seeds: Iterable[int]) -> str:
    """What a line's points are, one for each seed in their order; the line carries it as ``gid`` for :func:`svg`."""
    return "|".join(f"{what} {seed}" for seed in seeds)


def png(drawn: Figure, title: str = "", caption: str = "") -> bytes:
    """A figure as a file, with its title above and its caption as metadata; equal figures give equal bytes."""
    buffer, words = io.BytesIO(), {"Software": None, "Title": title, "Description": caption}
    above = drawn.text(0.5, 1, title, ha="center", va="bottom", fontsize=12)
    drawn.savefig(buffer, format="png", bbox_inches="tight", metadata=words)
    above.remove()
    drawn.set_layout_engine("none")  # it lies as it is to lie in SVG, too, and to find that takes longest
    return buffer.getvalue()


def svg(drawn: Figure, salt: str) -> list[str]:
    """A figure's axes and legends, each an SVG of its own for inside a page, which may break the line between them.

    Hovering over a mark tells what it is, by a ``title``: the line's ``gid`` as of :func:`told`, or its label, and the
    value. ``salt`` keeps names apart within a page; equal figures give equal text.
    """
    buffer, lines = io.StringIO(), [(ax, line) for ax in drawn.axes for line in ax.lines]
    gids = [line.get_gid() for _, line in lines]
    try:
        for place, (_, line) in enumerate(lines):
            line.set_gid(f"told-{place}")
        with rc_context({"svg.fonttype": "none", "svg.hashsalt": salt, "font.sans-serif": ["DejaVu Sans"]}):
            drawn.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    finally:
        for (_, line), gid in zip(lines, gids, strict=True):
            line.set_gid(gid)
    # Inside a page names need no namespaces.
    text = re.sub(r'^.*?(?=<svg)|xlink:| xmlns(:\w+)?="[^"]*"', "", buffer.getvalue(), flags=re.DOTALL)
    root = ElementTree.fromstring(text)
    for place, (ax, line) in enumerate(lines):
        for group in root.iterfind(f".//g[@id='told-{place}']"):
            _tell(group, ax, line)
    groups = [group for group in root.iterfind("g/g") if re.match("axes|legend", group.get("id", ""))]
    shared, panels, scale = root.findall("defs"), [], 72 / drawn.dpi
    _shorten(root)
    for group, artist in zip(groups, [*drawn.axes, *drawn.legends], strict=True):
        box = artist.get_tightbbox()
        assert box is not None
        left, top, width, height = (
            scale * length for length in (box.x0, drawn.bbox.height - box.y1, box.width, box.height)
        )
        look = {"style": f"--w:{width + 2:.1f}"}
        panel = ElementTree.Element(
            "svg", look, viewBox=f"{left - 1:.1f} {top - 1:.1f} {width + 2:.1f} {height + 2:.1f}"
        )
        panel.extend([*shared, group])
        panels.append(ElementTree.tostring(panel, encoding="unicode"))
        shared = []
    return panels


def _tell(group: ElementTree.Element, ax: Axes, line: Line2D) -> None:
    """Put a title into each mark of a line, or into the line itself where it has none."""
    gid, marks = line.get_gid(), group.findall(".//use")
    names = gid.split("|") if gid else [str(line.get_label())]
    if names[0].startswith("_"):  # how matplotlib calls what nobody named
        return
    if not marks:
        ElementTree.SubElement(group, "title").text = names[0]
    points, canvas = np.asarray(line.get_xydata()), ax.figure.bbox
    ends = line.get_transform().transform(points)
    for mark in marks:
        x, y = (float(mark.get(name, 0)) * ax.figure.dpi / 72 for name in ("x", "y"))
        nearest = int(np.nanargmin(np.hypot(*(ends - (x, canvas.height - y)).T)))
        value, at = (_read(axis, points[nearest][place]) for place, axis in ((1, ax.yaxis), (0, ax.xaxis)))
        if isinstance(ax.yaxis.get_major_locator(), FixedLocator):
            value, at = at, value
        name = names[nearest] if len(names) == len(points) else names[0]
        ElementTree.SubElement(mark, "title").text = f"{name}: {value} at {at}"


def _read(axis: Axis, value: float) -> str:
    """A value as its axis says it: by the label nearest to it where places have names."""
    places = axis.get_majorticklocs().tolist() if isinstance(axis.get_major_locator(), FixedLocator) else []
    if not places:
        return f"{value:.4g}"
    nearest = min(range(len(places)), key=lambda n: abs(places[n] - value))
    return axis.get_major_formatter().format_ticks(places)[nearest].replace("\n", " ")


def _shorten(root: ElementTree.Element) -> None:
    """Leave out what a page has no use for: names of groups, line ends, and more than hundredths of a point."""
    for node in root.iter():
        node.tail, node.text = None, None if len(node) else node.text
        if node.tag == "g":
            node.attrib.pop("id", None)
        for name in {"d", "x", "y"}.intersection(node.keys()):
            node.set(name, re.sub(r"(\.\d\d)\d+|\n", r"\1", node.attrib[name]))

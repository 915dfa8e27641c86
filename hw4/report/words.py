"""Words that every part of the report uses: how intervals, counts and verdicts are written."""

import math
from collections.abc import Collection
from dataclasses import replace

from scipy import stats

from hw4.stats import CONFIDENCE, ROUNDING, Interval
from hw4.studies import SETTLED_PASS


def plural(n: int, noun: str) -> str:
    """A number with its noun, as in "1 seed" and "2 passes"."""
    return f"{n} {noun}{'' if n == 1 else 'es' if noun.endswith('s') else 's'}"


def passes(n: int) -> str:
    """A number of passes in words."""
    return plural(n, "pass")


def counted(counts: Collection[int], noun: str) -> str:
    """The smallest to the largest of some numbers with their noun, as in "2 to 4 trials"."""
    least, most = min(counts), max(counts)
    return plural(most, noun) if least == most else f"{least} to {plural(most, noun)}"


def span(values: Collection[float], form: str = "g") -> str:
    """Smallest to largest value, said once where they are written alike; a dash where there is none."""
    ends = dict.fromkeys(f"{end:{form}}" for end in (min(values), max(values))) if values else ["-"]
    return " to ".join(ends)


def settled_span(last: int) -> str:
    """The passes over which smoothness is averaged in a run of ``last`` passes."""
    return f"over passes {SETTLED_PASS} to {last}" if last > SETTLED_PASS else f"after pass {last}"


def by_side(found: Interval, *, below: str, above: str, undecided: str, one: str, value: float = 1) -> str:
    """What to say by the side of ``value`` on which the interval lies; one seed has none and decides nothing."""
    words = {"below": below, "above": above, "not decided": undecided}
    return one if found.n < 2 else words[found.compared_with(value)]


def compared(ratio: Interval, what: str, seeds: int) -> str:
    """Whether BatchNorm changes a quantity, as far as the ratio's interval over so many seeds says; no full stop."""
    words = by_side(
        ratio,
        below=f"The {what} is smaller with BatchNorm: it is",
        above=f"The {what} is larger with BatchNorm: it is",
        undecided=f"Whether BatchNorm changes the {what} is not decided: it is",
        one=f"{seen(seeds)}: with BatchNorm the {what} is",
    )
    return f"{words} {show(ratio, digits=2)} times that without"


def contrasted(
    found: Interval, what: str, ours: str, other: str, seeds: int, *, ratio: bool = False, at: str = ""
) -> str:
    """A sentence that compares ours with the other, ``at`` some condition; the caller adds the value."""
    noun, less = ("ratio", "over") if ratio else ("difference", "less")
    the, some = (f"{at} the", f"{at} a") if at else ("The", "A")
    return by_side(
        found,
        value=float(ratio),
        below=f"{the} {what} of {ours} is lower than that of {other}: {noun}",
        above=f"{the} {what} of {ours} is higher than that of {other}: {noun}",
        undecided=f"{some} difference in {what} between {ours} and {other} is not decided: "
        f"{'the ratio' if ratio else 'it'} is",
        one=f"{seen(seeds)}: {the.lower()} {what} of {ours} {less} that of {other} is",
    )


def seen(seeds: int) -> str:
    """How a sentence begins that rests on one seed, of so many that were run."""
    which = "the one seed that was run" if seeds == 1 else f"one seed, the only one of {seeds} that can be compared"
    return f"Seen in {which}, which cannot be told from chance"


def basis(n: int, seeds: int, *, brackets: bool = False) -> str:
    """How many of the seeds a comparison rests on; nothing for one seed, of which the sentence itself speaks."""
    if n < 2:
        return ""
    text = f"paired seeds, n = {n}{'' if n == seeds else f' of {seeds}'}"
    return f" ({text})" if brackets else f"; {text}"


def tested(found: Interval, seeds: int) -> str:
    """The paired t test that an interval of differences amounts to; nothing for one seed, which tests nothing."""
    if found.n < 2:
        return ""
    half_width, degrees = found.high - found.estimate, found.n - 1
    n = f"n = {found.n}{'' if found.n == seeds else f' of {seeds}'} seeds"
    if half_width <= ROUNDING * abs(found.estimate):
        return f" (no scatter to test by, {n})"
    t = abs(found.estimate) / half_width * stats.t.ppf((1 + CONFIDENCE) / 2, degrees)
    p = float(2 * stats.t.sf(t, degrees))
    return f" (paired t test, {p_value(p)}, {n})"


def p_value(p: float) -> str:
    """A p-value with two digits."""
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"


def bounded(interval: Interval, upper: float = math.inf, lower: float = 0.0) -> Interval:
    """Cut the interval of a mean of values that lie in [lower, upper] at what is possible.

    The truth does not lie in what is cut off, so the interval covers it as often as before, and everything else about
    it stays Student's. (Intervals on a logarithmic scale would not need it, but belong to another mean.) Tests are
    made before it is cut.
    """
    return replace(interval, low=max(lower, interval.low), high=min(upper, interval.high))


def show(interval: Interval | None, *, digits: int = 3, sign: bool = False) -> str:
    """Write an interval as ``estimate [low, high]``; one seed and equal ones have none, no value at all is a dash.

    The space inside the brackets does not break, so a narrow table puts the whole interval on a line of its own.
    """
    if interval is None:
        return "-"
    form = f"{'+' if sign else ''}.{digits}f"
    estimate, low, high = (
        f"{round(end, digits) + 0.0:{form}}" for end in (interval.estimate, interval.low, interval.high)
    )
    if interval.n > 1 and interval.high - interval.low <= ROUNDING * abs(interval.estimate):
        return f"{estimate} (all {interval.n} alike)"
    return estimate if interval.n < 2 else f"{estimate} [{low},\u00a0{high}]"

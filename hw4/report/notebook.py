"""The solved notebook's printed numbers beside the spread of ours by its own protocol.

The criterion, fixed before the first comparison was made. A printed loss or accuracy is inside when the 95% prediction
interval of our seeds (Student's t, losses as logarithms, accuracies as logits) reaches any number that would be
printed like it. Chance leaves one in twenty outside; numbers of one run go together, so beside that stands how many of
each session of ours lie outside the intervals of the others. Fewer than nine in ten inside is a finding. Per stride, a
permutation test compares the trials that trained and Fisher's exact test the number of those that were lost; Holm's
correction goes over all tests that were possible. On seconds only a ratio can be compared: its machine is unknown.
"""

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.special import expit, logit
from scipy.stats import fisher_exact

from hw4.records import AuditedStride, NotebookAudit, RepeatedRun, TimedIteration
from hw4.report.drawing import DPI, legend_below
from hw4.report.entry import Entry, grouped
from hw4.report.words import p_value, show
from hw4.stats import CONFIDENCE, Interval, holm, permutation_test, prediction_interval

Metric = Literal["train_loss", "train_accuracy", "test_loss", "test_accuracy"]
METRICS: dict[Metric, tuple[str, str, str]] = {
    "train_loss": ("train loss", "#0072B2", "o"),
    "train_accuracy": ("train accuracy", "#56B4E9", "s"),
    "test_loss": ("test loss", "#D55E00", "^"),
    "test_accuracy": ("test accuracy", "#E69F00", "D"),
}
"""What the notebook prints of an iteration, with its name, colour and marker."""

HALF_DIGIT = 0.0005  # numbers are printed to three decimals
TELLING = 10  # an interval of a loss whose ends differ by more than this factor tells nothing
SHARE_INSIDE = 0.9  # fewer inside is a finding: half the excess over what chance leaves outside
LEVEL = 1 - CONFIDENCE

RUN_HEADER = ("printed run", "inside", "outside, at iteration")
NUMBER_HEADER = ("printed run", "iteration", *(name for name, _, _ in METRICS.values()))
MEANS = ("printed: mean, trained", "hw4: mean, trained")
STRIDE_HEADER = ("stride", *MEANS, "permutation test of trained", "Fisher's test of lost")


class Number(NamedTuple):
    """A printed number of one run, metric and iteration beside where one of ours would lie.

    ``deviation`` is its distance from the middle of our prediction interval, in half-widths: 1 is the interval's end.
    """

    run: str
    metric: Metric
    iteration: int
    printed: float
    ours: Interval
    deviation: float

    @property
    def inside(self) -> bool:
        """Whether the interval reaches it."""
        return abs(self.deviation) <= 1


def judge(printed: float, ours: Sequence[float], metric: Metric) -> tuple[Interval, float]:
    """The 95% prediction interval of at least two of ours, and how many half-widths off its middle a number lies.

    Shares nearer to 0 or 1 than half a printed digit are taken as so far away.
    """
    scale: Callable[[float], float] = math.log
    back: Callable[[float], float] = math.exp
    if not metric.endswith("loss"):
        scale, back = lambda share: float(logit(min(max(share, HALF_DIGIT), 1 - HALF_DIGIT))), expit
    found = prediction_interval([scale(value) for value in ours])
    low, middle, high = (float(back(value)) for value in (found.low, found.estimate, found.high))
    nearest = min(max(middle, printed - HALF_DIGIT), printed + HALF_DIGIT)
    half_width, distance = (found.high - found.low) / 2, scale(nearest) - found.estimate
    if abs(distance) < 1e-12:
        return Interval(middle, low, high, found.n), 0.0
    deviation = distance / half_width if half_width else math.copysign(math.inf, distance)
    return Interval(middle, low, high, found.n), deviation


class RepeatedStride(NamedTuple):
    """A stride's printed trials beside ours; p-values are None where there is nothing to test, else adjusted by Holm.

    ``smallest`` is the smallest p-value that the permutation test could have given before the correction.
    """

    stride: int
    printed: Sequence[float]
    printed_lost: int
    ours: AuditedStride
    trained_p: float | None
    lost_p: float
    smallest: float


class Reproduction(NamedTuple):
    """Every printed number beside ours, judged.

    ``sessions`` counts, for each session of ours, the numbers outside the intervals of the others. ``as_coded`` are
    the numbers held against runs on as many images as the notebook's code draws. ``exploded`` are the seeds of sessions
    whose test loss is ten times the median session's somewhere, by standardised test pixels that explode, and
    ``without`` the numbers held against the other sessions.
    """

    audit: NotebookAudit
    numbers: list[Number]
    as_coded: list[Number]
    sessions: list[int]
    exploded: list[int]
    without: list[Number]
    strides: list[RepeatedStride]


def inside(numbers: Sequence[Number]) -> int:
    """How many of some numbers are inside."""
    return sum(each.inside for each in numbers)


def reproduce(audit: NotebookAudit) -> Reproduction:
    """Judge every printed number."""
    runs, n_train = audit.printed["runs"], audit.printed["n_train"]
    as_printed = [run for run in audit.repeated if run.n_train == n_train]
    exploded = _exploded(as_printed)
    left_out = [_left_out(run, as_printed) for run in runs]
    return Reproduction(
        audit,
        numbers=_judged(runs, as_printed),
        as_coded=_judged(runs, [run for run in audit.repeated if run.n_train != n_train]),
        sessions=[sum(counts) for counts in zip(*left_out, strict=True)],
        exploded=exploded,
        without=_judged(runs, [run for run in as_printed if run.seed not in exploded]),
        strides=_judge_strides(audit),
    )


def _exploded(runs: Sequence[RepeatedRun]) -> list[int]:
    """Seeds of sessions whose test loss is so many times the median of its network and iteration somewhere."""
    found = set[int]()
    for variant in {run.variant for run in runs}:
        mine = [run for run in runs if run.variant == variant]
        for values in _values(mine, "test_loss"):
            limit = TELLING * statistics.median(values)
            found |= {run.seed for run, value in zip(mine, values, strict=True) if value > limit}
    return sorted(found)


def _values(runs: Sequence[RepeatedRun], metric: Metric) -> list[tuple[float, ...]]:
    """Iteration by iteration, one value of each run."""
    return list(zip(*(getattr(run, metric) for run in runs), strict=True))


def _judged(printed: Sequence[Mapping[str, Any]], repeated: Sequence[RepeatedRun]) -> list[Number]:
    """Printed runs held against ours of their variants; nothing where fewer than two of ours trained."""
    numbers = []
    for run in printed:
        ours = [each for each in repeated if each.variant == run["variant"]]
        for metric in METRICS if len(ours) > 1 else ():
            pairs = zip(run[metric], _values(ours, metric), strict=False)  # of ours there may be fewer passes
            for iteration, (value, values) in enumerate(pairs, 1):
                numbers.append(Number(run["title"], metric, iteration, value, *judge(value, values, metric)))
    return numbers


def _left_out(printed: Mapping[str, Any], repeated: Sequence[RepeatedRun]) -> list[int]:
    """For each run of ours of this variant, how many of its numbers lie outside the intervals of the others."""
    ours = [run for run in repeated if run.variant == printed["variant"]]
    if len(ours) < 3:
        return []
    counts = [0] * len(ours)
    for metric in METRICS:
        for values in _values(ours, metric):
            for place, value in enumerate(values):
                _, deviation = judge(round(value, 3), [*values[:place], *values[place + 1 :]], metric)
                counts[place] += abs(deviation) > 1
    return counts


def _judge_strides(audit: NotebookAudit) -> list[RepeatedStride]:
    """Every stride's tests, corrected together: accuracies of the trials that trained, and how many were lost.

    Argmax of scores that are no numbers gives class 0's share exactly: such a printed trial was lost.
    """
    ours = {stride.stride: stride for stride in audit.strides}
    found = []
    for each in (each for each in audit.printed["strides"] if each["stride"] in ours):
        mine, left = ours[each["stride"]], [a for a in each["accuracies"] if abs(a - audit.class_0_share) > HALF_DIGIT]
        gone, n = len(each["accuracies"]) - len(left), len(left) + len(mine.trained)
        trained = permutation_test(left, mine.trained) if min(len(left), len(mine.trained)) >= 2 else None
        lost = float(fisher_exact(np.array([[gone, len(left)], [mine.diverged, len(mine.trained)]])).pvalue)
        smallest = 2 / math.comb(n, len(left))
        found.append(RepeatedStride(each["stride"], left, gone, mine, trained, lost, smallest))
    tested = [each.trained_p for each in found if each.trained_p is not None]
    adjusted = iter(holm([*tested, *(each.lost_p for each in found)]))
    found = [each if each.trained_p is None else each._replace(trained_p=next(adjusted)) for each in found]
    return [each._replace(lost_p=next(adjusted)) for each in found]


def time_ratio(times: Sequence[TimedIteration], layers: str) -> Interval:
    """Processor seconds of an iteration, strided over pooled, with the 95% prediction interval of one more round."""
    rounds = {each.variant: [time.cpu_seconds for time in each.times] for each in times if each.layers == layers}
    found = prediction_interval([math.log(a / b) for a, b in zip(rounds["stride"], rounds["pool"], strict=True)])
    return Interval(math.exp(found.estimate), math.exp(found.low), math.exp(found.high), found.n)


def run_rows(found: Reproduction) -> list[tuple[str, ...]]:
    """The table's first part: a row for each printed run and metric."""
    rows = list[tuple[str, ...]]()
    for (run, metric), judged in grouped(found.numbers, lambda each: (each.run, each.metric)).items():
        outside = [f"{n.iteration}: {n.printed:.3f}, ours {show(n.ours)}" for n in judged if not n.inside]
        count = f"{inside(judged)} of {len(judged)}"
        rows.append((f"{run}: {METRICS[metric][0]}", count, "; ".join(outside) or "none"))
    return rows


def number_rows(found: Reproduction) -> list[tuple[str, ...]]:
    """Every printed number with our prediction interval, iteration by iteration; those outside are marked."""

    def cell(each: Number) -> str:
        return f"{each.printed:.3f} [{each.ours.low:.3f},\u00a0{each.ours.high:.3f}]" + " outside" * (not each.inside)

    rows = grouped(found.numbers, lambda each: (each.run, each.iteration))
    return [(run, str(iteration), *map(cell, row)) for (run, iteration), row in rows.items()]


def stride_rows(found: Reproduction) -> list[tuple[str, ...]]:
    """The tests of the text CNNs, stride by stride."""
    return [
        (
            str(each.stride),
            _trials(each.printed, each.printed_lost),
            _trials(each.ours.trained, each.ours.diverged),
            "nothing to compare" if each.trained_p is None else _p_value(each.trained_p, each.smallest),
            _p_value(each.lost_p),
        )
        for each in found.strides
    ]


def _trials(trained: Sequence[float], lost: int) -> str:
    mean = f"{statistics.fmean(trained):.3f}" if trained else "none"
    return f"{mean}, {len(trained)} of {len(trained) + lost}"


def _p_value(p: float, smallest: float = 0.0) -> str:
    few = f" (too few: no partition gives less than {smallest:.2g} before the correction)" * (smallest > LEVEL)
    return f"{p_value(p)}{', differs' if p < LEVEL else ''}{few}"


def answers(found: Reproduction) -> list[str]:
    """What the comparison says."""
    return [*_answer_curves(found), *_answer_strides(found), _answer_seconds(found.audit)]


def _answer_curves(found: Reproduction) -> Iterator[str]:
    printed, total, kept = found.audit.printed, len(found.numbers), inside(found.numbers)
    if not total:
        yield "Fewer than two of our sessions trained, so the printed curves have nothing to stand beside."
        return
    seeds, by_chance, others, verdict = max(each.ours.n for each in found.numbers), LEVEL * total, "", ""
    if found.sessions:
        others = f"; of our own sessions, each held against the others, {min(found.sessions)} to {max(found.sessions)}"
    if kept / total < SHARE_INSIDE:
        verdict = f" Fewer than {SHARE_INSIDE:.0%} inside is a finding: see the table."
    elif total - kept <= by_chance:
        verdict = " That is no more than chance leaves, so none of them asks for a cause of its own."
    yield (
        f"Of {total} losses and accuracies that the notebook printed of its {len(printed['runs'])} runs, {kept} "
        f"({kept / total:.1%}) lie within the 95% prediction interval of our {seeds} sessions; chance leaves "
        f"{by_chance:.2g} outside, here it is {total - kept}{others}.{verdict}"
    )
    yield from _answer_exploded(found)
    if found.as_coded:
        n_coded = min(run.n_train for run in found.audit.repeated)
        yield (
            f"It printed {printed['n_train']:,} training images, but its code draws {n_coded:,}: on so many of ours "
            f"{inside(found.as_coded)} of {len(found.as_coded)} are inside."
        )
    if found.audit.diverged:
        yield f"Of ours, these runs diverged and stand in no interval: {'; '.join(found.audit.diverged)}."


def _answer_exploded(found: Reproduction) -> Iterator[str]:
    """What the sessions whose test pixels explode do to the intervals of test losses."""
    if not found.exploded:
        return
    losses = [each for each in found.numbers if each.metric == "test_loss"]
    mute = sum(each.ours.high > TELLING * each.ours.low for each in losses)
    worst = max(value for run in found.audit.repeated if run.seed in found.exploded for value in run.test_loss)
    others = f"{inside(found.without)} of {len(found.without)} numbers are inside"
    yield (
        f"In {len(found.exploded)} of our sessions (seed {', '.join(map(str, found.exploded))}) test pixels exploded "
        f"under its standardisation, to a test loss of {worst:.3g}. Being inside therefore says nothing for {mute} of "
        f"{len(losses)} test losses, whose intervals span more than a factor of {TELLING}"
        f"{f'; held against the other sessions, a look taken after seeing this, {others}' if found.without else ''}."
    )


def _answer_strides(found: Reproduction) -> Iterator[str]:
    if not found.strides:
        yield "Its text CNNs' accuracies are not compared: that takes the homework's vectors, which 'hw4 fetch' brings."
        return
    differ = [f"{each.stride} (accuracy)" for each in found.strides if (each.trained_p or 1) < LEVEL]
    differ += [f"{each.stride} (lost trials)" for each in found.strides if each.lost_p < LEVEL]
    tests = len(found.strides) + sum(each.trained_p is not None for each in found.strides)
    trials = sum(len(each.printed) + each.printed_lost for each in found.strides)
    text = "none shows a difference between its and ours"
    text = f"its strides {', '.join(differ)} differ from ours" if differ else text
    theirs = [f"{each.printed_lost} at stride {each.stride}" for each in found.strides if each.printed_lost]
    ours = [f"{each.ours.diverged} at stride {each.stride}" for each in found.strides if each.ours.diverged]
    yield (
        f"Of {tests} tests on its {trials} accuracies, corrected together, {text}. A lost trial has the accuracy "
        f"{found.audit.class_0_share:.3f}, the share of class 0, for argmax takes the first of scores that are no "
        f"numbers: it lost {' and '.join(theirs) or 'none'}, we {' and '.join(ours) or 'none'}."
    )


def _answer_seconds(audit: NotebookAudit) -> str:
    seconds = audit.printed["seconds"]
    printed = seconds["stride"] / seconds["pool"]
    ours, fast = (time_ratio(audit.seconds, layers) for layers in ("the notebook's", "hw4's"))
    side = "inside" if ours.low <= printed <= ours.high else "outside"
    return (
        f"Strided over pooled, its seconds for ten iterations are {seconds['stride']:.2f} over "
        f"{seconds['pool']:.2f}, {printed:.2f}: {side} what its layers and "
        f"its evaluation take here, {show(ours, digits=2)}, but its machine and its threads are unknown, so this is no "
        f"test of it. With hw4's layers and evaluation it is {show(fast, digits=2)}."
    )


def caption(audit: NotebookAudit) -> str:
    """What was repeated."""
    return (
        f"The notebook's protocol: images drawn anew each time, pixels over std + 1e-6, scores in evaluation mode "
        f"before each pass, questions as it parses them; {len({run.seed for run in audit.repeated})} sessions, "
        f"{audit.printed['n_train']:,} images"
    )


def figure(found: Reproduction) -> Figure:
    """Draw how far each printed number lies from the middle of our interval, and the text CNNs' trials."""
    canvas = Figure(figsize=(14, 8), dpi=DPI, layout="constrained")
    grid = canvas.add_gridspec(2, 4)
    first = canvas.add_subplot(grid[0, 0])
    titles = [run["title"] for run in found.audit.printed["runs"]]
    panels = [first, *(canvas.add_subplot(grid[0, place], sharey=first) for place in range(1, len(titles)))]
    for ax, title in zip(panels, titles, strict=True):
        _draw_run(ax, [each for each in found.numbers if each.run == title])
        ax.set(title=title, xlabel="iteration (scores before that pass)")
    first.set_ylim(min(-1.6, first.get_ylim()[0]), max(1.6, first.get_ylim()[1]))
    first.set_ylabel("distance from the middle of our 95%\nprediction interval (1: its end)")
    _draw_strides(canvas.add_subplot(grid[1, :]), found)
    legend_below(canvas)
    return canvas


def _draw_run(ax: Axes, numbers: Sequence[Number]) -> None:
    """One printed run: its numbers' deviations from ours; those outside are ringed."""
    ax.axhspan(-1, 1, color="#999999", alpha=0.25, label="inside our 95% prediction interval")
    for metric, (name, color, marker) in METRICS.items():
        judged = [each for each in numbers if each.metric == metric]
        points = ([each.iteration for each in judged], [each.deviation for each in judged])
        ax.plot(*points, color=color, marker=marker, markersize=5, linewidth=0.8, label=name)
        if outside := [(each.iteration, each.deviation) for each in judged if not each.inside]:
            ax.plot(*zip(*outside, strict=True), "o", markersize=12, mfc="none", mec="black", label="outside")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(alpha=0.3)


def _draw_strides(ax: Axes, found: Reproduction) -> None:
    """The accuracies of trials that trained, the notebook's left and ours right, and how many were lost."""
    for x, each in enumerate(found.strides):
        sides = (
            (-0.15, each.printed, each.printed_lost, "black", "x", "text CNN as printed"),
            (0.15, each.ours.trained, each.ours.diverged, "#009E73", "o", "text CNN, hw4"),
        )
        for shift, trained, lost, color, marker, label in sides:
            ax.plot([x + shift] * len(trained), trained, marker, color=color, markersize=5, alpha=0.7, label=label)
            if lost:
                ax.annotate(f"{lost} lost", (x + shift, 0.02), ha="center", fontsize=8, color=color)
    ax.set_xticks(range(len(found.strides)), [str(each.stride) for each in found.strides])
    ax.set(title="Text CNNs: trials that trained", xlabel="stride", ylabel="share of test questions", ylim=(0, None))
    ax.grid(alpha=0.3)


def entry(audit: NotebookAudit, **about: Any) -> Entry:
    """The report's part on the printed numbers; ``about`` is what it shares with the rest of the audit."""
    found = reproduce(audit)
    return Entry(
        title="The solved notebook, number by number",
        question="Are the numbers that the homework's solved notebook printed those that its own protocol gives here?",
        answer=answers(found),
        tables=[
            ("What lies inside our 95% prediction intervals", RUN_HEADER, run_rows(found)),
            ("Text CNNs; p-values are Holm's over all tests", STRIDE_HEADER, stride_rows(found)),
            ("Every number, with our interval", NUMBER_HEADER, number_rows(found)),
        ],
        file_name="notebook.png",
        figure=figure(found),
        caption=caption(audit),
        alt="For each run that the notebook printed, how far each of its numbers lies from the middle of our "
        "prediction interval, over iterations; below, the accuracies of its text CNNs beside ours. The tables give the "
        "values.",
        **about,
    )

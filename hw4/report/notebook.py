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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.stats import fisher_exact

from hw4.records import AuditedStride, NotebookAudit, PrintedRun, PrintedStride, RepeatedRun, TimedIteration
from hw4.report.drawing import DPI, legend_below
from hw4.report.entry import Entry
from hw4.report.words import show
from hw4.stats import CONFIDENCE, Interval, holm, permutation_test, prediction_interval

Metric = Literal["train_loss", "train_accuracy", "test_loss", "test_accuracy"]
METRICS: dict[Metric, tuple[str, str, str]] = {
    "train_loss": ("train loss", "#0072B2", "o"),
    "train_accuracy": ("train accuracy", "#56B4E9", "s"),
    "test_loss": ("test loss", "#D55E00", "^"),
    "test_accuracy": ("test accuracy", "#E69F00", "D"),
}
"""What the notebook prints of an iteration, with its name, colour and marker."""

HALF_DIGIT = 0.0005
"""Numbers are printed to three decimals."""
TELLING = 10
"""An interval of a loss whose ends differ by more than this factor tells nothing."""
SHARE_INSIDE = 0.9
"""Fewer inside is a finding: half the excess over what chance leaves outside."""

RUN_HEADER = ("printed run", "inside", "outside, at iteration")
NUMBER_HEADER = ("printed run", "iteration", *(name for name, _, _ in METRICS.values()))
STRIDE_HEADER = (
    "stride",
    "printed: mean, trained",
    "hw4: mean, trained",
    "permutation test of trained",
    "Fisher's test of lost",
)


def logit(share: float) -> float:
    """log(share / (1 - share)); shares nearer to 0 or 1 than half a printed digit are taken as so far away."""
    share = min(max(share, HALF_DIGIT), 1 - HALF_DIGIT)
    return math.log(share / (1 - share))


def expit(value: float) -> float:
    """The share with this logit."""
    return 1 / (1 + math.exp(-value))


@dataclass(frozen=True)
class Judged:
    """A printed number beside where one of ours would lie.

    ``deviation`` is its distance from the middle of our prediction interval, in half-widths: 1 is the interval's end.
    """

    printed: float
    ours: Interval
    deviation: float

    @property
    def inside(self) -> bool:
        """Whether the interval reaches it."""
        return abs(self.deviation) <= 1


def judge(printed: float, ours: Sequence[float], metric: Metric) -> Judged:
    """Hold a printed number against the 95% prediction interval of at least two of ours."""
    scale: tuple[Callable[[float], float], Callable[[float], float]]
    scale = (math.log, math.exp) if metric.endswith("loss") else (logit, expit)
    found = prediction_interval([scale[0](value) for value in ours])
    low, middle, high = (scale[1](value) for value in (found.low, found.estimate, found.high))
    nearest = min(max(middle, printed - HALF_DIGIT), printed + HALF_DIGIT)
    half_width = (found.high - found.low) / 2
    distance = scale[0](nearest) - found.estimate
    deviation = (
        0.0 if abs(distance) < 1e-12 else distance / half_width if half_width else math.copysign(math.inf, distance)
    )
    return Judged(printed, Interval(middle, low, high, found.n), deviation)


@dataclass(frozen=True)
class RepeatedStride:
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


@dataclass(frozen=True)
class Reproduction:
    """Every printed number beside ours, judged.

    ``numbers`` has, for each printed run, metric by metric, its iterations; ``left_out`` the same outside counts for
    each session of ours, held against the others. ``as_coded`` are the numbers held against runs on as many images as
    the notebook's code draws. ``exploded`` are the seeds of sessions whose test loss is ten times the median session's
    somewhere, by standardised test pixels that explode, and ``without`` the numbers held against the other sessions.
    """

    audit: NotebookAudit
    numbers: dict[str, dict[Metric, list[Judged]]]
    as_coded: dict[str, dict[Metric, list[Judged]]]
    left_out: dict[str, list[int]]
    exploded: list[int]
    without: dict[str, dict[Metric, list[Judged]]]
    strides: list[RepeatedStride]

    @property
    def total(self) -> int:
        """How many numbers were judged."""
        return len(_all(self.numbers))

    @property
    def inside(self) -> int:
        """How many of them are inside."""
        return sum(each.inside for each in _all(self.numbers))

    @property
    def sessions_outside(self) -> list[int]:
        """Of each session of ours, how many numbers lie outside the intervals of the others."""
        return [sum(counts) for counts in zip(*self.left_out.values(), strict=True)]


def reproduce(audit: NotebookAudit) -> Reproduction:
    """Judge every printed number."""
    as_printed = [run for run in audit.repeated if run.n_train == audit.printed.n_train]
    as_coded = [run for run in audit.repeated if run.n_train != audit.printed.n_train]
    exploded = _exploded(as_printed)
    others = [run for run in as_printed if run.seed not in exploded]
    return Reproduction(
        audit,
        numbers={run.title: _judge_run(run, as_printed) for run in audit.printed.runs},
        as_coded={run.title: _judge_run(run, as_coded) for run in audit.printed.runs},
        left_out={run.title: _left_out(run, as_printed) for run in audit.printed.runs},
        exploded=exploded,
        without={run.title: _judge_run(run, others) for run in audit.printed.runs},
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


def _all(numbers: dict[str, dict[Metric, list[Judged]]]) -> list[Judged]:
    return [each for rows in numbers.values() for found in rows.values() for each in found]


def _values(runs: Sequence[RepeatedRun | PrintedRun], metric: Metric) -> list[tuple[float, ...]]:
    """Iteration by iteration, one value of each run."""
    return list(zip(*(getattr(run, metric) for run in runs), strict=True))


def _judge_run(printed: PrintedRun, repeated: Sequence[RepeatedRun]) -> dict[Metric, list[Judged]]:
    """A printed run held against ours of its variant; nothing where fewer than two of ours trained."""
    ours = [run for run in repeated if run.variant == printed.variant]
    if len(ours) < 2:
        return {}
    return {
        metric: [
            judge(value, values, metric)
            for value, values in zip(getattr(printed, metric), _values(ours, metric), strict=False)  # fewer passes
        ]
        for metric in METRICS
    }


def _left_out(printed: PrintedRun, repeated: Sequence[RepeatedRun]) -> list[int]:
    """For each run of ours of this variant, how many of its numbers lie outside the intervals of the others."""
    ours = [run for run in repeated if run.variant == printed.variant]
    if len(ours) < 3:
        return []
    counts = [0] * len(ours)
    for metric in METRICS:
        for values in _values(ours, metric):
            for place, value in enumerate(values):
                others = [*values[:place], *values[place + 1 :]]
                counts[place] += not judge(round(value, 3), others, metric).inside
    return counts


def _judge_strides(audit: NotebookAudit) -> list[RepeatedStride]:
    """Every stride's tests, corrected together."""
    ours = {stride.stride: stride for stride in audit.strides}
    pairs = [(each, ours[each.stride]) for each in audit.printed.strides if each.stride in ours]
    trained = [(_trained(printed, audit.class_0_share), stride.trained) for printed, stride in pairs]
    tested = [index for index, each in enumerate(trained) if min(map(len, each)) >= 2]
    lost = [
        _lost_test(len(printed.accuracies) - len(left), len(left), stride)
        for (printed, stride), (left, _) in zip(pairs, trained, strict=True)
    ]
    adjusted = holm([*(permutation_test(*trained[index]) for index in tested), *lost])
    of_trained = dict(zip(tested, adjusted, strict=False))
    return [
        RepeatedStride(
            stride=printed.stride,
            printed=left,
            printed_lost=len(printed.accuracies) - len(left),
            ours=stride,
            trained_p=of_trained.get(index),
            lost_p=adjusted[len(tested) + index],
            smallest=2 / math.comb(len(left) + len(right), len(left)),
        )
        for index, ((printed, stride), (left, right)) in enumerate(zip(pairs, trained, strict=True))
    ]


def _lost_test(printed_lost: int, printed_trained: int, ours: AuditedStride) -> float:
    """P-value of Fisher's exact test that as large a share of trials was lost."""
    counts = np.array([[printed_lost, printed_trained], [ours.diverged, len(ours.trained)]])
    return float(fisher_exact(counts).pvalue)


def _trained(printed: PrintedStride, class_0_share: float) -> list[float]:
    """The accuracies of trials that trained: argmax of scores that are no numbers gives class 0's share exactly."""
    return [accuracy for accuracy in printed.accuracies if abs(accuracy - class_0_share) > HALF_DIGIT]


def time_ratio(times: Sequence[TimedIteration], layers: str) -> Interval:
    """Processor seconds of an iteration, strided over pooled, with the 95% prediction interval of one more round."""
    rounds = {each.variant: [time.cpu_seconds for time in each.times] for each in times if each.layers == layers}
    found = prediction_interval([math.log(a / b) for a, b in zip(rounds["stride"], rounds["pool"], strict=True)])
    return Interval(math.exp(found.estimate), math.exp(found.low), math.exp(found.high), found.n)


def run_rows(found: Reproduction) -> list[tuple[str, ...]]:
    """The table's first part: a row for each printed run and metric."""
    rows: list[tuple[str, ...]] = []
    for title, metrics in found.numbers.items():
        for metric, judged in metrics.items():
            outside = [
                f"{iteration}: {each.printed:.3f}, ours {show(each.ours)}"
                for iteration, each in enumerate(judged, 1)
                if not each.inside
            ]
            inside = f"{len(judged) - len(outside)} of {len(judged)}"
            rows.append((f"{title}: {METRICS[metric][0]}", inside, "; ".join(outside) or "none"))
    return rows


def number_rows(found: Reproduction) -> list[tuple[str, ...]]:
    """Every printed number with our prediction interval, iteration by iteration; those outside are marked."""
    return [
        (
            title,
            str(iteration),
            *(
                f"{each.printed:.3f} [{each.ours.low:.3f},\u00a0{each.ours.high:.3f}]" + " outside" * (not each.inside)
                for each in judged
            ),
        )
        for title, metrics in found.numbers.items()
        for iteration, judged in enumerate(zip(*metrics.values(), strict=True), 1)
    ]


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
    low = 1 - CONFIDENCE
    powerless = (
        f" (too few: no partition gives less than {smallest:.2g} before the correction)" if smallest > low else ""
    )
    return f"p {'< 0.0001' if p < 1e-4 else f'= {p:.2g}'}{', differs' if p < low else ''}{powerless}"


def answers(found: Reproduction) -> list[str]:
    """What the comparison says."""
    return [*_answer_curves(found), *_answer_strides(found), _answer_seconds(found.audit)]


def _answer_curves(found: Reproduction) -> list[str]:
    printed = found.audit.printed
    if not found.total:
        return ["Fewer than two of our sessions trained, so the printed curves have nothing to stand beside."]
    share = found.inside / found.total
    seeds = max(each.ours.n for each in _all(found.numbers))
    text = (
        f"Of {found.total} losses and accuracies that the notebook printed of its {len(printed.runs)} runs, "
        f"{found.inside} ({share:.1%}) lie within the 95% prediction interval of our {seeds} sessions; chance leaves "
        f"{(1 - CONFIDENCE) * found.total:.2g} outside, here it is {found.total - found.inside}"
    )
    others = found.sessions_outside
    if others:
        text += f"; of our own sessions, each held against the others, {min(others)} to {max(others)}"
    few = found.total - found.inside <= (1 - CONFIDENCE) * found.total
    verdict = " That is no more than chance leaves, so none of them asks for a cause of its own." if few else ""
    if share < SHARE_INSIDE:
        verdict = f" Fewer than {SHARE_INSIDE:.0%} inside is a finding: see the table."
    sentences = [f"{text}.{verdict}"]
    sentences += _answer_exploded(found)
    coded = _all(found.as_coded)
    if coded:
        n_coded = min(run.n_train for run in found.audit.repeated)
        sentences.append(
            f"It printed {printed.n_train:,} training images, but its code draws {n_coded:,}: on so many of ours "
            f"{sum(each.inside for each in coded)} of {len(coded)} are inside."
        )
    if found.audit.diverged:
        sentences.append(f"Of ours, these runs diverged and stand in no interval: {'; '.join(found.audit.diverged)}.")
    return sentences


def _answer_exploded(found: Reproduction) -> list[str]:
    """What the sessions whose test pixels explode do to the intervals of test losses."""
    if not found.exploded:
        return []
    losses = [each for metrics in found.numbers.values() for each in metrics.get("test_loss", [])]
    mute = sum(each.ours.high > TELLING * each.ours.low for each in losses)
    runs = [run for run in found.audit.repeated if run.seed in found.exploded]
    worst = max(value for run in runs for value in run.test_loss)
    kept = _all(found.without)
    text = (
        f"In {len(found.exploded)} of our sessions (seed {', '.join(map(str, found.exploded))}) test pixels exploded "
        f"under its standardisation, to a test loss of {worst:.3g}. Being inside therefore says nothing for {mute} of "
        f"{len(losses)} test losses, whose intervals span more than a factor of {TELLING}"
    )
    if not kept:
        return [f"{text}."]
    inside = sum(each.inside for each in kept)
    return [
        f"{text}; held against the other sessions, a look taken after seeing this, {inside} of {len(kept)} numbers are "
        f"inside."
    ]


def _answer_strides(found: Reproduction) -> list[str]:
    if not found.strides:
        return [
            "Its text CNNs' accuracies are not compared: that takes the homework's vectors, which 'hw4 fetch' brings."
        ]
    trained = [each.trained_p for each in found.strides if each.trained_p is not None]
    differ = [f"{each.stride} (accuracy)" for each in found.strides if (each.trained_p or 1) < 1 - CONFIDENCE]
    differ += [f"{each.stride} (lost trials)" for each in found.strides if each.lost_p < 1 - CONFIDENCE]
    tests = len(trained) + len(found.strides)
    trials = sum(len(each.printed) + each.printed_lost for each in found.strides)
    text = (
        f"its strides {', '.join(differ)} differ from ours"
        if differ
        else "none shows a difference between its and ours"
    )
    return [
        f"Of {tests} tests on its {trials} accuracies, corrected together, {text}. A lost trial has the accuracy "
        f"{found.audit.class_0_share:.3f}, the share of class 0, for argmax takes the first of scores that are no "
        f"numbers: it lost {_by_stride(found, printed=True)}, we {_by_stride(found, printed=False)}."
    ]


def _by_stride(found: Reproduction, *, printed: bool) -> str:
    """How many trials were lost where."""
    lost = {each.stride: each.printed_lost if printed else each.ours.diverged for each in found.strides}
    return " and ".join(f"{count} at stride {stride}" for stride, count in lost.items() if count) or "none"


def _answer_seconds(audit: NotebookAudit) -> str:
    printed = audit.printed.seconds["stride"] / audit.printed.seconds["pool"]
    ours = time_ratio(audit.seconds, "the notebook's")
    fast = time_ratio(audit.seconds, "hw4's")
    inside = ours.low <= printed <= ours.high
    return (
        f"Strided over pooled, its seconds for ten iterations are {audit.printed.seconds['stride']:.2f} over "
        f"{audit.printed.seconds['pool']:.2f}, {printed:.2f}: {'inside' if inside else 'outside'} what its layers and "
        f"its evaluation take here, {show(ours, digits=2)}, but its machine and its threads are unknown, so this is no "
        f"test of it. With hw4's layers and evaluation it is {show(fast, digits=2)}."
    )


def caption(audit: NotebookAudit) -> str:
    """What was repeated."""
    seeds = len({run.seed for run in audit.repeated})
    return (
        f"The notebook's protocol: images drawn anew each time, pixels over std + 1e-6, scores in evaluation mode "
        f"before each pass, questions as it parses them; {seeds} sessions, {audit.printed.n_train:,} images"
    )


def figure(found: Reproduction) -> Figure:
    """Draw how far each printed number lies from the middle of our interval, and the text CNNs' trials."""
    canvas = Figure(figsize=(14, 8), dpi=DPI, layout="constrained")
    grid = canvas.add_gridspec(2, 4)
    first = canvas.add_subplot(grid[0, 0])
    panels = [first, *(canvas.add_subplot(grid[0, place], sharey=first) for place in range(1, len(found.numbers)))]
    for ax, (title, metrics) in zip(panels, found.numbers.items(), strict=False):
        _draw_run(ax, metrics)
        ax.set(title=title, xlabel="iteration (scores before that pass)")
    first.set_ylim(min(-1.6, first.get_ylim()[0]), max(1.6, first.get_ylim()[1]))
    first.set_ylabel("distance from the middle of our 95%\nprediction interval (1: its end)")
    _draw_strides(canvas.add_subplot(grid[1, :]), found)
    legend_below(canvas, caption(found.audit))
    return canvas


def _draw_run(ax: Axes, metrics: dict[Metric, list[Judged]]) -> None:
    """One printed run: its numbers' deviations from ours; those outside are ringed."""
    ax.axhspan(-1, 1, color="#999999", alpha=0.25, label="inside our 95% prediction interval")
    for metric, judged in metrics.items():
        name, color, marker = METRICS[metric]
        iterations = range(1, len(judged) + 1)
        deviations = [each.deviation for each in judged]
        ax.plot(iterations, deviations, color=color, marker=marker, markersize=5, linewidth=0.8, label=name)
        outside = [(x, each.deviation) for x, each in zip(iterations, judged, strict=True) if not each.inside]
        if outside:
            ax.plot(
                *zip(*outside, strict=True),
                marker="o",
                markersize=12,
                linestyle="",
                markerfacecolor="none",
                markeredgecolor="black",
                label="outside",
            )
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


def alt_text() -> str:
    """Describe the figure for those who cannot see it."""
    return (
        "For each run that the notebook printed, how far each of its numbers lies from the middle of our prediction "
        "interval, over iterations; below, the accuracies of its text CNNs beside ours. The tables give the values."
    )


def entries(audit: NotebookAudit, **about: Any) -> list[Entry]:
    """The report's part on the printed numbers; ``about`` is what it shares with the rest of the audit."""
    found = reproduce(audit)
    numbers = Entry(
        title="The solved notebook, number by number",
        question="Are the numbers that the homework's solved notebook printed those that its own protocol gives here?",
        file_name="notebook.png",
        figure=figure(found),
        alt=alt_text(),
        caption=caption(audit),
        tables=[
            ("What lies inside our 95% prediction intervals", RUN_HEADER, run_rows(found)),
            ("Text CNNs; p-values are Holm's over all tests", STRIDE_HEADER, stride_rows(found)),
            ("Every number, with our interval", NUMBER_HEADER, number_rows(found)),
        ],
        answer=answers(found),
        **about,
    )
    return [numbers]

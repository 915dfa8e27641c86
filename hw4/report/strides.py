"""Exercise 2's charts, tables and words."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hw4.errors import RecordError
from hw4.files import RECORDS
from hw4.geometry import TEXT_LENGTH, input_coverage
from hw4.records import QuestionIdentity, Store, TextCNNRecord
from hw4.report.drawing import DPI
from hw4.report.entry import CHOICE, Entry, Table, again, data_words
from hw4.report.words import show
from hw4.specs import HOMEWORK_VECTORS, STRIDES, TRIALS, TextCNNSpec
from hw4.stats import Interval, compare_crossed, holm, mean_interval
from hw4.studies import RESCUE_RATES

LEVEL = 0.05
NOT_THE_HOMEWORKS = "not the homework's vectors; 'hw4 fetch' brings those"
PAIRS_HEADER = ("strides", "difference in accuracy (95% interval of this pair alone)", "Holm p", "verdict")

QUESTION = "How does the test accuracy of a text CNN on question vectors depend on the stride of its layers?"


@dataclass(frozen=True)
class Bar:
    """All trials of one stride at one learning rate."""

    stride: int
    learning_rate: float
    records: tuple[TextCNNRecord, ...]

    @property
    def accuracies(self) -> list[float]:
        """Test accuracy of every trial that did not diverge."""
        return [record.test_accuracy for record in self.records if record.test_accuracy is not None]

    @property
    def diverged(self) -> int:
        """How many trials diverged."""
        return len(self.records) - len(self.accuracies)

    @property
    def lost(self) -> str:
        """How many trials diverged, of how many, in words."""
        return f"{self.diverged} of {len(self.records)}"

    @property
    def mean(self) -> Interval | None:
        """Mean accuracy of the trials that did not diverge, with its interval over trials, cut to what a share can be.

        Where trials diverged those that are left are a selected sample, so this mean is compared with no other.
        """
        return _within(mean_interval(self.accuracies), 0, 1) if self.accuracies else None

    @property
    def top(self) -> float:
        """Upper end of all that the chart shows of it."""
        whisker = self.mean.high if self.mean is not None and self.mean.n > 1 else 0
        return max([whisker, *self.accuracies])


@dataclass(frozen=True)
class Pair:
    """Two strides, by how much the first is more accurate and Holm's p, or the reason why that is not said."""

    first: int
    second: int
    difference: Interval | None = None
    p_value: float = 1
    reason: str = ""

    @property
    def order(self) -> tuple[int, int] | None:
        """The more accurate stride and the other, where that is decided."""
        if self.difference is None or self.p_value > LEVEL:
            return None
        return (self.first, self.second) if self.difference.estimate > 0 else (self.second, self.first)

    @property
    def row(self) -> tuple[str, str, str, str]:
        """Its row in the table of pairs."""
        name = f"{self.first} against {self.second}"
        if self.difference is None:
            return name, "-", "-", self.reason
        verdict = "not decided" if self.order is None else "higher" if self.order[0] == self.first else "lower"
        p = f"{self.p_value:.3f}" if self.p_value >= 0.001 else "below 0.001"
        return name, show(self.difference, sign=True), p, verdict


@dataclass(frozen=True)
class Summary:
    """One sweep as it is reported: ``bars`` ran at its learning rate, ``slower`` at smaller ones, for lost strides.

    ``suffix`` tells the sweep from others of the folder, in titles and file names; it is empty for the homework's own
    settings and for a sweep that is alone.
    """

    data: QuestionIdentity
    bars: tuple[Bar, ...]
    slower: tuple[Bar, ...]
    suffix: str
    caption: str
    tables: tuple[Table, ...]
    answer: tuple[str, ...]

    @property
    def records(self) -> list[TextCNNRecord]:
        """All records that it tells of."""
        return [record for bar in (*self.bars, *self.slower) for record in bar.records]


def summaries(records: Sequence[TextCNNRecord], *, anyway: bool = False) -> list[Summary]:
    """Bring a folder's trials into one summary for each protocol and learning rate, the homework's own first.

    Raises RecordError when trials are missing or the records of one sweep do not belong together; with ``anyway`` the
    summary says so instead.
    """
    if not records:
        raise RecordError("there are no records of a sweep; make them with 'hw4 sweep'")
    protocols: dict[tuple[float, int, int], dict[tuple[int, float], list[TextCNNRecord]]] = {}
    for record in sorted(records, key=lambda r: (r.stride, -r.spec.learning_rate, r.trial)):
        spec = record.spec
        protocol = protocols.setdefault((spec.momentum, spec.batch_size, spec.epochs), {})
        protocol.setdefault((spec.stride, spec.learning_rate), []).append(record)
    sweeps = {
        _settings(bars[0]): (bars, slower, trials)
        for groups in protocols.values()
        for bars, slower, trials in _sweeps([Bar(*setting, tuple(group)) for setting, group in groups.items()])
    }
    return [
        _summarise(*sweeps[settings], suffix=settings if len(sweeps) > 1 else "", anyway=anyway)
        for settings in sorted(sweeps)
    ]


def _settings(bar: Bar) -> str:
    """All that is not the homework's, as in the records' names between stride and trial; empty for the homework's."""
    return "_".join(bar.records[0].key.split("_")[2:-1])


def _sweeps(bars: Sequence[Bar]) -> list[tuple[list[Bar], list[Bar], int]]:
    """The sweeps of one protocol: bars, the smaller rates tried for strides that lost trials, how many were asked for.

    What stands at a rate that rescues use, of a stride that lost trials at a larger one, was not necessarily asked for:
    it makes no sweep of its own, and does not say how many trials the others must have.
    """
    found = []
    for rate in {bar.learning_rate for bar in bars}:
        mine = [bar for bar in bars if bar.learning_rate == rate]
        lost_above = {bar.stride for bar in bars if bar.learning_rate > rate and bar.diverged}
        asked = [bar for bar in mine if rate not in RESCUE_RATES or bar.stride not in lost_above]
        lost = {bar.stride for bar in mine if bar.diverged}
        slower = [bar for bar in bars if bar.learning_rate < rate and bar.stride in lost]
        if asked:
            found.append((mine, slower, 1 + max(record.trial for bar in asked for record in bar.records)))
    return found


def _summarise(bars: Sequence[Bar], slower: Sequence[Bar], trials: int, *, suffix: str, anyway: bool) -> Summary:
    faults = _faults(bars, slower, trials)
    if faults and not anyway:
        raise RecordError(f"{faults[0]}, or draw the chart all the same with 'hw4 report --anyway'")
    data = bars[0].records[0].data
    pairs = _compare(bars)
    answer = [
        *(f"Drawn although {fault.partition(';')[0]}: what follows may compare more than strides." for fault in faults),
        _headline(bars, slower, pairs),
        *_background(data, bars),
        *(_loss(bar, slower) for bar in bars if bar.diverged),
        *_verdicts(pairs),
        *_control(bars),
    ]
    tables: list[Table] = [("", *_bars_table((*bars, *slower)))]
    if pairs:
        tables.append(("Pairs of strides", PAIRS_HEADER, [pair.row for pair in pairs]))
    return Summary(data, tuple(bars), tuple(slower), suffix, _caption(data, bars), tuple(tables), tuple(answer))


def _faults(bars: Sequence[Bar], slower: Sequence[Bar], trials: int) -> list[str]:
    """Why these trials cannot stand in one chart, each in a sentence with the way out."""
    records = [record for bar in (*bars, *slower) for record in bar.records]
    faults = [
        f"the {len(records)} records come from {len(values)} {what} ({', '.join(sorted(values.values()))}) and do not "
        f"belong in one chart; make them again with 'hw4 sweep --fresh' or report them from separate folders"
        for what, values in (
            ("data sets or vectors", {r.data: f"{r.data.title}, vectors: {r.data.vectors}" for r in records}),
            ("versions of the code", {r.environment.code: r.environment.code[:12] for r in records}),
        )
        if len(values) > 1
    ]
    for bar in bars:
        absent = sorted(set(range(trials)) - {record.trial for record in bar.records})
        if absent:
            faults.append(
                f"the sweep is incomplete: stride {bar.stride} at learning rate {bar.learning_rate:g} lacks trial "
                f"{absent[0]}{f' and {len(absent) - 1} more' if len(absent) > 1 else ''}; 'hw4 sweep' makes what is "
                f"missing"
            )
    return faults


def _caption(data: QuestionIdentity, bars: Sequence[Bar]) -> str:
    spec = bars[0].records[0].spec
    counts = [len(bar.records) for bar in bars]
    return (
        f"{data.title}, {data.n_train:,} training and {data.n_test:,} test questions, vectors: {data.vectors}"
        f"{f' ({NOT_THE_HOMEWORKS})' if _other_vectors(data) else ''}, data sha256 {data.checksum[:12]}; SGD, learning "
        f"rate {spec.learning_rate:g}, momentum {spec.momentum:g}, batch {spec.batch_size}, {spec.epochs} "
        f"epoch{'s' if spec.epochs > 1 else ''}; {_span(counts)} trial{'s' if max(counts) > 1 else ''} per stride"
    )


def _span(values: Sequence[float], form: str = "") -> str:
    """Smallest to largest value, said once where they are equal; a dash where there is none."""
    ends = dict.fromkeys(f"{end:{form}}" for end in (min(values), max(values))) if values else ["-"]
    return " to ".join(ends)


def _other_vectors(data: QuestionIdentity) -> bool:
    return data.name == "trec" and data.vectors != HOMEWORK_VECTORS


def _bars_table(bars: Sequence[Bar]) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """One row for each stride and learning rate."""
    header = ["stride", "learning rate", "inputs read", "mean of the converged"]
    header += ["mean of all, a diverged trial as 0", "lowest to highest", "diverged"]
    rows = [
        (
            str(bar.stride),
            f"{bar.learning_rate:g}",
            f"{len(input_coverage(bar.stride))} of {TEXT_LENGTH}",
            show(bar.mean),
            f"{sum(bar.accuracies) / len(bar.records):.3f}",
            _span(bar.accuracies, ".3f"),
            bar.lost,
        )
        for bar in bars
    ]
    return header, rows


def _within(interval: Interval, low: float, high: float) -> Interval:
    return replace(interval, low=max(interval.low, low), high=min(interval.high, high))


def _one_function(bars: Sequence[Bar]) -> list[Bar]:
    """The bars of one and the same function: such strides leave one position, the first, whatever their size."""
    return [bar for bar in bars if bar.stride >= TEXT_LENGTH]


def _matrices(first: Bar, second: Bar, *, independent: bool = False) -> tuple[np.ndarray, np.ndarray] | None:
    """Right answers (trials, questions) of both, trial by trial of equal seeds.

    With ``independent`` the first half of one's trials stands beside the second half of the other's: no seed twice.
    None when a trial of either diverged, when fewer than two are left, or when the questions differ.
    """
    other = {record.trial: record.correct for record in second.records}
    half = (max(other, default=0) + 1) // 2
    pairs = [
        (record.correct, right)
        for record in first.records
        if (right := other.get(record.trial + half * independent)) is not None
        and record.correct is not None
        and (record.trial < half or not independent)
    ]
    if first.diverged or second.diverged or len(pairs) < 2 or len({len(right) for pair in pairs for right in pair}) > 1:
        return None
    return np.array([a for a, _ in pairs]), np.array([b for _, b in pairs])


def _compare(bars: Sequence[Bar]) -> list[Pair]:
    """Every two strides, paired per trial and per question, with Holm's correction over all that can be compared.

    A stride that lost trials is not compared: its survivors are a selected sample. Nothing is when each has one trial.
    """
    if max(len(bar.records) for bar in bars) < 2:
        return []
    found = []
    for first, second in combinations(bars, 2):
        matrices, difference, p_value, reason = _matrices(first, second), None, 1.0, ""
        lost = " and ".join(f"{bar.lost} trials of stride {bar.stride}" for bar in (first, second) if bar.diverged)
        if lost:
            reason = f"not compared: {lost} diverged"
        elif len(_one_function((first, second))) == 2:
            reason = "one function: the control"
        elif matrices is None:
            reason = "not compared: fewer than two trials on the same questions"
        else:
            comparison = compare_crossed(*matrices)
            difference, p_value = _within(comparison.difference, -1, 1), comparison.p_value
        found.append(Pair(first.stride, second.stride, difference, p_value, reason))
    adjusted = iter(holm([pair.p_value for pair in found if pair.difference is not None]))
    return [pair if pair.difference is None else replace(pair, p_value=next(adjusted)) for pair in found]


def _headline(bars: Sequence[Bar], slower: Sequence[Bar], pairs: Sequence[Pair]) -> str:
    """The most accurate of the strides at which every trial trained, as far as decided, and the rescued strides."""
    trained = [bar for bar in bars if not bar.diverged]
    where = f"at learning rate {bars[0].learning_rate:g}"
    rescued = "".join(
        f"; stride {bar.stride}, of which {bar.lost} trials diverged there, trains at {stable.learning_rate:g} and "
        f"reaches {show(stable.mean)}"
        for bar in bars
        if (stable := _stable(bar, slower)) is not None
    )
    best = max(trained, key=lambda bar: sum(bar.accuracies) / len(bar.accuracies), default=None)
    if best is None:
        return f"At no stride did every trial train {where}{rescued}."
    whom = " of the strides at which every trial trained" if len(trained) < len(bars) else ""
    others = [bar.stride for bar in trained if bar is not best and len(_one_function((bar, best))) < 2]
    orders = [pair.order for pair in pairs]
    undecided = [stride for stride in others if (best.stride, stride) not in orders]
    if not others:
        every = ", of which every trial trained," if whom else ""
        found = f"Stride {best.stride}{every} reaches a test accuracy of {show(best.mean)} {where}"
    elif not pairs:
        found = f"In one trial each, stride {best.stride} comes out highest{whom} {where}, with {show(best.mean)}"
    elif undecided:
        found = (
            f"Stride {best.stride} has the highest mean test accuracy{whom} {where}, {show(best.mean)}; whether it is "
            f"more accurate than stride{'s' if len(undecided) > 1 else ''} {_listed(undecided)} is not decided"
        )
    else:
        found = f"Stride {best.stride} is the most accurate{whom} {where}, {show(best.mean)} in the mean"
    return f"{found}{rescued}."


def _listed(strides: Sequence[int]) -> str:
    *most, last = map(str, strides)
    return f"{', '.join(most)} and {last}" if most else last


def _stable(bar: Bar, slower: Sequence[Bar]) -> Bar | None:
    """The largest smaller rate at which every trial of a stride trained, where one was tried."""
    return next((other for other in slower if other.stride == bar.stride and not other.diverged), None)


def _background(data: QuestionIdentity, bars: Sequence[Bar]) -> list[str]:
    """What every bar is to be seen against: baselines, vectors, inputs read, and the questions that all share."""
    sentences = [
        f"A logistic regression on the same vectors reaches {data.logistic_accuracy:.3f}, the majority class "
        f"{data.majority_accuracy:.3f}."
    ]
    if _other_vectors(data):
        sentences.append(f"The vectors are those of {data.vectors}: {NOT_THE_HOMEWORKS}.")
    reads = {bar.stride: len(input_coverage(bar.stride)) for bar in bars}
    if len(set(reads.values())) > 1:
        sentences.append(
            "The strides of convolution and pooling multiply, so large ones leave most of the vector unread: "
            + ", ".join(f"stride {stride} reads {inputs}" for stride, inputs in reads.items())
            + f" of the {TEXT_LENGTH} numbers. The chart shows how much of the question is read as much as it shows "
            "the stride."
        )
    shift = 2 * (0.25 / data.n_test) ** 0.5  # two standard errors of a share of so many, where they are largest
    sentences.append(
        f"All bars share {data.n_test:,} test questions; other questions could move them together by about {shift:.2f}."
    )
    return sentences


def _loss(bar: Bar, slower: Sequence[Bar]) -> str:
    """How many trials of a stride diverged, what that makes of those left, and what smaller learning rates did."""
    left = len(bar.accuracies)
    words = (
        f"At stride {bar.stride}, {bar.lost} trials diverged at learning rate {bar.learning_rate:g}; "
        f"{'it has' if bar.diverged == 1 else 'they have'} no accuracy"
    )
    if left:
        words += (
            f", and the {left} that trained {'is' if left == 1 else 'are'} a selected sample, so the stride is "
            f"compared with no other"
        )
    tried = [other for other in slower if other.stride == bar.stride]
    stable = _stable(bar, slower)
    if stable is not None:
        n = len(stable.records)
        trials = f"{n} trial{'s' if n > 1 else ''}"
        return (
            f"{words}. At {stable.learning_rate:g} all train, to a test accuracy of {show(stable.mean)} over {trials}."
        )
    if tried:
        return (
            f"{words}. Smaller rates lost trials too: "
            + ", ".join(f"{other.lost} at {other.learning_rate:g}" for other in tried)
            + "."
        )
    return f"{words}. No smaller learning rate was tried."


def _verdicts(pairs: Sequence[Pair]) -> list[str]:
    """Which strides differ reliably, of those that can be compared."""
    tested = [pair for pair in pairs if pair.difference is not None]
    if not tested:
        return []
    orders = [pair.order for pair in tested if pair.order is not None]
    found = ": " + "; ".join(f"{better} above {worse}" for better, worse in orders) if orders else ""
    rest = len(tested) - len(orders)
    undecided = f"; {rest} {'is' if rest == 1 else 'are'} not decided" if rest else ""
    return [
        f"Of {len(tested)} pair{'s' if len(tested) > 1 else ''} of strides, compared trial by trial and question by "
        f"question, {len(orders) or 'none'} differ{'s' if len(orders) < 2 else ''} reliably, allowing for the number "
        f"of comparisons (Holm){found}{undecided}."
    ]


def _control(bars: Sequence[Bar]) -> list[str]:
    """What strides that are one function show: noise, and at equal seeds not even that."""
    same = _one_function(bars)
    if len(same) < 2 or not same[0].accuracies:
        return []
    words = f"Strides {_listed([bar.stride for bar in same])} compute the same function"
    matrices = _matrices(same[0], same[1], independent=True)
    if matrices is not None:
        noise = _within(compare_crossed(*matrices).difference, -1, 1)
        verdict = (
            "includes zero" if noise.compared_with(0) == "not decided" else "leaves out zero, as chance does once in 20"
        )
        words += (
            f", so at independent seeds their difference measures noise alone: {show(noise, sign=True)}, which "
            f"{verdict}"
        )
    answers = [[record.correct for record in bar.records] for bar in same]
    alike = "the same" if all(each == answers[0] for each in answers) else "not the same"
    return [f"{words}; at equal seeds their answers are {alike} on every question."]


def chart(summary: Summary) -> Figure:
    """Draw the bar chart: stride on x, accuracy on y, a dot for every trial, baselines as lines."""
    width = max(9, 1.5 * len(summary.bars))
    canvas = Figure(figsize=(width, 5.4), dpi=DPI, layout="constrained")
    ax = canvas.subplots()
    for x, bar in enumerate(summary.bars):
        _draw(ax, x, bar)
    ax.axhline(summary.data.logistic_accuracy, color="#D55E00", linestyle="--", label="logistic regression")
    ax.axhline(summary.data.majority_accuracy, color="#444444", linestyle=":", label="majority class")
    labels = [f"{bar.stride}\nreads {len(input_coverage(bar.stride))} of {TEXT_LENGTH}" for bar in summary.bars]
    ax.set_xticks(range(len(labels)), labels)
    highest = max(summary.data.logistic_accuracy, *(bar.top for bar in summary.bars))
    ax.set(xlabel="stride of convolution and pooling", ylabel="test accuracy (share of questions)")
    ax.set_ylim(0, 1.2 * highest)  # room for a count of diverged trials above the highest
    ax.set_xlim(-0.6, len(labels) - 0.4)
    ax.grid(axis="y", alpha=0.3)
    canvas.legend(loc="outside upper right", ncols=3)
    note = f"{summary.caption}; bar: mean of the trials that converged, dot: trial"
    if any(len(bar.accuracies) > 1 for bar in summary.bars):
        note += ", whisker: 95% t interval of the mean"
    if any(bar.accuracies and bar.diverged for bar in summary.bars):
        note += ", hatched: others of the stride diverged"
    canvas.supxlabel("\n".join(textwrap.wrap(note, int(14.4 * width))), fontsize=8, color="#444444")
    return canvas


def _draw(ax: Axes, x: int, bar: Bar) -> None:
    """Draw a bar with its whisker and dots, hatched where trials diverged, and their count above all of it."""
    if bar.mean is not None:
        mean = bar.mean
        error = [[mean.estimate - mean.low], [mean.high - mean.estimate]] if mean.n > 1 else None
        color, hatch = ("#DDEFFA", "//") if bar.diverged else ("#56B4E9", None)
        ax.bar(x, mean.estimate, 0.6, yerr=error, capsize=5, ecolor="#222222", color=color, hatch=hatch, ec="#56B4E9")
        offsets = np.random.default_rng(x).uniform(-0.18, 0.18, len(bar.accuracies))
        ax.plot(x + offsets, bar.accuracies, ".", color="#0072B2", markersize=6, zorder=3)
    if bar.diverged:
        ax.annotate(
            f"{bar.lost}\ndiverged",
            (x, bar.top),
            xytext=(0, 8),
            textcoords="offset points",
            ha="center",
            va="bottom",
            color="#A03000",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 2},  # no line behind crosses the words
            zorder=5,
        )


def chart_alt_text(summary: Summary) -> str:
    """Describe the chart for those who cannot see it."""
    values = "; ".join(
        f"{bar.stride}: {'' if bar.mean is None else f'{bar.mean.estimate:.2f}'}"
        f"{', ' * (bar.mean is not None and bar.diverged > 0)}{f'{bar.lost} diverged' if bar.diverged else ''}"
        for bar in summary.bars
    )
    return f"Bar chart of mean test accuracy against stride. {values}. The first table gives the numbers."


def load(folder: Path, anyway: bool = False) -> list[Entry]:
    """The report's parts on a folder's text CNNs."""
    return entries(Store(folder / RECORDS, TextCNNRecord).load_all("*_textcnn-*.json"), anyway=anyway)


def entries(records: Sequence[TextCNNRecord], *, anyway: bool = False) -> list[Entry]:
    """The report's parts on these trials, one for each sweep; raises RecordError when they cannot stand together."""
    return [_entry(found) for found in summaries(records, anyway=anyway)] if records else []


def _entry(found: Summary) -> Entry:
    title, suffix = "Exercise 2: a text CNN against its stride", found.suffix
    return Entry(
        title=f"{title} ({suffix})" if suffix else title,
        question=QUESTION,
        file_name=f"strides{f'_{suffix}' if suffix else ''}.png",
        figure=chart(found),
        alt=chart_alt_text(found),
        caption=found.caption,
        tables=found.tables,
        answer=found.answer,
        rerun=_again(found),
        environments=[record.environment for record in found.records],
        data=[data_words(found.data)],
    )


def _again(found: Summary) -> str:
    """The command that makes a sweep's records again."""
    spec, fields = found.bars[0].records[0].spec, TextCNNSpec.model_fields
    trials = max(len(bar.records) for bar in found.bars)
    return again(
        "sweep",
        data=(CHOICE[found.data.name], None),
        stride=([bar.stride for bar in found.bars], list(STRIDES)),
        trials=(trials, TRIALS),
        **{name: (getattr(spec, name), fields[name].default) for name in ("epochs", "learning_rate", "momentum")},
        fresh=(True, False),
    )

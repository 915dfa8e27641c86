"""Exercise 2's chart, tables and words."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from matplotlib.figure import Figure

from hw4.errors import RecordError
from hw4.geometry import input_coverage
from hw4.records import QuestionIdentity, TextCNNRecord
from hw4.report.figures import DPI
from hw4.report.findings import show
from hw4.stats import Interval, compare_crossed, holm, mean_interval

LEVEL = 0.05


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
    def mean(self) -> Interval | None:
        """Mean accuracy of the trials that did not diverge, with its interval over trials."""
        return mean_interval(self.accuracies) if self.accuracies else None


@dataclass(frozen=True)
class Summary:
    """A sweep as it is reported."""

    data: QuestionIdentity
    bars: tuple[Bar, ...]
    caption: str
    tables: tuple[tuple[str, Sequence[str], Sequence[Sequence[str]]], ...]
    answer: tuple[str, ...]


def summarise(records: Sequence[TextCNNRecord], *, anyway: bool = False) -> Summary:
    """Bring a sweep's records into bars, tables and sentences.

    The sweep proper is what ran at the largest learning rate of each stride; smaller rates are told of beside it.
    Raises RecordError when trials are missing or the records do not belong together; with ``anyway`` the summary says
    so instead.
    """
    if not records:
        raise RecordError("there are no records of a sweep; make them with 'hw4 sweep'")
    faults = []
    for what, values in (
        ("data sets or vectors", {record.data for record in records}),
        ("versions of the code", {record.environment.code for record in records}),
        ("protocols", {(r.spec.momentum, r.spec.batch_size, r.spec.epochs) for r in records}),
    ):
        if len(values) > 1:
            faults.append(
                f"the {len(records)} records come from {len(values)} {what} and do not belong in one chart; make them "
                f"again with 'hw4 sweep --fresh' or report them from separate folders"
            )
    by_setting: dict[tuple[int, float], list[TextCNNRecord]] = {}
    for record in sorted(records, key=lambda r: (r.stride, -r.spec.learning_rate, r.trial)):
        by_setting.setdefault((record.stride, record.spec.learning_rate), []).append(record)
    rates = {rate for _, rate in by_setting}
    wanted = set(range(max(record.trial for record in records) + 1))
    for (stride, rate), group in by_setting.items():
        absent = sorted(wanted - {record.trial for record in group})
        if absent and rate == max(rates):
            faults.append(
                f"the sweep is incomplete: stride {stride} at learning rate {rate:g} lacks trial {absent[0]} and "
                f"{len(absent) - 1} others; 'hw4 sweep' makes what is missing"
            )
    if faults and not anyway:
        raise RecordError(f"{faults[0]}, or draw the chart all the same with 'hw4 report --anyway'")
    every = [Bar(stride, rate, tuple(group)) for (stride, rate), group in by_setting.items()]
    bars = tuple(bar for bar in every if bar.learning_rate == max(rates))
    slower = [bar for bar in every if bar.learning_rate < max(rates)]
    data, spec, n = records[0].data, records[0].spec, len(wanted)
    caption = (
        f"{data.title}, {data.n_train:,} training and {data.n_test:,} test questions, vectors: {data.vectors}, data "
        f"sha256 {data.checksum[:12]}; SGD, learning rate {max(rates):g}, momentum {spec.momentum:g}, batch "
        f"{spec.batch_size}, {spec.epochs} epochs; {n} trial{'s' if n > 1 else ''} per stride"
    )
    comparisons, pairs_table = _pairwise(bars)
    tables = (("", *_bars_table((*bars, *slower))), *pairs_table)
    return Summary(data, bars, caption, tables, (*map(_warning, faults), *_answer(data, bars, slower), *comparisons))


def _warning(fault: str) -> str:
    return f"Drawn although {fault.partition(';')[0]}: what follows may compare more than strides."


def _bars_table(bars: Sequence[Bar]) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """One row for each stride and learning rate."""
    header = (
        "stride", "learning rate", "inputs read", "mean of the converged", "mean of all, a diverged trial as 0",
        "lowest to highest", "diverged",
    )  # fmt: skip
    rows = [
        (
            str(bar.stride), f"{bar.learning_rate:g}", f"{len(input_coverage(bar.stride))} of 96", show(bar.mean),
            f"{sum(bar.accuracies) / len(bar.records):.3f}",
            f"{min(bar.accuracies):.3f} to {max(bar.accuracies):.3f}" if bar.accuracies else "-",
            f"{bar.diverged} of {len(bar.records)}",
        )
        for bar in bars
    ]  # fmt: skip
    return header, rows


def _matrices(first: Bar, second: Bar, *, independent: bool = False) -> tuple[np.ndarray, np.ndarray] | None:
    """Right answers (trials, questions) of both, trial by trial of equal seeds.

    With ``independent`` the first half of one's trials stands beside the second half of the other's: no seed twice.

    Trials that diverged on either side are left out; None when fewer than two are left or the questions differ.
    """
    other = {record.trial: record for record in second.records}
    half = (max(other, default=0) + 1) // 2
    pairs = [
        (record.correct, other[partner].correct)
        for record in first.records
        if (partner := record.trial + half * independent) in other and (record.trial < half or not independent)
    ]
    both = [(a, b) for a, b in pairs if a is not None and b is not None]
    if len(both) < 2 or len({len(right) for pair in both for right in pair}) > 1:
        return None
    return np.array([a for a, _ in both]), np.array([b for _, b in both])


def _pairwise(
    bars: Sequence[Bar],
) -> tuple[list[str], list[tuple[str, Sequence[str], Sequence[Sequence[str]]]]]:
    """Every two strides compared per trial and per question, Holm-corrected over all, in sentences and a table."""
    found = [(a, b, m) for a, b in combinations(bars, 2) if (m := _matrices(a, b)) is not None]
    if not found:
        return [], []
    results = [compare_crossed(*matrices) for _, _, matrices in found]
    adjusted = holm([result.p_value for result in results])
    rows, decided = [], []
    for (a, b, _), result, p in zip(found, results, adjusted, strict=True):
        verdict = "not decided" if p > LEVEL else "lower" if result.difference.estimate < 0 else "higher"
        gap = show(result.difference, sign=True)
        rows.append((f"{a.stride} against {b.stride}", gap, f"{p:.3g}", verdict))
        if verdict != "not decided":
            decided.append(f"{a.stride} {'below' if verdict == 'lower' else 'above'} {b.stride}")
    sentences = [
        f"Of {len(rows)} pairs of strides that can be compared, {len(decided)} differ at a family-wise level of "
        f"{LEVEL:g} ({'; '.join(decided) or 'none'}), paired per trial and per question with Holm's correction; the "
        f"others are not decided."
    ]
    same = [bar for bar in bars if input_coverage(bar.stride) == input_coverage(bars[-1].stride)]
    if len(same) > 1 and (control := _matrices(same[0], same[1], independent=True)) is not None:
        noise = compare_crossed(*control).difference
        verdict = "includes" if noise.compared_with(0) == "not decided" else "does not include"
        sentences.append(
            f"Strides {same[0].stride} and {same[1].stride} compute the same function, so at independent seeds their "
            f"difference measures noise alone: {show(noise, sign=True)}, which {verdict} zero; at equal seeds their "
            f"answers are {'the same' if _same_answers(same[0], same[1]) else 'not the same'} on every question."
        )
    return sentences, [("Pairs of strides", ("strides", "difference in accuracy", "Holm p", "verdict"), rows)]


def _same_answers(first: Bar, second: Bar) -> bool:
    return [record.correct for record in first.records] == [record.correct for record in second.records]


def _answer(data: QuestionIdentity, bars: Sequence[Bar], slower: Sequence[Bar]) -> list[str]:
    """What the bars show, against the baselines and with their failures."""
    sentences = []
    best = max((bar for bar in bars if bar.mean is not None), key=lambda bar: bar.mean.estimate, default=None)  # type: ignore[union-attr]
    if best is not None:
        sentences.append(
            f"Of the strides with converged trials, {best.stride} is the most accurate in the mean, "
            f"{show(best.mean)}. A logistic regression on the same vectors reaches {data.logistic_accuracy:.3f}, the "
            f"majority class {data.majority_accuracy:.3f}."
        )
    sentences.append(
        "The strides of convolution and pooling multiply, so large ones leave most of the vector unread: "
        + ", ".join(f"stride {bar.stride} reads {len(input_coverage(bar.stride))}" for bar in bars)
        + " of the 96 numbers. The chart shows how much of the question is read as much as it shows the stride."
    )
    for bar in bars:
        if bar.diverged:
            words = (
                f"At stride {bar.stride} {bar.diverged} of {len(bar.records)} trials diverged at learning rate "
                f"{bar.learning_rate:g}; they have no accuracy."
            )
            stable = next((s for s in slower if s.stride == bar.stride and not s.diverged), None)
            if stable is not None:
                words += f" At {stable.learning_rate:g} all train, to a test accuracy of {show(stable.mean)}."
            sentences.append(words)
    error = (0.25 / data.n_test) ** 0.5
    sentences.append(
        f"Intervals of single bars are over trials only; the {data.n_test} test questions, which all models share, add "
        f"a standard error of up to {error:.3f} to every bar at once."
    )
    return sentences


def chart(summary: Summary) -> Figure:
    """Draw the bar chart: stride on x, accuracy on y, a dot for every trial, baselines as lines."""
    canvas = Figure(figsize=(9, 5.4), dpi=DPI, layout="constrained")
    ax = canvas.subplots()
    spread = np.random.default_rng(0)
    for x, bar in enumerate(summary.bars):
        if bar.mean is not None:
            error = None
            if bar.mean.n > 1:
                error = [[bar.mean.estimate - max(bar.mean.low, 0)], [min(bar.mean.high, 1) - bar.mean.estimate]]
            ax.bar(x, bar.mean.estimate, width=0.6, color="#56B4E9", yerr=error, capsize=5, ecolor="#222222")
            offsets = spread.uniform(-0.18, 0.18, len(bar.accuracies))
            ax.plot(x + offsets, bar.accuracies, ".", color="#0072B2", markersize=6, zorder=3)
        if bar.diverged:
            top = max(bar.accuracies, default=0)
            ax.text(x, top + 0.02, f"{bar.diverged} of {len(bar.records)}\ndiverged", ha="center", color="#A03000")
    ax.axhline(summary.data.logistic_accuracy, color="#D55E00", linestyle="--", label="logistic regression")
    ax.axhline(summary.data.majority_accuracy, color="#444444", linestyle=":", label="majority class")
    labels = [f"{bar.stride}\nreads {len(input_coverage(bar.stride))} of 96" for bar in summary.bars]
    ax.set_xticks(range(len(labels)), labels)
    highest = max([summary.data.logistic_accuracy, *(value for bar in summary.bars for value in bar.accuracies)])
    ax.set(xlabel="stride of convolution and pooling", ylabel="test accuracy (share of questions)")
    ax.set_ylim(0, 1.2 * highest)  # room for the legend above every line
    ax.set_xlim(-0.6, len(labels) - 0.4)
    ax.legend(loc="upper right")
    ax.grid(axis="y", alpha=0.3)
    note = f"{summary.caption}; bar: mean of the trials that converged, whisker: 95% t interval over them, dot: trial"
    canvas.supxlabel("\n".join(textwrap.wrap(note, 130)), fontsize=8, color="#444444")
    return canvas


def chart_alt_text(summary: Summary) -> str:
    """Describe the chart for those who cannot see it."""
    values = ", ".join(
        f"{bar.stride}: {'all diverged' if bar.mean is None else f'{bar.mean.estimate:.2f}'}" for bar in summary.bars
    )
    return f"Bar chart of mean test accuracy against stride. {values}. The first table gives the numbers."

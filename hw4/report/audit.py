"""The audit's table, figure and sentences, from its record alone."""

import statistics
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hw4.files import AUDIT
from hw4.records import AuditedRun, AuditRecord, Layers, read_record
from hw4.report import notebook
from hw4.report.drawing import DPI, error_bar, over_passes, plain_log, style
from hw4.report.entry import CHOICE, Entry, again, data_words
from hw4.report.words import passes, plural, show
from hw4.specs import TRIALS
from hw4.stats import Interval, mean_interval, paired_difference, paired_ratio
from hw4.studies import AUDIT_SEEDS, NOTEBOOK_SEEDS, SETTLED_PASS

WAYS = {
    "right": "right",
    "first parameter": "first parameter's gradient only",
    "whole pass": "displacement over a whole pass",
    "divided twice": "divided by the learning rate once more",
    "evaluation mode": "evaluation mode",
    "notebook": "all four, as in the notebook",
}
"""The ways of measuring smoothness, and what figures call them."""

EXPLODED = 100_000
"""A pixel above this never varies in training: if one of n images differs by a grey level, std is at least 1/sqrt(n),
and 255 sqrt(n) stays below it for any set here. If none does, a single grey level in a test image makes 1,000,000."""

HEADER = ("what", "the notebook's way", "done right", "what the flaw changes")
Row = tuple[str, str, str, str]  # a flaw, as in ``HEADER``


def level(run: AuditedRun, way: str) -> float:
    """Smoothness in one way, averaged over passes 3 (or the last of a shorter run) to the last."""
    values = run.smoothness[way]
    return statistics.fmean(values[min(SETTLED_PASS, len(values)) - 1 :])


def ratio(record: AuditRecord, way: str) -> Interval:
    """Smoothness with BatchNorm over that without, in one way, paired by seed."""
    pairs = zip(*_arms(record), strict=True)
    return paired_ratio([(level(normed, way), level(plain, way)) for plain, normed in pairs])


def rows(record: AuditRecord) -> list[Row]:
    """The table: one row for each flaw."""
    flaws = (_curve_rows, _evaluation_rows, _stride_rows, _one_seed_rows, _question_rows)
    return [row for flaw in flaws for row in flaw(record)]


def _arms(record: AuditRecord) -> tuple[list[AuditedRun], list[AuditedRun]]:
    """The runs without and with BatchNorm, by seed."""
    plain, normed = ([run for run in record.runs if run.variant == name] for name in ("pool", "pool-batchnorm"))
    return plain, normed


def _curve_rows(record: AuditRecord) -> Iterator[Row]:
    right, (plain, normed) = show(ratio(record, "right"), digits=2), _arms(record)
    for way, label in list(WAYS.items())[1:]:
        pairs = [[(level(run, way), level(run, "right")) for run in runs] for runs in (plain, normed)]
        inflation = " and ".join(f"{paired_ratio(each).estimate:.2g}" for each in pairs)
        what = f"Smoothness with BatchNorm over that without: {label}"
        yield what, show(ratio(record, way), digits=2), right, f"values times {inflation} (without, with)"
    before, after = (statistics.fmean(run.train_loss[place] for run in plain) for place in (-2, -1))
    lag = statistics.fmean(run.train_loss[-2] - run.train_loss[-1] for run in record.runs)
    what = f"Train loss after {passes(len(plain[0].train_loss) - 1)}, without BatchNorm: logged at the start of a pass"
    yield what, f"{before:.3f}", f"{after:.3f}", f"the last pass is missing: {lag:+.3f} on average over both networks"


def _evaluation_rows(record: AuditRecord) -> Iterator[Row]:
    pixels = record.pixels
    theirs, ours, training = (record.evaluation[f"{what}_seconds"] for what in ("notebook", "right", "pass"))
    yield (
        "Largest standardised test pixel: std + 1e-6",
        f"{pixels['largest_notebook']:,.0f}",
        f"{pixels['largest_right']:.1f}",
        f"{pixels['above_100_notebook']:.0f} of {record.data.n_test:,} test images have a pixel above 100; test loss "
        f"{pixels['test_loss_notebook']:.3f} against {pixels['test_loss_right']:.3f}, accuracy "
        f"{pixels['test_accuracy_notebook']:.3f} against {pixels['test_accuracy_right']:.3f} (one seed)",
    )
    if drawn := sorted(record.drawn):
        yield (
            f"The same over {plural(len(drawn), 'subset')}, each a tenth of the training images: median, smallest to "
            f"largest",
            f"{statistics.median(drawn):,.0f}, {drawn[0]:,.0f} to {drawn[-1]:,.0f}",
            "at most 20, by its rule",
            f"{_exploded(record)} of {len(drawn)} have one above {EXPLODED:,}: a pixel that never varies in training",
        )
    yield (
        "Processor seconds of an evaluation: four passes forward, one batch each",
        f"{theirs:.2f}",
        f"{ours:.2f}",
        f"times {theirs / ours:.1f}; a training pass takes {training:.2f}",
    )


def _exploded(record: AuditRecord) -> int:
    """How many of the drawn subsets leave a pixel that does not vary at all, which std + 1e-6 then multiplies."""
    return sum(largest > EXPLODED for largest in record.drawn)


def _stride_rows(record: AuditRecord) -> Iterator[Row]:
    for stride in (stride for stride in record.strides if stride.diverged):
        yield (
            f"Mean accuracy at stride {stride.stride}: lost runs averaged in as class 0's share",
            f"{stride.notebook:.3f}",
            show(mean_interval(stride.trained)) if stride.trained else "none",
            f"{stride.diverged} of {len(stride.trained) + stride.diverged} runs diverged and "
            f"{'has' if stride.diverged == 1 else 'have'} no accuracy",
        )
    wide = [stride.trained for stride in record.strides if stride.stride in {100, 500}]
    if len(wide) == 2 and all(wide):
        yield (
            "Strides 100 and 500, shown as two",
            " and ".join(f"{statistics.fmean(values):.3f}" for values in wide),
            "one function",
            "the two read the same positions, so any gap between their bars is noise of the seeds",
        )


def _one_seed_rows(record: AuditRecord) -> Iterator[Row]:
    plain, normed = ([run.test_accuracy[-1] for run in runs] for runs in _arms(record))
    if len(plain) > 1:
        gap = show(paired_difference(list(zip(normed, plain, strict=True))), digits=4, sign=True)
        spread = max(map(statistics.stdev, (plain, normed)))
        changes = f"seeds alone scatter by {spread:.4f} (standard deviation)"
        yield "Test accuracy gained by BatchNorm: one seed", f"{normed[0] - plain[0]:+.4f}", gap, changes


def _question_rows(record: AuditRecord) -> Iterator[Row]:
    read = record.questions
    if read is None:
        return
    intact = f"{read.questions - read.cut - read.mangled}"
    what = "Questions read as they are: cut at a colon, bytes printed"
    yield what, intact, f"{read.questions}", f"{read.cut} cut, {read.mangled} otherwise mangled"
    wrong, right = read.stride5_notebook, read.stride5_right
    whole = len(wrong) == len(right) == TRIALS  # else some diverged, and nobody knows which stand beside which
    gap = paired_difference(list(zip(wrong, right, strict=True))) if whole else None
    yield (
        "Accuracy at stride 5 on such questions",
        show(mean_interval(wrong) if wrong else None),
        show(mean_interval(right) if right else None),
        f"{show(gap, digits=4, sign=True)}; logistic regression {read.logistic_notebook:.3f} against "
        f"{read.logistic_right:.3f}",
    )


def answers(record: AuditRecord) -> Iterator[str]:
    """What the audit says."""
    sides = {
        "below": "smoother",
        "above": "rougher",
        "not decided": "neither smoother nor rougher as far as is decided",
    }
    right, theirs = ratio(record, "right"), ratio(record, "notebook")
    verdicts = right.compared_with(1), theirs.compared_with(1)
    side, their_side = (sides[verdict] for verdict in verdicts)
    same, decided = side == their_side, "not decided" not in verdicts
    moral = "the order is the same, the numbers are not" if same else "the flaws change the answer"
    (plain, plain_right), (normed, normed_right) = (
        [statistics.fmean(level(run, way) for run in runs) for way in ("notebook", "right")] for runs in _arms(record)
    )
    yield (
        f"The notebook's smoothness without BatchNorm is {plain:.3g} where the definition gives {plain_right:.3g}, "
        f"with it {normed:.3g} where it gives {normed_right:.3g}. By the notebook's way the network with BatchNorm is "
        f"{their_side} ({show(theirs, digits=2)}), measured right it is {side} ({show(right, digits=2)}); "
        f"{moral if decided else 'whether the flaws change the order is not decided'}."
    )
    if drawn := record.drawn:
        yield (
            f"The notebook's largest standardised test pixel depends on which training images are drawn: from "
            f"{min(drawn):,.0f} to {max(drawn):,.0f} over {plural(len(drawn), 'random subset')}, above {EXPLODED:,} in "
            f"{_exploded(record)} of them. One number for this flaw is that of one subset."
        )
    yield from _answer_passes(record)
    lost = [stride for stride in record.strides if stride.diverged]
    if gone := sum(stride.diverged for stride in lost):
        where, look = ", ".join(str(stride.stride) for stride in lost), "it looks" if gone == 1 else "they look"
        yield (
            f"In the sweep {plural(gone, 'run')} diverged, at stride {where}; averaged in, {look} like a property of "
            f"the stride."
        )
    yield "Discarded ReLUs change nothing here: the exercise's text CNN asks for none."
    if record.notebook is None:
        yield (
            "The numbers that the notebook printed are not held against ours here: that takes FashionMNIST and TREC, "
            "with 'hw4 audit --data real'."
        )


def _answer_passes(record: AuditRecord) -> Iterator[str]:
    """What a strided pass takes of a pooled one, in plain PyTorch and in hw4."""
    if not record.passes:
        return
    plain, ours = get_args(Layers)
    seconds = {(each.layers, each.variant): [time.cpu_seconds for time in each.times] for each in record.passes}

    def times(first: tuple[Layers, str], second: tuple[Layers, str]) -> str:
        return f"{show(paired_ratio(list(zip(seconds[first], seconds[second], strict=True))), digits=2)} times"

    yield (
        f"A training pass of the strided network takes {times((plain, 'stride'), (plain, 'pool'))} the processor time "
        f"of the pooled one's in plain PyTorch and {times((ours, 'stride'), (ours, 'pool'))} with hw4's networks; with "
        f"pooling plain PyTorch takes {times((plain, 'pool'), (ours, 'pool'))} hw4's time, with stride "
        f"{times((plain, 'stride'), (ours, 'stride'))} ({plural(len(seconds[plain, 'pool']), 'round')} in turn on one "
        f"machine, the intervals are of rounds, not seeds)."
    )


def figure(record: AuditRecord) -> Figure:
    """Draw curves, ratios flaw by flaw, and the sweep's means."""
    canvas = Figure(figsize=(14, 4.8), dpi=DPI, layout="constrained")
    curves, ratios, strides = canvas.subplots(1, 3)
    _draw_curves(curves, record)
    _draw_ratios(ratios, record)
    _bars(strides, record)
    for ax in (curves, strides):
        ax.grid(alpha=0.3)
        ax.legend(fontsize=8)
    return canvas


def _draw_curves(ax: Axes, record: AuditRecord) -> None:
    """Smoothness over passes, by the notebook's way and done right."""
    for runs in _arms(record):
        for way, alpha, words in (("notebook", 0.45, "the notebook"), ("right", 1.0, "done right")):
            means = [statistics.fmean(values) for values in zip(*(run.smoothness[way] for run in runs), strict=True)]
            line = {**style(runs[0].variant), "alpha": alpha, "markersize": 4}
            ax.plot(range(1, len(means) + 1), means, label=f"{runs[0].label}, {words}", **line)
    over_passes(ax, "Effective smoothness", "what is called smoothness")
    ax.set_yscale("log")
    plain_log(ax.yaxis)
    low, high = ax.get_ylim()
    ax.set_ylim(low, 2.2 * high)  # room for the legend


def _draw_ratios(ax: Axes, record: AuditRecord) -> None:
    """The ratio with BatchNorm over without, way by way."""
    for y, (way, label) in enumerate(WAYS.items()):
        found, color = ratio(record, way), "#0072B2" if way == "right" else "#D55E00"
        ax.errorbar(found.estimate, -y, xerr=error_bar(found), fmt="o", capsize=3, color=color)
        place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        ax.annotate(textwrap.fill(label, 26), (0, -y), xytext=(4, 17), fontsize=8, va="center", **place)
    ax.axvline(1, color="#444444", linestyle=":")
    ax.set(title="With BatchNorm over without", xlabel="ratio of smoothness", xscale="log", yticks=[])
    ax.set_ylim(-len(WAYS) + 0.5, 0.7)
    plain_log(ax.xaxis)


def _bars(ax: Axes, record: AuditRecord) -> None:
    """The sweep's means in both ways, side by side."""
    places, strides = range(len(record.strides)), record.strides
    averaged, trained = ([x + shift for x in places] for shift in (-0.2, 0.2))
    means = [statistics.fmean(stride.trained) if stride.trained else 0 for stride in strides]
    flawed: dict[str, Any] = {"color": "#D55E00", "hatch": "//", "label": "lost runs averaged in, the notebook"}
    ax.bar(averaged, [stride.notebook for stride in strides], 0.4, alpha=0.7, **flawed)
    ax.bar(trained, means, 0.4, color="#0072B2", label="runs that trained")
    above: dict[str, Any] = {"xytext": (0, 3), "textcoords": "offset points", "ha": "center", "fontsize": 8}
    for x, stride in zip(averaged, strides, strict=True):
        if stride.diverged:
            ax.annotate(f"{stride.diverged} lost", (x, stride.notebook), **above)
    ax.set_xticks(places, [str(stride.stride) for stride in strides])
    ax.set(title="Text CNN: mean accuracy", xlabel="stride", ylabel="share of test questions")


def as_text(record: AuditRecord) -> str:
    """The table for a terminal."""
    lines = []
    for row in rows(record):
        lines += [row[0], *(f"    {name}: {cell}" for name, cell in zip(HEADER[1:], row[1:], strict=True))]
    if record.notebook is not None:
        lines += notebook.answers(notebook.reproduce(record.notebook))
    return "\n".join(lines).replace("\u00a0", " ")  # which terminals of few letters have not


def load(folder: Path, _anyway: bool = False) -> list[Entry]:
    """The report's parts on a folder's audit."""
    path = folder / AUDIT / "audit.json"
    return entries(read_record(path, AuditRecord)) if path.exists() else []


def entries(record: AuditRecord) -> list[Entry]:
    """The report's parts on an audit."""
    printed, seeds = record.notebook, len({run.seed for run in record.runs})
    caption = (
        f"{record.data.title}, {record.data.n_train:,} training images, {record.questions_data.title}; learning rate "
        f"{record.learning_rate:g}, {plural(seeds, 'seed')}; the flawed ways are the notebook's, everything else is "
        f"hw4's"
    )
    repeats = len({run.seed for run in printed.repeated}) if printed else NOTEBOOK_SEEDS
    about: dict[str, Any] = {
        "environments": [record.environment],
        "data": [data_words(record.data), data_words(record.questions_data)],
        "rerun": again(
            "audit",
            data=(CHOICE[record.data.name], None),
            seeds=(seeds, AUDIT_SEEDS),
            notebook_seeds=(repeats, NOTEBOOK_SEEDS),
            passes=(len(record.runs[0].train_loss) - 1, 10),
        ),
    }
    about_ratios = "Each flaw on hw4's own models and data; ratios have 95% intervals over paired seeds"
    flaws = Entry(
        title="The solved notebook, audited",
        question="What did the homework's solved notebook report, and what does each of its flaws change?",
        answer=list(answers(record)),
        tables=[(about_ratios, HEADER, rows(record))],
        file_name="audit.png",
        figure=figure(record),
        alt="Smoothness over passes by the notebook's way and done right, the ratio with BatchNorm over without for "
        "each flaw, and the sweep's means with and without lost runs. The table that follows gives the values.",
        caption=caption,
        **about,
    )
    return [flaws, *([notebook.entry(printed, **about)] if printed else [])]

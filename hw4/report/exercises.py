"""Exercises 1 and 3, and every other comparison of two variants: records in, figures, tables and words out."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hw4.errors import RecordError
from hw4.files import RECORDS
from hw4.records import ConvNetRecord, PassRow, Store
from hw4.report.drawing import DPI, legend_below, plain_log, style
from hw4.report.entry import CHOICE, Entry, again, data_words
from hw4.report.words import SETTLED_PASS, basis, bounded, passes, plural, seen, settled_span, show, verdict
from hw4.specs import DEFAULT_SUBSET, EXERCISES, SEEDS, ConvNetSpec
from hw4.stats import mean_interval, paired_difference, paired_ratio

OfRun = Callable[[ConvNetRecord], float | None]
"""A number of a run, or None where the run has no usable one."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A number of a run for tables, its curve over passes for figures where it has one, and how either is written.

    ``upper`` is the largest value that there can be; the smallest is 0. A ``log`` scale suits losses, which fall by
    factors; ``zero`` starts a linear axis at zero; ``trained`` fits a linear axis to what follows the first pass, for
    beside the leap from chance nothing else would be seen. Two networks are compared by a ``ratio``, or a difference.
    """

    name: str
    of_run: OfRun
    digits: int = 3
    gap_digits: int = 3
    upper: float = math.inf
    curve: Callable[[PassRow], float | None] | None = None
    title: str = ""
    unit: str = ""
    scale: Literal["log", "zero", "trained"] = "log"
    ratio: bool = False


def settled_smoothness(record: ConvNetRecord) -> float | None:
    """Mean smoothness from pass 3 (or the last pass of a shorter run) to the last; None when a reading is missing."""
    start = min(SETTLED_PASS, record.spec.passes)
    readings = [row.smoothness for row in record.rows if row.completed >= start]
    known = [reading for reading in readings if reading is not None]
    return sum(known) / len(known) if known and len(known) == len(readings) else None


def seconds_per_pass(record: ConvNetRecord) -> float | None:
    """Mean elapsed seconds of a training pass; None when the clock is too coarse to see any."""
    return statistics.fmean(time.wall_seconds for time in record.times) or None


def cpu_seconds_per_pass(record: ConvNetRecord) -> float | None:
    """Mean processor seconds of a training pass; None when the clock is too coarse to see any."""
    return statistics.fmean(time.cpu_seconds for time in record.times) or None


def _scored(part: str, what: str) -> Measure:
    """A loss or an accuracy after the last pass, and its curve."""
    field, loss = f"{part}_{what}", what == "loss"
    images = {"train": "training", "test": "test"}[part]
    return Measure(
        name=f"{part} {what}",
        of_run=lambda run: getattr(run.last, field),
        gap_digits=3 if loss else 4,
        upper=math.inf if loss else 1,
        curve=lambda row: getattr(row, field),
        title=f"{part.capitalize()} {what}",
        unit="mean logistic loss (nats)" if loss else f"share of {images} images",
        scale="log" if loss else "trained",
    )


MEASURES = {
    measure.name: measure
    for measure in (
        *(_scored(part, what) for part in ("train", "test") for what in ("loss", "accuracy")),
        Measure(
            name="smoothness",
            of_run=settled_smoothness,
            digits=2,
            gap_digits=2,
            curve=lambda row: row.smoothness,
            title="Effective local smoothness",
            unit="||change of gradient|| / ||update||",
            scale="zero",
            ratio=True,
        ),
        Measure(name="seconds per pass", of_run=seconds_per_pass, ratio=True),
        Measure(name="processor seconds per pass", of_run=cpu_seconds_per_pass, ratio=True),
    )
}
"""What exercises may show, by name."""


@dataclass(frozen=True)
class Arm:
    """All runs of one architecture in one setting, by seed."""

    label: str
    variant: str
    runs: dict[int, ConvNetRecord]

    @property
    def finished(self) -> dict[int, ConvNetRecord]:
        """The runs that did not diverge, by seed."""
        return {seed: run for seed, run in self.runs.items() if not run.diverged}

    @property
    def diverged(self) -> int:
        """How many runs diverged."""
        return len(self.runs) - len(self.finished)

    @property
    def lost(self) -> str:
        """How many runs diverged, of how many, in words."""
        return f"{self.diverged} of {len(self.runs)}"

    def values(self, measure: OfRun) -> dict[int, float]:
        """A measure of the runs that did not diverge, by seed, where it has a value."""
        return {seed: value for seed, run in self.finished.items() if (value := measure(run)) is not None}

    def cell(self, measure: OfRun, *, digits: int = 3, upper: float = math.inf, lacking: str = "-") -> str:
        """The measure's mean for a table: over how many runs where some have no value, ``lacking`` where all have none.

        ``upper`` is the largest value that the measure can have; the smallest is 0.
        """
        values = list(self.values(measure).values())
        if not values:
            return lacking if self.finished else "-"
        text = show(bounded(mean_interval(values), upper), digits=digits)
        return text if len(values) == len(self.finished) else f"{text} ({len(values)} of {len(self.finished)} runs)"


@dataclass(frozen=True)
class Section:
    """One exercise in one setting: two arms, the first of which the second is compared with."""

    exercise: str
    setting: ConvNetSpec
    arms: tuple[Arm, Arm]

    @property
    def title(self) -> str:
        """Heading of the section."""
        return EXERCISES[self.exercise].title

    @property
    def measures(self) -> list[Measure]:
        """What its table shows."""
        return [MEASURES[name] for name in EXERCISES[self.exercise].measures]

    @property
    def panels(self) -> list[tuple[Measure, Callable[[PassRow], float | None]]]:
        """What its figure draws: those of its measures that have a curve."""
        return [(measure, measure.curve) for measure in self.measures if measure.curve is not None]

    @property
    def header(self) -> tuple[str, ...]:
        """First row of its table."""
        spans = {"smoothness": f"smoothness {settled_span(self.setting.passes)}"}
        return ("model", *(spans.get(measure.name, measure.name) for measure in self.measures), "diverged")

    @property
    def rows(self) -> tuple[tuple[str, ...], ...]:
        """The other rows of its table."""
        return tuple((arm.label, *(self._cell(arm, each) for each in self.measures), arm.lost) for arm in self.arms)

    def _cell(self, arm: Arm, measure: Measure) -> str:
        lacking = self.lacking if measure.name == "smoothness" else "-"
        return arm.cell(measure.of_run, digits=measure.digits, upper=measure.upper, lacking=lacking)

    @property
    def lacking(self) -> str:
        """What a table says where there is no smoothness."""
        rows = [row for arm in self.arms for run in arm.runs.values() for row in run.rows]
        return "not usable" if any(row.readings for row in rows) else "not measured"

    @cached_property
    def answer(self) -> tuple[str, ...]:
        """The answer in words."""
        return tuple(ANSWERS.get(self.exercise, _compared)(self))

    @property
    def setting_words(self) -> str:
        """What differs from the homework's setting, as in "learning rate 0.1, 2 passes"; "" where nothing does."""
        setting, usual = self.setting, ConvNetSpec.build(data=self.setting.data)
        said = {
            "learning_rate": f"learning rate {setting.learning_rate}",
            "batch_size": f"batch {setting.batch_size}",
            "passes": passes(setting.passes),
            "subset": f"a share of {setting.subset} of the training images",
            "norm_mode": f"{setting.norm_mode} statistics",
            "chunk_size": f"chunks of {setting.chunk_size} images",
        }
        differs = [words for field, words in said.items() if getattr(setting, field) != getattr(usual, field)]
        return ", ".join([*(["digits"] if setting.data == "digits" else []), *differs])

    @property
    def setting_key(self) -> str:
        """The same for file names, as in "lr0.1_passes2"; "" for the homework's setting."""
        data, _, *settings, _ = self.setting.key.split("_")
        return "_".join([*([data] if data == "digits" else []), *settings])

    @property
    def seeds(self) -> list[int]:
        """Every seed that either arm has."""
        return sorted({*self.arms[0].runs, *self.arms[1].runs})

    @property
    def any_record(self) -> ConvNetRecord:
        """One of the section's records, for what they all share."""
        return next(run for arm in self.arms for run in arm.runs.values())

    @property
    def caption(self) -> str:
        """What was run, as it stands under the figure."""
        data, setting = self.any_record.data, self.setting
        return (
            f"{data.title}, {data.n_train:,} training and {data.n_test:,} test images, data sha256 "
            f"{data.checksum[:12]}; SGD, learning rate {setting.learning_rate:g}, batch {setting.batch_size}, "
            f"{passes(setting.passes)}; {plural(len(self.seeds), 'seed')}"
        )


def sections(records: Sequence[ConvNetRecord]) -> list[Section]:
    """Group records into one section per exercise and setting.

    An exercise appears for a setting when both its variants are there. Raises RecordError when runs of one setting saw
    different data or were computed by different code, or when nothing makes a whole exercise.
    """
    found = []
    for setting in dict.fromkeys(record.spec.setting for record in records):
        group = [record for record in records if record.spec.setting == setting]
        _require_one_source(setting, group)
        for exercise, asked in EXERCISES.items():
            first, second = (_arm(group, variant) for variant in asked.variants)
            if first is not None and second is not None:
                found.append(Section(exercise, setting, (first, second)))
    if not found:
        raise RecordError("no exercise has records of both its architectures; make them with 'hw4 run'")
    return found


def _require_one_source(setting: ConvNetSpec, group: Sequence[ConvNetRecord]) -> None:
    for what, values in (
        ("data sets", {record.data.checksum for record in group}),
        ("versions of the code", {record.environment.code for record in group}),
    ):
        if len(values) > 1:
            raise RecordError(
                f"the records of {setting.data} come from {len(values)} {what} and cannot share a figure; make them "
                f"again with 'hw4 run --fresh' or report them from separate folders"
            )


def _arm(group: Sequence[ConvNetRecord], variant: str) -> Arm | None:
    mine = [record for record in group if record.spec.variant == variant]
    # A run that was made twice, for more readings the second time, counts once, with those.
    runs = {r.spec.seed: r for r in sorted(mine, key=lambda r: (r.spec.directions, r.spec.noise_floor))}
    return Arm(mine[0].spec.label, variant, dict(sorted(runs.items()))) if runs else None


def _answer_smoothness(section: Section) -> list[str]:
    """Exercise 1 in words."""
    plain, normed = section.arms
    answer = [*_diverged(plain, normed)]
    pairs = _pairs(normed, plain, settled_smoothness)
    if pairs:
        answer += [_smoother(pairs, section.setting, len(section.seeds))]
        answer += [
            "Effective smoothness is how much the gradient over all training images changes along one training step, "
            "divided by the length of the step: where it is small, longer steps are safe."
        ]
        answer += _room(pairs, section.setting.learning_rate)
    elif plain.finished.keys() & normed.finished.keys():
        answer.append(f"Smoothness is {section.lacking} in both networks at any seed, so it cannot be compared.")
    answer += [*_quality(plain, normed), *_before_training(plain, normed)]
    return [*answer, *_compare(section, "train loss"), *_compare(section, "test accuracy")]


def _answer_pooling(section: Section) -> list[str]:
    """Exercise 3 in words."""
    pooled, strided = section.arms
    answer = [*_diverged(pooled, strided), *_compare(section, "train loss")]
    return [*answer, *_compare(section, "test accuracy"), *_quicker(pooled, strided), *_price(pooled, strided)]


def _compared(section: Section) -> list[str]:
    """Any exercise in words: its second arm beside its first, measure by measure."""
    answer = _diverged(*section.arms)
    for measure in section.measures:
        answer += _compare(section, measure.name)
    return [*answer, *(_quality(*section.arms) if MEASURES["smoothness"] in section.measures else [])]


ANSWERS: dict[str, Callable[[Section], list[str]]] = {"smoothness": _answer_smoothness, "pooling": _answer_pooling}
"""The exercises whose words are about more than their measures."""


def _smoother(pairs: Sequence[tuple[float, float]], setting: ConvNetSpec, seeds: int) -> str:
    """Whether BatchNorm makes the objective smoother; pairs hold the smoothness with and without it."""
    ratio = paired_ratio(pairs)
    finding = {
        "below": "BatchNorm makes the objective smoother",
        "above": "BatchNorm makes the objective less smooth here",
        "not decided": "Whether BatchNorm makes the objective smoother is not decided by these runs",
        "one seed": seen(seeds),
    }[verdict(ratio, 1)]
    return (
        f"{finding}: along each network's own training steps the gradient changes {show(ratio, digits=2)} times as "
        f"fast with BatchNorm as without (effective smoothness {settled_span(setting.passes)}{basis(ratio.n, seeds)})."
    )


def _room(pairs: Sequence[tuple[float, float]], rate: float) -> list[str]:
    """What the smoothness with and without BatchNorm would mean for learning rates."""
    ratio = paired_ratio(pairs)
    normed, plain = (statistics.fmean(values) for values in zip(*pairs, strict=True))
    conclusion = {
        "below": f"So the smoother objective leaves room for learning rates larger by about the same factor, "
        f"{1 / ratio.estimate:.1f}: that is how smoothness would explain the larger learning rates that BatchNorm "
        f"allows, and 'hw4 claim' puts it to the test.",
        "above": "So by this measure BatchNorm leaves less room for large learning rates, not more.",
        "not decided": "Whether BatchNorm leaves room for larger learning rates is not decided by these numbers.",
        "one seed": "One seed cannot show whether BatchNorm leaves room for larger learning rates.",
    }[verdict(ratio, 1)]
    return [
        f"Gradient descent on an L-smooth function may use learning rates up to 1/L, and is stable below 2/L. With "
        f"the measured values in the place of L, 1/L is {1 / plain:.3g} without BatchNorm and {1 / normed:.3g} with "
        f"it; the learning rate used, {rate:g}, is {_percent(rate * plain)} of 1/L without BatchNorm and "
        f"{_percent(rate * normed)} with it. {conclusion} The measured value is local, along one minibatch update, "
        f"not a bound on the whole function."
    ]


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 else "less than 1%"


def _quality(*arms: Arm) -> list[str]:
    """A sentence on how good the readings themselves are: rounding, spread over directions, what was left out."""
    groups = [row.readings for arm in arms for run in arm.runs.values() for row in run.rows if row.readings]
    everything = [reading for readings in groups for reading in readings]
    if not everything:
        return []
    kept = [reading for reading in everything if reading.usable and reading.smoothness]
    lost = len(everything) - len(kept)
    directions = max(len(readings) for readings in groups)
    spreads = [
        statistics.stdev(reading.smoothness for reading in readings) / statistics.fmean(r.smoothness for r in readings)
        for readings in groups
        if len(readings) > 1 and any(reading.smoothness for reading in readings)
    ]
    spread = f", which scatter by {statistics.median(spreads):.0%} (median standard deviation)" if spreads else ""
    noise = [reading.noise_floor / reading.smoothness for reading in kept if reading.noise_floor is not None]
    if not kept:
        rounding = "No reading can be told from rounding error"
    elif len(noise) < len(kept):
        rounding = "How much of a reading is rounding was not measured"
    else:  # rounded up, for a bound that is rounded down is none
        bound = math.floor(max(noise) * 1e4 + 1) / 1e4
        rounding = f"Rounding error is below {bound:.2%} of every reading{' that was kept' if lost else ''}"
    count = (
        f"{lost} of {plural(len(everything), 'reading')} {'was' if lost == 1 else 'were'} too close to rounding error "
        f"to be used, and what rests on {'it' if lost == 1 else 'them'} is left out"
        if lost
        else f"all {len(everything):,} were kept"
    )
    return [f"Each value is the mean over {plural(directions, 'minibatch update')}{spread}. {rounding}; {count}."]


def _before_training(plain: Arm, normed: Arm) -> list[str]:
    pairs = _pairs(normed, plain, lambda run: run.rows[0].smoothness)
    if not pairs:
        return []
    ratio, seeds = paired_ratio(pairs), len(plain.runs.keys() | normed.runs.keys())
    finding = {
        "below": "Before training, the network with BatchNorm is already smoother",
        "above": "Before training, the network with BatchNorm is less smooth",
        "not decided": "Before training, it is not decided which network is smoother",
        "one seed": f"{seen(seeds)}, before training",
    }[verdict(ratio, 1)]
    return [f"{finding}: the smoothness with BatchNorm is {show(ratio, digits=2)} times that without."]


def _quicker(pooled: Arm, strided: Arm) -> list[str]:
    """What striding saves in time."""
    times = _pairs(strided, pooled, cpu_seconds_per_pass)
    if not times:
        return []
    ratio, seeds = paired_ratio(times), len(pooled.runs.keys() | strided.runs.keys())
    found = (
        f"training pass of the strided network takes {show(ratio, digits=2)} times the processor time of the pooled "
        f"one's{basis(ratio.n, seeds, brackets=True)}"
    )
    return [
        {
            "below": f"A {found}: its convolutions compute only the quarter of the positions that is kept, where "
            f"pooling computes them all and keeps the largest.",
            "above": f"A {found}: on this machine striding saves no time.",
            "not decided": f"Whether striding saves time is not decided: a {found}.",
            "one seed": f"{seen(seeds)}: a {found}.",
        }[verdict(ratio, 1)]
    ]


def _price(pooled: Arm, strided: Arm) -> list[str]:
    """What striding costs in accuracy, where the runs say anything about it."""
    accuracies = _pairs(strided, pooled, MEASURES["test accuracy"].of_run)
    sentences = {
        "below": "A reason that fits the accuracy lost to striding: max-pooling looks at all four positions of a 2x2 "
        "neighbourhood and passes on the strongest response wherever it lies, while a stride looks at one of the "
        "four; with equally many weights the strided network sees fewer places and forgives small shifts less.",
        "not decided": "So these runs leave open what striding costs in test accuracy.",
    }
    found = verdict(paired_difference(accuracies), 0) if accuracies else "one seed"
    return [sentences[found]] if found in sentences else []


def _pairs(first: Arm, second: Arm, measure: OfRun) -> list[tuple[float, float]]:
    """The measure of both arms for every seed at which both finished and both have a value."""
    ours, theirs = first.values(measure), second.values(measure)
    return [(ours[seed], theirs[seed]) for seed in ours if seed in theirs]


def _compare(section: Section, name: str) -> list[str]:
    """A sentence on one measure of the second arm against the first."""
    other, arm = section.arms
    measure, seeds = MEASURES[name], len(section.seeds)
    pairs = _pairs(arm, other, measure.of_run)
    if not pairs or (measure.ratio and min(value for pair in pairs for value in pair) <= 0):
        return []
    gap = paired_ratio(pairs) if measure.ratio else paired_difference(pairs)
    noun, null = ("ratio", 1) if measure.ratio else ("difference", 0)
    words = {
        "below": f"The {name} of {arm.label} is lower than that of {other.label}: {noun}",
        "above": f"The {name} of {arm.label} is higher than that of {other.label}: {noun}",
        "not decided": f"A {noun} in {name} between {arm.label} and {other.label} is not decided: it is",
        "one seed": f"{seen(seeds)}: the {name} of {arm.label} {'over' if measure.ratio else 'less'} that of "
        f"{other.label} is",
    }[verdict(gap, null)]
    return [
        f"{words} {show(gap, digits=measure.gap_digits, sign=not measure.ratio)}{basis(gap.n, seeds, brackets=True)}."
    ]


def _diverged(first: Arm, second: Arm) -> list[str]:
    """How many runs diverged, and how many seeds that leaves to compare the networks by."""
    lost = [
        f"{arm.diverged} of {len(arm.runs)} runs of {arm.label} diverged" for arm in (first, second) if arm.diverged
    ]
    seeds = first.runs.keys() | second.runs.keys()
    left = len(first.finished.keys() & second.finished.keys())
    if not lost and left:
        return []
    sentences = [f"{', '.join(lost)}. Diverged runs are counted and left out of every mean."] if lost else []
    if len(seeds) > 1:
        sentences.append(
            f"{left or 'None'} of the {len(seeds)} seeds can be used to compare the two networks"
            f"{'.' if left > 1 else ', so no difference between them is decided.'}"
        )
    return [" ".join(sentences)]


def figure(section: Section) -> Figure:
    """Draw an exercise's panels, both architectures in each, over passes 0 (before training) to the last."""
    panels = section.panels
    columns = len(panels) if len(panels) <= 3 else 2
    rows = math.ceil(len(panels) / columns)
    canvas = Figure(figsize=(4.2 * columns, 3.6 * rows + 0.6), dpi=DPI, layout="constrained")
    axes = canvas.subplots(rows, columns, squeeze=False).flatten().tolist()
    for spare in axes[len(panels) :]:
        spare.set_axis_off()
    for ax, (panel, curve) in zip(axes, panels, strict=False):
        for arm in section.arms:
            _draw(ax, arm, panel, curve)
        ax.set(title=panel.title, xlabel="passes through the training data", ylabel=panel.unit)
        ax.set_xlim(-0.04 * section.setting.passes, 1.04 * section.setting.passes)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        _scale(ax, section, panel, curve)
        ax.grid(alpha=0.3)
    notes = []
    if any(len(arm.finished) > 1 for arm in section.arms):
        notes.append("line: mean, band: 95% t interval of the mean")
    if any(arm.diverged for arm in section.arms):
        notes.append("thin lines that end in a cross: diverged runs")
    legend_below(canvas, "; ".join(notes))
    return canvas


def alt_text(section: Section) -> str:
    """Describe the figure for those who cannot see it."""
    names = " and ".join(arm.label for arm in section.arms)
    titles = ", ".join(panel.title.lower() for panel, _ in section.panels)
    return f"Curves of {names} over passes: {titles}. The table that follows gives the values after the last pass."


def _draw(ax: Axes, arm: Arm, panel: Measure, curve: Callable[[PassRow], float | None]) -> None:
    """Draw an arm: mean and band of its finished runs, and each diverged run as a thin line ending in a cross."""
    line, found = style(arm.variant), {}
    for rows in zip(*(run.rows for run in arm.finished.values()), strict=True):
        values = [value for row in rows if (value := curve(row)) is not None]
        if len(values) == len(rows):
            found[rows[0].completed] = bounded(mean_interval(values), panel.upper)
    label = f"{arm.label} ({arm.diverged} of {len(arm.runs)} diverged)" if arm.diverged else arm.label
    ax.plot(list(found), [each.estimate for each in found.values()], label=label, markersize=4, **line)
    if len(arm.finished) > 1:
        ends = ([each.low for each in found.values()], [each.high for each in found.values()])
        ax.fill_between(list(found), *ends, color=line["color"], alpha=0.2, linewidth=0)
    for run in arm.runs.values():
        points = [(row.completed, value) for row in run.rows if (value := curve(row)) is not None]
        if run.diverged and points:
            ax.plot(*zip(*points, strict=True), color=line["color"], linewidth=0.8, alpha=0.7)
            ax.plot(*points[-1], color=line["color"], marker="x", markersize=8)


def _scale(ax: Axes, section: Section, panel: Measure, curve: Callable[[PassRow], float | None]) -> None:
    """Fit the axis to the finished runs' values, so that neither a wide band nor a diverged run flattens the curves."""
    finished = [run for arm in section.arms for run in arm.finished.values()]
    rows = [row for run in finished or (run for arm in section.arms for run in arm.runs.values()) for row in run.rows]
    values = [value for row in rows if (value := curve(row)) is not None]
    later = [value for row in rows if row.completed > 0 and (value := curve(row)) is not None]
    if panel.scale == "log" and min(values, default=0) > 0:
        ax.set_yscale("log")
        plain_log(ax.yaxis)
        ax.set_ylim(min(values) / 1.2, max(values) * 1.2)
    elif panel.scale == "zero" and values:
        ax.set_ylim(0, (max(values) or 1) * 1.05)
    elif panel.scale == "trained" and later:
        margin = 0.1 * (max(later) - min(later)) or 0.01
        ax.set_ylim(min(later) - margin, max(later) + margin)
        first = [value for row in rows if row.completed == 0 and (value := curve(row)) is not None]
        if max(first, default=1) < min(later) - margin:
            chance = f"{min(first):.2f} to {max(first):.2f}" if len(first) > 1 else f"{first[0]:.2f}"
            ax.set_xlabel(f"{ax.get_xlabel()}\n(before training: {chance})")


def _run_again(section: Section) -> str:
    """The command that makes an exercise's records again; both exercises have the plain network first."""
    run = next(iter(section.arms[0].runs.values()))
    spec, fields = run.spec, type(run.spec).model_fields
    same_named: tuple[str, ...] = ("passes", "learning_rate", "batch_size", "directions")
    return again(
        "run",
        exercise=(section.exercise, None),
        data=(CHOICE[spec.data], None),
        seeds=(max(section.seeds) + 1, SEEDS),
        subset=(spec.subset, DEFAULT_SUBSET[spec.data]),
        no_noise_floor=(not spec.noise_floor, False),
        device=(run.environment.device, "cpu"),
        **{name: (getattr(spec, name), fields[name].default) for name in same_named},
        fresh=(True, False),
    )


def load(folder: Path, _anyway: bool = False) -> list[Entry]:
    """The report's parts on a folder's ConvNets."""
    return entries(Store(folder / RECORDS, ConvNetRecord).load_all("*_convnet-*.json"))


def entries(records: Sequence[ConvNetRecord]) -> list[Entry]:
    """The report's parts on these records; raises RecordError when they cannot stand together."""
    alone = len({record.spec.setting for record in records}) == 1
    return [_entry(section, alone=alone) for section in sections(records)] if records else []


def _entry(section: Section, *, alone: bool) -> Entry:
    mine = [run for arm in section.arms for run in arm.runs.values()]
    setting, words, key = section.setting, section.setting_words, section.setting_key
    return Entry(
        title=section.title if alone or not words else f"{section.title} ({words})",
        question=EXERCISES[section.exercise].question,
        file_name=f"{section.exercise}{'' if alone or not key else f'_{key}'}.png",
        figure=figure(section),
        alt=alt_text(section),
        caption=section.caption,
        tables=[("", section.header, section.rows)],
        answer=section.answer,
        rerun=_run_again(section),
        environments=[record.environment for record in mine],
        data=[
            *dict.fromkeys(data_words(record.data) for record in mine),
            f"Seeds {', '.join(map(str, section.seeds))}: initial weights and minibatches, the same for both networks",
            f"Smoothness: full gradients over all training images and all parameters, normalised by "
            f"{setting.norm_mode} statistics in chunks of at most {setting.chunk_size} images, along minibatch updates",
        ],
        seconds=sum(time.cpu_seconds for record in mine for time in record.times),
    )

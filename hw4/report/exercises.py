"""Exercises 1 and 3, and every other comparison of two variants: records in, figures, tables and words out."""

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hw4 import variants
from hw4.errors import AloneError
from hw4.files import RECORDS
from hw4.records import ConvNetRecord, PassRow, Store
from hw4.report.drawing import DPI, legend_below, log_y, over_passes, plain_log, style
from hw4.report.entry import CHOICE, Entry, Table, again, changed, data_words, grouped, images_words, require_unmixed
from hw4.report.words import (
    basis,
    bounded,
    by_side,
    compared,
    contrasted,
    counted,
    passes,
    plural,
    seen,
    settled_span,
    show,
    span,
    tested,
)
from hw4.specs import DEFAULT_SUBSET, ConvNetSpec
from hw4.stats import Interval, mean_interval, paired_difference, paired_ratio
from hw4.studies import SEEDS, SETTLED_PASS
from hw4.variants import EXERCISES

OfRun = Callable[[ConvNetRecord], float | None]  # a number of a run, or None where the run has no usable one
Curve = Callable[[PassRow], float | None]  # the same after each pass


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A number of a run for tables, its curve over passes for figures, and how either is written.

    ``title`` heads its panel in figures; a measure without one is in tables alone. ``upper`` is the largest value that
    there can be; the smallest is 0. A ``log`` scale suits losses, which fall by factors; ``zero`` starts a linear axis
    at zero; ``trained`` fits a linear axis to what follows the first pass, for beside the leap from chance nothing else
    would be seen. Two networks are compared by a ``ratio``, or a difference; what is ``timed`` compares where it was
    timed on one processor and device.
    """

    name: str
    of_run: OfRun
    digits: int = 3
    gap_digits: int = 3
    upper: float = math.inf
    curve: Curve = lambda _row: None
    title: str = ""
    unit: str = ""
    scale: Literal["log", "zero", "trained"] = "log"
    ratio: bool = False
    timed: bool = False


def settled_smoothness(record: ConvNetRecord) -> float | None:
    """Mean smoothness from pass 3 (or the last pass of a shorter run) to the last; None when a reading is missing."""
    start = min(SETTLED_PASS, record.spec.passes)
    readings = [row.smoothness for row in record.rows if row.completed >= start]
    known = [reading for reading in readings if reading is not None]
    return sum(known) / len(known) if known and len(known) == len(readings) else None


def _seconds(clock: Literal["wall_seconds", "cpu_seconds"]) -> OfRun:
    """Mean seconds of a training pass by one clock; None when it is too coarse to see any."""
    return lambda record: statistics.fmean(getattr(time, clock) for time in record.times) or None


def _scored(part: str, what: str) -> Measure:
    """A loss or an accuracy after the last pass, and its curve."""
    loss = what == "loss"
    return Measure(
        name=f"{part} {what}",
        of_run=attrgetter(f"last.{part}_{what}"),
        gap_digits=3 if loss else 4,
        upper=math.inf if loss else 1,
        curve=attrgetter(f"{part}_{what}"),
        title=f"{part.capitalize()} {what}",
        unit="mean logistic loss (nats)" if loss else f"share of {'training' if part == 'train' else part} images",
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
        Measure(name="seconds per pass", of_run=_seconds("wall_seconds"), ratio=True, timed=True),
        Measure(name="processor seconds per pass", of_run=_seconds("cpu_seconds"), ratio=True, timed=True),
    )
}
"""What exercises may show, by name."""

Arm = dict[int, ConvNetRecord]  # all runs of one architecture in one setting, by seed


class Section(NamedTuple):
    """One exercise in one setting: two arms, the first of which the second is compared with.

    ``longer`` are runs of the second for more passes, where the exercise asks for them and they were made.
    """

    exercise: str
    setting: ConvNetSpec
    arms: tuple[Arm, Arm]
    longer: Arm

    @property
    def runs(self) -> list[ConvNetRecord]:
        """All runs of both arms."""
        return [run for arm in self.arms for run in arm.values()]

    @property
    def seeds(self) -> list[int]:
        """Every seed that either arm has."""
        return sorted({run.spec.seed for run in self.runs})

    @property
    def kept(self) -> set[int]:
        """The seeds at which no run diverged."""
        return set.intersection(*(set(finished(arm)) for arm in self.arms))

    @property
    def timed_alike(self) -> bool:
        """Whether each seed's runs were made by one kind of processor and device, so that their seconds compare."""
        runs = (*self.runs, *self.longer.values())
        places = {(run.spec.seed, run.environment.cpu, run.environment.device) for run in runs}
        return len(places) == len({seed for seed, *_ in places})

    @property
    def measures(self) -> list[Measure]:
        """What its table shows, and its figure where it has a curve."""
        return [MEASURES[name] for name in EXERCISES[self.exercise].measures]


def label(arm: Arm) -> str:
    """What legends, tables and sentences call an arm."""
    return next(iter(arm.values())).spec.label


def finished(arm: Arm) -> Arm:
    """The runs that did not diverge."""
    return {seed: run for seed, run in arm.items() if not run.diverged}


def lost(arm: Arm) -> str:
    """How many runs diverged, of how many, in words."""
    return f"{len(arm) - len(finished(arm))} of {len(arm)}"


def sections(records: Sequence[ConvNetRecord]) -> list[Section]:
    """Group records into one section per exercise and setting.

    An exercise appears for a setting when both its variants are there, with a row after every pass. Raises RecordError
    when runs of one exercise saw different data or were computed by different code, AloneError when nothing makes a
    whole exercise.
    """
    found = []
    whole = [each for each in records if each.spec.row_passes is None and each.spec.reading_passes is None]
    by_setting = grouped(whole, lambda record: record.spec.setting)
    for setting, group in by_setting.items():
        for exercise, asked in EXERCISES.items():
            first, second = (_arm(group, variant) for variant in asked.variants)
            if first and second:
                wanted = setting.model_copy(update={"passes": (asked.longer or 0) * setting.passes})
                longer = _arm(by_setting.get(wanted, []), asked.variants[1])
                require_unmixed([*first.values(), *second.values(), *longer.values()])
                found.append(Section(exercise, setting, (first, second), longer))
    if not found:
        raise AloneError("no exercise has records of both its architectures; make them with 'hw4 run'")
    return found


def _arm(group: Sequence[ConvNetRecord], variant: str) -> Arm:
    # Of a run that was made twice, for more readings the second time, the one with those comes last and counts.
    by_seed = sorted(group, key=lambda run: (run.spec.seed, run.spec.directions, run.spec.noise_floor))
    return {run.spec.seed: run for run in by_seed if run.spec.variant == variant}


def values(arm: Arm, measure: OfRun) -> dict[int, float]:
    """A measure of the runs that did not diverge, by seed, where it has a value."""
    return {seed: value for seed, run in finished(arm).items() if (value := measure(run)) is not None}


def pairs(section: Section, measure: OfRun) -> list[tuple[float, float]]:
    """The measure of the second and the first arm for every seed at which both finished and both have a value."""
    other, ours = (values(arm, measure) for arm in section.arms)
    return [(ours[seed], other[seed]) for seed in ours if seed in other]


def gap(section: Section, measure: Measure) -> Interval | None:
    """The second arm's measure over, or less, the first's; None where nothing can be compared."""
    found = pairs(section, measure.of_run)
    if not found or (measure.timed and not section.timed_alike) or (measure.ratio and min(map(min, found)) <= 0):
        return None
    return paired_ratio(found) if measure.ratio else paired_difference(found)


Matched = tuple[ConvNetRecord, ConvNetRecord, int]
"""One seed: the first arm's run, and the second's longer run with a pass after which it stands beside the first."""


def seconds_until(run: ConvNetRecord, completed: int | None = None) -> float:
    """Processor seconds of a run's first passes, or of all."""
    return math.fsum(time.cpu_seconds for time in run.times[:completed])


def within_time(first: ConvNetRecord, longer: ConvNetRecord) -> int:
    """The last pass of a longer run that ends within the processor time of the first's training; 0 for none."""
    total = seconds_until(first)
    return max(done for done in range(len(longer.rows)) if seconds_until(longer, done) <= total) if total else 0


def early(first: ConvNetRecord, longer: ConvNetRecord, completed: int) -> bool:
    """Whether all passes of a longer run were done so long before the first's end that another one fitted."""
    spare = seconds_until(first) - seconds_until(longer, completed)
    return completed == longer.spec.passes and spare >= longer.times[-1].cpu_seconds


def equal_fit(first: ConvNetRecord, longer: ConvNetRecord) -> int:
    """The first pass of a longer run at which its train loss is at or below the other's last; 0 for none."""
    goal = first.last.train_loss or 0.0
    return next((row.completed for row in longer.rows[1:] if (row.train_loss or math.inf) <= goal), 0)


def matched(section: Section, rule: Callable[[ConvNetRecord, ConvNetRecord], int]) -> list[Matched]:
    """The seeds whose runs finished and of which the rule finds a pass."""
    ours, longer = finished(section.arms[0]), finished(section.longer)
    found = [(ours[seed], longer[seed], rule(ours[seed], longer[seed])) for seed in ours if seed in longer]
    return [each for each in found if each[2]]


def accuracy_gap(found: Sequence[Matched]) -> Interval | None:
    """Test accuracy of the longer runs after those passes less that of the first arm's runs."""
    both = [(longer.rows[completed].test_accuracy, first.last.test_accuracy) for first, longer, completed in found]
    known = [(ours, other) for ours, other in both if ours is not None and other is not None]
    return paired_difference(known) if known else None


def longer_table(section: Section) -> list[Table]:
    """The table of the longer runs beside both arms, where there are any to show."""
    if not section.longer:
        return []
    first, second = map(label, section.arms)
    done = section.setting.passes
    rows = [(label(arm), f"{done}", [(run, done) for run in finished(arm).values()]) for arm in section.arms]
    rules = [("equal time", within_time)] * section.timed_alike + [("equal train loss", equal_fit)]
    for name, rule in rules:
        after = [(run, completed) for _, run, completed in matched(section, rule)]
        rows.append((second, f"{span([completed for _, completed in after])} ({name})", after))
    most = _most(section)
    rows.append((second, f"{most}", [(run, most) for run in finished(section.longer).values()]))
    header = ("model", "passes", "processor seconds", "train loss", "test accuracy")
    cells = [(model, done, *_reached(after)) for model, done, after in rows if after]
    return [(f"{second} trained for longer, beside {first}", header, cells)] if cells else []  # all diverged


def _reached(after: Sequence[tuple[ConvNetRecord, int]]) -> Iterator[str]:
    """Cells on some runs, each after so many passes: processor seconds, train loss, test accuracy."""
    seconds = bounded(mean_interval([seconds_until(run, done) for run, done in after]))
    yield show(seconds, digits=1 if seconds.estimate >= 1 else 3)
    for measure in (MEASURES["train loss"], MEASURES["test accuracy"]):
        yield _mean([value for run, done in after if (value := measure.curve(run.rows[done])) is not None], measure)


def _mean(values: Sequence[float], measure: Measure) -> str:
    return show(bounded(mean_interval(values), measure.upper), digits=measure.digits) if values else "-"


def table(section: Section) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The exercise's table: its header, and a row for each arm."""
    spans = {"smoothness": f"smoothness {settled_span(section.setting.passes)}"}
    header = ("model", *(spans.get(each.name, each.name) for each in section.measures), "diverged")
    return header, [(label(arm), *(_cell(arm, each) for each in section.measures), lost(arm)) for arm in section.arms]


def _cell(arm: Arm, measure: Measure) -> str:
    """The measure's mean, and over how many runs where some have no value."""
    found, whole = list(values(arm, measure.of_run).values()), len(finished(arm))
    if whole and not found and measure.name == "smoothness":
        return _lacking(arm)
    return _mean(found, measure) + (f" ({len(found)} of {whole} runs)" if 0 < len(found) < whole else "")


def _lacking(*arms: Arm) -> str:
    read = all(any(row.readings for run in arm.values() for row in run.rows) for arm in arms)
    return "not usable" if read else "not measured"


def setting_words(setting: ConvNetSpec) -> str:
    """What differs from the homework's setting, as in "learning rate 0.1, 2 passes"; "" where nothing does."""
    usual = ConvNetSpec.build(data=setting.data)
    said = {
        "learning_rate": f"learning rate {setting.learning_rate}",
        "batch_size": f"batch {setting.batch_size}",
        "momentum": f"momentum {setting.momentum}",
        "warmup_passes": f"a warm-up of {passes(setting.warmup_passes)}",
        "head_rate": f"learning rate {setting.head_rate} of head and last affine",
        "passes": passes(setting.passes),
        "subset": f"a share of {setting.subset} of the training images",
        "norm_mode": f"{setting.norm_mode} statistics",
        "chunk_size": f"chunks of {setting.chunk_size} images",
    }
    differs = [words for field, words in said.items() if getattr(setting, field) != getattr(usual, field)]
    return ", ".join([*(["digits"] if setting.data == "digits" else []), *differs])


def setting_key(setting: ConvNetSpec) -> str:
    """The same for file names, as in "lr0.1_passes2"; "" for the homework's setting."""
    data, _, *settings, _ = setting.key.split("_")
    return "_".join([*([data] if data == "digits" else []), *settings])


def answer(section: Section) -> list[str]:
    """The exercise's answer in words; the first and the third say more than their measures do."""
    said = _diverged(section)
    if section.exercise == "smoothness":
        return [*said, *_of_smoothness(section)]
    if section.exercise == "pooling":
        said += _compare(section, "train loss", "test accuracy")
        return [*said, *_quicker(section), *_at_equal_time(section), *_price(section)]
    said += _compare(section, *(measure.name for measure in section.measures))
    return [*said, *(_quality(section) if MEASURES["smoothness"] in section.measures else ())]


def _of_smoothness(section: Section) -> Iterator[str]:
    if found := pairs(section, settled_smoothness):
        yield _smoother(section, paired_ratio(found))
        yield (
            "Effective smoothness is how much the gradient over all training images changes along one training step, "
            "divided by the length of the step: where it is small, longer steps are safe."
        )
        yield _room(found, section.setting.learning_rate)
    elif section.kept:
        yield f"Smoothness is {_lacking(*section.arms)} in both networks at any seed, so it cannot be compared."
    yield from _quality(section)
    if start := pairs(section, lambda run: run.rows[0].smoothness):
        yield f"{compared(paired_ratio(start), 'effective smoothness before training', len(section.seeds))}."
    yield from _compare(section, "train loss", "test accuracy", "test loss")
    if _side(section, "test loss") == _side(section, "test accuracy") == "above":
        yield (
            "A worse test loss beside a better test accuracy: a possible reason, not measured here, is overconfidence. "
            "Accuracy only counts which class comes first, while the loss grows with the certainty of a mistake."
        )


def _smoother(section: Section, ratio: Interval) -> str:
    """Whether BatchNorm makes the objective smoother; the ratio is that of the smoothness with and without it."""
    seeds = len(section.seeds)
    finding = by_side(
        ratio,
        below="BatchNorm makes the objective smoother",
        above="BatchNorm makes the objective less smooth here",
        undecided="Whether BatchNorm makes the objective smoother is not decided by these runs",
        one=seen(seeds),
    )
    return (
        f"{finding}: along each network's own training steps the gradient changes {show(ratio, digits=2)} times as "
        f"fast with BatchNorm as without (effective smoothness {settled_span(section.setting.passes)}"
        f"{basis(ratio.n, seeds)})."
    )


def _room(found: Sequence[tuple[float, float]], rate: float) -> str:
    """What the smoothness with and without BatchNorm would mean for learning rates."""
    ratio = paired_ratio(found)
    normed, plain = (statistics.fmean(each) for each in zip(*found, strict=True))
    used = [f"{rate * L:.0%}" if rate * L >= 0.01 else "less than 1%" for L in (plain, normed)]
    conclusion = by_side(
        ratio,
        below=f"If L were the same at every rate, the smoother objective would leave room for learning rates larger by "
        f"about the same factor, {1 / ratio.estimate:.1f}: that is how smoothness would explain the larger learning "
        f"rates that BatchNorm allows, and 'hw4 claim' puts it to the test.",
        above="So by this measure BatchNorm leaves less room for large learning rates, not more.",
        undecided="Whether BatchNorm leaves room for larger learning rates is not decided by these numbers.",
        one="One seed cannot show whether BatchNorm leaves room for larger learning rates.",
    )
    return (
        f"Gradient descent on an L-smooth function may use learning rates up to 1/L, and is stable below 2/L. With "
        f"the measured values in the place of L, 1/L is {1 / plain:.3g} without BatchNorm and {1 / normed:.3g} with "
        f"it; the learning rate used, {rate:g}, is {used[0]} of 1/L without BatchNorm and {used[1]} with it. "
        f"{conclusion} The measured value is local, along one minibatch update, not a bound on the whole function."
    )


def _quality(section: Section) -> Iterator[str]:
    """A sentence on how good the readings themselves are: rounding, spread over directions, what was left out."""
    groups = [row.readings for run in section.runs for row in run.rows if row.readings]
    everything = [reading for readings in groups for reading in readings]
    if not everything:
        return
    kept = [reading for reading in everything if reading.usable and reading.smoothness]
    gone = len(everything) - len(kept)
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
        rounding = f"How much of a reading is rounding was {'measured for some only' if noise else 'not measured'}"
    else:  # rounded up, for a bound that is rounded down is none
        bound = math.floor(max(noise) * 1e4 + 1) / 1e4
        rounding = f"Rounding error is below {bound:.2%} of every reading{' that was kept' if gone else ''}"
    count = (
        f"{gone} of {plural(len(everything), 'reading')} {'was' if gone == 1 else 'were'} too close to rounding error "
        f"to be used, and what rests on {'it' if gone == 1 else 'them'} is left out"
        if gone
        else f"all {len(everything):,} were kept"
    )
    directions = counted(list(map(len, groups)), "minibatch update")
    yield f"Each value is the mean over {directions}{spread}. {rounding}; {count}."


def _quicker(section: Section) -> Iterator[str]:
    if not section.timed_alike:
        yield (
            "Runs of one seed were made on different processors or devices, so their seconds are not compared; the "
            "command below makes them on one."
        )
    if ratio := gap(section, MEASURES["processor seconds per pass"]):
        found = (
            f"training pass of the strided network takes {show(ratio, digits=2)} times the processor time of the "
            f"pooled one's{basis(ratio.n, len(section.seeds), brackets=True)}"
        )
        yield by_side(
            ratio,
            below=f"A {found}: its convolutions compute only the quarter of the positions that is kept, where "
            f"pooling computes them all and keeps the largest.",
            above=f"A {found}: on this machine striding saves no time.",
            undecided=f"Whether striding saves time is not decided: a {found}.",
            one=f"{seen(len(section.seeds))}: a {found}.",
        )
        yield (
            "These are times of hw4's networks, whose pooling is faster than that of PyTorch's plain layers; "
            "'hw4 audit' times those."
        )


def _at_equal_time(section: Section) -> Iterator[str]:
    """What the second arm reaches in the processor time of the first's passes, where it was trained for longer."""
    other, ours = map(label, section.arms)
    seeds, found = len(section.seeds), matched(section, within_time) if section.timed_alike else []
    gap = accuracy_gap(found)
    if gone := len(section.longer) - len(finished(section.longer)):
        yield f"{gone} of {plural(len(section.longer), 'run')} of {ours} over {passes(_most(section))} diverged."
    if gap is None:
        yield from ["At equal processor time nothing can be compared: no seed allows it."] if section.longer else []
        return
    ended = [seconds_until(run, done) / seconds_until(first) for first, run, done in found if early(first, run, done)]
    time = f"At {'less' if ended else 'equal'} processor time"
    words = contrasted(gap, "test accuracy", ours, other, seeds, at=time)
    yield (
        f"{words} {show(bounded(gap, 1, -1), digits=4, sign=True)}{tested(gap, seeds)}, after "
        f"{counted([done for *_, done in found], 'pass')} of {ours} and {passes(section.setting.passes)} of {other}."
    )
    if ended:
        yield (
            f"In {len(ended)} of {plural(len(found), 'seed')} {ours} had done all its passes before that time was up, "
            f"at {min(ended):.0%} of it or later; what it would reach in the rest is left open."
        )


def _price(section: Section) -> Iterator[str]:
    """What striding costs in accuracy, where the runs say anything about it, and which reasons fit."""
    loss, accuracy = _side(section, "train loss"), _side(section, "test accuracy")
    if accuracy == "below":
        yield (
            "A reason that fits the accuracy lost to striding: max-pooling looks at all four positions of a 2x2 "
            "neighbourhood and passes on the strongest response wherever it lies, while a stride looks at one of the "
            "four; with equally many weights the strided network sees fewer places and forgives small shifts less."
            + " Another fits as well: after equal passes it has fitted even its training images less."
            * (loss == "above")
        )
        yield from _at_equal_fit(section) if loss != "below" else []
        yield (
            "Springenberg et al. (2015, Striving for Simplicity) found no loss of accuracy when a convolution of "
            "stride 2 is added in the place of pooling. Here the stride is put in the convolution that was there, "
            "without more weights, so their finding and this one are of different networks."
        )
    elif accuracy == "not decided":
        yield (
            "These runs leave open what striding costs in test accuracy. Were there a cost, a reason to expect would "
            "be that max-pooling looks at all four positions of a 2x2 neighbourhood and a stride at one of the four; "
            "were there a gain, that a network which sees less of its training images learns less of them by heart. "
            "Neither is shown here."
        )


def _most(section: Section) -> int:
    """How many passes the longer runs have."""
    return next(run.spec.passes for run in section.longer.values())


def _side(section: Section, name: str) -> str:
    """On which side of the first arm's a loss or accuracy of the second lies, where more than one seed says."""
    found = gap(section, MEASURES[name])
    return found.compared_with(0) if found is not None and found.n > 1 else ""


def _at_equal_fit(section: Section) -> Iterator[str]:
    """Whether slower fitting is reason enough: test accuracy where both arms fit the training images equally."""
    found, seeds = matched(section, equal_fit), len(section.seeds)
    gap, whole = accuracy_gap(found), len(matched(section, lambda _first, longer: longer.spec.passes))
    if not whole:
        return
    if gap is None or len(found) < whole:
        yield (
            f"In {whole - len(found)} of {plural(whole, 'seed')} its train loss does not come down to pooling's within "
            f"{passes(_most(section))} either, so these runs do not tell the lost positions from slower fitting."
        )
        return
    open_ = "these runs do not tell the lost positions from slower fitting"
    words, conclusion = {
        "below": ("its test accuracy is lower: difference", "slower fitting is not the whole reason"),
        "above": ("its test accuracy is higher: difference", "no reason but slower fitting is needed"),
        "not decided": ("a difference in test accuracy is not decided: it is", open_),
    }[gap.compared_with(0)]
    yield (
        f"Where its train loss is down to pooling's, after {counted([done for *_, done in found], 'pass')}, {words} "
        f"{show(bounded(gap, 1, -1), digits=4, sign=True)}{tested(gap, seeds)}; {conclusion}."
    )


def _compare(section: Section, *names: str) -> Iterator[str]:
    """A sentence on each of some measures of the second arm against the first."""
    (other, ours), seeds = map(label, section.arms), len(section.seeds)
    for measure in (MEASURES[name] for name in names):
        if (found := gap(section, measure)) is not None:
            words = contrasted(found, measure.name, ours, other, seeds, ratio=measure.ratio)
            possible = found if measure.ratio else bounded(found, measure.upper, -measure.upper)
            value = show(possible, digits=measure.gap_digits, sign=not measure.ratio)
            yield f"{words} {value}{basis(found.n, seeds, brackets=True)}."


def _diverged(section: Section) -> list[str]:
    """How many runs diverged, and how many seeds that leaves to compare the networks by."""
    gone = [
        f"{lost(arm)} run{'s' * (len(arm) > 1)} of {label(arm)} diverged"
        for arm in section.arms
        if len(finished(arm)) < len(arm)
    ]
    left = len(section.kept)
    if not gone and left:
        return []
    sentences = [f"{', '.join(gone)}. Diverged runs are counted and left out of every mean."] if gone else []
    if len(section.seeds) > 1:
        sentences.append(
            f"{left or 'None'} of the {len(section.seeds)} seeds can be used to compare the two networks"
            f"{'.' if left > 1 else ', so no difference between them is decided.'}"
        )
    return [" ".join(sentences)]


def panels(section: Section) -> list[tuple[Measure, Curve]]:
    """What the figure draws: those of the exercise's measures that have a curve."""
    return [(measure, measure.curve) for measure in section.measures if measure.title]


def figure(section: Section) -> Figure:
    """Draw an exercise's panels, both architectures in each, over passes 0 (before training) to the last.

    Where one was trained for longer, train loss and test accuracy follow over the processor time of the training.
    """
    drawn = [(measure, _draw_over_passes) for measure, _ in panels(section)]
    columns = len(drawn) if len(drawn) <= 3 else 2
    timed = bool(finished(section.longer)) and section.timed_alike
    drawn += [(MEASURES[name], _draw_over_time) for name in ("train loss", "test accuracy")] * timed
    rows = math.ceil(len(drawn) / columns)
    canvas = Figure(figsize=(4.2 * columns, 3.6 * rows + 0.6), dpi=DPI, layout="constrained")
    axes = canvas.subplots(rows, columns, squeeze=False).flatten().tolist()
    for spare in axes[len(drawn) :]:
        spare.remove()
    for ax, (measure, draw) in zip(axes, drawn, strict=False):
        draw(ax, section, measure)
    notes = {
        "line: mean, band: 95% t interval of the mean": any(len(finished(arm)) > 1 for arm in section.arms),
        "thin lines that end in a cross: diverged runs": any(run.diverged for run in section.runs),
        "over seconds: thin lines are runs": timed and len(finished(section.longer)) > 1,
    }
    legend_below(canvas, "; ".join(note for note, holds in notes.items() if holds))
    return canvas


def _draw_over_passes(ax: Axes, section: Section, measure: Measure) -> None:
    for arm in section.arms:
        _draw(ax, arm, measure)
    over_passes(ax, measure.title, measure.unit)
    last = section.setting.passes
    ax.set_xlim(-0.04 * last, 1.04 * last)
    if all(measure.curve(row) is None for run in section.runs for row in run.rows):
        ax.text(0.5, 0.5, _lacking(*section.arms), transform=ax.transAxes, ha="center")
        ax.set_yticks([])
    _scale(ax, section, measure)


def _draw(ax: Axes, arm: Arm, measure: Measure) -> None:
    """Draw an arm: mean and band of its finished runs, and each diverged run as a thin line ending in a cross."""
    runs = finished(arm)
    line, found = style(next(iter(arm.values())).spec.variant), dict[int, Interval]()
    for rows in zip(*(run.rows for run in runs.values()), strict=True):
        known = [value for row in rows if (value := measure.curve(row)) is not None]
        if len(known) == len(rows):
            found[rows[0].completed] = bounded(mean_interval(known), measure.upper)
    name = label(arm) if len(runs) == len(arm) else f"{label(arm)} ({lost(arm)} diverged)"
    ax.plot(list(found), [each.estimate for each in found.values()], label=name, markersize=4, **line)
    if len(runs) > 1:
        ends = ([each.low for each in found.values()], [each.high for each in found.values()])
        ax.fill_between(list(found), *ends, color=line["color"], alpha=0.2, linewidth=0)
    for run in arm.values():
        points = [(row.completed, value) for row in run.rows if (value := measure.curve(row)) is not None]
        if run.diverged and points:
            ax.plot(*zip(*points, strict=True), color=line["color"], linewidth=0.8, alpha=0.7)
            ax.plot(
                *points[-1], color=line["color"], marker="x", markersize=8, gid=f"{label(arm)}, seed {run.spec.seed}"
            )


def _draw_over_time(ax: Axes, section: Section, measure: Measure) -> None:
    """Draw the first arm and the second's longer runs over processor seconds, pass by pass: means, and every run."""
    for arm in filter(None, map(finished, (section.arms[0], section.longer))):
        line, curves = style(next(iter(arm.values())).spec.variant), []
        for seed, run in arm.items():
            points = [(seconds_until(run, row.completed), measure.curve(row)) for row in run.rows[1:]]
            curves.append([(x, y) for x, y in points if y is not None])
            look = {"color": line["color"], "linewidth": 0.8, "alpha": 0.4, "gid": f"seed {seed}"}
            ax.plot(*zip(*curves[-1], strict=True), **look)
        if len({len(curve) for curve in curves}) == 1:
            means = np.mean(curves, axis=0)
            ax.plot(*means.T, markersize=4, markevery=max(1, len(means) // 10), gid="mean", **line)
    over_passes(ax, measure.title, measure.unit)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.set_xlabel(f"processor seconds of training\n({label(section.arms[1])}: {passes(_most(section))})")
    if measure.scale == "log":
        log_y(ax)


def _scale(ax: Axes, section: Section, measure: Measure) -> None:
    """Fit the axis to the finished runs' values, so that neither a wide band nor a diverged run flattens the curves."""
    rows = [row for run in section.runs if not run.diverged for row in run.rows]
    rows = rows or [row for run in section.runs for row in run.rows]
    known = [(row.completed, value) for row in rows if (value := measure.curve(row)) is not None]
    first = [value for completed, value in known if completed == 0]
    later = [value for completed, value in known if completed > 0]
    lowest, highest = min([*first, *later], default=0), max([*first, *later], default=0)
    if measure.scale == "log" and lowest > 0:
        ax.set_yscale("log")
        ax.set_ylim(lowest / 1.2, highest * 1.2)
        plain_log(ax.yaxis)
    elif measure.scale == "zero" and known:
        ax.set_ylim(0, (highest or 1) * 1.05)
    elif measure.scale == "trained" and later:
        margin = 0.1 * (max(later) - min(later)) or 0.01
        ax.set_ylim(min(later) - margin, max(later) + margin)
        if max(first, default=1) < min(later) - margin:
            ax.set_xlabel(f"{ax.get_xlabel()}\n(before training: {span(first, '.2f')})")


def load(folder: Path, _anyway: bool = False) -> list[Entry]:
    """The report's parts on a folder's ConvNets."""
    return entries(Store(folder / RECORDS, ConvNetRecord).load_all("*_convnet-*.json"))


def entries(records: Sequence[ConvNetRecord]) -> list[Entry]:
    """The report's parts on these records; raises RecordError when they cannot stand together."""
    found = sections(records) if records else []
    alone = len({section.setting for section in found}) == 1
    shown = {(run.spec.variant, run.spec.setting) for each in found for run in (*each.runs, *each.longer.values())}
    rest = [run.spec for run in records if (run.spec.variant, run.spec.setting) not in shown]
    named = dict.fromkeys(f"{spec.label} ({setting_words(spec.setting) or 'the same setting'})" for spec in rest)
    notes = [f"In no exercise's comparison: {', '.join(named)}; 'hw4 report --csv' has their numbers."] * bool(named)
    return [_entry(section, alone=alone, notes=notes * (place == 0)) for place, section in enumerate(found)]


def _entry(section: Section, *, alone: bool, notes: Sequence[str]) -> Entry:
    exercise, setting, runs = EXERCISES[section.exercise], section.setting, [*section.runs, *section.longer.values()]
    words, key = ("", "") if alone else (setting_words(setting), setting_key(setting))
    names = " and ".join(map(label, section.arms))
    titles = ", ".join(panel.title.lower() for panel, _ in panels(section))
    return Entry(
        title=f"{exercise.title} ({words})" if words else exercise.title,
        question=exercise.question,
        file_name=f"{section.exercise}{f'_{key}' if key else ''}.png",
        figure=figure(section),
        alt=f"Curves of {names} over passes: {titles}. The table that follows gives the values after the last pass.",
        caption=f"{images_words(runs[0].data, tested=True)}; SGD, learning rate {setting.learning_rate:g}, batch "
        f"{setting.batch_size}, {passes(setting.passes)}; {counted(list(map(len, section.arms)), 'seed')}",
        tables=[("", *table(section)), *longer_table(section)],
        answer=answer(section),
        rerun=_run_again(section, runs[0]),
        environments=[record.environment for record in runs],
        data=[
            *dict.fromkeys(data_words(record.data) for record in runs),
            *_whose(section),
            *[
                f"Smoothness: full gradients over all training images and all parameters, normalised by "
                f"{setting.norm_mode} statistics in chunks of at most {setting.chunk_size} images, along minibatch "
                f"updates"
            ]
            * (MEASURES["smoothness"] in section.measures and any(row.readings for run in runs for row in run.rows)),
        ],
        seconds=sum(time.cpu_seconds for record in runs for time in record.times),
        notes=notes,
    )


def _whose(section: Section) -> Iterator[str]:
    """Which seeds were run of which network, and what is the same for them."""
    shared = set.intersection(*map(set, section.arms))
    whose = {f"of {label(arm)} alone": {*arm} - shared for arm in section.arms}
    for words, seeds in {"initial weights and minibatches, the same for both networks": shared, **whose}.items():
        if seeds:
            yield f"Seed{'s' * (len(seeds) > 1)} {', '.join(map(str, sorted(seeds)))}: {words}"


def _run_again(section: Section, run: ConvNetRecord) -> str:
    """The command that makes an exercise's records again, where it is one of hw4's own."""
    if f'"{section.exercise}"' not in Path(variants.__file__).read_text():  # no command knows another program's
        return ""
    return again(
        "run",
        exercise=(section.exercise, None),
        data=(CHOICE[run.spec.data], None),
        seeds=(max(section.seeds) + 1, SEEDS),
        subset=(run.spec.subset, DEFAULT_SUBSET[run.spec.data]),
        no_noise_floor=(not run.spec.noise_floor, False),
        no_longer=(EXERCISES[section.exercise].longer is not None and not section.longer, False),
        device=(run.environment.device, "cpu"),
        **changed(run.spec, "passes", "learning_rate", "batch_size", "directions"),
        fresh=(True, False),
    )

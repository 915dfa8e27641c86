"""What the records say: numbers with intervals, and answers whose words follow from the numbers."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from hw4.errors import RecordError
from hw4.records import ConvNetRecord
from hw4.specs import EXERCISES, ConvNetSpec, Exercise
from hw4.stats import Interval, mean_interval, paired_difference, paired_ratio

Measure = Callable[[ConvNetRecord], float | None]
"""A number of a run, or None where the run has no usable one."""
Verdict = Literal["below", "above", "not decided", "one seed"]

SETTLED_PASS = 3
"""Smoothness is averaged from this pass on: the first passes leave the initialisation, where the order is another."""

QUESTIONS = {
    "smoothness": "What does BatchNorm do to the smoothness of the loss, and how may that allow larger learning rates?",
    "strides": "How does the test accuracy of a text CNN on question vectors depend on the stride of its layers?",
    "pooling": "Max-pooling or strided convolutions: what does either cost in accuracy and in seconds per pass?",
    "claim": "Does training with BatchNorm work at larger learning rates, and does smoothness account for it?",
    "audit": "What did the homework's solved notebook report, and what does each of its flaws change?",
    "notebook": "Are the numbers that the homework's solved notebook printed those that its own protocol gives here?",
    "benchmarks": "How fast is hw4, beside the same work written plainly, and beside what this machine can do?",
    "gate": "Did the last change make training slower or worse?",
}
"""What each part of the report answers."""


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

    def values(self, measure: Measure) -> dict[int, float]:
        """A measure of the runs that did not diverge, by seed, where it has a value."""
        return {seed: value for seed, run in self.finished.items() if (value := measure(run)) is not None}

    def cell(self, measure: Measure, *, digits: int = 3, upper: float = math.inf, lacking: str = "-") -> str:
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
    """One exercise in one setting: two arms, the table's rows and the answer."""

    exercise: Exercise
    setting: ConvNetSpec
    arms: tuple[Arm, Arm]
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    answer: tuple[str, ...]

    @property
    def title(self) -> str:
        """Heading of the section."""
        return {
            "smoothness": "Exercise 1: what BatchNorm does to smoothness",
            "pooling": "Exercise 3: max-pooling or stride?",
        }[self.exercise]

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


def plural(n: int, noun: str) -> str:
    """A number with its noun, as in "1 seed" and "2 seeds"."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


def passes(n: int) -> str:
    """A number of passes in words."""
    return f"{n} pass{'' if n == 1 else 'es'}"


def settled_span(last: int) -> str:
    """The passes over which smoothness is averaged in a run of ``last`` passes."""
    return f"over passes {SETTLED_PASS} to {last}" if last > SETTLED_PASS else f"after pass {last}"


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


def _train_loss(run: ConvNetRecord) -> float | None:
    return run.last.train_loss


def _test_accuracy(run: ConvNetRecord) -> float | None:
    return run.last.test_accuracy


def sections(records: Sequence[ConvNetRecord]) -> list[Section]:
    """Group records into one section per exercise and setting.

    An exercise appears for a setting when both its architectures are there. Raises RecordError when runs of one
    setting saw different data or were computed by different code, or when nothing makes a whole exercise.
    """
    found = []
    for setting in dict.fromkeys(record.spec.setting for record in records):
        group = [record for record in records if record.spec.setting == setting]
        for what, values in (
            ("data sets", {record.data.checksum for record in group}),
            ("versions of the code", {record.environment.code for record in group}),
        ):
            if len(values) > 1:
                raise RecordError(
                    f"the records of {setting.data} come from {len(values)} {what} and cannot share a figure; "
                    f"make them again with 'hw4 run --fresh' or report them from separate folders"
                )
        for exercise, variants in EXERCISES.items():
            first, second = (_arm(group, norm, downsample) for norm, downsample in variants)
            if first is not None and second is not None:
                found.append(_ANSWERS[exercise](setting, first, second))
    if not found:
        raise RecordError("no exercise has records of both its architectures; make them with 'hw4 run'")
    return found


def _arm(group: Sequence[ConvNetRecord], norm: str | None, downsample: str) -> Arm | None:
    mine = [r for r in group if (r.spec.norm, r.spec.downsample) == (norm, downsample)]
    # A run that was made twice, for more readings the second time, counts once, with those.
    runs = {r.spec.seed: r for r in sorted(mine, key=lambda r: (r.spec.directions, r.spec.noise_floor))}
    if not runs:
        return None
    spec = next(iter(runs.values())).spec
    return Arm(spec.label, spec.variant, dict(sorted(runs.items())))


def _smoothness(setting: ConvNetSpec, plain: Arm, normed: Arm) -> Section:
    """Exercise 1: the table and the answer."""
    measured = any(row.readings for arm in (plain, normed) for run in arm.runs.values() for row in run.rows)
    lacking = "not usable" if measured else "not measured"
    rows = tuple(
        (
            arm.label,
            arm.cell(_train_loss),
            arm.cell(_test_accuracy, upper=1),
            arm.cell(settled_smoothness, digits=2, lacking=lacking),
            _count(arm),
        )
        for arm in (plain, normed)
    )
    answer = [*_diverged(plain, normed)]
    pairs = _pairs(normed, plain, settled_smoothness)
    if pairs:
        answer += [_smoother(pairs, setting, len(plain.runs.keys() | normed.runs.keys()))]
        answer += [
            "Effective smoothness is how much the gradient over all training images changes along one training step, "
            "divided by the length of the step: where it is small, longer steps are safe."
        ]
        answer += _room(pairs, setting.learning_rate)
    elif plain.finished.keys() & normed.finished.keys():
        answer.append(f"Smoothness is {lacking} in both networks at any seed, so it cannot be compared.")
    answer += [*_quality(plain, normed), *_before_training(plain, normed), *_compare_last(normed, plain)]
    header = ("model", "train loss", "test accuracy", f"smoothness {settled_span(setting.passes)}", "diverged")
    return Section("smoothness", setting, (plain, normed), header, rows, tuple(answer))


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


def _pooling(setting: ConvNetSpec, pooled: Arm, strided: Arm) -> Section:
    """Exercise 3: the table and the answer."""
    rows = tuple(
        (
            arm.label,
            arm.cell(_train_loss),
            arm.cell(lambda run: run.last.train_accuracy, upper=1),
            arm.cell(lambda run: run.last.test_loss),
            arm.cell(_test_accuracy, upper=1),
            arm.cell(seconds_per_pass),
            arm.cell(cpu_seconds_per_pass),
            _count(arm),
        )
        for arm in (pooled, strided)
    )
    answer = [*_diverged(pooled, strided), *_compare_last(strided, pooled)]
    answer += [*_quicker(pooled, strided), *_price(pooled, strided)]
    header = (
        *("model", "train loss", "train accuracy", "test loss", "test accuracy"),
        *("seconds per pass", "processor seconds per pass", "diverged"),
    )
    return Section("pooling", setting, (pooled, strided), header, rows, tuple(answer))


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
    accuracies = _pairs(strided, pooled, _test_accuracy)
    sentences = {
        "below": "A reason that fits the accuracy lost to striding: max-pooling looks at all four positions of a 2x2 "
        "neighbourhood and passes on the strongest response wherever it lies, while a stride looks at one of the "
        "four; with equally many weights the strided network sees fewer places and forgives small shifts less.",
        "not decided": "So these runs leave open what striding costs in test accuracy.",
    }
    found = verdict(paired_difference(accuracies), 0) if accuracies else "one seed"
    return [sentences[found]] if found in sentences else []


_ANSWERS: dict[Exercise, Callable[[ConvNetSpec, Arm, Arm], Section]] = {"smoothness": _smoothness, "pooling": _pooling}


def _pairs(first: Arm, second: Arm, measure: Measure) -> list[tuple[float, float]]:
    """The measure of both arms for every seed at which both finished and both have a value."""
    ours, theirs = first.values(measure), second.values(measure)
    return [(ours[seed], theirs[seed]) for seed in ours if seed in theirs]


def _compare_last(first: Arm, second: Arm) -> list[str]:
    """Sentences on the last pass's train loss and test accuracy of the first arm against the second."""
    sentences = []
    seeds = len(first.runs.keys() | second.runs.keys())
    for name, digits, measure in (("train loss", 3, _train_loss), ("test accuracy", 4, _test_accuracy)):
        pairs = _pairs(first, second, measure)
        if pairs:
            gap = paired_difference(pairs)
            words = {
                "below": f"The {name} of {first.label} is lower than that of {second.label}: difference",
                "above": f"The {name} of {first.label} is higher than that of {second.label}: difference",
                "not decided": f"A difference in {name} between {first.label} and {second.label} is not decided: it is",
                "one seed": f"{seen(seeds)}: the {name} of {first.label} less that of {second.label} is",
            }[verdict(gap, 0)]
            sentences.append(f"{words} {show(gap, digits=digits, sign=True)}{basis(gap.n, seeds, brackets=True)}.")
    return sentences


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


def _count(arm: Arm) -> str:
    return f"{arm.diverged} of {len(arm.runs)}"


def verdict(found: Interval, value: float) -> Verdict:
    """On which side of ``value`` the interval lies, if on one; one seed has no interval and decides nothing."""
    return "one seed" if found.n < 2 else found.compared_with(value)


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


def bounded(interval: Interval, upper: float = math.inf) -> Interval:
    """Cut the interval of a mean of values that lie in [0, upper] at what is possible.

    The truth does not lie in what is cut off, so the interval covers it as often as before, and everything else about
    it stays Student's. (Intervals on a logarithmic scale would not need it, but belong to another mean.) Comparisons
    of seeds are made on the pairs' differences or logs, which have no such bounds.
    """
    return replace(interval, low=max(0.0, interval.low), high=min(upper, interval.high))


def show(interval: Interval | None, *, digits: int = 3, sign: bool = False) -> str:
    """Write an interval as ``estimate [low, high]``; one seed has no interval, no value at all is a dash.

    The space inside the brackets does not break, so a narrow table puts the whole interval on a line of its own.
    """
    if interval is None:
        return "-"
    form = f"{'+' if sign else ''}.{digits}f"
    estimate = f"{interval.estimate:{form}}"
    return estimate if interval.n < 2 else f"{estimate} [{interval.low:{form}},\u00a0{interval.high:{form}}]"

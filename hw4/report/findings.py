"""What the records say: numbers with intervals, and answers whose words follow from the numbers."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hw4.errors import RecordError
from hw4.records import ConvNetRecord
from hw4.specs import EXERCISES, ConvNetSpec, Exercise
from hw4.stats import Interval, mean_interval, paired_difference, paired_ratio

SETTLED_PASS = 3
"""Smoothness is averaged from this pass on: the first passes leave the initialisation, where the order is another."""

QUESTIONS = {
    "smoothness": "What does BatchNorm do to the smoothness of the loss, and how may that allow larger learning rates?",
    "strides": "How does the test accuracy of a text CNN on question vectors depend on the stride of its layers?",
    "pooling": "Max-pooling or strided convolutions: what does either cost in accuracy and in seconds per pass?",
    "claim": "Does training with BatchNorm work at larger learning rates, and does smoothness account for it?",
    "audit": "What did the homework's solved notebook report, and what does each of its flaws change?",
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

    def mean(self, measure: Callable[[ConvNetRecord], float | None]) -> Interval | None:
        """Interval of a measure over the runs that did not diverge, or None when one has no value or none is left."""
        values = [measure(run) for run in self.finished.values()]
        known = [value for value in values if value is not None]
        return mean_interval(known) if known and len(known) == len(values) else None


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
        data, setting, n = self.any_record.data, self.setting, len(self.seeds)
        return (
            f"{data.title}, {data.n_train:,} training and {data.n_test:,} test images, data sha256 "
            f"{data.checksum[:12]}; SGD, learning rate {setting.learning_rate:g}, batch {setting.batch_size}; "
            f"{n} seed{'s' if n > 1 else ''}"
        )


def settled_smoothness(record: ConvNetRecord) -> float | None:
    """Mean smoothness from pass 3 (or the last pass of a shorter run) to the last; None when a reading is missing."""
    start = min(SETTLED_PASS, record.spec.passes)
    readings = [row.smoothness for row in record.rows if row.completed >= start]
    known = [reading for reading in readings if reading is not None]
    return sum(known) / len(known) if known and len(known) == len(readings) else None


def seconds_per_pass(record: ConvNetRecord) -> float:
    """Mean elapsed seconds of a training pass."""
    return sum(time.wall_seconds for time in record.times) / len(record.times)


def cpu_seconds_per_pass(record: ConvNetRecord) -> float:
    """Mean processor seconds of a training pass."""
    return sum(time.cpu_seconds for time in record.times) / len(record.times)


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
    first_pass = min(SETTLED_PASS, setting.passes)
    rows = tuple(
        (
            arm.label,
            show(arm.mean(lambda run: run.last.train_loss)),
            show(arm.mean(lambda run: run.last.test_accuracy)),
            show(arm.mean(settled_smoothness), digits=2),
            _count(arm),
        )
        for arm in (plain, normed)
    )
    answer = [*_divergence(plain, normed)]
    pairs = _pairs(normed, plain, settled_smoothness)
    if pairs:
        ratio = paired_ratio(pairs)
        side = ratio.compared_with(1)
        finding = {
            "below": f"BatchNorm makes the objective smoother along its own updates: averaged over passes {first_pass} "
            f"to {setting.passes} its effective smoothness is {show(ratio, digits=2)} times that without",
            "above": f"BatchNorm makes the objective less smooth along its own updates here: averaged over passes "
            f"{first_pass} to {setting.passes} its effective smoothness is {show(ratio, digits=2)} times that without",
            "not decided": f"Whether BatchNorm makes the objective smoother is not decided by these runs: averaged "
            f"over passes {first_pass} to {setting.passes} its effective smoothness is {show(ratio, digits=2)} times "
            f"that without, and the interval includes 1",
        }[side]
        answer.append(f"{finding} (ratio of paired seeds, n = {ratio.n}).")
        plain_level = mean_interval([b for _, b in pairs]).estimate
        normed_level = mean_interval([a for a, _ in pairs]).estimate
        rate = setting.learning_rate
        answer.append(
            f"Gradient descent on an L-smooth function may use learning rates up to 1/L, and is stable below 2/L. With "
            f"the measured values in the place of L, 1/L is {1 / plain_level:.3f} without BatchNorm and "
            f"{1 / normed_level:.3f} with it; the learning rate used, {rate:g}, is {rate * plain_level:.2f} and "
            f"{rate * normed_level:.2f} of that. "
            + (
                "So the smoother objective leaves room for learning rates larger by about the same factor, "
                f"{1 / ratio.estimate:.1f}: that is how smoothness would explain the larger learning rates that "
                "BatchNorm allows, and 'hw4 claim' puts it to the test."
                if side == "below"
                else "These numbers therefore do not show that BatchNorm leaves room for larger learning rates."
            )
            + " The measured value is local, along one minibatch update, not a bound on the whole function."
        )
    answer += _quality(plain, normed)
    start = _pairs(normed, plain, lambda run: run.rows[0].smoothness)
    if start:
        ratio = paired_ratio(start)
        words = {
            "below": "already smoother",
            "above": "less smooth",
            "not decided": "not decidedly smoother or rougher",
        }
        answer.append(
            f"Before training, the network with BatchNorm is {words[ratio.compared_with(1)]}: ratio "
            f"{show(ratio, digits=2)}."
        )
    answer += _compare_last(normed, plain)
    return Section(
        "smoothness", setting, (plain, normed),
        ("model", "train loss", "test accuracy", f"smoothness, passes {first_pass} to {setting.passes}", "diverged"),
        rows, tuple(answer),
    )  # fmt: skip


def _quality(*arms: Arm) -> list[str]:
    """A sentence on how good the readings themselves are: rounding, spread over directions, what was left out."""
    groups = [row.readings for arm in arms for run in arm.runs.values() for row in run.rows if row.readings]
    everything = [reading for readings in groups for reading in readings]
    if not everything:
        return []
    unusable = sum(not reading.usable for reading in everything)
    noise = [r.noise_floor / r.smoothness for r in everything if r.noise_floor is not None and r.smoothness]
    directions = max(len(readings) for readings in groups)
    spreads = [
        statistics.stdev(reading.smoothness for reading in readings) / statistics.fmean(r.smoothness for r in readings)
        for readings in groups
        if len(readings) > 1 and any(reading.smoothness for reading in readings)
    ]
    spread = f", which differ by {statistics.median(spreads):.0%} of it (median standard deviation)" if spreads else ""
    rounding = (
        f"Rounding makes up at most {max(noise):.2%} of a reading; {unusable or 'none'} of {len(everything):,} "
        f"{'was' if unusable == 1 else 'were'} too close to it to be used."
        if noise
        else "How much of a reading is rounding was not measured."
    )
    return [
        f"Each value is the mean over {directions} minibatch update{'s' if directions > 1 else ''}{spread}. {rounding}"
    ]


def _pooling(setting: ConvNetSpec, pooled: Arm, strided: Arm) -> Section:
    """Exercise 3: the table and the answer."""
    rows = tuple(
        (
            arm.label,
            show(arm.mean(lambda run: run.last.train_loss)),
            show(arm.mean(lambda run: run.last.train_accuracy)),
            show(arm.mean(lambda run: run.last.test_loss)),
            show(arm.mean(lambda run: run.last.test_accuracy)),
            show(arm.mean(seconds_per_pass)),
            show(arm.mean(cpu_seconds_per_pass)),
            _count(arm),
        )
        for arm in (pooled, strided)
    )
    answer = [*_divergence(pooled, strided), *_compare_last(strided, pooled)]
    times = _pairs(strided, pooled, cpu_seconds_per_pass)
    if times:
        ratio = paired_ratio(times)
        answer.append(
            f"A training pass of the strided network takes {show(ratio, digits=2)} times the processor time of the "
            f"pooled one's (paired seeds, n = {ratio.n}): its convolutions compute only the quarter of the positions "
            f"that is kept, where pooling computes them all and keeps the largest."
        )
    accuracies = _pairs(strided, pooled, lambda run: run.last.test_accuracy)
    if accuracies and paired_difference(accuracies).compared_with(0) == "below":
        answer.append(
            "A reason that fits the accuracy lost to striding: max-pooling looks at all four positions of a 2x2 "
            "neighbourhood and passes on the strongest response wherever it lies, while a stride looks at one of the "
            "four; with equally many weights the strided network sees fewer places and forgives small shifts less."
        )
    elif accuracies:
        answer.append(
            "A loss of accuracy through striding is not shown by these runs, so on them the time saved comes free."
        )
    return Section(
        "pooling", setting, (pooled, strided),
        ("model", "train loss", "train accuracy", "test loss", "test accuracy", "seconds per pass",
         "processor seconds per pass", "diverged"),
        rows, tuple(answer),
    )  # fmt: skip


_ANSWERS: dict[Exercise, Callable[[ConvNetSpec, Arm, Arm], Section]] = {"smoothness": _smoothness, "pooling": _pooling}


def _pairs(first: Arm, second: Arm, measure: Callable[[ConvNetRecord], float | None]) -> list[tuple[float, float]]:
    """The measure of both arms for every seed at which both finished and both have a value."""
    both = [(measure(run), measure(second.finished[seed]))
            for seed, run in first.finished.items() if seed in second.finished]  # fmt: skip
    return [(a, b) for a, b in both if a is not None and b is not None]


def _compare_last(first: Arm, second: Arm) -> list[str]:
    """Sentences on the last pass's train loss and test accuracy of the first arm against the second."""
    sentences = []
    for name, digits, measure in (
        ("train loss", 3, lambda run: run.last.train_loss),
        ("test accuracy", 4, lambda run: run.last.test_accuracy),
    ):
        pairs = _pairs(first, second, measure)
        if pairs:
            gap = paired_difference(pairs)
            words = {
                "below": f"The {name} of {first.label} is lower than that of {second.label}",
                "above": f"The {name} of {first.label} is higher than that of {second.label}",
                "not decided": f"A difference in {name} between {first.label} and {second.label} is not decided",
            }[gap.compared_with(0)]
            sentences.append(f"{words}: difference {show(gap, digits=digits, sign=True)} (paired seeds, n = {gap.n}).")
    return sentences


def _divergence(*arms: Arm) -> list[str]:
    """A sentence for every arm with diverged runs; they rank worst and are in no mean."""
    return [
        f"{arm.diverged} of {len(arm.runs)} runs of {arm.label} diverged; they count as worst and are in no mean, and "
        f"comparisons leave out their seeds."
        for arm in arms
        if arm.diverged
    ]


def _count(arm: Arm) -> str:
    return f"{arm.diverged} of {len(arm.runs)}"


def show(interval: Interval | None, *, digits: int = 3, sign: bool = False) -> str:
    """Write an interval as ``estimate [low, high]``; one seed has no interval, no value at all is a dash.

    The space inside the brackets does not break, so a narrow table puts the whole interval on a line of its own.
    """
    if interval is None:
        return "-"
    form = f"{'+' if sign else ''}.{digits}f"
    estimate = f"{interval.estimate:{form}}"
    return estimate if interval.n < 2 else f"{estimate} [{interval.low:{form}},\u00a0{interval.high:{form}}]"

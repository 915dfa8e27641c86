"""What a page says and draws, from made-up records, beside numbers worked out here by scipy and by hand."""

import json
import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit, logit

from hw4.records import AuditRecord, ConvNetRecord, PassTime, TextCNNRecord
from hw4.report import audit, exercises
from hw4.report import strides as strides_report
from hw4.report.entry import Entry
from hw4.report.words import settled_span
from hw4.specs import ConvNetSpec, TextCNNSpec, sweep_specs
from hw4.stats import compare_crossed
from hw4.variants import VARIANTS
from tests.factory import DATA as IMAGES
from tests.factory import make_reading, make_record, make_row
from tests.test_strides import DATA, HERE, make


def ends(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and t interval: low, mean, high."""
    mean = statistics.mean(values)
    low, high = stats.t.interval(0.95, len(values) - 1, loc=mean, scale=stats.sem(values))
    return float(low), mean, float(high)


def logs_ends(values: Sequence[float]) -> tuple[float, float, float]:
    """The same for the geometric mean."""
    low, mean, high = map(math.exp, ends([math.log(value) for value in values]))
    return low, mean, high


def written(low: float, mid: float, high: float, digits: int = 3, sign: str = "") -> str:
    return f"{mid:{sign}.{digits}f} [{low:{sign}.{digits}f},\u00a0{high:{sign}.{digits}f}]"


def shown(values: Sequence[float], digits: int = 3, *, sign: str = "", log: bool = False) -> str:
    """How the interval of a mean is written, or with ``log`` that of a geometric mean."""
    return written(*(logs_ends(values) if log else ends(values)), digits, sign)


def gaps(first: Sequence[float], second: Sequence[float]) -> list[float]:
    return [a - b for a, b in zip(first, second, strict=True)]


def ratios(first: Sequence[float], second: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(first, second, strict=True)]


PASSES = 4
PLAIN = {
    "train_loss": [0.5, 0.4, 0.6],
    "train_accuracy": [0.9, 0.91, 0.89],
    "test_loss": [0.7, 0.65, 0.72],
    "test_accuracy": [0.8, 0.82, 0.81],
    "smoothness": [10.0, 11.0, 12.0],
    "start": [2.0, 3.0, 4.0],
    "seconds": [1.0, 1.1, 1.2],
}
OTHER = {
    "train_loss": [0.1, 0.2, 0.15],
    "train_accuracy": [0.95, 0.97, 0.96],
    "test_loss": [0.4, 0.45, 0.35],
    "test_accuracy": [0.90, 0.93, 0.92],
    "smoothness": [5.0, 4.0, 6.3],
    "start": [8.0, 9.0, 16.0],
    "seconds": [0.5, 0.6, 0.5],
}
Numbers = dict[str, list[float]]


def run(variant: str, seed: int, numbers: Numbers, *, lost: bool = False) -> ConvNetRecord:
    """A run that ends with these numbers: smoothness in the mean of passes 3 and 4, processor seconds in the mean."""
    mine = {name: values[seed] for name, values in numbers.items()}
    spec = ConvNetSpec.build(
        data="digits", passes=PASSES, seed=seed, norm=VARIANTS[variant].norm, downsample=VARIANTS[variant].downsample
    )
    rows = []
    for completed, factor in enumerate((None, 3.0, 3.0, 0.8, 1.2)):
        level = mine["start"] if factor is None else factor * mine["smoothness"]
        scores = {name: mine[name] for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy")}
        if completed < PASSES:  # other scores than at the end
            scores = {name: 2.0 if "loss" in name else 0.1 + 0.2 * completed for name in scores}
        readings = [make_reading(level * each, noise_floor=2.5e-4 * level * each) for each in (0.9, 1.1)]
        rows.append(make_row(completed).model_copy(update={**scores, "readings": readings}))
    if lost:
        rows = [*rows[:2], make_row(2, loss=None, accuracy=None, smoothness=None)]
    times = [
        PassTime(wall_seconds=2 * mine["seconds"] * each, cpu_seconds=mine["seconds"] * each)
        for each in (0.7, 0.9, 1.1, 1.3)
    ]
    record = make_record(spec, rows, diverged=lost)
    return record.model_copy(update={"times": times[: len(rows) - 1]})


def entry_of(variant: str, other: Numbers, plain: Numbers, seeds: Sequence[int] = (0, 1, 2)) -> Entry:
    """The comparison of another network with the plain one."""
    made = [run(name, seed, numbers) for name, numbers in ((variant, other), ("pool", plain)) for seed in seeds]
    (entry,) = exercises.entries(made)
    return entry


def without_readings(record: ConvNetRecord) -> ConvNetRecord:
    return record.model_copy(update={"rows": [row.model_copy(update={"readings": []}) for row in record.rows]})


def test_a_network_without_readings_was_not_measured_whatever_stands_beside_it() -> None:
    made = [run("pool", 0, PLAIN), without_readings(run("pool-batchnorm", 0, OTHER))]
    (entry,) = exercises.entries(made)
    assert "Smoothness is not measured in both networks at any seed, so it cannot be compared." in entry.answer
    assert ["not measured" in row for row in entry.tables[0][2]] == [False, True]
    assert any("Smoothness: full gradients" in sentence for sentence in entry.data), "the plain one's were read"
    (bare,) = exercises.entries(list(map(without_readings, made)))
    assert not any("Smoothness: full gradients" in sentence for sentence in bare.data)


def test_networks_that_nothing_is_compared_with_are_noted_beside_a_whole_exercise() -> None:
    made = [run("pool", 0, PLAIN), run("pool-batchnorm", 0, OTHER), run("pool-groupnorm", 0, OTHER)]
    (entry,) = exercises.entries(made)
    (note,) = entry.notes
    assert note.startswith("In no exercise's comparison: ConvNet + GroupNorm (digits, 4 passes); ")
    assert not exercises.entries(made[:2])[0].notes


def test_differences_are_shown_as_far_as_they_can_be() -> None:
    far = {**OTHER, "test_accuracy": [0.9, 0.1, 0.5]}
    (sentence,) = [each for each in entry_of("pool-batchnorm", far, PLAIN).answer if "in test accuracy" in each]
    assert re.search(r"\[-1\.0000,\s\+0\.\d+\]|\[-1\.0000,\s\+1\.0000\]", sentence), sentence


def test_exercise_1_says_what_follows_from_its_numbers() -> None:
    entry = entry_of("pool-batchnorm", OTHER, PLAIN)
    smoother = ratios(OTHER["smoothness"], PLAIN["smoothness"])
    factor = 1 / statistics.geometric_mean(smoother)
    pairs = " (paired seeds, n = 3)."
    at_start = shown(ratios(OTHER["start"], PLAIN["start"]), 2, log=True)
    assert re.search(rf"efore training.* (less smooth|larger).* {re.escape(at_start)} times", entry.answer[4])
    assert [sentence for i, sentence in enumerate(entry.answer) if i not in {1, 4}] == [
        f"BatchNorm makes the objective smoother: along each network's own training steps the gradient changes "
        f"{shown(smoother, 2, log=True)} times as fast with BatchNorm as without (effective smoothness over passes 3 "
        f"to 4; paired seeds, n = 3).",
        f"Gradient descent on an L-smooth function may use learning rates up to 1/L, and is stable below 2/L. With "
        f"the measured values in the place of L, 1/L is 0.0909 without BatchNorm and 0.196 with it; the learning rate "
        f"used, 0.04, is 44% of 1/L without BatchNorm and 20% with it. If L were the same at every rate, the smoother "
        f"objective would leave room for learning rates larger by about the same factor, {factor:.1f}: that is how "
        f"smoothness would explain the larger learning rates that BatchNorm allows, and 'hw4 claim' puts it to the "
        f"test. The measured value is local, along one minibatch update, not a bound on the whole function.",
        "Each value is the mean over 2 minibatch updates, which scatter by 14% (median standard deviation). Rounding "
        "error is below 0.03% of every reading; all 60 were kept.",
        f"The train loss of ConvNet + BatchNorm is lower than that of ConvNet: difference "
        f"{shown(gaps(OTHER['train_loss'], PLAIN['train_loss']), sign='+')}{pairs}",
        f"The test accuracy of ConvNet + BatchNorm is higher than that of ConvNet: difference "
        f"{shown(gaps(OTHER['test_accuracy'], PLAIN['test_accuracy']), 4, sign='+')}{pairs}",
        f"The test loss of ConvNet + BatchNorm is lower than that of ConvNet: difference "
        f"{shown(gaps(OTHER['test_loss'], PLAIN['test_loss']), sign='+')}{pairs}",
    ]
    assert entry.answer[1].startswith("Effective smoothness is how much the gradient")
    ((_, header, rows),) = entry.tables
    assert header == ("model", "train loss", "test loss", "test accuracy", "smoothness over passes 3 to 4", "diverged")
    for row, label, numbers in zip(rows, ("ConvNet", "ConvNet + BatchNorm"), (PLAIN, OTHER), strict=True):
        scores = [shown(numbers[name]) for name in ("train_loss", "test_loss", "test_accuracy")]
        cells = (*scores, shown(numbers["smoothness"], 2))
        assert tuple(row) == (label, *cells, "0 of 3")


def test_exercise_3_says_what_follows_from_its_numbers() -> None:
    entry = entry_of("stride", {**OTHER, "test_accuracy": [0.7, 0.69, 0.72]}, PLAIN)
    assert list(entry.answer)[:3] == [
        f"The train loss of Strided ConvNet is lower than that of ConvNet: difference "
        f"{shown(gaps(OTHER['train_loss'], PLAIN['train_loss']), sign='+')} (paired seeds, n = 3).",
        f"The test accuracy of Strided ConvNet is lower than that of ConvNet: difference "
        f"{shown(gaps([0.7, 0.69, 0.72], PLAIN['test_accuracy']), 4, sign='+')} (paired seeds, n = 3).",
        f"A training pass of the strided network takes "
        f"{shown(ratios(OTHER['seconds'], PLAIN['seconds']), 2, log=True)} times the processor time of the pooled "
        f"one's (paired seeds, n = 3): its convolutions compute only the quarter of the positions that is kept, where "
        f"pooling computes them all and keeps the largest.",
    ]
    assert entry.answer[3].startswith("These are times of hw4's networks")
    assert entry.answer[4].startswith("A reason that fits the accuracy lost to striding: max-pooling looks at all four")
    ((_, header, rows),) = entry.tables
    assert header[1:-1] == (
        *("train loss", "train accuracy", "test loss", "test accuracy"),
        *("seconds per pass", "processor seconds per pass"),
    )
    scores = [shown(PLAIN[name]) for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy")]
    seconds = [shown([2 * value for value in PLAIN["seconds"]]), shown(PLAIN["seconds"])]
    assert list(rows[0]) == ["ConvNet", *scores, *seconds, "0 of 3"]


def test_a_run_of_three_passes_settles_in_its_last() -> None:
    assert [settled_span(last) for last in (2, 3, 4)] == ["after pass 2", "after pass 3", "over passes 3 to 4"]


SCATTERED = {name: [values[1], values[0], values[2]] for name, values in PLAIN.items()}


@pytest.mark.parametrize(
    ("variant", "other", "plain", "seeds", "words"),
    [
        (
            "pool-batchnorm",
            PLAIN,
            OTHER,
            (0, 1, 2),
            (
                "BatchNorm makes the objective less smooth here: along",
                "So by this measure BatchNorm leaves less room for large learning rates, not more.",
                "efore training,? (the network with BatchNorm is already smoother: |is smaller with BatchNorm: it is)",
                r"The train loss of ConvNet \+ BatchNorm is higher than that of ConvNet: difference \+",
            ),
        ),
        (
            "pool-batchnorm",
            SCATTERED,
            PLAIN,
            (0, 1, 2),
            (
                "Whether BatchNorm makes the objective smoother is not decided by these runs: along",
                "Whether BatchNorm leaves room for larger learning rates is not decided by these numbers.",
                "efore training,? (it )?is not decided",
                r"A difference in train loss between ConvNet \+ BatchNorm and ConvNet is not decided: it is \+0\.000",
            ),
        ),
        (
            "pool-batchnorm",
            OTHER,
            PLAIN,
            (1,),
            (
                "Seen in the one seed that was run, which cannot be told from chance: along each",
                r"changes 0.36 times as fast with BatchNorm as without \(effective smoothness over passes 3 to 4\)\.",
                "One seed cannot show whether BatchNorm leaves room for larger learning rates.",
                r"chance(, before training)?: .* is 3\.00 times that without\.",
                r"chance: the train loss of ConvNet \+ BatchNorm less that of ConvNet is -0\.200\.",
            ),
        ),
        ("stride", PLAIN, OTHER, (0, 1, 2), ("A training pass", "on this machine striding saves no time.")),
        ("stride", SCATTERED, PLAIN, (0, 1, 2), ("Whether striding saves time is not decided: a training pass of",)),
        ("stride", OTHER, PLAIN, (2,), ("chance: a training pass of the strided network takes 0.42 times",)),
    ],
    ids=["rougher", "undecided", "one seed", "slower", "as quick", "one seed's time"],
)
def test_the_words_follow_the_side_on_which_the_interval_lies(
    variant: str, other: Numbers, plain: Numbers, seeds: Sequence[int], words: Sequence[str]
) -> None:
    answer = " ".join(entry_of(variant, other, plain, seeds).answer)
    for expected in words:
        assert re.search(expected, answer), expected


def test_curves_bands_and_axes_hold_the_runs() -> None:
    made = [run("pool", 0, PLAIN, lost=True), *(run("pool", seed, PLAIN) for seed in (1, 2))]
    made += [run("pool-batchnorm", seed, OTHER) for seed in (0, 1, 2)]
    (entry,) = exercises.entries(made)
    assert entry.figure is not None
    loss, _, accuracy, smoothness = entry.figure.axes
    assert loss.get_yscale() == "log"
    assert loss.get_ylim() == pytest.approx((0.1 / 1.2, 2.0 * 1.2))
    assert accuracy.get_ylim() == pytest.approx((0.3 - 0.063, 0.93 + 0.063)), "what follows the first pass, and a tenth"
    assert accuracy.get_xlabel().endswith("\n(before training: 0.10)")
    assert smoothness.get_ylim() == pytest.approx((0, 1.05 * 36))
    for ax in entry.figure.axes:
        assert ax.get_xlim() == pytest.approx((-0.16, 4.16))
        plain, thin, cross, normed = ax.lines
        assert list(np.asarray(plain.get_xdata())) == list(np.asarray(normed.get_xdata())) == [0, 1, 2, 3, 4]
        assert len(np.asarray(thin.get_xdata())) == 2, "the lost run up to its end"
        assert (cross.get_marker(), list(np.asarray(cross.get_xdata()))) == ("x", [1])
        assert thin.get_color() == cross.get_color() == plain.get_color() != normed.get_color()
    band = np.asarray(smoothness.collections[1].get_paths()[0].vertices)
    low, _, high = ends([1.2 * value for value in OTHER["smoothness"]])
    assert sorted({*band[band[:, 0] == PASSES][:, 1]}) == pytest.approx([low, high])
    assert entry.answer[0].startswith("1 of 3 runs of ConvNet diverged.")
    assert "2 of the 3 seeds can be used to compare the two networks." in entry.answer[0]


def test_an_entry_says_how_it_is_made_again_and_what_it_took() -> None:
    entry = entry_of("stride", OTHER, PLAIN)
    assert entry.rerun == "hw4 run --exercise pooling --data embedded --seeds 3 --no-longer --passes 4 --fresh"
    assert entry.file_name == "pooling.png"
    assert entry.seconds == pytest.approx(4 * (3.3 + 1.6)), "processor seconds of every pass"
    assert entry.data[1].startswith("Seeds 0, 1, 2: initial weights")
    assert entry.caption == (
        "made-up digits, 100 training and 50 test images, data sha256 000000000000; SGD, learning rate 0.04, batch 32, "
        "4 passes; 3 seeds"
    )
    assert entry.anchor == "exercise-3-max-pooling-or-stride"
    for seconds, words in (
        (0.04, "less than 0.1 seconds"),
        (0.06, "0.1 seconds"),
        (9.94, "9.9 seconds"),
        (10.0, "10 seconds"),
        (119.0, "119 seconds"),
        (120.0, "2 minutes"),
    ):
        assert replace(entry, seconds=seconds).duration == words
    assert entry.circumstances == [entry.circumstances[0]]
    assert re.search(r", 1 thread of \d+ logical processors, float32, ", entry.circumstances[0])
    there = replace(entry, environments=[entry.environments[0].model_copy(update={"device": "cuda", "threads": 2})])
    assert re.search(r", 2 threads of \d+ logical processors, cuda, float32, ", there.circumstances[0])


RIGHT = {1: [14] * 4, 5: [19, 20, 19, 20], 10: [4, 5, 3, 5], 100: [7, 2, 5, 6], 500: [7, 2, 5, 6]}
"""Right answers of 20, by stride and trial."""
LABELLED = DATA.model_copy(update={"n_test": 20, "majority_accuracy": 0.25})


def trial(spec: TextCNNSpec, right: int | None) -> TextCNNRecord:
    """A trial with so many right answers, at one function's strides on the same questions, or a lost one."""
    first = min(spec.stride, 100) + 3 * spec.trial
    correct = None if right is None else [(7 * question + first) % 20 < right for question in range(20)]
    changes = {"correct": correct, "test_accuracy": None if right is None else right / 20, "data": LABELLED}
    return make(spec, None).model_copy(update={**changes, "diverged": right is None})


def sweep_entry(rescue: Sequence[int | None] = (15, 16, 17, 16), *, strides: Sequence[int] = tuple(RIGHT)) -> Entry:
    """Four trials of every stride, of which stride 1 loses three at 0.1, and what ``rescue`` says at 0.05."""
    specs = sweep_specs("grammar", strides=strides, trials=4)
    made = [
        trial(spec, RIGHT[spec.stride][spec.trial] if spec.stride > 1 or not spec.trial else None) for spec in specs
    ]
    slower = sweep_specs("grammar", strides=[1], trials=4, learning_rate=0.05)[: len(rescue)]
    (entry,) = strides_report.entries([*made, *(trial(spec, n) for spec, n in zip(slower, rescue, strict=True))])
    return entry


def shares(stride: int) -> list[float]:
    return [right / 20 for right in RIGHT[stride]]


FIVE = written(*ends(shares(5))[:2], 1.0)
"""No share is above 1, wherever Student's interval ends."""


def test_exercise_2_says_what_follows_from_its_numbers() -> None:
    entry = sweep_entry()
    rescued = shown([0.75, 0.8, 0.85, 0.8])
    control, pairs = entry.answer[-1], entry.answer[-2]
    assert list(entry.answer[:-2]) == [
        f"Stride 5 is the most accurate of the strides at which every trial trained at learning rate 0.1, "
        f"{FIVE} in the mean; stride 1, of which 3 of 4 trials diverged there, "
        f"trains at 0.05 and reaches {rescued}.",
        "A logistic regression on the same vectors reaches 0.700, the majority class 0.250.",
        "The strides of convolution and pooling multiply, so large ones leave most of the vector unread: stride 1 "
        "reads 96, stride 5 reads 32, stride 10 reads 5, stride 100 reads 2, stride 500 reads 2 of the 96 numbers. The "
        "chart shows how much of the question is read as much as it shows the stride.",
        "All bars share 20 test questions; other questions could move them together by about 0.22.",
        f"At stride 1, 3 of 4 trials diverged at learning rate 0.1; they have no accuracy, and the 1 that trained is a "
        f"selected sample, so the stride is compared with no other. At 0.05 all train, to a test accuracy of {rescued} "
        f"over 4 trials.",
    ]
    assert pairs == (
        "Of 3 pairs of strides, each two functions once, compared trial by trial and question by question, 2 differ "
        "reliably, allowing for the number of comparisons (Holm): 5 above 10; 5 above 100; 1 pair is not decided."
    )
    # The first two trials of stride 100 beside the last two of stride 500: 7 and 2 right answers less 5 and 6.
    assert "at independent seeds their difference measures noise alone: -0.050 [-1.000,\u00a0+1.000]" in control
    assert control.endswith("which includes zero; at equal seeds their answers are the same on every question.")
    assert control.startswith("Strides 100 and 500 compute the same function, so")


def test_the_sweeps_tables_hold_every_stride_and_every_pair() -> None:
    (_, _, bars), (_, _, pairs) = sweep_entry().tables
    assert [list(row) for row in bars[:3]] == [
        ["1", "0.1", "96 of 96", "0.700", "0.175", "0.700", "3 of 4"],
        ["5", "0.1", "32 of 96", FIVE, "0.975", "0.950 to 1.000", "0 of 4"],
        ["10", "0.1", "5 of 96", shown(shares(10)), "0.212", "0.150 to 0.250", "0 of 4"],
    ]
    assert list(bars[-1][:3]) == ["1", "0.05", "96 of 96"]
    verdicts = {row[0]: row[3] for row in pairs}
    assert verdicts == {
        **{f"1 against {other}": "not compared: 3 of 4 trials of stride 1 diverged" for other in (5, 10, 100, 500)},
        **{f"5 against {other}": "higher" for other in (10, 100)},
        "10 against 100": "not decided",
        **{f"{stride} against 500": f"the functions of {stride} against 100" for stride in (5, 10)},
        "100 against 500": "one function: the control",
    }
    five, ten = (
        np.array(
            [
                trial(spec, RIGHT[stride][spec.trial]).correct
                for spec in sweep_specs("grammar", strides=[stride], trials=4)
            ]
        )
        for stride in (5, 10)
    )
    found, _ = compare_crossed(five, ten)
    (row,) = [row for row in pairs if row[0] == "5 against 10"]
    low, mid, high = found.low, 0.975 - 0.2125, min(found.high, 1)
    assert row[1] == written(low, mid, high, sign="+")


def test_the_sweeps_chart_has_whiskers_where_there_is_a_spread() -> None:
    entry = sweep_entry()
    assert entry.figure is not None
    (ax,) = entry.figure.axes
    assert [(bar.get_height(), bool(bar.get_hatch())) for bar in ax.patches] == [  # type: ignore[attr-defined]
        (pytest.approx(height), hatched)
        for height, hatched in ((0.7, True), (0.975, False), (0.2125, False), (0.25, False), (0.25, False))
    ]
    whiskers = [np.asarray(found.get_segments()[0])[:, 1] for found in ax.collections]  # type: ignore[attr-defined]
    expected = [ends(shares(stride)) for stride in (5, 10, 100, 500)]
    assert np.array(whiskers) == pytest.approx(np.array([(max(low, 0), min(high, 1)) for low, _, high in expected]))
    assert ax.get_ylim() == pytest.approx((0, 1.2))
    assert ax.get_xlim() == pytest.approx((-0.6, 4.6))
    assert entry.alt == (
        "Bar chart of mean test accuracy against stride. 1: 0.70, 3 of 4 diverged; 5: 0.97; 10: 0.21; 100: 0.25; "
        "500: 0.25. The first table gives the numbers."
    )
    assert entry.rerun == (
        "hw4 sweep --data embedded --stride 1 --stride 5 --stride 10 --stride 100 --stride 500 --trials 4 --fresh"
    )
    assert "50 epochs; 4 trials per stride" in entry.caption


def test_what_rescued_a_stride_and_what_did_not_is_said() -> None:
    tried, untried = (" ".join(sweep_entry(rescue).answer) for rescue in ((15, None, 17, None), ()))
    assert "no other. Smaller rates lost trials too: 2 of 4 at 0.05." in tried
    assert "no other. No smaller learning rate was tried." in untried
    assert sweep_entry(()).rerun.endswith("--trials 4 --no-rescue --fresh")
    alone = sweep_entry((), strides=(5,))
    assert alone.answer[0] == f"Stride 5 reaches a test accuracy of {alone.tables[0][2][0][3]} at learning rate 0.1."
    lost = sweep_entry((), strides=(1,))
    assert lost.answer[0] == "At no stride did every trial train at learning rate 0.1."
    two = sweep_entry((), strides=(10, 100)).answer
    assert two[0].endswith("; whether it is more accurate than stride 10 is not decided.")
    assert "Of 1 pair of strides, compared trial by trial and question by question, none differs reliably" in two[-1]


WAYS = {"right": 1, "first parameter": 0.5, "whole pass": 2, "divided twice": 25, "evaluation mode": 3, "notebook": 30}
NORMED = ("notebook", "pool-batchnorm")
"""By how much each way of measuring multiplies smoothness; the notebook's by ten times as much with BatchNorm."""


READ, MISREAD = [0.6, 0.62, 0.61, 0.6, 0.63] * 2, [0.58, 0.57, 0.6, 0.61, 0.59] * 2


def audit_record(**changes: object) -> AuditRecord:
    """Three seeds of four passes, a sweep that lost three runs of stride 1."""
    runs = [
        {
            "label": VARIANTS[variant].label,
            "variant": variant,
            "seed": seed,
            "smoothness": {
                way: [each * factor * (10 if (way, variant) == NORMED else 1) * level for each in (9, 9, 0.5, 1.5)]
                for way, factor in WAYS.items()
            },
            "train_loss": [2.3, 2.0, 1.5, numbers["train_loss"][seed] + 0.25, numbers["train_loss"][seed]],
            "test_accuracy": [0.1, 0.5, 0.6, 0.7, numbers["test_accuracy"][seed]],
        }
        for variant, numbers in (("pool", PLAIN), ("pool-batchnorm", OTHER))
        for seed, level in enumerate(numbers["smoothness"])
    ]
    document = {
        "key": "audit",
        "data": IMAGES.model_dump(),
        "questions_data": LABELLED.model_dump(),
        "environment": HERE.model_dump(),
        "learning_rate": 0.04,
        "runs": runs,
        "pixels": {
            **{"largest_right": 4.25, "largest_notebook": 12_345.6, "above_100_right": 0, "above_100_notebook": 3},
            **{"test_loss_right": 0.5, "test_loss_notebook": 0.75},
            **{"test_accuracy_right": 0.8, "test_accuracy_notebook": 0.79},
        },
        "strides": [
            {"stride": 1, "notebook": 0.3, "trained": [0.7, 0.72], "diverged": 3},
            {"stride": 5, "notebook": 0.55, "trained": [0.54, 0.56], "diverged": 0},
            {"stride": 100, "notebook": 0.25, "trained": [0.2, 0.3], "diverged": 0},
            {"stride": 500, "notebook": 0.26, "trained": [0.22, 0.3], "diverged": 0},
        ],
        "questions": {
            **{"questions": 50, "cut": 4, "mangled": 3, "logistic_right": 0.7, "logistic_notebook": 0.68},
            **{"stride5_right": READ, "stride5_notebook": MISREAD},
        },
        "evaluation": {"notebook_seconds": 3.0, "right_seconds": 0.5, "pass_seconds": 2.0},
        "notebook": None,
    }
    if changes.get("runs") == "one seed":
        changes["runs"] = [each for each in runs if each["seed"] == 0]
    return AuditRecord.model_validate_json(json.dumps({**document, **changes}))


def test_the_audit_pairs_no_trials_where_some_diverged() -> None:
    """Which of one reading's stand beside which of the other's is not known then."""
    record = audit_record()
    assert record.questions is not None
    fewer = record.questions.model_copy(update={"stride5_notebook": MISREAD[1:], "stride5_right": READ[:-1]})
    (entry,) = audit.entries(record.model_copy(update={"questions": fewer}))
    (row,) = [row for _, _, rows in entry.tables for row in rows if row[0].startswith("Accuracy at stride 5")]
    assert row[1:] == (shown(MISREAD[1:]), shown(READ[:-1]), "-; logistic regression 0.680 against 0.700")


def test_the_audit_says_what_each_flaw_changes() -> None:
    (entry,) = audit.entries(audit_record())
    ((_, _, rows),) = entry.tables
    right = ratios(OTHER["smoothness"], PLAIN["smoothness"])
    by_way = {row[0].partition(": ")[2]: row for row in rows[:5]}
    for label, factors, ratio in (
        ("first parameter's gradient only", "0.5 and 0.5", right),
        ("displacement over a whole pass", "2 and 2", right),
        ("divided by the learning rate once more", "25 and 25", right),
        ("evaluation mode", "3 and 3", right),
        ("all four, as in the notebook", "30 and 3e+02", [10 * each for each in right]),
    ):
        expected = (shown(ratio, 2, log=True), shown(right, 2, log=True), f"values times {factors} (without, with)")
        assert tuple(by_way[label][1:]) == expected
    gained = gaps(OTHER["test_accuracy"], PLAIN["test_accuracy"])
    lost = gaps(MISREAD, READ)
    assert [list(row[1:]) for row in rows[5:]] == [
        ["0.750", "0.500", "the last pass is missing: +0.250 on average over both networks"],
        [
            "12,346",
            "4.2",
            "3 of 50 test images have a pixel above 100; test loss 0.750 against 0.500, accuracy 0.790 "
            "against 0.800 (one seed)",
        ],
        ["3.00", "0.50", "times 6.0; a training pass takes 2.00"],
        ["0.300", written(*ends([0.7, 0.72])), "3 of 5 runs diverged and have no accuracy"],
        [
            "0.250 and 0.260",
            "one function",
            "the two read the same positions, so any gap between their bars is noise of the seeds",
        ],
        [
            "+0.1000",
            shown(gained, 4, sign="+"),
            f"seeds alone scatter by {statistics.stdev(OTHER['test_accuracy']):.4f} (standard deviation)",
        ],
        ["43", "50", "4 cut, 3 otherwise mangled"],
        [shown(MISREAD), shown(READ), f"{shown(lost, 4, sign='+')}; logistic regression 0.680 against 0.700"],
    ]
    assert rows[5][0].startswith("Train loss after 4 passes, without BatchNorm")


@pytest.mark.parametrize(
    ("factors", "said"),
    [
        ((1, 1, 1), "is smoother (X), measured right it is smoother (Y); the order is the same, the numbers are not"),
        ((10, 10, 10), "is rougher (X), measured right it is smoother (Y); the flaws change the answer"),
        (
            (10, 1, 0.1),
            "is neither smoother nor rougher as far as is decided (X), measured right it is smoother (Y); whether the "
            "flaws change the order is not decided",
        ),
    ],
)
def test_the_audit_compares_the_sides_that_two_ways_decide(factors: tuple[float, ...], said: str) -> None:
    record, runs = audit_record(), []
    for run in record.runs:
        factor = factors[run.seed] if run.variant == NORMED[1] else 1
        flawed = [each * factor for each in run.smoothness["right"]]
        runs.append(run.model_copy(update={"smoothness": {**run.smoothness, "notebook": flawed}}))
    answer = audit.entries(record.model_copy(update={"runs": runs}))[0].answer[0]
    assert said in re.sub(r"\([^)]*\)(?=.*measured)", "(X)", re.sub(r"\([^()]*\);", "(Y);", answer))


def test_the_audits_answer_and_figure_follow_its_numbers() -> None:
    (entry,) = audit.entries(audit_record())
    right = ratios(OTHER["smoothness"], PLAIN["smoothness"])
    assert list(entry.answer[:2]) == [
        f"The notebook's smoothness without BatchNorm is 330 where the definition gives 11, with it 1.53e+03 where it "
        f"gives 5.1. By the notebook's way the network with BatchNorm is rougher "
        f"({shown([10 * each for each in right], 2, log=True)}), measured right it is smoother "
        f"({shown(right, 2, log=True)}); the flaws change the answer.",
        "In the sweep 3 runs diverged, at stride 1; averaged in, they look like a property of the stride.",
    ]
    assert "with 'hw4 audit --data real'" in entry.answer[-1]
    assert entry.rerun == "hw4 audit --data embedded --passes 4"
    assert "learning rate 0.04, 3 seeds;" in entry.caption
    assert entry.figure is not None
    curves, shares_of, bars = entry.figure.axes
    assert list(np.asarray(curves.lines[1].get_ydata())) == pytest.approx([99, 99, 5.5, 16.5])
    assert list(np.asarray(curves.lines[2].get_ydata())) == pytest.approx(
        [300 * each * 5.1 for each in (9, 9, 0.5, 1.5)]
    )
    drawn = [np.asarray(found.get_segments()[0]) for found in shares_of.collections]  # type: ignore[attr-defined]
    low, _, high = logs_ends(right)
    assert drawn[0].tolist() == [pytest.approx([low, 0]), pytest.approx([high, 0])]
    assert drawn[-1].tolist() == [pytest.approx([10 * low, -5]), pytest.approx([10 * high, -5])]
    heights = [0.3, 0.55, 0.25, 0.26, 0.71, 0.55, 0.25, 0.26]
    assert [bar.get_height() for bar in bars.patches] == pytest.approx(heights)  # type: ignore[attr-defined]
    middles = [bar.get_x() + bar.get_width() / 2 for bar in bars.patches]  # type: ignore[attr-defined]
    assert middles == pytest.approx([-0.2, 0.8, 1.8, 2.8, 0.2, 1.2, 2.2, 3.2]), "side by side"
    assert [text.get_text() for text in bars.texts] == ["3 lost"]
    (one,) = audit.entries(audit_record(runs="one seed", strides=[], questions=None))
    assert len(one.tables[0][2]) == 8, "without seeds, strides and questions there is less to say"
    assert one.answer[0].endswith("whether the flaws change the order is not decided.")
    assert "neither smoother nor rougher as far as is decided" in one.answer[0], "one seed decides nothing"
    single = [{"stride": 1, "notebook": 0.3, "trained": [0.7], "diverged": 1}]
    (said,) = audit.entries(audit_record(strides=single))
    assert (
        "In the sweep 1 run diverged, at stride 1; averaged in, it looks like a property of the stride." in said.answer
    )
    assert "1 of 2 runs diverged and has no accuracy" in [cell for row in said.tables[0][2] for cell in row]
    with pytest.raises(ValueError, match="at least 2 items"):
        audit_record(runs=[audit_record().model_dump()["runs"][0]])


def deviations(
    printed: Sequence[float], ours: Sequence[Sequence[float]], *, share: bool
) -> list[tuple[float, float, float, float]]:
    """The textbook's prediction interval, and how far from its middle a number printed like this may lie at least."""
    found = []
    for number, values in zip(printed, zip(*ours, strict=True), strict=True):
        scale, back = (logit, expit) if share else (math.log, math.exp)
        each = [float(scale(value)) for value in values]
        reach = stats.t.ppf(0.975, len(each) - 1) * statistics.stdev(each) * math.sqrt(1 + 1 / len(each))
        mid = statistics.mean(each)
        nearest = min(max(float(back(mid)), number - 0.0005), number + 0.0005)
        low, middle, high = (float(back(mid + side * reach)) for side in (-1, 0, 1))
        found.append((low, middle, high, float(scale(nearest) - mid) / reach))
    return found


METRICS = {
    "train_loss": "train loss",
    "train_accuracy": "train accuracy",
    "test_loss": "test loss",
    "test_accuracy": "test accuracy",
}
PRINTED = {"train_loss": [2.31, 0.52, 0.3], "train_accuracy": [0.1, 0.8, 0.9]}
PRINTED |= {"test_loss": [2.28, 0.6, 9.0], "test_accuracy": [0.11, 0.99, 0.85]}
CENTRES = {**PRINTED, "test_loss": [2.3, 0.6, 0.55], "test_accuracy": [0.11, 0.78, 0.85]}


def session(seed: int, n_train: int) -> dict[str, Any]:
    factor = (0.95, 1.0, 1.05, 1.02)[seed]
    scores = {name: [value * factor for value in values] for name, values in CENTRES.items()}
    return {"variant": "pool", "seed": seed, "n_train": n_train, **scores}


def notebook_entry(scores: Numbers = PRINTED) -> Entry:
    """One printed run with two numbers that are not ours, four of ours on as many images and three on fewer."""
    printed = {
        "n_train": 7200,
        "n_test": 10_000,
        "seconds": {"pool": 100.0, "stride": 52.0},
        "runs": [{"title": "Exercise 1, ConvNet", "variant": "pool", **scores}],
        "strides": [
            {"stride": 1, "accuracies": [0.6, 0.61, 0.62, 0.018, 0.018]},
            {"stride": 5, "accuracies": [0.5, 0.52, 0.51, 0.5, 0.53]},
        ],
    }
    seconds = [
        {
            "layers": layers,
            "variant": variant,
            "times": [{"wall_seconds": 9.0, "cpu_seconds": pace * each} for each in rounds],
        }
        for layers, share in (("the notebook's", 0.5), ("hw4's", 0.2))
        for variant, pace, rounds in (("stride", share, (1.0, 1.1, 0.9)), ("pool", 1.0, (1.0, 1.0, 1.0)))
    ]
    ours = [
        {"stride": 1, "notebook": 0.5, "trained": [0.6, 0.63, 0.61], "diverged": 2},
        {"stride": 5, "notebook": 0.7, "trained": [0.7, 0.71, 0.72, 0.69, 0.7], "diverged": 0},
    ]
    found = {
        "printed": printed,
        "repeated": [*(session(seed, 7200) for seed in range(4)), *(session(seed, 6000) for seed in range(3))],
        "diverged": ["stride, seed 9"],
        "class_0_share": 0.018,
        "strides": ours,
        "seconds": seconds,
    }
    _, entry = audit.entries(audit_record(notebook=found))
    return entry


def test_the_notebook_is_held_against_ours_number_by_number() -> None:
    entry = notebook_entry()
    (_, _, runs), (_, _, strides), (_, _, numbers) = entry.tables
    ours = [session(seed, 7200) for seed in range(4)]
    expected = {
        name: deviations(PRINTED[name], [run[name] for run in ours], share="accuracy" in name) for name in METRICS
    }
    outside = {(name, i): abs(each[3]) > 1 for name, found in expected.items() for i, each in enumerate(found)}
    assert [place for place, out in outside.items() if out] == [("test_loss", 2), ("test_accuracy", 1)]
    low, mid, high, _ = expected["test_loss"][2]
    assert [list(row) for row in runs] == [
        ["Exercise 1, ConvNet: train loss", "3 of 3", "none"],
        ["Exercise 1, ConvNet: train accuracy", "3 of 3", "none"],
        ["Exercise 1, ConvNet: test loss", "2 of 3", f"3: 9.000, ours {written(low, mid, high)}"],
        [
            "Exercise 1, ConvNet: test accuracy",
            "2 of 3",
            f"2: 0.990, ours {written(*expected['test_accuracy'][1][:3])}",
        ],
    ]
    for iteration, row in enumerate(numbers):
        cells = [
            f"{PRINTED[name][iteration]:.3f} [{found[iteration][0]:.3f},\u00a0{found[iteration][2]:.3f}]"
            + (" outside" if outside[name, iteration] else "")
            for name, found in expected.items()
        ]
        assert list(row) == ["Exercise 1, ConvNet", str(iteration + 1), *cells]
    # Of four tests the smallest p-value counts four times: 2 of the 252 partitions of five and five are as extreme.
    assert [list(row) for row in strides] == [
        [
            "1",
            "0.610, 3 of 5",
            "0.613, 3 of 5",
            "p = 1 (too few: no partition gives less than 0.1 before the correction)",
            "p = 1",
        ],
        ["5", "0.512, 5 of 5", "0.704, 5 of 5", "p = 0.032, differs", "p = 1"],
    ]
    assert entry.figure is not None
    band = entry.figure.axes[0].patches[0].get_extents().transformed(entry.figure.axes[0].transData.inverted())
    assert (band.y0, band.y1) == pytest.approx((-1, 1)), "what is inside"
    curves = [line for line in entry.figure.axes[0].lines if line.get_linestyle() != "None"]
    for line, found in zip(curves, expected.values(), strict=True):
        assert np.asarray(line.get_ydata()).tolist() == pytest.approx([each[3] for each in found], abs=1e-9)


def test_the_notebooks_answer_counts_what_lies_outside() -> None:
    entry = notebook_entry()
    first, coded, diverged, trials, seconds = entry.answer
    assert re.fullmatch(
        r"Of 12 losses and accuracies that the notebook printed of its 1 runs, 10 \(83\.3%\) lie within the 95% "
        r"prediction interval of our 4 sessions; chance leaves 0\.6 outside, here it is 2; of our own sessions, each "
        r"held against the others, 0 to \d+\. Fewer than 90% inside is a finding: see the table\.",
        first,
    )
    alike = notebook_entry(CENTRES).answer[0]
    assert alike.endswith(". That is no more than chance leaves, so none of them asks for a cause of its own.")
    assert coded == (
        "It printed 7,200 training images, but its code draws 6,000: on so many of ours 10 of 12 are inside."
    )
    assert diverged == "Of ours, these runs diverged and stand in no interval: stride, seed 9."
    assert trials.startswith(
        "Of 4 tests on its 10 accuracies, corrected together, its strides 5 (accuracy) differ from ours. A lost trial"
    )
    assert trials.endswith("it lost 2 at stride 1, we 2 at stride 1.")
    logs = [math.log(0.5 * each) for each in (1.0, 1.1, 0.9)]
    reach = float(stats.t.ppf(0.975, 2)) * statistics.stdev(logs) * math.sqrt(1 + 1 / 3)
    low, mid, high = (math.exp(statistics.mean(logs) + side * reach) for side in (-1, 0, 1))
    assert "its seconds for ten iterations are 52.00 over 100.00, 0.52: inside what its layers" in seconds
    assert f"take here, {written(low, mid, high, 2)}, but" in seconds
    assert seconds.endswith(f"it is {written(0.4 * low, 0.4 * mid, 0.4 * high, 2)}.")

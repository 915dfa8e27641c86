"""The notebook number by number: its printed numbers are what it printed, and the verdicts mean what they say."""

import math
import random

import pytest
from scipy import stats

from hw4.audit import read_notebook, repeat_session, sessions, trials
from hw4.records import AuditedStride, NotebookAudit, PassTime, RepeatedRun, TimedIteration
from hw4.report import notebook
from hw4.report.notebook import METRICS, Metric, answers, inside, judge, number_rows, reproduce, run_rows, stride_rows


def generated(
    *, sessions_of_ours: int = 10, iterations: int = 10, planted: bool = False, lost: int = 7
) -> NotebookAudit:
    """A notebook that is one more session of ours; or one whose test losses are half as large again."""
    draw = random.Random(0)

    def run() -> dict[Metric, list[float]]:
        curve = [2.3, *(0.6 / iteration for iteration in range(1, iterations))]
        found: dict[Metric, list[float]] = {}
        for metric in METRICS:
            noisy = [math.log(level) + draw.gauss(0, 0.05) for level in curve]
            losses = metric.endswith("loss")
            found[metric] = [math.exp(value) if losses else math.exp(-math.exp(value)) for value in noisy]
        return found

    printed = read_notebook()
    for each in printed["runs"]:
        for metric, values in run().items():
            factor = 1.5 if planted and metric == "test_loss" else 1
            each[metric] = [round(factor * value, 3) for value in values]
    repeated = [
        RepeatedRun(variant=variant, seed=seed, n_train=n_train, **run())
        for n_train in (7200, 6000)
        for variant in ("pool", "pool-batchnorm", "stride")
        for seed in range(sessions_of_ours)
    ]
    strides = [
        AuditedStride(
            stride=each["stride"],
            notebook=0.5,
            trained=[draw.gauss(0.6, 0.02) for _ in range(10 - lost if each["stride"] == 1 else 10)],
            diverged=lost if each["stride"] == 1 else 0,
        )
        for each in printed["strides"]
    ]
    seconds = [
        TimedIteration(
            layers=layers,
            variant=variant,
            times=[PassTime(wall_seconds=2, cpu_seconds=pace * draw.uniform(0.95, 1.05)) for _ in range(5)],
        )
        for layers in ("the notebook's", "hw4's")
        for variant, pace in (("stride", 1.0), ("pool", 2.0))
    ]
    return NotebookAudit(
        printed=printed, repeated=repeated, diverged=[], class_0_share=0.018, strides=strides, seconds=seconds
    )


def test_a_number_is_inside_when_what_is_printed_like_it_is() -> None:
    ours = [0.30, 0.31, 0.32, 0.33, 0.34]
    logs = [math.log(value) for value in ours]
    t = stats.t.ppf(0.975, 4)
    end = math.exp(sum(logs) / 5 + t * stats.tstd(logs) * math.sqrt(1 + 1 / 5))  # the textbook's formula, written out
    assert judge(end, ours, "train_loss")[0].high == pytest.approx(end)
    cases: list[tuple[float, list[float], Metric, bool]] = [
        (end + 0.0004, ours, "train_loss", True),  # it could be printed for a number inside
        (end + 0.0006, ours, "train_loss", False),
        (1.0, [0.999, 1.0, 1.0], "train_accuracy", True),  # a share has no logit at its ends
        (0.5, [0.5, 0.5], "test_accuracy", True),
        (0.6, [0.5, 0.5], "test_accuracy", False),
    ]
    for printed, beside, metric, is_inside in cases:
        assert (abs(judge(printed, beside, metric)[1]) <= 1) == is_inside


def test_one_more_session_of_ours_lies_inside_and_a_planted_change_outside() -> None:
    found, planted = reproduce(generated()), reproduce(generated(planted=True))
    assert len(found.numbers) == 160
    assert inside(found.numbers) >= 144
    assert 160 - inside(planted.numbers) >= 40
    assert sum(row[0].endswith("test loss") and row[2] != "none" for row in run_rows(planted)) == 4
    assert "is a finding" in answers(planted)[0]
    assert "is a finding" not in answers(found)[0]
    # Chance leaves one in twenty of the numbers of our own sessions outside as well: 8 of 160, 80 in ten sessions.
    assert 40 <= sum(found.sessions) <= 120


def test_an_exploding_session_makes_its_intervals_mute_and_is_named() -> None:
    audit = generated()
    wild = [
        run.model_copy(update={"test_loss": [100 * value for value in run.test_loss]}) if run.seed == 4 else run
        for run in audit.repeated
    ]
    found = reproduce(audit.model_copy(update={"repeated": wild}))
    assert found.exploded == [4]
    said = answers(found)[1]
    assert "(seed 4)" in said
    assert "says nothing for 40 of 40 test losses" in said
    held = [each for each in found.without if (each.run, each.metric) == ("Exercise 1, ConvNet", "test_loss")]
    assert len(held) == 10
    assert reproduce(audit).exploded == []


@pytest.mark.parametrize("lost", [0, 1, 7, 9, 10])
def test_strides_are_tested_where_there_is_something_to_test(lost: int) -> None:
    found = reproduce(generated(lost=lost))
    first, *others = found.strides
    assert (first.trained_p is None) == (lost > 8), "one trial has no spread"
    assert first.lost_p < 0.05 if lost == 0 else first.lost_p > 0.05, "the notebook lost seven of ten"
    assert all(each.trained_p is not None and each.trained_p < 0.05 for each in others if each.stride > 5)
    assert "7 at stride 1" in answers(found)[-2]
    assert ("we none" in answers(found)[-2]) == (lost == 0)
    assert len(stride_rows(found)) == 6


@pytest.mark.parametrize(("ours", "iterations"), [(2, 10), (3, 3), (1, 10)])
def test_few_sessions_and_few_passes_are_said_as_they_are(ours: int, iterations: int) -> None:
    found = reproduce(generated(sessions_of_ours=ours, iterations=iterations))
    assert len(found.numbers) == (16 * iterations if ours > 1 else 0)
    assert ("each held against the others" in answers(found)[0]) == (ours > 2)
    assert len(number_rows(found)) == len(found.numbers) // 4
    assert notebook.figure(found).axes


def test_a_session_logs_before_each_pass_and_draws_its_own_images() -> None:
    specs = sessions("digits", 200, seeds=2, passes=2)
    assert [len(each) for each in specs] == [3] * 4, "three networks, two seeds, two numbers of images"
    first, second, again = (
        [run for run in repeat_session(each) if isinstance(run, RepeatedRun)] for each in (*specs[:2], specs[0])
    )
    assert [run.n_train for run in first] == [200] * 3
    assert [len(run.train_loss) for run in first] == [2] * 3
    assert first[0].train_loss[0] == pytest.approx(math.log(10), abs=0.2), "before training"
    assert first[0].train_loss != second[0].train_loss
    assert again == first


def test_trials_of_different_strides_share_no_weights() -> None:
    specs = [spec for group in trials("grammar", [1, 5], seeds=3) for spec in group]
    assert len({spec.trial for spec in specs}) == 6
    assert {spec.stride for spec in specs} == {1, 5}

"""The sweep's report: complete or refused, failures counted, and words that follow from the numbers."""

from pathlib import Path

import numpy as np
import pytest

from hw4.errors import RecordError
from hw4.records import QuestionIdentity, TextCNNRecord, environment
from hw4.report.page import compose
from hw4.report.strides import _matrices, chart, summarise
from hw4.specs import TextCNNSpec, sweep_specs
from hw4.stats import compare_crossed, holm

N_TEST = 100
DATA = QuestionIdentity(
    name="grammar", title="made-up <b>questions</b>", vectors="made-up 1.0", checksum="0" * 64, n_train=200,
    n_test=N_TEST, majority_accuracy=0.2, logistic_accuracy=0.7,
)  # fmt: skip


def make(spec: TextCNNSpec, share: float | None, data: QuestionIdentity = DATA) -> TextCNNRecord:
    """A record with about this share of right answers, or a diverged one."""
    right = None
    if share is not None:
        right = (np.random.default_rng([spec.trial, int(share * 1e6)]).random(N_TEST) < share).tolist()
    return TextCNNRecord(
        key=spec.key, spec=spec, stride=spec.stride, trial=spec.trial, data=data,
        environment=environment(threads=1, dtype="float32"), correct=right,
        test_accuracy=None if right is None else sum(right) / N_TEST, train_loss=None, diverged=right is None,
    )  # fmt: skip


SHARES = {1: None, 5: 0.55, 10: 0.41, 30: 0.40, 100: 0.25, 500: 0.25}


def whole(trials: int = 4) -> list[TextCNNRecord]:
    return [make(spec, SHARES[spec.stride]) for spec in sweep_specs("grammar", trials=trials)]


def test_the_chart_holds_every_bar_dot_and_failure() -> None:
    summary = summarise(whole())
    (ax,) = chart(summary).axes
    heights = [patch.get_height() for patch in ax.patches]  # type: ignore[attr-defined]
    means = [bar.mean.estimate for bar in summary.bars if bar.mean is not None]
    assert heights == pytest.approx(means)
    assert len(means) == 5
    dots = [line for line in ax.lines if line.get_marker() == "."]
    assert sorted(v for line in dots for v in np.asarray(line.get_ydata()).tolist()) == sorted(
        record.test_accuracy for record in whole() if record.test_accuracy is not None
    )
    assert [text.get_text() for text in ax.texts] == ["4 of 4\ndiverged"]
    labels = [label.get_text() for label in ax.get_xticklabels()]
    assert labels == [f"{s}\nreads {n} of 96" for s, n in {1: 96, 5: 32, 10: 5, 30: 5, 100: 2, 500: 2}.items()]


def test_a_diverged_trial_is_counted_and_in_no_mean_of_the_converged() -> None:
    records = whole()
    records[4] = make(records[4].spec, None)
    row = summarise(records).tables[0][2][1]
    converged = [record.test_accuracy for record in records[5:8] if record.test_accuracy is not None]
    assert row[3].startswith(f"{sum(converged) / 3:.3f} [")
    assert row[4] == f"{sum(converged) / 4:.3f}"
    assert row[-1] == "1 of 4"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r[:-1], "incomplete: stride 500 at learning rate 0.1 lacks trial 3"),
        (lambda r: [make(r[0].spec, None, DATA.model_copy(update={"vectors": "other"})), *r[1:]], "2 data sets"),
        (lambda r: [*r, make(r[0].spec.model_copy(update={"epochs": 3}), 0.5)], "2 protocols"),
    ],
)
def test_an_incomplete_or_mixed_set_is_refused(change: object, message: str, tmp_path: Path) -> None:
    records = change(whole())  # type: ignore[operator]
    with pytest.raises(RecordError, match=message):
        compose((), records).write(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    page = compose((), records, anyway=True).write(tmp_path / "out").read_text()
    assert "Drawn although the" in page


def test_a_smaller_rate_may_have_fewer_trials() -> None:
    slower = [make(spec, 0.6) for spec in sweep_specs("grammar", strides=[1], trials=2, learning_rate=0.05)]
    summary = summarise([*whole(), *slower])
    assert [bar.stride for bar in summary.bars] == list(SHARES)
    assert "At 0.05 all train, to a test accuracy of" in " ".join(summary.answer)
    assert summary.tables[0][2][-1][-1] == "0 of 2"


def test_the_page_is_deterministic_escaped_and_says_what_is_decided(tmp_path: Path) -> None:
    first, second = (compose((), whole(10)).write(tmp_path / name) for name in "ab")
    text = first.read_text()
    assert text == second.read_text()
    assert "<b>questions" not in text
    assert "5 above 100" in text
    assert "10 above 30" not in text
    assert "Strides 100 and 500 compute the same function" in text
    assert "at equal seeds their answers are the same on every question" in text
    assert "At stride 1 10 of 10 trials diverged" in text


def test_the_control_pairs_no_seed_with_itself() -> None:
    first, second = (bar for bar in summarise(whole(10)).bars if bar.stride in (100, 500))
    matrices = _matrices(first, second, independent=True)
    assert matrices is not None
    for found, expected in zip(matrices, (first.records[:5], second.records[5:]), strict=True):
        assert found.tolist() == [record.correct for record in expected]


def test_one_trial_compares_nothing_but_is_reported(tmp_path: Path) -> None:
    assert compose((), whole(1)).write(tmp_path).exists()
    assert not any("pairs of strides" in sentence for sentence in summarise(whole(1)).answer)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_crossed_comparisons_seldom_err_and_find_what_is_there() -> None:
    random = np.random.default_rng(0)

    def answers(skill: float, hardness: np.ndarray) -> np.ndarray:
        trials = random.normal(skill, 0.05, (8, 1))
        right: np.ndarray = random.random((8, len(hardness))) < trials + hardness
        return right

    def rejections(gap: float, runs: int = 300) -> float:
        rejected = 0
        for _ in range(runs):
            # Questions suit one stride or the other by chance: that is noise too, and shared by all trials.
            first, second = random.normal(0, 0.2, (2, 200))
            rejected += compare_crossed(answers(0.5, first), answers(0.5 + gap, second)).p_value < 0.05
        return rejected / runs

    # 300 runs at 5% have a standard deviation of 1.3%; being on the safe side means well below 5%.
    assert rejections(0.0) <= 0.05 + 3 * 0.013
    assert rejections(0.15) > 0.9


def test_crossed_comparisons_need_two_of_each() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        compare_crossed(np.ones((1, 5)), np.ones((1, 5)))

"""The sweep's report: complete or refused, failures counted, and words that follow from the numbers."""

import itertools
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from matplotlib.text import Annotation

from hw4.errors import RecordError
from hw4.records import QuestionIdentity, TextCNNRecord, environment
from hw4.report import strides
from hw4.report.entry import Table
from hw4.report.page import Report
from hw4.report.strides import Sweep, _compare, _matrices, chart, chart_alt_text, entries
from hw4.report.words import show
from hw4.specs import HELD_OUT_EVERY, HOMEWORK_VECTORS, TextCNNSpec, sweep_specs
from hw4.stats import compare_crossed, holm, mean_interval
from hw4.studies import Spec, controls

N_TEST = 100
DATA = QuestionIdentity(
    name="grammar",
    title="made-up <b>questions</b>",
    vectors="made-up 1.0",
    checksum="0" * 64,
    n_train=200,
    n_test=N_TEST,
    majority_accuracy=0.2,
    logistic_accuracy=0.7,
)


HERE = environment(threads=1, dtype="float32")


def make(spec: TextCNNSpec, share: float | None, data: QuestionIdentity = DATA) -> TextCNNRecord:
    """A record with about this share of right answers, or a diverged one."""
    right, asked = None, data.n_train // HELD_OUT_EVERY if spec.held_out else N_TEST
    if share is not None:
        right = (np.random.default_rng([spec.trial, int(share * 1e6)]).random(asked) < share).tolist()
    return TextCNNRecord(
        key=spec.key,
        spec=spec,
        stride=spec.stride,
        trial=spec.trial,
        data=data,
        environment=HERE,
        correct=right,
        test_accuracy=None if right is None else sum(right) / asked,
        train_loss=None,
        diverged=right is None,
    )


CONTROL = "one function: the control"
SHARES = {1: None, 5: 0.55, 10: 0.41, 30: 0.40, 100: 0.25, 500: 0.25}


def whole(trials: int = 4, **settings: Any) -> list[TextCNNRecord]:
    return [make(spec, SHARES[spec.stride]) for spec in sweep_specs("grammar", trials=trials, **settings)]


def lossy(trials: int, lost: dict[int, int], *, slower: int | None = None) -> list[TextCNNRecord]:
    """A sweep whose first trials of some strides are lost, and of stride 1 ``slower`` at 0.05, where it lost any."""
    shares = {**SHARES, 1: 0.66}
    records = [
        make(spec, None if spec.trial < lost.get(spec.stride, 0) else shares[spec.stride])
        for spec in sweep_specs("grammar", trials=trials)
    ]
    if slower is not None and lost.get(1):
        beside = sweep_specs("grammar", strides=[1], trials=trials, learning_rate=0.05)
        records += [make(spec, None if spec.trial < slower else 0.7) for spec in beside]
    return records


class Summary(NamedTuple):
    """A sweep and what the page says of it."""

    sweep: Sweep
    tables: list[Table]
    answer: list[str]
    caption: str


def summaries(records: list[TextCNNRecord], beside: Sequence[TextCNNRecord] = ()) -> list[Summary]:
    found = [(sweep, _compare(sweep.bars)) for sweep in strides.sweeps(records, beside)]
    return [Summary(s, strides.tables(s, pairs), strides.answer(s, pairs), strides.caption(s)) for s, pairs in found]


def summary_of(records: list[TextCNNRecord], beside: Sequence[TextCNNRecord] = ()) -> Summary:
    (summary,) = summaries(records, beside)
    return summary


def test_what_strides_leave_unread_is_said_where_they_differ_in_it() -> None:
    assert "The strides of convolution and pooling multiply" in " ".join(summary_of(whole()).answer)
    alone = [record for record in whole() if record.spec.stride == 1]
    assert "multiply" not in " ".join(summary_of(alone).answer)


def test_the_chart_holds_every_bar_dot_and_failure() -> None:
    summary = summary_of(whole())
    (ax,) = chart(summary.sweep).axes
    heights = [patch.get_height() for patch in ax.patches]  # type: ignore[attr-defined]
    means = [bar.mean.estimate for bar in summary.sweep.bars if bar.mean is not None]
    assert heights == pytest.approx(means)
    assert len(means) == 5
    dots = [line for line in ax.lines if line.get_marker() == "."]
    assert sorted(v for line in dots for v in np.asarray(line.get_ydata()).tolist()) == sorted(
        record.test_accuracy for record in whole() if record.test_accuracy is not None
    )
    assert [text.get_text() for text in ax.texts] == ["4 of 4\ndiverged"]
    labels = [label.get_text() for label in ax.get_xticklabels()]
    assert labels == [f"{s}\n(reads\n{n} of 96)" for s, n in {1: 96, 5: 32, 10: 5, 30: 5, 100: 2, 500: 2}.items()]


def test_a_diverged_trial_is_counted_and_in_no_mean_of_the_converged() -> None:
    records = whole()
    records[4] = make(records[4].spec, None)
    row = summary_of(records).tables[0][2][1]
    converged = [record.test_accuracy for record in records[5:8] if record.test_accuracy is not None]
    assert row[3].startswith(f"{sum(converged) / 3:.3f} [")
    assert row[4] == f"{sum(converged) / 4:.3f}"
    assert row[-1] == "1 of 4"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r[:-1], "incomplete: stride 500 at learning rate 0.1 lacks trial 3"),
        (lambda r: [make(r[0].spec, None, DATA.model_copy(update={"vectors": "other"})), *r[1:]], "2 data sets"),
        (lambda r: [*r[:-2], r[-1]], "lacks trial 2;"),
    ],
)
def test_an_incomplete_or_mixed_set_is_refused(change: object, message: str, tmp_path: Path) -> None:
    records = change(whole())  # type: ignore[operator]
    with pytest.raises(RecordError, match=message):
        Report(entries(records)).write(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    page = Report(entries(records, anyway=True)).write(tmp_path / "out").read_text()
    assert "Drawn although the" in page


def test_a_smaller_rate_may_have_fewer_trials() -> None:
    slower = [make(spec, 0.6) for spec in sweep_specs("grammar", strides=[1], trials=2, learning_rate=0.05)]
    summary = summary_of([*whole(), *slower])
    assert [bar.stride for bar in summary.sweep.bars] == list(SHARES)
    assert "At 0.05 all train, to a test accuracy of" in " ".join(summary.answer)
    assert summary.tables[0][2][-1][-1] == "0 of 2"


def test_the_page_is_deterministic_escaped_and_says_what_is_decided(tmp_path: Path) -> None:
    first, second = (Report(entries(whole(10))).write(tmp_path / name) for name in "ab")
    text = first.read_text()
    assert text == second.read_text()
    assert "<b>questions" not in text
    assert "5 above 100" in text
    assert "10 above 30" not in text
    assert "Strides 100 and 500 compute the same function" in text
    assert "at equal seeds their answers are the same on every question" in text
    assert "At stride 1, 10 of 10 trials diverged" in text


def test_the_control_pairs_no_seed_with_itself() -> None:
    first, second = (bar for bar in summary_of(whole(10)).sweep.bars if bar.stride in (100, 500))
    matrices = _matrices(first, second, independent=True)
    assert matrices is not None
    for found, expected in zip(matrices, (first.records[:5], second.records[5:]), strict=True):
        assert found.tolist() == [record.correct for record in expected]


INTERVAL = re.compile(r"\[([+-]?[\d.]+),\s([+-]?[\d.]+)\]")


def check_words(summary: Summary) -> None:
    """What must be so whatever was run: no impossible number, every loss told, no survivors in a comparison."""
    by_stride = {bar.stride: bar for bar in summary.sweep.bars}
    kept = {stride for stride, bar in by_stride.items() if not bar.diverged}
    cells = [cell for _, _, rows in summary.tables for row in rows for cell in row]
    text = "\n".join([*summary.answer, *cells, summary.caption, chart_alt_text(summary.sweep)])
    assert not re.search(r"\b(nan|inf)\b", text)
    for low, high in INTERVAL.findall(text):
        lowest = -1 if low[0] in "+-" else 0  # only differences carry a sign
        assert lowest <= float(low) <= float(high) <= 1
    if len(summary.sweep.records) == len(summary.sweep.bars) + len(summary.sweep.slower):
        assert not re.search(r"\[|interval|decided|reliabl|whisker", text), "one trial each decides nothing"
    for bar, row in zip((*summary.sweep.bars, *summary.sweep.slower), summary.tables[0][2], strict=True):
        assert ("[" in row[3]) == (len(bar.accuracies) > 1)
        assert (" to " in row[5]) == (len(set(bar.accuracies)) > 1)
        assert row[-1] == f"{bar.diverged} of {len(bar.records)}"
    for stride, bar in by_stride.items():
        told = f"At stride {stride}, {bar.diverged} of {len(bar.records)} trials diverged"
        assert (told in text) == (stride not in kept)

    headline = summary.answer[0]
    named = re.match(r"(?:In one trial each, s|S)tride (\d+)", headline)
    assert (named is not None) == bool(kept)
    assert named is None or int(named[1]) in kept
    trained = [bar for bar in (*summary.sweep.bars, *summary.sweep.slower) if not bar.diverged]
    whole_means = [bar.mean.estimate for bar in trained if bar.mean is not None]
    for number in re.findall(r"\d\.\d{3}", INTERVAL.sub("", headline)):
        assert min(abs(float(number) - mean) for mean in whole_means) < 0.0006, "a mean of survivors in the headline"

    independent = {100, 500} <= kept and len(summary.sweep.bars[0].records) >= 4
    assert ("at independent seeds" in text) == independent
    if len(summary.tables) > 1:
        check_pairs(summary, kept)


def check_pairs(summary: Summary, kept: set[int]) -> None:
    """Every pair has its row: compared, with Holm's correction over just those, or told why not."""
    by_stride = {bar.stride: bar for bar in summary.sweep.bars}
    rows = {row[0]: row for row in summary.tables[1][2]}
    assert len(rows) == 15
    family = list(itertools.combinations(sorted(kept - ({500} if 100 in kept else set())), 2))
    again = [(stride, 500) for stride in (1, 5, 10, 30) if {stride, 100, 500} <= kept]
    for stride, _ in again:
        assert rows[f"{stride} against 500"][1:] == ("-", "-", f"the functions of {stride} against 100")
    if {100, 500} <= kept:
        assert rows["100 against 500"][1:] == ("-", "-", CONTROL)
    for name in rows.keys() - {
        f"{a} against {b}" for a, b in [*family, *again, *([(100, 500)] * ({100, 500} <= kept))]
    }:
        assert re.fullmatch(r"not compared: \d+ of \d+ trials of stride .* diverged", rows[name][3])
    matrices = [_matrices(by_stride[first], by_stride[second]) for first, second in family]
    adjusted = holm([compare_crossed(*both)[1] for both in matrices if both is not None])
    for (first, second), p in zip(family, adjusted, strict=True):
        row = rows[f"{first} against {second}"]
        assert row[2] == (f"p = {p:.2g}" if p >= 1e-4 else "p < 0.0001")
        assert (row[3] == "not decided") == (p > 0.05)
    verdicts = [sentence for sentence in summary.answer if "(Holm)" in sentence]
    assert len(verdicts) == bool(family)
    for verdict in verdicts:
        assert verdict.startswith(f"Of {len(family)} pair")
        assert ("each two functions once" in verdict) == bool(again)
        above = {int(stride) for pair in re.findall(r"(\d+) above (\d+)", verdict) for stride in pair}
        assert above <= kept


@pytest.mark.parametrize("slower", [None, 0, 1], ids=["no slower rate", "a slower rate trains", "and it loses one"])
@pytest.mark.parametrize("trials", [1, 2, 5, 10])
def test_whatever_is_lost_the_words_are_true(trials: int, slower: int | None) -> None:
    losses = {0, 1, trials - 2, trials - 1, trials} & set(range(trials + 1))
    for one, five in itertools.product(losses, losses):
        check_words(summary_of(lossy(trials, {1: one, 5: five}, slower=slower)))
    for gone in (SHARES, (100, 500)):
        check_words(summary_of(lossy(trials, dict.fromkeys(gone, trials), slower=slower)))
    check_words(summary_of(lossy(trials, {100: 1, 500: 1})))


def test_one_trial_is_reported_without_decisions(tmp_path: Path) -> None:
    records = lossy(1, {1: 1})
    assert Report(entries(records)).write(tmp_path).exists()
    summary = summary_of(records)
    assert summary.answer[0].startswith("In one trial each, stride 5 comes out highest of the strides at which every")
    assert "Strides 100 and 500 compute the same function; at equal seeds their" in summary.answer[-1]
    assert len(summary.tables) == 1


def test_a_lost_stride_is_said_with_the_rate_that_trains_it() -> None:
    answer = summary_of(lossy(10, {1: 9}, slower=0)).answer
    assert "Stride 5 is the most accurate of the strides at which every trial trained" in answer[0]
    assert re.search(r"; stride 1, of which 9 of 10 trials diverged there, trains at 0.05 and reaches 0\.\d", answer[0])
    lost = next(sentence for sentence in answer if sentence.startswith("At stride 1"))
    assert "the 1 that trained is a selected sample" in lost
    assert "At 0.05 all train, to a test accuracy of" in lost

    tried = summary_of(lossy(10, {1: 9}, slower=1)).answer
    assert "stride 1" not in tried[0]
    assert "Smaller rates lost trials too: 1 of 10 at 0.05." in " ".join(tried)
    untried = " ".join(summary_of(lossy(10, {1: 1})).answer)
    assert "At stride 1, 1 of 10 trials diverged at learning rate 0.1; it has no accuracy, and the 9 that" in untried
    assert "No smaller learning rate was tried." in untried


def test_the_first_among_undecided_is_not_called_the_most_accurate() -> None:
    records = [make(spec, {5: 0.42, 10: 0.41}[spec.stride]) for spec in sweep_specs("grammar", strides=[5, 10])]
    (headline, *_) = summary_of(records).answer
    assert "highest mean test accuracy" in headline
    assert re.search(r"whether it is more accurate than stride (5|10) is not decided\.$", headline)


def test_strides_whose_differences_do_not_vary_are_not_compared() -> None:
    summary = summary_of([make(spec, 1.0) for spec in sweep_specs("grammar", strides=[5, 100, 500], trials=4)])
    reason = "not compared: the differences vary neither by trial nor by question"
    assert [row[1:] for row in summary.tables[1][2]] == [("-", "-", reason)] * 2 + [("-", "-", CONTROL)]
    assert "whether it is more accurate than stride 100 is not decided" in summary.answer[0]
    assert summary.answer[-1].startswith("Strides 100 and 500 compute the same function; at equal seeds their answers")


@pytest.mark.parametrize("lost", [0, 1, 2, 8, 9, 10])
def test_nothing_of_the_chart_crosses_a_count_of_lost_trials(lost: int) -> None:
    drawn = chart(summary_of(lossy(10, {1: lost, 500: lost})).sweep)
    drawn.draw_without_rendering()
    (ax,) = drawn.axes
    notes = [text for text in ax.texts if isinstance(text, Annotation)]
    assert [note.get_text() for note in notes] == [f"{lost} of 10\ndiverged"] * (2 if lost else 0)
    dots = [
        point for line in ax.lines if line.get_marker() == "." for point in ax.transData.transform(line.get_xydata())
    ]
    assert len(dots) == 60 - 2 * lost
    assert len(ax.collections) == (6 if lost < 9 else 4), "a whisker from one trial"
    for note in notes:
        box, behind = note.get_window_extent(), note.get_bbox_patch()
        assert not any(box.contains(*point) for point in dots)
        assert not any(box.overlaps(patch.get_window_extent()) for patch in ax.patches)
        assert ax.bbox.y0 < box.y0 < box.y1 < ax.bbox.y1
        assert behind is not None
        assert behind.get_facecolor() == (1, 1, 1, 1), "what lies behind shines through"
        assert note.get_zorder() > max(artist.get_zorder() for artist in (*ax.lines, *ax.collections, *ax.patches))


@pytest.mark.parametrize(("strides", "left"), [((3, 4), "part"), ((1, 5), "most")])
def test_how_much_large_strides_leave_unread_is_true(strides: tuple[int, int], left: str) -> None:
    made = [make(spec, 0.5) for spec in sweep_specs("grammar", strides=strides, trials=2)]
    said = " ".join(summary_of(made).answer)
    assert f"so large ones leave {left} of the vector unread" in said


def test_permuted_and_held_out_trials_are_no_bars() -> None:
    plain = whole()
    others = [
        make(record.spec.model_copy(update=changes), 0.1)
        for record in plain
        for changes in ({"permutation": record.trial}, {"held_out": True})
    ]
    assert [bar.mean for bar in summary_of([*plain, *others]).sweep.bars] == [
        b.mean for b in summary_of(plain).sweep.bars
    ]


def test_every_protocol_has_a_chart_of_its_own() -> None:
    others = [*whole(2, epochs=3), *whole(2, momentum=0.5), *whole(2, learning_rate=0.2)]
    rescue = [make(spec, 0.6) for spec in sweep_specs("grammar", strides=[1], trials=2, learning_rate=0.05)]
    everything = [*others, *rescue, *whole(3)]
    random.Random(0).shuffle(everything)
    found = summaries(everything)
    assert [each.sweep.suffix for each in found] == ["", "epochs3", "lr0.2", "momentum0.5"]
    assert [len(each.sweep.records) for each in found] == [20, 12, 17, 12], "a smaller rate stands beside every loss"
    assert "3 epochs" in found[1].caption
    assert "learning rate 0.2" in found[2].answer[0]
    for each in found:
        check_words(each)
    assert summary_of(whole(2, epochs=3)).sweep.suffix == "", "alone it needs no other name"
    titles = [entry.title for entry in entries(everything)]
    assert len(set(titles)) == 4


def test_a_rate_that_was_asked_for_is_a_sweep_of_its_own() -> None:
    all_lost = [make(spec, None) for spec in sweep_specs("grammar", trials=2, learning_rate=0.2)]
    slower = [make(spec, 0.5) for spec in sweep_specs("grammar", trials=2, learning_rate=0.05)]
    assert [each.sweep.suffix for each in summaries([*whole(2), *all_lost])] == ["", "lr0.2"]
    assert summary_of([*all_lost, *slower]).sweep.slower[0].learning_rate == 0.05, (
        "what a rescue makes is told of beside"
    )
    assert [each.sweep.suffix for each in summaries([*whole(2), *slower])] == ["", "lr0.05"]
    assert "at learning rate 0.05" in summary_of(slower).answer[0]
    rescue = [make(spec, 0.6) for spec in sweep_specs("grammar", strides=[1], trials=4, learning_rate=0.05)]
    found = summaries([*whole(4), *rescue, *slower[2:]])  # of stride 1 the larger rate's rescue had made more
    assert [each.sweep.suffix for each in found] == ["", "lr0.05"]
    assert "2 to 4 trials per stride" in found[1].caption


def test_other_vectors_than_the_homeworks_are_said_aloud() -> None:
    for name, vectors, said in (
        ("trec", "en_core_web_sm 2.2.5", True),
        ("trec", HOMEWORK_VECTORS, False),
        ("grammar", "made-up 1.0", False),
    ):
        data = DATA.model_copy(update={"name": name, "vectors": vectors})
        records = [make(spec, 0.5, data) for spec in sweep_specs("trec", strides=[5], trials=2)]
        summary = summary_of(records)
        aloud = "not the homework's vectors; 'hw4 fetch' brings those"
        assert (aloud in summary.caption) == (aloud in " ".join(summary.answer)) == said


BEST = {1: 0.0125, 5: 0.05, 10: 0.4, 100: 0.2}
"""Own rates of four functions, the smallest and the largest tried among them."""
REACHED = {1: 0.8, 5: 0.55, 10: 0.40, 100: 0.41}


def usual(spec: TextCNNSpec) -> float | None:
    """What a control's trial reaches: most at its stride's best rate where held out, less permuted at 1 and 5."""
    if spec.held_out:
        return 0.9 if spec.learning_rate == BEST[spec.stride] else 0.1
    return REACHED[spec.stride] - (0.3 if spec.stride in {1, 5} else 0.005) * (spec.permutation is not None)


def controlled(share: Callable[[TextCNNSpec], float | None] = usual, trials: int = 10) -> list[TextCNNRecord]:
    """All controls of a sweep over four functions, of which the last has two strides, in no order."""
    study, made = controls(sweep_specs("grammar", strides=[1, 5, 10, 100, 500], trials=trials)), dict[Spec, Any]()
    while new := [spec for spec in study(made) if isinstance(spec, TextCNNSpec) and spec not in made]:
        made |= {spec: make(spec, share(spec)) for spec in new}
    found = [record for record in made.values() if isinstance(record, TextCNNRecord)]
    random.Random(0).shuffle(found)
    return found


def own_trials(records: Sequence[TextCNNRecord], stride: int, *, permuted: bool = False) -> list[list[bool]]:
    """Right answers at a stride's own rate, trial by trial."""
    wanted = (stride, BEST[stride], False, permuted)
    found = {
        record.trial: record.correct
        for record in records
        if (record.stride, (spec := record.spec).learning_rate, spec.held_out, spec.permutation is not None) == wanted
    }
    return [found[trial] or [] for trial in sorted(found)]


def test_each_stride_stands_at_its_own_best_rate() -> None:
    beside = controlled()
    summary = summary_of(whole(10), beside)
    tables = {caption: rows for caption, _, rows in summary.tables}
    rows = tables["Each stride at its own best learning rate"]
    assert [(row[0], row[1]) for row in rows] == [
        ("1", "0.0125, the smallest tried"),
        ("5", "0.05"),
        ("10", "0.4, the largest tried"),
        ("100 and 500", "0.2"),
    ]
    for row, stride in zip(rows, BEST, strict=True):
        assert row[3] == show(mean_interval([sum(right) / N_TEST for right in own_trials(beside, stride)]))
        assert row[2].startswith("0.9") or row[2].startswith("0.8"), "the held-out accuracy of those that chose"
        assert row[4] == "0 of 10"
    pairs = list(itertools.combinations(BEST, 2))
    adjusted = holm([compare_crossed(*(np.array(own_trials(beside, s)) for s in pair))[1] for pair in pairs])
    for (first, second), p, row in zip(
        pairs, adjusted, tables["Pairs of strides at their own best rates"], strict=True
    ):
        assert (row[0], row[2]) == (f"{first} against {second}", f"p = {p:.2g}" if p >= 1e-4 else "p < 0.0001")
    text = "\n".join(summary.answer)
    assert re.search(r"Stride 1 is the most accurate at its own best learning rate, 0\.\d+ \[.*\] in the mean\.", text)
    assert "for 5 other trials on 40 training questions that were held out" in text
    assert "The best rate of stride 1 is the smallest that was tried: a smaller one may be better still" in text
    assert "The best rate of stride 10 is the largest that was tried: a larger one may be better still" in text
    assert re.search(
        r"Of 6 pairs of strides at their own best rates, compared .*, 5 differ .* 1 pair is not decided\.", text
    )
    assert chart_alt_text(summary.sweep) == chart_alt_text(summary_of(whole(10)).sweep), "the chart is the homework's"


def test_other_orders_are_compared_with_the_same_trials_as_they_are() -> None:
    beside = controlled()
    summary = summary_of(whole(10), beside)
    (rows,) = (
        rows for caption, _, rows in summary.tables if caption.startswith("The vector's numbers in other orders")
    )
    found = [
        compare_crossed(*(np.array(own_trials(beside, stride, permuted=which)) for which in (True, False)))
        for stride in BEST
    ]
    adjusted = holm([each[1] for each in found])
    for row, each, p in zip(rows, found, adjusted, strict=True):
        assert row[2].startswith(f"{each[0].estimate:+.3f} [")
        assert row[3] == (f"p = {p:.2g}" if p >= 1e-4 else "p < 0.0001")
    assert [(row[0], row[1], row[4]) for row in rows] == [
        ("1", "96 of 96", "lower"),
        ("5", "32 of 96", "lower"),
        ("10", "5 of 96", "not decided"),
        ("100 and 500", "2 of 96", "not decided"),
    ]
    said = next(sentence for sentence in summary.answer if "drawn anew for each of 10 trials" in sentence)
    assert re.search(r"stride 1 -0\.\d+ \[.*\] \(lower, p < 0\.0001\); stride 5 .*Holm over 4 comparisons\.$", said)
    assert re.search(r"; strides 100 and 500 [+-]0", said)
    assert "Stride 1 reads every number in any order, so there the change is" in summary.answer[-1]
    assert "; elsewhere another order" in summary.answer[-1]
    one = [record for record in beside if record.stride == 1]
    assert summary_of(whole(10), one).answer[-1].endswith("what a convolution's neighbours are worth.")
    without = [record for record in beside if record.stride > 1]
    assert summary_of(whole(10), without).answer[-1] == "Another order also changes which numbers are read."


def test_controls_that_lost_trials_are_said_and_not_compared() -> None:
    def one_lost(spec: TextCNNSpec) -> float | None:
        lost = (spec.stride == 1 and spec.permutation == 3) or (
            spec.stride == 5 and not spec.held_out and not spec.trial
        )
        return None if lost or (spec.stride == 10 and spec.held_out) else usual(spec)

    summary = summary_of(whole(10), controlled(one_lost))
    own, pairs, orders = (rows for _, _, rows in summary.tables[2:])
    assert [(row[0], row[-1]) for row in own] == [("1", "0 of 10"), ("5", "1 of 10"), ("100 and 500", "0 of 10")]
    lost = {name: f"not compared: 1 of 10 trials of stride {name[-1]} diverged" for name in ("stride 1", "stride 5")}
    assert [row[-1] for row in pairs] == [lost["stride 5"], "higher", lost["stride 5"]]
    assert [row[-1] for row in orders] == [lost["stride 1"], lost["stride 5"], "not decided"]
    text = "\n".join(summary.answer)
    assert "Stride 10 has no best rate: at none of those tried did every trial train." in text
    assert "Stride 1 is the most accurate of the strides at which every trial trained at its own best" in text
    assert "Holm over 1 comparison." in text


def test_controls_of_one_trial_decide_nothing() -> None:
    summary = summary_of(whole(1), controlled(trials=1))
    assert [caption for caption, _, _ in summary.tables] == ["", "Each stride at its own best learning rate"]
    text = "\n".join(summary.answer)
    assert "In one trial each, stride 1 comes out highest at its own best learning rate" in text
    assert "for 1 other trial on 40" in text
    assert not re.search(r"\[|decided|reliabl|Holm", text)


def test_questions_of_two_data_sets_make_two_charts() -> None:
    """What an embedded first run left behind does not cost the real sweep its page."""
    real = DATA.model_copy(update={"name": "trec"})
    trec = [make(record.spec.model_copy(update={"data": "trec"}), 0.5, real) for record in whole(2)]
    found = summaries([*whole(10), *trec, *whole(2, learning_rate=0.2)], controlled())
    assert [each.sweep.suffix for each in found] == ["", "embedded", "embedded_lr0.2"]
    assert [each.sweep.data.name for each in found] == ["trec", "grammar", "grammar"]
    assert [bool(each.sweep.beside) for each in found] == [False, True, False]


def test_controls_go_with_the_first_sweep_of_their_protocol_and_are_whole_or_left_out() -> None:
    beside = controlled()
    found = summaries([*whole(10), *whole(10, learning_rate=0.2), *whole(10, momentum=0.5)], beside)
    assert [len(each.sweep.beside) for each in found] == [len(beside), 0, 0]
    assert len(entries(whole(10), beside)) == 1
    (entry,) = entries(whole(10), beside)
    assert len(entry.environments) == 60 + len(beside)
    assert entry.rerun == "hw4 sweep --data embedded --no-rescue --controls --fresh"
    for gone in range(0, len(beside), 7):
        left = [*beside[:gone], *beside[gone + 1 :]]
        (entry,) = entries(whole(10), left)
        assert entry.answer[-1].startswith("Exercise 2's controls are left out: the sweep's controls are incomplete: ")
        assert (len(entry.environments), len(entry.tables)) == (60, 2)
    assert "Drawn although the sweep's controls are incomplete" in entries(whole(10), left, anyway=True)[0].answer[0]
    other = beside[0].model_copy(update={"data": DATA.model_copy(update={"checksum": "1" * 64})})
    assert "come from 2 data sets" in entries(whole(10), [other, *beside[1:]])[0].answer[-1]
    with pytest.raises(RecordError, match="come from 2 data sets"):
        entries([whole(10)[0].model_copy(update={"data": other.data}), *whole(10)[1:]], beside)


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
            rejected += compare_crossed(answers(0.5, first), answers(0.5 + gap, second))[1] < 0.05
        return rejected / runs

    # 300 runs at 5% have a standard deviation of 1.3%; being on the safe side means well below 5%.
    assert rejections(0.0) <= 0.05 + 3 * 0.013
    assert rejections(0.15) > 0.9


@pytest.mark.parametrize(("trials", "compared"), [(1, False), (2, True)])
def test_one_trial_has_no_whisker_and_is_compared_with_none(trials: int, compared: bool) -> None:
    (sweep,) = strides.sweeps(whole(trials))
    assert bool(_compare(sweep.bars)) is compared
    assert ("whisker: 95%" in chart(sweep).legends[0].get_title().get_text().replace("\n", " ")) is compared

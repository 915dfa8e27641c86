"""The report: deterministic, safe, and true to the records, also where they decide nothing."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from hw4.errors import RecordError
from hw4.files import RECORDS
from hw4.gate.verdicts import Finding, as_json
from hw4.records import ConvNetRecord, Store, environment
from hw4.report.figures import PANELS, figure
from hw4.report.findings import Section, sections, settled_smoothness, show
from hw4.report.page import compose, load_report
from hw4.specs import EXERCISES, ConvNetSpec, exercise_specs
from hw4.stats import Interval, mean_interval
from tests.factory import DATA, make_reading, make_record, make_row

PASSES = 4


def records(
    seeds: int = 3, *, passes: int = PASSES, normed_smoothness: float = 0.5, spread: float = 0.01
) -> list[ConvNetRecord]:
    """Made-up runs: with BatchNorm losses are halved and smoothness is multiplied; strides are quicker and worse."""
    made = []
    for spec in exercise_specs(["smoothness", "pooling"], seeds=seeds, data="digits", passes=passes):
        noise = 1 + spread * (spec.seed - 1) * (-1 if spec.norm else 1)
        better, rougher = (0.5, normed_smoothness) if spec.norm else (1.0, 1.0)
        accuracy = (0.8 if spec.downsample == "stride" else 0.9) + 0.001 * spec.seed
        trained = [
            make_row(p, loss=2.3 * better * noise / (1 + p), accuracy=accuracy, smoothness=10 * rougher * noise)
            for p in range(1, passes + 1)
        ]
        start = make_row(0, loss=2.3, accuracy=0.1, smoothness=10 * noise)
        made.append(make_record(spec, [start, *trained], seconds=1.0 if spec.downsample == "pool" else 0.4))
    return made


def diverged(record: ConvNetRecord) -> ConvNetRecord:
    return make_record(record.spec, [*record.rows[:2], make_row(2, loss=None, smoothness=None)], diverged=True)


def smoothness_section(made: list[ConvNetRecord]) -> Section:
    return next(section for section in sections(made) if section.exercise == "smoothness")


def test_equal_records_give_equal_bytes(tmp_path: Path) -> None:
    first, second = (compose(records()).write(tmp_path / name) for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
    for exercise in EXERCISES:
        assert (first.parent / f"{exercise}.png").read_bytes() == (second.parent / f"{exercise}.png").read_bytes()


@pytest.mark.parametrize("exercise", EXERCISES)
@pytest.mark.parametrize("seeds", [1, 3])
def test_figures_hold_what_the_records_hold(exercise: str, seeds: int) -> None:
    made = records(seeds)
    section = next(section for section in sections(made) if section.exercise == exercise)
    axes = figure(section).axes
    assert len(axes) == len(PANELS[section.exercise]) == {"smoothness": 3, "pooling": 4}[exercise]
    for ax, panel in zip(axes, PANELS[section.exercise], strict=True):
        assert ax.get_title() == panel.title
        assert ax.get_xlabel()
        assert ax.get_ylabel() == panel.unit
        legend = ax.get_legend()
        assert legend is not None
        assert [text.get_text() for text in legend.get_texts()] == [arm.label for arm in section.arms]
        assert len(ax.collections) == (2 if seeds > 1 else 0), "one band for each network, none for one seed"
        for line, arm in zip(ax.lines, section.arms, strict=True):
            expected = [mean_interval([v for run in arm.runs.values() if (v := panel.curve(run.rows[p])) is not None])
                        for p in range(PASSES + 1)]  # fmt: skip
            assert np.asarray(line.get_xdata()).tolist() == list(range(PASSES + 1))
            assert np.asarray(line.get_ydata()).tolist() == pytest.approx([interval.estimate for interval in expected])


def test_the_page_holds_numbers_data_and_both_answers(tmp_path: Path) -> None:
    made = records()
    text = compose(made).write(tmp_path).read_text()
    normed = [record for record in made if record.spec.norm]
    for needed in (
        show(mean_interval([r.last.train_loss for r in normed if r.last.train_loss is not None])),
        show(mean_interval([s for r in normed if (s := settled_smoothness(r)) is not None]), digits=2),
        "BatchNorm makes the objective smoother", DATA.checksum, DATA.title,
        "The test accuracy of Strided ConvNet is lower than that of ConvNet",
        "A training pass of the strided network takes 0.40",
    ):  # fmt: skip
        assert needed in text, f"{needed!r} is not on the page"
    assert text.count('src="data:image/png;base64,') == 2
    assert not re.search(r'(src|href)="(?!data:|#)', text), "the page asks for something outside itself"


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (records(normed_smoothness=0.5), "BatchNorm makes the objective smoother"),
        (records(normed_smoothness=2.0), "BatchNorm makes the objective less smooth"),
        (records(normed_smoothness=1.0, spread=0.2), "is not decided by these runs"),
        (records(seeds=1), "is not decided by these runs"),
    ],
    ids=["smoother", "rougher", "equal", "one seed"],
)
def test_the_answer_follows_the_numbers(made: list[ConvNetRecord], words: str) -> None:
    answer = " ".join(smoothness_section(made).answer)
    assert words in answer
    assert ("leaves room for learning rates larger" in answer) == ("makes the objective smoother" in words)


def test_a_diverged_run_is_counted_shown_and_averaged_into_nothing() -> None:
    made = records()
    lost = [diverged(r) if r.spec.norm and r.spec.seed == 0 else r for r in made]
    section = smoothness_section(lost)
    assert [row[-1] for row in section.rows] == ["0 of 3", "1 of 3"]
    assert section.answer[0].startswith("1 of 3 runs of ConvNet + BatchNorm diverged")
    assert "n = 2" in " ".join(section.answer)
    legend = figure(section).axes[0].get_legend()
    assert legend is not None
    assert legend.get_texts()[1].get_text() == "ConvNet + BatchNorm (1 of 3 diverged)"
    assert section.rows[0] == smoothness_section(made).rows[0]


def test_an_exercise_whose_runs_all_diverged_can_still_be_reported(tmp_path: Path) -> None:
    path = compose([diverged(record) for record in records()]).write(tmp_path)
    assert "3 of 3 runs of ConvNet diverged" in path.read_text()


def test_what_cannot_share_a_figure_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    made = records()
    alien = make_record(made[0].spec, made[0].rows, data=DATA.model_copy(update={"checksum": "1" * 64}))
    for bad, message in (([alien, *made[1:]], "come from 2 data sets"), (made[:1], "no exercise has records of both")):
        with pytest.raises(RecordError, match=message):
            compose(bad).write(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_settings_are_reported_apart(tmp_path: Path) -> None:
    compose(records() + records(passes=2)).write(tmp_path)
    assert len(list(tmp_path.glob("smoothness_*.png"))) == len(list(tmp_path.glob("pooling_*.png"))) == 2


def test_names_do_not_become_markup(tmp_path: Path) -> None:
    hostile = DATA.model_copy(update={"title": "<script>alert(1)</script>"})
    made = [make_record(record.spec, record.rows, data=hostile) for record in records()]
    text = compose(made).write(tmp_path).read_text()
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


def test_smoothness_is_averaged_from_pass_three() -> None:
    spec = ConvNetSpec.build(data="digits", passes=5)
    record = make_record(spec, [make_row(p, smoothness=float(p)) for p in range(6)])
    assert settled_smoothness(record) == 4
    short = make_record(ConvNetSpec.build(data="digits", passes=2), record.rows[:3])
    assert settled_smoothness(short) == 2


def test_an_unusable_reading_is_not_plotted() -> None:
    made = records()
    drowned = [make_reading(5.0, noise_floor=4.0, usable=False), make_reading(5.0)]
    rows = [row.model_copy(update={"readings": drowned}) if row.completed == 2 else row for row in made[0].rows]
    section = smoothness_section([make_record(made[0].spec, rows), *made[1:]])
    (line, *_) = figure(section).axes[2].lines
    assert 2 not in np.asarray(line.get_xdata()).tolist()
    answer = " ".join(section.answer)
    assert "Each value is the mean over 2 minibatch updates" in answer
    assert re.search(r"1 of \d+ was too close to it to be used", answer)


def test_a_run_made_twice_counts_once_with_the_readings_it_has() -> None:
    made = records()
    bare = [
        make_record(
            r.spec.model_copy(update={"directions": 0}), [row.model_copy(update={"readings": []}) for row in r.rows]
        )
        for r in made
    ]
    for order in (made + bare, bare + made):
        assert smoothness_section(order).rows == smoothness_section(made).rows
    without = [make_reading(5.0, noise_floor=None), make_reading(6.0, noise_floor=None)]
    rows = [row.model_copy(update={"readings": without}) for row in made[0].rows]
    unknown = [make_record(r.spec, rows) for r in made]
    assert "How much of a reading is rounding was not measured." in " ".join(smoothness_section(unknown).answer)


def test_an_interval_is_written_with_its_limits() -> None:
    assert show(Interval(1.23456, 1.0, 1.5, 4), digits=2) == "1.23 [1.00,\u00a01.50]"
    assert show(mean_interval([0.5])) == "0.500"
    assert show(None) == "-"
    assert show(Interval(0.5, -0.25, 1.25, 2), digits=2, sign=True) == "+0.50 [-0.25,\u00a0+1.25]"


def gate_left(folder: Path, found: list[Finding]) -> Path:
    """What ``hw4 gate`` leaves in its folder."""
    path = folder / "gate" / "gate.json"
    path.parent.mkdir(parents=True)
    where = environment(threads=1, dtype="float32").model_dump()
    path.write_bytes(as_json(found, {"against": None, "environment": where}))
    return path


def test_a_folder_and_its_neighbours_make_one_page(tmp_path: Path) -> None:
    """Exercises from the folder, the gate from beside it; what is nearer counts."""
    folder = tmp_path / "here"
    store = Store(folder / RECORDS, ConvNetRecord)
    store.prepare()
    for record in records():
        store.save(record)
    slow = Finding(part="timing", what="a <step>", before="1", now="2", change="x 2.00 [1.90, 2.10]",
                   verdict="REGRESSION", advice="find out why")  # fmt: skip
    gate_left(tmp_path, [slow])
    report = load_report(folder)
    assert [entry.title.partition(":")[0] for entry in report.entries] == [
        "Exercise 1",
        "Exercise 3",
        "The gate's last word",
    ]
    text = report.write(folder).read_text()
    for needed in (
        "REGRESSION, against the committed baseline, from 1 finding.",
        "timing: a &lt;step&gt;",
        "find out why",
    ):
        assert needed in text
    gate_left(folder, [])
    assert "UNMEASURABLE" in load_report(folder).entries[-1].answer[0]
    document = load_report(folder).as_json()
    assert json.loads(json.dumps(document)) == document
    assert document["Exercise 3: max-pooling or stride?"]["tables"][0]["rows"][0][0] == "ConvNet"


@pytest.mark.parametrize("contents", [b"", b"{}", b"[]", b"\xff", b'{"verdict": 1}'])
def test_a_file_no_gate_left_is_named(contents: bytes, tmp_path: Path) -> None:
    path = gate_left(tmp_path, [])
    path.write_bytes(contents)
    with pytest.raises(RecordError, match=r"gate\.json was not left by a gate .*run 'hw4 gate' again"):
        load_report(tmp_path)


def test_an_empty_folder_holds_no_report(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"there are no records in .*nothing; make them with 'hw4 run --out"):
        load_report(tmp_path / "nothing")

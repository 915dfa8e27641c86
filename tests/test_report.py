"""The report: deterministic, safe, and true to the records, also where they decide nothing."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.text import Text
from scipy import stats

from hw4.errors import RecordError
from hw4.files import RECORDS
from hw4.gate import Finding, as_json
from hw4.readings import SmoothnessReading
from hw4.records import ConvNetRecord, Store, environment
from hw4.report import exercises
from hw4.report.drawing import plain_log, svg, told
from hw4.report.entry import Entry
from hw4.report.exercises import Section, answer, figure, label, panels, sections, settled_smoothness, table
from hw4.report.page import Report, load_report
from hw4.report.words import plural, show, tested
from hw4.specs import ConvNetSpec, exercise_specs, longer_specs
from hw4.stats import Interval, mean_interval
from hw4.variants import EXERCISES
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
        accuracy = 0.8 + 0.0012 * spec.seed if spec.downsample == "stride" else 0.9 + 0.001 * spec.seed
        trained = [
            make_row(p, loss=2.3 * better * noise / (1 + p), accuracy=accuracy, smoothness=10 * rougher * noise)
            for p in range(1, passes + 1)
        ]
        start = make_row(0, loss=2.3, accuracy=0.1, smoothness=10 * noise)
        made.append(
            make_record(spec, [start, *trained], seconds=1.0 if spec.downsample == "pool" else 0.4 + 2e-4 * spec.seed)
        )
    return made


def diverged(record: ConvNetRecord) -> ConvNetRecord:
    return make_record(record.spec, [*record.rows[:2], make_row(2, loss=None, smoothness=None)], diverged=True)


def smoothness_section(made: list[ConvNetRecord]) -> Section:
    return next(section for section in sections(made) if section.exercise == "smoothness")


def test_equal_records_give_equal_bytes(tmp_path: Path) -> None:
    """Also where somebody's own settings ask for white letters, larger, by a LaTeX that may not be there."""
    theirs: dict[Any, Any] = {"text.color": "white", "font.size": 30, "text.usetex": True}
    paths = []
    for name, settings in (("a", {}), ("b", theirs)):
        folder = tmp_path / name
        Store(folder / RECORDS, ConvNetRecord).prepare()
        for record in records():
            Store(folder / RECORDS, ConvNetRecord).save(record)
        with rc_context(settings):
            paths.append(load_report(folder).write(tmp_path / f"page {name}"))
    first, second = paths
    assert first.read_bytes() == second.read_bytes()
    for exercise in EXERCISES:
        assert (first.parent / f"{exercise}.png").read_bytes() == (second.parent / f"{exercise}.png").read_bytes()


@pytest.mark.parametrize("exercise", EXERCISES)
@pytest.mark.parametrize("seeds", [1, 3])
def test_figures_hold_what_the_records_hold(exercise: str, seeds: int) -> None:
    made = records(seeds)
    section = next(section for section in sections(made) if section.exercise == exercise)
    canvas = figure(section)
    axes, (legend,) = canvas.axes, canvas.legends
    assert [text.get_text() for text in legend.get_texts()] == [label(arm) for arm in section.arms]
    assert len(axes) == len(panels(section)) == 4
    for ax, (panel, curve) in zip(axes, panels(section), strict=True):
        assert ax.get_title() == panel.title
        assert ax.get_xlabel().startswith("passes")
        assert ax.get_ylabel() == panel.unit
        assert len(ax.collections) == (2 if seeds > 1 else 0), "one band for each network, none for one seed"
        for line, arm in zip(ax.lines, section.arms, strict=True):
            expected = [
                mean_interval([v for run in arm.values() if (v := curve(run.rows[p])) is not None])
                for p in range(PASSES + 1)
            ]
            assert np.asarray(line.get_xdata()).tolist() == list(range(PASSES + 1))
            assert np.asarray(line.get_ydata()).tolist() == pytest.approx([interval.estimate for interval in expected])


def test_the_page_holds_numbers_data_and_both_answers(tmp_path: Path) -> None:
    made = records()
    text = Report(exercises.entries(made)).write(tmp_path).read_text()
    normed = [record for record in made if record.spec.norm]
    for needed in (
        show(mean_interval([r.last.train_loss for r in normed if r.last.train_loss is not None])),
        show(mean_interval([s for r in normed if (s := settled_smoothness(r)) is not None]), digits=2),
        "BatchNorm makes the objective smoother",
        DATA.checksum,
        DATA.title,
        "The test accuracy of Strided ConvNet is lower than that of ConvNet",
        "A training pass of the strided network takes 0.40",
    ):
        assert needed in text, f"{needed!r} is not on the page"
    assert text.count('class="panels"') == 2
    assert not re.search(r'(src|href)="(?!data:|#)', text), "the page asks for something outside itself"


def test_a_diverged_run_is_counted_shown_and_left_out_of_every_mean() -> None:
    made = records()
    lost = [diverged(r) if r.spec.norm and r.spec.seed == 0 else r for r in made]
    section = smoothness_section(lost)
    assert [row[-1] for row in table(section)[1]] == ["0 of 3", "1 of 3"]
    assert answer(section)[0] == (
        "1 of 3 runs of ConvNet + BatchNorm diverged. Diverged runs are counted and left out of every mean. "
        "2 of the 3 seeds can be used to compare the two networks."
    )
    assert "n = 2 of 3" in " ".join(answer(section))
    (legend,) = figure(section).legends
    assert "diverged runs" in legend.get_title().get_text()
    assert legend.get_texts()[1].get_text() == "ConvNet + BatchNorm (1 of 3 diverged)"
    assert table(section)[1][0] == table(smoothness_section(made))[1][0]


def test_an_exercise_whose_runs_all_diverged_can_still_be_reported(tmp_path: Path) -> None:
    path = Report(exercises.entries([diverged(record) for record in records()])).write(tmp_path)
    assert "3 of 3 runs of ConvNet diverged" in path.read_text()


def test_what_cannot_share_a_figure_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    made = records()
    alien = make_record(made[0].spec, made[0].rows, data=DATA.model_copy(update={"checksum": "1" * 64}))
    for bad, message in (([alien, *made[1:]], "come from 2 data sets"), (made[:1], "no exercise has records of both")):
        with pytest.raises(RecordError, match=message):
            Report(exercises.entries(bad)).write(tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("undrawn")
def test_settings_are_reported_apart(tmp_path: Path) -> None:
    Report(exercises.entries(records() + records(passes=2))).write(tmp_path)
    assert len(list(tmp_path.glob("smoothness_*.png"))) == len(list(tmp_path.glob("pooling_*.png"))) == 2


def asked_for(seeds: int, passes: int, lost: str, chance: int) -> list[ConvNetRecord]:
    """Runs of random outcomes near the ends of what is possible, of which none, some, an arm's or all diverged."""
    generator = np.random.default_rng([seeds, passes, chance])
    made = []
    for spec in exercise_specs(["smoothness", "pooling"], seeds=seeds, data="digits", passes=passes):
        loss, smoothness = generator.lognormal(sigma=1, size=(2, passes + 1))
        accuracy = np.clip(generator.normal(0.97, 0.03, passes + 1), 0, 1)
        rows = [make_row(p, loss=loss[p], accuracy=accuracy[p], smoothness=smoothness[p]) for p in range(passes + 1)]
        gone = {
            "none": False,
            "all": True,
            "some": spec.seed == 0 and spec.norm is None,
            "arm": spec.norm is None and spec.downsample == "pool",
        }[lost]
        if gone:
            rows[-1] = make_row(passes, loss=None, accuracy=None, smoothness=None)
        made.append(make_record(spec, rows, seconds=generator.lognormal(), diverged=gone))
    return made


def longer(made: list[ConvNetRecord], *, losses: float, accuracy: float, seconds: float = 0.4) -> list[ConvNetRecord]:
    """Made-up longer runs of the strided networks: their train loss falls from pass to pass, their accuracy stays."""
    found = []
    for record in made:
        for spec in longer_specs(["pooling"], [record.spec]):
            after = [
                make_row(p, loss=losses / p, accuracy=accuracy + 0.002 * (-1) ** spec.seed, smoothness=None)
                for p in range(1, spec.passes + 1)
            ]
            found.append(make_record(spec, [make_row(0, loss=2.3, accuracy=0.1), *after], seconds=seconds))
    return found


def pooling(made: list[ConvNetRecord]) -> Section:
    return next(section for section in sections(made) if section.exercise == "pooling")


def test_equal_time_is_the_last_pass_that_ends_within_it() -> None:
    """Pooling takes 4 seconds for its 4 passes; of 16 passes some take less, none or all of that."""
    made = records(seeds=1)
    first = next(record for record in made if record.spec.variant == "pool")
    for seconds, passes, early in (
        (0.5, 8, False),
        (0.75, 5, False),
        (4.0, 1, False),
        (5.0, 0, False),
        (0.2, 16, True),
    ):
        (run,) = longer(made, losses=1.0, accuracy=0.8, seconds=seconds)
        assert exercises.within_time(first, run) == passes
        assert exercises.early(first, run, passes) == early
    (run,) = longer(made, losses=1.0, accuracy=0.8, seconds=0.25)
    assert not exercises.early(first, run, 16), "all its passes take just that time"
    slow = run.times[-1].model_copy(update={"cpu_seconds": 1.0})
    for place, fits in ((0, True), (1, True), (-1, False)):  # another pass as long as the last is what has to fit
        times = [
            slow if each == place % 16 else time.model_copy(update={"cpu_seconds": 0.15})
            for each, time in enumerate(run.times)
        ]
        assert exercises.early(first, run.model_copy(update={"times": times}), 16) == fits
    timeless = make_record(first.spec, first.rows, seconds=0.0)
    assert exercises.within_time(timeless, run) == 0, "a clock too coarse for a pass tells nothing"


def test_a_short_logarithmic_axis_has_labels_at_1_2_and_5_and_a_long_one_at_1() -> None:
    for high, ticks in ((100, [1, 2, 5, 10, 20, 50, 100]), (1e6, [1, 10, 100, 1e3, 1e4, 1e5, 1e6])):
        ax = Figure().subplots()
        ax.set_yscale("log")
        ax.set_ylim(1, high)
        plain_log(ax.yaxis)
        assert [tick for tick in ax.get_yticks() if 1 <= tick <= high] == pytest.approx(ticks)


def test_equal_fit_is_the_first_pass_whose_train_loss_is_down_to_the_others_last() -> None:
    made = records(seeds=1)
    first = next(record for record in made if record.spec.variant == "pool")
    goal = first.last.train_loss
    assert goal is not None
    for losses, passes in ((3 * goal, 3), (goal, 1), (2.5 * goal, 3), (100 * goal, 0)):
        (run,) = longer(made, losses=losses, accuracy=0.8)
        assert exercises.equal_fit(first, run) == passes


LOWER = "difference -0.0503 [-0.0566,\u00a0-0.0441] (paired t test, p = 0.00083, n = 3 seeds)"
"""What scipy's ttest_1samp makes of 0.852 - 0.900, 0.848 - 0.901 and 0.852 - 0.902."""


@pytest.mark.parametrize(
    ("losses", "accuracy", "words"),
    [
        (2.3, 0.85, f"its test accuracy is lower: {LOWER}; slower fitting is not the whole reason"),
        (2.3, 0.95, "its test accuracy is higher: difference +0.0497"),
        (2.3, 0.901, "a difference in test accuracy is not decided: it is +0.0007"),
        (1e3, 0.85, "In 3 of 3 seeds its train loss does not come down to pooling's within 16 passes either"),
    ],
    ids=["lower", "higher", "equal", "never"],
)
def test_slower_fitting_is_told_from_lost_positions_where_the_runs_do(
    losses: float, accuracy: float, words: str
) -> None:
    made = [slower(record) for record in records()]
    said = " ".join(answer(pooling(made + longer(made, losses=losses, accuracy=accuracy))))
    assert "Another fits as well: after equal passes it has fitted even its training images less." in said
    assert words in said
    assert ("these runs do not tell the lost positions from slower fitting" in said) == (
        "not decided" in words or "either" in words
    )
    assert ("no reason but slower fitting is needed" in said) == ("higher" in words)
    require_true(exercises.entries(made + longer(made, losses=losses, accuracy=accuracy))[-1], seeds=3)


def slower(record: ConvNetRecord) -> ConvNetRecord:
    """A strided run whose train loss stays higher, by nearly as much in every seed."""
    if record.spec.downsample == "pool":
        return record
    rows = [row.model_copy(update={"train_loss": 2.3 + 0.001 * record.spec.seed}) for row in record.rows]
    return make_record(record.spec, rows, seconds=0.4 + 2e-4 * record.spec.seed)


@pytest.mark.parametrize(
    ("accuracy", "seconds", "words"),
    [
        (
            0.85,
            0.4,
            f"At equal processor time the test accuracy of Strided ConvNet is lower than that of ConvNet: {LOWER}",
        ),
        (0.85, 0.4, "n = 3 seeds), after 10 passes of Strided ConvNet and 4 passes of ConvNet."),
        (0.95, 0.4, "At equal processor time the test accuracy of Strided ConvNet is higher than that of ConvNet"),
        (0.901, 0.4, "At equal processor time a difference in test accuracy between Strided ConvNet and ConvNet is"),
        (0.85, 0.2, "At less processor time the test accuracy of Strided ConvNet is lower than that of ConvNet"),
        (0.85, 0.2, "In 3 of 3 seeds Strided ConvNet had done all its passes before that time was up, at 80% of it or"),
        (0.85, 5.0, "At equal processor time nothing can be compared: no seed allows it."),
    ],
)
def test_the_order_at_equal_time_names_its_test(accuracy: float, seconds: float, words: str) -> None:
    made = records()
    said = answer(pooling(made + longer(made, losses=2.3, accuracy=accuracy, seconds=seconds)))
    assert words in " ".join(said)
    assert ("before that time was up" in " ".join(said)) == (seconds == 0.2)


def test_longer_runs_have_a_table_and_a_place_in_the_figure_and_old_folders_have_neither() -> None:
    made = records()
    more = longer(made, losses=1.5, accuracy=0.85)
    section = pooling(made + more)
    assert sections(made)[-1] == section._replace(longer={}), "the other exercise and both arms are what they were"
    ((caption, header, rows),) = exercises.longer_table(section)
    assert caption == "Strided ConvNet trained for longer, beside ConvNet"
    assert [(row[0], row[1]) for row in rows] == [
        ("ConvNet", "4"),
        ("Strided ConvNet", "4"),
        ("Strided ConvNet", "10 (equal time)"),
        ("Strided ConvNet", "4 (equal train loss)"),
        ("Strided ConvNet", "16"),
    ]
    assert [row[header.index("processor seconds")].partition(" ")[0] for row in rows] == [
        "4.0",
        "1.6",
        "4.0",
        "1.6",
        "6.4",
    ]
    assert [row[header.index("train loss")].partition(" ")[0] for row in rows][2:] == ["0.150", "0.375", "0.094"]
    timed = figure(section).axes[4:]
    assert [ax.get_title() for ax in timed] == ["Train loss", "Test accuracy"]
    (mean,) = (line for line in timed[0].lines if line.get_marker() == "^")
    assert np.asarray(mean.get_xdata())[-1] == pytest.approx(6.4)
    assert np.asarray(mean.get_ydata())[-1] == pytest.approx(1.5 / 16)
    without = exercises.entries(made)
    assert len(without[-1].tables) == 1
    assert len(pooling(made).longer) == 0
    assert "processor time the test accuracy" not in " ".join(without[-1].answer)
    assert exercises.entries(made + more)[0].answer == without[0].answer
    assert [entry.title for entry in exercises.entries(made + more)] == [entry.title for entry in without]


def test_longer_runs_that_diverged_or_saw_other_data_do_not_pass_silently() -> None:
    made = records()
    lost, *kept = longer(made, losses=1.5, accuracy=0.85)
    said = " ".join(answer(pooling([*made, diverged(lost), *kept])))
    assert "1 of 3 runs of Strided ConvNet over 16 passes diverged." in said
    assert "n = 2 of 3 seeds" in said
    said = " ".join(answer(pooling([*made, *map(diverged, [lost, *kept])])))
    assert "3 of 3 runs of Strided ConvNet over 16 passes diverged. At equal processor time nothing" in said
    every = pooling([*map(diverged, made), *map(diverged, [lost, *kept])])
    assert exercises.longer_table(every) == [], "a table of nothing"
    short = pooling([*made, *longer(made, losses=1.5, accuracy=0.85, seconds=0.004)])
    assert exercises.longer_table(short)[0][2][-1][2].partition(" ")[0] == "0.064"
    alien = make_record(lost.spec, lost.rows, data=DATA.model_copy(update={"checksum": "1" * 64}))
    with pytest.raises(RecordError, match="come from 2 data sets"):
        sections([*made, alien, *kept])


@pytest.mark.parametrize("values", [[0.1, 0.3, -0.05], [-2.0, -2.1, -1.9, -2.05], [0.0, 0.0], [1.0, 1.0]])
def test_the_paired_t_test_is_scipys(values: list[float]) -> None:
    said = tested(mean_interval(values), seeds=len(values))
    if len(set(values)) == 1:
        assert said == f" (no scatter to test by, n = {len(values)} seeds)"
        assert mean_interval(values).compared_with(0.5) == "not decided"
        return
    p = stats.ttest_1samp(values, 0).pvalue
    assert said == f" (paired t test, p {'< 0.0001' if p < 1e-4 else f'= {p:.2g}'}, n = {len(values)} seeds)"
    assert tested(mean_interval(values[:1]), seeds=3) == ""


def test_seconds_of_other_machines_are_not_compared() -> None:
    made = records()
    far = [
        run.model_copy(update={"environment": run.environment.model_copy(update={"cpu": "another"})})
        if run.spec.downsample == "stride"
        else run
        for run in made
    ]
    for runs, alike in ((made, True), (far, False)):
        section = next(each for each in sections(runs) if each.exercise == "pooling")
        words = " ".join(answer(section))
        assert ("times the processor time" in words) == alike
        assert ("so their seconds are not compared" in words) != alike


def test_runs_of_other_settings_have_headings_of_their_own_and_sparse_ones_none() -> None:
    made = records()
    for changes, headings in (({"momentum": 0.9, "directions": 0}, 4), ({"row_passes": ()}, 2)):
        other = [make_record(run.spec.model_copy(update=changes), run.rows) for run in made]
        titles = [entry.title for entry in exercises.entries([*made, *other])]
        assert len(titles) == len(set(titles)) == headings


def test_a_worse_test_loss_beside_a_better_accuracy_is_given_a_possible_reason_and_no_more() -> None:
    made = records()
    assert "overconfidence" not in " ".join(answer(smoothness_section(made))), "its loss is better"
    for factor, accuracy, said_so in ((1.2, 0.95, True), (1.2, 0.85, False), (0.8, 0.95, False)):
        changed = [
            make_record(
                record.spec,
                [
                    row.model_copy(update={"test_loss": factor + 0.01 * record.spec.seed, "test_accuracy": accuracy})
                    if record.spec.norm
                    else row.model_copy(update={"test_loss": 1.0})
                    for row in record.rows
                ],
            )
            for record in made
        ]
        said = " ".join(answer(smoothness_section(changed)))
        assert f"The test loss of ConvNet + BatchNorm is {'higher' if factor > 1 else 'lower'} than" in said
        assert ("a possible reason, not measured here, is overconfidence" in said) == said_so


def texts(entry: Entry) -> list[str]:
    """Every sentence, cell, title and caption of a part of the report, its figure's included."""
    assert entry.figure is not None
    cells = [cell for _, header, rows in entry.tables for row in (header, *rows) for cell in row]
    drawn = [text.get_text() for text in entry.figure.findobj(Text)]
    return [entry.title, entry.caption, entry.alt, *entry.answer, *cells, *drawn]


INTERVAL = re.compile(r"\[([^,]+),\s([^\]]+)\]")
ONE_SIDED = re.compile(
    r"BatchNorm makes|So the smoother|leaves less room|is (lower|higher|smaller|larger|smoother|rougher) |is already"
    r"|is less smooth|saves no time|compute only|A reason that fits|does allow|does not allow|is no bound|too much here"
)


def require_true(entry: Entry, *, seeds: int) -> None:
    """Fail when a sentence concludes what its interval does not, or speaks of intervals where there is one seed.

    Nor may an interval in a table leave what its quantity can be.
    """
    for text in texts(entry):
        assert not re.search(r"\b(nan|inf)\b", text), text
        if seeds < 2:
            assert not re.search(r"interval|decided|\[", text), text
            assert not ONE_SIDED.search(text), text
    for name, cell in (
        (n, c) for _, header, rows in entry.tables for row in rows for n, c in zip(header, row, strict=True)
    ):
        for low, high in INTERVAL.findall(cell):
            assert float(low) >= 0, cell
            assert "accuracy" not in name or float(high) <= 1, cell
    for sentence in entry.answer:
        found = INTERVAL.findall(sentence)
        if len(found) == 1:  # with more it takes more than this to say what they are held against
            low, high = map(float, found[0])
            reference = 0 if found[0][0][0] in "+-" else 1
            assert ("not decided" in sentence) == (low <= reference <= high), sentence


@pytest.mark.parametrize("seeds", [1, 2, 5])
@pytest.mark.parametrize("passes", [1, 2, 4])
@pytest.mark.parametrize("lost", ["none", "some", "arm", "all"])
def test_the_page_is_true_whatever_was_asked(seeds: int, passes: int, lost: str) -> None:
    for chance in range(2):
        made = asked_for(seeds, passes, lost, chance)
        for section, entry in zip(sections(made), Report(exercises.entries(made)).entries, strict=True):
            require_true(entry, seeds=seeds)
            for arm, row in zip(section.arms, table(section)[1], strict=True):
                gone = sum(run.diverged for run in arm.values())
                assert row[-1] == f"{gone} of {seeds}"
                assert (f"{gone} of {plural(seeds, 'run')} of {label(arm)} diverged" in answer(section)[0]) == (
                    gone > 0
                )
            assert entry.figure is not None
            for ax, (panel, _) in zip(entry.figure.axes, panels(section), strict=True):
                for band in ax.collections:
                    for path in band.get_paths():
                        ends = np.asarray(path.vertices)[:, 1]
                        assert (ends >= 0).all(), panel.title
                        assert (ends <= panel.upper).all(), panel.title
            both = set.intersection(*({s for s, run in arm.items() if not run.diverged} for arm in section.arms))
            if len(both) < 2:
                assert not [sentence for sentence in answer(section) if ONE_SIDED.search(sentence)], answer(section)
                assert seeds == 1 or "no difference between them is decided" in answer(section)[0]
            span = "over passes 3 to 4" if passes == 4 else f"after pass {passes}"
            assert section.exercise == "pooling" or table(section)[0][4] == f"smoothness {span}"


@pytest.mark.parametrize("readings", [[make_reading(0.0, noise_floor=None)], [make_reading(5.0, noise_floor=4.0)], []])
def test_smoothness_without_a_usable_reading_is_said_not_computed(readings: list[SmoothnessReading]) -> None:
    made = [
        make_record(record.spec, [row.model_copy(update={"readings": readings}) for row in record.rows])
        for record in records()
    ]
    section, entry = smoothness_section(made), Report(exercises.entries(made)).entries[0]
    lacking = "not usable" if readings else "not measured"
    assert [row[4] for row in table(section)[1]] == [lacking, lacking]
    assert answer(section)[0] == f"Smoothness is {lacking} in both networks at any seed, so it cannot be compared."
    assert ("No reading can be told from rounding error" in " ".join(answer(section))) == bool(readings)
    require_true(entry, seeds=3)


def test_undecided_costs_do_not_become_savings() -> None:
    made = [
        record.model_copy(update={"rows": [row.model_copy(update={"test_accuracy": 0.9}) for row in record.rows]})
        for record in records()
    ]
    section = next(section for section in sections(made) if section.exercise == "pooling")
    said = answer(section)
    assert said[-1].startswith(
        "These runs leave open what striding costs in test accuracy. Were there a cost, a reason"
    )
    assert said[-1].endswith("Neither is shown here.")
    assert "is not decided: it is +0.0000" in said[1]


def test_a_setting_is_named_by_what_differs_from_the_homeworks() -> None:
    odd = ConvNetSpec.build(data="digits", learning_rate=0.1, batch_size=64, passes=2, subset=0.5)
    for spec, words, key in (
        (
            odd,
            "digits, learning rate 0.1, batch 64, 2 passes, a share of 0.5 of the training images",
            "digits_lr0.1_batch64_passes2_subset0.5",
        ),
        (ConvNetSpec.build(data="fashion-mnist", passes=1), "1 pass", "passes1"),
        (ConvNetSpec.build(data="fashion-mnist"), "", ""),
    ):
        assert (exercises.setting_words(spec), exercises.setting_key(spec)) == (words, key)


@pytest.mark.parametrize("exercise", EXERCISES)
def test_the_legend_covers_nothing(exercise: str) -> None:
    section = next(section for section in sections(records(passes=2)) if section.exercise == exercise)
    canvas = figure(section)
    canvas.draw_without_rendering()
    (legend,) = canvas.legends
    box = legend.get_window_extent()
    for ax in canvas.axes:
        assert ax.get_legend() is None
        assert not ax.texts
        whole = ax.get_tightbbox()
        assert whole is not None
        assert not whole.overlaps(box)
    assert canvas.bbox.x0 <= box.x0
    assert box.x1 <= canvas.bbox.x1


def test_marks_tell_seed_and_value_and_the_figure_stays_as_it_was() -> None:
    canvas = Figure(layout="constrained")
    plain, named = canvas.subplots(1, 2)
    (line,) = plain.plot([1, 2, 1000], [0.5, np.nan, 0.25], "o", gid=told("a net, seed", [4, 5, 7]))
    plain.set(xscale="log", xlim=(0.5, 2000))
    plain.plot([1, 2], [0.3, 0.4], label="<mean>")
    plain.plot([1, 2], [0.3, 0.4], "o")
    named.plot([0.1, 0.9], [1, 2], "o", label="dot")
    named.set_xticks([0, 1], ["first\nof two", "second"])
    before, panels = line.get_gid(), svg(canvas, "salt")
    assert [re.findall("<title>(.*?)</title>", panel) for panel in panels] == [
        ["a net, seed 4: 0.5 at 1", "a net, seed 7: 0.25 at 1000", "&lt;mean&gt;"],
        ["dot: 1 at first of two", "dot: 2 at second"],
    ]
    assert line.get_gid() == before
    assert svg(canvas, "salt") == panels
    ids = [set(re.findall(r' id="(\w+)"', "".join(svg(canvas, salt)))) for salt in ("salt", "other")]
    assert not set.intersection(*ids), "two figures of a page would share names"
    for used in re.findall(r'href="#(\w+)"|url\(#(\w+)\)', "".join(panels)):
        assert "".join(used) in ids[0]


def test_names_do_not_become_markup(tmp_path: Path) -> None:
    hostile = DATA.model_copy(update={"title": "<script>alert(1)</script>"})
    made = [make_record(record.spec, record.rows, data=hostile) for record in records()]
    text = Report(exercises.entries(made)).write(tmp_path).read_text()
    assert "<script>alert" not in text
    assert "&lt;script&gt;" in text


def test_smoothness_is_averaged_from_pass_three() -> None:
    spec = ConvNetSpec.build(data="digits", passes=5)
    record = make_record(spec, [make_row(p, smoothness=float(p)) for p in range(6)])
    assert settled_smoothness(record) == 4
    short = make_record(ConvNetSpec.build(data="digits", passes=2), record.rows[:3])
    assert settled_smoothness(short) == 2


def test_an_unusable_reading_is_not_plotted() -> None:
    made = records()
    drowned = [make_reading(5.0, noise_floor=4.0), make_reading(5.0)]
    rows = [row.model_copy(update={"readings": drowned}) if row.completed == 3 else row for row in made[0].rows]
    section = smoothness_section([make_record(made[0].spec, rows), *made[1:]])
    (line, *_) = figure(section).axes[3].lines
    assert 3 not in np.asarray(line.get_xdata()).tolist()
    said = " ".join(answer(section))
    assert "Each value is the mean over 2 minibatch updates" in said
    assert re.search(r"1 of \d+ readings was too close to rounding error to be used", said)
    assert table(section)[1][0][4].endswith(" (2 of 3 runs)")
    assert "n = 2 of 3" in answer(section)[0]


def test_a_run_made_twice_counts_once_with_the_readings_it_has() -> None:
    made = records()
    bare = [
        make_record(
            r.spec.model_copy(update={"directions": 0}), [row.model_copy(update={"readings": []}) for row in r.rows]
        )
        for r in made
    ]
    for order in (made + bare, bare + made):
        assert table(smoothness_section(order)) == table(smoothness_section(made))
    without = [make_reading(5.0, noise_floor=None), make_reading(6.0, noise_floor=None)]
    rows = [row.model_copy(update={"readings": without}) for row in made[0].rows]
    unknown = [make_record(r.spec, rows) for r in made]
    assert "How much of a reading is rounding was not measured;" in " ".join(answer(smoothness_section(unknown)))


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
    path.write_bytes(as_json(found, {"compared": "the baseline", "environment": where}))
    return path


@pytest.mark.usefixtures("undrawn")
def test_a_folder_and_its_neighbours_make_one_page(tmp_path: Path) -> None:
    """Exercises from the folder, the gate from beside it; what is nearer counts."""
    folder = tmp_path / "here"
    store = Store(folder / RECORDS, ConvNetRecord)
    store.prepare()
    for record in records():
        store.save(record)
    slow = Finding(
        part="timing",
        what="a <step>",
        before="1",
        now="2",
        change="x 2.00 [1.90, 2.10]",
        verdict="REGRESSION",
        advice="find out why",
    )
    gate_left(tmp_path, [slow])
    report = load_report(folder)
    assert [entry.title.partition(":")[0] for entry in report.entries] == [
        "Exercise 1",
        "Exercise 3",
        "The gate's last word",
    ]
    text = report.write(folder).read_text()
    for needed in ("REGRESSION, compared with the baseline, from 1 finding.", "timing: a &lt;step&gt;", "find out why"):
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


def test_records_of_another_program_are_not_told_to_be_deleted(tmp_path: Path) -> None:
    record = make_record(ConvNetSpec.build(data="digits", passes=1), [make_row(0), make_row(1)])
    (store := Store(tmp_path / RECORDS, ConvNetRecord)).prepare()
    path = store.save(record)
    path.write_text(path.read_text().replace('"norm": null', '"norm": "instance"'))
    with pytest.raises(RecordError, match="its variant is another program's: read it there, or register it first"):
        load_report(tmp_path)


def test_equal_values_have_no_interval_and_nothing_is_minus_zero() -> None:
    assert show(mean_interval([0.5, 0.5, 0.5])) == "0.500 (all 3 alike)"
    assert show(Interval(estimate=-1e-5, low=-0.1, high=-1e-6, n=3)) == "0.000 [-0.100,\u00a00.000]"

"""The claim: ladders are bracketed, answers follow from the numbers, landscapes are those of the runs themselves."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hw4.data.images import load_images
from hw4.errors import RecordError, SpecError
from hw4.experiments import train_convnet
from hw4.readings import Block, KinkShare, RangeView, Sharpness
from hw4.records import ConvNetRecord, RunOutcome, TextCNNRecord
from hw4.report import claim
from hw4.report.page import Report
from hw4.specs import ConvNetSpec, ladder_specs, landscape_specs
from hw4.studies import Spec, ladder
from tests.factory import DATA, make_reading, make_record, make_row
from tests.test_report import require_true

RATES = (0.1, 0.2, 0.4, 0.8)


def rung(spec: ConvNetSpec, ended: RunOutcome) -> ConvNetRecord:
    """A made-up run of a ladder."""
    last = {"trained": 0.05 * 3**spec.seed, "stuck": 2.29, "diverged": None}[ended]
    rows = [make_row(0, loss=2.3, accuracy=0.1, smoothness=None)]
    rows += [make_row(completed, loss=last, smoothness=None) for completed in range(1, spec.passes + 1)]
    return make_record(spec, rows, diverged=ended == "diverged")


def landscape(spec: ConvNetSpec, *, smoothness: float) -> ConvNetRecord:
    """A made-up landscape of one smoothness after every pass, ten times that before training."""
    rows, factors = [], (0.5, 1.0, 2.0)
    for row in rung(spec, "trained").rows:
        level = smoothness * (1 if row.completed else 10)
        blocks = tuple(
            Block(name=name, weight_norm=1.0 + row.completed, update_norm=0.05, gradient_change_norm=level / 20)
            for name in claim.LAYERS
        )
        found: dict[str, object] = {
            "readings": [make_reading(level, blocks=blocks)],
            "view": RangeView(
                factors=factors,
                loss=1.0,
                losses=(0.9, 0.8, 0.7),
                gradient_changes=tuple(level * 0.1 * factor for factor in factors),
                update_norm=0.1,
            ),
        }
        if row.completed in spec.curvature_passes:
            found["sharpness"] = Sharpness(value=2 * level, residual=1e-3, products=20)
            found["kinks"] = KinkShare(share=0.1, quadrature_error=0.001, nodes=3)
        rows.append(row.model_copy(update=found))
    return make_record(spec, rows)


def made_up(plain: int, normed: int, *, seeds: int = 4, views: int = 3, passes: int = 4) -> claim.Claim:
    """A claim whose networks train up to these rungs of the ladder, with BatchNorm twice as smooth."""
    rungs = [
        rung(spec, "trained" if RATES.index(spec.learning_rate) < (normed if spec.norm else plain) else "diverged")
        for spec in ladder_specs(rates=RATES, seeds=seeds, data="digits", passes=1)
    ]
    around = [
        landscape(spec, smoothness=(5.0 if spec.norm else 10.0) * (1 + 0.01 * spec.seed))
        for spec in landscape_specs(seeds=views, data="digits", passes=passes)
    ]
    return claim.assemble(rungs, around)


def test_the_largest_stable_rate_is_bracketed() -> None:
    ends: dict[tuple[int, float], RunOutcome] = {(0, 0.4): "stuck", (1, 0.2): "diverged", (2, 0.1): "diverged"}
    specs = ladder_specs(rates=RATES, seeds=4, data="digits", passes=1)
    rungs = [rung(spec, ends.get((spec.seed, spec.learning_rate), "trained")) for spec in specs]
    found = claim.assemble(rungs, made_up(2, 2).landscapes)
    # Seed 2 fails at the first rate and seed 3 never: neither says where its limit is.
    assert found.stable("pool") == {0: (0.2, 0.4), 1: (0.1, 0.2)}
    limit = found.largest_stable("pool")
    assert limit is not None
    assert limit.low < 0.1
    assert limit.estimate == pytest.approx(0.2)
    assert limit.high > 0.4


def test_bisections_narrow_each_seeds_own_bracket() -> None:
    """Where the truth is known: seed s trains below 0.3 + 0.01 s, with BatchNorm below twice that."""

    def ended(spec: ConvNetSpec) -> RunOutcome:
        return "trained" if spec.learning_rate < (0.3 + 0.01 * spec.seed) * (2 if spec.norm else 1) else "diverged"

    study = ladder(ladder_specs(rates=RATES, seeds=3, data="digits", passes=1), bisections=6)
    made: dict[Spec, ConvNetRecord | TextCNNRecord | None] = {}
    while new := [spec for spec in study(made) if spec not in made]:
        made |= {spec: rung(spec, ended(spec)) for spec in new if isinstance(spec, ConvNetSpec)}
    runs = [run for run in made.values() if isinstance(run, ConvNetRecord)]
    found = claim.assemble(runs, made_up(2, 2).landscapes)
    assert found.rates == list(RATES)
    assert len(claim.ladder_rows(found)) == len(RATES)
    for seed, (good, bad) in found.stable("pool").items():
        assert good < 0.3 + 0.01 * seed <= bad < 1.02 * good
    ratio = found.stable_ratio()
    assert ratio is not None
    assert ratio.low < 2 < ratio.high
    assert ratio.high - ratio.low < 0.1
    assert "narrowed by 6 more for each network and seed" in found.caption
    alone = runs[0].spec
    assert ladder([alone], bisections=6)({alone: runs[0]}) == [alone], "no bracket, nothing to narrow"


@pytest.mark.parametrize(
    ("plain", "normed", "words"),
    [
        (1, 3, "BatchNorm does allow larger learning rates"),
        (3, 1, "BatchNorm does not allow larger learning rates here"),
        (2, 2, "Whether BatchNorm allows larger learning rates is not decided"),
        (4, 2, "does not bracket the largest stable rate of both"),
    ],
)
def test_the_answer_follows_the_ladder(plain: int, normed: int, words: str) -> None:
    answer = claim.answers(made_up(plain, normed))
    assert words in answer[0]
    assert "would predict a factor of 2.0 [2.0,\u00a02.0], sharpness one of 2.0" in answer[1]
    if (plain, normed) == (3, 1):
        assert "does not account for" in answer[1]


@pytest.mark.parametrize(("seeds", "views", "passes"), [(1, 1, 1), (3, 3, 4), (1, 3, 4), (3, 1, 1)])
@pytest.mark.parametrize(("plain", "normed"), [(0, 0), (4, 4), (0, 4), (4, 2), (1, 3), (3, 1), (2, 2)])
def test_the_claims_words_are_true_of_any_ladder(seeds: int, views: int, passes: int, plain: int, normed: int) -> None:
    rungs, around = made_up(plain, normed, seeds=seeds, views=views, passes=passes)
    first, *others = claim.entries(rungs, around)
    for entry, n in ((first, min(seeds, views)), *((other, views) for other in others)):
        # What the ladder's seeds decide may stand beside what one landscape cannot, so only ones at both are mute.
        require_true(entry, seeds=n if seeds == views else 2)
    answer = first.answer[0]
    bracketed = 0 < plain < len(RATES) and 0 < normed < len(RATES)
    assert answer.startswith("The ladder does not bracket") != bracketed
    for label, trained in (("ConvNet", plain), ("ConvNet + BatchNorm", normed)):
        every = f"of both networks{', so nothing is decided' if seeds > 1 else ''}: "
        assert bracketed or every in answer
        for words, expected in (("trains at every rate tried", len(RATES)), ("fails at the smallest rate tried", 0)):
            assert (f"{label} {words} in {seeds} of {seeds} seed" in answer) == (trained == expected)
    if bracketed and seeds == 1:
        assert answer.startswith("Seen in the one seed that was run, which cannot be told from chance: training works")
        assert f"between {RATES[plain - 1]:g} and {RATES[plain]:g} without" in answer
    assert (
        f"landscapes at learning rate 0.04, {views} seed{'s' if views > 1 else ''}" in first.caption + "s"[: views - 1]
    )


def test_seeds_without_a_limit_are_counted_where_the_others_decide() -> None:
    found = made_up(1, 3)
    rungs, around = found
    free = [rung(run.spec, "trained") if run.spec.norm and run.spec.seed == 0 else run for run in rungs]
    answer = claim.answers(claim.assemble(free, around))[0]
    assert "BatchNorm does allow larger learning rates" in answer
    assert "n = 3 of 4" in answer
    assert answer.endswith("; ConvNet + BatchNorm trains at every rate tried in 1 of 4 seeds.")
    ragged = [run for run in rungs if run.spec.seed != (0 if run.spec.norm else 1)]
    with pytest.raises(RecordError, match="no learning rate of the ladder has every seed of both networks"):
        claim.assemble(ragged, around)


def test_the_rule_of_thumb_is_judged_by_the_intervals() -> None:
    rungs, _ = made_up(2, 2)
    for smoothness, words in (
        (10.0, "is no bound"),
        (2.0, "allows too much here"),
        (4.0, "Whether training works beyond the rule of thumb, 1/L, is not decided"),
    ):
        around = [
            landscape(spec, smoothness=smoothness * (1 + 0.01 * spec.seed))
            for spec in landscape_specs(seeds=3, data="digits", passes=4)
        ]
        _, predicted, rule = claim.answers(claim.assemble(rungs, around))
        assert words in rule
        assert predicted.endswith("agrees with what was measured within the intervals, but so does no gain at all.")


def test_zeros_leave_gaps_and_no_conclusions() -> None:
    rungs, around = made_up(1, 3)
    flat = []
    for record in around:
        rows = [
            row.model_copy(
                update={
                    "view": row.view and replace(row.view, losses=(0.0,) * 3, gradient_changes=(0.0,) * 3),
                    "kinks": row.kinks and replace(row.kinks, share=0.0),
                }
            )
            for row in record.rows
        ]
        flat.append(record.model_copy(update={"rows": rows}))
    found = claim.assemble(rungs, flat)
    claim.range_figure(found).draw_without_rendering()
    assert claim.range_answers(found) == []
    assert len(claim.answers(found)) == 1, "without smoothness there is nothing to predict from"
    said = claim.failures(found)[-1]
    assert said.startswith("Kinks: ")
    assert "story" not in said


def test_the_ladder_shows_every_prediction_and_every_lost_run() -> None:
    whole = made_up(1, 3)
    loss, _, rates = claim.ladder_figure(whole).axes
    names = [label.get_text().replace("\n", " ") for label in rates.get_yticklabels()]
    assert names == [row[0] for row in claim.prediction_rows(whole)]
    assert "2 / smoothness" in names
    assert [text.get_text() for text in loss.texts] == ["4 of 4"] * 4
    highest = max(np.asarray(line.get_ydata(), dtype=float).max(initial=0) for line in loss.lines)
    _, top = loss.transAxes.inverted().transform(loss.transData.transform((RATES[0], highest)))
    assert top < 0.98 - 2 * 0.06, "a point lies where the counts stand"


def test_where_the_story_fails_is_said() -> None:
    said = " ".join(claim.failures(made_up(1, 3)))
    assert "The effective smoothness before training is smaller with BatchNorm" in said
    assert "4 of 4 without BatchNorm and 4 of 4 with BatchNorm were lost within the first pass" in said
    assert "smoothness at the start does not tell" not in said, "the order is the same under way"
    assert re.search(r"norm is 5.00 \[5.00,\s5.00\] times what it was without", said)
    assert "is typically 10% without BatchNorm" in said
    assert "is smaller with BatchNorm: it is 0.50 [0.50,\u00a00.50] times" in " ".join(
        claim.range_answers(made_up(1, 3))
    )


def test_the_page_has_three_figures_and_both_models(tmp_path: Path) -> None:
    whole = made_up(1, 3)
    rungs, views = whole
    page = Report(claim.entries(rungs, views)).write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"index.html", "ladder.png", "range.png", "curvature.png"}
    text = page.read_text()
    assert "0 / 0 / 4" in text
    for draw in (claim.ladder_figure, claim.range_figure, claim.curvature_figure):
        canvas = draw(whole)
        canvas.draw_without_rendering()
        (legend,) = canvas.legends
        for ax in canvas.axes:
            assert ax.get_legend() is None
            assert not ax.get_window_extent().overlaps(legend.get_window_extent())
        labels = " ".join(each.get_text() for each in legend.get_texts())
        assert "ConvNet + BatchNorm" in labels


def test_a_landscape_is_that_of_the_run_itself() -> None:
    images = load_images("digits", subset=0.1)
    spec = ConvNetSpec.build(data="digits", subset=0.1, norm="batch", passes=2, directions=1)
    around = train_convnet(spec.model_copy(update={"range_view": True, "curvature_passes": (1,)}), images)
    for row, expected in zip(around.rows, train_convnet(spec, images).rows, strict=True):
        assert row.readings == expected.readings
        assert row.train_loss == expected.train_loss
        # The same update, multiplied by 1.0 here: float32 rounding of u and of the norms apart.
        assert claim.at_step(row) == pytest.approx(expected.smoothness, rel=1e-4)
        assert row.view is not None
        assert row.view.update_norm == pytest.approx(expected.readings[0].update_norm, rel=1e-5)
    assert [row.sharpness is None for row in around.rows] == [True, False, True]
    assert [row.kinks is None for row in around.rows] == [True, False, True]
    assert around.rows[1].sharpness is not None
    assert (around.rows[1].sharpness.residual or 1) < 0.01


def test_a_lost_run_has_no_landscape_beyond_its_end() -> None:
    spec = ConvNetSpec.build(data="digits", subset=0.1, passes=3, learning_rate=1e20, range_view=True)
    record = train_convnet(spec, load_images("digits", subset=0.1))
    assert [row.view for row in record.rows] == [None] * 2, "its first update leads nowhere finite"
    rungs, views = made_up(1, 3)
    lost = make_record(views[0].spec, views[0].rows[:2], diverged=True)
    with pytest.raises(RecordError, match="has no landscape"):
        claim.assemble(rungs, [lost, *views[1:]])


def test_what_does_not_belong_together_is_refused() -> None:
    rungs, views = made_up(1, 3)
    with pytest.raises(RecordError, match="no records of ConvNet \\+ BatchNorm"):
        claim.assemble([record for record in rungs if not record.spec.norm], views)
    alien = views[0].model_copy(update={"data": DATA.model_copy(update={"checksum": "1" * 64})})
    with pytest.raises(RecordError, match="2 data sets"):
        claim.assemble(rungs, [alien, *views[1:]])
    with pytest.raises(SpecError, match="must rise and differ"):
        ladder_specs(rates=(0.2, 0.1), seeds=1, data="digits")

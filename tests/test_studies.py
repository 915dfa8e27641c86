"""What studies want next, from made-up records: rescue at smaller rates, bisection of the ladder, what starts first."""

import itertools
import math
from collections.abc import Mapping, Sequence

import pytest

from hw4.errors import SpecError
from hw4.records import ConvNetRecord, RunOutcome, TextCNNRecord
from hw4.specs import HOMEWORK_RATE, ConvNetSpec, TextCNNSpec, sweep_specs
from hw4.studies import (
    CONTROLS,
    FIRST_SEED,
    LADDER_RATES,
    RATES,
    RESCUE_RATES,
    SEEDS,
    Spec,
    best_rate,
    control_specs,
    controls,
    cost,
    grid,
    ladder,
    ladder_specs,
    landscape_specs,
    require_equal_trials,
    require_same_code,
    sweep,
)
from tests.factory import make_record, make_row
from tests.test_strides import make

Made = dict[Spec, ConvNetRecord | TextCNNRecord | None]
PLAIN = ConvNetSpec.build(data="digits", passes=1)


def run(spec: ConvNetSpec, ended: RunOutcome) -> ConvNetRecord:
    last = {"trained": 0.5, "stuck": 2.29, "diverged": None}[ended]
    return make_record(spec, [make_row(0, loss=2.3), make_row(1, loss=last)], diverged=ended == "diverged")


def at(spec: ConvNetSpec, *rates: float) -> list[ConvNetSpec]:
    return [spec.model_copy(update={"learning_rate": rate}) for rate in rates]


def test_a_ladder_is_bisected_for_each_network_and_seed_and_waits_for_what_is_being_made() -> None:
    normed, second = PLAIN.model_copy(update={"norm": "batch"}), PLAIN.model_copy(update={"seed": 1})
    rungs = [spec for rate in (0.1, 0.4) for net in (PLAIN, normed, second) for spec in at(net, rate)]
    study, made = ladder(rungs, bisections=2), Made()

    def wanted_after(ends: Mapping[ConvNetSpec, RunOutcome | None]) -> list[Spec]:
        made.update({spec: ended and run(spec, ended) for spec, ended in ends.items()})
        wanted = study(made)
        assert wanted[:6] == rungs
        return wanted[6:]

    assert wanted_after({}) == wanted_after(dict.fromkeys(rungs)) == []
    (middle,), (between,) = at(PLAIN, 0.2), at(PLAIN, 0.283)  # sqrt(0.1 x 0.4), and sqrt(0.2 x 0.4) = 0.28284
    both: dict[ConvNetSpec, RunOutcome | None] = {rungs[0]: "trained", rungs[3]: "diverged"}
    assert wanted_after(both) == [middle], "of the other networks nothing is known"
    assert wanted_after({middle: None}) == [middle]
    assert wanted_after({middle: "trained", **dict.fromkeys((rungs[1], rungs[4]), "trained")}) == [middle, between]
    assert wanted_after({between: "trained"}) == [middle, between], "two are enough, and where none fails is no limit"
    assert wanted_after({rungs[2]: "trained", rungs[5]: "stuck"}) == [middle, between, *at(second, 0.2)]


def rates_wanted(trials: Sequence[TextCNNSpec], lost_at: Mapping[float, int], **settings: bool) -> list[float]:
    """The rates of a sweep when nothing new is wanted, of which so many first trials are lost, by rate."""
    study, made = sweep(trials, **settings), Made()
    while new := [spec for spec in study(made) if spec not in made]:
        made |= dict.fromkeys(new)
        assert study(made) == list(made), "it waits for what is being made"
        for spec in new:
            assert isinstance(spec, TextCNNSpec)
            made[spec] = make(spec, None if spec.trial < lost_at.get(spec.learning_rate, 0) else 0.5)
    return [spec.learning_rate for spec in made]


def test_smaller_rates_are_tried_for_a_stride_of_which_most_trials_diverge() -> None:
    four = sweep_specs("grammar", strides=[5], trials=4)
    every = [0.1] * 4 + [0.05] * 4 + [0.025] * 4 + [0.0125] * 4 + [0.00625] * 4
    assert rates_wanted(four, {0.1: 2}) == every[:4], "half are not most"
    assert rates_wanted(four, {0.1: 3}) == every[:8]
    assert rates_wanted(four, {0.1: 3, 0.05: 1}) == every[:12], "until no trial diverges"
    assert rates_wanted(four, dict.fromkeys(every, 4)) == every
    assert rates_wanted(four, dict.fromkeys(every, 4), rescue=False) == every[:4]
    at_a_rescue_rate = sweep_specs("grammar", strides=[5], trials=12, learning_rate=0.05)
    assert rates_wanted(at_a_rescue_rate, {0.05: 12}) == [0.05] * 12 + [0.025] * 10, "ten of each are enough"
    assert rates_wanted(sweep_specs("grammar", strides=[1, 5], trials=1), {0.1: 1}) == [0.1, 0.1, 0.05, 0.05]


def controls_of(trials: Sequence[TextCNNSpec], share: Mapping[float, float | None]) -> list[TextCNNSpec]:
    """All that the controls of a sweep want, whose held-out accuracies are these by rate."""
    study, made = controls(trials), Made()
    while new := [spec for spec in study(made) if spec not in made]:
        made |= dict.fromkeys(new)
        assert set(study(made)) == set(made), "they wait for what is being made"
        for spec in new:
            assert isinstance(spec, TextCNNSpec)
            made[spec] = make(spec, share[spec.learning_rate] if spec.held_out else None)
    return [spec for spec in study(made) if isinstance(spec, TextCNNSpec)]


def test_a_strides_own_rate_is_chosen_by_other_trials_on_held_out_questions() -> None:
    trials = sweep_specs("grammar", strides=[5], trials=12, learning_rate=0.3, momentum=0.5)
    wanted = controls_of(trials, {**dict.fromkeys(RATES, 0.3), 0.2: 0.6, 0.4: None})
    choosing = [(rate, trial) for rate in (0.0125, 0.025, 0.05, 0.1, 0.2, 0.4) for trial in range(10, 15)]
    assert [(spec.learning_rate, spec.trial) for spec in wanted[:30]] == choosing
    assert all(spec.held_out and spec.permutation is None for spec in wanted[:30])
    assert {spec.learning_rate for spec in wanted[30:]} == {0.2}, "at the rate that was chosen"
    assert not any(spec.held_out for spec in wanted[30:])
    assert [(spec.trial, spec.permutation) for spec in wanted[30:]] == [
        *((trial, None) for trial in range(10)),
        *((trial, trial) for trial in range(10)),
    ]
    assert {(spec.stride, spec.momentum) for spec in wanted} == {(5, 0.5)}
    few = controls_of(trials[:2], dict.fromkeys(RATES, 0.5))
    assert [spec.trial for spec in few] == [10, 11] * 6 + [0, 1] * 2
    assert controls_of(trials, dict.fromkeys(RATES)) == wanted[:30], "no rate trains"


def test_one_function_is_controlled_once() -> None:
    both = controls_of(sweep_specs("grammar", strides=[500, 5, 100], trials=1), dict.fromkeys(RATES, 0.5))
    assert [spec.stride for spec in both] == [500] * 8 + [5] * 8
    assert controls([])({}) == []


def test_the_best_rate_is_the_smaller_of_equals_at_which_every_trial_trains() -> None:
    def runs(shares: Mapping[float, Sequence[float | None]]) -> list[TextCNNRecord]:
        return [
            make(TextCNNSpec(data="grammar", stride=5, trial=7, learning_rate=rate), share)
            for rate, each in shares.items()
            for share in each
        ]

    assert best_rate(runs({0.2: [0.5, 0.5], 0.1: [0.5, 0.5], 0.05: [0.2, 0.7]})) == 0.1
    assert best_rate(runs({0.2: [0.9, None], 0.1: [0.3, 0.4], 0.05: [0.2, 0.3]})) == 0.1
    assert best_rate(runs({0.1: [0.0], 0.2: [None]})) == 0.1, "none right is a result"
    assert best_rate(runs({0.1: [None]})) is best_rate([]) is None


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, 21 + 5 * 11),  # passes and evaluations; at each of these three directions, the point, its noise floor
        ({"norm": "batch"}, 1.1 * 76),
        ({"downsample": "stride"}, 0.4 * 76),
        ({"directions": 0}, 21),
        ({"directions": 1, "noise_floor": False, "range_view": True, "curvature_passes": (0, 3)}, 21 + 10 * 11 + 130),
        ({"directions": 1, "noise_floor": False, "row_passes": (), "reading_passes": (10,)}, 10 + 2 + 2),
        ({"directions": 0, "row_passes": (1,), "step_passes": (1,), "curvature_passes": (1,), "kinks": False}, 13 + 49),
    ],
)
def test_the_cost_of_a_run_counts_its_gradients(settings: dict[str, object], expected: float) -> None:
    spec = ConvNetSpec.build(data="digits", **settings)  # type: ignore[arg-type]
    assert cost(spec) == pytest.approx(expected)
    assert grid([spec])({}) == [spec]


def test_a_text_cnns_cost_follows_its_windows_and_is_small_beside_a_convnets() -> None:
    costs = [cost(TextCNNSpec(data="trec", stride=stride)) for stride in (500, 5)]
    assert costs == pytest.approx([0.005 * (4 + 1), 0.005 * (4 + 4)])  # 20 convolved positions, pooled by 5
    assert math.isclose(cost(TextCNNSpec(data="trec", stride=500, epochs=100)), 2 * costs[0])


def test_rates_rise_by_no_more_than_fixed_factors_and_no_seed_is_the_pilots() -> None:
    """A ladder with a wide gap brackets a limit badly; the criteria come from the exercises' seeds."""
    assert LADDER_RATES[0] == HOMEWORK_RATE
    for rates, factor in (
        (LADDER_RATES, 2),
        (RATES, 2),
        (RESCUE_RATES[::-1], 2),
        *((c.rates, 4) for c in CONTROLS.values()),
    ):
        assert all(1 < high / low <= factor for low, high in itertools.pairwise(rates))
    assert FIRST_SEED == SEEDS


def test_the_claims_runs_are_both_networks_at_every_rate_on_the_same_seeds() -> None:
    assert len(set(ladder_specs(seeds=2, data="digits"))) == len(LADDER_RATES) * 2 * 2
    specs = ladder_specs(rates=(0.1, 0.2), seeds=2, data="digits", passes=1)
    assert [(spec.learning_rate, spec.seed, spec.norm) for spec in specs] == [
        (rate, seed, norm) for rate in (0.1, 0.2) for seed in (5, 6) for norm in (None, "batch")
    ]
    assert {(spec.row_passes, spec.reading_passes, spec.directions) for spec in specs} == {((), (1,), 1)}
    for rates in ((), (0.2, 0.1), (0.1, 0.1)):
        with pytest.raises(SpecError, match="must rise and differ"):
            ladder_specs(rates=rates, seeds=1, data="digits")
    beside = control_specs(seeds=2, data="digits", passes=3)
    assert {spec.seed for spec in beside} == {5, 6}
    assert (
        len({spec.key for spec in beside})
        == len(beside)
        == 2 * sum(len(control.rates) * len(control.variants) for control in CONTROLS.values())
    )
    assert {spec.passes - spec.warmup_passes for spec in beside} == {3}
    for passes, looked in ((12, (1, 4)), (2, (1,))):
        views = landscape_specs(seeds=2, views=1, data="digits", passes=passes)
        assert [(spec.seed, spec.norm, spec.range_view, spec.curvature_passes) for spec in views] == [
            *((5, norm, True, looked) for norm in (None, "batch")),
            *((6, norm, False, ()) for norm in (None, "batch")),
        ]
        assert {spec.step_passes for spec in views} == {looked}
    more = landscape_specs(seeds=2, views=3, data="digits")
    assert [(spec.seed, spec.range_view) for spec in more if spec.norm] == [(5, True), (6, True), (7, True)]
    with pytest.raises(SpecError, match="must be at least 1, got 0"):
        landscape_specs(seeds=2, views=0, data="digits")


def test_unequal_trials_and_other_code_are_refused_beside_what_is_there() -> None:
    wanted, more = sweep_specs("grammar", strides=[5], trials=2), sweep_specs("grammar", strides=[7], trials=3)
    there = [make(spec, 0.5) for spec in more]
    with pytest.raises(SpecError, match="stride 5 would have 2 trials beside 3 of stride 7"):
        require_equal_trials(wanted, there)
    require_equal_trials(wanted, there[:2])
    code = there[0].environment.code
    require_same_code(wanted, there, code)
    require_same_code(more, there, "other code")  # all of them are made again
    slower = [run.model_copy(update={"spec": run.spec.model_copy(update={"learning_rate": 0.05})}) for run in there]
    require_same_code(wanted, slower, "other code")  # the study may yet ask for these
    with pytest.raises(SpecError, match=r"3 of the runs in the folder, such as \w+-stride7_trial0, were made"):
        require_same_code(wanted, there, "other code")

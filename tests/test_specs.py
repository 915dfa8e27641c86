"""Specs: every run has its own stable name, and nonsense is refused by naming the value."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw4.errors import SpecError
from hw4.report.exercises import MEASURES
from hw4.specs import (
    LARGEST_FLOAT32,
    ConvNetSpec,
    TextCNNSpec,
    exercise_specs,
    groups,
    longer_specs,
    sweep_specs,
    variant_specs,
)
from hw4.studies import AUDIT_SEEDS, BISECTIONS, CLAIM_SEEDS, FIRST_SEED, LADDER_RATES, NOTEBOOK_SEEDS, SEEDS, VIEWS
from hw4.variants import CURVES, EXERCISES, SECONDS, VARIANTS, Exercise


def test_keys_are_stable() -> None:
    specs = exercise_specs(["smoothness", "pooling"], seeds=1, data="fashion-mnist")
    assert [spec.key for spec in specs] == [
        "fashion-mnist_convnet-pool_seed0",
        "fashion-mnist_convnet-pool-batchnorm_seed0",
        "fashion-mnist_convnet-stride_seed0",
    ]
    unusual = ConvNetSpec.build(data="digits", subset=0.5, learning_rate=1e-3, passes=3, norm_mode="running", seed=7)
    assert unusual.key == "digits_convnet-pool_lr0.001_passes3_norm-running_subset0.5_seed7"


@pytest.mark.parametrize("field", sorted(ConvNetSpec.model_fields))
def test_every_field_is_in_the_key(field: str) -> None:
    other: dict[str, Any] = {
        "data": "fashion-mnist",
        "norm": "batch",
        "downsample": "stride",
        "learning_rate": 0.1,
        "batch_size": 8,
        "passes": 3,
        "subset": 0.5,
        "norm_mode": "running",
        "chunk_size": 64,
        "directions": 0,
        "seed": 1,
        "noise_floor": False,
        "range_view": True,
        "curvature_passes": (1, 2),
        "row_passes": (),
        "reading_passes": (1,),
        "step_passes": (1,),
        "kinks": False,
        "momentum": 0.9,
        "warmup_passes": 1,
        "head_rate": 0.1,
    }
    plain: dict[str, Any] = {"directions": 0} if field in {"momentum", "warmup_passes", "head_rate"} else {}
    changed = ConvNetSpec.build(**{"data": "digits", **plain, field: other[field]})
    assert changed.key != ConvNetSpec.build(data="digits", **plain).key


def test_what_a_key_leaves_out_is_the_homeworks_and_stays_so() -> None:
    """A default that changed would give old records' names to other runs."""
    assert ConvNetSpec.build(data="fashion-mnist").model_dump() == {
        "data": "fashion-mnist",
        "norm": None,
        "downsample": "pool",
        "learning_rate": 0.04,
        "batch_size": 32,
        "passes": 10,
        "subset": 0.1,
        "norm_mode": "batch",
        "chunk_size": 100,
        "directions": 3,
        "noise_floor": True,
        "range_view": False,
        "row_passes": None,
        "reading_passes": None,
        "curvature_passes": (),
        "kinks": True,
        "step_passes": (),
        "momentum": 0.0,
        "warmup_passes": 0,
        "head_rate": None,
        "seed": 0,
    }
    assert ConvNetSpec.build(data="digits").subset == 1
    assert TextCNNSpec(data="trec", stride=5).model_dump() == {
        "data": "trec",
        "stride": 5,
        "trial": 0,
        "learning_rate": 0.1,
        "momentum": 0.8,
        "batch_size": 32,
        "epochs": 50,
        "held_out": False,
        "permutation": None,
    }
    assert (SEEDS, AUDIT_SEEDS, NOTEBOOK_SEEDS) == (5, 3, 10)
    assert (CLAIM_SEEDS, FIRST_SEED, VIEWS, BISECTIONS) == (12, 5, 3, 0)
    assert LADDER_RATES == (0.04, 0.08, 0.16, 0.226, 0.32, 0.381, 0.453, 0.64)


def test_a_network_that_no_variant_has_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VARIANTS, "pool-other", replace(VARIANTS["pool"], label="With another", norm="other"))
    assert ConvNetSpec.build(data="digits", norm="other").label == "With another"
    with pytest.raises(SpecError, match="no variant has norm 'other' and downsample 'stride'"):
        ConvNetSpec.build(data="digits", norm="other", downsample="stride")


def test_what_is_measured_and_who_is_trained_is_no_setting() -> None:
    """So that runs may stand in one figure; equal specs are one key of a table."""
    specs = [
        ConvNetSpec.build(data="digits", norm="batch", seed=3, directions=1, noise_floor=False),
        ConvNetSpec.build(data="digits", downsample="stride", range_view=True, curvature_passes=(0, 3)),
    ]
    assert {spec.setting for spec in specs} == {ConvNetSpec.build(data="digits")}
    twice = [TextCNNSpec(data="trec", stride=5) for _ in range(2)]
    assert len({*twice, *VARIANTS.values()}) == 1 + len(VARIANTS)
    assert hash(EXERCISES["pooling"]) == hash(EXERCISES["pooling"])


def test_the_least_and_the_most_that_make_sense_are_taken() -> None:
    least = {"batch_size": 1, "passes": 1, "chunk_size": 1, "directions": 0, "seed": 0, "curvature_passes": (0,)}
    assert ConvNetSpec.build(data="digits", **least).model_dump().items() >= least.items()  # type: ignore[arg-type]
    with pytest.raises(SpecError, match=r"curvature_passes.* is -1"):
        ConvNetSpec.build(data="digits", curvature_passes=(0, -1))
    least = {"stride": 1, "trial": 0, "learning_rate": 0.5, "momentum": 0.0, "batch_size": 1, "epochs": 1}
    least |= {"held_out": True, "permutation": 0}
    assert TextCNNSpec.model_validate({"data": "trec", **least}).model_dump() == {"data": "trec", **least}
    for data, whole in (("digits", 1_347), ("fashion-mnist", 60_000)):
        assert ConvNetSpec.build(data=data, subset=1, batch_size=whole).batch_size == whole  # type: ignore[arg-type]
        with pytest.raises(SpecError, match=f"larger than the training set of {whole}"):
            ConvNetSpec.build(data=data, subset=1, batch_size=whole + 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("other", [{"momentum": 0.9}, {"head_rate": 0.04}, {"warmup_passes": 1}])
def test_readings_along_another_update_than_the_runs_are_refused(other: dict[str, Any]) -> None:
    assert ConvNetSpec.build(data="digits", directions=0, **other).directions == 0
    for measured in (
        {"directions": 1},
        {"directions": 0, "step_passes": (1,)},
        {"directions": 0, "curvature_passes": (1,)},
    ):
        with pytest.raises(SpecError, match="along plain SGD's update"):
            ConvNetSpec.build(data="digits", **{"directions": 0, **other, **measured})


def test_the_shared_network_is_listed_once() -> None:
    both = exercise_specs(["smoothness", "pooling"], seeds=3, data="digits")
    assert len(both) == len({spec.key for spec in both}) == 9
    assert {s.key for s in exercise_specs(["smoothness"], seeds=3, data="digits")} < {s.key for s in both}


def test_the_strided_network_also_trains_for_four_times_the_passes() -> None:
    """With pooling only, seed by seed from the same start, under keys of their own and without readings."""
    short = exercise_specs(["smoothness", "pooling"], seeds=2, data="fashion-mnist")
    longer = longer_specs(["smoothness", "pooling"], short)
    assert [spec.key for spec in longer] == [
        f"fashion-mnist_convnet-stride_passes40_directions0_seed{seed}" for seed in (0, 1)
    ]
    assert longer_specs(["smoothness"], short) == longer_specs(["pooling"], ()) == ()
    (quick,) = longer_specs(["pooling"], exercise_specs(["pooling"], seeds=1, data="digits", passes=2))
    assert (quick.variant, quick.passes, quick.learning_rate, quick.seed) == ("stride", 8, 0.04, 0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("passes", -3),
        ("passes", 0),
        ("batch_size", 0),
        ("learning_rate", float("nan")),
        ("learning_rate", -0.1),
        ("subset", 0.0),
        ("subset", 1.5),
        ("seed", -1),
        ("norm", "layer"),
        ("downsample", "skip"),
        ("passes", 2.5),
        ("passes", "3"),
        ("learning_rate", float("inf")),
        ("chunk_size", 0),
        ("directions", -1),
    ],
)
def test_nonsense_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(SpecError, match=rf"{field} is {value!r}"):
        ConvNetSpec.build(**{"data": "digits", field: value})  # type: ignore[arg-type]


def test_no_seeds_are_refused() -> None:
    with pytest.raises(SpecError, match="at least 1 and at most 100,000, got 0"):
        exercise_specs(["pooling"], seeds=0, data="digits")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: exercise_specs("smoothness", seeds=1, data="digits"), "expected a list of names, .* got 'smoothness'"),
        (lambda: exercise_specs(["smoothness"], seeds=range(3), data="digits"), r"at most 100,000, got range"),  # type: ignore[arg-type]
        (lambda: shown("test acuracy"), r"one of 'train loss', .*'smoothness'.* got \('test acuracy',\)"),
        (lambda: shown("seconds per pass"), "draws at least one of 'train loss', .* got"),
        (
            lambda: exercise_specs(["smothness"], seeds=1, data="digits"),
            "'smoothness', 'pooling', got \\['smothness'\\]",
        ),
        (lambda: variant_specs(["batchnorm"], seeds=[0], data="digits"), "'pool-batchnorm', .*, got \\['batchnorm'\\]"),
        (lambda: exercise_specs(["pooling"], seeds=1, data="embedded"), "data is 'embedded', but"),  # type: ignore[arg-type]
    ],
)
def test_a_name_that_nothing_has_is_refused_with_those_there_are(make: Callable[[], object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        make()


def test_the_homeworks_sixty_models() -> None:
    specs = sweep_specs("trec")
    assert len({spec.key for spec in specs}) == 60
    assert list(dict.fromkeys(spec.stride for spec in specs)) == [1, 5, 10, 30, 100, 500]
    assert specs[0].key == "trec_textcnn-stride1_trial0"
    odd = TextCNNSpec(data="grammar", stride=3, learning_rate=0.5, momentum=0.0, batch_size=8, epochs=2, trial=7)
    assert odd.key == "grammar_textcnn-stride3_lr0.5_momentum0.0_batch8_epochs2_trial7"
    (control,) = sweep_specs("trec", strides=[5], trials=1, held_out=True, permutation=0)
    assert control.key == "trec_textcnn-stride5_held-outTrue_permutation0_trial0"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strides": [0]}, "stride is 0"),
        ({"trials": 0}, "at least 1 and at most 100,000, got 0"),
        ({"strides": [5, 5]}, "each given once"),
        ({"strides": []}, "each given once"),
        ({"strides": 5}, "a list, each given once, at least one, got 5"),
        ({"momentum": 1.0}, "momentum is 1.0"),
        ({"momentum": -0.1}, "momentum is -0.1"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"trial": -1}, "trial is -1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"epochs": 0}, "epochs is 0"),
        ({"epochs": "3"}, "epochs is '3'"),
        ({"permutation": -1}, "permutation is -1"),
        ({"learning_rate": float("inf")}, "learning_rate is inf"),
    ],
)
def test_a_sweep_of_nonsense_is_refused_by_name(settings: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        sweep_specs("grammar", **settings)  # type: ignore[arg-type]


def shown(*measures: str) -> Exercise:
    """An exercise that shows these."""
    return replace(EXERCISES["smoothness"], measures=measures)


@given(st.lists(st.integers(1, 120), min_size=1, max_size=4, unique=True), st.integers(1, 300))
def test_groups_are_a_partition_into_equal_settings(strides: list[int], trials: int) -> None:
    specs = sweep_specs("grammar", strides=strides, trials=trials)
    found = groups(specs)
    assert sorted(spec.key for group in found for spec in group) == sorted(spec.key for spec in specs)
    assert all(len({spec.stride for spec in group}) == 1 for group in found)
    assert [group[0].stride for group in found] == sorted(group[0].stride for group in found), "the costliest first"


def test_groups_are_as_large_as_the_cache_allows() -> None:
    """64 filters x positions x 32 questions fit in 2**18 floats: stride 1 leaves 96 positions, stride 5 four."""
    sizes = {
        stride: [len(g) for g in groups(sweep_specs("trec", strides=[stride], trials=70))] for stride in (1, 5, 10)
    }
    assert sizes == {1: [1] * 70, 5: [32, 32, 6], 10: [70]}
    huge = sweep_specs("trec", strides=[1], trials=2, batch_size=500)
    assert groups(huge) == [[spec] for spec in huge], "where none fits, one at a time"


def test_what_an_exercise_may_show_is_what_the_page_knows() -> None:
    assert {name: bool(measure.title) for name, measure in MEASURES.items()} == {
        **dict.fromkeys(CURVES, True),
        **dict.fromkeys(SECONDS, False),
    }


def test_variants_that_a_spec_cannot_tell_apart_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VARIANTS, "pool-x", replace(VARIANTS["pool"], label="another"))
    for name in ("pool", "pool-x"):
        with pytest.raises(SpecError, match="the variants pool and pool-x have one norm and downsample"):
            variant_specs([name], seeds=[0], data="digits")
    assert variant_specs(["stride"], seeds=[0], data="digits")


def test_a_network_is_evaluated_and_read_after_the_passes_that_are_asked_for() -> None:
    def after(which: str, **settings: Any) -> list[int]:
        spec = ConvNetSpec.build(data="digits", passes=4, **settings)
        return [completed for completed in range(5) if getattr(spec, which)(completed)]

    assert after("evaluated_after") == after("read_after") == [0, 1, 2, 3, 4]
    assert after("evaluated_after", row_passes=(2,)) == [0, 2, 4], "the start and the end always are"
    assert after("read_after", reading_passes=(1, 4)) == [1, 4]
    assert after("read_after", directions=0) == []
    assert after("evaluated_after", warmup_passes=0) == [0, 1, 2, 3, 4]
    assert float(np.finfo(np.float32).max) == LARGEST_FLOAT32

"""Specs: every run has its own stable name, and nonsense is refused by naming the value."""

from typing import Any

import pytest

from hw4.errors import SpecError
from hw4.specs import ConvNetSpec, exercise_specs


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
    }
    assert ConvNetSpec.build(**{"data": "digits", field: other[field]}).key != ConvNetSpec.build(data="digits").key


def test_the_shared_network_is_listed_once() -> None:
    both = exercise_specs(["smoothness", "pooling"], seeds=3, data="digits")
    assert len(both) == len({spec.key for spec in both}) == 9
    assert {s.key for s in exercise_specs(["smoothness"], seeds=3, data="digits")} < {s.key for s in both}


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
    ],
)
def test_nonsense_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(SpecError, match=rf"{field} is {value!r}"):
        ConvNetSpec.build(**{"data": "digits", field: value})  # type: ignore[arg-type]


def test_no_seeds_are_refused() -> None:
    with pytest.raises(SpecError, match="at least 1, got 0"):
        exercise_specs(["pooling"], seeds=0, data="digits")

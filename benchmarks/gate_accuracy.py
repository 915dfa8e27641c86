"""What hw4 gates of its own outcomes: 18 ConvNets and the 60 text models, by what differs in the seed only.

``hw4 gate`` runs this; ``pytest benchmarks/gate_accuracy.py`` does too. For the gate's own validation, variables plant
a fault of ``planted.py`` (``HW4_PLANT_FAULT=no-bias``), or move initial weights by rounding errors, which is what
another processor or another torch does to a run (``HW4_PERTURB=1``).
"""

import functools
import os
from collections.abc import Callable
from typing import Any

import pytest
import torch

import hw4.data.vectors
from benchmarks.planted import FAULTS, nudged_weights
from hw4.data.images import load_images
from hw4.experiments import train_convnet
from hw4.plugin import Gate
from hw4.records import ConvNetRecord, TextCNNRecord
from hw4.specs import STRIDES, ConvNetSpec, Dataset, TextCNNSpec, exercise_specs, sweep_specs
from hw4.sweep import groups, identity, train_trials

PASSES, SEEDS = 4, 6
"""Enough for the digits to be learnt to about 95%, and for a paired test to have five degrees of freedom."""
MEASURED = ("train_loss", "train_accuracy", "test_loss", "test_accuracy", "smoothness")
"""What counts to the last bit, after every pass."""
LABELS = dict.fromkeys(spec.label for spec in exercise_specs(["smoothness", "pooling"], seeds=1, data="digits"))
CHECKED_STRIDE, CHECKED_FAULT = 5, "shuffled-labels"
"""What the gate tests itself on: a group that trains in a second, and a fault that it must see there."""
DIVERGED_MARGIN = 2
"""Runs at the edge of stability cross it by rounding: of the text CNNs at stride 1 about one in thirty does, so two of
ten do once in thirty measurements, three once in four hundred. Three more or fewer are a change,
and one more is where all others keep their bits."""


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plant what the variables ask for, and compute on one thread."""
    torch.set_num_threads(1)
    if fault := os.environ.get("HW4_PLANT_FAULT"):
        FAULTS[fault](monkeypatch)
    if seed := os.environ.get("HW4_PERTURB"):
        nudged_weights(monkeypatch, int(seed))


def outcome(record: ConvNetRecord | TextCNNRecord) -> dict[str, Any]:
    """What the gate keeps of a run: how it ended, and every bit that was measured."""
    if isinstance(record, ConvNetRecord):
        ended = {"accuracy": record.last.test_accuracy, "loss": record.last.train_loss}
        bits: object = [[getattr(row, name) for name in MEASURED] for row in record.rows]
    else:  # their losses end near nothing, where rounding doubles or halves them: a test of these would see little
        ended = {"accuracy": record.test_accuracy}
        bits = [record.train_loss, record.correct]
    return {**(dict.fromkeys(ended) if record.diverged else ended), "bits": [record.diverged, bits]}


def with_fault(train: Callable[..., Any]) -> Callable[..., Any]:
    """The same training, with the fault that the gate must see."""

    def faulty(seeds: list[int]) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            FAULTS[CHECKED_FAULT](patch)
            return train(seeds)

    return faulty


images = functools.cache(load_images)


@pytest.fixture(params=["embedded", "real"])
def real(request: pytest.FixtureRequest) -> bool:
    """Whether the data is the homework's own."""
    return bool(request.param == "real")


@pytest.mark.parametrize("label", LABELS)
def test_convnets(gate: Gate, label: str, real: bool) -> None:
    data: Dataset = "fashion-mnist" if real else "digits"
    specs: dict[int, ConvNetSpec] = {
        spec.seed: spec
        for spec in exercise_specs(["smoothness", "pooling"], seeds=SEEDS, passes=PASSES, data=data)
        if spec.label == label
    }
    name = label + ", real data" * real
    gate.outcomes(lambda seed: outcome(train_convnet(specs[seed], images(data))), specs, exact=True, name=name)


@pytest.mark.parametrize("stride", STRIDES)
def test_text_cnns(gate: Gate, stride: int, real: bool) -> None:
    specs = sweep_specs("trec" if real else "grammar", strides=[stride])
    by_trial: dict[int, TextCNNSpec] = {spec.trial: spec for spec in specs}

    def train(trials: list[int]) -> dict[int, dict[str, Any]]:
        questions = hw4.data.vectors.load_questions(specs[0].data)
        records = train_trials([by_trial[trial] for trial in trials], questions, identity(questions))
        return {record.trial: outcome(record) for record in records}

    gate.outcomes(
        train,
        by_trial,
        exact=True,
        diverged_margin=DIVERGED_MARGIN,
        sees=0.1,  # ten trials on other machines differ by some points each
        fault=with_fault(train) if stride == CHECKED_STRIDE else None,
        together=max(2, *(len(group) for group in groups(specs))),
        name=f"text CNN, stride {stride}" + ", real data" * real,
    )

"""Networks kept by a run and given back: the record's own numbers, or a refusal that says why."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hw4 import ConvNet, TextCNN, load_model
from hw4.data.images import load_images
from hw4.data.vectors import load_questions
from hw4.errors import RecordError
from hw4.files import RECORDS, WEIGHTS
from hw4.records import ConvNetRecord, TextCNNRecord
from hw4.runs import make_all
from hw4.specs import sweep_specs
from hw4.studies import Spec, grid
from hw4.training import evaluate
from tests.test_runs import small_net, without_times


def made(folder: Path, *specs: Spec, weights: bool = True) -> list[ConvNetRecord | TextCNNRecord]:
    return make_all([(folder / RECORDS, grid(specs))], weights=weights)


@pytest.mark.parametrize("variant", [{}, {"norm": "batch"}, {"norm": "group"}, {"downsample": "stride"}], ids=str)
def test_a_convnet_comes_back_as_its_record_left_it(variant: dict[str, str], tmp_path: Path) -> None:
    spec = small_net(**variant)
    (record,) = made(tmp_path, spec)
    assert isinstance(record, ConvNetRecord)
    torch.manual_seed(5)
    drawn, model = torch.get_rng_state(), load_model(tmp_path, spec.key)
    assert isinstance(model, ConvNet)
    assert not model.training
    assert torch.equal(torch.get_rng_state(), drawn)
    images = load_images("digits", subset=0.1)
    found = evaluate(model, images.x_test, images.y_test)
    assert (found.loss, found.accuracy) == (record.last.test_loss, record.last.test_accuracy)
    plain = tmp_path / "plain"
    assert without_times(made(plain, spec, weights=False)[0]) == without_times(record), "keeping them changes nothing"
    assert not (plain / WEIGHTS).exists()


def test_every_trial_of_an_ensemble_comes_back(tmp_path: Path) -> None:
    specs = sweep_specs("grammar", strides=[5], trials=3, epochs=3)
    questions = load_questions("grammar")
    for spec, record in zip(specs, made(tmp_path, *specs), strict=True):
        assert isinstance(record, TextCNNRecord)
        model = load_model(tmp_path, spec.key)
        assert isinstance(model, TextCNN)
        with torch.no_grad():
            right = model(questions.x_test).argmax(1) == questions.y_test
        assert right.tolist() == record.correct


def test_a_run_whose_network_is_wanted_and_missing_is_made_again(tmp_path: Path) -> None:
    spec, lost = small_net(), small_net(learning_rate=1e6)
    seen = list[bool]()

    def again(*, weights: bool) -> list[bool]:
        seen.clear()
        studies = [(tmp_path / RECORDS, grid([spec, lost]))]
        make_all(studies, weights=weights, on_record=lambda _, found: seen.append(found))
        return seen.copy()

    assert again(weights=False) == [False, False]
    with pytest.raises(RecordError, match="not its weights: it diverged, or was made without"):
        load_model(tmp_path, spec.key)
    assert again(weights=True) == [True, False], "what diverged has no network to keep"
    assert again(weights=True) == [True, True]
    (tmp_path / WEIGHTS / f"{spec.key}.safetensors").unlink()
    assert again(weights=False) == [True, True]
    assert again(weights=True) == [True, False]
    path = tmp_path / WEIGHTS / f"{spec.key}.safetensors"
    save_file(load_file(path), path, {"data": "another", "code": "another"})
    assert again(weights=True) == [True, False], "another code's network passed for this run's"


def test_what_is_not_the_runs_network_is_refused(tmp_path: Path) -> None:
    spec, other = small_net(), small_net(norm="batch")
    made(tmp_path, spec, other)
    path = tmp_path / WEIGHTS / f"{spec.key}.safetensors"
    whole = path.read_bytes()
    with pytest.raises(RecordError, match=f"no weights of a run nosuch in .*there are 2, such as {other.key}"):
        load_model(tmp_path, "nosuch")
    with pytest.raises(RecordError, match="'hw4 run --save-weights' keeps them"):
        load_model(tmp_path / "elsewhere", spec.key)
    for contents in (b"", whole[:-4], whole[:40]):
        path.write_bytes(contents)
        with pytest.raises(RecordError, match=r"holds no network that this hw4 knows .*once more with --save-weights"):
            load_model(tmp_path, spec.key)
    path.write_bytes((tmp_path / WEIGHTS / f"{other.key}.safetensors").read_bytes())
    with pytest.raises(RecordError, match="is not of the run"):
        load_model(tmp_path, spec.key)
    path.write_bytes(whole)
    save_file(load_file(path), path)  # as other programs write it: nothing says whose it is
    with pytest.raises(RecordError, match="'spec'"):
        load_model(tmp_path, spec.key)
    path.write_bytes(whole)
    kept = tmp_path / RECORDS / f"{spec.key}.json"
    record = json.loads(kept.read_bytes())
    for changed in ({"code": "0" * 64}, {"cpu": "another"}, {"versions": {"python": "2.7"}}):
        kept.write_text(json.dumps(record | {"environment": record["environment"] | changed}))
        with pytest.raises(RecordError, match=f"is not of the run that the record of {spec.key} tells of"):
            load_model(tmp_path, spec.key)

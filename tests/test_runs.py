"""Making runs: once, in any number of processes, resumable, and nothing that does not serve is taken from disk."""

import json
import os
from pathlib import Path

import pytest
import torch

from hw4.data.images import Data, load_images
from hw4.errors import RecordError, SpecError
from hw4.processes import one_thread, spread
from hw4.records import ConvNetRecord, TextCNNRecord
from hw4.runs import RunRecord, Task, _tasks, make, make_all, run
from hw4.specs import ConvNetSpec, TextCNNSpec, sweep_specs
from hw4.studies import Spec, Study, cost, grid, sweep
from tests.factory import make_or_fail, python


def small_net(**settings: object) -> ConvNetSpec:
    return ConvNetSpec.build(**{"data": "digits", "subset": 0.1, "passes": 1, "directions": 0, **settings})  # type: ignore[arg-type]


def in_folder(folder: Path, *specs: Spec) -> tuple[Path, Study]:
    return folder, grid(specs)


def one_of_each() -> list[Spec]:
    """A run of every kind, as small as they come."""
    net = small_net(directions=1)
    view = small_net(directions=1, noise_floor=False, range_view=True)
    texts = sweep_specs("grammar", strides=[5, 500], trials=2, epochs=1)
    return [net, view, *texts]


def without_times(record: RunRecord) -> dict[str, object]:
    return {name: value for name, value in record.model_dump().items() if name != "times"}


def test_questions_become_vectors_first_and_then_the_longest_begin(tmp_path: Path) -> None:
    specs = [*one_of_each(), *sweep_specs("grammar", strides=[500], trials=1)]
    first, *others = _tasks([(tmp_path, spec) for spec in specs], "cpu", remote=False)
    assert isinstance(first.specs[0], TextCNNSpec)
    costs = [sum(map(cost, task.specs)) for task in others]
    assert costs == sorted(costs, reverse=True)
    assert sum(map(cost, first.specs)) < costs[0]


def test_what_the_code_is_is_read_before_it_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a run trains its files may be edited, or another commit checked out."""
    order = list[str]()
    monkeypatch.setattr("hw4.runs.note_code", lambda: order.append("noted"))
    monkeypatch.setattr("hw4.experiments.train_convnet", lambda *_, **__: order.append("trained"))
    with pytest.raises(AttributeError, match="key"):  # of a record that is none
        make(Task((small_net(),), Path(), "cpu"))
    assert order == ["noted", "trained"]


def test_a_variant_that_a_process_does_not_know_is_named() -> None:
    spec = small_net().model_copy(update={"norm": "instance"})
    with pytest.raises(SpecError, match="does not know the variant with norm 'instance'"):
        make(Task((spec,), Path(), "cpu"))


def test_every_kind_is_made_once_and_found_later(tmp_path: Path) -> None:
    specs, ended = one_of_each(), list[tuple[str, bool]]()

    def note(record: RunRecord, found: bool) -> None:
        ended.append((record.key, found))

    first = make_all([in_folder(tmp_path, *specs[:3])], on_record=note)
    assert [record.key for record in first] == [spec.key for spec in specs[:3]]
    assert sorted(ended) == sorted((spec.key, False) for spec in specs[:3])
    ended.clear()
    again = make_all([in_folder(tmp_path, *specs)], on_record=note)
    assert again[:3] == first
    assert dict(ended) == {spec.key: index < 3 for index, spec in enumerate(specs)}
    assert [type(record) for record in again] == [ConvNetRecord] * 2 + [TextCNNRecord] * 4
    ended.clear()
    fresh = make_all(
        [in_folder(tmp_path, specs[0])], fresh=True, on_record=lambda record, found: ended.append((record.key, found))
    )
    assert ended == [(specs[0].key, False)]
    assert without_times(fresh[0]) == without_times(first[0])


def test_images_are_loaded_once_whatever_their_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a process keeps a copy for every run that it makes or finds, and hundreds of them fill the memory."""
    loaded: list[float] = []

    def counted(_name: str, *, subset: float) -> Data:
        loaded.append(subset)
        return load_images("digits", subset=subset)

    monkeypatch.setattr("hw4.data.images.load_images", counted)
    nets = [small_net(subset=0.11, seed=seed, learning_rate=rate) for seed in (0, 1) for rate in (0.02, 0.04)]
    for _ in range(2):
        make_all([in_folder(tmp_path, *nets)])
    assert loaded == [0.11]


def test_studies_are_asked_when_a_setting_ends_and_not_for_each_of_thousands_of_trials(tmp_path: Path) -> None:
    trials = sweep_specs("grammar", strides=[1, 500], trials=4, epochs=1)
    ended: list[str] = []
    asked: list[int] = []

    def study(_made: object) -> list[Spec]:
        asked.append(len(ended))
        return list(trials)

    assert len(_tasks([(tmp_path, spec) for spec in trials], "cpu", remote=False)) > 2
    records = make_all([(tmp_path, study)], on_record=lambda record, _: ended.append(record.key))
    assert set(asked) == {0, 4, 8}
    first, *others = [record for record in records if isinstance(record, TextCNNRecord)]
    assert all(other.data is first.data and other.environment is first.environment for other in others)


def test_processes_change_nothing_but_time(tmp_path: Path) -> None:
    rescued = sweep(sweep_specs("grammar", strides=[1, 5], trials=2, epochs=3, learning_rate=5.0))
    made = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        wanted = [in_folder(folder, *one_of_each()), (folder, rescued)]
        made.append({record.key: without_times(record) for record in make_all(wanted, processes=processes)})
    alone, spread = made
    assert alone == spread
    asked = len(one_of_each()) + 4
    assert list(alone)[:asked] == list(spread)[:asked], "in the order in which they were wanted"
    assert len(alone) > asked, "nothing was rescued"


def test_equal_runs_may_be_wanted_in_two_folders(tmp_path: Path) -> None:
    spec = small_net()
    first, second = make_all([in_folder(tmp_path / "a", spec), in_folder(tmp_path / "b", spec)])
    assert without_times(first) == without_times(second)
    assert len(list(tmp_path.rglob("*.json"))) == 2


@pytest.mark.parametrize("spec", [small_net(), TextCNNSpec(data="grammar", stride=500, epochs=1)])
@pytest.mark.parametrize(("part", "field"), [("environment", "code"), ("data", "checksum")])
def test_a_record_of_other_code_or_data_does_not_serve(spec: Spec, part: str, field: str, tmp_path: Path) -> None:
    (record,) = make_all([in_folder(tmp_path, spec)])
    path = tmp_path / f"{spec.key}.json"
    contents = json.loads(path.read_text())
    contents[part][field] = "0" * 64
    path.write_text(json.dumps(contents))
    (again,) = make_all([in_folder(tmp_path, spec)])
    assert without_times(again) == without_times(record)
    assert json.loads(path.read_text())[part][field] != "0" * 64, "it was not made again"


def test_what_cannot_be_run_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="a batch of 136 images is larger than the training set of 135"):
        small_net(batch_size=136)
    assert small_net(batch_size=135).batch_size == 135
    folder = tmp_path / "records"
    folder.mkdir()
    broken = folder / f"{small_net(seed=1).key}.json"
    broken.write_text('{"schema_version": 3}')
    with pytest.raises(RecordError, match="has schema version 3, this hw4 reads version 2"):
        make_all([in_folder(folder, small_net(), small_net(seed=1))])
    assert [path.name for path in folder.iterdir()] == [broken.name]


def test_a_failure_loses_nothing_that_was_being_made() -> None:
    made: list[str] = []
    tasks = ["good", "bad", *["never begun"] * 20]
    with pytest.raises(SpecError, match="no such thing"):
        made.extend(result for _, result in spread(make_or_fail, tasks, processes=2))
    assert "good" in made
    assert len(made) < 10


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU and a CUDA build of torch")
@pytest.mark.parametrize("norm", [None, "batch"])
def test_a_gpu_trains_the_same_network(norm: str | None, tmp_path: Path) -> None:
    """One pass: rounding has no time to grow. Float32 sums in other orders agree to about five digits."""
    (there,) = make_all([in_folder(tmp_path / "cuda", small_net(norm=norm, directions=1))], device="cuda")
    (here,) = make_all([in_folder(tmp_path / "cpu", small_net(norm=norm, directions=1))])
    assert isinstance(there, ConvNetRecord)
    assert isinstance(here, ConvNetRecord)
    assert there.environment.device == "cuda"
    assert there.last.train_loss == pytest.approx(here.last.train_loss, rel=1e-2)
    assert there.rows[0].smoothness == pytest.approx(here.rows[0].smoothness, rel=1e-2)


SCRIPT = """
import hw4
from hw4.specs import exercise_specs
specs = exercise_specs(["smoothness"], seeds=1, data="digits", subset=0.1, passes=1, directions=0)
print(hw4.as_table(hw4.run((spec for spec in specs), "out", processes=2)).key.nunique(), "run" in dir(hw4))
"""


def test_as_many_processes_as_processors_that_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 7}, raising=False)
    assert one_thread(None) == 3


@pytest.mark.parametrize("guarded", [False, True])
def test_a_students_script_may_lack_the_place_that_processes_leave_out(guarded: bool, tmp_path: Path) -> None:
    script = tmp_path / "homework.py"
    body = SCRIPT.strip().replace("\n", "\n    ")
    script.write_text(f'if __name__ == "__main__":\n    {body}\n' if guarded else SCRIPT)
    done = python(*([str(script)] if guarded else ["-m", "homework"]), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "2 True\n"), done.stderr
    assert ("hw4.run trains in one process" in done.stderr) != guarded


@pytest.mark.parametrize("strange", [["digits"], small_net()])
def test_what_is_no_list_of_runs_is_refused(strange: list[Spec], tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="expected a list of runs"):
        run(strange, tmp_path)

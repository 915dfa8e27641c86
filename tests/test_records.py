"""Records come back as they went, and anything else is refused by name."""

import json
import os
import platform
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hw4
from hw4 import machine
from hw4.errors import Hw4Error, RecordError
from hw4.files import write_atomically
from hw4.records import (
    ConvNetRecord,
    DataIdentity,
    QuestionIdentity,
    Store,
    TextCNNRecord,
    _commit,
    code_digest,
    environment,
    read_record,
)
from hw4.specs import ConvNetSpec
from tests.factory import DATA, make_reading, make_record, make_row

SPEC = ConvNetSpec.build(data="digits", passes=2)
TEXT: dict[str, Any] = {
    "key": "grammar_textcnn-stride5_trial0",
    "spec": {"data": "grammar", "stride": 5},
    "stride": 5,
    "trial": 0,
    "data": {
        **{"name": "grammar", "title": "made up", "vectors": "made up", "checksum": "0" * 64},
        **{"n_train": 8, "n_test": 4, "majority_accuracy": 0.25, "logistic_accuracy": 0.5},
    },
    "environment": environment(threads=1, dtype="float32").model_dump(),
    "test_accuracy": 0.75,
    "correct": [True, True, False, True],
    "train_loss": 0.5,
    "diverged": False,
    "schema_version": 2,
}
RECORD = make_record(SPEC, [make_row(0), make_row(1, loss=0.1 + 0.2), make_row(2, smoothness=None)])


def test_round_trip_is_exact(tmp_path: Path) -> None:
    store = Store(tmp_path / "records", ConvNetRecord)
    store.prepare()
    path = store.save(RECORD)
    assert path.name == f"{SPEC.key}.json"
    assert store.load(SPEC.key) == RECORD
    assert store.load_all() == [RECORD]
    assert store.load("another") is None
    assert [p.name for p in store.folder.iterdir()] == [path.name], "temporary files were left"


@given(cut=st.integers(0, 10_000))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_record_cut_short_is_refused(tmp_path: Path, cut: int) -> None:
    contents = RECORD.model_dump_json(indent=1)
    path = tmp_path / f"{SPEC.key}.json"
    path.write_text(contents[: cut % len(contents)])
    with pytest.raises(RecordError, match=r"not complete JSON.*delete or move the file"):
        read_record(path, ConvNetRecord)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def places(document: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON document."""
    inner = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [here, *(place for name, value in inner for place in places(value, (*here, name)))]


PLACES = places(json.loads(RECORD.model_dump_json()))[1:]


@given(place=st.sampled_from(PLACES), value=anything)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_record_with_anything_in_any_place_is_read_or_refused(
    tmp_path: Path, place: tuple[Any, ...], value: object
) -> None:
    """Never another error, and what is read says what is written."""
    document = json.loads(RECORD.model_dump_json())
    inside = document
    for name in place[:-1]:
        inside = inside[name]
    inside[place[-1]] = value
    path = tmp_path / f"{SPEC.key}.json"
    path.write_text(json.dumps(document))
    try:
        record = read_record(path, ConvNetRecord)
    except RecordError as error:
        assert "\n" not in str(error)  # noqa: PT017  one sentence, one line
    else:
        assert json.loads(record.model_dump_json()) == document


def changed(change: Callable[[dict[str, Any]], object]) -> str:
    """The record as JSON after a change to its contents."""
    contents = json.loads(RECORD.model_dump_json())
    change(contents)
    return json.dumps(contents)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (changed(lambda r: r.update(schema_version=3)), "version 3, this hw4 reads version 2; delete or move"),
        (changed(lambda r: r.update(schema_version=1)), "version 1, this hw4 reads version 2; delete or move"),
        (changed(lambda r: r.pop("schema_version")), "schema version None"),
        (changed(lambda r: r.pop("rows")), "rows"),
        (changed(lambda r: r.update(extra=1)), "extra"),
        (changed(lambda r: r["rows"].pop(1)), "one for each pass that the spec evaluates"),
        (changed(lambda r: (r["rows"].pop(), r["times"].pop())), "must have all 2 passes"),
        (changed(lambda r: r["rows"][0].update(train_accuracy=1.5)), "train_accuracy is 1.5"),
        (changed(lambda r: r["rows"][0].update(train_loss="low")), "train_loss is 'low'"),
        (changed(lambda r: r.update(key="another")), "the key must be"),
        (changed(lambda r: r["spec"].update(passes=-1)), "passes is -1"),
        (changed(lambda r: r["data"].update(checksum="<script>")), "checksum"),
        (RECORD.model_dump_json().replace('"train_loss":1.0', '"train_loss":NaN', 1), "train_loss"),
        ("[]", "schema version None"),
        ("[" * 100_000, "not complete JSON"),
        ("\x00", "not complete JSON"),
    ],
)
def test_other_documents_are_refused_by_name(tmp_path: Path, contents: str, message: str) -> None:
    path = tmp_path / f"{SPEC.key}.json"
    path.write_text(contents)
    with pytest.raises(RecordError, match=message) as caught:
        read_record(path, ConvNetRecord)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value), "one sentence, one line"


def test_a_record_under_another_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "another.json"
    path.write_text(RECORD.model_dump_json())
    with pytest.raises(RecordError, match="its name says otherwise"):
        read_record(path, ConvNetRecord)


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fail(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os if failing == "fsync" else Path, failing, fail)
    with pytest.raises(OSError, match="No space left") as caught:
        write_atomically(path, b"new")
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_diverged_run_may_end_early() -> None:
    record = make_record(SPEC, [make_row(0), make_row(1, loss=None, smoothness=None)], diverged=True)
    assert ConvNetRecord.model_validate_json(record.model_dump_json()) == record
    assert record.last.train_loss is None


@pytest.mark.parametrize(
    ("losses", "diverged", "outcome"),
    [
        ((2.0, 1.8), False, "trained"),  # just nine tenths of what it was
        ((2.0, 1.81), False, "stuck"),
        ((2.0, 0.1), True, "diverged"),
        ((None, 0.1), False, "diverged"),
        ((2.0, None), False, "diverged"),
    ],
)
def test_how_a_run_ended(losses: tuple[float | None, float | None], diverged: bool, outcome: str) -> None:
    rows = [make_row(completed, loss=loss) for completed, loss in enumerate(losses)]
    assert make_record(ConvNetSpec.build(data="digits", passes=1), rows, diverged=diverged).outcome == outcome


def test_a_rows_smoothness_is_the_mean_of_its_directions_where_all_can_be_used() -> None:
    good, drowned, flat = make_reading(5.0), make_reading(5.0, noise_floor=4.0), make_reading(0.0, noise_floor=None)
    rows = [make_row(1).model_copy(update={"readings": each}) for each in ([good, make_reading(8.0)], [good])]
    assert [row.smoothness for row in rows] == [6.5, 5.0]
    for readings in ([], [good, drowned], [flat, good]):
        assert make_row(1).model_copy(update={"readings": readings}).smoothness is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"key": "another"}, "key, stride and trial must be those of the spec"),
        ({"stride": 6}, "key, stride and trial must be those of the spec"),
        ({"trial": 1}, "key, stride and trial must be those of the spec"),
        ({"diverged": True}, "exactly when the run did not diverge"),
        ({"correct": None}, "exactly when the run did not diverge"),
        ({"test_accuracy": None}, "exactly when the run did not diverge"),
        ({"test_accuracy": 0.25}, "the share of correct answers"),
        ({"test_accuracy": 1.25}, "test_accuracy is 1.25"),
        ({"data": {"n_test": 0}}, "n_test is 0"),
        ({"data": {"n_train": 0}}, "n_train is 0"),
    ],
)
def test_a_trial_that_contradicts_itself_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    contents = TEXT | {**changes, "data": TEXT["data"] | changes.get("data", {})}
    path = tmp_path / f"{TEXT['key']}.json"
    path.write_text(json.dumps(TEXT))
    assert read_record(path, TextCNNRecord).test_accuracy == 0.75
    path.write_text(json.dumps(contents))
    with pytest.raises(RecordError, match=message):
        read_record(path, TextCNNRecord)


def test_an_accuracy_is_of_the_questions_that_were_held_out(tmp_path: Path) -> None:
    key = "grammar_textcnn-stride5_held-outTrue_trial0"
    held_out = TEXT | {"key": key, "spec": TEXT["spec"] | {"held_out": True}, "correct": [True, False]}
    path = tmp_path / f"{key}.json"
    path.write_text(json.dumps(held_out | {"test_accuracy": 0.5}))
    assert read_record(path, TextCNNRecord).test_accuracy == 0.5, "two of eight training questions are held out"
    path.write_text(json.dumps(held_out | {"test_accuracy": 0.25}))
    with pytest.raises(RecordError, match="the share of correct answers"):
        read_record(path, TextCNNRecord)


def test_the_processor_is_named_with_what_rounds_its_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    def named(contents: str) -> str:
        monkeypatch.setattr(Path, "read_text", lambda _: contents)
        machine._cpuinfo.cache_clear()
        return machine.processor_name()

    facts = "cpu family\t: 6\nmodel\t\t: 143\nmodel name\t: Made Up: 3\nflags\t\t: fpu"
    assert named(f"{facts}\n\nmodel name\t: of another core") == "Made Up: 3 (family 6, model 143)"
    assert named(f"{facts} avx2") == "Made Up: 3 (family 6, model 143, AVX2)"
    assert named(f"{facts} avx2 avx512f") == "Made Up: 3 (family 6, model 143, AVX-512)"
    assert named("no facts") == (platform.processor() or platform.machine())
    machine._cpuinfo.cache_clear()


def test_the_environment_names_versions_code_and_processor() -> None:
    environment = RECORD.environment
    assert environment.versions.keys() == {"python", "hw4", "torch", "torchvision", "numpy", "scikit-learn"}
    assert environment.code == code_digest()
    assert environment.cpu
    in_a_repository = (PACKAGE.parent / ".git").exists()
    assert re.fullmatch("[0-9a-f]{40}", environment.commit or "") if in_a_repository else environment.commit is None
    assert (environment.dirty is None) != in_a_repository


def test_one_example_is_a_data_set_and_none_is_not() -> None:
    for name in ("n_train", "n_test"):
        for kind, data in ((DataIdentity, DATA.model_dump()), (QuestionIdentity, TEXT["data"])):
            assert kind.model_validate({**data, name: 1}).model_dump()[name] == 1
            with pytest.raises(ValueError, match=name):
                kind.model_validate({**data, name: 0})


PACKAGE = Path(hw4.__file__).parent


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The package's sources, to be edited."""
    return Path(shutil.copytree(PACKAGE, tmp_path / "hw4", ignore=shutil.ignore_patterns("__pycache__")))


@pytest.mark.parametrize(
    ("name", "found", "written"),
    [
        ("training.py", "alpha=learning_rate", "alpha=2 * learning_rate"),
        ("objective.py", "count / self.n", "1 / self.n"),
        ("geometry.py", "TEXT_KERNEL, TEXT_PADDING, TEXT_LENGTH, TEXT_FILTERS = 3", "A, B, C, D = 3"),
        ("specs.py", "HOMEWORK_RATE = 0.04", "HOMEWORK_RATE = 0.05"),
        ("experiments.py", "SHARPNESS_TOLERANCE = 0.02", "SHARPNESS_TOLERANCE = 0.2"),
        ("data/vectors.py", "WIDTH = 96", "WIDTH = 95"),
        ("data/grammar.toml", "glacier", "iceberg"),
        ("models.py", "KERNEL", "KERNEL_SIZE"),
        ("variants.py", "nn.GroupNorm(4, channels)", "nn.GroupNorm(2, channels)"),
        ("variants.py", 'norm="group", layer=_group_norm', 'norm="group"'),
        ("variants.py", 'downsample="stride"', 'downsample="pool"'),
    ],
)
def test_editing_what_can_change_a_number_makes_runs_stale(copied: Path, name: str, found: str, written: str) -> None:
    before, path = code_digest(), copied / name
    assert found in path.read_text()
    path.write_text(path.read_text().replace(found, written, 1))
    assert code_digest.__wrapped__(copied) != before


@pytest.mark.parametrize(
    "name",
    ["cli.py", "runs.py", "processes.py", "studies.py", "records.py", "stats.py", "report/page.py"],
)
def test_editing_what_schedules_keeps_or_shows_makes_nothing_stale(copied: Path, name: str) -> None:
    path = copied / name
    path.write_text(path.read_text() + "\n\nA_NEW_NUMBER = 3\n")
    training = copied / "training.py"
    training.write_text(training.read_text().replace('"""Plain', '"""Quite plain', 1) + "# a remark\n")
    assert code_digest.__wrapped__(copied) == code_digest()


@pytest.mark.parametrize(
    ("found", "written"),
    [
        ('label="ConvNet + GroupNorm"', 'label="groups"'),
        ('color="#0072B2", marker="o", linestyle="-"', 'color="#000000", marker="x", linestyle=":"'),
        ('question="Max-pooling or', 'question="Which is better, max-pooling or'),
        ("longer=4", "longer=3"),
        ("\nEXERCISES: dict", "\n# all\nEXERCISES: dict"),
    ],
)
def test_editing_what_is_compared_and_how_it_is_drawn_makes_nothing_stale(
    copied: Path, found: str, written: str
) -> None:
    path = copied / "variants.py"
    assert found in path.read_text()
    added = (
        'EXERCISES["norms"] = Exercise(title="T", question="Q", variants=("pool", "stride"), measures=("train loss",))'
    )
    path.write_text(f"{path.read_text().replace(found, written, 1)}\n{added}\n")
    assert code_digest.__wrapped__(copied) == code_digest()


def test_a_commit_that_git_cannot_tell_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_words: object, **_settings: object) -> bytes:
        raise Hw4Error("fatal: no")

    monkeypatch.setattr("hw4.records.git", fails)
    assert _commit.__wrapped__() == (None, None)

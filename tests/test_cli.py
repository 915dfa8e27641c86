"""The command line as a person meets it: outcomes, exit codes, and one sentence for every mistake."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pytest
import typer

from hw4 import cli
from hw4.data.images import Data
from hw4.data.locate import IMAGES
from hw4.files import alone
from hw4.machine import ONE_THREAD
from hw4.records import ConvNetRecord, Store
from hw4.specs import DEFAULT_SUBSET, ConvNetSpec, sweep_specs
from tests.factory import Command, python

pytestmark = pytest.mark.usefixtures("undrawn")  # pictures are looked at in the report's tests

WHOLE = ["run", "--data", "embedded", "--subset", "0.1", "--passes", "1", "--seeds", "1", "--processes", "1"]
NETS = [*WHOLE, "--exercise", "smoothness"]
QUICK = [*WHOLE, "--exercise", "pooling"]
TEXTS = ["sweep", "--data", "embedded", "--processes", "1"]
SWEEP = [*TEXTS, "--stride", "5", "--stride", "500", "--trials", "2", "--epochs", "1"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in a folder of its own, without real data, and put thread variables back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HW4_DATA", str(tmp_path / "no data"))
    monkeypatch.setattr("hw4.data.locate.cache_root", lambda: tmp_path / "cache")
    for variable in ONE_THREAD:
        monkeypatch.setenv(variable, "1")


@pytest.fixture(scope="module", autouse=True)
def trained_once() -> Iterator[None]:
    """Train equal networks once in this file: that they are equal to the bit is asked in test_experiments.py."""
    from hw4 import experiments

    train, made = experiments.train_convnet, dict[object, ConvNetRecord]()

    def once(spec: ConvNetSpec, images: Data, **settings: Any) -> ConvNetRecord:
        name = (spec, spec.key, images.checksum)
        if settings.get("keep") or name not in made:
            made[name] = train(spec, images, **settings)
        return made[name]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiments, "train_convnet", once)
        yield


def test_a_network_alone_is_trained_and_kept(hw4: Command) -> None:
    out, err = hw4(*WHOLE, "--only", "pool", "--only", "pool", "--save-weights", "--json")
    assert json.loads(out) == {"page": None, "absent": {}, "notes": [], "diverged": [], "report": None}
    assert "Training 1 ConvNet in 1 process." in err
    assert "No page: nothing in reports/embedded can be reported" in err
    assert len(list(Path("reports/embedded/weights").iterdir())) == 1
    beside = hw4(*WHOLE, "--only", "pool-batchnorm")
    assert "Report: reports/embedded/index.html" in beside.out, "there is a comparison"
    assert "give one of them" in hw4(*WHOLE, "--only", "stride", "--exercise", "pooling", code=2).err
    assert "pool-groupnorm" in hw4(*WHOLE, "--only", "resnet", code=2).err


def test_the_whole_homework_ends_with_one_page(hw4: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    # One epoch instead of fifty, and nothing to rescue: the command is what is tested.
    monkeypatch.setattr("hw4.specs.sweep_specs", partial(sweep_specs, strides=[5, 500], trials=2, epochs=1))
    out, err = hw4(*WHOLE)
    assert err == "", "without a terminal there is no progress bar"
    lines = out.splitlines()
    assert lines[:2] == ["Data: the embedded digits, as asked.", "Data: the embedded questions, as asked."]
    assert lines[2] == "Training 4 ConvNets and 4 text CNNs in 1 process."
    assert len([line for line in lines if "ConvNet" in line and ": test accuracy 0." in line]) == 4
    assert len([line for line in lines if "text CNN, stride" in line and "2 trials: test accuracy 0." in line]) == 2
    page = Path(lines[-1].removeprefix("Report: "))
    assert page == Path("reports/embedded/index.html")
    figures = {"smoothness.png", "pooling.png", "strides.png"}
    assert {path.name for path in page.parent.iterdir()} == {"index.html", *figures, "records", ".lock"}
    assert len(list((page.parent / "records").iterdir())) == 8
    for record in Store(page.parent / "records", ConvNetRecord).load_all("*_convnet-*.json"):
        assert len(record.last.readings) == (3 if record.spec.downsample == "pool" else 0), "no exercise asks for these"
    first = page.read_bytes()
    titles = re.findall(r'<h2 id="[^"]*-title">(.*?)</h2>', first.decode())
    assert [title.partition(":")[0] for title in titles] == ["Exercise 1", "Exercise 2", "Exercise 3"]

    page.unlink()
    hw4("report", "--out", "reports/embedded")
    assert page.read_bytes() == first
    out, err = hw4(*WHOLE, "--json")
    assert "Found on disk: 8 of 8." in err
    document = json.loads(out)
    assert document["page"] == "reports/embedded/index.html"
    assert document["diverged"] == []
    assert [title.partition(":")[0] for title in document["report"]] == ["Exercise 1", "Exercise 2", "Exercise 3"]
    assert page.read_bytes() == first


def test_what_others_have_not_written_whole_stays(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    ours, theirs = tmp_path / "records" / ".a.json.x1.partial", tmp_path / ".holiday.mkv.partial"
    for path in (ours, theirs):
        path.touch()
    with alone(tmp_path):
        assert (ours.exists(), theirs.exists()) == (False, True)


def test_two_commands_do_not_share_a_folder(hw4: Command) -> None:
    with alone(Path("out")):
        assert "hw4: another hw4 is writing to out; wait until it ends" in hw4(*QUICK, "--out", "out", code=1).err
    hw4(*QUICK, "--out", "out")


def test_a_sweep_ends_with_its_report_and_goes_on(hw4: Command) -> None:
    out, err = hw4(*SWEEP)
    assert err == ""
    assert out.splitlines()[-1] == "Report: reports/embedded/index.html"
    page = Path("reports/embedded/index.html").read_bytes()
    assert "Found on disk: 4 of 4." in hw4(*SWEEP).out
    hw4("report", "--out", "reports/embedded")
    assert Path("reports/embedded/index.html").read_bytes() == page
    Path("reports/embedded/records/grammar_textcnn-stride5_epochs1_trial1.json").unlink()
    err = hw4("report", "--out", "reports/embedded", code=1).err
    assert "the sweep is incomplete: stride 5 at learning rate 0.1 lacks trial 1" in err
    hw4("report", "--out", "reports/embedded", "--anyway")


def test_controls_are_made_where_asked_for_or_with_real_data_and_go_on(hw4: Command) -> None:
    for data, asked, studies in (("grammar", None, 1), ("trec", None, 2), ("trec", False, 1), ("grammar", True, 2)):
        specs = sweep_specs(data, strides=[5], trials=1)  # type: ignore[arg-type]
        found, known = cli._studies(specs, Path("out"), fresh=False, rescue=True, controls=asked)
        assert (len(found), len(known)) == (studies, 1 + 6 * (studies - 1))
    command = [*SWEEP, "--out", "out"]
    hw4(*command)
    assert not Path("out/controls").exists()
    said = hw4(*command, "--controls").out
    assert len(list(Path("out/controls").iterdir())) == 2 * (6 * 2 + 2 + 2)
    assert re.search(r"text CNN, stride 5, rate 0.0125, 2 trials: held-out accuracy 0\.\d", said)
    assert len(re.findall(r"text CNN, stride 500, permuted, rate 0\.\d+, 2 trials: test accuracy 0\.\d", said)) == 1
    assert "Found on disk: 36 of 36." in hw4(*command, "--controls").out


def test_strides_of_unequal_numbers_are_refused_before_training(hw4: Command) -> None:
    one = [*TEXTS, "--epochs", "1", "--out", "out", "--stride"]
    hw4(*one, "5", "--trials", "2")
    for trials in "13":
        err = hw4(*one, "7", "--trials", trials, code=cli.USAGE).err
        assert re.search(r"stride [57] would have . trials? beside . of stride [57]", err)
    assert len(list(Path("out/records").iterdir())) == 2
    hw4(*one, "5", "--trials", "3")
    hw4(*one, "7", "--trials", "1", "--learning-rate", "0.2")  # a sweep of its own


def test_the_claim_ends_with_its_report_and_goes_on(hw4: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    # The walk along the update is enough here; Hessians cost a minute and have tests of their own.
    monkeypatch.setattr("hw4.studies.LOOKED_AFTER", {"row_passes": (), "step_passes": ()})
    monkeypatch.setitem(DEFAULT_SUBSET, "digits", 0.1)
    options = "--data embedded --seeds 1 --landscapes 1 --passes 1 --landscape-passes 1 --rate 0.02 --rate 4 "
    options += "--no-controls --processes 1"
    command = ["claim", *options.split()]
    out, err = hw4(*command)
    assert err == ""
    assert out.splitlines()[-1] == "Report: reports/embedded/index.html"
    page = Path("reports/embedded/index.html")
    first = page.read_bytes()
    assert b'<th scope="row">4</th>' in first
    hw4("report", "--out", "reports/embedded")
    assert page.read_bytes() == first
    assert "processes must be at least 1, got 0" in hw4("claim", "--processes", "0", code=2).err


def test_one_exercise_trains_its_two_networks_and_one_of_them_longer(hw4: Command) -> None:
    assert "Training 2 ConvNets in 1 process." in hw4(*QUICK, "--out", "short", "--no-longer").out
    assert "trained for longer" not in Path("short/index.html").read_text()
    assert "Found on disk: 2 of 3." in hw4(*QUICK, "--out", "short").out
    assert "trained for longer" in Path("short/index.html").read_text()
    assert "Training 3 ConvNets in 1 process." in hw4(*QUICK, "--out", "here").out
    assert {path.name for path in Path("here").iterdir()} == {"index.html", "pooling.png", "records", ".lock"}


def test_exercises_asked_for_together_are_all_done(hw4: Command) -> None:
    assert "Training 4 ConvNets in 1 process." in hw4(*NETS, "--exercise", "pooling", "--out", "here").out
    assert {path.name for path in Path("here").glob("*.png")} == {"smoothness.png", "pooling.png"}


def fail(*_arguments: object, **_settings: object) -> NoReturn:
    raise RuntimeError("no luck\nand much more")


def test_an_exercise_that_fails_costs_no_other_and_is_named(hw4: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    few = partial(sweep_specs, strides=[5, 500], trials=2, epochs=1)
    monkeypatch.setattr("hw4.specs.sweep_specs", few)
    with monkeypatch.context() as broken:
        broken.setattr("hw4.sweep.train_trials", fail)
        err = hw4(*WHOLE, "--out", "out", code=cli.FAILED).err
    assert err.startswith("hw4: the page is written without what could not be done (Exercise 2: RuntimeError: no luck)")
    text = Path("out/index.html").read_text()
    assert re.search(r"Not on this page.*Exercise 2: RuntimeError: no luck<", text, flags=re.S)
    assert "Exercise 1: what" in text
    assert "Exercise 3: max-pooling" in text
    hw4("report", "--out", "out")
    assert Path("out/index.html").read_text() == text
    with monkeypatch.context() as broken:
        broken.setattr("hw4.experiments.train_convnet", fail)
        err = hw4(*WHOLE, "--out", "out", "--fresh", code=cli.FAILED).err
    assert "Exercise 1: RuntimeError: no luck; Exercise 3: RuntimeError: no luck" in err
    hw4(*WHOLE, "--out", "out")
    assert "Not on this page" not in Path("out/index.html").read_text()


def test_a_run_of_which_nothing_can_be_reported_names_the_cause(hw4: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from hw4 import experiments

    def no_strides(spec: ConvNetSpec, images: Data, **_settings: object) -> ConvNetRecord:
        return train(spec, images) if spec.downsample == "pool" else fail()

    train = experiments.train_convnet
    monkeypatch.setattr(experiments, "train_convnet", no_strides)
    err = hw4(*QUICK, "--out", "out", code=cli.FAILED).err
    assert "nothing in out can be reported (Exercise 3: RuntimeError: no luck; " in err
    monkeypatch.setattr(experiments, "train_convnet", fail)
    assert hw4(*QUICK, "--out", "none", code=cli.FAILED).err == "hw4: nothing could be done (RuntimeError: no luck)\n"


def test_what_cannot_be_reported_costs_no_other_part_of_the_page(hw4: Command) -> None:
    left = Path("out/records/grammar_textcnn-stride5_epochs1_trial1.json")
    hw4(*SWEEP, "--out", "out")
    left.unlink()
    assert "Exercise 2: the sweep is incomplete: stride 5" in hw4(*QUICK, "--out", "out", code=cli.FAILED).err
    assert "Exercise 3: max-pooling" in Path("out/index.html").read_text()


def test_runs_of_other_code_that_would_stay_are_refused_before_training(hw4: Command) -> None:
    """A page could not compare them with what is trained now, and that would be said after the work."""
    whole = [[*SWEEP, "--out", "out"], [*QUICK, "--out", "out"]]
    for command in whole:
        hw4(*command)
    records = list(Path("out/records").iterdir())
    for path in records:
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"environment": record["environment"] | {"code": "0" * 64}}))
    before = {path: path.read_text() for path in records}
    for command, fewer in zip(whole, (["--trials", "1"], ["--no-longer"]), strict=True):
        err = hw4(*command, *fewer, code=cli.USAGE).err
        assert re.search(r"in the folder, such as \w+_.*, were made by another version", err)
    assert {path: path.read_text() for path in records} == before
    for command in whole:
        hw4(*command)  # all of them are made again


def test_a_table_needs_no_page_and_a_page_lacks_only_what_cannot_be_on_it(hw4: Command) -> None:
    hw4(*QUICK, "--out", "out")
    Path("out/claim/ladder").mkdir(parents=True)
    Path("out/claim/ladder/digits_convnet-pool_seed0.json").write_text("{")
    out, err = hw4("report", "--out", "out", "--json", code=cli.FAILED)
    assert "The claim: out/claim/ladder/digits_convnet-pool_seed0.json is not complete JSON" in err
    said = json.loads(out[out.index("{") :])
    assert [title.partition(":")[0] for title in said["report"]] == ["Exercise 3"]
    assert list(said["absent"]) == ["The claim"]
    Path("out/claim/ladder/digits_convnet-pool_seed0.json").unlink()
    for path in Path("out/records").glob("*convnet-stride*"):
        path.unlink()
    assert "Table: out/results.csv" in hw4("report", "--out", "out", "--csv").out
    assert Path("out/results.csv").read_text().startswith("folder,key,network")


def test_figures_of_the_page_before_do_not_stay(hw4: Command) -> None:
    hw4(*QUICK, "--out", "out")
    Path("out/own.png").touch()
    hw4(*QUICK, "--out", "out", "--learning-rate", "0.1")
    named = set(re.findall(r"File: <code>(.*?)</code>", Path("out/index.html").read_text()))
    assert len(named) == 2
    assert {path.name for path in Path("out").glob("*.png")} == {*named, "own.png"}


def require_made_again(hw4: Command) -> None:
    """The page in ``out`` says two commands, and they make what lies there."""
    commands = re.findall(r"To make it again: <code>hw4 (.*?)</code>", Path("out/index.html").read_text())
    assert len(commands) == 2
    for command in commands:
        hw4(*command.split(), "--processes", "1", "--out", "again")
    first, second = ({path.name for path in Path(out, "records").iterdir()} for out in ("out", "again"))
    assert first == second


def test_the_command_to_make_it_again_makes_it_again(hw4: Command) -> None:
    options = ["--learning-rate", "0.123456789", "--batch-size", "64", "--directions", "1", "--no-noise-floor"]
    hw4(*QUICK, *options, "--out", "out")
    hw4(*TEXTS, "--stride", "100", "--trials", "2", "--epochs", "2", "--momentum", "0.5", "--out", "out")
    require_made_again(hw4)


def test_a_network_alone_costs_no_other_command_its_page(hw4: Command) -> None:
    hw4(*WHOLE, "--only", "pool", "--out", "out")
    err = hw4("report", "--out", "out", code=cli.FAILED).err
    assert "nothing in out can be reported (Exercises 1 and 3: no exercise has records" in err, "a page compares"
    hw4(*SWEEP, "--out", "out")
    page = Path("out/index.html")
    assert '<p class="short">Exercises 1 and 3: no exercise has records of both its arch' in page.read_text()
    assert "Not on this page" not in page.read_text()
    page.unlink()
    hw4(*WHOLE, "--only", "pool", "--out", "out")
    hw4("report", "--out", "out")
    assert page.exists()


def test_options_that_change_nothing_are_said(hw4: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hw4.specs.sweep_specs", partial(sweep_specs, strides=[500], trials=1, epochs=1))
    texts = ["run", "--data", "embedded", "--exercise", "stride", "--processes", "1", "--out", "out"]
    assert "Without effect" not in hw4(*texts).out
    out = hw4(*texts, "--learning-rate", "0.5", "--seeds", "2", "--no-rescue").out
    assert out.startswith("Without effect: --seeds, --learning-rate; of ConvNets, and none is trained here.\n")
    assert "1 trial: test accuracy 0." in out or "Found on disk: 1 of 1." in out
    out = hw4(*QUICK, "--controls", "--out", "out").out
    assert out.startswith("Without effect: --controls; of text CNNs, and none is trained here.\n")
    out = hw4(*QUICK, "--no-noise-floor", "--directions", "0", "--out", "out").out
    assert "Without effect: --no-noise-floor; of readings, and none is asked for.\n" in out


@pytest.mark.parametrize("command", ["run", "sweep", "claim", "audit"])
def test_a_note_of_another_program_is_told_before_the_work(hw4: Command, command: str) -> None:
    Path("out").mkdir()
    Path("out", "run.json").write_text('{"name": "tensorboard"}')
    err = hw4(command, "--data", "embedded", "--processes", "1", "--out", "out", code=cli.FAILED).err
    assert "out/run.json has schema version None" in err
    assert [path.name for path in Path("out").iterdir() if path.name != ".lock"] == ["run.json"]
    assert Path("out/run.json").read_text() == '{"name": "tensorboard"}'


def test_what_the_file_manager_leaves_is_no_record(hw4: Command) -> None:
    hw4(*QUICK, "--out", "out")
    record = next(Path("out", "records").glob("*.json"))
    record.with_name(f"._{record.name}").write_bytes(b"\0\5\26\7")
    hw4("report", "--out", "out")


def test_neighbours_that_cannot_be_reported_are_no_failure(hw4: Command) -> None:
    for name in ("benchmarks/data/2024_a.json", "gate/gate.json"):
        Path(name).parent.mkdir(parents=True)
        Path(name).write_text("{}")
    out = hw4(*QUICK, "--out", "out").out
    assert "Not on the page: The gate, for gate/gate.json was not left by a gate" in out
    assert "2024" not in out


def test_the_gpu_of_this_machine_is_none_of_the_schedulers(hw4: Command) -> None:
    both = ["--device", "cuda", "--scheduler", "tcp://x:1"]
    assert "give one of them" in hw4("run", "--data", "embedded", *both, code=cli.USAGE).err


def test_what_was_left_out_is_left_out_when_it_is_made_again(hw4: Command) -> None:
    hw4(*QUICK, "--no-longer", "--out", "out")
    one = [*TEXTS, "--stride", "100", "--trials", "1", "--epochs", "1"]
    hw4(*one, "--no-rescue", "--learning-rate", "1e4", "--out", "out")
    require_made_again(hw4)


def test_a_slip_of_the_pen_gives_no_page_of_the_neighbours(hw4: Command) -> None:
    Path("reports/gate").mkdir(parents=True)
    Path("reports/gate/gate.json").write_text("{}")
    assert "there are no records in reports/embeded" in hw4("report", "--out", "reports/embeded", code=cli.FAILED).err
    assert not Path("reports/embeded").exists()


@pytest.mark.parametrize("closed", ["a reader that went", "stdout", "stdout and stderr"])
def test_nobody_need_read_what_is_printed(hw4: Command, closed: str, tmp_path: Path) -> None:
    hw4(*SWEEP, "--out", "out")
    ends = {"a reader that went": "", "stdout": ">&-", "stdout and stderr": ">&- 2>&-"}[closed]
    shell = f'exec "$0" -m hw4 report --out out --json {ends}'
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        ["sh", "-c", shell, sys.executable], stdout=write, stderr=subprocess.PIPE, check=False, timeout=60, cwd=tmp_path
    )
    os.close(write)
    assert (done.returncode, b"rror" in done.stderr) == (0, False), done.stderr


def test_a_path_of_bytes_that_are_no_letters_can_be_told(tmp_path: Path) -> None:
    cli._note(tmp_path, ["not in d\udcff"], {"Exercise 2": "e\udcff: no such file"})
    assert "d\\\\udcff" in (tmp_path / "run.json").read_text()


def test_auto_says_that_the_data_is_embedded(hw4: Command) -> None:
    arguments = ["auto" if argument == "embedded" else argument for argument in QUICK]
    assert "because FashionMNIST is not in" in hw4(*arguments).out.splitlines()[0]
    assert "because FashionMNIST is not in" in Path("reports/embedded/index.html").read_text()


def test_real_and_embedded_data_are_not_mixed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hw4.data.choose._find", lambda data: Path("found") if data is IMAGES else None)
    monkeypatch.setattr("hw4.data.choose.damage", lambda _data, _folder: [])
    names = cli._choose("auto", None, print, images=True, questions=True)
    assert names[:3] == ("digits", "grammar", Path("reports/embedded"))
    assert "because TREC and spaCy's en_core_web_sm 3.6.0 are not in" in names[3][0], "the page says why"
    assert "because TREC and" in capsys.readouterr().out.splitlines()[0]
    assert cli._choose("auto", None, print, images=True)[0] == "fashion-mnist"


def test_a_diverged_run_is_recorded_reported_and_told_apart(hw4: Command) -> None:
    out, err = hw4(*QUICK, "--learning-rate", "100", "--out", "out", code=cli.DIVERGED)
    assert out.splitlines()[-1] == "Report: out/index.html"
    assert re.fullmatch(
        r"hw4: 3 of 3 ConvNets diverged and are recorded as such .*; a smaller --learning-rate .*\n", err
    )
    assert all(record.diverged for record in Store(Path("out/records"), ConvNetRecord).load_all())
    assert "1 of 1 run of ConvNet diverged" in Path("out/index.html").read_text()
    err = hw4(*WHOLE, "--learning-rate", "100", "--only", "pool", "--out", "one", code=cli.DIVERGED).err
    assert "1 of 1 ConvNets diverged and is recorded as such" in err


def test_the_largest_number_is_no_row_of_digits(hw4: Command) -> None:
    err = hw4("run", "--learning-rate", "1e39", code=cli.USAGE).err
    assert "less than or equal to 3.4e+38" in err
    assert "got '1.5'" in hw4("run", "--seeds", "1.5", code=cli.USAGE).err


def test_where_nothing_is_learnt_no_smaller_rate_is_advised(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        cli._end({}, ["a"], [ConvNetSpec.build(data="digits", learning_rate=1e-6)], None)
    assert "; where nothing is learnt at a rate below 0.04, take a larger --learning-rate" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["run", "--passes", "-3"], 2, "passes is -3"),
        (["run", "--passes", "many"], 2, "'--passes'"),
        (["run", "--seeds", "0"], 2, "at least 1 and at most 100,000, got 0"),
        (["run", "--data", "embedded", "--only", "pool", "--seeds", "-2"], 2, "at least 1 and at most 100,000, got -2"),
        (["run", "--out", ""], 2, "'--out': expected a folder, got nothing"),
        (["report", "--out", " "], 2, "'--out': expected a folder, got nothing"),
        (["gate", "--out", ""], 2, "'--out': expected a folder, got nothing"),
        (["sweep", "--scheduler", ""], 2, "--scheduler needs an address, got nothing"),
        (["claim", "--bisections", "-1"], 2, "'--bisections'"),
        (["run", "--processes", "0"], 2, "processes must be at least 1, got 0"),
        (["run", "--device", "cuda", "--data", "embedded"], 1, "--device cuda needs an NVIDIA GPU"),
        (["run", "--learning-rate", "nan"], 2, "learning_rate is nan"),
        (["run", "--batch-size", "0"], 2, "batch_size is 0"),
        ([*QUICK, "--batch-size", "136"], 2, "a batch of 136 images is larger than the training set of 135"),
        (["run", "--subset", "2"], 2, "subset is 2.0"),
        (
            ["run", "--data", "embedded", "--subset", "1e-9"],
            2,
            "larger than the training set of 0; choose a smaller batch",
        ),
        (["run", "--exercise", "juggling"], 2, "'juggling' is not one of 'smoothness', 'stride', 'pooling', 'all'"),
        (["run", "--data", "synthetic"], 2, "'synthetic' is not one of"),
        (["run", "--data", "real"], 1, "run 'hw4 fetch' or set HW4_DATA"),
        (["run", "--colour", "red"], 2, "--colour"),
        ([*QUICK, "--out", "a file/out"], 1, "a file/out"),
        ([*QUICK, "--out", "bad records"], 1, "is not complete JSON"),
        (["report", "--out", "nowhere"], 1, "there are no records in nowhere; make them with"),
        (["report", "--out", "bad records"], 1, "is not complete JSON"),
        (["report"], 2, "--out"),
        (["sweep", "--stride", "0"], 2, "stride is 0"),
        (["sweep", "--stride", "5", "--stride", "5"], 2, "each given once"),
        (["sweep", "--trials", "0"], 2, "at least 1 and at most 100,000, got 0"),
        (["sweep", "--momentum", "1"], 2, "momentum is 1.0"),
        (["sweep", "--processes", "0"], 2, "processes must be at least 1, got 0"),
        (["sweep", "--data", "real"], 1, "TREC and spaCy's en_core_web_sm 3.6.0 are not in"),
        ([*SWEEP, "--out", "a file/out"], 1, "a file/out"),
        ([*SWEEP, "--out", "bad records"], 1, "is not complete JSON"),
        (["fetch", "--mirror", "http://127.0.0.1:9/"], 1, "could not be downloaded"),
        (["fetch", "--mirror", "not an address"], 2, "--mirror must be an http:// or https:// address"),
        (["fetch", "--mirror", "ftp://127.0.0.1/"], 2, "--mirror must be an http:// or https:// address"),
        (["juggle"], 2, "No such command 'juggle'"),
        ([], 2, "Missing command"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_gets_one_sentence(
    arguments: list[str], code: int, sentence: str, hw4: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("a file").touch()
    bad = Path("bad records/records/digits_convnet-pool_passes1_subset0.1_seed0.json")
    bad.parent.mkdir(parents=True)
    bad.write_text("{")
    bad.with_name("grammar_textcnn-stride5_epochs1_trial0.json").write_text("{")
    monkeypatch.setattr("hw4.data.fetch.RETRIES", 0)
    before = sorted(Path().rglob("*"))
    err = hw4(*arguments, code=code).err
    assert sentence in err
    assert err.startswith("hw4: ")
    assert err.count("\n") == 1, "one sentence, one line"
    left = {path for path in Path().rglob("*") if path.is_file()} - set(before)
    assert {path.name for path in left} <= {".lock"}, "something was half written"


def test_a_folder_that_cannot_be_written_is_named_before_training(
    hw4: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object, **_settings: object) -> None:
        raise PermissionError(13, "Permission denied", "out/records")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    out, err = hw4(*QUICK, "--out", "out", code=1)
    assert err.startswith("hw4: out/records: Permission denied; see to that or choose another folder")
    assert "test accuracy" not in out


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["hw4", "run", "--passes", "-3", "--debug"])
    with pytest.raises(ValueError, match="passes is -3"):
        cli.main()


@pytest.mark.parametrize(
    "arguments",
    [["--help"], *([name, "--help"] for name in ("run", "sweep", "claim", "audit", "report", "gate", "fetch"))],
    ids=" ".join,
)
def test_help(arguments: list[str], hw4: Command) -> None:
    out = hw4(*arguments).out
    assert "Usage: hw4" in out
    assert ("Exit codes" if arguments == ["--help"] else "Example") in out


def test_version_and_module(tmp_path: Path) -> None:
    assert re.fullmatch(r"hw4 \d+\.\d+\.\d+\n", python("-m", "hw4", "--version", cwd=tmp_path).stdout)


def test_the_shell_completes_commands() -> None:
    typed = {"_HW4_COMPLETE": "complete_bash", "COMP_WORDS": "hw4 r", "COMP_CWORD": "1"}
    offered = python("-m", "hw4", env={**os.environ, **typed})
    assert offered.stdout.split() == ["run", "report"]


def test_an_interrupted_run_keeps_what_is_finished_and_goes_on(tmp_path: Path) -> None:
    """Also where the terminal tells every process, and twice."""
    command = [sys.executable, "-m", "hw4", *QUICK, "--seeds", "30", "--out", "out", "--processes", "2"]
    # A shell starts background jobs with Ctrl-C ignored, and children inherit that unless a handler stands here.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(
        command, stdout=-1, stderr=-1, text=True, cwd=tmp_path, env={**os.environ}, start_new_session=True
    ) as process:
        signal.signal(signal.SIGINT, before)
        assert process.stdout is not None
        for line in process.stdout:
            if "test accuracy" in line:
                for _ in range(2):
                    os.killpg(process.pid, signal.SIGINT)
                    time.sleep(0.2)
                break
        _, err = process.communicate(timeout=60)
    assert process.returncode == cli.INTERRUPTED
    assert (
        err == "hw4: interrupted; finished runs are kept, and the same command, without --fresh, goes on from there\n"
    )
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file() and path.name != ".lock"]
    assert 1 <= len(files) < 60
    assert len(Store(tmp_path / "out" / "records", ConvNetRecord).load_all()) == len(files)
    assert all(json.loads(path.read_text())["schema_version"] == 2 for path in files)

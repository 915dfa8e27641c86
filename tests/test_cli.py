"""The command line as a person meets it: outcomes, exit codes, and one sentence for every mistake."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hw4 import cli
from hw4.records import ConvNetRecord, Store

QUICK = ["run", "--data", "embedded", "--subset", "0.1", "--passes", "1", "--seeds", "1"]
SWEEP = ["sweep", "--data", "embedded", "--stride", "5", "--stride", "500", "--trials", "2", "--epochs", "1"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in a folder of its own, without real data, and put thread variables back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HW4_DATA", str(tmp_path / "no data"))
    monkeypatch.setattr("hw4.data.locate.cache_root", lambda: tmp_path / "cache")
    for variable in cli.THREAD_VARIABLES:
        monkeypatch.setenv(variable, "1")


def hw4(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Call the command in this process and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["hw4", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return int(stopped.value.code or 0)


def test_a_run_ends_with_the_path_of_its_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hw4(monkeypatch, *QUICK) == 0
    out, err = capsys.readouterr()
    assert err == "", "without a terminal there is no progress bar"
    lines = out.splitlines()
    assert lines[0] == "Data: the embedded digits, as asked."
    assert len([line for line in lines if ": test accuracy 0." in line]) == 3
    page = Path(lines[-1].removeprefix("Report: "))
    assert page == Path("reports/digits/index.html")
    assert {path.name for path in page.parent.iterdir()} == {"index.html", "smoothness.png", "pooling.png", "records"}
    assert len(Store(page.parent / "records", ConvNetRecord).load_all()) == 3

    first = page.read_bytes()
    page.unlink()
    assert hw4(monkeypatch, "report", "--out", "reports/digits") == 0
    assert page.read_bytes() == first
    assert hw4(monkeypatch, *QUICK) == 0
    assert capsys.readouterr().out.count("(found on disk)") == 3


def test_a_sweep_ends_with_its_report_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hw4(monkeypatch, *SWEEP, "--processes", "1") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines()[-1] == "Report: reports/grammar/index.html"
    page = Path("reports/grammar/index.html").read_bytes()
    assert hw4(monkeypatch, *SWEEP, "--processes", "1") == 0
    assert "4 of 4 models were found on disk." in capsys.readouterr().out
    assert hw4(monkeypatch, "report", "--out", "reports/grammar") == 0
    assert Path("reports/grammar/index.html").read_bytes() == page
    Path("reports/grammar/records/grammar_textcnn-stride5_epochs1_trial1.json").unlink()
    assert hw4(monkeypatch, "report", "--out", "reports/grammar") == 1
    assert "the sweep is incomplete: stride 5 at learning rate 0.1 lacks trial 1" in capsys.readouterr().err
    assert hw4(monkeypatch, "report", "--out", "reports/grammar", "--anyway") == 0


def test_the_claim_ends_with_its_report_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The walk along the update is enough here; Hessians cost a minute and have tests of their own.
    monkeypatch.setattr("hw4.specs.CURVATURE_PASSES", ())
    command = ["claim", "--data", "embedded", "--seeds", "1", "--landscapes", "1", "--passes", "1", "--rate", "0.02",
               "--rate", "4", "--processes", "1"]  # fmt: skip
    assert hw4(monkeypatch, *command) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines()[-1] == "Report: reports/digits/claim/index.html"
    page = Path("reports/digits/claim/index.html")
    first = page.read_bytes()
    assert b"<td>4</td>" in first
    assert hw4(monkeypatch, "report", "--out", "reports/digits/claim") == 0
    assert page.read_bytes() == first
    assert hw4(monkeypatch, "claim", "--processes", "0") == 2
    assert "--processes must be at least 1, got 0" in capsys.readouterr().err


def test_one_exercise_trains_its_two_networks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hw4(monkeypatch, *QUICK, "--exercise", "pooling", "--out", "here") == 0
    assert "Training 2 networks of 1 passes over 135 images." in capsys.readouterr().out
    assert {path.name for path in Path("here").iterdir()} == {"index.html", "pooling.png", "records"}


def test_auto_says_that_the_data_is_embedded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["auto" if argument == "embedded" else argument for argument in QUICK]
    assert hw4(monkeypatch, *arguments, "--exercise", "pooling") == 0
    assert "because FashionMNIST is not in" in capsys.readouterr().out.splitlines()[0]


def test_a_diverged_run_is_recorded_reported_and_told_apart(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hw4(monkeypatch, *QUICK, "--learning-rate", "100", "--out", "out") == cli.DIVERGED
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == "Report: out/index.html"
    assert re.fullmatch(r"hw4: 3 of 3 runs diverged and are recorded as such .*\n", err)
    assert all(record.diverged for record in Store(Path("out/records"), ConvNetRecord).load_all())
    assert "1 of 1 runs of ConvNet diverged" in Path("out/index.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["run", "--passes", "-3"], 2, "passes is -3"),
        (["run", "--passes", "many"], 2, "'--passes'"),
        (["run", "--seeds", "0"], 2, "at least 1, got 0"),
        (["run", "--threads", "0"], 2, "--threads must be at least 1, got 0"),
        (["run", "--learning-rate", "nan"], 2, "learning_rate is nan"),
        (["run", "--batch-size", "0"], 2, "batch_size is 0"),
        ([*QUICK, "--batch-size", "136"], 2, "a batch of 136 images is larger than the training set of 135"),
        (["run", "--subset", "2"], 2, "subset is 2.0"),
        (["run", "--data", "embedded", "--subset", "1e-9"], 1, "leaves none of the 1347 training images"),
        (["run", "--exercise", "juggling"], 2, "'juggling' is not one of 'smoothness', 'pooling', 'all'"),
        (["run", "--data", "synthetic"], 2, "'synthetic' is not one of"),
        (["run", "--data", "real"], 1, "run 'hw4 fetch' or set HW4_DATA"),
        (["run", "--colour", "red"], 2, "--colour"),
        ([*QUICK, "--out", "a file/out"], 1, "a file/out"),
        ([*QUICK, "--out", "bad records"], 1, "is not complete JSON"),
        (["report", "--out", "nowhere"], 1, "there are no records in nowhere/records"),
        (["report", "--out", "bad records"], 1, "is not complete JSON"),
        (["report"], 2, "--out"),
        (["sweep", "--stride", "0"], 2, "stride is 0"),
        (["sweep", "--stride", "5", "--stride", "5"], 2, "once each"),
        (["sweep", "--trials", "0"], 2, "at least 1, got 0"),
        (["sweep", "--momentum", "1"], 2, "momentum is 1.0"),
        (["sweep", "--processes", "0"], 2, "--processes must be at least 1, got 0"),
        (["sweep", "--data", "real"], 1, "the TREC questions are not in"),
        ([*SWEEP, "--out", "a file/out"], 1, "a file/out"),
        ([*SWEEP, "--out", "bad records"], 1, "is not complete JSON"),
        (["fetch", "--mirror", "http://127.0.0.1:9/"], 1, "could not be downloaded"),
        (["fetch", "--mirror", "not an address"], 1, "could not be downloaded"),
        (["juggle"], 2, "No such command 'juggle'"),
        ([], 2, "Missing command"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_gets_one_sentence(
    arguments: list[str], code: int, sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("a file").touch()
    bad = Path("bad records/records/digits_convnet-pool_passes1_subset0.1_seed0.json")
    bad.parent.mkdir(parents=True)
    bad.write_text("{")
    bad.with_name("grammar_textcnn-stride5_epochs1_trial0.json").write_text("{")
    monkeypatch.setattr("hw4.data.locate.RETRIES", 0)
    before = sorted(Path().rglob("*"))
    assert hw4(monkeypatch, *arguments) == code
    err = capsys.readouterr().err
    assert sentence in err
    assert err.startswith("hw4: ")
    assert err.count("\n") == 1, "one sentence, one line"
    left = {path for path in Path().rglob("*") if path.is_file()} - set(before)
    assert not left, "something was half written"


def test_a_folder_that_cannot_be_written_is_named_before_training(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_arguments: object, **_settings: object) -> None:
        raise PermissionError(13, "Permission denied", "out/records")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    assert hw4(monkeypatch, *QUICK, "--out", "out") == 1
    out, err = capsys.readouterr()
    assert err.startswith("hw4: out/records: Permission denied; see to that or choose another folder")
    assert "test accuracy" not in out


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["hw4", "run", "--passes", "-3", "--debug"])
    with pytest.raises(ValueError, match="passes is -3"):
        cli.main()


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["sweep", "--help"], ["report", "--help"], ["fetch", "--help"]]
)
def test_help(arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert hw4(monkeypatch, *arguments) == 0
    out = capsys.readouterr().out
    assert "Usage: hw4" in out
    assert ("Exit codes" if arguments == ["--help"] else "Example") in out


def test_version_and_module(tmp_path: Path) -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "hw4", "--version"], capture_output=True, text=True, check=True, timeout=60, cwd=tmp_path
    )
    assert re.fullmatch(r"hw4 \d+\.\d+\.\d+\n", printed.stdout)


def test_an_interrupted_run_keeps_what_is_finished_and_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hw4", "run", "--data", "embedded", "--passes", "2", "--out", "out"]
    # A shell starts background jobs with Ctrl-C ignored, and children inherit that unless a handler stands here.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env={**os.environ}
    ) as process:
        signal.signal(signal.SIGINT, before)
        assert process.stdout is not None
        for line in process.stdout:
            if "test accuracy" in line:
                process.send_signal(signal.SIGINT)
                break
        _, err = process.communicate(timeout=60)
    assert process.returncode == cli.INTERRUPTED
    assert err == "hw4: interrupted; finished runs are kept, and the same command goes on from there\n"
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert 1 <= len(files) < 15
    assert len(Store(tmp_path / "out" / "records", ConvNetRecord).load_all()) == len(files)
    assert all(json.loads(path.read_text())["schema_version"] == 1 for path in files)

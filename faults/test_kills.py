"""kill -9 at random moments: nothing finished is lost, and the report in the end is that of an undisturbed run."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from hw4.records import ConvNetRecord, Environment, PassTime, Store, TextCNNRecord
from hw4.report import exercises, strides
from hw4.report.page import Report
from tests.test_cluster import dask, worker

HOMEWORK = ["run", "--data", "embedded", "--seeds", "3", "--passes", "2", "--directions", "1"]
SWEEP = ["sweep", "--data", "embedded", "--stride", "1", "--stride", "5", "--stride", "500", "--epochs", "30"]
COMMANDS = {
    "run": [*HOMEWORK, "--exercise", "smoothness"],
    "pooling": [*HOMEWORK, "--exercise", "pooling"],
    "sweep": SWEEP,
}
SETTLE_SECONDS = 20
"""Longest wait for the workers of a killed process to end."""


def hw4(command: Sequence[str], folder: Path) -> list[str]:
    return [sys.executable, "-m", "hw4", *command, "--processes", "2", "--out", str(folder)]


def records(folder: Path) -> tuple[list[ConvNetRecord], list[TextCNNRecord]]:
    """Every record of a folder, validated; times are set to a second and the commit is left out: they may differ."""
    nets = Store(folder / "records", ConvNetRecord).load_all("*_convnet-*.json")
    texts = Store(folder / "records", TextCNNRecord).load_all("*_textcnn-*.json")
    second = PassTime(wall_seconds=1.0, cpu_seconds=1.0)

    def anywhere(environment: Environment) -> Environment:
        return environment.model_copy(update={"commit": None, "dirty": None})

    return (
        [
            net.model_copy(update={"times": [second] * len(net.times), "environment": anywhere(net.environment)})
            for net in nets
        ],
        [text.model_copy(update={"environment": anywhere(text.environment)}) for text in texts],
    )


def report(folder: Path, into: Path) -> dict[str, bytes]:
    """Page and figures drawn from a folder's records, byte by byte."""
    nets, texts = records(folder)
    Report([*exercises.entries(nets), *strides.entries(texts)]).write(into)
    return {path.name: path.read_bytes() for path in into.iterdir()}


def orphans(folder: Path) -> bool:
    """Whether a process of a run into this folder is still there."""
    own = (path for path in Path("/proc").glob("[0-9]*/environ") if path.parent.name.isdigit())
    for path in own:
        try:
            if f"HW4_KILLED={folder}".encode() in path.read_bytes():
                return True
        except OSError:
            continue
    return False


def require_whole(out: Path, kept: dict[Path, bytes]) -> None:
    """Every file is a whole, valid record, and what was there before a kill is as it was."""
    records(out)
    assert all(path.read_bytes() == contents for path, contents in kept.items()), "a finished record changed"


def require_finished(out: Path, into: Path, expected: object) -> None:
    """The report is that of a run that nobody disturbed; the next round begins anew."""
    assert report(out, into) == expected
    shutil.rmtree(out)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the processes through Linux's /proc")
@pytest.mark.parametrize("name", COMMANDS)
def test_kills_lose_nothing_and_change_nothing(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    kills = -(-request.config.getoption("--kills") // len(COMMANDS))
    command, rng = COMMANDS[name], random.Random(name)
    start = time.monotonic()
    subprocess.run(hw4(command, tmp_path / "undisturbed"), check=True, capture_output=True, timeout=300)
    whole = time.monotonic() - start
    expected = report(tmp_path / "undisturbed", tmp_path / "expected")
    out, survived, rounds = tmp_path / "out", 0, 0
    while survived < kills:
        moment = rng.uniform(0, whole)
        kept = {path: path.read_bytes() for path in (out / "records").glob("*.json")}
        with subprocess.Popen(
            hw4(command, out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HW4_KILLED": str(out)},
        ) as process:
            try:
                process.wait(moment)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                survived += 1
        deadline = time.monotonic() + SETTLE_SECONDS
        while orphans(out):
            assert time.monotonic() < deadline, "a worker outlives the process that started it"
            time.sleep(0.05)
        require_whole(out, kept)
        if process.returncode == 0:
            rounds += 1
            require_finished(out, tmp_path / f"after{rounds}", expected)
    done = subprocess.run(hw4(command, out), check=True, capture_output=True, text=True, timeout=300)
    assert "Report: " in done.stdout
    assert report(out, tmp_path / "last") == expected
    assert {path.name for path in out.iterdir()} <= {*expected, "records", ".lock"}
    assert not [path.name for path in (out / "records").iterdir() if path.suffix != ".json"], "litter is left"
    print(f"{name}: {survived} kills survived, {rounds + 1} reports identical")


def test_killed_workers_of_a_cluster_lose_nothing_and_change_nothing(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Another worker begins as one is killed; a task whose workers died one after another ends the command, once."""
    rng, survived, rounds, out = random.Random("dask"), 0, 0, tmp_path / "out"
    start = time.monotonic()
    subprocess.run(hw4(SWEEP, tmp_path / "undisturbed"), check=True, capture_output=True, timeout=300)
    whole = time.monotonic() - start
    expected = report(tmp_path / "undisturbed", tmp_path / "expected")
    with dask() as (address, processes):
        command = [sys.executable, "-m", "hw4", *SWEEP, "--scheduler", address, "--out", str(out)]
        while survived < request.config.getoption("--kills"):
            kept = {path: path.read_bytes() for path in (out / "records").glob("*.json")}
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
                while process.poll() is None:
                    time.sleep(rng.uniform(0, whole))
                    doomed = processes.pop(rng.choice([1, 2]))
                    doomed.kill()
                    doomed.wait()
                    processes.append(worker(address))
                    survived += process.poll() is None
                said = process.stderr.read() if process.stderr else ""
            assert process.returncode == 0 or "one worker after another died" in said, said
            require_whole(out, kept)
            if process.returncode == 0:
                rounds += 1
                require_finished(out, tmp_path / f"after{rounds}", expected)
    print(f"dask: {survived} kills survived, {rounds} reports identical")

"""Over a Dask cluster: the same numbers, nothing lost, and no work for a worker that would make other numbers."""

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hw4 import cli
from hw4.audit import as_it_is, notebook_standardise, repeat_run, repeat_session
from hw4.cluster import Cluster, Shared, _checked, _opened, open_cluster, surroundings
from hw4.data.images import load_images
from hw4.errors import Hw4Error, SpecError, WorkersError
from hw4.processes import spread
from hw4.records import Store, TextCNNRecord
from hw4.runs import _data, _tasks, make, make_all
from hw4.specs import ConvNetSpec, exercise_specs, longer_specs
from tests.factory import Command
from tests.test_runs import in_folder, one_of_each, without_times
from tests.test_sweep import LONG_SWEEP, wait_for

pytest.importorskip("distributed", reason="needs the extra hw4[dask]")

ROLE = "from distributed.cli.dask_{0} import main\nif __name__ == '__main__': main()"


def begin(role: str, *arguments: str) -> "subprocess.Popen[bytes]":
    """A scheduler or a worker as a process of its own, on loopback."""
    command = [sys.executable, "-c", ROLE.format(role), *arguments, "--host", "127.0.0.1", "--no-dashboard"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def worker(address: str) -> "subprocess.Popen[bytes]":
    return begin("worker", address, "--nthreads", "1", "--no-nanny")


@contextmanager
def dask() -> Iterator[tuple[str, "list[subprocess.Popen[bytes]]"]]:
    """A scheduler that answers, and two workers that may yet have to join it; all are killed in the end."""

    def answers() -> bool:
        with socket.socket() as probe:
            return not probe.connect_ex(("127.0.0.1", int(port)))

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    address = f"tcp://127.0.0.1:{port}"
    processes = [begin("scheduler", "--port", port), worker(address), worker(address)]
    try:
        wait_for(answers)
        yield address, processes
    finally:
        for process in processes:
            process.kill()
            process.wait(10)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with dask() as (address, _):
        yield address


@pytest.fixture
def executor(address: str) -> Iterator[Cluster]:
    with open_cluster(address, print) as executor:
        yield executor


def anywhere(record: Any) -> dict[str, object]:
    """A record without what differs from minute to minute."""
    found = without_times(record)
    environment = {**record.environment.model_dump(), "commit": None, "dirty": None}
    return {**found, "environment": environment}


def test_runs_have_the_numbers_that_they_have_here(executor: Cluster, tmp_path: Path) -> None:
    here = make_all([in_folder(tmp_path / "here", *one_of_each())])
    there = make_all([in_folder(tmp_path / "there", *one_of_each())], executor=executor)
    assert list(map(anywhere, there)) == list(map(anywhere, here))
    found = list[bool]()
    make_all(
        [in_folder(tmp_path / "there", *one_of_each())], executor=executor, on_record=lambda _, on: found.append(on)
    )
    assert found == [True] * len(here)


def test_the_audit_trains_there_as_it_does_here(executor: Cluster) -> None:
    specs = exercise_specs(["smoothness"], seeds=1, data="digits", passes=1, subset=0.1)
    ((_, there),) = spread(repeat_session, [specs], processes=1, executor=executor, share=lambda _: as_it_is("digits"))
    here = repeat_session(specs)
    assert there == here
    images = load_images("digits", subset=0.1, rule=notebook_standardise, seed=0)
    assert [repeat_run(spec, images) for spec in specs] == here


def test_a_worker_that_would_make_other_numbers_gets_no_work(
    address: str, executor: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = surroundings()
    other = here.model_copy(update={"versions": {**here.versions, "numpy": "1.0"}})
    says = rf"the worker tcp://\S+ has numpy {re.escape(here.versions['numpy'])} where this machine has 1\.0; .*"
    (sharing,) = _tasks([(tmp_path, one_of_each()[0])], "cpu", remote=True)
    late = Cluster(executor._client, other, set())  # as if the worker had joined after the look at all of them
    with pytest.raises(WorkersError, match=says):
        list(spread(make, [sharing], processes=1, executor=late, on_failure=lambda *_: None, share=_data))
    monkeypatch.setattr("hw4.cluster.surroundings", lambda: other)
    with pytest.raises(WorkersError, match=says), open_cluster(address, print):
        pytest.fail("it was opened")
    with pytest.raises(WorkersError, match=r"cannot load this hw4 \(No module named 'hw4\.cluster'\)"):
        _checked({"tcp://1": ModuleNotFoundError("No module named 'hw4.cluster'"), "tcp://2": "a processor"})
    with pytest.raises(WorkersError, match="is damaged"):
        _opened(Shared("0" * 64, b"other bytes"))


def test_runs_that_are_timed_beside_each_other_go_to_one_worker(tmp_path: Path) -> None:
    nets = exercise_specs(["smoothness", "pooling"], seeds=2, data="digits")
    tasks = _tasks([(tmp_path, net) for net in (*nets, *longer_specs(["pooling"], nets))], "cpu", remote=True)
    runs = [[spec for spec in task.specs if isinstance(spec, ConvNetSpec)] for task in tasks]
    kinds = {(specs[0].variant, len(specs), len({spec.seed for spec in specs})) for specs in runs}
    assert kinds == {("pool", 3, 1), ("pool-batchnorm", 1, 1)}
    assert len(tasks) == 4


@pytest.mark.parametrize("command", ["run", "sweep", "claim", "audit"])
def test_processes_are_no_option_of_a_cluster(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["hw4", command])
    with pytest.raises(SpecError, match="--processes 2 is of this machine and --scheduler trains on others"):
        cli.app([command, "--processes", "2", "--scheduler", "tcp://127.0.0.1:9"], standalone_mode=False)


def test_an_absent_scheduler_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("hw4.cluster.CONNECT_SECONDS", 0.5)
    with pytest.raises(Hw4Error, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9 within 0.5 seconds"):
        open_cluster("tcp://127.0.0.1:9", print).__enter__()
    assert capsys.readouterr().out == ""


def test_a_kill_loses_nothing_finished(hw4: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another worker takes over a killed one's task; without a scheduler the command ends, and goes on with another."""
    monkeypatch.chdir(tmp_path)
    with dask() as (address, processes):

        def ended(out: str, victim: "subprocess.Popen[bytes]") -> tuple[int, str, str]:
            """How the command ends, and what it says, when something is killed as soon as the first run is kept."""
            command = [sys.executable, "-m", "hw4", *LONG_SWEEP, "--out", out, "--scheduler", address]
            with subprocess.Popen(command, stdout=-1, stderr=-1, text=True) as process:
                wait_for(lambda: list(Path(out, "records").glob("*.json")), seconds=150)  # workers import torch first
                victim.kill()
                said, err = process.communicate(timeout=120)
            return process.returncode, said, err

        code, said, err = ended("worker", processes[1])
        assert code == 0, err
        assert "Report: worker/index.html" in said
        assert len(Store(Path("worker/records"), TextCNNRecord).load_all()) == 8
        code, said, err = ended("scheduler", processes[0])
    assert code == 1
    assert re.fullmatch(r"hw4: the Dask scheduler at tcp://\S+ is gone; finished runs are kept, .*\n", err)
    kept = {path: path.read_bytes() for path in Path("scheduler/records").glob("*.json")}
    assert f"Found on disk: {len(kept)} of 8." in hw4(*LONG_SWEEP, "--out", "scheduler", "--processes", "1").out
    assert all(path.read_bytes() == contents for path, contents in kept.items())
    assert len(Store(Path("scheduler/records"), TextCNNRecord).load_all()) == 8

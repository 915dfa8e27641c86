"""The gate: what its judges say of known truths, what it refuses, and that its references are what they stand for."""

import hashlib
import json
import math
import os
import random
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from typer.testing import CliRunner

from benchmarks import conftest as benchmark_rules
from benchmarks.frozen import (
    FrozenConvNet,
    FrozenEnsemble,
    frozen_gradient,
    frozen_pass,
    frozen_reading,
    frozen_scores,
)
from benchmarks.gate_timing import FROZEN
from benchmarks.workloads import WORKLOADS
from hw4 import ConvNet, TextCNN, TextCNNEnsemble, cli, measure_smoothness
from hw4.gate import accuracy, run, verdicts, workers
from hw4.gate.baseline import (
    Baseline,
    Fingerprint,
    Outcome,
    TimedBenchmark,
    TimingBaseline,
    read_baseline,
    write_baseline,
)
from hw4.gate.timing import LEAST_VISITS, Estimate, Sample, Slice, estimate, judge
from hw4.gate.verdicts import Finding, UnmeasurableError, as_json, as_junit, overall, refusal, table
from hw4.gate.workers import Worker
from hw4.smoothness import full_gradient
from hw4.training import evaluate, train_ensemble, train_pass

ROOT = Path(__file__).parents[1]
FROZEN_SHA256 = {
    "frozen.py": "f3e72c83add2bea04b93545189c873015b07daece628f8f306fcf50d2a611416",
    "plain.py": "0e99001708e5a4326bc95a9392081320cf1d5ffd90c1796baa7642912a8dd52d",
    "plain_homework.py": "2be1ee46044c2dcdc3782c90129ac1145c1155ab2d3c80784d7518b3ae1044b6",
    "plain_text.py": "e98834fca8d7f936f010ae58a7673c13c49f1921b16d435c80930cb2aa26d042",
}
BEFORE = Estimate(0.0, 0.003)


# --- the machine, simulated: visits whose truth is known ---------------------------------------------------------


class Machine:
    """A noisy computer: every slice costs 5 ms times today's slowdown, the machine's mood and its own luck."""

    def __init__(self, seed: int, *, slower: float = 0.0, luck: float = 0.1, **faults: bool) -> None:
        self.rng, self.slower, self.luck, self.faults = np.random.default_rng(seed), slower, luck, faults
        self.mood = 0.0

    def visit(self, benchmark: str, slices: list[Slice]) -> list[float]:
        """Seconds of each slice."""
        assert benchmark
        seconds = []
        for index, piece in enumerate(slices):
            self.mood = 0.97 * self.mood + self.rng.normal(0, 0.03)
            cost = 1.0
            if not isinstance(piece, str):
                planted = 0.0 if self.faults.get("deaf") else piece
                cost = (1 + self.slower) * (1 + planted)
                if self.faults.get("first_is_slow") and index % 4 == 1:
                    cost *= 1.5
            seconds.append(0.005 * cost * math.exp(self.mood + self.rng.normal(0, self.luck)))
        return seconds


def measured(machine: Machine, visits: int = 20, *, seed: int = 0) -> Sample:
    """A sample of so many visits."""
    sample, rng = Sample(), random.Random(seed)
    for _ in range(visits):
        sample.visit("it", machine.visit, rng)
    return sample


def test_unchanged_code_passes_and_slower_code_does_not() -> None:
    """Power and false alarms of one look, before the second that a regression needs; 5% has to be seen."""
    verdict: dict[float, list[str]] = {0.0: [], 0.05: [], 0.1: []}
    for slower, found in verdict.items():
        for seed in range(100):
            sample = measured(Machine(seed, slower=slower, luck=0.05), 30)
            found.append(judge("it", BEFORE, sample).verdict)
    assert verdict[0.0].count("REGRESSION") == 0
    assert verdict[0.0].count("UNMEASURABLE") <= 5
    assert verdict[0.05].count("REGRESSION") >= 90
    assert verdict[0.1].count("REGRESSION") >= 99


def test_the_error_is_the_error() -> None:
    """The standard error of the trimmed mean covers the truth as often as it says, outliers or not."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        found = estimate(rng.standard_t(3, 20).tolist())
        covered += abs(found.log) < stats.t.ppf(0.975, 11) * found.error  # 20 visits less the 8 trimmed, less 1
    assert 0.92 <= covered / 400 <= 0.98


@pytest.mark.parametrize(
    ("machine", "reason"),
    [
        (Machine(0, deaf=True, luck=0.02), "planted slowdown"),
        (Machine(0, luck=1.5), "planted slowdown"),
        (Machine(0, luck=0.2), "error of the change"),
    ],
    ids=["a timer that sees no slowdown", "hopeless noise", "too much noise"],
)
def test_a_measurement_that_fails_its_own_check_says_nothing(machine: Machine, reason: str) -> None:
    finding = judge("it", BEFORE, measured(machine))
    assert finding.verdict == "UNMEASURABLE"
    assert reason in finding.advice


def test_the_same_code_that_differs_is_caught() -> None:
    """With the A/A arms in one fixed order, a slot that is slow makes a commit slower than itself."""

    class Fixed(random.Random):
        def sample(self, population: Any, k: int, *, counts: Any = None) -> list[Any]:  # noqa: ARG002
            return list(population)[:k]

    machine, sample = Machine(0, luck=0.02, first_is_slow=True), Sample()
    for _ in range(20):
        sample.visit("it", machine.visit, Fixed())
    finding = judge("it", BEFORE, sample)
    assert finding.verdict == "UNMEASURABLE"
    assert "timed twice" in finding.advice
    assert judge("it", BEFORE, measured(Machine(0, luck=0.02))).verdict == "PASS"


def test_faster_code_passes_with_a_word() -> None:
    finding = judge("it", BEFORE, measured(Machine(1, slower=-0.2, luck=0.03)))
    assert finding.verdict == "PASS"
    assert "--update" in finding.advice
    assert finding.numbers["change"] == pytest.approx(0.8, abs=0.03)


def test_too_few_visits_are_not_enough() -> None:
    finding = judge("it", BEFORE, measured(Machine(0, luck=0.01), LEAST_VISITS - 1))
    assert finding.verdict == "UNMEASURABLE"


# --- what is refused, by name ------------------------------------------------------------------------------------

FACTS = {
    "hw4": "/somewhere/hw4",
    "benchmarks": ["a", "b"],
    "timer": "process_time",
    "threads": 1,
    "traced": False,
    "xdist": None,
    "python": "3.11.7",
    "torch": "2.13.0",
    "cpu": "Vendor 1 2 AVX",
    "references": "r" * 64,
    "workloads": "w" * 64,
}
ROW = TimedBenchmark(log_ratio=0.0, error=0.003, visits=40)
STORED = TimingBaseline(
    commit=None,
    python="3.11.7",
    torch="2.13.0",
    references="r" * 64,
    workloads="w" * 64,
    benchmarks={"a": ROW, "b": ROW},
)


def worker_saying(**changes: object) -> Any:
    return SimpleNamespace(first=lambda: {**FACTS, **changes})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"timer": "perf_counter"}, "timer = 'perf_counter'"),
        ({"threads": 2}, "threads = 2"),
        ({"traced": True}, "traced = True"),
        ({"xdist": "gw0"}, "xdist = 'gw0'"),
        ({"benchmarks": []}, "no benchmarks"),
    ],
)
def test_a_process_that_measures_wrongly_is_refused(change: dict[str, object], named: str) -> None:
    assert run.fingerprint(worker_saying()).threads == 1
    with pytest.raises(UnmeasurableError, match=named):
        run.fingerprint(worker_saying(**change))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"cpu": "Vendor 1 3 AVX"}, "no baseline for this processor, 'Vendor 1 3 AVX'"),
        ({"torch": "2.14.0"}, "made with torch 2.13.0"),
        ({"python": "3.12.0"}, "made with python"),
        ({"references": "x" * 64}, "made with references"),
        ({"workloads": "x" * 64}, "made with workloads"),
        ({"benchmarks": ["a"]}, "no longer has 'b'"),
        ({"benchmarks": ["a", "b", "c"]}, "no benchmark 'c'"),
        ({"benchmarks": ["a", "renamed"]}, "'b'"),
    ],
)
def test_a_baseline_that_does_not_compare_is_refused(change: dict[str, object], named: str) -> None:
    stored = {"Vendor 1 2 AVX": STORED}
    assert run.check_baseline(stored, Fingerprint.model_validate(FACTS)) is STORED
    with pytest.raises(UnmeasurableError, match=named):
        run.check_baseline(stored, Fingerprint.model_validate({**FACTS, **change}))


def test_a_damaged_baseline_is_named(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    assert read_baseline(path) == Baseline()
    baseline = Baseline(timing={"cpu": STORED})
    write_baseline(path, baseline)
    assert read_baseline(path) == baseline
    path.write_text(path.read_text().replace('"visits": 40', '"visits": 0'))
    with pytest.raises(UnmeasurableError, match=r"baseline\.json .*visits"):
        read_baseline(path)


def test_the_committed_baseline_is_of_these_benchmarks() -> None:
    baseline = read_baseline(run.BASELINE)
    assert baseline.timing
    for stored in baseline.timing.values():
        assert set(stored.benchmarks) == set(WORKLOADS)
    assert len(baseline.accuracy["embedded"].runs) == 9
    text = {name: runs for name, runs in baseline.accuracy["embedded"].runs.items() if name.startswith("text")}
    assert sum(map(len, text.values())) == 60


# --- the processes that measure ----------------------------------------------------------------------------------


def test_a_worker_times_what_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")  # not inherited
    with Worker("benchmarks.gate_timing") as worker:
        facts = run.fingerprint(worker)
        assert facts.benchmarks == list(WORKLOADS)
        seconds = worker.visit("evaluation", ["reference", 0.0, 0.1])
    assert len(seconds) == 3
    assert all(0 < each < 60 for each in seconds)


def test_a_worker_under_xdist_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw3")
    with Worker("benchmarks.gate_timing") as worker, pytest.raises(UnmeasurableError, match="xdist = 'gw3'"):
        run.fingerprint(worker)


def test_a_worker_that_dies_says_why() -> None:
    with Worker("benchmarks.no_such_module") as worker, pytest.raises(UnmeasurableError, match="no_such_module"):
        worker.first()


def test_a_worker_that_hangs_is_ended() -> None:
    with Worker("timeit", "-n1", "-r1", "import time; time.sleep(60)") as worker:
        with pytest.raises(UnmeasurableError, match="no answer within"):
            worker.ask(seconds=0.5)
        assert worker._process.poll() is not None


def test_the_accuracy_worker_ends_with_a_gate_that_is_killed() -> None:
    """A killed gate cannot end its worker, which would go on training for a minute; its closed input tells it."""
    with Worker("benchmarks.gate_accuracy", "--data", "embedded") as worker:
        worker.first()
        assert worker._process.stdin is not None
        worker._process.stdin.close()
        assert worker._process.wait(20) == -signal.SIGKILL
        worker._process.stdin = None


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository of two commits in the place of this one."""
    root = tmp_path / "repository"
    (root / "benchmarks").mkdir(parents=True)
    (root / "benchmarks" / "gate_timing.py").touch()
    (root / "hw4").mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    for version in ("first", "second"):
        (root / "hw4" / "__init__.py").write_text(f"version = {version!r}\n")
        for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", version]):
            identity = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
            subprocess.run(["git", *identity, *arguments], cwd=root, check=True, timeout=60, env=environment)
    monkeypatch.setattr(workers, "ROOT", root)
    return root


def test_a_revision_is_checked_out_beside_and_cleared_away(repository: Path) -> None:
    (repository / "hw4" / "__init__.py").write_text("version = 'not committed'\n")
    with workers.worktree("HEAD~1") as package:
        assert (package / "hw4" / "__init__.py").read_text() == "version = 'first'\n"
        assert [path.name for path in package.iterdir()] == ["hw4"]
    assert not package.exists()
    assert (repository / "hw4" / "__init__.py").read_text() == "version = 'not committed'\n"
    listed = subprocess.run(["git", "worktree", "list"], cwd=repository, check=True, capture_output=True, timeout=60)
    assert len(listed.stdout.splitlines()) == 1
    with (
        pytest.raises(UnmeasurableError, match="'no-such-branch' cannot be checked out"),
        workers.worktree("no-such-branch"),
    ):
        pass


def test_without_a_checkout_the_gate_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "ROOT", tmp_path)
    (finding,) = run.run_gate(["timing"], data="embedded", say=lambda _: None)
    assert finding.verdict == "UNMEASURABLE"
    assert "needs a checkout" in finding.advice


# --- measuring, with processes made up ---------------------------------------------------------------------------


def fake_worker(machine: Machine) -> Any:
    return SimpleNamespace(
        first=lambda: FACTS, visit=machine.visit, __enter__=lambda self: self, __exit__=lambda *_: None
    )


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have the gate's workers be simulated machines, one after the other."""

    def install(*found: Machine) -> None:
        waiting = iter(found)

        class Fake:
            def __init__(self, *_: object, **__: object) -> None:
                machine = next(waiting)
                self.visit, self.first = machine.visit, lambda: FACTS

            def __enter__(self) -> "Fake":
                return self

            def __exit__(self, *_: object) -> None:
                pass

        monkeypatch.setattr(run, "Worker", Fake)
        monkeypatch.setattr(run, "PROCESSES", 1)
        monkeypatch.setattr(run, "random", SimpleNamespace(Random=lambda: random.Random(0)))  # red is red again

    return install


def test_a_slowdown_is_confirmed_in_a_second_process(machines: Callable[..., None]) -> None:
    baseline = {"Vendor 1 2 AVX": STORED}
    machines(Machine(0, slower=0.06, luck=0.02), Machine(1, slower=0.06, luck=0.02))
    findings, _ = run.time_against_baseline(baseline)
    assert [finding.verdict for finding in findings] == ["REGRESSION", "REGRESSION"]
    machines(Machine(0, slower=0.06, luck=0.02), Machine(1, luck=0.02))  # the second process sees nothing
    findings, _ = run.time_against_baseline(baseline)
    assert [finding.verdict for finding in findings] == ["PASS", "PASS"]


def test_visits_go_round_among_processes_that_agree(
    machines: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three processes of other luck each: the mean is what counts, and none is visited more than the others."""
    visited: list[int] = []

    class Lucky(Machine):
        def visit(self, benchmark: str, slices: list[Slice]) -> list[float]:
            visited.append(round(100 * self.slower))
            return super().visit(benchmark, slices)

    machines(*(Lucky(seed, slower=luck, luck=0.01) for seed, luck in enumerate((-0.03, 0.0, 0.03))))
    monkeypatch.setattr(run, "PROCESSES", 3)
    with run.Team() as team:
        assert team.first() == FACTS
        (samples,) = run.measure([team], ["a", "b"])
    assert samples["a"].now.log == pytest.approx(0, abs=0.01)
    counts = [visited.count(luck) for luck in (-3, 0, 3)]
    assert max(counts) - min(counts) <= 2
    machines(Machine(0), Machine(1))
    monkeypatch.setattr(run, "PROCESSES", 2)
    with run.Team() as team:
        monkeypatch.setattr(team._workers[1], "first", lambda: {**FACTS, "torch": "2.14.0"})
        with pytest.raises(UnmeasurableError, match="differ from one another"):
            team.first()


def test_a_baseline_is_measured_in_several_processes(machines: Callable[..., None]) -> None:
    machines(*(Machine(seed, slower=0.01 * seed, luck=0.02) for seed in range(run.BASELINE_MEASUREMENTS)))
    cpu, baseline = run.timing_baseline("abc")
    assert cpu == FACTS["cpu"]
    row = baseline.benchmarks["a"]
    assert row.log_ratio == pytest.approx(0.015, abs=0.01)
    assert row.error > 0.004  # the processes differ by 1% each, and the error knows


def test_no_baseline_is_made_of_a_bad_measurement(
    machines: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    machines(*(Machine(seed, deaf=True, luck=0.01) for seed in range(run.BASELINE_MEASUREMENTS)))
    monkeypatch.setattr(run, "SECONDS", 1)
    with pytest.raises(UnmeasurableError, match="no baseline was made"):
        run.timing_baseline(None)


# --- accuracies --------------------------------------------------------------------------------------------------


def outcomes(values: list[float | None], *, loss: float = 0.1, digest: str = "same") -> dict[str, Outcome]:
    """A group of runs with these accuracies; None has diverged."""
    return {
        f"seed{seed}": Outcome(
            digest=digest,
            test_accuracy=value,
            train_loss=None if value is None else loss * (1 + 0.01 * seed),
            diverged=value is None,
        )
        for seed, value in enumerate(values)
    }


GOOD: list[float | None] = [0.90, 0.91, 0.92, 0.90, 0.91, 0.92]


@pytest.mark.parametrize(
    ("now", "exact", "verdict"),
    [
        (outcomes(GOOD), True, "PASS"),
        (outcomes(GOOD, digest="other"), True, "CHANGED"),
        (outcomes(GOOD, digest="other"), False, "PASS"),
        (outcomes([0.88, 0.89, 0.89, 0.87, 0.88, 0.89], digest="other"), False, "REGRESSION"),
        (outcomes([0.94, 0.95, 0.97, 0.95, 0.96, 0.97], digest="other"), False, "SUSPICIOUS"),
        (outcomes(GOOD, loss=0.12, digest="other"), False, "REGRESSION"),
        (outcomes(GOOD, loss=0.08, digest="other"), False, "SUSPICIOUS"),
        (outcomes([None, *GOOD[1:]], digest="other"), False, "PASS"),
        (outcomes([None, None, *GOOD[2:]], digest="other"), False, "PASS"),
        (outcomes([None, None, None, *GOOD[3:]], digest="other"), False, "REGRESSION"),
        (outcomes([None] * 6, digest="other"), False, "REGRESSION"),
    ],
)
def test_outcomes_are_judged(now: dict[str, Outcome], exact: bool, verdict: str) -> None:
    (finding,) = accuracy.judge({"net": outcomes(GOOD)}, {"net": now}, exact=exact)
    assert finding.verdict == verdict


def test_fewer_diverged_runs_are_suspicious() -> None:
    before, now = outcomes([None, None, None, *GOOD]), outcomes([0.9, 0.9, 0.9, *GOOD])
    (finding,) = accuracy.judge({"net": before}, {"net": now}, exact=False)
    assert finding.verdict == "SUSPICIOUS"


def test_rounding_alone_hardly_ever_alarms() -> None:
    """Seeds move by two points either way, as other processors move them; eighteen tests at once."""
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(200):
        before = {str(net): outcomes(rng.normal(0.8, 0.02, 10).tolist()) for net in range(9)}
        now = {str(net): outcomes(rng.normal(0.8, 0.02, 10).tolist(), digest="other") for net in range(9)}
        alarms += any(finding.verdict != "PASS" for finding in accuracy.judge(before, now, exact=False))
    assert alarms <= 4


def test_runs_that_do_not_pair_are_named() -> None:
    before = {"net": outcomes(GOOD)}
    assert "'other' is only in this measurement" in accuracy.unlike(before, {**before, "other": outcomes(GOOD)})
    assert "seed5 is only in the baseline" in accuracy.unlike(before, {"net": outcomes(GOOD[:5])})
    assert "no runs" in accuracy.unlike({}, {})
    assert accuracy.unlike(before, before) == ""


@pytest.mark.parametrize(
    ("again", "faulty", "complaint"),
    [
        (outcomes(GOOD), outcomes(GOOD, digest="other"), ""),
        (outcomes(GOOD, digest="other"), outcomes(GOOD, digest="third"), "other numbers the second time"),
        (outcomes(GOOD), outcomes(GOOD), "was not seen"),
    ],
)
def test_the_accuracy_gate_tests_itself(
    again: dict[str, Outcome], faulty: dict[str, Outcome], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(_: str, *arguments: str) -> tuple[None, dict[str, dict[str, Outcome]]]:
        return None, {run.CHECKED_GROUP: faulty if "--fault" in arguments else again}

    monkeypatch.setattr(run, "train_outcomes", train)
    said = run.self_check("embedded", {run.CHECKED_GROUP: outcomes(GOOD)}, exact=True)
    assert complaint in said
    assert bool(said) == bool(complaint)


# --- one verdict, and how it is told -----------------------------------------------------------------------------


def finding(part: verdicts.Part, verdict: verdicts.Verdict) -> Finding:
    return Finding(part=part, what=f"{verdict} <&>", before="1", now="2", change="x 2", verdict=verdict, advice="do")


@pytest.mark.parametrize(
    ("found", "verdict", "code"),
    [
        ([("timing", "PASS"), ("accuracy", "PASS")], "PASS", 0),
        ([("timing", "PASS"), ("timing", "REGRESSION")], "REGRESSION", 1),
        ([("accuracy", "CHANGED")], "CHANGED", 1),
        ([("accuracy", "SUSPICIOUS"), ("timing", "PASS")], "SUSPICIOUS", 1),
        ([("timing", "PASS"), ("timing", "UNMEASURABLE")], "UNMEASURABLE", 3),
        ([("timing", "REGRESSION"), ("timing", "UNMEASURABLE")], "UNMEASURABLE", 3),
        ([("timing", "UNMEASURABLE"), ("accuracy", "REGRESSION")], "REGRESSION", 1),
        ([("timing", "NEW")], "UNMEASURABLE", 3),
        ([("timing", "NEW"), ("timing", "PASS")], "PASS", 0),
        ([], "UNMEASURABLE", 3),
    ],
)
def test_one_verdict_over_all(
    found: list[tuple[verdicts.Part, verdicts.Verdict]],
    verdict: str,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    findings = [finding(*each) for each in found]
    assert overall(findings) == verdict
    monkeypatch.setattr(run, "run_gate", lambda *_, **__: findings)
    result = CliRunner().invoke(cli.app, ["gate", "--out", str(tmp_path)], standalone_mode=False)
    assert result.return_value == code
    assert f"Verdict: {verdict}" in result.output
    document = json.loads((tmp_path / "gate.json").read_text())
    assert (document["verdict"], document["exit_code"], len(document["findings"])) == (verdict, code, len(found))


def test_junit_counts_what_it_holds() -> None:
    failing = [finding("timing", verdict) for verdict in verdicts.FAILING]
    every = [*failing, finding("timing", "PASS"), finding("timing", "UNMEASURABLE"), finding("accuracy", "NEW")]
    (suite,) = ET.fromstring(as_junit(every))
    assert [suite.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["6", "3", "1", "1"]
    assert len(suite.findall("testcase/failure")) == 3
    assert suite.find("testcase/failure").text == "do"  # type: ignore[union-attr]


def test_the_table_says_what_to_do() -> None:
    text = table([refusal("timing", "everything", "no baseline; do this"), finding("accuracy", "PASS")])
    assert "timing: everything" in text
    assert "no baseline; do this" in text
    assert len({line.index("UNMEASURABLE") for line in text.splitlines() if "UNMEASURABLE" in line}) == 1
    assert json.loads(as_json([], {"against": None}))["verdict"] == "UNMEASURABLE"


def test_update_keeps_the_baseline_when_nothing_can_be_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "baseline.json"
    monkeypatch.setattr(run, "BASELINE", path)

    def refuse(*_: object, **__: object) -> None:
        raise UnmeasurableError("too noisy here")

    monkeypatch.setattr(run, "timing_baseline", refuse)
    result = CliRunner().invoke(cli.app, ["gate", "--update", "--part", "timing"], standalone_mode=False)
    assert result.return_value == 3
    assert not path.exists()
    monkeypatch.setattr(run, "timing_baseline", lambda commit: ("cpu", STORED.model_copy(update={"commit": commit})))
    result = CliRunner().invoke(cli.app, ["gate", "--update", "--part", "timing"], standalone_mode=False)
    assert result.return_value == 0
    assert read_baseline(path).timing.keys() == {"cpu"}
    capsys.readouterr()


def test_update_and_against_do_not_go_together(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["hw4", "gate", "--update", "--against", "HEAD"])
    with pytest.raises(SystemExit) as exited:
        cli.main()
    assert exited.value.code == cli.USAGE
    assert "--against" in capsys.readouterr().err


# --- the references ----------------------------------------------------------------------------------------------


def test_references_are_frozen() -> None:
    """Every ratio kept anywhere is one to these files; who edits one starts all of them anew, on purpose."""
    assert {*FROZEN, "plain_homework.py"} == set(FROZEN_SHA256)
    for name, digest in FROZEN_SHA256.items():
        assert hashlib.sha256((ROOT / "benchmarks" / name).read_bytes()).hexdigest() == digest, name


@pytest.mark.parametrize(("norm", "downsample"), [(None, "pool"), ("batch", "pool"), (None, "stride")])
def test_the_frozen_convnet_computes_the_same(norm: Any, downsample: Any) -> None:
    """Same work or no reference: to the last bit, or within rounding once hw4 sums in another order."""
    torch.manual_seed(0)
    today, frozen = ConvNet(norm, downsample), FrozenConvNet(norm, downsample)
    frozen.load_state_dict(today.state_dict())
    x, y = torch.randn(64, 1, 28, 28), torch.randint(10, (64,))

    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(1)

    settings: dict[str, Any] = {"learning_rate": 0.04, "batch_size": 16}
    a, b = (
        step(net, x, y, generator=generator(), **settings) for step, net in ((train_pass, today), (frozen_pass, frozen))
    )
    assert a == pytest.approx(b, rel=1e-5)
    torch.testing.assert_close(
        full_gradient(today, x, y), frozen_gradient(deepcopy(frozen), x, y), rtol=1e-3, atol=1e-5
    )
    reading = measure_smoothness(today, x, y, generator=generator(), **settings)
    then = frozen_reading(frozen, x, y, generator=generator(), **settings)
    assert reading.smoothness == pytest.approx(then, rel=1e-2)
    found = evaluate(today, x, y)
    assert (found.loss, found.accuracy) == pytest.approx(frozen_scores(frozen, x, y), rel=1e-5)


@pytest.mark.parametrize("stride", [1, 5, 10])
def test_the_frozen_ensemble_computes_the_same(stride: int) -> None:
    today, frozen = TextCNNEnsemble.from_models([TextCNN(stride) for _ in range(3)]), FrozenEnsemble(stride, 3)
    with torch.no_grad():
        for parameter, value in zip(today.parameters(), (frozen.conv, frozen.weight, frozen.bias), strict=True):
            parameter.copy_(value)
    x, y = torch.randn(64, 1, 96), torch.randint(6, (64,))

    def generators() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in range(3)]

    train_ensemble(today, x, y, learning_rate=0.01, momentum=0.8, batch_size=32, epochs=1, generators=generators())
    assert frozen.epoch(x, y, learning_rate=0.01, batch_size=32, generators=generators())
    for parameter, value in zip(today.parameters(), (frozen.conv, frozen.weight, frozen.bias), strict=True):
        torch.testing.assert_close(parameter.detach(), value, rtol=1e-4, atol=1e-6)


# --- pytest benchmarks fails closed ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("--numprocesses=2", "pytest-xdist is active"),
        ("--benchmark-disable", "--benchmark-disable times nothing"),
        ("--benchmark-skip", "--benchmark-skip times nothing"),
        ("--benchmark-compare-fail=min:5%", "'hw4 gate' judges"),
        ("--benchmark-compare=7777", "no saved run begins with '7777'"),
    ],
)
def test_benchmarks_refuse_what_times_nothing(option: str, sentence: str, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", str(ROOT / "benchmarks"), "-k", "evaluation", option],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode not in (0, 5)
    assert sentence in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("timed", "keyword", "fails"),
    [(list(WORKLOADS), "", False), (list(WORKLOADS)[1:], "", True), ([], "", True), ([], "evaluation", False)],
)
def test_a_whole_run_must_time_every_workload(timed: list[str], keyword: str, fails: bool) -> None:
    stash = pytest.Stash()
    stash[benchmark_rules._TIMED] = timed
    option = SimpleNamespace(
        keyword=keyword, markexpr="", deselect=None, lf=False, ignore=None, ignore_glob=None, collectonly=False
    )
    config = SimpleNamespace(args=[str(ROOT / "benchmarks")], option=option, stash=stash)
    session: Any = SimpleNamespace(config=config, exitstatus=0)
    benchmark_rules.pytest_sessionfinish(session, 0)
    assert (session.exitstatus != 0) == fails

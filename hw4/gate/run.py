"""Running the gate: start the workers, measure until the errors are small, judge, and keep baselines."""

import contextlib
import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from hw4.gate import accuracy
from hw4.gate.baseline import (
    AccuracyBaseline,
    Baseline,
    Fingerprint,
    Outcome,
    TimedBenchmark,
    TimingBaseline,
    read_baseline,
)
from hw4.gate.timing import Estimate, Sample, Slice, judge, wanted
from hw4.gate.verdicts import Finding, Part, UnmeasurableError, Verdict, refusal
from hw4.gate.workers import ROOT, Worker, checkout, worktree

BASELINE = ROOT / "benchmarks" / "baseline.json"
SECONDS, CONFIRMING_SECONDS = 32, 20
"""Longest times for measuring all benchmarks once, and again for confirming what looks slower."""
TRAINING_SECONDS = 900
"""Longest wait for a group of runs: real data on a slow machine."""
PROCESSES = 3
"""Processes that a measurement visits in turn: each has its own luck with its memory's layout, up to 1% of a time."""
BASELINE_MEASUREMENTS = 4
DOING: dict[Part, str] = {
    "timing": "Timing slices of the benchmarks beside their frozen references",
    "accuracy": "Training the ConvNets and the text models",
}
TIMER = "process_time"

Samples = dict[str, Sample]


class Team:
    """Several timing processes of one source tree, each benchmark's visits going round among them."""

    def __init__(self, package: Path | None = None) -> None:
        self._package, self._stack, self._workers = package, contextlib.ExitStack(), list[Worker]()
        self._turns: dict[str, int] = {}

    def __enter__(self) -> Self:
        for _ in range(PROCESSES):  # all start at once
            self._workers.append(self._stack.enter_context(Worker("benchmarks.gate_timing", package=self._package)))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def first(self) -> dict[str, object]:
        """What every process says of itself first; raises UnmeasurableError when they do not agree."""
        first, *others = (worker.first() for worker in self._workers)
        if any(other != first for other in others):
            raise UnmeasurableError("the processes that measure differ from one another; nothing may change meanwhile")
        return first

    def visit(self, benchmark: str, slices: list[Slice]) -> list[float]:
        """Time slices of a benchmark in the process whose turn it is."""
        turn = self._turns[benchmark] = self._turns.get(benchmark, -1) + 1
        return self._workers[turn % len(self._workers)].visit(benchmark, slices)


def measure(
    workers: Sequence[Team],
    benchmarks: Sequence[str],
    *,
    seconds: float | None = None,
    samples: Sequence[Samples] | None = None,
    slower: Mapping[str, float] | None = None,
) -> list[Samples]:
    """Visit the benchmarks, in random order and with the workers in turn, until every sample is precise.

    ``samples``, one for each worker, are added to. ``slower`` plants slowdowns into the last worker's code.
    """
    rng = random.Random()  # an order that is the same on every run could favour one arm on every run
    taken = list(samples) if samples else [{name: Sample() for name in benchmarks} for _ in workers]
    end = time.monotonic() + (SECONDS if seconds is None else seconds)
    todo = list(benchmarks)
    while todo and time.monotonic() < end:
        for name in rng.sample(todo, len(todo)):
            for index in rng.sample(range(len(workers)), len(workers)):
                share = (slower or {}).get(name, 0.0) if index == len(workers) - 1 else 0.0
                taken[index][name].visit(name, workers[index].visit, rng, share)
        todo = wanted((name, each[name]) for each in taken for name in todo)
        todo = list(dict.fromkeys(todo))
    return taken


def fingerprint(worker: Worker | Team) -> Fingerprint:
    """Who measures, and how; raises UnmeasurableError unless it does so as it must."""
    facts = Fingerprint.model_validate(worker.first())
    for name, expected in (("timer", TIMER), ("threads", 1), ("traced", False), ("xdist", None)):
        if getattr(facts, name) != expected:
            raise UnmeasurableError(
                f"the process that measures has {name} = {getattr(facts, name)!r}, but {expected!r} is needed; run "
                f"'hw4 gate' by itself, outside of pytest, debuggers and coverage"
            )
    if not facts.benchmarks:
        raise UnmeasurableError("there are no benchmarks to time; restore benchmarks/workloads.py")
    return facts


def check_baseline(baseline: Mapping[str, TimingBaseline], facts: Fingerprint) -> TimingBaseline:
    """The baseline for this process; raises UnmeasurableError, by name, when there is none that it compares with."""
    way_out = "make one here with 'hw4 gate --update', or compare with another commit by 'hw4 gate --against REV'"
    cpu = facts.cpu
    if cpu not in baseline:
        known = ", ".join(f"'{name}'" for name in baseline) or "no processor"
        raise UnmeasurableError(f"there is no baseline for this processor, '{cpu}', only for {known}; {way_out}")
    stored = baseline[cpu]
    for name in ("torch", "python", "references", "workloads"):
        then, now = getattr(stored, name), getattr(facts, name)
        if then != now:
            raise UnmeasurableError(
                f"the baseline was made with {name} {then:.12}, this is {now:.12}, and their ratios do not compare; "
                f"{way_out}"
            )
    for name in sorted(set(stored.benchmarks) ^ set(facts.benchmarks)):
        where = "the baseline has no benchmark" if name in facts.benchmarks else "benchmarks/workloads.py no longer has"
        raise UnmeasurableError(f"{where} {name!r}: missing, renamed and new benchmarks need 'hw4 gate --update'")
    return stored


def time_against_baseline(
    baseline: Mapping[str, TimingBaseline], *, slower: Mapping[str, float] | None = None
) -> tuple[list[Finding], Fingerprint]:
    """Judge today's code by the stored ratios; returns findings and the fingerprint. ``slower`` plants slowdowns."""
    with Team() as worker:
        facts = fingerprint(worker)
        before = {name: row.estimate for name, row in check_baseline(baseline, facts).benchmarks.items()}
        (samples,) = measure([worker], list(before), slower=slower)
    suspects = _suspects(before, samples)
    if suspects:  # again, in processes of its own: memory laid out otherwise, another moment
        with Team() as worker:
            fingerprint(worker)
            (again,) = measure([worker], suspects, seconds=CONFIRMING_SECONDS, slower=slower)
        _pool(samples, again, before)
    return [judge(name, before[name], sample) for name, sample in samples.items()], facts


def timing_baseline(commit: str | None) -> tuple[str, TimingBaseline]:
    """Measure a baseline several times, in new processes each; returns the processor's class and it.

    Raises UnmeasurableError when a measurement fails its own check.
    """
    found: list[Samples] = []
    for _ in range(BASELINE_MEASUREMENTS):
        with Team() as worker:
            facts = fingerprint(worker)
            found += measure([worker], facts.benchmarks)
    rows = {}
    for name in facts.benchmarks:
        samples = [samples[name] for samples in found]
        problem = next((sample.self_check for sample in samples if sample.self_check), "")
        if problem:
            raise UnmeasurableError(
                f"no baseline was made, for at {name} {problem}; run again when less runs beside it"
            )
        estimates = [sample.now for sample in samples]
        error = math.sqrt(sum(each.error**2 for each in estimates)) / len(estimates)
        spread = statistics.stdev(each.log for each in estimates) / math.sqrt(len(estimates))
        rows[name] = TimedBenchmark(
            log_ratio=statistics.fmean(each.log for each in estimates),
            error=max(error, spread),
            visits=sum(len(sample.ratios) for sample in samples),
        )
    return facts.cpu, TimingBaseline(
        commit=commit,
        python=facts.python,
        torch=facts.torch,
        references=facts.references,
        workloads=facts.workloads,
        benchmarks=rows,
    )


def time_against_revision(revision: str) -> tuple[list[Finding], Fingerprint]:
    """Judge today's code by a revision's, both measured now, in alternation; returns findings and the fingerprint."""
    with worktree(revision) as package, contextlib.ExitStack() as stack:

        def start() -> list[Team]:
            return [stack.enter_context(Team(package)), stack.enter_context(Team())]

        workers = start()
        _, facts = (fingerprint(worker) for worker in workers)
        names = facts.benchmarks
        then, now = measure(workers, names, seconds=2 * SECONDS)
        suspects = _suspects({name: sample.now for name, sample in then.items()}, now)
        if suspects:
            for worker in (again := start()):
                fingerprint(worker)
            then_again, now_again = measure(again, suspects, seconds=2 * CONFIRMING_SECONDS)
            for name in suspects:
                for sample, more in ((then[name], then_again[name]), (now[name], now_again[name])):
                    _extend(sample, more)
    findings = []
    for name in names:
        problem = then[name].self_check
        findings.append(
            refusal("timing", name, f"{problem}, at {revision}; run again")
            if problem
            else judge(name, then[name].now, now[name])
        )
    return findings, facts


def _suspects(before: Mapping[str, Estimate], samples: Samples) -> list[str]:
    """Benchmarks that look slower, once."""
    return [name for name, sample in samples.items() if sample.now.minus(before[name]).slower]


def _pool(samples: Samples, again: Samples, before: Mapping[str, Estimate]) -> None:
    """Add a second measurement; one that does not repeat the slowdown on its own takes the first one's place."""
    for name, more in again.items():
        if more.now.minus(before[name]).slower or more.self_check:
            _extend(samples[name], more)
        else:
            samples[name] = more


def _extend(sample: Sample, more: Sample) -> None:
    sample.ratios += more.ratios
    sample.same += more.same
    sample.planted += more.planted


Runs = dict[str, dict[str, Outcome]]
CHECKED_GROUP, CHECKED_FAULT = "text CNN, stride 5", "shuffled-labels"
"""What the accuracy gate tests itself on: a group that trains in a second, and a fault that it must see there."""


def train_outcomes(data: str, *arguments: str, package: Path | None = None) -> tuple[AccuracyBaseline, Runs]:
    """Train everything, or what the worker's further arguments ask for; returns where it was trained, and outcomes."""
    with Worker("benchmarks.gate_accuracy", "--data", data, *arguments, package=package) as worker:
        facts = worker.first()
        where = AccuracyBaseline.model_validate(
            {**{name: value for name, value in facts.items() if name != "hw4"}, "commit": None, "runs": {}}
        )
        runs: Runs = {}
        while True:
            line = worker.ask(seconds=TRAINING_SECONDS)
            assert isinstance(line, dict)
            if line["group"] is None:
                return where, runs
            runs[line["group"]] = {key: Outcome.model_validate(run) for key, run in line["runs"].items()}


def self_check(data: str, runs: Runs, *, exact: bool) -> str:
    """Train a group again, and with a fault: what is wrong with the measurement itself, in words, or nothing."""
    group = {CHECKED_GROUP: runs[CHECKED_GROUP]}
    _, again = train_outcomes(data, "--group", CHECKED_GROUP)
    if again != group:
        return f"the same code gave other numbers the second time ({CHECKED_GROUP})"
    _, faulty = train_outcomes(data, "--group", CHECKED_GROUP, "--fault", CHECKED_FAULT)
    (finding,) = accuracy.judge(group, faulty, exact=exact)
    return f"a planted fault, {CHECKED_FAULT}, was not seen" if finding.verdict == "PASS" else ""


def train_against_baseline(baseline: Mapping[str, AccuracyBaseline], data: str) -> list[Finding]:
    """Judge today's code by the stored outcomes."""
    if data not in baseline:
        raise UnmeasurableError(f"there is no accuracy baseline for {data} data; make one with 'hw4 gate --update'")
    stored = baseline[data]
    where, now = train_outcomes(data)
    exact = all(getattr(stored, name) == getattr(where, name) for name in ("versions", "cpu", "threads"))
    return _judge_outcomes(data, stored.runs, now, exact=exact)


def train_against_revision(revision: str, data: str) -> list[Finding]:
    """Judge today's code by a revision's, both trained here."""
    with worktree(revision) as package:
        _, then = train_outcomes(data, package=package)
    _, now = train_outcomes(data)
    return _judge_outcomes(data, then, now, exact=False)


def _judge_outcomes(data: str, before: Runs, now: Runs, *, exact: bool) -> list[Finding]:
    """Judge, once the gate has seen that it can."""
    problem = accuracy.unlike(before, now)
    if problem:
        raise UnmeasurableError(f"{problem}, so there is nothing to compare; 'hw4 gate --update' makes a new baseline")
    problem = self_check(data, now, exact=exact)
    if problem:
        raise UnmeasurableError(f"{problem}; the accuracies mean nothing until that is understood")
    return accuracy.judge(before, now, exact=exact)


def run_gate(
    parts: Sequence[Part], *, data: str, against: str | None = None, say: Callable[[str], None] = print
) -> list[Finding]:
    """Judge today's code part by part, by the committed baseline or by a revision."""
    findings: list[Finding] = []
    for part in parts:
        say(f"{DOING[part]} ...")
        try:
            checkout()
            baseline = Baseline() if against else read_baseline(BASELINE)
            if part == "timing":
                timed = time_against_revision(against) if against else time_against_baseline(baseline.timing)
                findings += timed[0]
            elif against:
                findings += train_against_revision(against, data)
            else:
                findings += train_against_baseline(baseline.accuracy, data)
        except UnmeasurableError as error:
            findings.append(refusal(part, "everything", str(error)))
    return findings


def propose_baseline(
    parts: Sequence[Part], *, data: str, commit: str | None, say: Callable[[str], None] = print
) -> tuple[Baseline, list[Finding]]:
    """A new baseline with these parts measured here and now, and what it changes; raises UnmeasurableError."""
    old = read_baseline(BASELINE)
    timing, outcomes, findings = dict(old.timing), dict(old.accuracy), []
    for part in parts:
        say(f"{DOING[part]} for a baseline ...")
        if part == "timing":
            cpu, measured = timing_baseline(commit)
            known = old.timing[cpu].benchmarks if cpu in old.timing else {}
            timing[cpu] = measured
            for name in dict.fromkeys([*known, *measured.benchmarks]):
                findings.append(_difference(name, known.get(name), measured.benchmarks.get(name)))
        else:
            where, runs = train_outcomes(data)
            problem = self_check(data, runs, exact=True)
            if problem:
                raise UnmeasurableError(f"no baseline was made, for {problem}")
            before = old.accuracy[data].runs if data in old.accuracy else {}
            outcomes[data] = where.model_copy(update={"commit": commit, "runs": runs})
            if before and not accuracy.unlike(before, runs):
                findings += accuracy.judge(before, runs, exact=True)
            else:
                findings += [
                    Finding(
                        part="accuracy",
                        what=name,
                        before="-",
                        now=accuracy.words(runs[name]),
                        change="-",
                        verdict="NEW",
                    )
                    for name in runs
                ]
    return Baseline(timing=timing, accuracy=outcomes), findings


def _difference(name: str, old: TimedBenchmark | None, new: TimedBenchmark | None) -> Finding:
    """How a benchmark's stored ratio changes."""
    before, now = (f"{row.estimate.ratio:.3f}" if row else "-" for row in (old, new))
    change = new.estimate.minus(old.estimate) if old and new else None
    verdict: Verdict = "NEW" if change is None else "REGRESSION" if change.slower else "PASS"
    return Finding(
        part="timing", what=name, before=before, now=now, change=f"x {change}" if change else "-", verdict=verdict
    )

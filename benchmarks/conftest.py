"""Ratios of plain to fast code, taken side by side, and the options and the ending of the stride sweep.

For a ratio the plain code runs right before and right after each round of the fast code.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from hw4.data.vectors import choose_questions, load_questions
from hw4.records import Store, TextCNNRecord
from hw4.report.page import write_sweep_report
from hw4.specs import STRIDES, TRIALS, QuestionSet, TextCNNSpec, sweep_specs
from hw4.sweep import sweep_and_rescue


class Compare(Protocol):
    """Time two ways of doing the same and return how many times faster the second is."""

    def __call__(self, plain: Callable[[], object], fast: Callable[[], object], *, rounds: int) -> float: ...


_RATIOS: dict[str, str] = {}


def report_ratio(name: str, ratio: str, plain: float, fast: float) -> None:
    """Put a ratio into the table printed at the end, with the seconds it came from."""
    _RATIOS[name] = f"{ratio}   plain {plain:7.3f} s   fast {fast:7.3f} s"


@pytest.fixture
def compare(benchmark: BenchmarkFixture, request: pytest.FixtureRequest) -> Compare:
    """Time ``fast`` as the benchmark with ``plain`` before and after every round; returns the median ratio.

    Both are timed in processor seconds of one thread. A neighbour that slows one round down slows its own
    reference down as well, so ratios hold where times do not. The benchmark's marker names the same timer.
    """

    def run(plain: Callable[[], object], fast: Callable[[], object], *, rounds: int) -> float:
        before: list[float] = []
        after: list[float] = []

        def timed(into: list[float]) -> Callable[[], None]:
            def reference() -> None:
                start = time.process_time()
                plain()
                into.append(time.process_time() - start)

            return reference

        benchmark.pedantic(  # type: ignore[no-untyped-call]
            fast, setup=timed(before), teardown=timed(after), rounds=rounds, warmup_rounds=1
        )
        assert benchmark.stats is not None, "pytest-benchmark is disabled (xdist?), so nothing was timed"
        fast_seconds = np.array(benchmark.stats.stats.data)
        plain_seconds = (np.array(before[-rounds:]) + np.array(after[-rounds:])) / 2
        ratios = plain_seconds / fast_seconds
        resampled = np.random.default_rng(0).choice(ratios, (2000, rounds))
        low, high = np.percentile(np.median(resampled, axis=1), (2.5, 97.5))
        ratio = float(np.median(ratios))
        benchmark.extra_info.update(
            ratio=ratio, low=float(low), high=float(high), plain=float(np.median(plain_seconds))
        )
        times = float(np.median(plain_seconds)), float(np.median(fast_seconds))
        report_ratio(request.node.name, f"{ratio:5.2f} x faster [{low:.2f}, {high:.2f}]", *times)
        return ratio

    return run


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of ``benchmarks/sweep.py``."""
    group = parser.getgroup("sweep", "stride sweep (benchmarks/sweep.py)")
    group.addoption("--sweep-data", choices=("auto", "embedded", "real"), default="auto", help="questions to train on")
    group.addoption("--sweep-out", metavar="DIR", type=Path, help="folder for records and chart [reports/DATA]")
    group.addoption("--sweep-stride", metavar="N", type=int, action="append", help="a stride; repeat for several")
    group.addoption("--sweep-trials", metavar="N", type=int, default=TRIALS, help="models of each stride")
    group.addoption("--sweep-epochs", metavar="N", type=int, default=50, help="rounds through the questions")
    group.addoption("--sweep-learning-rate", metavar="X", type=float, default=0.1, help="learning rate of SGD")
    group.addoption("--sweep-momentum", metavar="X", type=float, default=0.8, help="momentum of SGD")


def sweep_data(config: pytest.Config) -> QuestionSet:
    """The question set asked for."""
    return choose_questions(config.getoption("--sweep-data"))[0]


def wanted_specs(config: pytest.Config) -> tuple[TextCNNSpec, ...]:
    """Every trial asked for."""
    return sweep_specs(
        sweep_data(config), strides=config.getoption("--sweep-stride") or STRIDES,
        trials=config.getoption("--sweep-trials"), epochs=config.getoption("--sweep-epochs"),
        learning_rate=config.getoption("--sweep-learning-rate"), momentum=config.getoption("--sweep-momentum"),
    )  # fmt: skip


def sweep_store(config: pytest.Config) -> Store[TextCNNRecord]:
    """Where the records lie."""
    folder = config.getoption("--sweep-out") or config.rootpath / "reports" / sweep_data(config)
    return Store(folder / "records", TextCNNRecord)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Draw the sweep's chart from the records on disk, in the controlling process, once every worker has ended."""
    config = session.config
    asked = [Path(argument.partition("::")[0]).name for argument in config.args]
    if "sweep.py" not in asked or hasattr(config, "workerinput") or config.option.collectonly:
        return
    specs, store = wanted_specs(config), sweep_store(config)
    absent = [spec.key for spec in specs if not store.path(spec.key).exists()]
    if exitstatus != pytest.ExitCode.OK or absent:
        print(
            f"\nNo chart: {len(absent)} of {len(specs)} records are absent{f', {absent[0]} first' if absent else ''}."
        )
        return
    records = sweep_and_rescue(specs, load_questions(sweep_data(config)), store, processes=os.cpu_count() or 1)
    print(f"\nReport: {write_sweep_report(records, store.folder.parent)}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table of ratios."""
    if _RATIOS:
        terminalreporter.section("plain against fast: median ratio of paired rounds in processor time [95% bootstrap]")
        width = max(map(len, _RATIOS))
        for name, line in _RATIOS.items():
            terminalreporter.write_line(f"{name:{width}} {line}")

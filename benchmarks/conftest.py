"""Ratios of plain to fast code, taken side by side: the plain code runs right before and right after each round."""

import time
from collections.abc import Callable
from typing import Protocol

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture


class Compare(Protocol):
    """Time two ways of doing the same and return how many times faster the second is."""

    def __call__(self, plain: Callable[[], object], fast: Callable[[], object], *, rounds: int) -> float: ...


_RATIOS: dict[str, str] = {}


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
        _RATIOS[request.node.name] = (
            f"{ratio:5.2f} x faster [{low:.2f}, {high:.2f}]   plain {np.median(plain_seconds):7.3f} s   "
            f"fast {np.median(fast_seconds):7.3f} s"
        )
        return ratio

    return run


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table of ratios."""
    if _RATIOS:
        terminalreporter.section("processor time, plain against fast: median ratio of paired rounds [95% bootstrap]")
        width = max(map(len, _RATIOS))
        for name, line in _RATIOS.items():
            terminalreporter.write_line(f"{name:{width}} {line}")

"""Every workload at the homework's size, against plain PyTorch."""

from collections.abc import Callable
from functools import partial
from itertools import count

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.conftest import TIMED, TIMER, report_ratio
from benchmarks.workloads import WORKLOADS

ROUNDS = 7
"""Least number whose bootstrap interval of a median leaves out single bad rounds at either end."""


@pytest.fixture(scope="session")
def peak() -> float:
    """Multiply-adds per processor second of this machine's fastest matrix product, one thread: 1024 x 1024 float32.

    torch carries two libraries for it, and which is the faster depends on the processor: here MKL, which does not use
    all of another maker's vector units, and oneDNN, which convolutions use.
    """
    n = 1024
    a, b = torch.randn(n, n), torch.randn(n, n)
    packed = a.to_mkldnn(), b.to_mkldnn()
    products = [partial(torch.mm, a, b), partial(torch.nn.functional.linear, *packed)]
    for product in products:
        product()
    return n**3 / min(seconds(product) for product in products for _ in range(15))


def seconds(work: Callable[[], object]) -> float:
    start = TIMER()
    work()
    return TIMER() - start


@pytest.mark.benchmark(timer=TIMER)
@pytest.mark.parametrize("name", WORKLOADS)
def test_workload(benchmark: BenchmarkFixture, request: pytest.FixtureRequest, peak: float, name: str) -> None:
    """Time a workload's target as the benchmark, in processor seconds of one thread, beside its reference.

    A neighbour that slows one round down slows its own reference down as well, so ratios hold where times do not. The
    reference runs once a round, in turn before and after, so that a machine that slows down favours neither; rounds
    share no reference, so that the interval, which takes their ratios to be independent, may do so.
    ``extra_info`` gets the median ratio of paired rounds with a 95% bootstrap interval, what was computed, and how
    fast: per second, and as a share of the peak of this machine's own matrix product.
    """
    workload, references, turns = WORKLOADS[name]("whole"), list[float](), count()

    def reference() -> None:
        if next(turns) % 4 in (0, 3):  # before one round, after the next
            references.append(seconds(workload.reference))

    benchmark.group = workload.group
    benchmark.pedantic(  # type: ignore[no-untyped-call]
        workload.target, rounds=ROUNDS, warmup_rounds=1, setup=reference, teardown=reference
    )
    if benchmark.stats is None or benchmark._timer is not TIMER:
        pytest.fail("nothing was timed, or not in processor time, so there is no benchmark")
    fast = np.array(benchmark.stats.stats.data)
    plain = np.array(references[1 : ROUNDS + 1])  # the first is the warm-up's
    resampled = np.random.default_rng(0).choice(plain / fast, (2000, ROUNDS))
    low, high = np.percentile(np.median(resampled, axis=1), (2.5, 97.5)).tolist()
    ratio, plain_seconds, fast_seconds = (float(np.median(each)) for each in (plain / fast, plain, fast))
    benchmark.extra_info.update(
        {
            "ratio": ratio,
            "low": low,
            "high": high,
            "plain_seconds": plain_seconds,
            "parameters": workload.parameters,
            "multiply_adds": workload.multiply_adds,
            f"{workload.unit}_per_second": workload.examples / fast_seconds,
            "peak_fraction": workload.multiply_adds / fast_seconds / peak,
        }
    )
    report_ratio(request.node.name, f"{ratio:5.2f} x faster [{low:.2f}, {high:.2f}]", plain_seconds, fast_seconds)
    request.config.stash.setdefault(TIMED, []).append(name)

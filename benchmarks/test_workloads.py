"""Every workload at the homework's size, against plain PyTorch."""

import time

import pytest

from benchmarks.conftest import Compare
from benchmarks.workloads import WORKLOADS

ROUNDS = 7
"""Least number whose bootstrap interval of a median leaves out single bad rounds at either end."""


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("name", WORKLOADS)
def test_workload(compare: Compare, name: str) -> None:
    compare(WORKLOADS[name]("whole"), rounds=ROUNDS)

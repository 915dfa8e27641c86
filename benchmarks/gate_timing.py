"""What hw4 gates of its own times: slices of the workloads, each beside its frozen reference.

``hw4 gate`` runs this; ``pytest benchmarks/gate_timing.py`` does too.
"""

import time
from collections.abc import Callable

import pytest
import torch

from benchmarks.workloads import WORKLOADS
from hw4.plugin import Gate

PLANTED: dict[str, float] = {}
"""Slowdowns that the gate's own validation writes in here, to see whether they are seen."""


def slowed(work: Callable[[], object], share: float) -> Callable[[], object]:
    """The same work, made longer by a share of the processor time that each call of it takes."""

    def slower() -> object:
        start = time.process_time()
        result = work()
        end = start + (time.process_time() - start) * (1 + share)
        while time.process_time() < end:
            pass
        return result

    return slower if share else work


@pytest.mark.parametrize("name", WORKLOADS)
def test_time(gate: Gate, name: str) -> None:
    torch.set_num_threads(1)
    workload = WORKLOADS[name]("slice")
    gate.time(slowed(workload.target, PLANTED.get(name, 0.0)), beside=workload.reference, name=name)

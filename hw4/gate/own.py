"""The gate's way of timing, for any two callables of yours: in one process, in random order, on processor time."""

import random
import time
from collections.abc import Callable

import numpy as np

from hw4.gate.timing import Sample, Slice

SHORTEST_SECONDS = 0.001
"""Shorter calls than this are lost in what it takes to read the clock, and are repeated until they last as long."""


def time_beside(target: Callable[[], object], reference: Callable[[], object], *, seconds: float = 20.0) -> Sample:
    """Time ``target`` between calls of ``reference`` until the ratio is precise, for at most so many seconds.

    Both must do the same kind of work, some milliseconds long, on one thread; set OMP_NUM_THREADS=1 before torch or
    numpy loads. The sample holds the ratio (``now``), the same code timed twice and a planted slowdown of 10%;
    :func:`hw4.gate.timing.judge` compares it with an earlier ratio, or refuses when it cannot be trusted.
    """
    repeats = {}
    for work in (target, reference):
        work()
        repeats[work] = max(1, round(SHORTEST_SECONDS / max(_seconds(work, 1, 0.0), 1e-9)))

    def visit(_name: str, slices: list[Slice]) -> list[float]:
        return [
            _seconds(reference, repeats[reference], 0.0)
            if isinstance(piece, str)
            else _seconds(target, repeats[target], piece)
            for piece in slices
        ]

    sample, rng, end = Sample(), random.Random(), time.monotonic() + seconds
    while not (len(sample.ratios) > 1 and sample.precise) and time.monotonic() < end:
        sample.visit("it", visit, rng)
    shift = float(np.log(repeats[reference] / repeats[target]))
    sample.ratios = [each + shift for each in sample.ratios]  # of one call to one call
    return sample


def _seconds(work: Callable[[], object], repeats: int, slower: float) -> float:
    """Processor seconds of so many calls, made longer by a share that is spun away within what is timed."""
    start = time.process_time()
    for _ in range(repeats):
        work()
    taken = time.process_time() - start
    while slower and time.process_time() - start < taken * (1 + slower):
        pass
    return time.process_time() - start if slower else taken

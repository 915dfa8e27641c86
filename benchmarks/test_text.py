"""The 60 models of exercise 2 against a plain loop, each spread over the same two processes, in wall-clock time."""

import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed, wait
from itertools import product
from pathlib import Path

import pytest

from benchmarks.conftest import report_ratio
from benchmarks.plain_text import plain_trial
from hw4.data.choose import choose_data
from hw4.data.images import Data
from hw4.data.vectors import load_questions
from hw4.records import QuestionIdentity, Store, TextCNNRecord
from hw4.runs import Task, make
from hw4.specs import STRIDES, TRIALS, TextCNNSpec, groups, sweep_specs
from hw4.sweep import identity

PROCESSES, EPOCHS, LEARNING_RATE = 2, 50, 0.05
PLAIN_TRIALS = PROCESSES
"""Plain models of each stride, one for each process; all of a stride do the same operations, whatever their seeds."""


def task(specs: Sequence[TextCNNSpec], questions: Data) -> tuple[Task, tuple[Data, QuestionIdentity]]:
    """Trials that train together, and their questions."""
    return Task(tuple(specs), Path(), "cpu"), (questions, identity(questions))


def warm(pool: Executor, questions: Data) -> None:
    """Have every process import torch and train a little before the clock starts."""
    specs = sweep_specs(questions.name, strides=[500], trials=1, epochs=1)
    for future in [pool.submit(make, *task(specs, questions)) for _ in range(8 * PROCESSES)]:
        future.result()


def test_sweep_of_60_models(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """At 0.05 all 60 train to the end; at the homework's 0.1 hw4 would win by stopping trials of stride 1 as lost.

    Of the plain models a fifth is trained, and its time multiplied: all of them take four minutes more.
    """
    questions = load_questions(choose_data("auto", images=False, questions=True)[1])
    specs = sweep_specs(questions.name, epochs=EPOCHS, learning_rate=LEARNING_RATE)
    assert len(specs) == len(STRIDES) * TRIALS == 60
    tasks, store = [task(group, questions) for group in groups(specs)], Store(tmp_path, TextCNNRecord)
    with ProcessPoolExecutor(PROCESSES, mp_context=multiprocessing.get_context("spawn")) as pool:
        warm(pool, questions)
        start = time.perf_counter()
        for future in as_completed([pool.submit(make, *each) for each in tasks]):
            for record, _ in future.result():
                assert isinstance(record, TextCNNRecord)
                store.save(record)
        fast = time.perf_counter() - start
        start = time.perf_counter()
        plain_made = [pool.submit(_plain, s, t, questions) for s, t in product(STRIDES, range(PLAIN_TRIALS))]
        wait(plain_made)
        plain = (time.perf_counter() - start) * TRIALS / PLAIN_TRIALS
    assert all(0 <= future.result() <= 1 for future in plain_made)
    assert len(store.load_all()) == 60
    report_ratio(request.node.name, f"{plain / fast:5.2f} x faster (wall clock)", plain, fast)


def _plain(stride: int, trial: int, questions: Data) -> float:
    train, test = (questions.x_train, questions.y_train), (questions.x_test, questions.y_test)
    return plain_trial(stride, trial, train, test, epochs=EPOCHS, lr=LEARNING_RATE)

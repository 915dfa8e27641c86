"""What must not become slower or worse."""

from functools import partial

import frozen
import numpy as np
import training

from hw4.plugin import Gate


def test_update(gate: Gate) -> None:
    x, y = training.draw(2_000, seed=0)
    w = np.zeros((training.FEATURES, training.CLASSES))
    gate.time(partial(training.update, w, x, y, 0.1), beside=partial(frozen.update, w, x, y, 0.1))


def test_training(gate: Gate) -> None:
    gate.outcomes(training.train, seeds=range(8))

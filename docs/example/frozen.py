"""The ruler: the same kind of work as training.update, written once and never edited."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def update(w: Array, x: Array, y: NDArray[np.int64], learning_rate: float) -> Array:
    """Weights (64, 5) after a step of gradient descent on the mean cross-entropy."""
    scores = x @ w
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    p[np.arange(len(y)), y] -= 1
    return w - learning_rate * (x.T @ p) / len(y)

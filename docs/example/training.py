"""The code that is gated: one update of a small softmax regression in numpy, and training with it."""

import numpy as np
from numpy.typing import NDArray

CLASSES, FEATURES = 5, 64
Array = NDArray[np.float64]


def draw(n: int, seed: int) -> tuple[Array, NDArray[np.int64]]:
    """Inputs (n, 64), classes (n,): five clouds of points that overlap a little."""
    centres = np.random.default_rng(0).normal(size=(CLASSES, FEATURES))
    rng = np.random.default_rng(seed)
    y = rng.integers(CLASSES, size=n)
    return centres[y] + 2.5 * rng.normal(size=(n, FEATURES)), y


def update(w: Array, x: Array, y: NDArray[np.int64], learning_rate: float) -> Array:
    """Weights (64, 5) after a step of gradient descent on the mean cross-entropy."""
    scores = x @ w
    scores -= scores.max(axis=1, keepdims=True)
    p = np.exp(scores)
    p /= p.sum(axis=1, keepdims=True)
    p[np.arange(len(y)), y] -= 1
    return w - learning_rate * (x.T @ p) / len(y)


def train(seed: int) -> dict[str, float]:
    """Train on points of this seed; accuracy and cross-entropy on others."""
    x, y = draw(300, seed)
    w = np.zeros((FEATURES, CLASSES))
    for _ in range(100):
        w = update(w, x, y, learning_rate=0.1)
    x, y = draw(1_000, seed=10_000)
    scores = x @ w
    log_p = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    right = float((scores.argmax(axis=1) == y).mean())
    return {"accuracy": right, "loss": float(-log_p[np.arange(len(y)), y].mean())}

"""Effective local smoothness of any torch model's objective along a minibatch update.

For an objective f and a displacement u, Lhat(w; u) = ||grad f(w + u) - grad f(w)||_2 / ||u||_2: the homework's
definition, after Santurkar et al., "How Does Batch Normalization Help Optimization?" (2018).
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hw4.training import Loss, chunks, draw_batches


class SmoothnessUndefinedError(ValueError):
    """The quotient has no value here: the update is zero, or a gradient is not finite."""


@dataclass(frozen=True, kw_only=True)
class SmoothnessReading:
    """One smoothness measurement.

    ``smoothness`` is ``gradient_change_norm`` / ``update_norm``, where ``update_norm`` is ||u||_2 over all trained
    parameters. A value of the quotient means little without the ||u|| it was taken at: with ReLU or max-pooling it has
    no limit for small u. ``norm_mode`` and ``chunk_size`` (examples) say which objective was differentiated.
    """

    smoothness: float
    update_norm: float
    gradient_change_norm: float
    norm_mode: Literal["batch", "running"]
    chunk_size: int


def effective_smoothness(gradient: Callable[[Tensor], Tensor], w: Tensor, u: Tensor) -> float:
    """Effective smoothness ||gradient(w + u) - gradient(w)||_2 / ||u||_2 of a function given by its full gradient.

    w and u are flat (p,), ``gradient`` maps (p,) to (p,). On f(w) = w'Hw/2 + b'w this is ||Hu|| / ||u||. Raises
    ValueError for shapes that differ and SmoothnessUndefinedError for a zero u or a gradient that is not finite.
    """
    update_norm, gradient_change_norm = _secant(gradient, w, u)
    return gradient_change_norm / update_norm


def _secant(gradient: Callable[[Tensor], Tensor], w: Tensor, u: Tensor) -> tuple[float, float]:
    """Norms of the step from w to w + u and of the gradient's change over it."""
    if w.ndim != 1 or w.shape != u.shape:
        raise ValueError(f"w and u must be flat and equally long, got shapes {tuple(w.shape)} and {tuple(u.shape)}")
    moved = w + u
    step = moved - w  # the displacement that rounding left of u, which is the one the gradients see
    update_norm = _norm(step)
    if update_norm == 0:
        raise SmoothnessUndefinedError(
            f"the update is zero (||u|| = {_norm(u):.3g} against ||w|| = {_norm(w):.3g}), so the quotient has no value"
        )
    before = gradient(w)
    change = gradient(moved) - before
    if before.shape != w.shape:
        raise ValueError(f"the gradient must have the shape of w, {tuple(w.shape)}, got {tuple(before.shape)}")
    gradient_change_norm = _norm(change)
    if not (torch.isfinite(step).all() and torch.isfinite(change).all()):
        raise SmoothnessUndefinedError("a gradient or the update is not finite: the model has diverged")
    return update_norm, gradient_change_norm


def _norm(vector: Tensor) -> float:
    """Euclidean norm, summed in float64."""
    return float(torch.linalg.vector_norm(vector, dtype=torch.float64))


def flatten(tensors: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    """Concatenate tensors into one flat copy, each in its logical (row-major) order."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def full_gradient(
    model: nn.Module, x: Tensor, y: Tensor, *, loss: Loss = F.cross_entropy, chunk_size: int = 100
) -> Tensor:
    """Gradient of the mean loss over all examples with respect to all trained parameters, flat (p,).

    x is (n, ...), y (n, ...). The model is used in the mode it is in. In training mode a BatchNorm sees one chunk at
    a time, so ``chunk_size`` is part of the objective; without batch statistics it changes rounding only.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("the model has no parameter that requires a gradient")
    total = [torch.zeros_like(p) for p in parameters]
    for inputs, targets in chunks(x, y, chunk_size):
        objective = loss(model(inputs), targets) * (len(targets) / len(y))
        for accumulated, part in zip(total, torch.autograd.grad(objective, parameters), strict=True):
            accumulated.add_(part)
    return flatten(total)


def measure_smoothness(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    learning_rate: float,
    batch_size: int,
    generator: torch.Generator,
    norm_mode: Literal["batch", "running"] = "batch",
    chunk_size: int = 100,
    loss: Loss = F.cross_entropy,
) -> SmoothnessReading:
    """Effective smoothness of the mean loss over (x, y) at the model's parameters, along one minibatch SGD update.

    u = -learning_rate * gradient over ``batch_size`` examples drawn with replacement from ``generator``; both full
    gradients run over all n examples of x (n, ...) and y (n, ...), in chunks. ``norm_mode="batch"`` differentiates
    the function that is trained, normalised by batch statistics; ``"running"`` the one that is evaluated, normalised
    by running statistics. They are different functions. The model itself is not touched: everything happens on a copy.

    Raises SmoothnessUndefinedError when the update is zero or a gradient is not finite.
    """
    if norm_mode not in ("batch", "running"):
        raise ValueError(f"norm_mode must be 'batch' or 'running', got {norm_mode!r}")
    probe = copy.deepcopy(model).train(norm_mode == "batch")
    parameters = [p for p in probe.parameters() if p.requires_grad]

    def gradient(w: Tensor) -> Tensor:
        with torch.no_grad():
            for parameter, values in zip(parameters, torch.split(w, [p.numel() for p in parameters]), strict=True):
                parameter.copy_(values.view(parameter.shape))
        return full_gradient(probe, x, y, loss=loss, chunk_size=chunk_size)

    (batch,) = draw_batches(len(x), updates=1, batch_size=batch_size, generator=generator)
    minibatch = full_gradient(
        probe, x.index_select(0, batch), y.index_select(0, batch), loss=loss, chunk_size=batch_size
    )
    w = flatten([p.detach() for p in parameters])
    update_norm, gradient_change_norm = _secant(gradient, w, -learning_rate * minibatch)
    return SmoothnessReading(
        smoothness=gradient_change_norm / update_norm,
        update_norm=update_norm,
        gradient_change_norm=gradient_change_norm,
        norm_mode=norm_mode,
        chunk_size=chunk_size,
    )

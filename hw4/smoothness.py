"""Effective local smoothness of any torch model's objective along a minibatch update.

For an objective f and a displacement u, Lhat(w; u) = ||grad f(w + u) - grad f(w)||_2 / ||u||_2: the homework's
definition, after Santurkar et al., "How Does Batch Normalization Help Optimization?" (2018).
"""

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hw4.errors import ObjectiveError
from hw4.objective import Forward, Objective
from hw4.readings import Block, SmoothnessReading
from hw4.specs import NormMode
from hw4.training import Loss

NoiseFloor = Literal["reordered", "float64"]
Update = Tensor | Mapping[str, Tensor]
"""A displacement of the parameters, flat (p,) or by their names."""


class SmoothnessUndefinedError(ValueError):
    """The quotient has no value here: the update is zero, or a gradient is not finite."""


def effective_smoothness(gradient: Callable[[Tensor], Tensor], w: Tensor, u: Tensor) -> float:
    """Effective smoothness ||gradient(w + u) - gradient(w)||_2 / ||u||_2 of a function given by its full gradient.

    w and u are flat (p,), ``gradient`` maps (p,) to (p,). On f(w) = w'Hw/2 + b'w this is ||Hu|| / ||u||. Raises
    ValueError for shapes that differ and SmoothnessUndefinedError for a zero u or a gradient that is not finite.
    """
    _, step, change = _secant(gradient, w, u, None)
    return _norm(change) / _norm(step)


def _secant(
    gradient: Callable[[Tensor], Tensor],
    w: Tensor,
    u: Tensor,
    before: Tensor | None,
    reached: Callable[[Tensor], Tensor] = torch.Tensor.clone,
    *,
    fresh: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """The point ``reached`` on the way to w + u, the step there as rounding left it, and the gradient's change over it.

    ``before`` is the gradient at w, where it is known. A function that gives ``fresh`` memory each time, which may be
    written to as u may then, spares copies.
    """
    if w.ndim != 1 or w.shape != u.shape:
        raise ValueError(f"w and u must be flat and equally long, got shapes {tuple(w.shape)} and {tuple(u.shape)}")
    moved = reached(u.add_(w) if fresh else w + u)
    step = moved - w  # the displacement that rounding left of u, which is the one the gradients see
    if _norm(step) == 0:
        raise SmoothnessUndefinedError(
            f"the update is zero, or so small that rounding swallows it beside ||w|| = {_norm(w):.3g}, so the quotient "
            f"has no value"
        )
    if before is None:
        before = gradient(w).clone()  # a function may give the same memory each time
    if before.shape != w.shape:
        raise ValueError(f"the gradient must have the shape of w, {tuple(w.shape)}, got {tuple(before.shape)}")
    change = gradient(moved).sub_(before) if fresh else gradient(moved) - before
    if not (math.isfinite(_norm(step)) and math.isfinite(_norm(change))):
        raise SmoothnessUndefinedError("a gradient or the update is not finite: the model has diverged")
    return moved, step, change


def _norm(vector: Tensor) -> float:
    """Euclidean norm, summed in float64."""
    return float(torch.linalg.vector_norm(vector, dtype=torch.float64))


def _dot(first: Tensor, second: Tensor) -> float:
    """Scalar product, summed in float64, of which no copy as long as the vectors is made."""
    pairs = zip(torch.split(first, 2**20), torch.split(second, 2**20), strict=True)
    return math.fsum(float(a.double() @ b.double()) for a, b in pairs)


def full_gradient(
    model: nn.Module, x: Tensor, y: Tensor, *, loss: Loss = F.cross_entropy, chunk_size: int = 100
) -> Tensor:
    """Gradient of the mean loss over all examples with respect to all trained parameters, flat (p,).

    x is (n, ...), y (n, ...). The model is used in the mode it is in. In training mode a BatchNorm sees one chunk at
    a time, so ``chunk_size`` is part of the objective; without batch statistics it changes rounding only. The model,
    its running statistics too, is left as it was. Raises ObjectiveError as :class:`hw4.objective.Objective` does.
    """
    objective = Objective(model, x, y, loss=loss, norm_mode="as is", chunk_size=chunk_size)
    return objective.gradient(objective.w)


def measure_smoothness(
    model: nn.Module,
    x: Any,
    y: Any = None,
    *,
    learning_rate: float | None = None,
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
    update: Update | None = None,
    norm_mode: NormMode = "batch",
    chunk_size: int = 100,
    loss: Loss = F.cross_entropy,
    forward: Forward | None = None,
    noise_floor: NoiseFloor | None = None,
    dtype: torch.dtype | None = None,
) -> SmoothnessReading:
    """Effective smoothness of the mean loss over (x, y) at the model's parameters, along one update.

    The update is ``update`` (flat, or by parameter name, see :func:`optimizer_update`), or one of minibatch SGD:
    u = -learning_rate * gradient over ``batch_size`` examples drawn with replacement from ``generator``; both full
    gradients run over all n examples of x (n, ...) and y (n, ...), in chunks, or over the batches of a data loader x.
    ``norm_mode="batch"`` differentiates the function that is trained, normalised by batch statistics, ``"running"`` the
    one that is evaluated, normalised by running statistics, ``"as is"`` that of every layer in the mode it is in: three
    different functions. What else can be given, and how the model is left as it was, says
    :class:`hw4.objective.Objective`; ``dtype=torch.float64`` is rid of rounding.

    ``noise_floor`` asks for the reading's error. ``"reordered"`` costs one full gradient more: the same numbers are
    summed in another order. It does not see ReLUs and pooling windows that rounding tips over, which matter where u is
    tiny; ``"float64"`` does, for two full gradients in double precision: it is the norm of the actual error of dg.

    Raises ObjectiveError for what is no fixed mean over the examples or cannot be measured, ValueError for other unfit
    arguments, SmoothnessUndefinedError when the update is zero or a gradient is not finite.
    """
    objective = Objective(
        model, x, y, loss=loss, forward=forward, norm_mode=norm_mode, chunk_size=chunk_size, dtype=dtype
    )
    if update is not None:
        if (learning_rate, batch_size, generator) != (None, None, None):
            raise ValueError("give an update, or learning_rate, batch_size and generator to draw SGD's, not both")
        return measure_update(objective, update, noise_floor=noise_floor)
    if learning_rate is None or batch_size is None:
        raise ValueError("learning_rate, batch_size and generator are needed to draw SGD's update; or give an update")
    (reading,) = measure_directions(
        objective, 1, learning_rate=learning_rate, batch_size=batch_size, generator=generator, noise_floor=noise_floor
    )
    return reading


@torch.inference_mode(False)
def measure_update(objective: Objective, update: Update, *, noise_floor: NoiseFloor | None = None) -> SmoothnessReading:
    """The reading along an update (p,) of whatever optimiser, flat or by parameter name."""
    (reading,) = _readings(objective, [objective.flat(update).clone()], None, noise_floor)
    return reading


def optimizer_update(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The displacement, by parameter name, that ``optimizer.step()`` would make on the gradients in ``.grad``.

    Model and optimiser are left as they are: the step is made by a copy of the optimiser on copies of its parameters.
    Raises ObjectiveError when no parameter of the model that the optimiser has has a gradient.
    """
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    mine = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not any(id(p) in held and p.grad is not None for p in mine.values()):
        raise ObjectiveError(
            "no parameter of the model has a gradient that this optimiser would use; call backward() first"
        )
    twins: dict[int, Tensor] = {}
    for group in optimizer.param_groups:
        for p in group["params"]:
            twins[id(p)] = nn.Parameter(p.detach().clone(), p.requires_grad)
            twins[id(p)].grad = None if p.grad is None else p.grad.detach().clone()
    memo: dict[int, Any] = dict(twins)
    copy.deepcopy(optimizer, memo).step()
    return {
        name: twins[id(p)].detach() - p.detach() if id(p) in held else torch.zeros_like(p) for name, p in mine.items()
    }


@torch.inference_mode(False)
def measure_directions(
    objective: Objective,
    directions: int,
    *,
    learning_rate: float,
    batch_size: int,
    generator: torch.Generator | None,
    noise_floor: NoiseFloor | None = None,
) -> list[SmoothnessReading]:
    """Readings at one point along several minibatch updates, each as by :func:`measure_smoothness`.

    They share the full gradient at the point and a reordered one, so d directions cost d + 1 or d + 2 full gradients.
    """
    if not isinstance(generator, torch.Generator):
        raise ValueError(  # noqa: TRY004  as everything that is refused
            f"generator must be a torch.Generator, which minibatches are drawn from, got {generator!r}"
        )
    if directions < 1:
        raise ValueError(f"the number of directions must be at least 1, got {directions}")
    drawn = (
        objective.minibatch_gradient(objective.w, batch_size, generator).mul_(-learning_rate) for _ in range(directions)
    )
    return _readings(objective, drawn, learning_rate, noise_floor)


def _readings(
    objective: Objective, updates: Iterable[Tensor], learning_rate: float | None, noise_floor: NoiseFloor | None
) -> list[SmoothnessReading]:
    """Readings along updates (p,), which share the full gradient at the point and what rounding makes of it."""
    if noise_floor not in (None, "reordered", "float64"):
        raise ValueError(f"noise_floor must be None, 'reordered' or 'float64', got {noise_floor!r}")
    if noise_floor == "float64" and objective.w.dtype == torch.float64:
        raise ValueError("a float64 reading has no more exact one beside it; use noise_floor='reordered'")
    w = objective.w
    double = objective.in_double() if noise_floor == "float64" else None
    before = noise = None
    readings = []
    for u in updates:
        if before is None:
            before = objective.gradient(w)
        moved, step, change = _secant(objective.gradient, w, u, before, objective.reached, fresh=True)
        del u
        if double is not None:
            exact = double.gradient(moved.double()) - double.gradient(w.double())
            noise = _norm(change.double() - exact)
        elif noise_floor and noise is None:
            # Two gradients of the same function at the same point, summed in different orders, differ by sqrt(2) times
            # the error of one; so does a difference of gradients at two points from its own true value.
            noise = _norm(objective.gradient(w, reordered=True).sub_(before))
        readings.append(_reading(objective, w, step, change, learning_rate=learning_rate, noise=noise))
    objective.confirm()
    return readings


def _reading(
    objective: Objective, w: Tensor, step: Tensor, change: Tensor, *, learning_rate: float | None, noise: float | None
) -> SmoothnessReading:
    """The reading of a step (p,) from w (p,) along which the gradient changed so (p,); ``noise`` is the change's."""
    update_norm, change_norm = _norm(step), _norm(change)
    along = _dot(step, change)
    return SmoothnessReading(
        smoothness=change_norm / update_norm,
        update_norm=update_norm,
        gradient_change_norm=change_norm,
        cosine=max(-1.0, min(1.0, along / update_norm / change_norm)) if change_norm else 0.0,
        along_update=abs(along) / update_norm**2,
        weight_norm=_norm(w),
        learning_rate=learning_rate,
        noise_floor=None if noise is None else noise / update_norm,
        norm_mode=objective.norm_mode,
        chunk_size=objective.chunk_size,
        blocks=tuple(
            Block(name=name, weight_norm=_norm(a), update_norm=_norm(b), gradient_change_norm=_norm(c))
            for name, a, b, c in zip(objective.names, *map(objective.split, (w, step, change)), strict=True)
        ),
    )

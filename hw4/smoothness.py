"""Effective local smoothness of any torch model's objective along a minibatch update.

For an objective f and a displacement u, Lhat(w; u) = ||grad f(w + u) - grad f(w)||_2 / ||u||_2: the homework's
definition, after Santurkar et al., "How Does Batch Normalization Help Optimization?" (2018).
"""

import copy
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from hw4.borrowed import Randomness, copied
from hw4.errors import ObjectiveError, first_line
from hw4.memory import fingerprint
from hw4.objective import Forward, Objective, require_objective
from hw4.readings import Block, SmoothnessReading
from hw4.specs import NormMode
from hw4.training import Loss, draw_batches

NoiseFloor = Literal["reordered", "float64"]
Update = Tensor | Mapping[str, Tensor]  # a displacement of the parameters, flat (p,) or by their names


class SmoothnessUndefinedError(ValueError):
    """The quotient has no value here: the update is zero, or a gradient is not finite."""


def effective_smoothness(gradient: Callable[[Tensor], Tensor], w: Tensor, u: Tensor) -> float:
    """Effective smoothness ||gradient(w + u) - gradient(w)||_2 / ||u||_2 of a function given by its full gradient.

    w and u are flat (p,), ``gradient`` maps (p,) to (p,). On f(w) = w'Hw/2 + b'w this is ||Hu|| / ||u||. Raises
    ValueError for shapes that differ and SmoothnessUndefinedError for a zero u or a gradient that is not finite.
    """
    step, change = _secant(gradient, w, u)
    return norm(change) / norm(step)


def _secant(gradient: Callable[[Tensor], Tensor], w: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """The step towards w + u as rounding left it, which is the one the gradients see, and their change over it."""
    for each in (w, u):
        if not isinstance(each, Tensor) or not each.is_floating_point():
            what = each.dtype if isinstance(each, Tensor) else type(each).__name__
            raise ValueError(f"w and u must be tensors of real floating-point numbers, got {what}")
    if w.ndim != 1 or w.shape != u.shape:
        raise ValueError(f"w and u must be flat and equally long, got shapes {tuple(w.shape)} and {tuple(u.shape)}")
    moved = (w + u).detach()
    step = moved - w.detach()
    _require_step(step, norm(w.detach()))
    before = _called(gradient, w).clone()  # a function may give the same memory each time
    change = _called(gradient, moved.requires_grad_(w.requires_grad)) - before
    _require_finite(step, change)
    return step, change


def _called(gradient: Callable[[Tensor], Tensor], w: Tensor) -> Tensor:
    """The gradient at w; raises ValueError where it is none."""
    found = gradient(w)
    if not isinstance(found, Tensor) or not found.is_floating_point() or found.shape != w.shape:
        what = f"shape {tuple(found.shape)}, {found.dtype}" if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(
            f"gradient(w) must return a floating-point tensor of the shape of w, {tuple(w.shape)}, got {what}; of what "
            f"torch.autograd.grad returns the first"
        )
    return found.detach().to_dense()


def _require_step(step: Tensor, weight_norm: float) -> None:
    if norm(step) == 0:
        raise SmoothnessUndefinedError(
            f"the update is zero, or so small that rounding swallows it beside ||w|| = {weight_norm:.3g}, so the "
            f"quotient has no value"
        )


def _require_finite(step: Tensor, change: Tensor, objective: Objective | None = None) -> None:
    if not (math.isfinite(norm(step)) and math.isfinite(norm(change))):
        name = objective.infinite_parameter() if objective else ""
        raise SmoothnessUndefinedError(
            f"a gradient or the update is not finite, nor is the parameter {name}: the model has diverged, or it is "
            f"meant so (a mask, memory that is never used) and must not require a gradient"
            if name
            else "a gradient or the update is not finite: the model has diverged, or an operation has no derivative "
            "here (the root or the norm of 0)"
        )


PIECE = 2**17  # so many numbers are converted to float64 at a time: torch would make a copy of all


def norm(vector: Tensor) -> float:
    """Euclidean norm of a vector (p,), summed in float64."""
    return math.hypot(*(float(torch.linalg.vector_norm(a, dtype=torch.float64)) for a in torch.split(vector, PIECE)))


def _dot(first: Tensor, second: Tensor) -> float:
    """Scalar product of vectors (p,), summed in float64."""
    pairs = zip(torch.split(first, PIECE), torch.split(second, PIECE), strict=True)
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
    return objective.gradient()


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
    ``norm_mode``, what else can be given and how the model is left as it was says :class:`hw4.objective.Objective`;
    ``dtype=torch.float64`` is rid of rounding.
    ``noise_floor`` asks for the reading's error. ``"reordered"`` costs one full gradient more: the same numbers are
    summed in another order. It does not see ReLUs and pooling windows that rounding tips over, which matter where u is
    tiny; ``"float64"`` does, for two full gradients in double precision: it is the norm of the actual error of dg.
    Beside the model and one chunk's activations, memory is needed for three times the parameters and for their largest
    tensor once more, so four times at most. With ``noise_floor="float64"`` it is eight times and twice that tensor.

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
    require_objective(objective)
    objective.parts(update)  # refuses what does not fit before anything is computed
    (reading,) = _readings(objective, iter([update]), 1, None, noise_floor)
    return reading


def optimizer_update(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The displacement, by parameter name, that ``optimizer.step()`` would make on the gradients in ``.grad``.

    Model, optimiser and random generators are left as they are: the step is made by a copy of the optimiser on copies
    of its parameters. Raises ObjectiveError when no parameter of the model that the optimiser has has a gradient, for
    an optimiser of which a copy would make another step, and for one that would move parameters that are not trained.
    """
    if not isinstance(model, nn.Module):
        raise ObjectiveError(f"the model must be a torch.nn.Module, got {type(model).__name__}")
    _refuse_optimizer(optimizer)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    mine = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not any(id(p) in held and p.grad is not None for p in mine.values()):
        raise ObjectiveError(
            "no parameter of the model has a gradient that this optimiser would use; call backward() first"
        )
    twins: dict[int, Tensor] = {}
    kept = [(p, p.detach().clone()) for group in optimizer.param_groups for p in group["params"]]
    for p, values in kept:
        twins[id(p)] = torch.Tensor._make_subclass(type(p), values.clone(), p.requires_grad)
        twins[id(p)].grad = None if p.grad is None else p.grad.detach().clone()
    memo: dict[int, Any] = dict(twins)
    for p, _ in kept:  # what an optimiser may read beside the gradient
        vars(twins[id(p)]).update({name: copied(value, memo) for name, value in vars(p).items()})
    with Randomness([optimizer]).watched():
        copy_of_it = copy.deepcopy(optimizer, memo)
        try:
            copy_of_it.step()
        except Exception as error:
            raise ObjectiveError(
                f"a copy of the optimiser {type(optimizer).__name__} cannot make the step ({type(error).__name__}: "
                f"{first_line(error)}); measure the difference that its step makes to the parameters and give that as "
                f"update="
            ) from error
    _require_own_step(model, optimizer, kept, twins)
    return {
        name: twins[id(p)].detach() - p.detach() if id(p) in held else torch.zeros_like(p) for name, p in mine.items()
    }


def _require_own_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    kept: Sequence[tuple[Tensor, Tensor]],
    twins: Mapping[int, Tensor],
) -> None:
    """Raise ObjectiveError when the copy's step moved the user's parameters, or one that is not trained."""
    if changed := [(p, values) for p, values in kept if fingerprint(p) != fingerprint(values)]:
        for p, values in changed:
            p.data.copy_(values)
        raise ObjectiveError(
            f"a copy of the optimiser {type(optimizer).__name__} moves the model's own parameters, which it finds "
            f"elsewhere than in param_groups; measure the difference that its step makes and give that as update="
        )
    for name, p in model.named_parameters():
        if not p.requires_grad and id(p) in twins and fingerprint(twins[id(p)]) != fingerprint(p):
            raise ObjectiveError(
                f"the optimiser {type(optimizer).__name__} would move {name}, which requires no gradient, so that the "
                f"step is not one of the trained parameters alone; set its .grad to None"
            )


def _refuse_optimizer(optimizer: torch.optim.Optimizer) -> None:
    """Raise ObjectiveError for an optimiser of which a copy would make another step: torch copies no more than states.

    A learning rate's schedule wraps step() to count its calls, which does not matter.
    """
    kind = type(optimizer)
    if "_optimizer_step_pre_hooks" not in getattr(optimizer, "__dict__", {}):
        raise ObjectiveError(
            f"a {kind.__name__} is no torch.optim.Optimizer, of which a copy could make the step; give the one inside "
            f"it, or the difference that its step makes to the parameters as update="
        )
    way_out = "measure the difference that its step makes to the parameters and give that as update="
    everywhere = _global_optimizer_pre_hooks | _global_optimizer_post_hooks
    own = (optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks)
    hooks = [*everywhere.values(), *(hook for each in own for hook in each.values())]
    if hooks:
        raise ObjectiveError(f"the optimiser {kind.__name__} has hooks on step(), which a copy has not; {way_out}")
    step = vars(optimizer).get("step", kind.step)
    while getattr(step, "_wrapped_by_lr_sched", False):
        step = step.__wrapped__
    if getattr(step, "__func__", step) is not kind.step:
        raise ObjectiveError(f"step() of the optimiser {kind.__name__} was replaced, which a copy has not; {way_out}")
    needed = list(inspect.signature(kind.step).parameters.values())[1:]
    if isinstance(optimizer, torch.optim.LBFGS) or any(
        each.default is each.empty and each.kind is each.POSITIONAL_OR_KEYWORD for each in needed
    ):
        raise ObjectiveError(f"step() of the optimiser {kind.__name__} needs a closure; {way_out}")
    plain = vars(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0))
    added = [name for name in vars(optimizer) if name not in plain and name not in SCHEDULED]
    if added and not kind.__module__.startswith("torch.optim"):
        raise ObjectiveError(
            f"the optimiser {kind.__name__} has attributes of its own ({', '.join(added[:3])}), which a copy has not; "
            f"{way_out}"
        )


SCHEDULED = ("step", "_step_count", "_opt_called")  # what a learning rate's schedule adds to an optimiser


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
    require_objective(objective)
    if not isinstance(directions, int | np.integer) or directions < 1:
        raise ValueError(f"the number of directions must be at least 1 and whole, got {directions!r}")
    require_draws(objective, learning_rate, batch_size, generator)
    learning_rate = float(learning_rate)
    assert generator is not None
    drawn = (objective.minibatch_gradient(None, batch_size, generator).mul_(-learning_rate) for _ in range(directions))
    return _readings(objective, drawn, directions, learning_rate, noise_floor)


def require_draws(objective: Objective, learning_rate: Any, batch_size: Any, generator: Any) -> None:
    """Raise ValueError for what no step of SGD can be drawn with, before anything is computed."""
    for name, value, kind, what in (
        ("generator", generator, torch.Generator, "a torch.Generator, which minibatches are drawn from"),
        ("batch_size", batch_size, Integral, "a whole number of examples"),
        ("learning_rate", learning_rate, Real, "a number"),
    ):
        if not isinstance(value, kind):
            raise ValueError(f"{name} must be {what}, got {value!r}")  # noqa: TRY004  as everything that is refused
    if not 0 <= learning_rate < math.inf:  # of 0 the update is zero, which is refused as such
        raise ValueError(f"learning_rate must be above 0 and finite, got {learning_rate!r}")
    draw_batches(objective.n, batch_size=int(batch_size), generator=torch.Generator())  # refuses one out of range


def _readings(
    objective: Objective,
    updates: Iterator[Update],
    directions: int,
    learning_rate: float | None,
    noise_floor: NoiseFloor | None,
) -> list[SmoothnessReading]:
    """Readings along updates, which share the full gradient at the point and what rounding makes of it.

    Nothing as long as the parameters is kept that can be computed again: three such vectors are there at a time, the
    model's copy among them, and with several directions four.
    """
    if noise_floor not in (None, "reordered", "float64"):
        raise ValueError(f"noise_floor must be None, 'reordered' or 'float64', got {noise_floor!r}")
    if noise_floor == "float64" and objective.dtype == torch.float64:
        raise ValueError("a float64 reading has no more exact one beside it; use noise_floor='reordered'")
    double = objective.in_double() if noise_floor == "float64" else None
    if double is not None:
        double.require_double()
    weights = _norms(objective, objective.w)
    loss, before = objective.loss_and_gradient()
    # Two gradients of the same function at the same point, summed in different orders, differ by sqrt(2) times the
    # error of one; so does a difference of gradients at two points from its own true value.
    noise = norm(objective.reordered_gradient(loss).sub_(before)) if noise_floor == "reordered" else None
    readings = []
    for left in reversed(range(directions)):
        objective.move_by(next(updates))
        change = objective.loss_and_gradient_here()[1].sub_(before)
        if not left:
            del before
        if double is not None:
            noise = _error(objective, double, change)
        step = objective.step()
        _require_step(step, weights[0])
        _require_finite(step, change, objective)
        readings.append(_reading(objective, weights, step, change, learning_rate=learning_rate, noise=noise))
        del step, change
    objective.confirm()
    return readings


def _error(objective: Objective, double: Objective, change: Tensor) -> float:
    """Norm of the rounding error of a gradient change (p,), by comparison with the same change in float64."""
    double.move_to(objective.here)
    exact = double.loss_and_gradient_here()[1]
    double.move_to(objective.w)
    exact.sub_(double.loss_and_gradient_here()[1])
    return norm(exact.sub_(change))


def _norms(objective: Objective, vector: Tensor) -> tuple[float, list[float]]:
    """Euclidean norms of a vector (p,) and of each parameter's part in it."""
    return norm(vector), [norm(part) for part in objective.split(vector)]


def _reading(
    objective: Objective,
    weights: tuple[float, list[float]],
    step: Tensor,
    change: Tensor,
    *,
    learning_rate: float | None,
    noise: float | None,
) -> SmoothnessReading:
    """The reading of a step (p,) along which the gradient changed so (p,); ``noise`` is the change's."""
    (update_norm, steps), (change_norm, changes) = _norms(objective, step), _norms(objective, change)
    along = _dot(step, change)
    return SmoothnessReading(
        smoothness=change_norm / update_norm,
        update_norm=update_norm,
        gradient_change_norm=change_norm,
        cosine=max(-1.0, min(1.0, along / update_norm / change_norm)) if change_norm else 0.0,
        along_update=abs(along) / update_norm**2,
        weight_norm=weights[0],
        learning_rate=learning_rate,
        noise_floor=None if noise is None else noise / update_norm,
        norm_mode=objective.norm_mode,
        chunk_size=objective.chunk_size,
        blocks=tuple(
            Block(name=name, weight_norm=a, update_norm=b, gradient_change_norm=c)
            for name, a, b, c in zip(objective.names, weights[1], steps, changes, strict=True)
        ),
    )

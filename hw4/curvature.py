"""What a smoothness reading rests on: the largest curvature, the share of kinks, and the view over step lengths."""

import contextlib
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor

from hw4.objective import Objective, flatten, require_objective
from hw4.readings import KinkShare, LargestStep, RangeView, Sharpness
from hw4.smoothness import SmoothnessUndefinedError, Update, norm, require_draws


def sharpness(objective: Objective, *, tolerance: float = 1e-3, most_products: int = 300) -> Sharpness:
    """Largest (algebraic) eigenvalue of the Hessian at the model's parameters, see :func:`largest_eigenvalues`."""
    return largest_eigenvalues(objective, 1, tolerance=tolerance, most_products=most_products)[0]


@torch.inference_mode(False)
def largest_eigenvalues(
    objective: Objective, k: int, *, tolerance: float = 1e-3, most_products: int = 300
) -> list[Sharpness]:
    """The k largest (algebraic) eigenvalues of the Hessian at the model's parameters, by Lanczos' method, in order.

    ARPACK's implicitly restarted iteration (Lehoucq, Sorensen and Yang, 1998) by scipy, on exact Hessian-vector
    products, started from a fixed random vector. ``tolerance`` is relative. Raises ValueError for a k that is not
    below the number of parameters (one parameter has one eigenvalue), SmoothnessUndefinedError when the Hessian is not
    finite or no eigenvalue settles within ``most_products``.
    """
    p, made = len(w := require_objective(objective).w), 0
    objective.gradient()  # with its checks: a Hessian alone would not show that the loss is no fixed function
    if not isinstance(k, int | np.integer) or not 1 <= k < max(p, 2):
        raise ValueError(f"k must be at least 1, whole and below the number of parameters, {p}, got {k}")

    def product(v: np.ndarray) -> np.ndarray:
        nonlocal made
        made += 1
        found = objective.hessian_product(w, torch.from_numpy(v).reshape(-1).to(w)).double().cpu().numpy()
        if not np.isfinite(found).all():
            raise SmoothnessUndefinedError("a Hessian-vector product is not finite: the model has diverged")
        return found

    start = (draws := np.random.default_rng(0)).standard_normal(p)
    if p == 1:
        return [Sharpness(value=float(product(np.ones(1))[0]), residual=0.0, products=made)]
    basis = min(p, max(2 * k + 1, 20 if tolerance < COARSE else 8))  # a large one pays when many digits are wanted
    operator = LinearOperator((p, p), matvec=product, dtype=np.float64)
    rounds = max(1, most_products // basis)
    try:
        values, vectors = eigsh(operator, k=k, which="LA", v0=start, tol=tolerance, ncv=basis, maxiter=rounds)
        while k > 1 and (missed := _missed(product, values, vectors, draws.standard_normal(p), tolerance)) is not None:
            if made > most_products:
                raise ArpackNoConvergence("", values, vectors)
            values, vectors = _combined(product, np.column_stack([vectors, missed]))
    except ArpackError as error:
        if not isinstance(error, ArpackNoConvergence) and not product(start).any():  # of a random vector: H is zero
            return [Sharpness(value=0.0, residual=0.0, products=made)] * k
        raise SmoothnessUndefinedError(
            f"no largest eigenvalue settled to {tolerance:g} within {made} Hessian-vector products; allow more of them"
        ) from error
    falling = sorted(zip(values.tolist(), vectors.T, strict=True), key=lambda pair: -pair[0])
    found = [_known(value, vector, product(vector), made) for value, vector in falling]
    objective.confirm()
    return found


def _known(value: float, vector: np.ndarray, image: np.ndarray, products: int) -> Sharpness:
    """An eigenvalue with its relative residual; None where that is 1 or more, for then its sign is unknown."""
    off = float(np.linalg.norm(image - value * vector))
    return Sharpness(value=value, residual=off / abs(value) if off < abs(value) else None, products=products)


def _combined(product: Callable[[np.ndarray], np.ndarray], vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best combinations (p, k) of k + 1 directions, rising, and their eigenvalues."""
    values, mix = np.linalg.eigh(vectors.T @ np.column_stack([product(v) for v in vectors.T]))
    return values[1:], vectors @ mix[:, 1:]


def _missed(
    product: Callable[[np.ndarray], np.ndarray],
    values: np.ndarray,
    vectors: np.ndarray,
    start: np.ndarray,
    tolerance: float,
) -> np.ndarray | None:
    """A direction (p,) orthogonal to those found, of a larger eigenvalue than the least of them; None if none is seen.

    Lanczos' method from one vector finds one of several equal eigenvalues, so it is asked again without what it found.
    """
    basis, images = vectors, list[np.ndarray]()
    while len(images) < min(MOST_STEPS, len(start) - len(values)):
        for _ in range(2):  # once leaves rounding behind
            start = start - basis @ (basis.T @ start)
        size = np.linalg.norm(start)
        if size == 0:
            break
        basis = np.column_stack([basis, start / size])
        images.append(product(basis[:, -1]))
        start = images[-1]
        seen, mix = np.linalg.eigh(basis[:, len(values) :].T @ np.column_stack(images))
        off = np.column_stack(images) @ mix[:, -1] - basis[:, len(values) :] @ (seen[-1] * mix[:, -1])
        if np.linalg.norm(off) <= tolerance * max(abs(seen[-1]), np.abs(values).max() * ROUNDING):
            break
    if seen[-1] <= values.min() + max(tolerance * abs(values.min()), ROUNDING * np.abs(values).max()):
        return None
    found: np.ndarray = basis[:, len(values) :] @ mix[:, -1]
    return found


MOST_STEPS = 40  # so many steps of Lanczos' method show what was missed
ROUNDING = 1e-6  # what rounding in float32 leaves of an eigenvalue beside the largest one
COARSE = 0.01  # relative tolerance from which on a small Lanczos basis takes fewer products


@torch.inference_mode(False)
def kink_share(objective: Objective, u: Update, *, nodes: int = 8) -> KinkShare:
    """Share of the gradient's change over u that kinks make, from the model's parameters on.

    u is flat (p,) or by parameter name.
    The integral is by Gauss and Legendre's rules of ``nodes`` and ``nodes`` + 1 points, the mean of both, so the cost
    is 2 ``nodes`` + 1 Hessian-vector products and two gradients. Raises SmoothnessUndefinedError when the gradient
    does not change or is not finite.
    """
    require_objective(objective)
    if not isinstance(nodes, int | np.integer) or nodes < 1:
        raise ValueError(f"the number of nodes must be at least 1 and whole, got {nodes}")
    objective.require_single("a share of kinks")
    w = objective.w
    step = _step(objective, _flat(objective, u), 1.0)
    moved = objective.loss_and_gradient_here()[1]
    change = moved.sub_(objective.gradient()).double()
    size = norm(change)
    if size == 0 or not np.isfinite(size):
        raise SmoothnessUndefinedError(f"the gradient changes by {size:g} along the step, so there is nothing to share")
    rules = []
    for points in (nodes, nodes + 1):
        places, weights = np.polynomial.legendre.leggauss(points)
        total = torch.zeros_like(change)
        for place, weight in zip((1 + places) / 2, weights / 2, strict=True):
            total += float(weight) * objective.hessian_product(w + float(place) * step, step).double()
        rules.append(total)
    objective.confirm()
    coarse, fine = rules
    share = norm(change - (coarse + fine) / 2) / size
    return KinkShare(share=share, quadrature_error=norm(fine - coarse) / size / 2, nodes=nodes)


def _flat(objective: Objective, update: Update) -> Tensor:
    """An update as a flat vector (p,) of real numbers; ValueError when it does not fit the parameters."""
    found = flatten(objective.parts(update))
    return found if found.is_floating_point() else found.to(objective.dtype)


LARGEST_ROUNDING = 0.01  # how far, relative to its length, rounding may leave a step from where it was to lead


def _step(objective: Objective, u: Tensor, factor: float) -> Tensor:
    """Move the parameters factor x u (p,) away from the model's own, and give the step (p,) as rounding left it.

    Raises ValueError for a vector of another length and SmoothnessUndefinedError for a step that rounding swallows.
    """
    wanted = factor * u
    objective.move_by(wanted)
    step = objective.step()
    asked = norm(wanted)
    if norm(step - wanted) > LARGEST_ROUNDING * asked or not step.any():
        raise SmoothnessUndefinedError(
            f"the update is zero or so small that rounding swallows it (||u|| = {asked:.3g} against ||w|| = "
            f"{norm(objective.w):.3g}); compute in float64, or take a larger one"
        )
    return step


FACTORS = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)  # from half to four times the step that training takes, as in the paper


@torch.inference_mode(False)
def range_view(objective: Objective, u: Update, *, factors: Sequence[float] = FACTORS) -> RangeView:
    """Walk along u, flat (p,) or by parameter name, from the model's parameters, one full gradient for each factor.

    Raises SmoothnessUndefinedError for a zero update or when a loss or gradient on the way is not finite.
    """
    require_objective(objective)
    known = [float(each) for each in (factors if isinstance(factors, Iterable) else [])]
    if not known or not all(0 < each < math.inf for each in known):
        raise ValueError(f"expected at least one factor, all above 0 and finite, got {factors}")
    factors = known
    objective.require_single("a walk")
    u = _flat(objective, u)
    _step(objective, u, min(factors))  # refuses what cannot be walked before anything is computed
    update_norm = norm(u)
    loss, start = objective.loss_and_gradient()
    losses, changes = [], []
    for factor in factors:
        objective.move_by(factor * u)
        value, moved = objective.loss_and_gradient_here()
        losses.append(value)
        changes.append(norm(moved.sub_(start)))
    objective.confirm()
    if not np.isfinite([loss, *losses, *changes]).all():
        raise SmoothnessUndefinedError("a loss or gradient along the update is not finite: the model has diverged")
    return RangeView(
        factors=tuple(factors),
        loss=loss,
        losses=tuple(losses),
        gradient_changes=tuple(changes),
        update_norm=update_norm,
    )


DOUBLINGS, HALVINGS = 12, 4
"""How often a rate is doubled or halved in search of the largest step, and its bracket halved then, to 4.4%."""


def largest_steps(
    objective: Objective, learning_rate: float, batch_size: int, generator: torch.Generator
) -> list[LargestStep]:
    """The largest steps from the model's parameters that do not raise the full loss: down its gradient, and SGD's.

    SGD's is down the gradient of ``batch_size`` examples drawn by ``generator``. The search starts at
    ``learning_rate``. One costs two gradients and about ten losses.
    """
    require_objective(objective)
    require_draws(objective, learning_rate, batch_size, generator)
    if not learning_rate > 0:
        raise ValueError(f"learning_rate must be above 0, from where the search goes on, got {learning_rate}")
    here = objective.loss_and_gradient()
    if not (math.isfinite(here[0]) and math.isfinite(norm(here[1]))):
        raise SmoothnessUndefinedError("the loss or its gradient is not finite: the model has diverged")
    drawn = objective.minibatch_gradient(None, batch_size, generator)
    steps = [
        LargestStep(direction="gradient", **_largest_step(objective, here[1], here, learning_rate)),
        LargestStep(direction="minibatch", **_largest_step(objective, drawn, here, learning_rate)),
    ]
    objective.confirm()
    return steps


def _largest_step(objective: Objective, downhill: Tensor, here: tuple[float, Tensor], start: float) -> dict[str, Any]:
    """The bracket of one direction's largest step: doubled or halved from ``start`` on, then bisected."""
    loss, gradient = here

    def raises(rate: float) -> bool:
        _step(objective, downhill, -rate)
        return not objective.loss_here() <= loss  # so is a loss that is no number

    step = _step(objective, downhill, -start)
    change = objective.loss_and_gradient_here()[1].sub_(gradient).double()
    curvature = float(step.double() @ change) / norm(step) ** 2
    outwards = not raises(start)
    low, high = (start, math.inf) if outwards else (0.0, start)
    with contextlib.suppress(SmoothnessUndefinedError):  # of a step that rounding swallows
        for doubling in range(1, DOUBLINGS + 1):
            if 0 < low < high < math.inf:
                break
            rate = start * 2.0 ** (doubling if outwards else -doubling)
            low, high = (low, rate) if raises(rate) else (rate, high)
        for _ in range(HALVINGS if 0 < low < high < math.inf else 0):
            middle = math.sqrt(low * high)
            low, high = (low, middle) if raises(middle) else (middle, high)
    return {
        "stable": low,
        "raised": high if math.isfinite(high) else None,
        "curvature": curvature if math.isfinite(curvature) else None,
    }

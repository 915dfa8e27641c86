"""What a smoothness reading rests on: the largest curvature, the share of kinks, and the view over step lengths."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor

from hw4.objective import Objective
from hw4.readings import KinkShare, RangeView, Sharpness
from hw4.smoothness import SmoothnessUndefinedError


def sharpness(objective: Objective, *, tolerance: float = 1e-3, most_products: int = 300) -> Sharpness:
    """Largest (algebraic) eigenvalue of the Hessian at the model's parameters, by Lanczos' method.

    ARPACK's implicitly restarted iteration (Lehoucq, Sorensen and Yang, 1998) by scipy, on exact Hessian-vector
    products, started from a fixed random vector. ``tolerance`` is relative. Raises SmoothnessUndefinedError when the
    Hessian is not finite or no eigenvalue settles within ``most_products``.
    """
    w = objective.w
    p, made = len(w), 0

    def product(v: np.ndarray) -> np.ndarray:
        nonlocal made
        made += 1
        found = objective.hessian_product(w, torch.from_numpy(v).reshape(-1).to(w)).double().cpu().numpy()
        if not np.isfinite(found).all():
            raise SmoothnessUndefinedError("a Hessian-vector product is not finite: the model has diverged")
        return found

    start = np.random.default_rng(0).standard_normal(p)
    if p == 1:
        return Sharpness(value=float(product(np.ones(1))[0]), residual=0.0, products=made)
    basis = min(p, 20 if tolerance < COARSE else 8)  # a large basis pays when many digits are wanted
    try:
        values, vectors = eigsh(
            LinearOperator((p, p), matvec=product, dtype=np.float64),
            k=1,
            which="LA",
            v0=start,
            tol=tolerance,
            ncv=basis,
            maxiter=max(1, most_products // basis),
        )
    except ArpackNoConvergence as error:
        raise SmoothnessUndefinedError(
            f"no largest eigenvalue settled to {tolerance:g} within {made} Hessian-vector products; allow more of them"
        ) from error
    value, vector = float(values[0]), vectors[:, 0]
    residual = float(np.linalg.norm(product(vector) - value * vector))
    return Sharpness(value=value, residual=residual / abs(value) if value else residual, products=made)


COARSE = 0.01
"""Relative tolerance from which on a small Lanczos basis takes fewer products."""


def kink_share(objective: Objective, u: Tensor, *, nodes: int = 8) -> KinkShare:
    """Share of the gradient's change over u (p,) that kinks make, from the model's parameters on.

    The integral is by Gauss and Legendre's rules of ``nodes`` and ``nodes`` + 1 points, the mean of both, so the cost
    is 2 ``nodes`` + 1 Hessian-vector products and two gradients. Raises SmoothnessUndefinedError when the gradient
    does not change or is not finite.
    """
    if nodes < 1:
        raise ValueError(f"the number of nodes must be at least 1, got {nodes}")
    w = objective.w
    step = (w + u) - w
    change = (objective.gradient(w + u) - objective.gradient(w)).double()
    size = float(change.norm())
    if size == 0 or not np.isfinite(size):
        raise SmoothnessUndefinedError(f"the gradient changes by {size:g} along the step, so there is nothing to share")
    rules = []
    for points in (nodes, nodes + 1):
        places, weights = np.polynomial.legendre.leggauss(points)
        total = torch.zeros_like(change)
        for place, weight in zip((1 + places) / 2, weights / 2, strict=True):
            total += float(weight) * objective.hessian_product(w + float(place) * step, step).double()
        rules.append(total)
    coarse, fine = rules
    share = float((change - (coarse + fine) / 2).norm()) / size
    return KinkShare(share=share, quadrature_error=float((fine - coarse).norm()) / size / 2, nodes=nodes)


FACTORS = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
"""From half to four times the step that training takes, as in the paper."""


def range_view(objective: Objective, u: Tensor, *, factors: Sequence[float] = FACTORS) -> RangeView:
    """Walk along u (p,) from the model's parameters, one full gradient for each factor.

    Raises SmoothnessUndefinedError for a zero update or when a loss or gradient on the way is not finite.
    """
    if not factors or min(factors) <= 0:
        raise ValueError(f"expected at least one factor, all above 0, got {list(factors)}")
    w = objective.w
    update_norm = float(u.double().norm())
    if update_norm == 0:
        raise SmoothnessUndefinedError("the update is zero, so there is no direction to look along")
    loss, gradient = objective.loss_and_gradient(w)
    losses, changes = [], []
    for factor in factors:
        value, moved = objective.loss_and_gradient(w + factor * u)
        losses.append(value)
        changes.append(float((moved - gradient).double().norm()))
    if not np.isfinite([loss, *losses, *changes]).all():
        raise SmoothnessUndefinedError("a loss or gradient along the update is not finite: the model has diverged")
    return RangeView(
        factors=tuple(factors),
        loss=loss,
        losses=tuple(losses),
        gradient_changes=tuple(changes),
        update_norm=update_norm,
    )

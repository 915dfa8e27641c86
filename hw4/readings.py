"""What the measuring functions give and records keep: one frozen dataclass for each measured thing, without torch."""

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from hw4.specs import NormMode

Finite = Annotated[float, Field(allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]

USABLE = 4  # a reading is usable from 4 times its noise floor up: independent noise then adds at most 3% to it


@dataclass(frozen=True, kw_only=True)
class Block:
    """One parameter tensor's part in a reading: its name, and norms of its weights, its update, its gradient change."""

    name: str
    weight_norm: NonNegative
    update_norm: NonNegative
    gradient_change_norm: NonNegative


@dataclass(frozen=True, kw_only=True)
class SmoothnessReading:
    """One smoothness measurement, with what is needed to judge it.

    ``smoothness`` is ``gradient_change_norm`` / ``update_norm``, where ``update_norm`` is ||u||_2 over all trained
    parameters. A value of the quotient means little without the ||u|| it was taken at: with ReLU or max-pooling it has
    no limit for small u. ``along_update`` = |u . dg| / ||u||^2 is its lower bound, the mean curvature along u;
    ``cosine`` is the angle's between u and dg. ``noise_floor`` is what rounding alone makes of the quotient, when it
    was asked for. ``norm_mode`` and ``chunk_size`` (examples) say which objective was differentiated. Without a
    ``learning_rate`` u was given, by whatever optimiser.
    """

    smoothness: NonNegative
    update_norm: NonNegative
    gradient_change_norm: NonNegative
    cosine: Annotated[float, Field(ge=-1, le=1)]
    along_update: NonNegative
    weight_norm: NonNegative
    learning_rate: NonNegative | None
    noise_floor: NonNegative | None
    norm_mode: NormMode
    chunk_size: int
    blocks: tuple[Block, ...]

    @property
    def scaled(self) -> float | None:
        """Learning rate x smoothness: gradient descent on an L-smooth quadratic is stable below 2; SGD's steps only."""
        return None if self.learning_rate is None else self.learning_rate * self.smoothness

    @property
    def usable(self) -> bool:
        """Whether the reading is far enough above its noise floor, as far as one was measured."""
        return self.noise_floor is None or self.smoothness >= USABLE * self.noise_floor

    def as_dict(self) -> dict[str, Any]:
        """All of it in plain numbers, lists and dicts, for JSON, CSV and loggers; ``scaled`` and ``usable`` too."""
        blocks = [asdict(block) for block in self.blocks]
        return {**asdict(self), "blocks": blocks, "scaled": self.scaled, "usable": self.usable}


@dataclass(frozen=True, kw_only=True)
class Sharpness:
    """Largest eigenvalue of the full loss's Hessian H, and how well it is known.

    ``residual`` is ||H v - value v|| / |value| for the unit vector v found; some eigenvalue of H lies within
    residual x |value| of the value. It is None where the value is 0 up to its own error, which no multiple of it can
    express. ``products`` Hessian-vector products were made.
    """

    value: Finite
    residual: NonNegative | None
    products: int


@dataclass(frozen=True, kw_only=True)
class KinkShare:
    """How much of a gradient's change along a step no Hessian accounts for.

    ``share`` = ||dg - integral of H(w + t u) u dt over [0, 1]|| / ||dg||: zero for smooth functions; ReLU and
    max-pooling leave a share where the step crosses their kinks. ``quadrature_error`` is the same quotient for the
    difference of two quadrature rules: what of the share the integral's own error may explain.
    """

    share: NonNegative
    quadrature_error: NonNegative
    nodes: int


@dataclass(frozen=True, kw_only=True)
class RangeView:
    """Loss, gradient change and smoothness along one direction, over a range of step lengths (Santurkar et al., 2018).

    ``factors`` s are multiples of the update u; ``losses`` (nats) and ``gradient_changes``
    ||grad f(w + s u) - grad f(w)|| belong to them, ``loss`` to w itself.
    """

    factors: tuple[Annotated[float, Field(gt=0)], ...]
    loss: Finite
    losses: tuple[Finite, ...]
    gradient_changes: tuple[NonNegative, ...]
    update_norm: NonNegative

    @property
    def smoothness(self) -> tuple[float, ...]:
        """Effective smoothness at each step length."""
        return tuple(
            change / (factor * self.update_norm)
            for factor, change in zip(self.factors, self.gradient_changes, strict=True)
        )

    @property
    def largest(self) -> float:
        """The largest effective smoothness over the range: the paper's 'effective beta-smoothness'."""
        return max(self.smoothness)


@dataclass(frozen=True, kw_only=True)
class LargestStep:
    """How far one may go down a direction, the full gradient or a minibatch's, before the full loss is raised.

    In learning rates: at ``stable`` the loss is not above where it started, at ``raised`` it is; 0 when it is at the
    smallest rate tried, None when it is not even at the largest. What lies between was not looked at closer than that,
    nor whether the loss is raised at some smaller rate. ``curvature`` is u . dg / ||u||^2 with its sign, over the step
    u that training would take: the loss's mean curvature along it.
    """

    direction: Literal["gradient", "minibatch"]
    stable: NonNegative
    raised: NonNegative | None
    curvature: Finite | None

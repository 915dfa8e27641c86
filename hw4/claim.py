"""The claim itself: does BatchNorm allow larger learning rates, and is smoothness why? Specs in, records out.

A ladder of learning rates trains both ConvNets at every rate; a landscape follows one run and measures around it.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict

import torch

from hw4.curvature import kink_share, range_view, sharpness
from hw4.data.images import Images
from hw4.experiments import BATCHES, DIRECTIONS, build_convnet, check_fit, identity, images_environment, seeded
from hw4.objective import Objective
from hw4.records import BlockNorms, ConvNetRecord, Curvature, LandscapeRecord, LandscapeRow, RangeRow, stable_bracket
from hw4.smoothness import SmoothnessUndefinedError, measure_directions
from hw4.specs import ConvNetSpec, LandscapeSpec
from hw4.training import train_pass

QUADRATURE_NODES = 3
"""Gauss-Legendre points for the kink share; the record carries the error that they leave."""
SHARPNESS_TOLERANCE = 0.02
"""Relative; sharpness moves by far more than that from pass to pass."""


def train_landscape(spec: LandscapeSpec, images: Images) -> LandscapeRecord:
    """Train one network as its run's spec says and measure what lies around it after every pass.

    Raises SpecError when spec and data do not fit.
    """
    net = spec.run
    check_fit(net, images)
    model = build_convnet(net).to(images.x_train.device)
    batches, directions = seeded(net.seed, BATCHES), seeded(net.seed, DIRECTIONS)
    rows = []
    for completed in range(net.passes + 1):
        if completed:
            train_pass(
                model, images.x_train, images.y_train, learning_rate=net.learning_rate, batch_size=net.batch_size,
                generator=batches,
            )  # fmt: skip
        objective = Objective(
            model, images.x_train, images.y_train, norm_mode=net.norm_mode, chunk_size=net.chunk_size
        )  # fmt: skip
        try:
            rows.append(_row(objective, net, directions, completed, curvature=completed in spec.curvature_passes))
        except SmoothnessUndefinedError:
            break  # diverged or dead: there is no landscape from here on
    return LandscapeRecord(
        key=spec.key, spec=spec, data=identity(images), environment=images_environment(images), rows=rows
    )


def _row(
    objective: Objective, net: ConvNetSpec, directions: torch.Generator, completed: int, *, curvature: bool
) -> LandscapeRow:
    state = directions.get_state()
    (reading,) = measure_directions(
        objective, 1, learning_rate=net.learning_rate, batch_size=net.batch_size, generator=directions
    )
    directions.set_state(state)
    u = -net.learning_rate * objective.minibatch_gradient(objective.w, net.batch_size, directions)
    view = range_view(objective, u)
    found = None
    if curvature:
        sharp, kinks = (
            sharpness(objective, tolerance=SHARPNESS_TOLERANCE),
            kink_share(objective, u, nodes=QUADRATURE_NODES),
        )
        found = Curvature(
            sharpness=sharp.value, residual=sharp.residual, products=sharp.products, kink_share=kinks.share,
            quadrature_error=kinks.quadrature_error,
        )  # fmt: skip
    return LandscapeRow(
        completed=completed,
        view=RangeRow(
            factors=list(view.factors), loss=view.loss, losses=list(view.losses),
            gradient_changes=list(view.gradient_changes), update_norm=view.update_norm,
        ),
        blocks=[BlockNorms.model_validate(asdict(block)) for block in reading.blocks],
        curvature=found,
    )  # fmt: skip


def between(ladder: Sequence[ConvNetRecord]) -> list[ConvNetSpec]:
    """For every network and seed, a run halfway (geometrically) between the largest stable rate and the next.

    Repeated, it narrows where training stops to work from the ladder's factor of two to as little as is wanted.
    """
    specs = []
    for setting in dict.fromkeys(run.spec.model_copy(update={"learning_rate": 1.0}) for run in ladder):
        mine = [run for run in ladder if run.spec.model_copy(update={"learning_rate": 1.0}) == setting]
        bracket = stable_bracket(mine)
        if bracket is not None:
            middle = float(f"{math.sqrt(bracket[0] * bracket[1]):.3g}")  # three digits keep the keys readable
            specs.append(setting.model_copy(update={"learning_rate": middle}))
    return specs

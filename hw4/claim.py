"""The claim itself: does BatchNorm allow larger learning rates, and is smoothness why? Specs in, records out.

A ladder of learning rates trains both ConvNets at every rate; a landscape follows one run and measures around it.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path

import torch

from hw4.curvature import kink_share, range_view, sharpness
from hw4.data.images import Images, load_images
from hw4.experiments import (
    BATCHES,
    DIRECTIONS,
    build_convnet,
    check_fit,
    identity,
    images_environment,
    same_circumstances,
    seeded,
    train_convnet,
)
from hw4.objective import Objective
from hw4.processes import spread
from hw4.records import (
    BlockNorms,
    ConvNetRecord,
    Curvature,
    LandscapeRecord,
    LandscapeRow,
    RangeRow,
    Store,
)
from hw4.smoothness import SmoothnessUndefinedError, measure_directions
from hw4.specs import ConvNetSpec, LandscapeSpec
from hw4.training import train_pass

QUADRATURE_NODES = 3
"""Gauss-Legendre points for the kink share; the record carries the error that they leave."""
SHARPNESS_TOLERANCE = 0.02
"""Relative; sharpness moves by far more than that from pass to pass."""

OnClaim = Callable[[ConvNetRecord | LandscapeRecord, bool], None]
"""Called for every run with its record and whether it was found on disk."""


def train_landscape(spec: LandscapeSpec, images: Images) -> LandscapeRecord:
    """Train one network as its run's spec says and measure what lies around it after every pass.

    Raises SpecError when spec and data do not fit.
    """
    net = spec.run
    check_fit(net, images)
    model = build_convnet(net)
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


@cache
def _images(name: str, subset: float) -> Images:
    """The images, once for each process."""
    return load_images(name, subset=subset)  # type: ignore[arg-type]


def make(spec: ConvNetSpec | LandscapeSpec, *, folder: Path) -> ConvNetRecord | LandscapeRecord:
    """Make one run in whatever process this is, and save its record."""
    torch.set_num_threads(1)
    record: ConvNetRecord | LandscapeRecord
    if isinstance(spec, LandscapeSpec):
        record = train_landscape(spec, _images(spec.run.data, spec.run.subset))
        Store(folder / "landscapes", LandscapeRecord).save(record)
    else:
        record = train_convnet(spec, _images(spec.data, spec.subset))
        Store(folder / "ladder", ConvNetRecord).save(record)
    return record


def run_claim(
    ladder: Sequence[ConvNetSpec],
    landscapes: Sequence[LandscapeSpec],
    images: Images,
    folder: Path,
    *,
    processes: int = 1,
    fresh: bool = False,
    on_claim: OnClaim | None = None,
) -> tuple[list[ConvNetRecord], list[LandscapeRecord]]:
    """Make every run that ``folder`` does not hold already, saving each as it ends; returns records in order."""
    torch.set_num_threads(1)
    rungs = Store(folder / "ladder", ConvNetRecord)
    views = Store(folder / "landscapes", LandscapeRecord)
    for store in (rungs, views):
        store.prepare()
    found: dict[str, ConvNetRecord] = {}
    seen: dict[str, LandscapeRecord] = {}

    def take(record: ConvNetRecord | LandscapeRecord, on_disk: bool) -> None:
        if isinstance(record, LandscapeRecord):
            seen[record.key] = record
        else:
            found[record.key] = record
        if on_claim is not None:
            on_claim(record, on_disk)

    todo: list[ConvNetSpec | LandscapeSpec] = []
    wanted: list[ConvNetSpec | LandscapeSpec] = [*landscapes, *ladder]  # landscapes take longest, so they start first
    for spec in wanted:
        check_fit(spec.run if isinstance(spec, LandscapeSpec) else spec, images)
        record = None if fresh else (views if isinstance(spec, LandscapeSpec) else rungs).load(spec.key)
        if record is not None and same_circumstances(record, images):
            take(record, True)
        else:
            todo.append(spec)
    for record in spread(partial(make, folder=folder), todo, processes=processes):
        take(record, False)
    return [found[spec.key] for spec in ladder], [seen[spec.key] for spec in landscapes]

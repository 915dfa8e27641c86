"""Exercises 1 and 3 as functions: specs and data in, records out."""

import math
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from hw4.curvature import kink_share, largest_steps, range_view, sharpness
from hw4.data.images import Data
from hw4.errors import SpecError
from hw4.models import ConvNet
from hw4.objective import Objective
from hw4.records import ConvNetRecord, DataIdentity, Environment, PassRow, PassTime, environment
from hw4.smoothness import SmoothnessUndefinedError, measure_directions
from hw4.specs import HOMEWORK_RATE, ConvNetSpec
from hw4.training import Evaluation, evaluate, train_pass
from hw4.variants import VARIANTS


def seeded(seed: int, purpose: int) -> torch.Generator:
    """A generator for one purpose of one run: independent streams from one seed, the same for every architecture."""
    (state,) = np.random.SeedSequence([seed, purpose]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


INITIAL_WEIGHTS, BATCHES, DIRECTIONS = range(3)

QUADRATURE_NODES = 3  # Gauss-Legendre points for the kink share; the record carries the error that they leave
SHARPNESS_TOLERANCE = 0.02  # relative; sharpness moves by far more than that from pass to pass


def build_convnet(spec: ConvNetSpec) -> ConvNet:
    """The spec's network with the weights of its seed; torch's global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeded(spec.seed, INITIAL_WEIGHTS).initial_seed())
        layer = VARIANTS[spec.variant].layer
        return ConvNet(norm=layer or ("batch" if spec.norm == "batch" else None), downsample=spec.downsample)


def check_fit(spec: ConvNetSpec, images: Data) -> None:
    """Raise SpecError when the data is not the spec's, or smaller than its batch."""
    if spec.data != images.name:
        raise SpecError(f"the run {spec.key} is about {spec.data}, but the data given is {images.name}")
    spec.check_size(len(images.x_train))


def train_convnet(
    spec: ConvNetSpec, images: Data, *, keep: Callable[[ConvNetRecord, ConvNet], None] | None = None
) -> ConvNetRecord:
    """Train one network as its spec says and record pass 0 to the last: loss, accuracy, smoothness, seconds.

    It is trained on the device that holds the images. A run whose loss stops being finite ends there. A run has
    diverged when that happened, or when it ends with a higher train loss than it began with. ``keep`` is given the
    record and the trained network of a run that did not. Raises SpecError when spec and data do not fit.
    """
    check_fit(spec, images)
    model, directions = build_convnet(spec).to(images.x_train.device), seeded(spec.seed, DIRECTIONS)
    rows, times = [_row(model, spec, images, directions, completed=0)], list[PassTime]()
    for completed, (loss, taken) in enumerate(training_passes(model, spec, images), start=1):
        times.append(taken)
        if spec.evaluated_after(completed) or not math.isfinite(loss):
            rows.append(_row(model, spec, images, directions, completed=completed))
            if rows[-1].train_loss is None:
                break
    first, last = rows[0].train_loss, rows[-1].train_loss
    record = ConvNetRecord(
        key=spec.key,
        spec=spec,
        data=identity(images),
        environment=images_environment(images),
        rows=rows,
        times=times,
        diverged=first is None or last is None or last > first,
    )
    if keep is not None and not record.diverged:
        keep(record, model)
    return record


def training_passes(model: nn.Module, spec: ConvNetSpec, images: Data) -> Iterator[tuple[float, PassTime]]:
    """Train a network in place as its spec says, a pass for each item: its mean loss over the minibatches, its seconds.

    What is done with the network between two items is neither timed nor changes the minibatches.
    """
    x, y = images.x_train, images.y_train
    how: dict[str, Any] = {"batch_size": spec.batch_size, "momentum": spec.momentum}
    how |= {"generator": seeded(spec.seed, BATCHES)}
    velocities = [torch.zeros_like(p) for p in model.parameters()] if spec.momentum else []
    for completed in range(1, spec.passes + 1):
        rates = _rates(model, spec, completed)
        wall, cpu = time.perf_counter(), time.process_time()
        loss = train_pass(model, x, y, learning_rate=rates, velocities=velocities, **how)
        yield loss, PassTime(wall_seconds=time.perf_counter() - wall, cpu_seconds=time.process_time() - cpu)


def _rates(model: nn.Module, spec: ConvNetSpec, completed: int) -> float | list[float]:
    """The learning rate of a pass, the ``completed``-th; or of every parameter, where the head has its own."""
    rate = HOMEWORK_RATE if completed <= spec.warmup_passes else spec.learning_rate
    if spec.head_rate is None:
        return rate
    head = ("linear.", f"norms.{len(cast(ConvNet, model).norms) - 1}.")
    return [spec.head_rate if name.startswith(head) else rate for name, _ in model.named_parameters()]


def identified(data: Data) -> dict[str, Any]:
    """What every record says about its data."""
    sizes = {"n_train": len(data.x_train), "n_test": len(data.x_test)}
    return {"name": data.name, "title": data.title, "checksum": data.checksum, **sizes}


def identity(images: Data) -> DataIdentity:
    """What a record says about its images."""
    return DataIdentity.model_validate(identified(images))


def images_environment(images: Data) -> Environment:
    """Where and with what this process trains on images."""
    return environment(
        threads=torch.get_num_threads(),
        dtype=str(images.x_train.dtype).removeprefix("torch."),
        device=images.x_train.device.type,
    )


def _row(model: ConvNet, spec: ConvNetSpec, images: Data, directions: torch.Generator, *, completed: int) -> PassRow:
    """Evaluate and measure the model as it stands; what has no finite value becomes null."""
    beginning = {name: getattr(spec, name) for name in ("data", "norm", "downsample", "subset", "seed")}
    found = evaluate_on(model, images) if completed else _evaluate_initial(ConvNetSpec(**beginning), images)
    (train_loss, train_accuracy), (test_loss, test_accuracy) = map(_scores, found)
    return PassRow(
        completed=completed,
        train_loss=train_loss,
        train_accuracy=train_accuracy,
        test_loss=test_loss,
        test_accuracy=test_accuracy,
        **_measured(model, spec, images, directions, completed),
    )


def evaluate_on(model: nn.Module, images: Data) -> tuple[Evaluation, Evaluation]:
    """Loss and accuracy on training and on test images."""
    return evaluate(model, images.x_train, images.y_train), evaluate(model, images.x_test, images.y_test)


@lru_cache(maxsize=100)
def _evaluate_initial(beginning: ConvNetSpec, images: Data) -> tuple[Evaluation, Evaluation]:
    """The same of a seed's initial weights, once for all runs that begin with them: it takes as long as a pass."""
    return evaluate_on(build_convnet(beginning).to(images.x_train.device), images)


def _measured(
    model: ConvNet, spec: ConvNetSpec, images: Data, directions: torch.Generator, completed: int
) -> dict[str, Any]:
    """What the spec asks to be measured after these passes, as far as it has a value: a diverged model gives none."""
    found: dict[str, Any] = {"readings": []}
    at = {*spec.curvature_passes, *spec.step_passes}
    if not spec.read_after(completed) and completed not in at:
        return found
    objective = Objective(model, images.x_train, images.y_train, norm_mode=spec.norm_mode, chunk_size=spec.chunk_size)
    first = directions.clone_state()
    try:
        if spec.read_after(completed):
            found["readings"] = measure_directions(
                objective,
                spec.directions,
                learning_rate=spec.learning_rate,
                batch_size=spec.batch_size,
                generator=directions,
                noise_floor="reordered" if spec.noise_floor else None,
            )
        if completed in spec.step_passes:
            found["steps"] = largest_steps(objective, spec.learning_rate, spec.batch_size, first.clone_state())
        if spec.range_view or (spec.kinks and completed in spec.curvature_passes):
            u = -spec.learning_rate * objective.minibatch_gradient(objective.w, spec.batch_size, first)
        if spec.range_view and spec.read_after(completed):
            found["view"] = range_view(objective, u)
        if completed in spec.curvature_passes:
            found["sharpness"] = sharpness(objective, tolerance=SHARPNESS_TOLERANCE)
            if spec.kinks:
                found["kinks"] = kink_share(objective, u, nodes=QUADRATURE_NODES)
    except SmoothnessUndefinedError:
        pass
    return found


def _scores(evaluation: Evaluation) -> tuple[float | None, float | None]:
    """Loss and accuracy, or neither: scores that are not numbers pick class 0, whose share is no accuracy."""
    return (evaluation.loss, evaluation.accuracy) if math.isfinite(evaluation.loss) else (None, None)

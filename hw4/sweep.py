"""Exercise 2: the sweep of text CNNs over strides, trials trained together."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F

from hw4.data.images import Data
from hw4.data.vectors import logistic_share, majority_share
from hw4.errors import SpecError
from hw4.experiments import BATCHES, INITIAL_WEIGHTS, identified, seeded
from hw4.models import TextCNN, TextCNNEnsemble
from hw4.records import TEXT_PACKAGES, Environment, QuestionIdentity, TextCNNRecord, environment
from hw4.specs import HELD_OUT_EVERY, TextCNNSpec
from hw4.specs import groups as groups  # noqa: PLC0414  the gate asks the sweep of any revision for them
from hw4.training import chunks, train_ensemble

ORDER = 3  # what a permutation's seed is for, beside the purposes of a run's seed


def identity(questions: Data) -> QuestionIdentity:
    """What a record says about its data, with the two baselines every accuracy is to be seen against."""
    shares = {"majority_accuracy": majority_share(questions), "logistic_accuracy": logistic_share(questions)}
    return QuestionIdentity.model_validate({**identified(questions), "vectors": questions.vectors, **shares})


def train_trials(
    specs: Sequence[TextCNNSpec],
    questions: Data,
    data: QuestionIdentity,
    *,
    keep: Callable[[TextCNNRecord, TextCNN], None] | None = None,
) -> list[TextCNNRecord]:
    """Train trials that differ in nothing else as one ensemble and record each.

    A trial has diverged when its parameters or losses are not finite, or when it ends with a higher train loss than
    it began with. ``keep`` is given the record and the trained network of each trial that has not. Raises SpecError
    when specs and data do not fit.
    """
    if len({spec.model_copy(update={"trial": 0}) for spec in specs}) != 1:
        raise SpecError("trials that are trained together must differ in the trial only")
    spec = specs[0]
    if spec.data != questions.name:
        raise SpecError(f"the run {spec.key} is about {spec.data}, but the data given is {questions.name}")
    questions = as_seen(questions, spec)
    ensemble = TextCNNEnsemble.from_models([_build(each) for each in specs])
    first, _ = _evaluate(ensemble, questions.x_train, questions.y_train)
    train_ensemble(
        ensemble,
        questions.x_train,
        questions.y_train,
        learning_rate=spec.learning_rate,
        momentum=spec.momentum,
        batch_size=spec.batch_size,
        epochs=spec.epochs,
        generators=[seeded(each.trial, BATCHES) for each in specs],
    )
    last, _ = _evaluate(ensemble, questions.x_train, questions.y_train)
    test, correct = _evaluate(ensemble, questions.x_test, questions.y_test)
    where = questions_environment()
    records = [
        _record(each, data, where, end, right if end <= start and math.isfinite(tested) else None)
        for each, start, end, tested, right in zip(specs, first, last, test, correct.tolist(), strict=True)
    ]
    if keep is not None:
        for record, model in zip(records, ensemble.to_models(), strict=True):
            if not record.diverged:
                keep(record, model)
    return records


def as_seen(questions: Data, spec: TextCNNSpec) -> Data:
    """The questions of a run: any that it holds out in the test's place, the vectors' numbers in its order."""
    x, y = questions.x_train, questions.y_train
    if spec.held_out:
        out = torch.arange(len(x)) % HELD_OUT_EVERY == 0
        questions = replace(questions, x_train=x[~out], y_train=y[~out], x_test=x[out], y_test=y[out])
    if spec.permutation is not None:
        order = torch.randperm(x.shape[-1], generator=seeded(spec.permutation, ORDER))
        questions = replace(questions, x_train=questions.x_train[..., order], x_test=questions.x_test[..., order])
    return questions


def _build(spec: TextCNNSpec) -> TextCNN:
    """The trial's network with the weights of its seed; torch's global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeded(spec.trial, INITIAL_WEIGHTS).initial_seed())
        return TextCNN(spec.stride)


def _record(
    spec: TextCNNSpec, data: QuestionIdentity, where: Environment, train_loss: float, right: list[bool] | None
) -> TextCNNRecord:
    """The record of a trial: which answers are right, or None where it diverged."""
    return TextCNNRecord(
        key=spec.key,
        spec=spec,
        stride=spec.stride,
        trial=spec.trial,
        data=data,
        environment=where,
        test_accuracy=None if right is None else sum(right) / len(right),
        correct=right,
        train_loss=train_loss if math.isfinite(train_loss) else None,
        diverged=right is None,
    )


@torch.no_grad()
def _evaluate(ensemble: TextCNNEnsemble, x: torch.Tensor, y: torch.Tensor) -> tuple[list[float], torch.Tensor]:
    """Mean loss of every trial over x (n, 1, length), y (n,), and which answers are right: (trials, n)."""
    losses, correct = torch.zeros(ensemble.trials, dtype=torch.float64), []
    for inputs, targets in chunks(x, y, 100):
        scores = ensemble(inputs.expand(ensemble.trials, *inputs.shape))
        classes = targets.expand(ensemble.trials, len(targets))
        losses += F.nll_loss(scores.mT, classes, reduction="none").double().sum(1)
        correct.append(scores.argmax(-1) == classes)
    return (losses / len(x)).tolist(), torch.cat(correct, dim=1)


def questions_environment() -> Environment:
    """Where and with what this process trains on questions."""
    return environment(threads=torch.get_num_threads(), dtype="float32", packages=TEXT_PACKAGES)

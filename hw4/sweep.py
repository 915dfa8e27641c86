"""Exercise 2: the sweep of text CNNs over strides, trials trained together, spread over processes or any executor."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, as_completed
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F

from hw4.data.vectors import QuestionVectors, logistic_share, majority_share
from hw4.errors import SpecError
from hw4.experiments import BATCHES, INITIAL_WEIGHTS, seeded
from hw4.geometry import TEXT_LENGTH, pooling_windows
from hw4.models import TEXT_FILTERS, TextCNN, TextCNNEnsemble
from hw4.processes import spread
from hw4.records import TEXT_PACKAGES, Environment, QuestionIdentity, Store, TextCNNRecord, environment
from hw4.specs import TRIALS, TextCNNSpec, sweep_specs
from hw4.training import chunks, train_ensemble

CACHED_FLOATS = 2**18
"""Trials are trained together while one intermediate of theirs stays below this many floats: 1 MiB, a core's cache."""

OnTrial = Callable[[TextCNNRecord, bool], None]
"""Called for every trial as it ends, with its record and whether it was found on disk."""

RESCUE_RATES = (0.05, 0.025, 0.0125, 0.00625)
"""Learning rates tried, largest first, for a stride of which most trials diverge."""


def identity(questions: QuestionVectors) -> QuestionIdentity:
    """What a record says about its data, with the two baselines every accuracy is to be seen against."""
    return QuestionIdentity(
        name=questions.name, title=questions.title, vectors=questions.vectors, checksum=questions.checksum,
        n_train=len(questions.x_train), n_test=len(questions.x_test),
        majority_accuracy=majority_share(questions), logistic_accuracy=logistic_share(questions),
    )  # fmt: skip


def groups(specs: Sequence[TextCNNSpec]) -> list[list[TextCNNSpec]]:
    """Trials that are trained together: equal but for the trial, as many as fit the cache; costliest group first."""
    found: list[list[TextCNNSpec]] = []
    for setting in dict.fromkeys(spec.model_copy(update={"trial": 0}) for spec in specs):
        trials = [spec for spec in specs if spec.model_copy(update={"trial": 0}) == setting]
        together = max(1, CACHED_FLOATS // (_windows(setting) * TEXT_FILTERS * setting.batch_size))
        found += [trials[start : start + together] for start in range(0, len(trials), together)]
    return sorted(found, key=lambda group: -sum(map(relative_cost, group)))


def relative_cost(spec: TextCNNSpec) -> float:
    """About how long a trial takes, in training passes of exercise 1's pooled network."""
    return 1e-4 * spec.epochs * (4 + _windows(spec))


def _windows(spec: TextCNNSpec) -> int:
    return len(pooling_windows(TEXT_LENGTH, spec.stride))


def train_trials(
    specs: Sequence[TextCNNSpec], questions: QuestionVectors, data: QuestionIdentity
) -> list[TextCNNRecord]:
    """Train trials that differ in nothing else as one ensemble and record each.

    A trial has diverged when its parameters or losses are not finite, or when it ends with a higher train loss than
    it began with. Raises SpecError when specs and data do not fit.
    """
    if len({spec.model_copy(update={"trial": 0}) for spec in specs}) != 1:
        raise SpecError("trials that are trained together must differ in the trial only")
    spec = specs[0]
    if spec.data != questions.name:
        raise SpecError(f"the run {spec.key} is about {spec.data}, but the data given is {questions.name}")
    models = []
    for each in specs:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeded(each.trial, INITIAL_WEIGHTS).initial_seed())
            models.append(TextCNN(spec.stride))
    ensemble = TextCNNEnsemble.from_models(models)
    first, _ = _evaluate(ensemble, questions.x_train, questions.y_train)
    train_ensemble(
        ensemble, questions.x_train, questions.y_train, learning_rate=spec.learning_rate, momentum=spec.momentum,
        batch_size=spec.batch_size, epochs=spec.epochs, generators=[seeded(each.trial, BATCHES) for each in specs],
    )  # fmt: skip
    last, _ = _evaluate(ensemble, questions.x_train, questions.y_train)
    test, correct = _evaluate(ensemble, questions.x_test, questions.y_test)
    where = _environment()
    records = []
    for index, each in enumerate(specs):
        diverged = not (math.isfinite(last[index]) and math.isfinite(test[index]) and last[index] <= first[index])
        right = None if diverged else correct[index].tolist()
        records.append(
            TextCNNRecord(
                key=each.key, spec=each, stride=each.stride, trial=each.trial, data=data, environment=where,
                test_accuracy=None if right is None else sum(right) / len(right), correct=right,
                train_loss=float(last[index]) if math.isfinite(last[index]) else None, diverged=diverged,
            )
        )  # fmt: skip
    return records


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


def _environment() -> Environment:
    return environment(threads=torch.get_num_threads(), dtype="float32", packages=TEXT_PACKAGES)


def serves(record: TextCNNRecord, data: QuestionIdentity) -> bool:
    """Whether a trial made now would give this record: equal data, computing code and versions.

    Trials may come from machines with other processors, which change rounding only.
    """
    now = _environment()
    return record.data == data and all(
        getattr(now, field) == getattr(record.environment, field) for field in ("versions", "dtype", "code")
    )


def missing(
    specs: Sequence[TextCNNSpec], store: Store[TextCNNRecord], data: QuestionIdentity
) -> dict[TextCNNSpec, TextCNNRecord | None]:
    """What the store holds of some trials: the record where one serves, None where the trial is to be made."""
    loaded = {spec: store.load(spec.key) for spec in specs}
    return {spec: record if record is not None and serves(record, data) else None for spec, record in loaded.items()}


def make_group(
    specs: Sequence[TextCNNSpec], questions: QuestionVectors, data: QuestionIdentity, folder: Path | None = None
) -> list[TextCNNRecord]:
    """Train a group of trials in whatever process or machine this runs, and save each record if a folder is given."""
    torch.set_num_threads(1)
    records = train_trials(specs, questions, data)
    if folder is not None:
        for record in records:
            Store(folder, TextCNNRecord).save(record)
    return records


def sweep(
    specs: Sequence[TextCNNSpec],
    questions: QuestionVectors,
    store: Store[TextCNNRecord],
    *,
    processes: int = 1,
    executor: Executor | None = None,
    fresh: bool = False,
    on_trial: OnTrial | None = None,
) -> list[TextCNNRecord]:
    """Make every trial that the store does not hold already, group by group, and return all records in order.

    Groups go to ``executor``, which may be on other machines, or to so many processes of one thread each. Every trial
    is saved as its group ends, so whatever stops the sweep, nothing finished is lost and the same call goes on.
    """
    torch.set_num_threads(1)
    store.prepare()
    data = identity(questions)
    known = dict.fromkeys(specs) if fresh else missing(specs, store, data)
    records: dict[TextCNNSpec, TextCNNRecord] = {}

    def take(found: Sequence[TextCNNRecord], *, on_disk: bool) -> None:
        for record in found:
            records[record.spec] = record
            if on_trial is not None:
                on_trial(record, on_disk)

    take([record for record in known.values() if record is not None], on_disk=True)
    todo = groups([spec for spec, record in known.items() if record is None])
    if executor is not None:
        for future in as_completed([executor.submit(make_group, group, questions, data) for group in todo]):
            for record in future.result():
                store.save(record)
            take(future.result(), on_disk=False)
    else:
        make = partial(make_group, questions=questions, data=data, folder=store.folder)
        for found in spread(make, todo, processes=processes):
            take(found, on_disk=False)
    return [records[spec] for spec in specs]


def sweep_and_rescue(
    specs: Sequence[TextCNNSpec],
    questions: QuestionVectors,
    store: Store[TextCNNRecord],
    *,
    processes: int = 1,
    executor: Executor | None = None,
    fresh: bool = False,
    on_trial: OnTrial | None = None,
) -> list[TextCNNRecord]:
    """Sweep, then show for each stride of which most trials diverged at which smaller learning rate none does.

    At smaller rates at most the homework's ten trials are made, however many the sweep has.
    Returns the sweep's records followed by those of the learning rates tried.
    """
    go = partial(
        sweep, questions=questions, store=store, processes=processes, executor=executor, fresh=fresh, on_trial=on_trial
    )
    records = go(specs)
    for stride in dict.fromkeys(spec.stride for spec in specs):
        trials = [record for record in records if record.stride == stride]
        if 2 * sum(record.diverged for record in trials) <= len(trials):
            continue
        settings = trials[0].spec.model_dump(exclude={"data", "stride", "trial", "learning_rate"})
        for rate in RESCUE_RATES:
            if rate >= trials[0].spec.learning_rate:
                continue
            tried = go(
                sweep_specs(
                    trials[0].spec.data,
                    strides=[stride],
                    trials=min(len(trials), TRIALS),
                    learning_rate=rate,
                    **settings,
                )
            )
            records += tried
            if not any(record.diverged for record in tried):
                break
    return records

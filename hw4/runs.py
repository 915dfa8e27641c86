"""Runs of every kind: found in their folder, or made over processes and saved as each ends.

What computes is imported where it computes: a process that only hands out work starts it a second sooner.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hw4.cluster import Cluster
from hw4.errors import DataError
from hw4.machine import processor_name
from hw4.processes import spread
from hw4.records import ConvNetRecord, QuestionIdentity, Store, TextCNNRecord
from hw4.specs import ConvNetSpec, Dataset, QuestionSet, TextCNNSpec, groups
from hw4.studies import Spec, Study, cost

if TYPE_CHECKING:
    from hw4.data.images import Images
    from hw4.data.vectors import QuestionVectors

Record = ConvNetRecord | TextCNNRecord
OnRecord = Callable[[Record, bool], None]
"""Called for every run as it ends, with its record and whether it was found on disk."""
OnFailure = Callable[[Spec, Exception], None]
"""Called for every run that could not be made, with what stood in the way."""

KINDS: Mapping[type[Spec], type[Record]] = {ConvNetSpec: ConvNetRecord, TextCNNSpec: TextCNNRecord}


@dataclass(frozen=True)
class Task:
    """What one process makes at a time: one run, the trials that train together, or runs to be timed by one machine."""

    specs: tuple[Spec, ...]
    folder: Path
    device: str


@cache
def _images(data: Dataset, subset: float, device: str) -> "Images":
    """The images of a run, once for each process: not for each run, of which there may be hundreds."""
    from hw4.data.images import load_images

    return load_images(data, subset=subset).to(device)


@cache
def _questions(name: QuestionSet) -> "tuple[QuestionVectors, QuestionIdentity]":
    """The questions, once for each process."""
    from hw4.data.vectors import load_questions
    from hw4.sweep import identity

    questions = load_questions(name)
    return questions, identity(questions)


def _data(task: Task) -> Any:
    """What a task is about, for a machine that may not have it."""
    first = task.specs[0]
    return _questions(first.data) if isinstance(first, TextCNNSpec) else _images(first.data, first.subset, "cpu")


def make(task: Task, data: Any = None) -> list[Record]:
    """Make a task's runs in whatever process or machine this is, which loads the data unless it is given."""
    from hw4 import experiments, sweep

    _one_thread()
    first = task.specs[0]
    if isinstance(first, TextCNNSpec):
        trials = [spec for spec in task.specs if isinstance(spec, TextCNNSpec)]
        return list(sweep.train_trials(trials, *(data or _questions(first.data))))
    images = data.to(task.device) if data else _images(first.data, first.subset, task.device)
    return [experiments.train_convnet(spec, images) for spec in task.specs if isinstance(spec, ConvNetSpec)]


def _found(spec: Spec, folder: Path, device: str, cpus: Collection[str]) -> Record | None:
    """The record of a run, where the folder holds one that a run made now would repeat, here or on other processors."""
    record = Store(folder, KINDS[type(spec)]).load(spec.key)
    if record is None:
        return None  # without asking for the data, which take longer than many a run
    from hw4 import experiments, sweep

    _one_thread()
    try:
        if isinstance(record, TextCNNRecord):
            return record if sweep.serves(record, _questions(record.spec.data)[1]) else None
        there = record.environment.cpu in cpus
        where = record.environment.model_copy(update={"cpu": processor_name()} if there else {})
        made = record.model_copy(update={"environment": where})
        images = _images(record.spec.data, record.spec.subset, device)
        return record if experiments.same_circumstances(made, images) else None
    except DataError:
        return None  # whoever makes the run is told, and other runs go on


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _tasks(missing: Sequence[tuple[Path, Spec]], device: str, *, remote: bool) -> list[Task]:
    """Runs to make as tasks, the longest first; on other machines those of which seconds are compared go together."""
    timed: dict[tuple[Path, Spec], list[Spec]] = {}
    for folder, spec in missing:
        if not isinstance(spec, TextCNNSpec):
            timed.setdefault((folder, _timed_beside(spec) if remote else spec), []).append(spec)
    tasks = [Task(tuple(specs), folder, device) for (folder, _), specs in timed.items()]
    for folder in dict.fromkeys(folder for folder, _ in missing):
        texts = [spec for where, spec in missing if where == folder and isinstance(spec, TextCNNSpec)]
        tasks += [Task(tuple(group), folder, device) for group in groups(texts)]
    return sorted(tasks, key=lambda task: -sum(map(cost, task.specs)))


def _timed_beside(spec: ConvNetSpec) -> ConvNetSpec:
    """The same for runs of which the page compares seconds: pooled or strided, of any length, but for that equal.

    Of the claim's runs, which are not evaluated after each pass, no seconds are compared.
    """
    either = {"downsample": "pool", "passes": 1, "directions": 0}
    return spec.model_copy(update=either) if spec.row_passes is None else spec


def make_all(
    studies: Sequence[tuple[Path, Study]],
    *,
    processes: int = 1,
    executor: Cluster | None = None,
    fresh: bool = False,
    device: str = "cpu",
    on_record: OnRecord = lambda _record, _on_disk: None,
    on_failure: OnFailure | None = None,
) -> list[Record]:
    """Make every run that the studies want and their folders do not hold, until nothing more is wanted.

    Returns all records in the order in which they were wanted. Runs go, the longest first, to so many processes of one
    thread each, or to a cluster. A stored record serves when a run made now would have its numbers, unless all is
    to be made ``fresh``. Every run is saved as it ends: after whatever stops this, the same call goes on from there.
    ``on_failure`` is told what cannot be made, and the rest goes on; without it the first such error is raised.
    """
    made: dict[Path, dict[Spec, Record | None]] = {folder: {} for folder, _ in studies}
    queue: list[Task] = []
    cpus = executor.cpus if executor else ()

    def take(folder: Path, spec: Spec, record: Record, *, on_disk: bool) -> None:
        made[folder][spec] = record
        on_record(record, on_disk)

    def ask() -> None:
        """Look for what is wanted now, and queue what is not found, until nothing new is wanted."""
        while new := _new(studies, made):
            missing = []
            for folder, spec in new:
                Store(folder, KINDS[type(spec)]).prepare()
                made[folder][spec] = None
                if not fresh and (record := _found(spec, folder, device, cpus)) is not None:
                    take(folder, spec, record, on_disk=True)
                else:
                    missing.append((folder, spec))
            queue.extend(_tasks(missing, device, remote=executor is not None))

    ask()
    fail = on_failure and partial(_fail, on_failure)
    for task, results in spread(make, queue, share=_data, on_failure=fail, processes=processes, executor=executor):
        for spec, result in zip(task.specs, results, strict=True):
            Store(task.folder, KINDS[type(spec)]).save(result)
            take(task.folder, spec, result, on_disk=False)
        ask()
    return [record for runs in made.values() for record in runs.values() if record is not None]


def _fail(on_failure: OnFailure, task: Task, error: Exception) -> None:
    for spec in task.specs:
        on_failure(spec, error)


def _new(
    studies: Sequence[tuple[Path, Study]], made: Mapping[Path, Mapping[Spec, Record | None]]
) -> list[tuple[Path, Spec]]:
    """What the studies want now and did not want before, each run once."""
    wanted = [(folder, spec) for folder, study in studies for spec in study(made[folder])]
    return [each for each in dict.fromkeys(wanted) if each[1] not in made[each[0]]]

"""Runs of every kind: found in their folder, or made over processes and saved as each ends.

What computes is imported where it computes: a process that only hands out work starts it a second sooner.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, cast

from hw4.errors import DataError
from hw4.plan import Spec, by_setting, cost, groups, rescue_trials
from hw4.processes import spread
from hw4.records import ConvNetRecord, LandscapeRecord, QuestionIdentity, Store, TextCNNRecord
from hw4.specs import ConvNetSpec, LandscapeSpec, QuestionSet, TextCNNSpec

if TYPE_CHECKING:
    from hw4.data.images import Images
    from hw4.data.vectors import QuestionVectors

Made = ConvNetRecord | LandscapeRecord | TextCNNRecord
OnRecord = Callable[[Made, bool], None]
"""Called for every run as it ends, with its record and whether it was found on disk."""
OnFailure = Callable[[Spec, Exception], None]
"""Called for every run that could not be made, with what stood in the way."""

KINDS: Mapping[type[Spec], type[Made]] = {
    ConvNetSpec: ConvNetRecord, LandscapeSpec: LandscapeRecord, TextCNNSpec: TextCNNRecord,
}  # fmt: skip


@dataclass(frozen=True)
class Task:
    """What one process makes at a time: one run, or the trials that train together.

    ``questions`` are given to machines that may not have them; other processes load them.
    """

    specs: tuple[Spec, ...]
    folder: Path
    device: str
    questions: "tuple[QuestionVectors, QuestionIdentity] | None" = None


@cache
def _images(spec: ConvNetSpec, device: str) -> "Images":
    """The images of a run, once for each process."""
    from hw4.data.images import load_images

    return load_images(spec.data, subset=spec.subset).to(device)


@cache
def _questions(name: QuestionSet) -> "tuple[QuestionVectors, QuestionIdentity]":
    """The questions, once for each process."""
    from hw4.data.vectors import load_questions
    from hw4.sweep import identity

    questions = load_questions(name)
    return questions, identity(questions)


def make(task: Task) -> list[Made]:
    """Make a task's runs in whatever process or machine this is."""
    from hw4 import claim, experiments, sweep

    _one_thread()
    first = task.specs[0]
    if isinstance(first, TextCNNSpec):
        trials = [spec for spec in task.specs if isinstance(spec, TextCNNSpec)]
        return list(sweep.train_trials(trials, *(task.questions or _questions(first.data))))
    if isinstance(first, LandscapeSpec):
        return [claim.train_landscape(first, _images(first.run, task.device))]
    return [experiments.train_convnet(first, _images(first, task.device))]


def _found(spec: Spec, folder: Path, device: str) -> Made | None:
    """The record of a run, where the folder holds one that a run made now would repeat."""
    record = Store(folder, KINDS[type(spec)]).load(spec.key)
    if record is None:
        return None  # without asking for the data, which take longer than many a run
    from hw4 import experiments, sweep

    _one_thread()
    try:
        if isinstance(spec, TextCNNSpec):
            assert isinstance(record, TextCNNRecord)
            return record if sweep.serves(record, _questions(spec.data)[1]) else None
        assert not isinstance(record, TextCNNRecord)
        net = spec.run if isinstance(spec, LandscapeSpec) else spec
        return record if experiments.same_circumstances(record, _images(net, device)) else None
    except DataError:
        return None  # whoever makes the run is told, and other runs go on


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _tasks(missing: Sequence[tuple[Path, Spec]], device: str, *, remote: bool) -> list[Task]:
    """Runs to make as tasks, the longest first."""
    tasks = [Task((spec,), folder, device) for folder, spec in missing if not isinstance(spec, TextCNNSpec)]
    for folder in dict.fromkeys(folder for folder, _ in missing):
        texts = [spec for where, spec in missing if where == folder and isinstance(spec, TextCNNSpec)]
        tasks += [
            Task(tuple(group), folder, device, _questions(group[0].data) if remote else None) for group in groups(texts)
        ]
    return sorted(tasks, key=lambda task: -sum(map(cost, task.specs)))


def make_all(
    wanted: Sequence[tuple[Path, Spec]],
    *,
    processes: int = 1,
    executor: Executor | None = None,
    fresh: bool = False,
    device: str = "cpu",
    rescue: bool = False,
    on_record: OnRecord | None = None,
    on_failure: OnFailure | None = None,
) -> list[Made]:
    """Make every run that its folder does not hold already, the longest first, and return all records in order.

    Runs go to so many processes of one thread each, or to ``executor``, which may be on other machines. Folders are
    created, and proved writable, before anything is trained. A stored record serves when its data, its computing code,
    versions and precision are those of this process, and for ConvNets processor, device and threads; ``fresh`` makes
    it again all the same. Every run is saved as it ends, so whatever stops this, nothing finished is lost and the same
    call goes on. ``rescue`` adds, after the wanted ones, trials of diverging strides at smaller learning rates, see
    :func:`hw4.plan.rescue_trials`. With ``on_failure`` a run that cannot be made is told there and stops no other;
    without it the first such error is raised. Raises SpecError when a spec and its data do not fit.
    """
    records: dict[Path, dict[Spec, Made | None]] = {folder: {} for folder, _ in wanted}
    order: list[tuple[Path, Spec]] = []
    queue: list[Task] = []

    def take(folder: Path, spec: Spec, record: Made, *, on_disk: bool) -> None:
        records[folder][spec] = record
        if on_record is not None:
            on_record(record, on_disk)

    def want(pairs: Sequence[tuple[Path, Spec]]) -> None:
        known = {(folder, spec): _found(spec, folder, device) for folder, spec in pairs}
        for folder, kind in dict.fromkeys((folder, KINDS[type(spec)]) for folder, spec in known):
            Store(folder, kind).prepare()
        order.extend(known)
        missing = []
        for (folder, spec), found in known.items():
            if found is not None and not fresh:
                take(folder, spec, found, on_disk=True)
            else:
                records[folder][spec] = None
                missing.append((folder, spec))
        queue.extend(_tasks(missing, device, remote=executor is not None))

    sweeps = [
        (folder, trials) for folder in records if rescue
        for trials in by_setting([spec for where, spec in wanted if where == folder and isinstance(spec, TextCNNSpec)])
    ]  # fmt: skip

    def want_rescue() -> None:
        for folder, trials in sweeps:
            mine = cast("Mapping[TextCNNSpec, TextCNNRecord | None]", records[folder])  # only trials are looked up
            while more := rescue_trials(trials, mine):
                want([(folder, spec) for spec in more])

    def fail(task: Task, error: Exception) -> None:
        assert on_failure is not None
        for spec in task.specs:
            on_failure(spec, error)

    want(wanted)
    want_rescue()
    failing = None if on_failure is None else fail
    for task, results in spread(make, queue, processes=processes, executor=executor, on_failure=failing):
        store = Store(task.folder, KINDS[type(task.specs[0])])
        for spec, result in zip(task.specs, results, strict=True):
            store.save(result)
            take(task.folder, spec, result, on_disk=False)
        want_rescue()
    return [record for folder, spec in order if (record := records[folder][spec]) is not None]

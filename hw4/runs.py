"""Runs of every kind: found in their folder, or made over processes and saved as each ends."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from hw4 import claim, experiments, sweep
from hw4.data.images import Images, load_images
from hw4.data.vectors import QuestionVectors, load_questions
from hw4.processes import spread
from hw4.records import ConvNetRecord, LandscapeRecord, QuestionIdentity, Store, TextCNNRecord
from hw4.specs import ConvNetSpec, LandscapeSpec, QuestionSet, TextCNNSpec

Spec = ConvNetSpec | LandscapeSpec | TextCNNSpec
Made = ConvNetRecord | LandscapeRecord | TextCNNRecord
OnRecord = Callable[[Made, bool], None]
"""Called for every run as it ends, with its record and whether it was found on disk."""

KINDS: Mapping[type[Spec], type[Made]] = {
    ConvNetSpec: ConvNetRecord, LandscapeSpec: LandscapeRecord, TextCNNSpec: TextCNNRecord,
}  # fmt: skip
GRADIENTS_OF_A_HESSIAN = 80
"""Full gradients that one measurement of sharpness and kinks costs, roughly; it decides what starts first."""


@dataclass(frozen=True)
class Task:
    """What one process makes at a time: one run, or the trials that train together."""

    specs: tuple[Spec, ...]
    folder: Path
    device: str


def cost(spec: Spec) -> float:
    """About how long a run takes, in training passes of the pooled network; it orders runs and weighs progress."""
    if isinstance(spec, TextCNNSpec):
        return sweep.relative_cost(spec)
    if isinstance(spec, LandscapeSpec):
        extra = (spec.run.passes + 1) * 10 + GRADIENTS_OF_A_HESSIAN * len(spec.curvature_passes)
        return cost(spec.run) + extra
    width = {"pool": 1.0, "stride": 0.4}[spec.downsample] * (1.1 if spec.norm else 1.0)
    readings = spec.directions + 1 + spec.noise_floor if spec.directions else 0
    return width * (spec.passes * 2 + readings * (spec.passes + 1))


@cache
def _images(name: str, subset: float, device: str) -> Images:
    """The images, once for each process."""
    return load_images(name, subset=subset).to(device)  # type: ignore[arg-type]


@cache
def _questions(name: QuestionSet) -> tuple[QuestionVectors, QuestionIdentity]:
    """The questions, once for each process."""
    questions = load_questions(name)
    return questions, sweep.identity(questions)


def make(task: Task) -> tuple[Path, list[Made]]:
    """Make a task's runs in whatever process this is, and save their records; returns their folder and them."""
    torch.set_num_threads(1)
    first, made = task.specs[0], list[Made]()
    if isinstance(first, TextCNNSpec):
        made += sweep.train_trials([s for s in task.specs if isinstance(s, TextCNNSpec)], *_questions(first.data))
    elif isinstance(first, LandscapeSpec):
        made.append(claim.train_landscape(first, _images(first.run.data, first.run.subset, task.device)))
    else:
        made.append(experiments.train_convnet(first, _images(first.data, first.subset, task.device)))
    store = Store(task.folder, KINDS[type(first)])
    for record in made:
        store.save(record)
    return task.folder, made


def _found(spec: Spec, folder: Path, device: str) -> Made | None:
    """The record of a run, where the folder holds one that a run made now would repeat."""
    record = Store(folder, KINDS[type(spec)]).load(spec.key)
    if isinstance(spec, TextCNNSpec):
        if record is None:
            return None  # without asking for the vectors, which take longer than many a run
        assert isinstance(record, TextCNNRecord)
        return record if sweep.serves(record, _questions(spec.data)[1]) else None
    net = spec.run if isinstance(spec, LandscapeSpec) else spec
    images = _images(net.data, net.subset, device)
    experiments.check_fit(net, images)
    assert not isinstance(record, TextCNNRecord)
    return record if record is not None and experiments.same_circumstances(record, images) else None


def make_all(
    wanted: Sequence[tuple[Path, Spec]], *, processes: int = 1, fresh: bool = False, device: str = "cpu",
    on_record: OnRecord | None = None,
) -> list[Made]:  # fmt: skip
    """Make every run that its folder does not hold already, the longest first, and return all records in order.

    Folders are created, and proved writable, before anything is trained. A stored record serves when its data, its
    computing code, versions and precision are those of this process, and for ConvNets processor, device and threads;
    ``fresh`` makes it again all the same. Whatever stops this, finished runs are on disk and the same call goes on.
    Raises SpecError when a spec and its data do not fit.
    """
    torch.set_num_threads(1)
    known = {(folder, spec): _found(spec, folder, device) for folder, spec in wanted}
    for folder, kind in dict.fromkeys((folder, KINDS[type(spec)]) for folder, spec in wanted):
        Store(folder, kind).prepare()
    records: dict[tuple[Path, str], Made] = {}

    def take(record: Made, folder: Path, *, on_disk: bool) -> None:
        records[folder, record.key] = record
        if on_record is not None:
            on_record(record, on_disk)

    missing = []
    for (folder, spec), record in known.items():
        if record is None or fresh:
            missing.append((folder, spec))
        else:
            take(record, folder, on_disk=True)
    tasks = [Task((spec,), folder, device) for folder, spec in missing if not isinstance(spec, TextCNNSpec)]
    for folder in dict.fromkeys(folder for folder, _ in missing):
        texts = [spec for where, spec in missing if where == folder and isinstance(spec, TextCNNSpec)]
        tasks += [Task(tuple(group), folder, device) for group in sweep.groups(texts)]
    tasks.sort(key=lambda task: -sum(map(cost, task.specs)))
    for folder, made in spread(make, tasks, processes=processes):
        for record in made:
            take(record, folder, on_disk=False)
    return [records[folder, spec.key] for folder, spec in wanted]

"""Runs of every kind: found in their folder, or made over processes and saved as each ends.

What computes is imported where it computes: a process that only hands out work starts it a second sooner.
"""

import sys
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hw4.cluster import Cluster
from hw4.errors import DataError, SpecError
from hw4.files import RECORDS, WEIGHTS, alone, write_atomically
from hw4.processes import one_thread, spread, unguarded
from hw4.progress import progress_bar
from hw4.records import ConvNetRecord, QuestionIdentity, Store, TextCNNRecord, note_code, serves, was_made_by
from hw4.specs import TRIALS, ConvNetSpec, Dataset, QuestionSet, TextCNNSpec, groups
from hw4.studies import Spec, Study, cost, grid, sweep

if TYPE_CHECKING:
    from hw4.data.images import Data

RunRecord = ConvNetRecord | TextCNNRecord
OnRecord = Callable[[RunRecord, bool], None]
"""Called for every run as it ends, with its record and whether it was found on disk."""
OnFailure = Callable[[Spec, Exception], None]  # called for every run that could not be made, with what stood in the way
Say = Callable[..., None]  # prints a sentence for whoever waits

KINDS: Mapping[type[Spec], type[RunRecord]] = {ConvNetSpec: ConvNetRecord, TextCNNSpec: TextCNNRecord}


@dataclass(frozen=True)
class Task:
    """What one process makes at a time: one run, the trials that train together, or runs to be timed by one machine.

    With ``weights`` the trained networks come back with their records.
    """

    specs: tuple[Spec, ...]
    folder: Path
    device: str
    weights: bool = False


@cache
def _images(data: Dataset, subset: float, device: str) -> "Data":
    """The images of a run, once for each process: not for each run, of which there may be hundreds."""
    from hw4.data.images import load_images

    return load_images(data, subset=subset).to(device)


@cache
def _questions(name: QuestionSet) -> "tuple[Data, QuestionIdentity]":
    from hw4.data.vectors import load_questions
    from hw4.sweep import identity

    questions = load_questions(name)
    return questions, identity(questions)


def _data(task: Task) -> Any:
    """What a task is about, for a machine that may not have it."""
    first = task.specs[0]
    return _questions(first.data) if isinstance(first, TextCNNSpec) else _images(first.data, first.subset, "cpu")


def make(task: Task, data: Any = None) -> list[tuple[RunRecord, bytes | None]]:
    """Make a task's runs in whatever process or machine this is, which loads the data unless it is given.

    Returns records, and networks as files where they are asked for.
    """
    from hw4.experiments import train_convnet
    from hw4.sweep import train_trials

    note_code()
    if unknown := [spec for spec in task.specs if isinstance(spec, ConvNetSpec) and not spec.variant]:
        raise SpecError(
            f"a process that trains does not know the variant with norm {unknown[0].norm!r} and downsample "
            f"{unknown[0].downsample!r}: add it to VARIANTS in a module that is imported, or use processes=1"
        )
    _one_thread()
    first, files = task.specs[0], dict[str, bytes]()

    def pack(record: RunRecord, model: Any) -> None:
        from hw4.weights import packed

        files[record.key] = packed(record, model)

    keep, made = pack if task.weights else None, list[RunRecord]()
    if isinstance(first, TextCNNSpec):
        trials = [spec for spec in task.specs if isinstance(spec, TextCNNSpec)]
        made += train_trials(trials, *(data or _questions(first.data)), keep=keep)
    else:
        images = data.to(task.device) if data else _images(first.data, first.subset, task.device)
        made += [train_convnet(spec, images, keep=keep) for spec in task.specs if isinstance(spec, ConvNetSpec)]
    return [(record, files.get(record.key)) for record in made]


def _network(folder: Path, key: str) -> Path:
    """Where the trained network of a run is kept, beside its folder of records."""
    return folder.parent / WEIGHTS / f"{key}.safetensors"


def _kept(path: Path, record: RunRecord) -> bool:
    """Whether this file holds the network of a run, and not that of one that other code or data made."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            about = file.metadata() or {}
    except (SafetensorError, OSError):
        return False
    return was_made_by(record, about)


def _save(folder: Path, record: RunRecord, network: bytes | None) -> RunRecord:
    """Write a run, its network first: a record whose network a kill left out would be taken for done.

    Returns the record, which shares with others what is equal: it came with a copy of its own.
    """
    if network is not None:
        path = _network(folder, record.key)
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, network)
    Store(folder, type(record)).save(record)
    return record.model_validate(record)


def _found(spec: Spec, folder: Path, *, device: str, cpus: Collection[str], weights: bool) -> RunRecord | None:
    """The kept record of a run, if a run made now, here or on ``cpus``, would give the same; else None.

    Where ``weights`` are asked for, the trained network must lie beside it, unless the run diverged.
    """
    record = Store(folder, KINDS[type(spec)]).load(spec.key)
    weights &= folder.name == RECORDS.name  # its networks alone are kept
    if record is None or (weights and not record.diverged and not _kept(_network(folder, spec.key), record)):
        return None  # without asking for the data, which take longer than many a run
    from hw4.experiments import identity, images_environment
    from hw4.sweep import questions_environment

    _one_thread()
    try:
        if isinstance(record, TextCNNRecord):
            return record if serves(record, _questions(record.spec.data)[1], questions_environment()) else None
        images = _images(record.spec.data, record.spec.subset, device)
        return record if serves(record, identity(images), images_environment(images), cpus) else None
    except DataError:
        return None  # whoever makes the run is told, and other runs go on


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _tasks(missing: Sequence[tuple[Path, Spec]], device: str, *, remote: bool, weights: bool = False) -> list[Task]:
    """Runs to make as tasks, the longest first; on other machines those of which seconds are compared go together.

    Before all others goes one with questions: it turns them into vectors, which the others then find in the cache. The
    exercises' ``weights`` are kept, where any are.
    """
    grouped: dict[tuple[Path, Spec], list[Spec]] = {}
    for folder, spec in missing:
        if not isinstance(spec, TextCNNSpec):
            grouped.setdefault((folder, _timed_beside(spec) if remote else spec), []).append(spec)
    together = [(folder, specs) for (folder, _), specs in grouped.items()]
    for folder in dict.fromkeys(folder for folder, _ in missing):
        texts = [spec for where, spec in missing if where == folder and isinstance(spec, TextCNNSpec)]
        together += [(folder, list(group)) for group in groups(texts)]
    tasks = [Task(tuple(specs), folder, device, weights and folder.name == RECORDS.name) for folder, specs in together]
    tasks.sort(key=lambda task: -sum(map(cost, task.specs)))
    first = next((task for task in tasks if isinstance(task.specs[0], TextCNNSpec)), None)
    return sorted(tasks, key=lambda task: task is not first)


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
    weights: bool = False,
    on_record: OnRecord = lambda _record, _on_disk: None,
    on_failure: OnFailure | None = None,
) -> list[RunRecord]:
    """Make every run that the studies want and their folders do not hold, until nothing more is wanted.

    Returns all records in the order in which they were wanted. Runs go, the longest first, to so many processes of one
    thread each, or to a cluster. A stored record serves when a run made now would have its numbers, unless all is made
    ``fresh``; with ``weights``, where the exercises' networks are there too. Every run is saved as it ends: whatever
    stops this, the same call goes on from there. ``on_failure`` is told what cannot be made; without it that is raised.
    """
    made: dict[Path, dict[Spec, RunRecord | None]] = {folder: {} for folder, _ in studies}
    making: Counter[tuple[Path, Spec]] = Counter()
    queue: list[Task] = []
    cpus = executor.cpus if executor else ()
    find = None if fresh else partial(_found, device=device, cpus=cpus, weights=weights)

    def ask() -> None:
        """Look for what is wanted now, and queue what is not found, until nothing new is wanted."""
        while new := _new(studies, made):
            missing = _not_found(new, made, on_record, find)
            queue.extend(_tasks(missing, device, remote=executor is not None, weights=weights))
            making.update((folder, _but_for_trial(spec)) for folder, spec in missing)

    ask()
    fail = on_failure and partial(_fail, on_failure)
    for task, results in spread(make, queue, share=_data, on_failure=fail, processes=processes, executor=executor):
        for spec, (record, network) in zip(task.specs, results, strict=True):
            made[task.folder][spec] = kept = _save(task.folder, record, network)
            on_record(kept, False)
        ended = [(task.folder, _but_for_trial(spec)) for spec in task.specs]
        making.subtract(ended)
        if not all(making[each] for each in ended):  # no study decides anything by a part of the trials of one setting
            ask()
    return [record for runs in made.values() for record in runs.values() if record is not None]


def _fail(on_failure: OnFailure, task: Task, error: Exception) -> None:
    for spec in task.specs:
        on_failure(spec, error)


def _not_found(
    wanted: Sequence[tuple[Path, Spec]],
    made: Mapping[Path, dict[Spec, RunRecord | None]],
    on_record: OnRecord,
    find: Callable[..., RunRecord | None] | None,
) -> list[tuple[Path, Spec]]:
    """What of these runs is yet to be made, into folders that can be written to; what is found is noted."""
    for folder in {folder for folder, _ in wanted}:
        Store(folder, ConvNetRecord).prepare()
    missing = []
    for folder, spec in wanted:
        made[folder][spec] = record = find(spec, folder) if find else None
        if record is None:
            missing.append((folder, spec))
        else:
            on_record(record, True)
    return missing


def _new(
    studies: Sequence[tuple[Path, Study]], made: Mapping[Path, Mapping[Spec, RunRecord | None]]
) -> list[tuple[Path, Spec]]:
    """What the studies want now and did not want before, each run once."""
    wanted = [(folder, spec) for folder, study in studies for spec in study(made[folder])]
    return [each for each in dict.fromkeys(wanted) if each[1] not in made[each[0]]]


@contextmanager
def _progress(specs: Sequence[Spec], say: Say) -> Iterator[OnRecord]:
    """One bar over all runs, weighed by what they cost, so that the time left means something; lines for what ended."""
    found_on_disk = ended = 0
    asked = Counter(_but_for_trial(spec) for spec in specs if isinstance(spec, TextCNNSpec))
    trials: dict[Spec, dict[str, TextCNNRecord]] = {}
    form = "{l_bar}{bar}| {elapsed} gone, {remaining} left{postfix}"
    with progress_bar(total=sum(map(cost, specs)), bar_format=form) as bar:

        def on_record(record: RunRecord, found: bool) -> None:
            nonlocal found_on_disk, ended
            found_on_disk, ended = found_on_disk + found, ended + 1
            if isinstance(record, TextCNNRecord):
                beside = trials.setdefault(_but_for_trial(record.spec), {})
                line = "" if record.key in beside else _trials_line([*beside.values(), record], asked)
                beside[record.key] = record  # a control may be a run of the sweep once more
            else:
                line = _net_line(record)
            if line and not found:
                with bar.external_write_mode(file=sys.stdout):
                    say(f"  {line}")
            bar.set_postfix_str(record.key, refresh=False)
            weight = cost(record.spec)
            bar.total = max(bar.total or 0, bar.n + weight)  # learning rates tried beyond those asked for come on top
            bar.update(weight)

        yield on_record
    if found_on_disk:
        say(f"Found on disk: {found_on_disk} of {ended}.")


def _net_line(record: ConvNetRecord) -> str:
    run, accuracy = record.spec, record.last.test_accuracy
    outcome = "diverged" if record.diverged or accuracy is None else f"test accuracy {accuracy:.3f}"
    passes = f"{run.passes} pass{'es' if run.passes > 1 else ''}"
    return f"{run.label}, rate {run.learning_rate:g}, {passes}, seed {run.seed}: {outcome}"


def _but_for_trial(spec: Spec) -> Spec:
    """The spec without trial and permutation: text CNNs for which that is equal share a line of progress."""
    if not isinstance(spec, TextCNNSpec):
        return spec
    return spec.model_copy(update={"trial": 0, "permutation": None if spec.permutation is None else 0})


def _trials_line(made: Sequence[TextCNNRecord], asked: Mapping[Spec, int]) -> str:
    """How the trials of one stride and learning rate ended, once all have; one line for thousands of models."""
    first = made[0].spec
    here = asked.get(_but_for_trial(first))
    if here is None:  # a rescue, or a control at a rate that was chosen
        swept = [spec for spec in asked if isinstance(spec, TextCNNSpec) and not spec.held_out]
        here = min(sum(asked[spec] for spec in swept if spec.stride == first.stride), TRIALS)
    if len(made) < here:
        return ""
    scores = [record.test_accuracy for record in made if record.test_accuracy is not None]
    ends = " to ".join(dict.fromkeys(f"{end(scores):.3f}" for end in (min, max))) if scores else ""
    range_ = f"{'held-out' if first.held_out else 'test'} accuracy {ends}" if scores else ""
    lost = f"{len(made) - len(scores)} diverged" if len(scores) < len(made) else ""
    outcome = ", ".join(part for part in (range_, lost) if part)
    order = "" if first.permutation is None else ", permuted"
    trials = f"{here} trial{'s' * (here > 1)}"
    return f"text CNN, stride {first.stride}{order}, rate {first.learning_rate:g}, {trials}: {outcome}"


def carry_out(studies: Sequence[tuple[Path, Study]], specs: Sequence[Spec], say: Say, **how: Any) -> list[RunRecord]:
    """What :func:`make_all` does, with a bar over these runs, which are known beforehand, and a line for each."""
    with _progress(specs, say) as on_record:
        return make_all(studies, on_record=on_record, **how)


def run(specs: Iterable[Spec], folder: Path | str, *, processes: int | None = None) -> list[RunRecord]:
    """Make these runs in a folder as ``hw4 run`` does, with a progress bar; those that it holds already are read.

    Returns their records, and those of text CNNs at the smaller learning rates that are tried where most trials of a
    stride diverge. ``processes`` of one thread each, by default as many as processors; they read a script that calls
    this again, so without ``if __name__ == "__main__":`` in it all is made in this process, with a warning. Whatever
    stops it, the same call goes on from there. Raises Hw4Error for data that is not there, or while another hw4 writes
    to the folder, SpecError for what is no list of runs.
    """
    specs = list(specs)
    if strange := [spec for spec in specs if type(spec) not in KINDS]:
        raise SpecError(f"expected a list of runs, as hw4.specs.exercise_specs gives, got {strange[0]!r:.60} in it")
    workers, records = one_thread(processes), Path(folder, RECORDS)
    if workers > 1 and (script := unguarded()):
        warnings.warn(
            f"hw4.run trains in one process: others would read {script} again and call it there, too; put the call "
            f"below 'if __name__ == \"__main__\":' to train in {workers}",
            stacklevel=2,
        )
        workers = 1
    trials = [spec for spec in specs if isinstance(spec, TextCNNSpec)]
    nets = [spec for spec in specs if not isinstance(spec, TextCNNSpec)]
    studies = [(records, grid(nets)), (records, sweep(trials))]
    import torch

    threads = torch.get_num_threads()
    with alone(Path(folder)):
        try:
            return carry_out(studies, specs, lambda _: None, processes=workers)
        finally:
            torch.set_num_threads(threads)  # what the caller does with torch afterwards is as fast as before

"""The homework's solved notebook, audited: its way of measuring beside the right one, on the same models and data.

Everything named after the notebook here is wrong on purpose, and used for nothing else.
"""

import itertools
import math
import statistics
import time
import tomllib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hw4.data.images import Data, load_images, standardise
from hw4.data.locate import QUESTIONS, read_verified
from hw4.data.questions import find_trec, load_trec
from hw4.data.vectors import find_spacy_model, load_questions, logistic_share, spacy_vectors
from hw4.experiments import (
    BATCHES,
    DIRECTIONS,
    build_convnet,
    evaluate_on,
    identity,
    images_environment,
    seeded,
    training_passes,
)
from hw4.models import CHANNELS, CLASSES, IMAGE_LENGTH, KERNEL, PADDING, POOL, ConvNet
from hw4.objective import Objective
from hw4.processes import spread
from hw4.readings import SmoothnessReading
from hw4.records import (
    AuditedRun,
    AuditedStride,
    AuditRecord,
    Layers,
    NotebookAudit,
    PassTime,
    QuestionAudit,
    QuestionIdentity,
    RepeatedRun,
    Store,
    TextCNNRecord,
    TimedIteration,
)
from hw4.runs import RunRecord, make_all
from hw4.smoothness import measure_directions
from hw4.specs import (
    DEFAULT_SUBSET,
    HOMEWORK_VECTORS,
    WHOLE,
    ConvNetSpec,
    Dataset,
    NormMode,
    QuestionSet,
    TextCNNSpec,
    exercise_specs,
    groups,
    sweep_specs,
)
from hw4.studies import grid
from hw4.sweep import identity as question_identity
from hw4.sweep import train_trials
from hw4.training import draw_batches, evaluate
from hw4.variants import Downsample

TIMED_ROUNDS = 5
SUBSETS, SUBSET_SHARE = 20, 0.1
"""So many subsets are drawn, each of the homework's share, to see how far the largest standardised pixel scatters."""
PRINTED = Path(__file__).parent / "data" / "notebook.toml"  # what the solved notebook printed

Work = Callable[[nn.Module, ConvNetSpec], object]  # what is timed, on a spec's network
OnAudit = Callable[[str], None]  # called with the name of every part as it ends


def notebook_standardise(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """The notebook's rule, (pixel - mean) / (std + 1e-6): where training hardly varies, test pixels explode."""
    std, mean = torch.std_mean(train, dim=0)
    return (train - mean) / (std + 1e-6), (test - mean) / (std + 1e-6)


def notebook_evaluate(model: nn.Module, images: Data) -> None:
    """The notebook's evaluation: loss and accuracy by a forward pass each, all images of a set in one batch."""
    for x, y in ((images.x_train, images.y_train), (images.x_test, images.y_test)):
        for _metric in ("loss", "accuracy"):
            evaluate(model, x, y, chunk_size=len(x))


def notebook_texts(contents: bytes) -> list[str]:
    """The notebook's parsing: bytes printed as text, lines split at every colon, the second piece kept."""
    lines = str(contents).split("\\n")
    return [" ".join(line.split(":")[1].split(" ")[1:]) for line in lines if ":" in line]


def notebook_layers(downsample: Downsample) -> nn.Sequential:
    """The notebook's network without BatchNorm, layer by layer: the function of :class:`ConvNet`, at torch's speed."""
    halved, layers = downsample == "pool", list[nn.Module]()
    for before, after in itertools.pairwise(CHANNELS):
        conv = nn.Conv2d(before, after, KERNEL, stride=1 if halved else POOL, padding=PADDING)
        layers += [conv, nn.ReLU(), *([nn.MaxPool2d(POOL)] if halved else [])]
    length = IMAGE_LENGTH // POOL**2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(CHANNELS[-1] * length**2, CLASSES))


def read_notebook() -> dict[str, Any]:
    """What the solved notebook printed."""
    return tomllib.loads(PRINTED.read_text())


State = tuple[Tensor, int, dict[NormMode, Tensor], dict[NormMode, SmoothnessReading]]
"""A network after a pass: weights, numbers in the first parameter, full gradients and readings in both modes."""


def _measure(model: ConvNet, spec: ConvNetSpec, images: Data, directions: torch.Generator) -> State:
    """Measure the network as it stands, along the same minibatch update in both modes of BatchNorm."""
    drawn = directions.get_state()
    gradients: dict[NormMode, Tensor] = {}
    readings: dict[NormMode, SmoothnessReading] = {}
    modes: tuple[NormMode, NormMode] = ("batch", "running")
    for mode in modes:
        directions.set_state(drawn)
        objective = Objective(model, images.x_train, images.y_train, norm_mode=mode, chunk_size=spec.chunk_size)
        (readings[mode],) = measure_directions(
            objective, 1, learning_rate=spec.learning_rate, batch_size=spec.batch_size, generator=directions
        )
        gradients[mode] = objective.gradient(objective.w)
    return objective.w, objective.parameters[0].numel(), gradients, readings


def _ways(before: State, after: State, learning_rate: float) -> dict[str, float]:
    """What is called smoothness between two passes: right, with one flaw at a time, with all."""
    (w, size, gradients, readings), right = after, after[3]["batch"]
    moved = float((w - before[0]).double().norm())
    change: dict[NormMode, Tensor] = {mode: gradients[mode] - before[2][mode] for mode in gradients}
    return {
        "right": right.smoothness,
        "first parameter": right.blocks[0].gradient_change_norm / right.update_norm,
        "whole pass": float(change["batch"].double().norm()) / moved,
        "divided twice": right.smoothness / learning_rate,
        "evaluation mode": readings["running"].smoothness,
        "notebook": float(change["running"][:size].double().norm()) / (learning_rate * moved),
    }


def audit_run(spec: ConvNetSpec, images: Data) -> AuditedRun:
    """Train one network and measure its smoothness after every pass: right, with one flaw at a time, with all."""
    model, directions = build_convnet(spec), seeded(spec.seed, DIRECTIONS)
    scores = [evaluate_on(model, images)]
    before = _measure(model, spec, images, directions)
    found = []
    for _ in training_passes(model, spec, images):
        scores.append(evaluate_on(model, images))
        after = _measure(model, spec, images, directions)
        found.append(_ways(before, after, spec.learning_rate))
        before = after
    return AuditedRun(
        label=spec.label,
        variant=spec.variant,
        seed=spec.seed,
        smoothness={way: [each[way] for each in found] for way in found[0]},
        train_loss=[train.loss for train, _ in scores],
        test_accuracy=[test.accuracy for _, test in scores],
    )


def audit_pixels(spec: ConvNetSpec) -> dict[str, float]:
    """Train the plain network on images standardised either way, and look at what reaches it."""
    values: dict[str, float] = {}
    for name, rule in (("right", standardise), ("notebook", notebook_standardise)):
        images = load_images(spec.data, subset=spec.subset, rule=rule)
        model = build_convnet(spec)
        for _ in training_passes(model, spec, images):
            pass
        score, largest = evaluate(model, images.x_test, images.y_test), images.x_test.abs().flatten(1).amax(1)
        values[f"largest_{name}"] = float(largest.max())
        values[f"above_100_{name}"] = int((largest > 100).sum())
        values[f"test_loss_{name}"], values[f"test_accuracy_{name}"] = score.loss, score.accuracy
    return values


@cache
def as_it_is(data: Dataset) -> Data:
    """A whole data set, its pixels the grey levels, uint8; once for each process."""
    return load_images(data, subset=1, rule=lambda train, test: (train.byte(), test.byte()))


def drawn_images(whole: Data, share: float, seed: int) -> Data:
    """A share of the training images as :func:`hw4.data.images.load_images` draws it, by the notebook's rule."""
    n = len(whole.x_train)
    chosen = torch.randperm(n, generator=torch.Generator().manual_seed(seed))[: round(share * n)]
    x_train, x_test = notebook_standardise(whole.x_train[chosen].float(), whole.x_test.float())
    return replace(whole, x_train=x_train, y_train=whole.y_train[chosen], x_test=x_test)


def largest_pixels(data: Dataset) -> list[float]:
    """The largest standardised test pixel by the notebook's rule, for the subsets that seeds 0, 1, ... draw."""
    drawn = (drawn_images(as_it_is(data), SUBSET_SHARE, seed) for seed in range(SUBSETS))
    return [float(images.x_test.abs().max()) for images in drawn]


def _seconds(work: Callable[[], object]) -> PassTime:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return PassTime(wall_seconds=time.perf_counter() - wall, cpu_seconds=time.process_time() - cpu)


def audit_evaluation(spec: ConvNetSpec, images: Data) -> dict[str, float]:
    """Processor seconds of the notebook's evaluation and of ours, in turn, and of a training pass beside them."""
    model = build_convnet(spec)
    works: tuple[Callable[[], object], ...] = (
        lambda: notebook_evaluate(model, images),
        lambda: evaluate_on(model, images),
        lambda: next(training_passes(model, spec, images)),
    )
    rounds = [[_seconds(work).cpu_seconds for work in works] for _ in range(TIMED_ROUNDS)]
    names = ("notebook_seconds", "right_seconds", "pass_seconds")
    return {name: statistics.median(seconds) for name, seconds in zip(names, zip(*rounds, strict=True), strict=True)}


def time_in_turn(specs: Sequence[ConvNetSpec], *, plain: Work, ours: Work) -> list[TimedIteration]:
    """Seconds of work on the notebook's layers and on hw4's networks, all in turn, a few rounds."""
    works: dict[tuple[Layers, str], Callable[[], object]] = {}
    for spec in specs:
        works["the notebook's", spec.variant] = partial(plain, notebook_layers(spec.downsample), spec)
    for spec in specs:
        works["hw4's", spec.variant] = partial(ours, build_convnet(spec), spec)
    rounds = [[_seconds(work) for work in works.values()] for _ in range(TIMED_ROUNDS)]
    return [
        TimedIteration(layers=layers, variant=variant, times=list(times))
        for (layers, variant), times in zip(works, zip(*rounds, strict=True), strict=True)
    ]


def time_iterations(specs: Sequence[ConvNetSpec], images: Data) -> list[TimedIteration]:
    """Seconds of an iteration, evaluation and a pass: the notebook's layers and evaluation, and hw4's."""

    def plain(model: nn.Module, spec: ConvNetSpec) -> None:
        notebook_evaluate(model, images)
        next(training_passes(model, spec, images))

    def ours(model: nn.Module, spec: ConvNetSpec) -> None:
        evaluate_on(model, images)
        next(training_passes(model, spec, images))

    return time_in_turn(specs, plain=plain, ours=ours)


def plain_pass(model: nn.Module, spec: ConvNetSpec, images: Data) -> None:
    """One pass in plain PyTorch: its own optimiser and backward, on the minibatches of the spec's seed."""
    optimizer = torch.optim.SGD(model.parameters(), lr=spec.learning_rate)
    x, y = images.x_train, images.y_train
    for batch in draw_batches(len(x), batch_size=spec.batch_size, generator=seeded(spec.seed, BATCHES)):
        optimizer.zero_grad()
        F.cross_entropy(model(x[batch]), y[batch]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def time_passes(images: Data) -> list[TimedIteration]:
    """Seconds of a training pass alone, pooled and strided: plain PyTorch, and hw4's."""
    return time_in_turn(
        exercise_specs(["pooling"], seeds=1, data=images.name),
        plain=lambda model, spec: plain_pass(model, spec, images),
        ours=lambda model, spec: next(training_passes(model, spec, images)),
    )


def class_0_share(questions: Data) -> float:
    """Accuracy of scores that are no numbers: argmax takes the first of them for the largest."""
    return float((questions.y_test == 0).double().mean())


def audit_strides(records: Iterable[RunRecord], share: float) -> list[AuditedStride]:
    """A sweep's means as the notebook takes them, with class 0's share for a run that diverged, and as they are."""
    trials = sorted((record for record in records if isinstance(record, TextCNNRecord)), key=lambda each: each.trial)
    found = []
    for stride in sorted({record.stride for record in trials}):
        accuracies = [record.test_accuracy for record in trials if record.stride == stride]
        trained = [accuracy for accuracy in accuracies if accuracy is not None]
        mean = statistics.fmean(share if accuracy is None else accuracy for accuracy in accuracies)
        lost = len(accuracies) - len(trained)
        found.append(AuditedStride(stride=stride, notebook=mean, trained=trained, diverged=lost))
    return found


def _texts(root: Path) -> tuple[list[str], list[str]]:
    """TREC's training and test questions as they are and as the notebook reads them, in the same order."""
    right = [text for part in load_trec(root) for text in part.texts]
    folder = root / QUESTIONS.folder
    wrong = [text for name in QUESTIONS.sha256 for text in notebook_texts(read_verified(QUESTIONS, folder, name))]
    return right, wrong


def misread(questions: Data, root: Path) -> Data:
    """TREC's questions with the vectors of what the notebook reads."""
    _, wrong = _texts(root)
    vectors = torch.from_numpy(spacy_vectors(wrong, find_spacy_model())).unsqueeze(1)
    n_train = len(questions.x_train)
    return replace(questions, x_train=vectors[:n_train], x_test=vectors[n_train:])


def audit_questions(questions: Data, cut: Data, root: Path) -> QuestionAudit:
    """What cutting at colons and printing bytes change: how many questions, and accuracies."""
    pairs = list(zip(*_texts(root), strict=True))
    right, wrong = (
        [
            record.test_accuracy
            for record in train_trials(sweep_specs(questions.name, strides=[5]), each, question_identity(each))
            if record.test_accuracy is not None
        ]
        for each in (questions, cut)
    )
    return QuestionAudit(
        questions=len(pairs),
        cut=sum(":" in text for text, _ in pairs),
        mangled=sum(text != read and ":" not in text for text, read in pairs),
        logistic_right=logistic_share(questions),
        logistic_notebook=logistic_share(cut),
        stride5_right=right,
        stride5_notebook=wrong,
    )


def repeat_run(spec: ConvNetSpec, images: Data) -> RepeatedRun | str:
    """Train one network and log as the notebook does, before every pass; its name when a loss is not finite."""
    model = build_convnet(spec)
    logs = [evaluate_on(model, images)]
    for _ in itertools.islice(training_passes(model, spec, images), spec.passes - 1):  # the last one is never logged
        logs.append(evaluate_on(model, images))
    if not all(math.isfinite(part.loss) for log in logs for part in log):
        return f"{spec.label}, {len(images.x_train):,} images, seed {spec.seed}"
    return RepeatedRun(
        variant=spec.variant,
        seed=spec.seed,
        n_train=len(images.x_train),
        train_loss=[train.loss for train, _ in logs],
        train_accuracy=[train.accuracy for train, _ in logs],
        test_loss=[test.loss for _, test in logs],
        test_accuracy=[test.accuracy for _, test in logs],
    )


def repeat_session(specs: Sequence[ConvNetSpec], whole: Data | None = None) -> list[RepeatedRun | str]:
    """Every network of one seed on one drawn subset, as in one session of the notebook.

    ``whole`` is the data set as it is (:func:`as_it_is`); without it the data is loaded.
    """
    torch.set_num_threads(1)
    first = specs[0]
    images = drawn_images(whole or as_it_is(first.data), first.subset, first.seed)
    return [repeat_run(spec, images) for spec in specs]


def sessions(data: Dataset, n_train: int, *, seeds: int, passes: int) -> list[tuple[ConvNetSpec, ...]]:
    """The networks of each session: one per seed, for the training images that were printed and those of the code."""
    specs = [
        exercise_specs(["smoothness", "pooling"], seeds=seeds, data=data, subset=subset, passes=passes)
        for subset in (n_train / WHOLE[data], DEFAULT_SUBSET[data])
    ]
    return [tuple(spec for spec in each if spec.seed == seed) for each in specs for seed in range(seeds)]


def repeat_trials(specs: Sequence[TextCNNSpec], about: tuple[Data, QuestionIdentity]) -> list[TextCNNRecord]:
    """Trials that train together, in whatever process this is."""
    torch.set_num_threads(1)
    return train_trials(specs, *about)


def trials(name: QuestionSet, strides: Sequence[int], *, seeds: int) -> list[list[TextCNNSpec]]:
    """So many trials of each stride, as in the notebook none with another's weights; the costliest group first."""
    return groups(
        [
            spec.model_copy(update={"trial": spec.trial + seeds * place})
            for place, stride in enumerate(strides)
            for spec in sweep_specs(name, strides=[stride], trials=seeds)
        ]
    )


def audit_notebook(
    data: Dataset, cut: Data, *, seeds: int, passes: int, on_audit: OnAudit, **how: Any
) -> NotebookAudit:
    """What the notebook printed and the same by its own protocol, ``seeds`` times; ``cut`` are questions as it reads.

    Its protocol: images, weights and minibatches drawn anew each time, its standardisation, scores logged before each
    pass, questions as it parses them, argmax of scores that are no numbers. Networks, passes and vectors are hw4's,
    which compute the same functions.
    """
    printed = read_notebook()
    tasks = sessions(data, printed["n_train"], seeds=seeds, passes=min(passes, len(printed["runs"][0]["train_loss"])))
    first = tasks[0]
    images = load_images(data, subset=first[0].subset, rule=notebook_standardise)
    seconds = time_iterations([spec for spec in first if spec.norm is None], images)
    on_audit("seconds of an iteration")
    runs: list[RepeatedRun | str] = []
    for specs, found in spread(repeat_session, list(tasks), share=lambda _: as_it_is(data), **how):
        runs += found
        on_audit(f"the notebook's networks, seed {specs[0].seed}")
    records: list[TextCNNRecord] = []
    if cut.vectors == HOMEWORK_VECTORS:
        about = cut, question_identity(cut)
        train = repeat_trials if how.get("executor") else partial(repeat_trials, about=about)
        together = trials(cut.name, [stride["stride"] for stride in printed["strides"]], seeds=seeds)
        records = [record for _, found in spread(train, together, share=lambda _: about, **how) for record in found]
    on_audit("the notebook's text CNNs")
    share = class_0_share(cut)
    return NotebookAudit(
        printed=printed,
        repeated=sorted(
            (run for run in runs if isinstance(run, RepeatedRun)), key=lambda run: (-run.n_train, run.seed, run.variant)
        ),
        diverged=sorted(run for run in runs if isinstance(run, str)),
        class_0_share=share,
        strides=audit_strides(records, share),
        seconds=seconds,
    )


def _audited(spec: ConvNetSpec, images: Data | None = None) -> AuditedRun:
    torch.set_num_threads(1)
    return audit_run(spec, images or load_images(spec.data, subset=spec.subset))


def _audit_runs(specs: Sequence[ConvNetSpec], images: Data, on_audit: OnAudit, **how: Any) -> list[AuditedRun]:
    runs = []
    for _, run in spread(_audited, list(specs), share=lambda _: images, **how):
        runs.append(run)
        on_audit(f"smoothness of {run.label}, seed {run.seed}")
    return sorted(runs, key=lambda run: (run.seed, run.variant))


def parts(specs: Sequence[ConvNetSpec], repeats: int) -> int:
    """How many parts an audit of these runs has, for a progress bar."""
    return len(specs) + 4 + (2 * repeats + 3 if specs[0].data == "fashion-mnist" else 0)


def run_audit(
    specs: Sequence[ConvNetSpec], texts: QuestionSet, folder: Path, *, repeats: int, on_audit: OnAudit, **how: Any
) -> AuditRecord:
    """Audit these runs and all else and keep the record; a cluster trains, and this process times what is timed."""
    torch.set_num_threads(1)
    store, data, found = Store(folder, AuditRecord), specs[0].data, dict[str, Any]()
    store.prepare()
    images, questions = load_images(data), load_questions(texts)
    found["evaluation"] = audit_evaluation(specs[0], images)
    on_audit("what evaluation costs")
    found["passes"] = time_passes(images)
    on_audit("seconds of a pass")
    found["runs"] = _audit_runs(specs, images, on_audit, **how)
    found |= {"pixels": audit_pixels(specs[0]), "drawn": largest_pixels(data), "questions": None}
    on_audit("exploding pixels")
    sweep = make_all([(folder / "sweep", grid(sweep_specs(texts)))], **how)
    found["strides"] = audit_strides(sweep, class_0_share(questions))
    on_audit("the sweep's means")
    root = find_trec() if texts == "trec" else None
    if root is not None:
        cut = misread(questions, root)
        found["questions"] = audit_questions(questions, cut, root)
        on_audit("misread questions")
        if data == "fashion-mnist":
            how |= {"seeds": repeats, "passes": specs[0].passes, "on_audit": on_audit}
            found["notebook"] = audit_notebook(data, cut, **how)
    record = AuditRecord(
        key="audit",
        data=identity(images),
        questions_data=question_identity(questions),
        environment=images_environment(images),
        learning_rate=specs[0].learning_rate,
        **found,
    )
    store.save(record)
    return record

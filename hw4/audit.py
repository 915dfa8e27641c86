"""The homework's solved notebook, audited: its way of measuring beside the right one, on the same models and data.

Everything named after the notebook here is wrong on purpose, and used for nothing else.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from hw4.data.images import Images, load_images, standardise
from hw4.data.locate import QUESTIONS, read_verified
from hw4.data.questions import find_trec, load_trec
from hw4.data.vectors import QuestionVectors, find_spacy_model, load_questions, logistic_share, spacy_vectors
from hw4.experiments import BATCHES, DIRECTIONS, build_convnet, identity, images_environment, seeded
from hw4.models import ConvNet
from hw4.objective import Objective
from hw4.processes import spread
from hw4.records import (
    AuditedRun,
    AuditedStride,
    AuditRecord,
    EvaluationCost,
    PixelAudit,
    QuestionAudit,
    Store,
    TextCNNRecord,
)
from hw4.runs import make_all
from hw4.smoothness import SmoothnessReading, measure_directions
from hw4.specs import ConvNetSpec, Dataset, NormMode, QuestionSet, exercise_specs, sweep_specs
from hw4.sweep import identity as question_identity
from hw4.sweep import train_trials
from hw4.training import evaluate, train_pass

TIMED_ROUNDS = 5
OnAudit = Callable[[str], None]
"""Called with the name of every part as it ends."""


def notebook_standardise(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """The notebook's rule, (pixel - mean) / (std + 1e-6): where training hardly varies, test pixels explode."""
    std, mean = torch.std_mean(train, dim=0)
    return (train - mean) / (std + 1e-6), (test - mean) / (std + 1e-6)


def notebook_evaluate(model: ConvNet, images: Images) -> None:
    """The notebook's evaluation: loss and accuracy by a forward pass each, all images of a set in one batch."""
    for x, y in ((images.x_train, images.y_train), (images.x_test, images.y_test)):
        for _metric in ("loss", "accuracy"):
            evaluate(model, x, y, chunk_size=len(x))


def notebook_texts(contents: bytes) -> list[str]:
    """The notebook's parsing: bytes printed as text, lines split at every colon, the second piece kept."""
    lines = str(contents).split("\\n")
    return [" ".join(line.split(":")[1].split(" ")[1:]) for line in lines if ":" in line]


def audit_run(spec: ConvNetSpec, images: Images) -> AuditedRun:
    """Train one network and measure its smoothness after every pass: right, with one flaw at a time, with all."""
    model = build_convnet(spec)
    batches, directions = seeded(spec.seed, BATCHES), seeded(spec.seed, DIRECTIONS)
    names = ("right", "first parameter", "whole pass", "divided twice", "evaluation mode", "notebook")
    curves: dict[str, list[float]] = {name: [] for name in names}
    scores = [evaluate(model, images.x_train, images.y_train)]
    accuracies = [evaluate(model, images.x_test, images.y_test).accuracy]
    before: dict[NormMode, Tensor] = {}
    start = torch.empty(0)
    for completed in range(spec.passes + 1):
        if completed:
            train_pass(
                model, images.x_train, images.y_train, learning_rate=spec.learning_rate, batch_size=spec.batch_size,
                generator=batches,
            )  # fmt: skip
            scores.append(evaluate(model, images.x_train, images.y_train))
            accuracies.append(evaluate(model, images.x_test, images.y_test).accuracy)
        state = directions.get_state()
        readings: dict[NormMode, SmoothnessReading] = {}
        after: dict[NormMode, Tensor] = {}
        modes: tuple[NormMode, NormMode] = ("batch", "running")
        for mode in modes:
            directions.set_state(state)
            objective = Objective(model, images.x_train, images.y_train, norm_mode=mode, chunk_size=spec.chunk_size)
            (readings[mode],) = measure_directions(
                objective, 1, learning_rate=spec.learning_rate, batch_size=spec.batch_size, generator=directions
            )
            after[mode] = objective.gradient(objective.w)
        if completed:
            moved = float((objective.w - start).double().norm())
            right = readings["batch"]
            first = right.blocks[0]
            curves["right"].append(right.smoothness)
            curves["first parameter"].append(first.gradient_change_norm / right.update_norm)
            curves["whole pass"].append(float((after["batch"] - before["batch"]).double().norm()) / moved)
            curves["divided twice"].append(right.smoothness / spec.learning_rate)
            curves["evaluation mode"].append(readings["running"].smoothness)
            size = objective.parameters[0].numel()
            change = (after["running"] - before["running"])[:size].double().norm()
            curves["notebook"].append(float(change) / (spec.learning_rate * moved))
        before, start = after, objective.w
    return AuditedRun(
        label=spec.label, variant=spec.variant, seed=spec.seed, smoothness=curves,
        train_loss=[score.loss for score in scores], test_accuracy=accuracies,
    )  # fmt: skip


def audit_pixels(spec: ConvNetSpec) -> PixelAudit:
    """Train the plain network on images standardised either way, and look at what reaches it."""
    values: dict[str, float] = {}
    for name, rule in (("right", standardise), ("notebook", notebook_standardise)):
        images = load_images(spec.data, subset=spec.subset, rule=rule)
        model, batches = build_convnet(spec), seeded(spec.seed, BATCHES)
        for _ in range(spec.passes):
            train_pass(
                model, images.x_train, images.y_train, learning_rate=spec.learning_rate, batch_size=spec.batch_size,
                generator=batches,
            )  # fmt: skip
        score, largest = evaluate(model, images.x_test, images.y_test), images.x_test.abs().flatten(1).amax(1)
        values[f"largest_{name}"] = float(largest.max())
        values[f"above_100_{name}"] = int((largest > 100).sum())
        values[f"test_loss_{name}"], values[f"test_accuracy_{name}"] = score.loss, score.accuracy
    return PixelAudit.model_validate(values)


def audit_evaluation(spec: ConvNetSpec, images: Images) -> EvaluationCost:
    """Processor seconds of the notebook's evaluation and of ours, in turn, and of a training pass beside them."""
    model, batches = build_convnet(spec), seeded(spec.seed, BATCHES)

    def ours() -> None:
        evaluate(model, images.x_train, images.y_train)
        evaluate(model, images.x_test, images.y_test)

    def trained() -> None:
        train_pass(
            model, images.x_train, images.y_train, learning_rate=spec.learning_rate, batch_size=spec.batch_size,
            generator=batches,
        )  # fmt: skip

    seconds: list[list[float]] = [[], [], []]
    for _ in range(TIMED_ROUNDS):
        works: tuple[Callable[[], None], ...] = (lambda: notebook_evaluate(model, images), ours, trained)
        for taken, work in zip(seconds, works, strict=True):
            begin = time.process_time()
            work()
            taken.append(time.process_time() - begin)
    notebook, right, training = map(statistics.median, seconds)
    return EvaluationCost(notebook_seconds=notebook, right_seconds=right, pass_seconds=training)


def audit_strides(questions: QuestionVectors, folder: Path, processes: int) -> list[AuditedStride]:
    """The sweep's means as the notebook takes them, with class 0's share for a run that diverged, and as they are."""
    made = make_all([(folder, spec) for spec in sweep_specs(questions.name)], processes=processes)
    records = [record for record in made if isinstance(record, TextCNNRecord)]
    share = float((questions.y_test == 0).double().mean())
    found = []
    for stride in dict.fromkeys(record.stride for record in records):
        accuracies = [record.test_accuracy for record in records if record.stride == stride]
        trained = [accuracy for accuracy in accuracies if accuracy is not None]
        found.append(
            AuditedStride(
                stride=stride, notebook=statistics.fmean(share if a is None else a for a in accuracies),
                trained=trained, diverged=len(accuracies) - len(trained),
            )
        )  # fmt: skip
    return found


def audit_questions(questions: QuestionVectors) -> QuestionAudit | None:
    """What cutting at colons and printing bytes change: how many questions, and accuracies; TREC only."""
    root = find_trec() if questions.name == "trec" else None
    if root is None:
        return None
    texts = [part.texts for part in load_trec(root)]
    folder = root / QUESTIONS.folder
    wrong = [notebook_texts(read_verified(QUESTIONS, folder, name)) for name in QUESTIONS.sha256]
    train, test = (torch.from_numpy(spacy_vectors(each, find_spacy_model())).unsqueeze(1) for each in wrong)
    misread = replace(questions, x_train=train, x_test=test)
    whole, cut = (
        train_trials(sweep_specs(questions.name, strides=[5]), each, question_identity(each))
        for each in (questions, misread)
    )
    pairs = list(
        zip([right for each in texts for right in each], [left for each in wrong for left in each], strict=True)
    )
    return QuestionAudit(
        questions=len(pairs), cut=sum(":" in right for right, _ in pairs),
        mangled=sum(right != left and ":" not in right for right, left in pairs),
        logistic_right=logistic_share(questions), logistic_notebook=logistic_share(misread),
        stride5_right=[record.test_accuracy for record in whole if record.test_accuracy is not None],
        stride5_notebook=[record.test_accuracy for record in cut if record.test_accuracy is not None],
    )  # fmt: skip


def _audited(spec: ConvNetSpec) -> AuditedRun:
    torch.set_num_threads(1)
    return audit_run(spec, load_images(spec.data, subset=spec.subset))


def run_audit(
    data: Dataset, texts: QuestionSet, folder: Path, *, seeds: int, passes: int, processes: int, on_audit: OnAudit
) -> AuditRecord:
    """Audit everything and keep the record below ``folder``; returns it."""
    torch.set_num_threads(1)
    store = Store(folder, AuditRecord)
    store.prepare()
    images, questions = load_images(data), load_questions(texts)
    specs = exercise_specs(["smoothness"], seeds=seeds, data=data, passes=passes)
    cost = audit_evaluation(specs[0], images)
    on_audit("what evaluation costs")
    runs = []
    for _, run in spread(_audited, list(specs), processes=processes):
        runs.append(run)
        on_audit(f"smoothness of {run.label}, seed {run.seed}")
    pixels = audit_pixels(specs[0])
    on_audit("exploding pixels")
    strides = audit_strides(questions, folder / "sweep", processes)
    on_audit("the sweep's means")
    misread = audit_questions(questions)
    on_audit("misread questions")
    record = AuditRecord(
        key="audit", data=identity(images), questions_data=question_identity(questions),
        environment=images_environment(images), learning_rate=specs[0].learning_rate,
        runs=sorted(runs, key=lambda run: (run.seed, run.variant)),
        pixels=pixels, strides=strides, questions=misread, evaluation=cost,
    )  # fmt: skip
    store.save(record)
    return record

"""A run's outcome on disk: validated JSON, written whole or not at all. This module knows nothing of torch."""

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Generic, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hw4.errors import RecordError, first_problem
from hw4.files import write_atomically
from hw4.specs import ConvNetSpec, Dataset, LandscapeSpec, QuestionSet, TextCNNSpec

PACKAGE = Path(__file__).parent
NUMERICAL_CODE = (
    "claim.py",
    "curvature.py",
    "data",
    "experiments.py",
    "geometry.py",
    "models.py",
    "objective.py",
    "plan.py",
    "smoothness.py",
    "specs.py",
    "sweep.py",
    "training.py",
)
"""The parts of the package that can change a run's numbers, as opposed to how they are kept or shown."""

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Document(BaseModel):
    """Base of everything inside a record: frozen, complete, no unknown fields, no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class DataIdentity(_Document):
    """Which data a run saw: name, SHA-256 of the grey levels and labels used, and how many images."""

    name: Dataset
    title: str
    checksum: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    n_train: Annotated[int, Field(ge=1)]
    n_test: Annotated[int, Field(ge=1)]


class Environment(_Document):
    """Where and with what a run was made; ``device`` is where the tensors lay."""

    versions: dict[str, str]
    platform: str
    cpu: str
    logical_cpus: int
    threads: int
    dtype: str
    device: str = "cpu"
    code: str
    commit: str | None
    dirty: bool | None


class Reading(_Document):
    """One smoothness reading and its companions, as :class:`hw4.smoothness.SmoothnessReading` explains them.

    ``noise_floor`` is what rounding alone makes of the quotient, where it was asked for; a reading too close to it is
    not ``usable``.
    """

    smoothness: Positive
    update_norm: Positive
    gradient_change_norm: Positive
    cosine: Annotated[float, Field(ge=-1, le=1)]
    along_update: Positive
    weight_norm: Positive
    noise_floor: Positive | None
    usable: bool


class PassRow(_Document):
    """State after ``completed`` passes (0: before training); losses are means in nats, accuracies shares.

    Loss and accuracy of a set are null when the loss is not finite. ``readings`` holds a smoothness reading for each
    direction; none when they had no value (zero update or a gradient that is not finite) or were not asked for.
    """

    completed: Annotated[int, Field(ge=0)]
    train_loss: Positive | None
    train_accuracy: Share | None
    test_loss: Positive | None
    test_accuracy: Share | None
    readings: list[Reading]

    @property
    def smoothness(self) -> float | None:
        """Mean over the directions; None without readings, or when one is 0 or too close to its noise floor."""
        if not self.readings or not all(reading.usable and reading.smoothness for reading in self.readings):
            return None
        return sum(reading.smoothness for reading in self.readings) / len(self.readings)


class PassTime(_Document):
    """Seconds of one training pass, evaluation and smoothness not included: elapsed, and processor time."""

    wall_seconds: Positive
    cpu_seconds: Positive


class Record(_Document):
    """What every record has; its file is named by its key."""

    schema_version: Literal[1] = 1
    key: str


R = TypeVar("R", bound=Record)


class RunNote(Record):
    """What no run's record can say of the last ``hw4 run``: why data stood in for other data, and what failed and why.

    ``failed`` names exercises as the page does.
    """

    key: Literal["run"] = "run"
    notes: list[str] = []
    failed: dict[str, str] = {}


STUCK = 0.9
"""A run whose final train loss is above this share of its initial one has learnt nothing to speak of."""

RunOutcome = Literal["trained", "stuck", "diverged"]


class ConvNetRecord(Record):
    """One training run. ``rows`` holds pass 0 to the last pass made, ``times`` one entry per pass made."""

    spec: ConvNetSpec
    data: DataIdentity
    environment: Environment
    rows: Annotated[list[PassRow], Field(min_length=1)]
    times: list[PassTime]
    diverged: bool

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.key != self.spec.key:
            raise ValueError(f"the key must be {self.spec.key}")
        if [row.completed for row in self.rows] != list(range(len(self.rows))) or len(self.times) != len(self.rows) - 1:
            raise ValueError("rows must run from pass 0 without gaps, with one time for each pass made")
        if len(self.times) != self.spec.passes and not self.diverged:
            raise ValueError(f"a run that did not diverge must have all {self.spec.passes} passes")
        return self

    @property
    def last(self) -> PassRow:
        """The row after the last pass made."""
        return self.rows[-1]

    @property
    def outcome(self) -> RunOutcome:
        """How the run ended: trained, stuck (finite, but nothing learnt, as when every ReLU is dead) or diverged."""
        first, last = self.rows[0].train_loss, self.last.train_loss
        if self.diverged or first is None or last is None:
            return "diverged"
        return "stuck" if last > STUCK * first else "trained"


def stable_bracket(runs: Sequence[ConvNetRecord]) -> tuple[float, float] | None:
    """The largest learning rate up to which every one of these runs trained, and the next, at which one did not.

    None when the smallest rate fails already or none does: then they do not say where the limit lies.
    """
    good = 0.0
    for run in sorted(runs, key=lambda run: run.spec.learning_rate):
        if run.outcome != "trained":
            return (good, run.spec.learning_rate) if good else None
        good = run.spec.learning_rate
    return None


class RangeRow(_Document):
    """Loss and gradient change along an update, as :class:`hw4.curvature.RangeView` explains them."""

    factors: list[Annotated[float, Field(gt=0)]]
    loss: Positive
    losses: list[Positive]
    gradient_changes: list[Positive]
    update_norm: Positive

    @property
    def smoothness(self) -> list[float]:
        """Effective smoothness at each step length."""
        return [
            change / (factor * self.update_norm)
            for factor, change in zip(self.factors, self.gradient_changes, strict=True)
        ]


class BlockNorms(_Document):
    """One parameter tensor's norms: its weights, its part of the update, its part of the gradient's change."""

    name: str
    weight_norm: Positive
    update_norm: Positive
    gradient_change_norm: Positive


class Curvature(_Document):
    """Largest Hessian eigenvalue with its relative residual, and the share of kinks with its integral's error."""

    sharpness: Annotated[float, Field(allow_inf_nan=False)]
    residual: Positive
    products: int
    kink_share: Positive
    quadrature_error: Positive


class LandscapeRow(_Document):
    """What lies around a network after ``completed`` passes; curvature is measured after some passes only."""

    completed: Annotated[int, Field(ge=0)]
    view: RangeRow
    blocks: list[BlockNorms]
    curvature: Curvature | None


class LandscapeRecord(Record):
    """What was measured around one run after each pass; it ends early when the run has diverged."""

    spec: LandscapeSpec
    data: DataIdentity
    environment: Environment
    rows: list[LandscapeRow]


class QuestionIdentity(_Document):
    """Which questions a run saw, what made their vectors, and the SHA-256 of vectors and labels."""

    name: QuestionSet
    title: str
    vectors: str
    checksum: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    n_train: Annotated[int, Field(ge=1)]
    n_test: Annotated[int, Field(ge=1)]
    majority_accuracy: Share
    logistic_accuracy: Share


class TextCNNRecord(Record):
    """One trial of the stride sweep; accuracy and predicted classes are null when it diverged."""

    spec: TextCNNSpec
    stride: int
    trial: int
    data: QuestionIdentity
    environment: Environment
    test_accuracy: Share | None
    correct: list[bool] | None
    train_loss: Positive | None
    diverged: bool

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.key, self.stride, self.trial) != (self.spec.key, self.spec.stride, self.spec.trial):
            raise ValueError(f"key, stride and trial must be those of the spec, {self.spec.key}")
        if self.diverged != (self.test_accuracy is None) or self.diverged != (self.correct is None):
            raise ValueError("accuracy and correctness must be there exactly when the run did not diverge")
        if self.correct is not None and self.test_accuracy != sum(self.correct) / self.data.n_test:
            raise ValueError("the accuracy must be the share of correct answers")
        return self


IMAGE_PACKAGES = ("hw4", "torch", "torchvision", "numpy", "scikit-learn")
TEXT_PACKAGES = ("hw4", "torch", "spacy", "numpy", "scikit-learn")


def environment(
    *, threads: int, dtype: str, packages: Sequence[str] = IMAGE_PACKAGES, device: str = "cpu"
) -> Environment:
    """Describe this process's surroundings; ``threads``, ``dtype`` and ``device`` come from whoever computes."""
    commit, dirty = _commit()
    return Environment(
        versions={"python": platform.python_version(), **{name: _version(name) for name in packages}},
        platform=platform.platform(), cpu=_cpu(), logical_cpus=os.cpu_count() or 1, threads=threads, dtype=dtype,
        device=device, code=code_digest(), commit=commit, dirty=dirty,
    )  # fmt: skip


def _version(name: str) -> str:
    """Installed version of a distribution, or a word that says there is none (a source tree on the path)."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


@cache
def code_digest() -> str:
    """SHA-256 over the sources that determine a run's numbers: equal digests mean equal computations."""
    digest = hashlib.sha256()
    for part in NUMERICAL_CODE:
        path = PACKAGE / part
        for source in sorted(path.glob("*.py")) if path.is_dir() else [path]:
            digest.update(source.relative_to(PACKAGE).as_posix().encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()


@cache
def _commit() -> tuple[str | None, bool | None]:
    """Commit of the source tree the package runs from and whether it has uncommitted changes; None outside of one."""
    if not (PACKAGE.parent / ".git").exists():
        return None, None
    try:
        head, status = (
            subprocess.run(
                ["git", "-C", str(PACKAGE.parent), *arguments], capture_output=True, text=True, check=True, timeout=10
            ).stdout.strip()
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.SubprocessError):
        return None, None
    return head, bool(status)


def _cpu() -> str:
    """Model name of the processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


class Store(Generic[R]):
    """A folder of records of one kind, one file per run, named by the run's key."""

    def __init__(self, folder: Path, kind: type[R]) -> None:
        self.folder, self.kind = folder, kind

    def path(self, key: str) -> Path:
        """File of the record with this key."""
        return self.folder / f"{key}.json"

    def prepare(self) -> None:
        """Create the folder and prove that it can be written to; raises OSError otherwise."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self.folder):
            pass

    def save(self, record: R) -> Path:
        """Write a record so that its file is either absent, the old one, or complete."""
        path = self.path(record.key)
        write_atomically(path, record.model_dump_json(indent=1).encode() + b"\n")
        return path

    def load(self, key: str) -> R | None:
        """Read and validate the record with this key, or return None when there is none; raises RecordError."""
        path = self.path(key)
        return read_record(path, self.kind) if path.exists() else None

    def load_all(self, pattern: str = "*.json") -> list[R]:
        """Read and validate every record in the folder, by file name; raises RecordError for the first bad one."""
        return [read_record(path, self.kind) for path in sorted(self.folder.glob(pattern))]


def read_record(path: Path, kind: type[R]) -> R:
    """Read one record file; raises RecordError, in one sentence, when it is not a record of this kind and version."""
    way_out = "delete the file to have the run made again"
    try:
        contents = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path} is not complete JSON ({error}); {way_out}") from error
    version = contents.get("schema_version") if isinstance(contents, dict) else None
    if version != 1:
        raise RecordError(f"{path} has schema version {version!r}, this hw4 reads version 1; {way_out}")
    try:
        # Through JSON again: strict validation accepts JSON's own types only in JSON mode.
        record = kind.model_validate_json(json.dumps(contents))
    except ValidationError as error:
        raise RecordError(f"{path} is not a valid record ({first_problem(error)}); {way_out}") from error
    if path.stem != record.key:
        raise RecordError(f"{path} holds the run {record.key}, but its name says otherwise; {way_out}")
    return record


class AuditedRun(_Document):
    """One network's smoothness after every pass, measured in several ways, and its scores from pass 0 on."""

    label: str
    variant: str
    seed: int
    smoothness: dict[str, list[Positive]]
    train_loss: list[Positive]
    test_accuracy: list[Share]


class PixelAudit(_Document):
    """Largest standardised test pixel, test images with one above 100, and scores, by the two rules."""

    largest_right: Positive
    largest_notebook: Positive
    above_100_right: int
    above_100_notebook: int
    test_loss_right: Positive
    test_loss_notebook: Positive
    test_accuracy_right: Share
    test_accuracy_notebook: Share


class AuditedStride(_Document):
    """A stride's mean with failures averaged in, the accuracies of the runs that trained, and how many did not."""

    stride: int
    notebook: Share
    trained: list[Share]
    diverged: int


class QuestionAudit(_Document):
    """Questions cut at a colon or otherwise changed by the notebook's parsing, and accuracies on either reading."""

    questions: int
    cut: int
    mangled: int
    logistic_right: Share
    logistic_notebook: Share
    stride5_right: list[Share]
    stride5_notebook: list[Share]


class EvaluationCost(_Document):
    """Processor seconds of the notebook's evaluation, of ours, and of a training pass; medians of rounds in turn."""

    notebook_seconds: Positive
    right_seconds: Positive
    pass_seconds: Positive


Loss = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Scores(_Document):
    """Mean losses (nats) and accuracies (shares) before pass 1, 2, ...: the notebook's iterations 1, 2, ..."""

    train_loss: list[Loss]
    train_accuracy: list[Share]
    test_loss: list[Loss]
    test_accuracy: list[Share]


class PrintedRun(Scores):
    """What the notebook printed of one network, ten iterations."""

    title: str
    variant: str


class PrintedStride(_Document):
    """The accuracies that the notebook printed for one stride; a lost trial has class 0's share."""

    stride: int
    accuracies: list[Share]


class Notebook(_Document):
    """What the solved notebook printed; ``seconds`` are those of ten iterations by its machine's clock."""

    n_train: int
    n_test: int
    seconds: dict[str, float]
    runs: list[PrintedRun]
    strides: list[PrintedStride]


class RepeatedRun(Scores):
    """One network trained by the notebook's protocol: the seed draws its images, its weights and its minibatches."""

    variant: str
    seed: int
    n_train: int


class TimedIteration(_Document):
    """Seconds of an evaluation and a pass, one entry a round: the notebook's layers and evaluation, or hw4's."""

    layers: Literal["the notebook's", "hw4's"]
    variant: str
    times: list[PassTime]


class NotebookAudit(_Document):
    """What the notebook printed, and the same by its own protocol.

    ``repeated`` holds runs on as many training images as the notebook printed and as its code draws; ``diverged``
    names those without finite losses, which are not among them. ``strides`` is empty when the vectors are not the
    homework's. ``class_0_share`` is the accuracy of scores that are no numbers, of which argmax takes the first.
    """

    printed: Notebook
    repeated: list[RepeatedRun]
    diverged: list[str]
    class_0_share: Share
    strides: list[AuditedStride]
    seconds: list[TimedIteration]


class AuditRecord(Record):
    """The notebook's way of measuring beside the right one; ``notebook`` is null on other data than the homework's."""

    data: DataIdentity
    questions_data: QuestionIdentity
    environment: Environment
    learning_rate: Positive
    runs: Annotated[list[AuditedRun], Field(min_length=2)]
    pixels: PixelAudit
    strides: list[AuditedStride]
    questions: QuestionAudit | None
    evaluation: EvaluationCost
    notebook: NotebookAudit | None = None

"""A run's outcome on disk: validated JSON, written whole or not at all. This module knows nothing of torch."""

import ast
import hashlib
import importlib.metadata
import json
import os
import platform
import tempfile
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from hw4.errors import Hw4Error, RecordError, first_problem
from hw4.files import write_atomically
from hw4.machine import git, processor_name
from hw4.readings import KinkShare, LargestStep, NonNegative, RangeView, Share, Sharpness, SmoothnessReading
from hw4.specs import HELD_OUT_EVERY, ConvNetSpec, Dataset, QuestionSet, TextCNNSpec

PACKAGE = Path(__file__).parent
TRAINERS = ("experiments", "sweep")
"""The modules that make a run's numbers; with all that they import they are the code that computes."""
KEEPING = {"errors", "files", "records"}  # imported by the trainers, but they keep numbers and make none
SHOWN = {"label", "color", "marker", "linestyle"}  # arguments of a Variant of which no number follows


class _Document(BaseModel):
    """Base of everything inside a record: frozen, complete, no unknown fields, no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, revalidate_instances="always")


P = TypeVar("P", bound=_Document)
_EQUAL: dict[type, Any] = {}


def _shared(part: P) -> P:
    """The equal part of the record before, where there is one: thousands of records then hold it once."""
    last = _EQUAL.get(type(part))
    if last != part:
        _EQUAL[type(part)] = last = part
    found: P = last
    return found


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


class PassRow(_Document):
    """State after ``completed`` passes (0: before training); losses are means in nats, accuracies shares.

    Loss and accuracy of a set are null when the loss is not finite. ``readings`` holds a smoothness reading for each
    direction; none when they had no value (zero update or a gradient that is not finite) or were not asked for. The
    same holds for what was measured around the network: ``view`` along the first direction, sharpness and kinks.
    """

    completed: Annotated[int, Field(ge=0)]
    train_loss: NonNegative | None
    train_accuracy: Share | None
    test_loss: NonNegative | None
    test_accuracy: Share | None
    readings: list[SmoothnessReading]
    view: RangeView | None = None
    sharpness: Sharpness | None = None
    kinks: KinkShare | None = None
    steps: list[LargestStep] = []

    @property
    def smoothness(self) -> float | None:
        """Mean over the directions; None without readings, or when one is 0 or too close to its noise floor."""
        if not self.readings or not all(reading.usable and reading.smoothness for reading in self.readings):
            return None
        return sum(reading.smoothness for reading in self.readings) / len(self.readings)


class PassTime(_Document):
    """Seconds of one training pass, evaluation and smoothness not included: elapsed, and processor time."""

    wall_seconds: NonNegative
    cpu_seconds: NonNegative


class Record(_Document):
    """What every record has; its file is named by its key."""

    schema_version: Literal[2] = 2
    key: str


R = TypeVar("R", bound=Record)


class RunNote(Record):
    """What no run's record can say of the last ``hw4 run``: why data stood in for other data, and what failed and why.

    ``failed`` names exercises as the page does.
    """

    key: Literal["run"] = "run"
    notes: list[str] = []
    failed: dict[str, str] = {}


STUCK = 0.9  # a run whose final train loss is above this share of its initial one has learnt nothing to speak of

RunOutcome = Literal["trained", "stuck", "diverged"]


class ConvNetRecord(Record):
    """One training run. ``rows`` holds pass 0 to the last made, as the spec asks, ``times`` one entry per pass."""

    spec: ConvNetSpec
    data: Annotated[DataIdentity, AfterValidator(_shared)]
    environment: Annotated[Environment, AfterValidator(_shared)]
    rows: Annotated[list[PassRow], Field(min_length=1)]
    times: list[PassTime]
    diverged: bool

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.key != self.spec.key:
            raise ValueError(f"the key must be {self.spec.key}")
        made, completed = len(self.times), [row.completed for row in self.rows]
        due = [each for each in range(made + 1) if self.spec.evaluated_after(each) or each == made]
        if sorted({*due, *completed}) != completed or completed[-1] != made:
            raise ValueError("rows must run from pass 0 to the last made, one for each pass that the spec evaluates")
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
    """One trial of the stride sweep; accuracy and right answers are null when it diverged.

    They are of the test questions, or of those that the spec holds out of the training questions.
    """

    spec: TextCNNSpec
    stride: int
    trial: int
    data: Annotated[QuestionIdentity, AfterValidator(_shared)]
    environment: Annotated[Environment, AfterValidator(_shared)]
    test_accuracy: Share | None
    correct: list[bool] | None
    train_loss: NonNegative | None
    diverged: bool

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.key, self.stride, self.trial) != (self.spec.key, self.spec.stride, self.spec.trial):
            raise ValueError(f"key, stride and trial must be those of the spec, {self.spec.key}")
        if self.diverged != (self.test_accuracy is None) or self.diverged != (self.correct is None):
            raise ValueError("accuracy and correctness must be there exactly when the run did not diverge")
        asked = len(range(0, self.data.n_train, HELD_OUT_EVERY)) if self.spec.held_out else self.data.n_test
        if self.correct is not None and self.test_accuracy != sum(self.correct) / asked:
            raise ValueError("the accuracy must be the share of correct answers")
        return self


def made_by(record: ConvNetRecord | TextCNNRecord) -> dict[str, str]:
    """What identifies the trained network of this run: its data, its code and where it was made."""
    where = record.environment
    return {
        "data": record.data.checksum,
        "code": where.code,
        "where": " ".join([*map("=".join, sorted(where.versions.items())), where.cpu, where.device, where.dtype]),
    }


def was_made_by(record: ConvNetRecord | TextCNNRecord, about: Mapping[str, str]) -> bool:
    """Whether a network's file says the same of itself; older files do not say where they were made."""
    told = made_by(record)
    return told.items() <= {"where": told["where"], **about}.items()


def serves(
    record: ConvNetRecord | TextCNNRecord,
    data: DataIdentity | QuestionIdentity,
    now: Environment,
    cpus: Collection[str] = (),
) -> bool:
    """Whether a run made now, here or on ``cpus``, would give this record's numbers (its times aside).

    Text CNNs may come from machines with other processors, which change rounding only.
    """
    then, equal = record.environment, {"versions", "dtype", "code"}
    if isinstance(record, ConvNetRecord):
        equal |= {"device", "threads"} if then.cpu in cpus else {"cpu", "device", "threads"}
    return record.data == data and all(getattr(now, field) == getattr(then, field) for field in equal)


IMAGE_PACKAGES = ("hw4", "torch", "torchvision", "numpy", "scikit-learn")
TEXT_PACKAGES = ("hw4", "torch", "spacy", "numpy", "scikit-learn")


def environment(
    *, threads: int, dtype: str, packages: Sequence[str] = IMAGE_PACKAGES, device: str = "cpu"
) -> Environment:
    """Describe this process's surroundings; ``threads``, ``dtype`` and ``device`` come from whoever computes."""
    commit, dirty = _commit()
    return Environment(
        versions={"python": platform.python_version(), **{name: _version(name) for name in packages}},
        platform=platform.platform(),
        cpu=processor_name(),
        logical_cpus=os.cpu_count() or 1,
        threads=threads,
        dtype=dtype,
        device=device,
        code=code_digest(),
        commit=commit,
        dirty=dirty,
    )


@cache
def _version(name: str) -> str:
    """Installed version of a distribution, or a word that says there is none (a source tree on the path)."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


@cache
def code_digest(package: Path = PACKAGE) -> str:
    """Fingerprint of the code that computes: SHA-256 over the syntax of the trainers and of all that they import.

    Equal digests mean equal computations. Comments, docstrings and layout do not count, nor does what is compared and
    how it is drawn, nor code that schedules, keeps or reports runs, for the trainers do not import it. Data files of
    the package do. What a user's own program adds to hw4's tables is not seen.
    """
    digest = hashlib.sha256()
    for source in computing_code(package):
        digest.update(source.relative_to(package).as_posix().encode() + b"\0")
        digest.update(_syntax(source).encode() if source.suffix == ".py" else source.read_bytes())
    return digest.hexdigest()


def computing_code(package: Path) -> list[Path]:
    """Files of the code that computes: the trainers, what they import of the package, and the data they read."""
    found, todo = set[Path](), [package / f"{name}.py" for name in TRAINERS]
    while todo:
        source = todo.pop()
        if source in found or source.stem in KEEPING:
            continue
        found.add(source)
        for node in ast.walk(ast.parse(source.read_bytes())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            if isinstance(node, ast.ImportFrom):  # a module, or a module's names
                names = [str(node.module), *(f"{node.module}.{name}" for name in names)]
            files = [package.parent.joinpath(*name.split(".")).with_suffix(".py") for name in names]
            todo += [file for file in files if file.is_relative_to(package) and file.exists()]
    return [*sorted(found), package / "data" / "grammar.toml"]


def _syntax(source: Path) -> str:
    """A module's syntax tree in words, without docstrings, and without what only says what is compared and drawn."""
    tree = ast.parse(source.read_bytes())
    tree.body = [each for each in tree.body if not _is_exercise(each)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Variant":
            node.keywords = [each for each in node.keywords if each.arg not in SHOWN]
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            texts = [each for each in node.body if isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant)]
            node.body = [each for each in node.body if each not in texts] or [ast.Pass()]
    return ast.dump(tree)


def _is_exercise(statement: ast.stmt) -> bool:
    """Whether a statement makes the table of exercises, or an entry of it: their runs' specs say what is trained."""
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    return any(getattr(getattr(each, "value", each), "id", "") == "EXERCISES" for each in targets)


def note_code() -> None:
    """Read what the code is before it computes, for its files may be edited meanwhile."""
    code_digest()
    _commit()


@cache
def _commit() -> tuple[str | None, bool | None]:
    """Commit of the source tree the package runs from and whether it has uncommitted changes; None outside of one."""
    if not (PACKAGE.parent / ".git").exists():
        return None, None
    try:
        head, status = (
            git(PACKAGE.parent, *words, seconds=10) for words in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except Hw4Error:
        return None, None
    return head.decode().strip(), bool(status.strip())


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

    def load_all(self, pattern: str = "*.json", *, but: Collection[str] = ()) -> list[R]:
        """Read and validate every record in the folder, by file name, ``but`` those of some keys.

        Raises RecordError for the first bad one.
        """
        paths = [path for path in sorted(self.folder.glob(pattern)) if not path.name.startswith(".")]  # of macOS, say
        return [read_record(path, self.kind) for path in paths if path.stem not in but]


def read_record(path: Path, kind: type[R]) -> R:
    """Read one record file; raises RecordError, in one sentence, when it is not a record of this kind and version."""
    way_out = "delete or move the file, and give the command that made it again"
    raw = path.read_bytes()
    try:
        contents = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path} is not complete JSON ({error}); {way_out}") from error
    version = contents.get("schema_version") if isinstance(contents, dict) else None
    if version != 2:
        raise RecordError(f"{path} has schema version {version!r}, this hw4 reads version 2; {way_out}")
    try:
        record = kind.model_validate_json(raw)
    except ValidationError as error:
        if [each["loc"] for each in error.errors()] == [("spec", "norm")]:
            way_out = "its variant is another program's: read it there, or register it first (docs/add-a-model.md)"
        raise RecordError(f"{path} is not a valid record ({first_problem(error)}); {way_out}") from error
    if path.stem != record.key:
        raise RecordError(f"{path} holds the run {record.key}, but its name says otherwise; {way_out}")
    return record


class AuditedRun(_Document):
    """One network's smoothness after every pass, measured in several ways, and its scores from pass 0 on."""

    label: str
    variant: str
    seed: int
    smoothness: dict[str, list[NonNegative]]
    train_loss: list[NonNegative]
    test_accuracy: list[Share]


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


PositiveLoss = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class RepeatedRun(_Document):
    """One network by the notebook's protocol: the seed draws its images, its weights and its minibatches.

    Mean losses (nats) and accuracies (shares) before pass 1, 2, ...: the notebook's iterations 1, 2, ...
    """

    variant: str
    seed: int
    n_train: int
    train_loss: list[PositiveLoss]
    train_accuracy: list[Share]
    test_loss: list[PositiveLoss]
    test_accuracy: list[Share]


Layers = Literal["the notebook's", "hw4's"]


class TimedIteration(_Document):
    """Seconds of some work on one network, one entry a round: with the notebook's layers, or hw4's."""

    layers: Layers
    variant: str
    times: list[PassTime]


class NotebookAudit(_Document):
    """What the notebook printed (``data/notebook.toml``), and the same by its own protocol.

    ``repeated`` holds runs on as many training images as the notebook printed and as its code draws; ``diverged``
    names those without finite losses, which are not among them. ``strides`` is empty when the vectors are not the
    homework's. ``class_0_share`` is the accuracy of scores that are no numbers, of which argmax takes the first.
    ``seconds`` are those of an iteration, an evaluation and a pass, with either's evaluation.
    """

    printed: dict[str, Any]
    repeated: list[RepeatedRun]
    diverged: list[str]
    class_0_share: Share
    strides: list[AuditedStride]
    seconds: list[TimedIteration]


class AuditRecord(Record):
    """The notebook's way of measuring beside the right one; ``notebook`` is null on other data than the homework's.

    ``pixels``, by either rule (``_right``, ``_notebook``): the ``largest`` standardised test pixel, images with one
    ``above_100``, ``test_loss`` and ``test_accuracy``. ``evaluation``: processor seconds of the notebook's evaluation,
    of ours (``right_seconds``) and of a training pass (``pass_seconds``), medians of rounds in turn. ``drawn``: the
    largest pixel by the notebook's rule for each of several random subsets, a tenth of the training images. ``passes``:
    seconds of a training pass alone, in plain PyTorch (the notebook's layers) and hw4's. Older records have neither.
    """

    data: DataIdentity
    questions_data: QuestionIdentity
    environment: Environment
    learning_rate: NonNegative
    runs: Annotated[list[AuditedRun], Field(min_length=2)]
    pixels: dict[str, NonNegative]
    strides: list[AuditedStride]
    questions: QuestionAudit | None
    evaluation: dict[str, NonNegative]
    drawn: list[NonNegative] = []
    passes: list[TimedIteration] = []
    notebook: NotebookAudit | None = None

"""The committed baseline: for each class of processor the ratios that the timing gate expects, and the accuracies."""

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hw4.errors import first_problem
from hw4.files import write_atomically
from hw4.gate.timing import Estimate
from hw4.gate.verdicts import UnmeasurableError

Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Fingerprint(_Document):
    """What a process that measures says of itself: what must hold, and what must be equal to compare two of them."""

    hw4: str
    benchmarks: list[str]
    timer: str
    threads: int
    traced: bool
    xdist: str | None
    python: str
    torch: str
    cpu: str
    references: str
    workloads: str


class TimedBenchmark(_Document):
    """A benchmark's ratio to the frozen reference as a log, its standard error, and the visits it comes from."""

    log_ratio: Finite
    error: Positive
    visits: Annotated[int, Field(ge=1)]

    @property
    def estimate(self) -> Estimate:
        """Its log ratio with its standard error."""
        return Estimate(self.log_ratio, self.error)


class TimingBaseline(_Document):
    """What one class of processor measured, and with what."""

    commit: str | None
    python: str
    torch: str
    references: str
    workloads: str
    benchmarks: dict[str, TimedBenchmark]


class Outcome(_Document):
    """How a training run ended: loss in nats, accuracy as a share, null when it diverged; a digest of every bit."""

    digest: str
    test_accuracy: Annotated[float, Field(ge=0, le=1)] | None
    train_loss: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None
    diverged: bool


class AccuracyBaseline(_Document):
    """Outcomes of every run by key, by group of runs that differ in their seed only, and what they were computed with.

    ``versions`` are those of Python and of every library that touches a number.
    """

    commit: str | None
    versions: dict[str, str]
    cpu: str
    threads: int
    data: str
    runs: dict[str, dict[str, Outcome]]


class Baseline(_Document):
    """Everything that a baseline file holds."""

    schema_version: Literal[1] = 1
    timing: dict[str, TimingBaseline] = {}
    accuracy: dict[str, AccuracyBaseline] = {}


def read_baseline(path: Path) -> Baseline:
    """Read the file, or an empty baseline where there is none; raises UnmeasurableError for a file that is not one."""
    if not path.exists():
        return Baseline()
    try:
        return Baseline.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise UnmeasurableError(
            f"{path} is not a baseline of this version ({first_problem(error)}); restore it from git"
        ) from error


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Write the file whole or not at all."""
    contents = json.dumps(baseline.model_dump(mode="json"), indent=1, sort_keys=True) + "\n"
    write_atomically(path, contents.encode())

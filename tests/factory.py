"""Records made up for tests that need outcomes, not training, and work for other processes that need no torch."""

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from hw4.errors import SpecError
from hw4.readings import SmoothnessReading
from hw4.records import ConvNetRecord, DataIdentity, PassRow, PassTime, environment
from hw4.specs import ConvNetSpec
from hw4.stats import Interval


class Said(NamedTuple):
    """What a command printed."""

    out: str
    err: str


Command = Callable[..., Said]
"""The fixture ``hw4``."""


def run(
    *command: str, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run a command as a process of its own: how it ended, and what it printed."""
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=300)


def python(*arguments: str, **where: Any) -> "subprocess.CompletedProcess[str]":
    """The same of this Python."""
    return run(sys.executable, *arguments, **where)


DATA = DataIdentity(name="digits", title="made-up digits", checksum="0" * 64, n_train=100, n_test=50)


def make_row(
    completed: int, *, loss: float | None = 1.0, accuracy: float | None = 0.5, smoothness: float | None = 5.0
) -> PassRow:
    """A row whose training and test values agree, with two readings whose mean is the smoothness, or none."""
    return PassRow(
        completed=completed,
        train_loss=loss,
        train_accuracy=accuracy,
        test_loss=loss,
        test_accuracy=accuracy,
        readings=[] if smoothness is None else [make_reading(0.9 * smoothness), make_reading(1.1 * smoothness)],
    )


def make_reading(smoothness: float, **changes: Any) -> SmoothnessReading:
    """A reading far above its noise floor."""
    values = {
        "smoothness": smoothness,
        "update_norm": 0.1,
        "gradient_change_norm": 0.1 * smoothness,
        "cosine": 0.6,
        "along_update": 0.6 * smoothness,
        "weight_norm": 3.0,
        "noise_floor": 1e-4 * smoothness,
        "learning_rate": 0.04,
        "norm_mode": "batch",
        "chunk_size": 100,
        "blocks": (),
    }
    return SmoothnessReading(**{**values, **changes})


def make_record(
    spec: ConvNetSpec,
    rows: Sequence[PassRow],
    *,
    seconds: float = 1.0,
    diverged: bool = False,
    data: DataIdentity = DATA,
) -> ConvNetRecord:
    """A record of given rows in which every pass took the same time."""
    return ConvNetRecord(
        key=spec.key,
        spec=spec,
        data=data,
        environment=environment(threads=1, dtype="float32"),
        rows=list(rows),
        times=[PassTime(wall_seconds=seconds, cpu_seconds=seconds)] * rows[-1].completed,
        diverged=diverged,
    )


def require(interval: Interval, side: Literal["below", "above"], value: float) -> None:
    """Fail unless the data decide for the ordering, and say whether they decide against it or not at all."""
    found = interval.compared_with(value)
    outcome = found if found == "not decided" else "holds" if found == side else "fails"
    seen = f"{interval.estimate:.4g} [{interval.low:.4g}, {interval.high:.4g}], n = {interval.n}"
    assert outcome == "holds", (
        f"the ordering '{side} {value:g}' {outcome if outcome == 'fails' else 'is ' + outcome}: {seen}"
    )


def make_or_fail(what: str) -> str:
    """A task that fails at once, or takes a second."""
    if what == "bad":
        raise SpecError("no such thing")
    time.sleep(1)
    return what

"""Records made up for tests that need outcomes, not training."""

from collections.abc import Sequence

from hw4.records import ConvNetRecord, DataIdentity, PassRow, PassTime, environment
from hw4.specs import ConvNetSpec

DATA = DataIdentity(name="digits", title="made-up digits", checksum="0" * 64, n_train=100, n_test=50)


def make_row(
    completed: int, *, loss: float | None = 1.0, accuracy: float | None = 0.5, smoothness: float | None = 5.0
) -> PassRow:
    """A row whose training and test values agree."""
    return PassRow(
        completed=completed, train_loss=loss, train_accuracy=accuracy, test_loss=loss, test_accuracy=accuracy,
        smoothness=smoothness, update_norm=0.1, gradient_change_norm=None if smoothness is None else 0.1 * smoothness,
    )  # fmt: skip


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
        key=spec.key, spec=spec, data=data, environment=environment(threads=1, dtype="float32"), rows=list(rows),
        times=[PassTime(wall_seconds=seconds, cpu_seconds=seconds)] * (len(rows) - 1), diverged=diverged,
    )  # fmt: skip

"""What runs gave, as one tidy table: for notebooks, spreadsheets and other people's plots."""

import shlex
import statistics
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hw4.errors import RecordError
from hw4.files import AUDIT, CLAIM_CONTROLS, LADDER, LANDSCAPES, RECORDS, SWEEP_CONTROLS
from hw4.records import ConvNetRecord, PassRow, Store, TextCNNRecord

if TYPE_CHECKING:
    import pandas as pd

COLUMNS: dict[str, str] = tomllib.loads((Path(__file__).parent / "data" / "columns.toml").read_text())
"""Columns of the table, with their meaning and unit."""


def load_results(folder: Path | str) -> "pd.DataFrame":
    """Every run below a folder that ``hw4`` wrote to: a row for each run and pass, or for each text CNN's trial.

    The columns are those of :data:`COLUMNS`; what a row has no value for is empty (NaN). Raises RecordError when there
    are no records or one cannot be read.
    """
    found = []
    for part in (RECORDS, SWEEP_CONTROLS, LADDER, CLAIM_CONTROLS, LANDSCAPES, AUDIT / "sweep"):
        nets = Store(Path(folder) / part, ConvNetRecord).load_all("*_convnet-*.json")
        trials = Store(Path(folder) / part, TextCNNRecord).load_all("*_textcnn-*.json")
        found += [{**row, "folder": part.as_posix()} for row in _rows([*nets, *trials])]
    if not found:
        raise RecordError(
            f"there are no records in {folder}; make them with 'hw4 run --out {shlex.quote(str(folder))}'"
        )
    return _table(found)


def as_table(records: Iterable[ConvNetRecord | TextCNNRecord]) -> "pd.DataFrame":
    """The same table of some runs alone, as :func:`hw4.run` returns them; where they lie is left empty."""
    return _table(list(_rows(records)))


def _table(rows: list[dict[str, Any]]) -> "pd.DataFrame":
    import pandas as pd  # half a second, which only those who ask for tables pay

    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype(
        {"stride": "Int64", "permutation": "Int64", "chunk_size": "Int64", "held_out": "boolean"}
    )
    numbers = [name for name in table if name not in ("data", "key", "network", "vectors", "norm_mode", "folder")]
    empty = [name for name in numbers if table[name].dtype == object and table[name].isna().all()]
    return table.astype(dict.fromkeys(empty, float))  # pandas would keep None, of which there is no mean


def _rows(records: Iterable[ConvNetRecord | TextCNNRecord]) -> Iterator[dict[str, Any]]:
    for record in records:
        if isinstance(record, TextCNNRecord):
            yield _trial(record)
        elif isinstance(record, ConvNetRecord):
            yield from _passes(record)
        else:
            raise RecordError(
                f"records are expected, as hw4.run returns them, got {record!r:.60}; of a folder, load_results(folder)"
            )


def _passes(run: ConvNetRecord) -> Iterator[dict[str, Any]]:
    asked = {"data", "seed", "learning_rate", "momentum", "warmup_passes", "head_rate", "batch_size"}
    asked |= {"subset", "passes", "norm_mode", "chunk_size"}
    same = {"key": run.key, "network": run.spec.label, "diverged": run.diverged, **run.spec.model_dump(include=asked)}
    for row in run.rows:
        time = run.times[row.completed - 1].model_dump() if row.completed else {}
        yield {**same, **time, **_measured(row)}


def _measured(row: PassRow) -> dict[str, Any]:
    noise = [reading.noise_floor for reading in row.readings if reading.noise_floor is not None]
    scores = {"completed", "train_loss", "train_accuracy", "test_loss", "test_accuracy"}
    return {
        **row.model_dump(include=scores),
        "smoothness": row.smoothness,
        "update_norm": statistics.fmean(each.update_norm for each in row.readings) if row.readings else None,
        "noise_floor": max(noise, default=None),
        "sharpness": row.sharpness.value if row.sharpness else None,
        "kink_share": row.kinks.share if row.kinks else None,
    }


def _trial(trial: TextCNNRecord) -> dict[str, Any]:
    asked = {"data", "stride", "learning_rate", "momentum", "batch_size", "held_out", "permutation"}
    return {
        **trial.spec.model_dump(include=asked),
        "key": trial.key,
        "network": "TextCNN",
        "vectors": trial.data.vectors,
        "seed": trial.spec.trial,
        "passes": trial.spec.epochs,
        "completed": trial.spec.epochs,
        "train_loss": trial.train_loss,
        "test_accuracy": trial.test_accuracy,
        "diverged": trial.diverged,
    }

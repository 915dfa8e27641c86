"""The course's notebook: it runs from top to bottom, its answers are its numbers, and it is kept as it ran.

``python -m tests.test_course`` runs it on the embedded data, in the homework's sizes, and saves it with what it showed.
"""

import hashlib
import math
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from hw4 import load_results

nbformat = pytest.importorskip("nbformat", reason="needs the extra 'notebook': pip install '.[notebook]'")
nbclient = pytest.importorskip("nbclient", reason="needs the extra 'notebook': pip install '.[notebook]'")

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "homework4.ipynb"
SMALL = {"SEEDS": 2, "PASSES": 1, "DIRECTIONS": 1, "TRIALS": 2, "EPOCHS": 1}
FIRST_SPREAD = """
import itertools, hw4
_spread, _calls = hw4.run, itertools.count()
hw4.run = lambda specs, folder: _spread(specs, folder, processes=1 if next(_calls) else None)"""
"""Only the first call hands its runs to other processes, which each import torch for it."""
LARGEST, DPI = 600_000, 90
"""Bytes that the kept notebook may have, and its figures' dots per inch."""


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def source_digest(notebook: Any) -> str:
    """SHA-256 of all code, which the kept notebook carries of the code that made its outputs."""
    return hashlib.sha256("\0".join(cell.source for cell in code_cells(notebook)).encode()).hexdigest()


def execute(folder: Path, *lines: str, **settings: object) -> Any:
    """The notebook as it shows itself after a run in a fresh kernel in this folder, with settings and lines put in."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (at,) = (at for at, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ()))
    put_in = [f"{name} = {value!r}" for name, value in {"DATA": "embedded", **settings}.items()]
    put_in += [f"%config InlineBackend.print_figure_kwargs = {{'bbox_inches': 'tight', 'dpi': {DPI}}}", *lines]
    notebook.cells.insert(at + 1, nbformat.v4.new_code_cell("\n".join(put_in)))
    resources = {"metadata": {"path": str(folder)}}
    client = nbclient.NotebookClient(
        notebook, kernel_name="python3", timeout=1800, record_timing=False, resources=resources, coalesce_streams=True
    )
    client.execute()
    del notebook.cells[at + 1]
    return notebook


def shown(notebook: Any, kind: str = "text/plain") -> list[str]:
    """Everything that cells display in one kind, in order; what they print, too, for plain text."""
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    found = [output.data[kind] for output in outputs if kind in output.get("data", {})]
    return found + [output.text for output in outputs if output.output_type == "stream" and kind == "text/plain"]


def interval(values: "pd.Series[float]", form: str, least: float = -math.inf, most: float = math.inf) -> str:
    """Mean and 95% interval as the answers write them, computed by scipy alone, cut to what is possible."""
    low, high = stats.t.interval(0.95, len(values) - 1, loc=values.mean(), scale=stats.sem(values))
    return f"{values.mean():{form}} [{max(least, low):{form}},\u00a0{min(most, high):{form}}]"


def expected(table: pd.DataFrame) -> dict[str, str]:
    """What the written answers must hold, computed from the table of all runs in ways of its own."""
    last = table[table.completed == table.groupby("key").completed.transform("max")]
    nets = last[last.network != "TextCNN"].pivot_table(
        index="seed", columns="network", values=["smoothness", "train_loss", "test_accuracy"]
    )
    logs = np.log(nets.smoothness["ConvNet + BatchNorm"] / nets.smoothness["ConvNet"])
    low, high = map(math.exp, stats.t.interval(0.95, len(logs) - 1, loc=logs.mean(), scale=stats.sem(logs)))
    trials = last[(last.network == "TextCNN") & ~last.diverged]
    found = {
        "exercise 1's ratio": f"{math.exp(logs.mean()):.2f} [{low:.2f},\u00a0{high:.2f}]",
        **{
            f"stride {stride}'s mean": interval(group.test_accuracy, ".3f", 0, 1)
            for (stride, rate), group in trials.groupby(["stride", "learning_rate"])
            if rate == 0.1 and len(group) > 1
        },
    }
    for network, exercise in (("ConvNet + BatchNorm", 1), ("Strided ConvNet", 3)):
        for measure, form in (("train_loss", "+.3f"), ("test_accuracy", "+.4f")):
            gaps = nets[measure][network] - nets[measure]["ConvNet"]
            found[f"exercise {exercise}'s {measure}"] = interval(gaps, form)
    return found


def missing(answers: str, table: pd.DataFrame) -> list[str]:
    """Which numbers the answers lack, or tell otherwise."""
    return [name for name, text in expected(table).items() if text not in answers]


def test_the_notebook_runs_and_its_answers_are_its_numbers(tmp_path: Path) -> None:
    notebook = execute(tmp_path, FIRST_SPREAD, **SMALL)
    table = load_results(tmp_path / "homework4-runs")
    answers = "\n".join(shown(notebook, "text/markdown"))
    assert len(expected(table)) >= 5 + 4
    assert missing(answers, table) == []
    # The check sees a number that is wrong.
    for column in ("smoothness", "train_loss", "test_accuracy"):
        wrong = table.assign(**{column: table[column] * np.where(table.network == "ConvNet", 1.05, 1)})
        assert missing(answers, wrong), f"a {column} that is off by 5% went unseen"
    assert not [each for each in shown(notebook) if "Warning" in each]
    assert "100%" in shown(notebook)[-1], "a bar of progress"


def test_the_notebook_is_kept_as_it_ran() -> None:
    kept = NOTEBOOK.read_text()
    notebook = nbformat.reads(kept, as_version=4)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert notebook.metadata["source_sha256"] == source_digest(notebook), (
        "the code is not what made the outputs; run 'python -m tests.test_course'"
    )
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert all(cell.outputs for cell in cells[2:]), "but for imports and settings every cell shows something"
    assert len(shown(notebook, "image/png")) == 3
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    told = re.sub(r'"image/png": "[^"]*"', "", kept)  # a picture's letters say what they like
    assert not re.search(r"(?<![\w.<])/\w[\w.-]*/\w|[A-Z]:\\|Warning", told), "it shows a path of the machine it ran on"
    assert len(kept.encode()) < LARGEST


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        made = execute(Path(scratch))
    for number, each in enumerate(code_cells(made), start=1):
        each.execution_count = number
        for output in each.outputs:
            if "execution_count" in output:
                output["execution_count"] = number
    made.metadata = {
        "kernelspec": made.metadata["kernelspec"],
        "language_info": {"name": "python"},
        "source_sha256": source_digest(made),
    }
    nbformat.write(made, NOTEBOOK)

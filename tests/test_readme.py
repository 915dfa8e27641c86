"""The README is true: its tables are those of the reference records, and its example runs."""

import json
import re
from pathlib import Path

import pytest

from benchmarks.validate_gate import markdown
from benchmarks.validate_gate import summarise as summarise_gate
from hw4.records import ConvNetRecord, Store, TextCNNRecord
from hw4.report.findings import sections
from hw4.report.strides import summarise

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
REFERENCE = ROOT / "reports" / "reference"


def table(header: tuple[str, ...], rows: tuple[tuple[str, ...], ...]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, ("---",) * len(header), *rows))


def test_the_tables_are_those_of_the_reference_records() -> None:
    found = sections(Store(REFERENCE / "records", ConvNetRecord).load_all())
    assert [section.exercise for section in found] == ["smoothness", "pooling"]
    for section in found:
        expected = table(section.header, section.rows)
        assert expected in README, f"the README should hold this table instead:\n{expected}"
        for sentence in section.answer:
            assert f"- {sentence}\n" in README
        assert f"reports/reference/{section.exercise}.png" in README
        assert (REFERENCE / f"{section.exercise}.png").stat().st_size > 10_000


def test_the_sweeps_table_is_that_of_its_reference_records() -> None:
    summary = summarise(Store(REFERENCE / "strides" / "records", TextCNNRecord).load_all())
    _, header, rows = summary.tables[0]
    expected = table(tuple(header), tuple(tuple(row) for row in rows))
    assert expected in README, f"the README should hold this table instead:\n{expected}"
    for sentence in summary.answer:
        assert f"- {sentence}\n" in README


def test_the_gates_tables_are_those_of_its_validation() -> None:
    found = summarise_gate()
    assert json.loads((REFERENCE / "gate" / "validation.json").read_text()) == found
    for expected in markdown(found).split("\n\n"):
        assert expected in README, f"the README should hold this table instead:\n{expected}"


def test_linked_files_exist() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!http)([^)]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"


def test_the_page_for_other_models_runs(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "measure-your-model.md").read_text(), flags=re.S
    )
    scope: dict[str, object] = {}
    exec(first, scope)  # the page's own code
    assert len(first.strip().splitlines()) <= 15
    assert "usable: True" in capsys.readouterr().out
    exec(second, scope)
    assert re.fullmatch(r"sharpness [\d.]+, kinks 0.0%, .* steps [\d.]+\n", capsys.readouterr().out)


def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    exec(example, {})  # the README's own code
    smoothness, update_norm, norm_mode = capsys.readouterr().out.split()
    assert float(smoothness) > 0
    assert float(update_norm) > 0
    assert norm_mode == "batch"

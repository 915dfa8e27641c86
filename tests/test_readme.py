"""The README and the pages it leads to are true: their numbers are the reference records', and their examples run.

``python -m tests.test_readme`` writes the numbers into them anew.
"""

import functools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hw4
from benchmarks.validate_gate import markdown
from benchmarks.validate_gate import summarise as summarise_gate
from hw4.report.entry import markdown_table
from hw4.report.page import load_report

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
REFERENCE = ROOT / "reports" / "reference"
PAGES = (README, REFERENCE / "README.md", *sorted((ROOT / "docs").glob("*.md")))
BLOCK = re.compile(r"(<!-- numbers: (.*?) -->\n)(.*?)(<!-- end of numbers -->)", flags=re.DOTALL)


reference_report = functools.cache(lambda: load_report(REFERENCE))
gate_summary = functools.cache(summarise_gate)


def blocks() -> dict[str, str]:
    """What must stand between the marks of the pages, by the title of the report's part."""
    speed = json.loads((REFERENCE / "speed.json").read_text())
    found = {
        "The gate, validated": markdown(gate_summary()),
        "The whole homework": f"- plain {speed['plain_seconds']:.0f} s, hw4 "
        f"{' and '.join(f'{each:.0f}' for each in speed['hw4_seconds'])} s: {speed['times_faster']:.1f} times faster "
        f"({speed['environment']['cpu']}, {speed['environment']['logical_cpus']} processors).",
    }
    report = reference_report()
    for entry in report.entries:
        tables = [markdown_table(header, rows) for _, header, rows in entry.tables[:1]]
        answer = "\n".join(f"- {sentence}" for sentence in entry.answer)
        found[entry.title] = "\n\n".join([*tables, answer])
    found["headlines"] = "\n".join(f"- {entry.answer[0]}" for entry in report.entries if entry.title in HEADLINES)
    return found


HEADLINES = {
    "Exercise 1: what BatchNorm does to smoothness",
    "Exercise 2: a text CNN against its stride",
    "Exercise 3: max-pooling or stride?",
    "The claim: does BatchNorm allow larger learning rates?",
    "Benchmarks: hw4 beside plain PyTorch",
}
"""Parts of the report whose first sentence the README gives."""


def filled(text: str, parts: dict[str, str]) -> str:
    """A text with every block as it must be; raises KeyError for a mark that names no part of the report."""
    return BLOCK.sub(lambda found: f"{found[1]}\n{parts[found[2]]}\n\n{found[4]}", text)


def test_the_pages_numbers_are_those_of_the_reference_records() -> None:
    parts = blocks()
    marked = {name for page in PAGES for _, name, _, _ in BLOCK.findall(page.read_text())}
    assert marked == parts.keys() - {"The gate's last word"}, (
        "what the records say stands on no page, or on one of them stands something else"
    )
    for page in PAGES:
        text = page.read_text()
        assert filled(text, parts) == text, f"{page} is not what the records say; run 'python -m tests.test_readme'"


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 130


def test_the_reference_page_and_figures_are_those_of_its_records(tmp_path: Path) -> None:
    reference_report().write(tmp_path)
    committed = (REFERENCE / "index.html").read_text()
    # Pictures differ by the fonts and the matplotlib of a machine; words and names do not.
    without_images = re.compile(r"<svg.*</svg>|--of:[\d.]+")
    fresh = (tmp_path / "index.html").read_text()
    assert without_images.sub("", committed) == without_images.sub("", fresh), (
        "run 'hw4 report --out reports/reference'"
    )
    assert {path.name for path in tmp_path.glob("*.png")} == {path.name for path in REFERENCE.glob("*.png")}
    for name in re.findall(r"\(([^)/]*\.png)\)", (REFERENCE / "README.md").read_text()):
        assert (REFERENCE / name).stat().st_size > 10_000


def test_the_gates_tables_are_those_of_its_validation() -> None:
    assert json.loads((REFERENCE / "gate" / "validation.json").read_text()) == gate_summary()


def test_linked_files_exist() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!http)([^)]+)\)", page.read_text()):
            assert (page.parent / target.partition("#")[0]).exists(), (
                f"{page.name} links to {target}, which is not there"
            )


def test_the_page_for_other_models_runs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, epochs, second = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "measure-your-model.md").read_text(), flags=re.S
    )
    scope: dict[str, object] = {}
    monkeypatch.chdir(tmp_path)
    exec(first, scope)  # the page's own code
    assert len(first.strip().splitlines()) <= 15
    assert "usable: True" in capsys.readouterr().out
    exec(epochs, scope)
    assert len(Path("smoothness.csv").read_text().splitlines()) == 4, "a header and three epochs"
    exec(second, scope)
    assert re.fullmatch(r"sharpness [\d.]+, kinks 0.0%, .* steps [\d.]+\n", capsys.readouterr().out)


def test_the_pages_own_code_runs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "run-and-read.md").read_text(), flags=re.S)
    exec(example, {})  # the page's own code
    assert "Exercise 1: what BatchNorm does to smoothness - " in capsys.readouterr().out


def test_a_new_arm_is_entries_whose_runs_are_stale_when_its_layer_changes_and_not_its_looks(tmp_path: Path) -> None:
    """As docs/add-a-model.md says it: its entries at the end of a package's variants, then the command."""
    package = shutil.copytree(Path(hw4.__file__).parent, tmp_path / "hw4", ignore=shutil.ignore_patterns("__pycache__"))
    variants, page = package / "variants.py", (ROOT / "docs" / "add-a-model.md").read_text()
    own, out = variants.read_text(), tmp_path / "out"
    (entries,) = re.findall(r"```python\n(.*?)```", page, flags=re.S)
    asked = ["--exercise", "instances", "--data", "embedded", "--seeds", "2", "--passes", "2", "--subset", "0.1"]
    asked += ["--directions", "1", "--no-noise-floor"]
    command = [sys.executable, "-m", "hw4", "run", *asked, "--processes", "1", "--out", str(out)]

    def run(written: str) -> str:
        variants.write_text(own + written)
        where = {**os.environ, "PYTHONPATH": str(tmp_path)}
        return subprocess.check_output(
            command, cwd=tmp_path, env=where, text=True, stderr=subprocess.STDOUT, timeout=100
        )

    assert "Training 4 ConvNets" in run(entries)
    text = (out / "index.html").read_text()
    assert len(list((out / "records").glob("digits_convnet-pool-instancenorm_passes2_*.json"))) == 2
    needed = ["InstanceNorm or BatchNorm?", "Does normalising each image by itself", "ConvNet + InstanceNorm"]
    needed += ["smoothness after pass 2", "ratio", "instances.png", "#56b4e9"]
    assert [words for words in needed if words not in text] == []
    assert "Found on disk: 4 of 4" in run(entries.replace("#56B4E9", "#000000").replace("ConvNet + Inst", "Inst"))
    assert "#56b4e9" not in (out / "index.html").read_text()
    assert "Found on disk" not in run(entries.replace("affine=True", "affine=True, eps=1e-3"))


def test_the_gates_page_shows_the_example_that_is_tested() -> None:
    (shown,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "gate-your-own-code.md").read_text(), flags=re.S)
    assert (ROOT / "docs" / "example" / "test_gate.py").read_text().endswith(shown)


def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.S)
    exec(example, {})  # the README's own code
    smoothness, update_norm, norm_mode = capsys.readouterr().out.split()
    assert float(smoothness) > 0
    assert float(update_norm) > 0
    assert norm_mode == "batch"


if __name__ == "__main__":
    written = blocks()
    for page in PAGES:
        page.write_text(filled(page.read_text(), written))

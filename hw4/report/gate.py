"""The last gate's table and words, from the ``gate.json`` it left."""

import json
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from hw4.errors import RecordError, first_problem
from hw4.gate import Finding
from hw4.records import Environment
from hw4.report.entry import Entry
from hw4.report.words import plural

HEADER = ("what", "before", "now", "change", "verdict")


def read_gate(path: Path) -> tuple[str, list[Finding], Environment]:
    """A gate's verdict, with what it compared with, its findings and its place; raises RecordError for other files."""
    try:
        judged = json.loads(path.read_bytes())
        verdict = f"{judged['verdict']}, compared with {judged['compared']}"
        where = Environment.model_validate_json(json.dumps(judged["environment"]))
        findings = TypeAdapter(list[Finding]).validate_python(judged["findings"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        problem = first_problem(error) if isinstance(error, ValidationError) else f"{error!r:.80}"
        raise RecordError(f"{path} was not left by a gate of this version ({problem}); run 'hw4 gate' again") from error
    return verdict, findings, where


def load(folder: Path, _anyway: bool = False) -> list[Entry]:
    """The report's part on the last gate, whose JSON lies below the folder or beside it."""
    places = (place / "gate" / "gate.json" for place in (folder, folder.parent))
    path = next((path for path in places if path.exists()), None)
    return [] if path is None else [_entry(path)]


def _entry(path: Path) -> Entry:
    verdict, findings, where = read_gate(path)
    verdict = f"{verdict}, from {plural(len(findings), 'finding')}."
    return Entry(
        title="The gate's last word",
        question="Did the last change make training slower or worse?",
        answer=[verdict, *(f"{f.part}, {f.what}: {f.advice}." for f in findings if f.advice)],
        caption="",
        tables=[("", HEADER, [finding.cells for finding in findings])],
        rerun="hw4 gate",
        environments=[where],
    )

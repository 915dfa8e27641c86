"""The last gate's table and words, from the ``gate.json`` it left."""

from pathlib import Path

from pydantic import BaseModel, ValidationError

from hw4.errors import RecordError, first_problem
from hw4.gate import Finding
from hw4.records import Environment
from hw4.report.entry import Entry
from hw4.report.words import plural

HEADER = ("what", "before", "now", "change", "verdict")


class Judged(BaseModel):
    """What a gate leaves."""

    verdict: str
    compared: str
    environment: Environment
    findings: list[Finding]


def read_gate(path: Path) -> tuple[str, list[Finding], Environment]:
    """A gate's verdict, with what it compared with, its findings and its place; raises RecordError for other files."""
    try:
        left = Judged.model_validate_json(path.read_bytes())
    except ValidationError as error:
        why = first_problem(error)
        raise RecordError(f"{path} was not left by a gate of this version ({why}); run 'hw4 gate' again") from error
    return f"{left.verdict}, compared with {left.compared}", left.findings, left.environment


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

"""The last gate's table and words, from the ``gate.json`` it left."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from hw4.errors import RecordError, first_problem
from hw4.gate import Finding
from hw4.records import Environment
from hw4.report.entry import Entry


class JudgedCode(BaseModel):
    """A gate's verdict with its findings, where it was reached, and what it compared with."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    verdict: str
    compared: str
    environment: Environment
    findings: list[Finding]


HEADER = ("what", "before", "now", "change", "verdict")


def read_gate(path: Path) -> JudgedCode:
    """Read what a gate left; raises RecordError when the file is not that."""
    try:
        return JudgedCode.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise RecordError(
            f"{path} was not left by a gate of this version ({first_problem(error)}); run 'hw4 gate' again"
        ) from error


def load(folder: Path, _anyway: bool = False) -> list[Entry]:
    """The report's part on the last gate, whose JSON lies below the folder or beside it."""
    places = (place / "gate" / "gate.json" for place in (folder, folder.parent))
    path = next((path for path in places if path.exists()), None)
    return [] if path is None else [_entry(path)]


def _entry(path: Path) -> Entry:
    judged = read_gate(path)
    counted = f"{len(judged.findings)} finding{'s' if len(judged.findings) != 1 else ''}"
    verdict = f"{judged.verdict}, compared with {judged.compared}, from {counted}."
    return Entry(
        title="The gate's last word",
        question="Did the last change make training slower or worse?",
        answer=[verdict, *(f"{f.part}, {f.what}: {f.advice}." for f in judged.findings if f.advice)],
        caption="",
        tables=[("", HEADER, [finding.cells for finding in judged.findings])],
        rerun="hw4 gate",
        environments=[judged.environment],
    )

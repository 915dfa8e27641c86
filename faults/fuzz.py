"""Coverage-guided fuzzing of everything that reads bytes: whatever they are, they parse or meet a declared error.

    python -m faults.fuzz questions -max_total_time=600
    python -m faults.fuzz records   -max_total_time=600
    python -m faults.fuzz images    -max_total_time=600

Needs atheris. Options after the target's name are libFuzzer's. A crash leaves its input in the current folder.
"""

import gzip
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["hw4"]):
    from hw4.data import locate
    from hw4.data.questions import parse_questions
    from hw4.errors import DataError, RecordError
    from hw4.gate import UnmeasurableError
    from hw4.plugin import read_baseline
    from hw4.records import AuditRecord, ConvNetRecord, TextCNNRecord, read_record
    from hw4.report.benchmarks import read_run
    from hw4.report.gate import read_gate

REFERENCE = Path(__file__).parents[1] / "reports" / "reference"
FOLDER = Path(tempfile.mkdtemp(prefix="hw4-fuzz-"))


def questions(data: bytes) -> None:
    """TREC's label files."""
    try:
        parse_questions(data, "fuzz")
    except DataError:
        pass


def records(data: bytes) -> None:
    """Every kind of record, the gate's baseline and outcome, and saved benchmarks."""
    path = FOLDER / "record.json"
    path.write_bytes(data)
    for kind in (ConvNetRecord, TextCNNRecord, AuditRecord):
        try:
            read_record(path, kind)
        except RecordError:
            pass
    for read in (read_baseline, read_gate, read_run):
        try:
            read(path)
        except (RecordError, UnmeasurableError):
            pass


def images(data: bytes) -> None:
    """The packed and unpacked files of FashionMNIST."""
    name = next(iter(locate.IMAGES.sha256))
    for suffix, contents in ((".gz", data), (".gz", gzip.compress(data)), ("", data)):
        path = FOLDER / f"{name}{suffix}"
        path.write_bytes(contents)
        try:
            locate.read_verified(locate.IMAGES, FOLDER, name)
        except DataError:
            pass
        path.unlink()


TARGETS: dict[str, Callable[[bytes], None]] = {"questions": questions, "records": records, "images": images}


def seeds(name: str) -> Path:
    """Examples to start from: mutations of what is valid reach further than noise."""
    corpus = FOLDER / "corpus"
    corpus.mkdir()
    if name == "records":
        for number, path in enumerate(sorted(REFERENCE.rglob("*.json"))):
            text = path.read_text()
            if len(text) < 60_000:
                (corpus / str(number)).write_text(json.dumps(json.loads(text)))
    elif name == "questions":
        (corpus / "1").write_bytes(b"DESC:def What is it : this or that ?\nHUM:ind Who ?\n")
    else:
        (corpus / "1").write_bytes(gzip.compress(b"\x00\x00\x08\x03" + bytes(64)))
    return corpus


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"name a target: {', '.join(TARGETS)}")
    target = sys.argv.pop(1)
    atheris.Setup([*sys.argv, str(seeds(target))], TARGETS[target])
    atheris.Fuzz()

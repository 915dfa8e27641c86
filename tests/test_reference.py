"""The reference run's numbers are those of today's code, to the last bit where libraries and processor are the same.

``python -m tests.test_reference FOLDER`` compares the records of a whole run in FOLDER with the reference's, times and
circumstances aside.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hw4.data.images import Data
from hw4.data.vectors import load_questions
from hw4.experiments import images_environment, train_convnet
from hw4.files import RECORDS
from hw4.records import AuditRecord, ConvNetRecord, Environment, Store, TextCNNRecord, read_record
from hw4.sweep import identity, questions_environment, train_trials

REFERENCE = Path(__file__).parents[1] / "reports" / "reference"
READERS: dict[str, Callable[[Path], ConvNetRecord | TextCNNRecord | AuditRecord]] = {
    "*_convnet-*.json": lambda path: read_record(path, ConvNetRecord),
    "*_textcnn-*.json": lambda path: read_record(path, TextCNNRecord),
    "audit.json": lambda path: read_record(path, AuditRecord),
}
TIMED: dict[str, Any] = {
    "times": True,
    "environment": True,
    "evaluation": True,
    "passes": True,
    "notebook": {"seconds"},
}
"""What records hold beside numbers that follow from their specs."""


def numbers(record: ConvNetRecord | TextCNNRecord | AuditRecord) -> dict[str, Any]:
    """All of a record but its times, versions and commit."""
    return record.model_dump(exclude=TIMED)


def require_same_machine(then: Environment, now: Environment) -> None:
    """Skip where sums may be rounded otherwise."""
    for name in ("versions", "cpu", "threads", "dtype"):
        if getattr(then, name) != getattr(now, name):
            pytest.skip(f"the reference was made with {name} {getattr(then, name)}, this is {getattr(now, name)}")


@pytest.mark.parametrize("variant", ["pool", "pool-batchnorm", "stride"])
def test_a_convnets_first_pass_is_the_references(variant: str, real_images: Data) -> None:
    """A run of one pass begins as the run of ten: the same weights, minibatches and directions."""
    unread = "_directions0" if variant == "stride" else ""  # no exercise asks for the strided network's smoothness
    path = REFERENCE / RECORDS / f"fashion-mnist_convnet-{variant}{unread}_seed0.json"
    reference = read_record(path, ConvNetRecord)
    require_same_machine(reference.environment, images_environment(real_images))
    run = train_convnet(reference.spec.model_copy(update={"passes": 1}), real_images)
    ours, theirs = numbers(run), numbers(reference)
    assert ours["data"] == theirs["data"]
    assert ours["rows"] == theirs["rows"][:2]


@pytest.mark.usefixtures("real_questions")
def test_a_strides_trials_are_the_references() -> None:
    references = Store(REFERENCE / RECORDS, TextCNNRecord).load_all("trec_textcnn-stride5_*.json")
    questions = load_questions("trec")
    require_same_machine(references[0].environment, questions_environment())
    made = train_trials(
        sorted((record.spec for record in references), key=lambda spec: spec.trial), questions, identity(questions)
    )
    assert {record.key: numbers(record) for record in made} == {record.key: numbers(record) for record in references}


def differences(folder: Path, reference: Path = REFERENCE) -> list[str]:
    """Names of the records, below two folders, that are in one only or whose numbers differ."""
    found = []
    for pattern, read in READERS.items():
        first, second = ({path.relative_to(root): path for path in root.rglob(pattern)} for root in (folder, reference))
        found += [f"{name}: in one folder only" for name in sorted(first.keys() ^ second.keys())]
        for name in sorted(first.keys() & second.keys()):
            if numbers(read(first[name])) != numbers(read(second[name])):
                found.append(f"{name}: other numbers")
    return found


if __name__ == "__main__":
    differing = differences(Path(sys.argv[1]))
    print("\n".join(differing) or "Every record has the reference's numbers, to the last bit.")
    sys.exit(bool(differing))

"""Which data a command is about: both sets real, or both embedded; known without loading any."""

from pathlib import Path

from hw4.data.locate import data_roots, find_fashion_mnist
from hw4.data.questions import find_trec
from hw4.errors import DataError
from hw4.specs import DataChoice, Dataset, QuestionSet


def choose_dataset(choice: DataChoice) -> tuple[Dataset, str]:
    """Turn ``--data`` into a data set and a sentence that says which and why; raises DataError for absent real data."""
    real, sentence = _choose(choice, "FashionMNIST", "digits", find_fashion_mnist())
    return "fashion-mnist" if real else "digits", sentence


def choose_questions(choice: DataChoice) -> tuple[QuestionSet, str]:
    """The same for question sets."""
    real, sentence = _choose(choice, "TREC", "questions", find_trec())
    return "trec" if real else "grammar", sentence


def choose_data(choice: DataChoice, *, images: bool, questions: bool) -> tuple[Dataset, QuestionSet, list[str]]:
    """The data sets of a command that needs one or both, and sentences that say which and why; never mixed."""
    choosers = [choose for choose, needed in ((choose_dataset, images), (choose_questions, questions)) if needed]
    found: list[tuple[str, str]] = [choose(choice) for choose in choosers]
    sentences = [sentence for _, sentence in found]
    embedded = [sentence for name, sentence in found if name in {"digits", "grammar"}]
    if embedded and len(embedded) < len(found):  # only one of the two is there
        sentences = embedded + [choose("embedded")[1] for choose in choosers]
    return ("digits", "grammar", sentences) if embedded else ("fashion-mnist", "trec", sentences)


def _choose(choice: DataChoice, real: str, embedded: str, root: Path | None) -> tuple[bool, str]:
    """Whether the real data is used, which lies below ``root`` if anywhere, and a sentence on it."""
    if choice == "embedded":
        return False, f"Data: the embedded {embedded}, as asked."
    if root is not None:
        return True, f"Data: {real} in {root}."
    searched = " and ".join(str(root) for root in data_roots())
    if choice == "real":
        raise DataError(f"{real} is not in {searched}; run 'hw4 fetch' or set HW4_DATA to the folder it lies in")
    return False, f"Data: the embedded {embedded}, because {real} is not in {searched} ('hw4 fetch' downloads it)."

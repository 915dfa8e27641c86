"""Which data a command is about: both sets real, or both embedded; checked without loading any."""

from pathlib import Path

from hw4.data.locate import IMAGES, MODEL, QUESTIONS, Published, damage, data_roots, find_model, find_root, model_name
from hw4.errors import DataError
from hw4.specs import HOMEWORK_VECTORS, DataChoice, Dataset, QuestionSet

LAYOUT = ", ".join(str(data.folder) for data in (IMAGES, QUESTIONS, MODEL))


def choose_data(choice: DataChoice, *, images: bool, questions: bool) -> tuple[Dataset, QuestionSet, list[str]]:
    """The data sets of a command that needs one or both, and sentences that say which and why; never mixed.

    Real data is checked, with the model that makes the questions' vectors, so that nothing is trained in vain. Raises
    DataError for real data that was asked for, with all that is missing or damaged.
    """
    embedded = [name for name, needed in (("digits", images), ("questions", questions)) if needed]
    if choice == "embedded":
        return "digits", "grammar", [f"Data: the embedded {name}, as asked." for name in embedded]
    places = [(data, _find(data)) for data in (*[IMAGES] * images, *[QUESTIONS, MODEL] * questions)]
    absent = [data.title for data, folder in places if folder is None]
    problems = [problem for data, folder in places if folder is not None for problem in damage(data, folder)]
    if absent:
        problems.insert(0, _not_found(absent))
    if not problems:
        return "fashion-mnist", "trec", [_found(data, folder) for data, folder in places if folder is not None]
    why = "; ".join(problems)
    if choice == "real":
        raise DataError(f"{why}; run 'hw4 fetch' or set HW4_DATA to a folder with intact copies of {LAYOUT}")
    sentence = f"Data: the embedded {' and '.join(embedded)}, because {why} ('hw4 fetch' brings what is needed)."
    return "digits", "grammar", [sentence]


def _find(data: Published) -> Path | None:
    if data is MODEL:
        return find_model()
    root = find_root(data)
    return root and root / data.folder


def _not_found(titles: list[str]) -> str:
    *others, last = titles
    what = f"{', '.join(others)} and {last} are" if others else f"{last} is"
    installed = ", nor is the model installed" if MODEL.title in titles else ""
    return f"{what} not in {' and '.join(map(str, data_roots()))}{installed}"


def _found(data: Published, folder: Path) -> str:
    if data is MODEL and model_name(folder) != HOMEWORK_VECTORS:
        return f"Data: {model_name(folder)} in {folder}, not the homework's vectors; 'hw4 fetch' brings those."
    return f"Data: {data.title} in {folder}."

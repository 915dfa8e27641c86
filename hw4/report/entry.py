"""One part of a report, and the words that all parts share on their data, their circumstances and their command."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from matplotlib.figure import Figure
from pydantic import BaseModel

from hw4.errors import RecordError
from hw4.records import ConvNetRecord, DataIdentity, Environment, QuestionIdentity, TextCNNRecord

Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]  # caption, header and rows


T = TypeVar("T")
K = TypeVar("K")


def grouped(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    """Items by their key; keys and items keep their order."""
    found: dict[K, list[T]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return found


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, ("---",) * len(header), *rows))


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One part of a report: a question, its figure, the answer in words, tables, and the command that makes it again.

    ``data`` are sentences on what was seen, ``environments`` those of the records, ``seconds`` of processor time went
    into training passes where that was timed. ``notes`` are said before everything else on the page.
    """

    title: str
    question: str
    answer: Sequence[str]
    rerun: str
    caption: str
    tables: Sequence[Table] = ()
    environments: Sequence[Environment] = ()
    data: Sequence[str] = ()
    seconds: float | None = None
    figure: Figure | None = None
    file_name: str = ""
    alt: str = ""
    notes: Sequence[str] = ()

    @property
    def anchor(self) -> str:
        """The title as the page's links know it."""
        return re.sub(r"[\W_]+", "-", self.title.lower()).strip("-") or "part"

    @property
    def markdown(self) -> str:
        """Question, tables and answer as Markdown, for notebooks."""
        tables = [f"{caption}\n\n{markdown_table(header, rows)}".strip() for caption, header, rows in self.tables]
        answer = "\n".join(f"- {sentence}" for sentence in self.answer)
        return "\n\n".join([f"**{self.question}**", *tables, answer])

    @property
    def circumstances(self) -> list[str]:
        """Where and with what the records were made, each place once, in words."""
        return list(dict.fromkeys(map(_circumstances, self.environments)))

    @property
    def duration(self) -> str:
        """The processor time of the training passes, in a unit that suits it."""
        seconds = self.seconds or 0
        if seconds < 0.05:
            return "less than 0.1 seconds"
        return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.{0 if seconds >= 10 else 1}f} seconds"


def again(command: str, **options: tuple[object, object]) -> str:
    """The ``hw4`` command line that makes records again, from (value, default) of each option; defaults are left out.

    A value of True is a flag, a list an option given several times.
    """
    words = ["hw4", command]
    for name, (value, default) in options.items():
        if value == default:
            continue
        option = f"--{name.replace('_', '-')}"
        for each in value if isinstance(value, list) else [value]:
            words += [option] if each is True else [option, str(each)]  # all digits: fewer would be another run
    return " ".join(words)


def changed(spec: BaseModel, *names: str) -> dict[str, tuple[object, object]]:
    """Settings of a run with their defaults, as :func:`again` takes them."""
    return {name: (getattr(spec, name), type(spec).model_fields[name].default) for name in names}


CHOICE = {"fashion-mnist": "real", "digits": "embedded", "trec": "real", "grammar": "embedded"}
"""What ``--data`` says for a data set."""


def data_words(data: DataIdentity | QuestionIdentity) -> str:
    """Which data was used, in a sentence."""
    what = "questions" if isinstance(data, QuestionIdentity) else "images"
    vectors = f", vectors: {data.vectors}" if isinstance(data, QuestionIdentity) else ""
    return (
        f"{data.title}: {data.n_train:,} training and {data.n_test:,} test {what}{vectors}, SHA-256 of what was used "
        f"{data.checksum}"
    )


def images_words(data: DataIdentity, *, tested: bool = False) -> str:
    """Which images were used, in short, as below figures."""
    test = f" and {data.n_test:,} test" if tested else ""
    return f"{data.title}, {data.n_train:,} training{test} images, data sha256 {data.checksum[:12]}"


def mixed(records: Sequence[ConvNetRecord | TextCNNRecord]) -> list[str]:
    """Why these records cannot stand together, each reason in a sentence with the way out; mostly none."""
    sources: dict[str, list[tuple[object, str]]] = {
        "data sets": [(record.data, data_words(record.data)) for record in records],
        "versions of the code": [(record.environment.code, record.environment.code[:12]) for record in records],
    }
    found = []
    for what, of in sources.items():
        names, counts = dict(of), Counter(source for source, _ in of)
        if len(names) > 1:
            fewest = min(counts, key=lambda source: counts[source])
            odd = [record.key for record, (source, _) in zip(records, of, strict=True) if source == fewest]
            found.append(
                f"the {len(records)} records come from {len(names)} {what} ({', '.join(sorted(names.values()))}) and "
                f"do not belong together; make them again with --fresh, delete those that are not made again "
                f"(the fewest, {len(odd)} with {odd[0]}, are of one), or report them from separate folders"
            )
    return found


def require_unmixed(records: Sequence[ConvNetRecord | TextCNNRecord]) -> None:
    """Raise RecordError when these records cannot stand together."""
    if faults := mixed(records):
        raise RecordError(faults[0])


def _circumstances(made: Environment) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in made.versions.items())
    return (
        f"{made.cpu}, {made.threads} thread{'s' if made.threads > 1 else ''} of {made.logical_cpus} logical processors"
        f"{'' if made.device == 'cpu' else f', {made.device}'}, {made.dtype}, {made.platform}; {versions}; commit "
        f"{made.commit or 'unknown'}{' with uncommitted changes' if made.dirty else ''}"
    )

"""Question sets: TREC question classification, and an embedded set generated from a small grammar."""

import random
import tomllib
from dataclasses import dataclass
from pathlib import Path
from string import Formatter

import numpy as np

from hw4.data.locate import QUESTIONS, find_root, read_verified
from hw4.errors import DataError

CLASSES = ("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM")
"""The six coarse classes of Li and Roth (2002), in the label encoder's order: alphabetical."""


@dataclass(frozen=True)
class Questions:
    """Texts and their classes, as indices into ``CLASSES``, int64 (n,)."""

    texts: tuple[str, ...]
    labels: np.ndarray


def parse_questions(contents: bytes, source: str) -> Questions:
    """Parse lines of ``COARSE:fine question``, as TREC's label files have them, in latin-1.

    A line is split at its first colon and its first space only, so a question keeps its own colons. ``source`` is
    named in errors. Raises DataError with the line's number for a line of another form, an unknown class, or when a
    class has no question.
    """
    texts, labels = [], []
    for number, line in enumerate(contents.decode("latin-1").rstrip("\r\n").split("\n"), start=1):
        where = f"{source}, line {number}"
        category, space, text = line.rstrip("\r").partition(" ")
        coarse, colon, fine = category.partition(":")
        if not (coarse and colon and fine and space and text.strip()):
            raise DataError(f"{where} is not of the form 'COARSE:fine question': {line!r:.60}")
        if coarse not in CLASSES:
            raise DataError(f"{where} has the class {coarse!r:.20}, expected one of {', '.join(CLASSES)}")
        texts.append(text)
        labels.append(coarse)
    missing = sorted(set(CLASSES) - set(labels))
    if missing:
        raise DataError(f"{source} has no question of class {missing[0]}; every one of {', '.join(CLASSES)} is needed")
    return Questions(tuple(texts), np.array([CLASSES.index(label) for label in labels], dtype=np.int64))


def find_trec() -> Path | None:
    """Return the first data root with any of TREC's files, or None; a partial copy counts and is refused later."""
    return find_root(QUESTIONS)


def load_trec(root: Path) -> tuple[Questions, Questions]:
    """Read the 1,000 training and 500 test questions below a data root; raises DataError for an unusable file."""
    folder = root / QUESTIONS.folder
    train, test = (
        parse_questions(read_verified(QUESTIONS, folder, name), str(folder / name)) for name in QUESTIONS.sha256
    )
    return train, test


GRAMMAR = Path(__file__).with_name("grammar.toml")
EMBEDDED_TRAIN, EMBEDDED_TEST = 900, 300
EMBEDDED_SEED = 0


def embedded_questions() -> tuple[Questions, Questions]:
    """Generate 900 training and 300 test questions: no text twice in a class, classes about as likely as in TREC."""
    grammar = tomllib.loads(GRAMMAR.read_text())
    words = {slot: words.split() for slot, words in grammar["words"].items()}
    draw = random.Random(EMBEDDED_SEED)
    shares = {"ABBR": 4, "DESC": 21, "ENTY": 24, "HUM": 22, "LOC": 15, "NUM": 14}
    pairs: dict[tuple[str, str], None] = {}
    while len(pairs) < EMBEDDED_TRAIN + EMBEDDED_TEST:
        (label,) = draw.choices(list(shares), list(shares.values()))
        template = Formatter().parse(draw.choice(grammar["templates"][label]))
        text = "".join(before + (draw.choice(words[slot]) if slot else "") for before, slot, _, _ in template)
        pairs[label, text] = None
    labels = np.array([CLASSES.index(label) for label, _ in pairs])
    texts = tuple(text for _, text in pairs)
    return (
        Questions(texts[:EMBEDDED_TRAIN], labels[:EMBEDDED_TRAIN]),
        Questions(texts[EMBEDDED_TRAIN:], labels[EMBEDDED_TRAIN:]),
    )

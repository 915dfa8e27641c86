"""The TREC parser, byte for byte, and the embedded question set."""

import contextlib
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hw4.data.questions import CLASSES, embedded_questions, load_trec, parse_questions
from hw4.errors import DataError

ONE_OF_EACH = "".join(f"{label}:fine A question of {label} ?\n" for label in CLASSES)


def test_labels_are_those_of_the_encoder() -> None:
    questions = parse_questions(ONE_OF_EACH.encode(), "here")
    assert questions.labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert questions.labels.dtype == np.int64
    assert questions.texts[2] == "A question of ENTY ?"


text = st.text(st.characters(codec="latin-1", exclude_characters="\n\r"), min_size=1).filter(lambda t: t.strip())


@example("Which is it : this : or that ?", "HUM", "\n")
@given(text, st.sampled_from(CLASSES), st.sampled_from(["\n", "\r\n"]))
def test_a_question_keeps_every_character(question: str, label: str, end: str) -> None:
    line = f"{label}:fi:ne {question}{end}"  # the first colon ends the class, the first space the category
    questions = parse_questions((ONE_OF_EACH + line).encode("latin-1"), "here")
    assert questions.texts[-1] == question
    assert CLASSES[questions.labels[-1]] == label


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("no category", "not of the form"),
        ("HUM who ?", "not of the form"),
        (":ind who ?", "not of the form"),
        ("HUM: who ?", "not of the form"),
        ("HUM:ind", "not of the form"),
        ("HUM:ind  ", "not of the form"),
        ("", "not of the form"),
        ("PERSON:ind who ?", "the class 'PERSON', expected one of ABBR, DESC"),
        ("<html>:x y", "the class '<html>'"),
    ],
)
def test_a_malformed_line_is_named(line: str, message: str) -> None:
    contents = ONE_OF_EACH + line + "\nHUM:ind Who ?\n"
    with pytest.raises(DataError, match=rf"questions\.label, line 7 .*{re.escape(message)}"):
        parse_questions(contents.encode(), "questions.label")


@pytest.mark.parametrize("label", CLASSES)
def test_an_empty_class_is_named(label: str) -> None:
    kept = "".join(line for line in ONE_OF_EACH.splitlines(keepends=True) if not line.startswith(label))
    with pytest.raises(DataError, match=f"no question of class {label}"):
        parse_questions(kept.encode(), "here")


@given(st.binary(max_size=200))
def test_any_bytes_are_parsed_or_refused(contents: bytes) -> None:
    with contextlib.suppress(DataError):
        parse_questions(contents, "here")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "trec").mkdir()
    with pytest.raises(DataError, match=r"train_1000\.label is missing; fetch it again with 'hw4 fetch'"):
        load_trec(tmp_path)


def test_the_embedded_questions() -> None:
    train, test = embedded_questions()
    assert (len(train.texts), len(test.texts)) == (900, 300)
    assert embedded_questions()[0].texts == train.texts
    assert min(np.bincount(train.labels, minlength=6)) >= 20
    labels: dict[str, set[int]] = {}
    for part in (train, test):
        for question, label in zip(part.texts, part.labels, strict=True):
            labels.setdefault(question, set()).add(int(label))
    assert any(len(found) > 1 for found in labels.values()), "no question has two classes, so 100% could be reached"


def test_the_real_questions(real_questions: Path) -> None:
    train, test = load_trec(real_questions)
    counts = dict(zip(CLASSES, np.bincount(train.labels).tolist(), strict=True))
    assert counts == {"ABBR": 18, "DESC": 211, "ENTY": 244, "HUM": 220, "LOC": 156, "NUM": 151}
    assert len(test.texts) == 500
    assert train.texts[1] == "What films featured the character Popeye Doyle ?"
    assert any(":" in question for question in train.texts), "a question lost its colon"
    assert any("\xf0" in question for question in train.texts), "the one byte beyond ASCII is gone"

"""Finding the data, and the one rule for what is intact."""

import contextlib
import gzip
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hw4.data.locate
from hw4.data.choose import choose_data
from hw4.data.fetch import fetch
from hw4.data.locate import (
    IMAGES,
    MODEL,
    QUESTIONS,
    Published,
    damage,
    data_roots,
    find_model,
    find_root,
    model_name,
    read_verified,
)
from hw4.errors import DataError

CONTENTS = {name: f"contents of {name}".encode() * 99 for name in ("train-images-idx3-ubyte", "t10k-labels-idx1-ubyte")}
PACKED = {f"{name}.gz": gzip.compress(contents, mtime=0) for name, contents in CONTENTS.items()}
LABELS = {
    "train_1000.label": "HUM:ind Who ?\nLOC:other Where is \xf0 ?\n".encode("latin-1"),
    "TREC_10.label": b"DESC:def What ?\n",
}
MODEL_FILES = {"meta.json": b'{"version": "3.6.0"}', "config.cfg": b"[nlp]\n", "tok2vec/model": b"weights"}


@contextlib.contextmanager
def small_published_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Small files take the place of the published ones, and an empty folder that of the user's cache."""
    monkeypatch.setattr(hw4.data.locate, "cache_root", lambda: tmp_path / "cache")
    monkeypatch.delenv("HW4_DATA", raising=False)
    with contextlib.ExitStack() as stack:
        for data, files in ((IMAGES, CONTENTS), (QUESTIONS, LABELS), (MODEL, {**MODEL_FILES, "meta.json": b"3.6.0"})):
            sums = {name: hashlib.sha256(contents).hexdigest() for name, contents in files.items()}
            stack.enter_context(patch.dict(data.sha256, sums, clear=True))
        yield


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Small files for all tests here."""
    with small_published_files(monkeypatch, tmp_path):
        yield


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, contents in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(contents)
    return folder


def write_model(folder: Path, version: str = "3.6.0", *, damaged: bool = False) -> Path:
    """A small model that says it is of this version."""
    files = {**MODEL_FILES, "meta.json": json.dumps({"version": version}).encode()}
    return write(folder, {**files, "config.cfg": b"altered"} if damaged else files)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An intact copy with packed files only."""
    return write(tmp_path / "data" / IMAGES.folder, PACKED)


@pytest.mark.parametrize("name", CONTENTS)
def test_packed_and_unpacked_files_are_read(folder: Path, name: str) -> None:
    assert read_verified(IMAGES, folder, name) == CONTENTS[name]
    (folder / f"{name}.gz").unlink()
    (folder / name).write_bytes(CONTENTS[name])
    assert read_verified(IMAGES, folder, name) == CONTENTS[name]


NAME = "train-images-idx3-ubyte"
GOOD = PACKED[f"{NAME}.gz"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (None, "is missing"),
        (b"", "cut short or corrupt|not the published file"),
        (GOOD[:-9], "cut short or corrupt"),
        (GOOD[: len(GOOD) // 2], "cut short or corrupt"),
        (GOOD[:20] + bytes([GOOD[20] ^ 255]) + GOOD[21:], "cut short or corrupt"),
        (b"not gzip at all", "cut short or corrupt"),
        (b"<!DOCTYPE html><html><body>Please log in</body></html>", "HTML page instead of data"),
        (b"\n  <HTML>", "HTML page instead of data"),
        (gzip.compress(b"something else", mtime=0), r"SHA-256 [0-9a-f]{12}\.\.\., expected"),
    ],
    # Names of items must be the same in every worker of pytest-xdist, whatever the bytes.
    ids=[
        "missing",
        "empty",
        "end cut",
        "half cut",
        "a byte flipped",
        "not gzip",
        "HTML",
        "HTML after a space",
        "other",
    ],
)
def test_damage_is_named(folder: Path, damage: bytes | None, message: str) -> None:
    path = folder / f"{NAME}.gz"
    path.unlink() if damage is None else path.write_bytes(damage)
    with pytest.raises(DataError, match=message) as caught:
        read_verified(IMAGES, folder, NAME)
    assert str(path) in str(caught.value)
    assert "'hw4 fetch'" in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=300), st.sampled_from(["", ".gz"]), st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_at_all_are_taken_for_the_published_ones(
    tmp_path: Path, contents: bytes, suffix: str, packed: bool
) -> None:
    path = tmp_path / f"{NAME}{suffix}"
    path.write_bytes(gzip.compress(contents) if packed else contents)
    with pytest.raises(DataError) as caught:
        read_verified(IMAGES, tmp_path, NAME)
    path.unlink()
    assert "\n" not in str(caught.value)


def test_data_is_found_where_it_was_said_then_in_the_cache(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_root(IMAGES) is None
    write(tmp_path / "cache" / IMAGES.folder, {f"{NAME}.gz": GOOD})
    assert find_root(IMAGES) == tmp_path / "cache"
    monkeypatch.setenv("HW4_DATA", str(folder.parents[1]))
    assert data_roots() == [folder.parents[1], tmp_path / "cache"]
    assert find_root(IMAGES) == folder.parents[1]


OTHER = CONTENTS["t10k-labels-idx1-ubyte"]
TRAIN = LABELS["train_1000.label"]
NOBODY = "http://127.0.0.1:9/"
FORMS: list[tuple[str, Published, dict[str, bytes], bool]] = [
    ("packed", IMAGES, PACKED, True),
    ("unpacked", IMAGES, CONTENTS, True),
    ("packed anew", IMAGES, {**PACKED, f"{NAME}.gz": gzip.compress(CONTENTS[NAME], 1)}, True),
    ("damaged beside packed", IMAGES, {**PACKED, NAME: b"damaged"}, True),
    ("unpacked beside damaged", IMAGES, {**CONTENTS, f"{NAME}.gz": b"damaged"}, True),
    ("packed twice over", IMAGES, {**PACKED, f"{NAME}.gz": GOOD + GOOD}, False),
    ("one of two", IMAGES, {f"{NAME}.gz": GOOD}, False),
    ("exchanged", IMAGES, {NAME: OTHER, "t10k-labels-idx1-ubyte": OTHER}, False),
    ("lines", QUESTIONS, LABELS, True),
    ("CRLF", QUESTIONS, {**LABELS, "train_1000.label": TRAIN.replace(b"\n", b"\r\n")}, True),
    ("CR", QUESTIONS, {**LABELS, "train_1000.label": TRAIN.replace(b"\n", b"\r")}, True),
    ("no last line end", QUESTIONS, {**LABELS, "train_1000.label": TRAIN[:-1]}, True),
    ("cut at a line", QUESTIONS, {**LABELS, "train_1000.label": TRAIN.partition(b"\n")[0]}, False),
    ("doubled", QUESTIONS, {**LABELS, "train_1000.label": TRAIN * 2}, False),
    ("UTF-8", QUESTIONS, {**LABELS, "train_1000.label": TRAIN.decode("latin-1").encode()}, False),
    ("hand-edited", QUESTIONS, {**LABELS, "train_1000.label": TRAIN.replace(b"Who", b"Whom")}, False),
    ("empty", QUESTIONS, {**LABELS, "TREC_10.label": b""}, False),
    ("model", MODEL, MODEL_FILES, True),
    ("model with other meta data", MODEL, {**MODEL_FILES, "meta.json": b'{"lang": "en", "version": "3.6.0"}'}, True),
    ("altered model", MODEL, {**MODEL_FILES, "tok2vec/model": b"Weights"}, False),
    ("model without weights", MODEL, {name: MODEL_FILES[name] for name in ("meta.json", "config.cfg")}, False),
    ("model without meta data", MODEL, {name: MODEL_FILES[name] for name in ("config.cfg", "tok2vec/model")}, False),
]


@pytest.mark.parametrize(("data", "files", "intact"), [form[1:] for form in FORMS], ids=[form[0] for form in FORMS])
def test_what_a_fetch_calls_complete_a_run_accepts_and_the_other_way_round(
    data: Published, files: dict[str, bytes], intact: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "data"
    for each, whole in ((IMAGES, PACKED), (QUESTIONS, LABELS), (MODEL, MODEL_FILES)):
        write(root / each.folder, files if each is data else whole)
    monkeypatch.setenv("HW4_DATA", str(root))
    monkeypatch.setattr("hw4.data.fetch.RETRIES", 0)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    with contextlib.nullcontext() if intact else pytest.raises(DataError, match="no connection"):
        fetch(data, root, [NOBODY])
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    with contextlib.nullcontext() if intact else pytest.raises(DataError, match=str(data.folder)):
        assert choose_data("real", images=True, questions=True)[0] == "fashion-mnist"
    with contextlib.nullcontext() if intact else pytest.raises(DataError, match="'hw4 fetch'"):
        for name in data.sha256:
            read_verified(data, root / data.folder, name)


def test_all_that_is_missing_or_damaged_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, cache = tmp_path / "data", tmp_path / "cache"
    monkeypatch.setenv("HW4_DATA", str(root))
    with pytest.raises(DataError) as caught:
        choose_data("real", images=True, questions=True)
    assert str(caught.value) == (
        f"FashionMNIST, TREC and spaCy's en_core_web_sm 3.6.0 are not in {root} and {cache}, nor is the model "
        f"installed; run 'hw4 fetch' or set HW4_DATA to a folder that holds intact copies"
    )
    write(root / IMAGES.folder, {f"{NAME}.gz": b"<html>"})
    write(cache / QUESTIONS.folder, LABELS)
    with pytest.raises(DataError) as caught:
        choose_data("real", images=True, questions=True)
    for part in (
        f"spaCy's en_core_web_sm 3.6.0 is not in {root} and {cache}",
        f"{root / IMAGES.folder} lacks t10k-labels-idx1-ubyte.gz",
        f"{root / IMAGES.folder / NAME}.gz is an HTML page",
    ):
        assert part in str(caught.value)
    dataset, questions, (sentence,) = choose_data("auto", images=True, questions=True)
    assert (dataset, questions) == ("digits", "grammar")
    assert sentence == (
        f"Data: the embedded digits and questions, because {str(caught.value).partition('; run')[0]} "
        f"('hw4 fetch' brings what is needed)."
    )


def test_one_root_completes_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, cache = tmp_path / "data", tmp_path / "cache"
    monkeypatch.setenv("HW4_DATA", str(root))
    write(root / IMAGES.folder, PACKED)
    assert choose_data("real", images=True, questions=False)[0] == "fashion-mnist"
    assert choose_data("auto", images=True, questions=True)[:2] == ("digits", "grammar"), "never mixed"
    write(cache / QUESTIONS.folder, LABELS)
    write_model(cache / MODEL.folder)
    dataset, questions, sentences = choose_data("auto", images=True, questions=True)
    assert (dataset, questions) == ("fashion-mnist", "trec")
    assert sentences == [
        f"Data: FashionMNIST in {root / IMAGES.folder}.",
        f"Data: TREC in {cache / QUESTIONS.folder}.",
        f"Data: spaCy's en_core_web_sm 3.6.0 in {cache / MODEL.folder}.",
    ]


def test_the_homeworks_model_wins_wherever_it_is_and_another_is_said_aloud(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, cache = tmp_path / "data", tmp_path / "cache"
    monkeypatch.setenv("HW4_DATA", str(root))
    write(root / QUESTIONS.folder, LABELS)
    package = tmp_path / "site" / "en_core_web_sm"
    write(package, {"__init__.py": b""})
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert find_model() is None

    installed = write_model(package / "en_core_web_sm-3.8.0", "3.8.0")
    assert find_model() == installed
    other = write_model(root / MODEL.folder, "2.2.5")
    assert find_model() == other
    assert choose_data("auto", images=False, questions=True)[2][-1] == (
        f"Data: en_core_web_sm 2.2.5 in {other}, not the homework's vectors; 'hw4 fetch' brings those."
    )
    (other / "config.cfg").unlink()
    with pytest.raises(DataError, match=r"lacks config\.cfg"):
        choose_data("real", images=False, questions=True)
    for folder in (package / "en_core_web_sm-3.6.0", cache / MODEL.folder):
        write_model(folder)
        assert find_model() == folder
        assert model_name(folder) == "en_core_web_sm 3.6.0"


def test_a_partial_model_is_refused_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HW4_DATA", str(tmp_path / "data"))
    write_model(tmp_path / "cache" / MODEL.folder)
    folder = write(tmp_path / "data" / MODEL.folder, {"tok2vec/model": b"weights"})
    assert find_model() == folder
    assert damage(MODEL, folder) == [f"{folder} lacks meta.json, config.cfg"]


@pytest.mark.parametrize("contents", [b"", b"{", b"[]", b'{"version": 3}', b'{"version": "../x"}', b"[" * 100_000])
def test_a_model_with_senseless_meta_data_has_no_version(tmp_path: Path, contents: bytes) -> None:
    write(tmp_path, {"meta.json": contents})
    assert model_name(tmp_path) == "en_core_web_sm "

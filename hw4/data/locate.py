"""Where the real data lies, and whether it is as published. Nothing is read at import."""

import gzip
import hashlib
import importlib.util
import io
import json
import os
import re
import tomllib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pooch

from hw4.errors import DataError
from hw4.specs import HOMEWORK_VECTORS

LARGEST = 64 << 20  # no published file has more bytes; what unpacks to more is not read to its end


@dataclass(frozen=True)
class Published:
    """Files as they were published: their title, their folder below a data root, and what tells them from others.

    ``sha256`` gives the SHA-256 of what counts in each file, by name: see :func:`read_verified`. A file may also lie
    there under its name and the ending ``packed``, compressed by gzip. ``addresses`` serve the folder's files.
    """

    title: str
    folder: Path
    sha256: dict[str, str]
    packed: str = ""
    addresses: Sequence[str] = ()


SPACY_MODEL, HOMEWORK_VERSION = HOMEWORK_VECTORS.split()

IMAGES, QUESTIONS, MODEL = (
    Published(**{**each, "folder": Path(each["folder"])})
    for each in tomllib.loads(Path(__file__).with_name("published.toml").read_text()).values()
)


def cache_root() -> Path:
    """Where downloads are kept: the user's cache folder for hw4."""
    return Path(pooch.os_cache("hw4"))


def data_roots() -> list[Path]:
    """Folders searched for real data: ``$HW4_DATA`` when it is set, then the user's cache, if there is a home for one.

    Raises DataError where there is neither.
    """
    chosen = os.environ.get("HW4_DATA")
    roots = [Path(os.path.expanduser(chosen))] if chosen else []  # noqa: PTH111  which leaves unknown users alone
    try:
        return [*roots, cache_root()]
    except RuntimeError as error:
        if not roots:
            raise DataError("there is no home folder to keep data in; set HW4_DATA or XDG_CACHE_HOME") from error
        return roots


def find_root(data: Published) -> Path | None:
    """Return the first data root with any of the files, or None; a partial copy counts and is refused later."""
    return next((root for root in data_roots() if _anything(data, root / data.folder)), None)


def find_model() -> Path | None:
    """Return the folder of spaCy's model, from the data roots or installed: 3.6.0, else any other version, else None.

    A copy that does not name its version is taken for a partial 3.6.0: it counts and is refused later.
    """
    spec = importlib.util.find_spec(SPACY_MODEL)
    packages = (spec and spec.submodule_search_locations) or ()
    installed = [folder for package in packages for folder in Path(package).glob(f"{SPACY_MODEL}-*")]
    places = [*(root / MODEL.folder for root in data_roots()), *installed]
    found = [folder for folder in places if _anything(MODEL, folder)]
    return next(
        (folder for folder in found if model_version(folder) in {HOMEWORK_VERSION, ""}), next(iter(found), None)
    )


def model_version(folder: Path) -> str:
    """The version that a model's folder says it has, or an empty string."""
    try:
        return _version((folder / "meta.json").read_bytes())
    except OSError:
        return ""


def model_name(folder: Path) -> str:
    """Name and version of a model; spaCy itself, slow to import, is not needed for that."""
    return f"{SPACY_MODEL} {model_version(folder)}"


def damage(data: Published, folder: Path) -> list[str]:
    """Say what is missing from ``folder``, and which files are not as published: nothing for an intact copy."""
    if data is MODEL and model_version(folder) not in {HOMEWORK_VERSION, ""}:
        return [] if (folder / "config.cfg").exists() else [f"{folder} lacks config.cfg"]
    missing = [f"{name}{data.packed}" for name in data.sha256 if not _places(data, folder, name)]
    found = [f"{folder} lacks {', '.join(missing)}"] if missing else []
    for name in data.sha256:
        try:
            if _places(data, folder, name):
                _verified(data, folder, name)
        except DataError as error:
            found.append(str(error))
    return found


def read_verified(data: Published, folder: Path, name: str) -> bytes:
    """Return what counts of one published file in ``folder``, checked against its SHA-256.

    That is the contents: of images unpacked, of questions with line feeds at all line ends, of a model's meta data
    the version. Raises DataError when the file is missing, cut short, an HTML page or otherwise not the published one.
    """
    try:
        return _verified(data, folder, name)
    except DataError as error:
        raise DataError(f"{error}; fetch it again with 'hw4 fetch' or point HW4_DATA at an intact copy") from error


def _anything(data: Published, folder: Path) -> bool:
    return any(_places(data, folder, name) for name in data.sha256)


def _places(data: Published, folder: Path, name: str) -> list[Path]:
    """Where a file lies, unpacked or packed."""
    return [folder / form for form in dict.fromkeys((name, name + data.packed)) if (folder / form).exists()]


def _verified(data: Published, folder: Path, name: str) -> bytes:
    """What counts of the first copy that is as published; DataError without a way out where there is none."""
    problems = []
    for path in _places(data, folder, name):
        try:
            return _checked(path, data.sha256[name])
        except DataError as error:
            problems.append(str(error))
    raise DataError(problems[0] if problems else f"{folder / name}{data.packed} is missing")


def _checked(path: Path, sha256: str) -> bytes:
    """The one rule for what is intact, on reading as on fetching: what counts of a file has the published sum."""
    contents = path.read_bytes()
    if contents[:99].lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
        raise DataError(f"{path} is an HTML page instead of data")
    try:
        counts = _what_counts(path, contents)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} cannot be unpacked ({error}), it is cut short or corrupt") from error
    found = hashlib.sha256(counts).hexdigest()
    if found != sha256:
        raise DataError(
            f"{path} is not the published file: its contents have SHA-256 {found[:12]}..., expected {sha256[:12]}..."
        )
    return counts


def _what_counts(path: Path, contents: bytes) -> bytes:
    if path.suffix == ".gz":
        with gzip.open(io.BytesIO(contents)) as unpacked:
            return unpacked.read(LARGEST)
    if path.suffix == ".label":
        lines = contents.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return lines if lines.endswith(b"\n") else lines + b"\n"
    return _version(contents).encode() if path.name == "meta.json" else contents


def _version(meta: bytes) -> str:
    try:
        found = json.loads(meta)["version"]
        return found if re.fullmatch(r"\d[\w.+-]*", found) else ""
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""

"""Where the real data lies, and whether it is as published. Nothing is read at import."""

import gzip
import hashlib
import importlib.util
import io
import json
import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import pooch

from hw4.errors import DataError
from hw4.specs import HOMEWORK_VECTORS

LARGEST = 64 << 20
"""No published file has more bytes; what unpacks to more is not read to its end."""


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
    addresses: tuple[str, ...] = ()


SPACY_MODEL, HOMEWORK_VERSION = HOMEWORK_VECTORS.split()

IMAGES = Published(
    "FashionMNIST",
    Path("FashionMNIST", "raw"),  # the layout of torchvision.datasets
    {
        "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
    packed=".gz",
    addresses=(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
    ),
)
"""FashionMNIST (Xiao, Rasul and Vollgraf, 2017)."""

QUESTIONS = Published(
    "TREC",
    Path("trec"),
    {
        "train_1000.label": "9e26897eefb72b02b380412c6d8d3ccc003458ff1b3ff0998a2e60e31f77926d",
        "TREC_10.label": "033f22c028c2bbba9ca682f68ffe204dc1aa6e1cf35dd6207f2d4ca67f0d0e8e",
    },
    addresses=("https://cogcomp.seas.upenn.edu/Data/QA/QC",),
)
"""The training and test questions (Li and Roth, 2002), in this order."""

MODEL = Published(
    f"spaCy's {HOMEWORK_VECTORS}",
    Path(SPACY_MODEL),
    {
        # Only the version counts: the rest of this file is not the same in all copies, and computes nothing.
        "meta.json": hashlib.sha256(HOMEWORK_VERSION.encode()).hexdigest(),
        "attribute_ruler/patterns": "2f017760db383930880e7467e3af6f9251dd2bf9f6ba52d8088c946e022e2faf",
        "config.cfg": "fa5dbb1a1cf58805031247de1060ef3de0322fc599c33a1a06eda837a25546f7",
        "lemmatizer/lookups/lookups.bin": "eb64f40c0f8396d1762730c0ddf4dad2a52d138f5a389f71a1a1d088173b7737",
        "ner/cfg": "a7172edadafba9f472e9ac0f2660eec04b6405e471be9e20267b79c67288d22d",
        "ner/model": "6f47ca062eb419c8ffb7d3023e6fbc4b2eb21dab14c5d49aa5e5586228b87405",
        "ner/moves": "d82b13473ebd33e0396004dd22f00c71fe3c1251742bf1f7c4554f23fd3b0af4",
        "parser/cfg": "e2a240ef01f95e58f5dd4c9d6e90d61f597b8d998966570d3009dd81e8879780",
        "parser/model": "a1836fbc02b3924b2fd5f65325c58ae852ff112db1090ca724e5a801e68b85fd",
        "parser/moves": "ec41318c32eb7f9e4d8f050b2e8466ee67954d2d3455c1aec73abf46c82dd67f",
        "senter/cfg": "2a4db4a729b6469da1f87d71cc7cd3ed2a73360cc85326821e850836c4671103",
        "senter/model": "e62c2504dcdc66144b30c048100af05f12207f933f6d669982b947ae71ffdeef",
        "tagger/cfg": "d484c3d9391f37bf9c727aa2eb4c477a24cb103020f95e52dc37842818b50118",
        "tagger/model": "fb00ef592a2a464d95dd889ce424952ae7fd64e095153054c310345198cc0fc4",
        "tok2vec/cfg": "f8a5a26e3056eb6fb06deeb3dbccfd88ae74900200c98c70b5966bbb7ec9d4de",
        "tok2vec/model": "42d8414521eaf75f817bd1b351b26039a22a912bb2617f95ead305420f2ebffd",
        "tokenizer": "b014e8bba4958b120af2d0c1c63eabb7c00379f2bacaf10df7c5325efd2ea467",
        "vocab/key2row": "76be8b528d0075f7aae98d6fa57a6d3c83ae480a8469e668d7b0af968995ac71",
        "vocab/lookups.bin": "1ddd140ecac6a8c4592e9146d6e30074569ffaed97ee51edc9587dc510f8934c",
        "vocab/strings.json": "b1966d1f07a05b68576df07f43f40203b4e11124ad82cc839e8312ad8d7fdae7",
        "vocab/vectors": "14772b683e726436d5948ad3fff2b43d036ef2ebbe3458aafed6004e05a40706",
        "vocab/vectors.cfg": "ff4359091952c8cd16f1f0482f5770fb82d1707368d5cca3c46aa501f552e3c5",
    },
)
"""The model that made the homework's question vectors; any other version of it has no published sums."""


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

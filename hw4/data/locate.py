"""Where the real data lies, whether it is intact, and how it is downloaded. Nothing is read or fetched at import."""

import gzip
import hashlib
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pooch
import requests
from tqdm import tqdm

from hw4.errors import DataError

FASHION_MNIST = Path("FashionMNIST", "raw")
"""Folder of the image files below a data root: the layout of ``torchvision.datasets``."""

MIRRORS = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
)
"""Where ``hw4 fetch`` looks, in this order; what arrives is checked, so a mirror need not be trusted."""

RETRIES = 2
TIMEOUT_SECONDS = 30


@dataclass(frozen=True)
class DataFile:
    """A file of the data set as published: SHA-256 of the ``.gz`` and of its contents."""

    gz_sha256: str
    sha256: str


FILES = {
    "train-images-idx3-ubyte": DataFile(
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    "train-labels-idx1-ubyte": DataFile(
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ),
    "t10k-images-idx3-ubyte": DataFile(
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ),
    "t10k-labels-idx1-ubyte": DataFile(
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
}
"""The four files of FashionMNIST (Xiao, Rasul and Vollgraf, 2017), by their uncompressed name."""


TREC = Path("trec")
"""Folder of the question files below a data root."""

TREC_MIRRORS = ("https://cogcomp.seas.upenn.edu/Data/QA/QC/",)
TREC_FILES = {
    "train_1000.label": "9e26897eefb72b02b380412c6d8d3ccc003458ff1b3ff0998a2e60e31f77926d",
    "TREC_10.label": "033f22c028c2bbba9ca682f68ffe204dc1aa6e1cf35dd6207f2d4ca67f0d0e8e",
}
"""The training and test questions (Li and Roth, 2002) with their SHA-256, in this order."""


def cache_root() -> Path:
    """Where downloads are kept: the user's cache folder for hw4."""
    return Path(pooch.os_cache("hw4"))


def data_roots() -> list[Path]:
    """Folders searched for real data: ``$HW4_DATA`` when it is set, then the user's cache."""
    chosen = os.environ.get("HW4_DATA")
    return [*([Path(chosen).expanduser()] if chosen else []), cache_root()]


def find_fashion_mnist() -> Path | None:
    """Return the first data root with any FashionMNIST file, or None; a partial copy counts and is refused later."""
    for root in data_roots():
        if any((root / FASHION_MNIST / f"{name}{ending}").exists() for name in FILES for ending in ("", ".gz")):
            return root
    return None


def read_verified(folder: Path, name: str) -> bytes:
    """Contents of one FashionMNIST file in ``folder``, from ``name`` or ``name.gz``, checked against its SHA-256.

    Raises DataError when it is missing, cut short, an HTML page or otherwise not the published file.
    """
    way_out = "fetch it again with 'hw4 fetch' or point HW4_DATA at an intact copy"
    path = next((p for p in (folder / name, folder / f"{name}.gz") if p.exists()), None)
    if path is None:
        raise DataError(f"{folder / name}.gz is missing; {way_out}")
    contents = path.read_bytes()
    if contents.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
        raise DataError(f"{path} is an HTML page instead of data; delete it, then {way_out}")
    if path.suffix == ".gz":
        try:
            contents = gzip.decompress(contents)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"{path} cannot be unpacked ({error}), it is cut short or corrupt; {way_out}") from error
    found = hashlib.sha256(contents).hexdigest()
    if found != FILES[name].sha256:
        raise DataError(
            f"{path} is not the published file: its contents have SHA-256 {found[:12]}..., "
            f"expected {FILES[name].sha256[:12]}...; {way_out}"
        )
    return contents


def fetch_fashion_mnist(root: Path, *, mirrors: Sequence[str] = MIRRORS, progress: bool = True) -> Path:
    """Download the four files of FashionMNIST below ``root``; see :func:`fetch_files`."""
    files = {f"{name}.gz": known.gz_sha256 for name, known in FILES.items()}
    return fetch_files(root / FASHION_MNIST, files, mirrors=mirrors, progress=progress)


def fetch_trec(root: Path, *, mirrors: Sequence[str] = TREC_MIRRORS, progress: bool = True) -> Path:
    """Download the two files of TREC below ``root``; see :func:`fetch_files`."""
    return fetch_files(root / TREC, TREC_FILES, mirrors=mirrors, progress=progress)


def fetch_files(folder: Path, files: Mapping[str, str], *, mirrors: Sequence[str], progress: bool) -> Path:
    """Download files, given by name with their SHA-256, into ``folder`` unless intact copies are there.

    Each file comes under a temporary name and takes its own name only once its SHA-256 agrees; what an interrupted
    download left is removed and the file starts over. Returns the folder; raises DataError when no mirror delivers.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, sha256 in files.items():
        problems: list[str] = []
        for mirror in mirrors:
            try:
                _download(f"{mirror.rstrip('/')}/{name}", folder, name, sha256, progress=progress)
                break
            except (requests.RequestException, ValueError) as error:
                # pooch raises ValueError for a wrong checksum: often a login or error page instead of the file.
                reason = "the server sent something else" if isinstance(error, ValueError) else _reason(error)
                problems.append(f"{mirror}: {reason}")
        else:
            raise DataError(
                f"{name} could not be downloaded ({'; '.join(problems)}); check the network, name another "
                f"--mirror, or put the file into {folder} by hand"
            )
    return folder


def _download(url: str, folder: Path, file_name: str, sha256: str, *, progress: bool) -> None:
    """Bring one file into ``folder`` through pooch, which checks, retries and renames."""
    pooch.get_logger().setLevel("ERROR")
    # pooch sets the total from the answer; until then a total of 1 keeps the bar true in its eyes.
    with tqdm(desc=file_name, total=1, unit="B", unit_scale=True, disable=None if progress else True) as bar:
        downloader = pooch.HTTPDownloader(progressbar=bar, chunk_size=1 << 16, timeout=TIMEOUT_SECONDS)
        source = pooch.create(
            path=folder, base_url="", registry={file_name: f"sha256:{sha256}"}, urls={file_name: url},
            retry_if_failed=RETRIES,
        )  # fmt: skip
        source.fetch(file_name, downloader=downloader)


def _reason(error: requests.RequestException) -> str:
    """Say in a few words why a request failed."""
    if isinstance(error, requests.Timeout):
        return f"no answer within {TIMEOUT_SECONDS} seconds"
    if error.response is not None:
        return f"HTTP status {error.response.status_code}"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke off"
    return "no connection" if isinstance(error, requests.ConnectionError) else type(error).__name__

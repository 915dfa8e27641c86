"""Where files lie in the folder of a report, and writing them whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hw4.errors import Hw4Error

RECORDS, WEIGHTS, SWEEP_CONTROLS, LADDER, LANDSCAPES, CLAIM_CONTROLS, AUDIT = PLACES = tuple(
    map(Path, ("records", "weights", "controls", "claim/ladder", "claim/landscapes", "claim/controls", "audit"))
)
"""In a report's folder: records of the exercises, their networks, and records of exercise 2's controls, of
``hw4 claim`` and of ``hw4 audit``."""

PARTIAL = ".partial"  # how the name of a file ends that is not written whole yet; it begins with a dot
WRITTEN = (".json", ".safetensors", ".png", ".html", ".csv")  # how the names of our files end


def write_atomically(path: Path, contents: bytes) -> None:
    """Write a file under a temporary name in the same folder, flush it to disk, then rename it into place."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(contents)
            file.flush()
            os.fsync(file.fileno())
        with suppress(OSError):  # which some shared and foreign file systems refuse
            Path(temporary).chmod(0o644)  # mkstemp's 0600 would keep colleagues from reading results
        Path(temporary).replace(path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)  # a full disk does not say which file did not fit
        raise


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a folder for this process, as long as it lives; raises Hw4Error while another one has it."""
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", blocking=False):
            for part in (Path(), *PLACES, AUDIT / "sweep"):
                for ending in WRITTEN:  # by a process that was killed while it wrote; others' files stay
                    for left in (folder / part).glob(f".*{ending}.*{PARTIAL}"):
                        left.unlink(missing_ok=True)
            yield
    except Timeout as error:
        raise Hw4Error(f"another hw4 is writing to {folder}; wait until it ends, or choose another --out") from error

"""The whole homework, hw4 beside the plain script, in wall-clock time on the same processors.

    python -m benchmarks.homework                      needs the real data; about six minutes on two cores

Both start from nothing but data files (no cached vectors), do three ConvNets of ten passes and 60 text CNNs, and
measure smoothness once after each pass; hw4 does pass 0 and the page on top. hw4 runs before and after the plain
script. The outcome goes to ``reports/reference/speed.json``.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import matplotlib
import torch

from hw4.records import environment

ROOT = Path(__file__).parents[1]
LIKE_THE_PLAIN_SCRIPT = (
    *("--seeds", "1", "--directions", "1", "--no-noise-floor"),
    *("--no-longer", "--no-rescue", "--no-controls"),
)
"""One run of each network, one reading after each pass without its error, stride 1 left where it diverges, no more."""
OUTCOME = ROOT / "reports" / "reference" / "speed.json"


def seconds(command: list[str], folder: Path) -> float:
    """Wall-clock seconds of a command without cached vectors (the machine's fonts stay known to matplotlib).

    Its threads are left to it, as they are to a user's script.
    """
    kept = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
        env={**kept, "XDG_CACHE_HOME": str(folder / "cache"), "MPLCONFIGDIR": matplotlib.get_cachedir()},
    )
    return time.perf_counter() - start


def fast(number: int, folder: Path) -> float:
    out = str(folder / f"out{number}")
    return seconds(["hw4", "run", "--data", "real", *LIKE_THE_PLAIN_SCRIPT, "--out", out], folder / str(number))


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        before = fast(0, folder)
        plain = seconds(["benchmarks.plain_homework"], folder / "plain")
        ours = [before, fast(1, folder)]
    ratio = plain / statistics.fmean(ours)
    found = {
        "plain_seconds": round(plain, 1),
        "hw4_seconds": [round(each, 1) for each in ours],
        "times_faster": round(ratio, 2),
        "environment": environment(threads=torch.get_num_threads(), dtype="float32").model_dump(),
    }
    OUTCOME.write_text(json.dumps(found, indent=1) + "\n")
    print(f"plain {plain:.1f} s, hw4 {ours[0]:.1f} and {ours[1]:.1f} s: {ratio:.1f} times faster")


if __name__ == "__main__":
    main()

"""The timing gate's worker process: says where it runs, then times slices of the workloads as it is told.

It speaks JSON, a line at a time. The first line printed is the fingerprint of this process. After that every line read
is a request, ``{"benchmark": NAME, "slices": [...]}``, answered by a list with the processor seconds of each slice: a
slice is ``"reference"`` for the frozen plain code, or a number for hw4's code slowed down by that share (0.1: by 10%)
of the time that this very call took, so that the gate can see itself catch a slowdown of known size.
"""

import ast
import gc
import hashlib
import inspect
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.workloads import Workload

TIMER = time.process_time
WARM_UP = 2
FROZEN = ("frozen.py", "plain.py", "plain_text.py")


def main() -> None:
    """Answer requests until standard input ends, each on a workload built anew: other memory, other luck."""
    import torch

    from benchmarks.workloads import WORKLOADS

    torch.set_num_threads(1)
    print(json.dumps(fingerprint(list(WORKLOADS))), flush=True)
    gc.collect()
    gc.freeze()
    gc.disable()  # a collection costs as much as a slice, and falls on whichever comes
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(visit(WORKLOADS[request["benchmark"]]("slice"), request["slices"])), flush=True)


def visit(workload: "Workload", slices: list[str | float]) -> list[float]:
    """Processor seconds of each slice, after some that are not counted."""
    for _ in range(WARM_UP):
        workload.reference()
        workload.target()
    return [
        timed(workload.reference) if piece == "reference" else timed(workload.target, slower=float(piece))
        for piece in slices
    ]


def timed(work: Callable[[], object], *, slower: float = 0.0) -> float:
    """Processor seconds of a call, made longer by the share ``slower``: spun away, within what is timed."""
    start = TIMER()
    work()
    seconds = TIMER() - start
    if not slower:
        return seconds
    while TIMER() - start < seconds * (1 + slower):
        pass
    return TIMER() - start


def fingerprint(benchmarks: list[str]) -> dict[str, object]:
    """Everything that must be equal for two timings to be comparable, and what must hold for one to mean anything."""
    import torch

    import hw4

    here = Path(__file__).parent
    frozen = b"".join((here / name).read_bytes() for name in FROZEN)
    tree = ast.dump(ast.parse((here / "workloads.py").read_text()))
    return {
        "hw4": str(Path(inspect.getfile(hw4)).parent),
        "benchmarks": benchmarks,
        "timer": TIMER.__name__,
        "threads": torch.get_num_threads(),
        "traced": sys.gettrace() is not None or sys.getprofile() is not None,
        "xdist": os.environ.get("PYTEST_XDIST_WORKER"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cpu": cpu_class(),
        "references": hashlib.sha256(frozen).hexdigest(),
        "workloads": hashlib.sha256(tree.encode()).hexdigest(),
    }


def cpu_class() -> str:
    """Vendor, family and model of the processor and the vector instructions torch uses on it; names alone are vague."""
    import torch

    facts: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            facts.setdefault(name.strip(), value.strip())
    except OSError:
        pass
    known = [facts[name] for name in ("vendor_id", "cpu family", "model") if name in facts]
    vectors = torch.backends.cpu.get_cpu_capability()
    return " ".join([*(known or [platform.processor() or platform.machine()]), vectors])


if __name__ == "__main__":
    main()

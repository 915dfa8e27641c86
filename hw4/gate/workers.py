"""The processes that measure: started in a known environment, spoken to by lines of JSON, ended whatever happens."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from hw4.gate.timing import Slice
from hw4.gate.verdicts import UnmeasurableError

ROOT = Path(__file__).parents[2]
ANSWER_SECONDS = 120
"""Longest wait for one answer; the slowest, a first import of torch, takes some seconds."""
DROPPED = (
    "ATEN_",
    "COVERAGE_",
    "DNNL_",
    "GOMP_",
    "KMP_",
    "LD_PRELOAD",
    "MALLOC_",
    "MKL_",
    "NUMEXPR_",
    "OMP_",
    "ONEDNN_",
    "OPENBLAS_",
    "PYTHON",
    "TORCH",
)
"""Variables that change what is measured, by how they begin: a worker does not inherit them."""
SETTINGS = {
    # One thread, set before torch loads; two beside a busy neighbour wait for each other.
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # Fresh pages from the system cost more, and less evenly, than anything else in a slice: keep what was freed, and
    # use large pages where there are any. The benchmarks are timed without this.
    "MALLOC_TRIM_THRESHOLD_": "1000000000",
    "MALLOC_MMAP_THRESHOLD_": "1000000000",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}


def checkout() -> Path:
    """The source tree this package runs from, which the gate needs for its benchmarks; raises UnmeasurableError."""
    if not (ROOT / "benchmarks" / "gate_timing.py").exists():
        raise UnmeasurableError(
            f"'hw4 gate' needs a checkout of hw4 with its benchmarks, and there are none beside {ROOT / 'hw4'}; run it "
            f"from a clone installed with 'pip install --editable .'"
        )
    return ROOT


class Worker:
    """A process that runs one of the benchmarks' modules with one source tree's ``hw4``."""

    def __init__(self, module: str, *arguments: str, package: Path | None = None) -> None:
        """Start it; ``package`` is a folder that holds another ``hw4`` than this one."""
        self.module, root = module, checkout()
        environment = {name: value for name, value in os.environ.items() if not name.startswith(DROPPED)}
        paths = [str(package)] * (package is not None) + [str(root)]
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed on exit
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=root,
            start_new_session=True,  # so that it can be ended together with the processes it starts
            env={**environment, **SETTINGS, "PYTHONPATH": os.pathsep.join(paths)},
        )
        self._expected = (package or root) / "hw4"

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        self._process.communicate()
        self._errors.close()

    def _end(self) -> None:
        """End the worker and all that it started, also when it has ended itself."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def ask(self, question: object | None = None, seconds: float = ANSWER_SECONDS) -> object:
        """Send a line, if there is a question, and read a line; raises UnmeasurableError when none comes."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        late = threading.Timer(seconds, self._end)
        late.start()
        try:
            if question is not None:
                self._process.stdin.write(json.dumps(question) + "\n")
                self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            late.cancel()
        if not line:
            self._end()
            self._process.wait()
            self._errors.seek(0)
            said = self._errors.read().decode(errors="replace").strip().splitlines()
            raise UnmeasurableError(
                f"the process that measures ({self.module}) ended early, or gave no answer within {seconds:.0f} "
                f"seconds: {said[-1] if said else 'it said nothing'}"
            )
        answer: object = json.loads(line)
        return answer

    def first(self) -> dict[str, object]:
        """The worker's first line; raises UnmeasurableError when it measures another ``hw4`` than it was given."""
        facts = self.ask()
        assert isinstance(facts, dict)
        if Path(facts["hw4"]).resolve() != self._expected.resolve():
            raise UnmeasurableError(f"the process that measures loaded {facts['hw4']} instead of {self._expected}")
        return facts

    def visit(self, benchmark: str, slices: list[Slice]) -> list[float]:
        """Time slices of a benchmark, in processor seconds."""
        seconds = self.ask({"benchmark": benchmark, "slices": slices})
        assert isinstance(seconds, list)
        return seconds


@contextlib.contextmanager
def worktree(revision: str) -> Iterator[Path]:
    """A folder that holds a revision's ``hw4`` alone, from a temporary git worktree.

    Raises UnmeasurableError when there is no such revision here. The repository's own work tree is not touched.
    """
    git = ["git", "-C", str(checkout()), "-c", "core.hooksPath=/dev/null"]

    def call(*arguments: str) -> str:
        try:
            done = subprocess.run([*git, *arguments], capture_output=True, text=True, check=True, timeout=120)
        except (OSError, subprocess.SubprocessError) as error:
            said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
            raise UnmeasurableError(
                f"{revision!r} cannot be checked out ({said[-1] if said else 'git failed'}); name a commit, tag or "
                f"branch that this clone has, and fetch history if it is shallow"
            ) from error
        return done.stdout.strip()

    commit = call("rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
    with tempfile.TemporaryDirectory(prefix="hw4-gate-") as folder:
        tree, package = Path(folder, "tree"), Path(folder, "package")
        call("worktree", "add", "--detach", "--quiet", str(tree), commit)
        try:
            if not (tree / "hw4").is_dir():
                raise UnmeasurableError(f"{revision!r} has no package hw4 to compare with")
            package.mkdir()
            (tree / "hw4").rename(package / "hw4")
            yield package
        finally:
            call("worktree", "remove", "--force", str(tree))

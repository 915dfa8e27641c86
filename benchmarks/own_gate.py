"""hw4's gate for hw4, which ``hw4 gate`` calls: pytest over the gated tests beside this, told as a command tells it."""

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from hw4.errors import Hw4Error
from hw4.files import write_atomically
from hw4.gate import EXIT_CODES, Finding, table
from hw4.machine import ONE_THREAD
from hw4.records import environment

ROOT = Path(__file__).parents[1]
TESTS = {"timing": ROOT / "benchmarks" / "gate_timing.py", "accuracy": ROOT / "benchmarks" / "gate_accuracy.py"}
Part = Literal["timing", "accuracy", "all"]


def judge_hw4(
    out: Path, *, part: Part, data: str, against: str | None, update: bool, say: Callable[[str], None]
) -> dict[str, Any]:
    """Judge hw4's own code, or renew its baseline; writes ``gate.json`` and ``gate.xml`` and returns the former.

    Raises OSError where the folder cannot be written to, before anything is measured, and Hw4Error where the gate
    cannot run.
    """
    with tempfile.TemporaryFile(dir=out):
        pass
    if importlib.util.find_spec("pytest") is None:
        raise Hw4Error("'hw4 gate' runs pytest, which is not installed; install hw4's extra 'test'")
    where = environment(threads=1, dtype="float32").model_dump()  # before anything is written
    chosen = [str(test) for name, test in TESTS.items() if part in (name, "all")]
    say(f"Measuring {' and '.join(TESTS) if part == 'all' else part}{' for a baseline' * update} ...")
    options = ["--gate-update"] * update + [f"--gate-against={against}"] * bool(against) + [f"--gate-data={data}"]
    document, xml = _run_pytest([*chosen, *options])
    judged: dict[str, Any] = {**json.loads(document), "environment": where}
    findings = [Finding(**finding) for finding in judged["findings"]]
    say(table(findings))
    if update:  # what changes is taken, unless it could not be measured
        judged["exit_code"] = 3 if any(each.verdict == "UNMEASURABLE" for each in findings) else 0
        written = "Baseline: benchmarks/gate-baseline.json; commit it."
        say("No baseline was written." if judged["exit_code"] else written)
        return judged
    if judged["exit_code"] != 1:  # a command's own, not pytest's, but for a test that failed
        judged["exit_code"] = EXIT_CODES[judged["verdict"]]
    write_atomically(out / "gate.json", json.dumps(judged, indent=1).encode() + b"\n")
    write_atomically(out / "gate.xml", xml)
    say(f"Verdict: {judged['verdict']}, compared with {judged['compared']}.")
    say(f"Details: {out / 'gate.json'}, {out / 'gate.xml'}")
    return judged


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Inside, SIGTERM unwinds this process, which ends pytest and takes folders away, instead of ending it alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run_pytest(arguments: list[str]) -> tuple[bytes, bytes]:
    """The gate's JSON and JUnit XML from pytest with these arguments; raises Hw4Error where it left none."""
    with tempfile.TemporaryDirectory() as folder:
        document, junit = Path(folder, "gate.json"), Path(folder, "gate.xml")
        arguments += [f"--gate-json={document}", f"--junitxml={junit}", "--gate-take=hw4 gate --update"]
        with _ended_by_sigterm():
            done = subprocess.run(
                [sys.executable, "-m", "pytest", *arguments, "-q", "--tb=short", "-p", "no:cacheprovider"],
                cwd=ROOT,
                env={**{name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}, **ONE_THREAD},
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
        if document.exists() and json.loads(document.read_bytes())["findings"]:
            return document.read_bytes(), junit.read_bytes()
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    problem = next((line for line in said if line.startswith(("ERROR", "E "))), said[-1] if said else "nothing")
    raise Hw4Error(f"the gate did not come to a verdict; pytest said: {problem.removeprefix('ERROR: ').strip()}")

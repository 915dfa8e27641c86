"""The gate's plugin as others run it: the example project of docs/example, with hw4 installed from its wheel."""

import _json
import argparse
import functools
import hashlib
import json
import math
import os
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import time
import unicodedata
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import tests.factory
from hw4.errors import Hw4Error
from hw4.gate import UnmeasurableError
from hw4.machine import git, processor_class, processor_name, write_revision
from hw4.measurers import (
    CLOCKS,
    SOCKET,
    Tree,
    _alike,
    _as_text,
    _has_module,
    _has_source,
    _installed_copies,
    _is_own,
    _repeats,
    _timed,
    _waiting,
    as_outcome,
    last_line,
    ruler,
    take_options,
)
from hw4.plugin import BASELINE, EXIT_UNMEASURABLE, Gate, Judging, _check_repeats, read_baseline
from tests.factory import python, run

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "docs" / "example"
SECONDS, TRIES = 240, 4
AGAINST = ("--gate-against", "HEAD")
KEPT = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT") if name in os.environ}
IDENTITY = {f"GIT_{who}_{what}": "somebody" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with hw4 installed from a wheel that was built from these sources."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(ROOT / "hw4", source / "hw4", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source)]
    subprocess.run([*pip, *build], check=True, timeout=SECONDS, capture_output=True)
    (wheel,) = folder.glob("hw4-*.whl")
    target = ["install", "--no-deps", "--target", str(folder / "site"), str(wheel)]
    subprocess.run([*pip, *target], check=True, timeout=SECONDS, capture_output=True)
    # Once for all: what pytest compiles of the plugin is kept, which the runs below, that write nothing, would not do.
    (folder / "empty").mkdir()
    warm = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    environment = {**KEPT, "PYTHONPATH": str(folder / "site")}
    subprocess.run(warm, cwd=folder / "empty", env=environment, check=False, capture_output=True, timeout=SECONDS)
    return folder / "site"


class Project:
    """The example project in a git repository of its own, in a folder whose name is not ASCII."""

    def __init__(self, folder: Path, installed: Path) -> None:
        self.folder = folder
        shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__"))
        self.environment = {**KEPT, **IDENTITY, "PYTHONPATH": str(installed), "PYTHONDONTWRITEBYTECODE": "1"}
        self.plugins: list[str] = []
        self.git("init", "--quiet")
        self.commit("the example")

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        return run(*command, cwd=self.folder, env=self.environment)

    def git(self, *arguments: str) -> str:
        """What git prints."""
        done = self.run("git", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def commit(self, message: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)

    def edit(self, name: str, old: str, new: str) -> None:
        """Change a file."""
        text = (self.folder / name).read_text()
        assert old in text
        (self.folder / name).write_text(text.replace(old, new))

    def load_only(self, *plugins: str) -> None:
        """From now on without pytest plugins that happen to be installed: loading them all is most of a short run."""
        self.environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        self.plugins = [part for plugin in plugins for part in ("-p", plugin)]

    def command(self, *arguments: str) -> list[str]:
        """pytest, as it is called in a shell."""
        return [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *self.plugins, *arguments]

    def pytest(self, *arguments: str, code: int | None = None, verdicts: dict[str, str] | None = None) -> str:
        """Run it, which must end with this exit status and these verdicts by name, and give what it printed.

        Where the gate finds the machine too busy and says so, as it should, it is run again, as it says.
        """
        document = self.folder.parent / "gate.json"
        for _ in range(TRIES):
            document.unlink(missing_ok=True)
            done = self.run(*self.command(f"--gate-json={document}", *arguments))
            said = done.stdout + done.stderr
            if "run again" not in said:
                break
        findings = json.loads(document.read_bytes())["findings"] if document.exists() else []
        assert code in (None, done.returncode), said
        assert verdicts in (None, {finding["what"]: finding["verdict"] for finding in findings}), said
        return said


SLOWED = """

def update(*arguments, **keywords):
    plain_update(*arguments, **keywords)
    return plain_update(*arguments, **keywords)
"""


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory, installed: Path) -> Project:
    """The example with a baseline that was made here, by the plugin that pytest finds by itself."""
    made = Project(tmp_path_factory.mktemp("répo") / "exämple", installed)
    said = made.pytest(code=EXIT_UNMEASURABLE, verdicts={"test_update": "NEW", "test_training": "NEW"})
    assert "pytest test_gate.py::test_update --gate-update" in said
    made.pytest("--gate-update", code=0)
    made.commit("a baseline")
    made.load_only("hw4.plugin")
    return made


@pytest.fixture
def project(example: Project) -> Iterator[Project]:
    """The same for one test, which may change and commit what it likes: afterwards all is as it was."""
    made = example.git("rev-parse", "HEAD").strip()
    yield example
    example.git("reset", "--quiet", "--hard", made)
    example.git("clean", "--quiet", "--force", "-d")


@pytest.fixture
def alone(project: Project, installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One process measures each tree: that three agree is asked of other tests."""
    folder = installed.parent / "alone"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text("from hw4 import measurers\n\nmeasurers.PROCESSES = 1\n")
    monkeypatch.setitem(project.environment, "PYTHONPATH", f"{folder}{os.pathsep}{installed}")


def test_unchanged_code_passes_beside_its_baseline_and_its_commit(project: Project) -> None:
    for arguments, compared in ((), f"the baseline {BASELINE}"), (AGAINST, "HEAD, measured here"):
        said = project.pytest(*arguments, code=0, verdicts={"test_update": "PASS", "test_training": "PASS"})
        assert compared in said
    assert project.git("status", "--porcelain") == ""
    assert project.git("worktree", "list").count("\n") == 1


def test_a_slowdown_and_a_fault_go_red_and_an_update_takes_them(project: Project, tmp_path: Path) -> None:
    project.edit("training.py", "def update(", "def plain_update(")
    project.edit("training.py", "learning_rate=0.1)", "learning_rate=0.002)")
    with (project.folder / "training.py").open("a") as file:
        file.write(SLOWED)
    # Times are measured by the same processes whatever they are compared with, so once is enough for them.
    worse = {"test_training": "REGRESSION"}
    red = {"test_update": "REGRESSION", **worse}
    for arguments, verdicts in ((), red), ((*AGAINST, "-k", "training"), worse):
        said = project.pytest(*arguments, f"--junitxml={tmp_path}/gate.xml", code=1, verdicts=verdicts)
        assert "slower, also beside the baseline's commit" in said or arguments
        assert ET.parse(tmp_path / "gate.xml").getroot()[0].get("failures") == str(len(verdicts))
    project.pytest("--gate-update", code=0, verdicts=red)  # what is taken is shown
    project.pytest("-k", "training", verdicts={"test_training": "PASS"})


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    ("commit", "verdict", "sentence"),
    [
        ("its own", "UNMEASURABLE", "its commit takes as long here: something that git does not keep"),
        (None, "REGRESSION", "whether it is the machine cannot be told, for the baseline names no commit"),
        ("0" * 40, "REGRESSION", "fetch history if it is shallow"),
        ("one that fails", "REGRESSION", "RuntimeError: unfinished"),
    ],
)
def test_times_of_another_machine_are_looked_at_beside_their_commit(
    project: Project, commit: str | None, verdict: str, sentence: str
) -> None:
    """A baseline of much smaller ratios, far beyond what noise makes; what drifts little passes: see test_gate.py."""
    document = json.loads((project.folder / BASELINE).read_bytes())
    (row,) = document["tests"]["test_gate.py::test_update"]["times"].values()
    assert row["commit"] == project.git("rev-parse", "HEAD~1").strip()
    row["log"] -= 0.2
    if commit == "one that fails":
        project.edit("training.py", "def update(", "raise RuntimeError('unfinished')\n\n\ndef update(")
        project.commit("fails")
        commit = project.git("rev-parse", "HEAD").strip()
        project.git("reset", "--hard", "--quiet", "HEAD~1")
    row["commit"] = row["commit"] if commit == "its own" else commit
    (project.folder / BASELINE).write_text(json.dumps(document))
    said = project.pytest("-k", "update", verdicts={"test_update": verdict})
    assert sentence in said


@pytest.mark.usefixtures("alone")
def test_a_ruler_that_was_edited_measures_nothing(project: Project) -> None:
    project.edit("frozen.py", "scores - scores.max", "scores - 0 - scores.max")
    for arguments in ((), AGAINST):
        said = project.pytest("-k", "update", *arguments, code=EXIT_UNMEASURABLE)
        assert "the frozen reference is another now" in said


@pytest.mark.usefixtures("alone")
def test_in_a_hook_a_commit_is_what_was_staged(project: Project, tmp_path: Path) -> None:
    """Git tells its hooks which index is being worked on; a child that inherits that works on it."""
    hook = tmp_path / "pre-commit"
    hook.write_text(f"#!/bin/sh\nexec {shlex.join(project.command('-k', 'training', '--gate-against', 'HEAD~1'))}\n")
    hook.chmod(0o755)
    (project.folder / "notes.txt").write_text("staged\n")
    project.git("add", "notes.txt")
    (project.folder / "notes.txt").write_text("not staged\n")
    project.git("-c", f"core.hooksPath={tmp_path}", "commit", "--quiet", "--message", "by a hook")
    assert project.git("show", "--name-only", "--format=").split() == ["notes.txt"]
    assert project.git("show", "HEAD:notes.txt") == "staged\n"
    assert project.git("status", "--porcelain").split() == ["M", "notes.txt"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_stays_of_a_run_that_is_killed(project: Project, number: int, tmp_path: Path) -> None:
    environment = {**project.environment, "TMPDIR": str(tmp_path)}
    command = project.command(*AGAINST)

    def left() -> set[str]:
        """Folders of revisions, and processes that work in them or in the project."""
        found = {str(path) for path in tmp_path.glob("gate-*")}
        for process in Path("/proc").glob("[0-9]*"):
            try:
                where = str((process / "cwd").readlink())
            except OSError:  # ended meanwhile, or not ours
                continue
            if where.startswith((str(tmp_path), str(project.folder))):
                found.add(process.name)
        return found

    with subprocess.Popen(command, cwd=project.folder, env=environment, stdout=subprocess.DEVNULL) as process:
        _wait(lambda: len(left()) > 7)  # the folder, pytest, what removes it, and six that measure
        process.send_signal(number)
    _wait(lambda: not left())


def _wait(until: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not until():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--gate-against", ""], 4, "is a variable empty?"),
        ([*AGAINST, "--gate-update"], 4, "does not go with --gate-against"),
        (["--gate-seconds", "0"], 4, "a number above 0"),
        (["--gate-json", "training.py/gate.json"], 4, "so nothing was measured"),
        (["--gate-json", ""], 4, "--gate-json needs a file"),
        (["--gate-against", "nowhere"], 4, "'nowhere' cannot be read (fatal:"),
        (["--setup-plan"], 0, "SETUP"),
        (["--gate-seconds", "0.001", "-k", "update"], EXIT_UNMEASURABLE, "give more with --gate-seconds"),
        (["--collect-only"], 0, "2 tests collected"),
    ],
)
@pytest.mark.usefixtures("alone")
def test_what_cannot_be_done_is_said(project: Project, arguments: list[str], code: int, sentence: str) -> None:
    said = project.pytest(*arguments, code=code)
    assert sentence in said
    assert "Traceback" not in said
    if code == 4:
        assert "gate ====" not in said
    assert not (arguments == ["--collect-only"] and "UNMEASURABLE" in said)


def test_beside_one_another_workers_train_and_do_not_time(project: Project, tmp_path: Path) -> None:
    """With pytest-xdist; what could not be judged is no failure, in the summary and in JUnit XML, and no pass."""
    said = project.pytest(
        "-p",
        "xdist.plugin",
        "-n",
        "2",
        f"--junitxml={tmp_path}/gate.xml",
        code=EXIT_UNMEASURABLE,
        verdicts={"test_update": "UNMEASURABLE", "test_training": "PASS"},
    )
    assert "leave out -n" in said
    assert "1 passed, 1 unmeasurable" in said
    (suite,) = ET.parse(tmp_path / "gate.xml").getroot()
    assert [suite.get(kind) for kind in ("tests", "failures", "errors")] == ["2", "0", "1"]


@pytest.mark.usefixtures("alone")
def test_a_gated_test_that_is_gone_did_not_pass(project: Project) -> None:
    project.edit("test_gate.py", "def test_update(", "def check_update(")
    said = project.pytest(
        "--junitxml=/dev/null",
        code=EXIT_UNMEASURABLE,
        verdicts={"test_update": "UNMEASURABLE", "test_training": "PASS"},
    )
    assert "was not run" in said
    assert "Traceback" not in said
    assert "nothing to compare" not in project.pytest("-k", "training")
    (project.folder / "test_gate.py").write_text("def test_other():\n    pass\n")
    for file in ((), ("test_gate.py",)):
        project.pytest(
            *file, code=EXIT_UNMEASURABLE, verdicts=dict.fromkeys(("test_update", "test_training"), "UNMEASURABLE")
        )


@pytest.mark.usefixtures("alone")
def test_code_from_elsewhere_is_not_taken_for_the_revisions(project: Project, tmp_path: Path) -> None:
    """A package that is installed, and not editable, would be compared with itself."""
    shutil.copy(project.folder / "training.py", tmp_path)
    (project.folder / "conftest.py").write_text(f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\nimport training\n")
    project.commit("training from elsewhere")
    said = project.pytest("-k", "training", *AGAINST, code=EXIT_UNMEASURABLE)
    assert "which is not the code to be compared" in said


def test_the_cause_is_told_in_every_style_of_traceback() -> None:
    native = 'Traceback (most recent call last):\n  File "a.py", line 1, in f\nValueError: the file is not there\n\n'
    for text in (native, ">   f()\nE   ValueError: the file is not there\n\na.py:1: ValueError\n"):
        assert last_line(text) == "ValueError: the file is not there"
    assert last_line("async fixtures need a plugin\nSee: a page\n") == "async fixtures need a plugin"


@pytest.mark.usefixtures("alone")
def test_a_compiled_module_that_git_does_not_keep_is_not_compared(project: Project) -> None:
    """The revision lacks it, and may do without: its code before would be another's."""
    library = Path(next(file for module in (_json, unicodedata) if (file := getattr(module, "__file__", None))))
    name = library.name.partition(".")[0]
    built = project.folder / "built"
    built.mkdir()
    shutil.copy(library, built)
    project.edit("test_gate.py", "def test_update(", f"import built.{name}  # noqa\n\n\ndef test_update(")
    said = project.pytest("-k", "training", *AGAINST, code=EXIT_UNMEASURABLE)
    assert f"built.{name} is compiled, and not kept in git" in said


SEVERAL = """
import numpy as np
import pytest


@pytest.fixture
def folder(tmp_path):
    yield tmp_path
    {marker!r} and open({marker!r}, "a").write("cleared\\n")


def train(seed):
    return {{"loss": 1.0, "bits": np.arange(5000.0) + seed}}


def worse(seed):
    return {{"loss": 2.0}}


def test_it(gate, folder):
    gate.outcomes({first}, seeds=range(4), name="first", exact=True)
    gate.outcomes({second}, seeds=range(4), name="second", exact=True)
"""


def test_a_test_may_gate_several_things_each_by_its_name(
    project: Project, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Another revision's are found by name; every bit of an array counts; fixtures clear away in all processes."""
    path, marker = project.folder / "test_several.py", str(tmp_path / "cleared")
    path.write_text(SEVERAL.format(first="train", second="worse", marker=marker))
    project.pytest("test_several.py", "--gate-update", code=0)
    assert len(Path(marker).read_text().splitlines()) == 1 + 6, "pytest's own, and two teams of three"
    request.getfixturevalue("alone")
    project.commit("several")
    text = path.read_text()
    path.write_text(text.replace("np.arange(5000.0)", "np.where(np.arange(5000) == 2500, 1e-12, np.arange(5000.0))"))
    project.pytest("test_several.py", verdicts={"first": "CHANGED"})
    path.write_text(
        text.replace(
            "def test_it(gate, folder):\n",
            "def test_it(gate, folder):\n    gate.outcomes(worse, range(4), name='new')\n",
        )
    )
    project.pytest("test_several.py", *AGAINST, verdicts={"new": "NEW", "first": "PASS", "second": "PASS"})
    path.write_text(text.replace('name="second"', 'name="first"'))
    said = project.pytest("test_several.py", code=EXIT_UNMEASURABLE)
    assert "two gates have the name 'first'" in said
    path.unlink()
    project.pytest("-k", "not update", "--deselect", "nothing", verdicts={"test_training": "PASS"})
    other = "\n\ndef test_new(gate):\n    gate.outcomes(train, range(4))\n"
    path.write_text(text.replace("def test_it", "@pytest.mark.skip\ndef test_it") + other)
    kept = json.loads((project.folder / BASELINE).read_bytes())["tests"]
    project.pytest("--gate-update", "test_several.py", code=0)
    now = json.loads((project.folder / BASELINE).read_bytes())["tests"]
    assert now.pop("test_several.py::test_new")
    assert now == kept


ODD = """
import os

import pytest


def train(seed):
    words = list({f"word {i}" for i in range(50)})  # in an order of their hashes
    return {"accuracy": float(os.environ.get("SHARE", "0.9")), "bits": words}


@pytest.fixture
def cleared(gate):
    yield
    gate.outcomes(train, range(4), name="cleared")


def test_changes_variables(gate, monkeypatch):
    monkeypatch.setenv("SHARE", "0.5")
    gate.outcomes(train, range(4), exact=True)


def test_named_by_chance(gate):
    gate.outcomes(train, range(4), name=f"process {os.getpid()}")


def test_clears(cleared):
    pass


def test_parts(gate, subtests):
    for name in ("one", "two"):
        with subtests.test(name):
            gate.outcomes(train, range(4), name=name)
"""
ORDER = """
import pytest


def train(seed):
    return {{"loss": 1.0 + seed}}


@pytest.fixture
def prepared(gate):
    gate.outcomes(train, range(4), name="prepared")


def test_after(prepared):
    assert {holds}


def test_two(gate):
    {first}
    {second}


@pytest.mark.xfail
def test_expected(gate):
    gate.outcomes(lambda seed: 0.5, range(4))
"""
RUN_TWICE = """
from _pytest.runner import runtestprotocol


def pytest_runtest_protocol(item, nextitem):
    runtestprotocol(item, nextitem=nextitem, log=False)
    item._initrequest()
    for report in runtestprotocol(item, nextitem=nextitem, log=False):
        item.ihook.pytest_runtest_logreport(report=report)
    return True
"""
FIRST = """
def work():
    return sum(range(100_000))


def test_first(gate):
    gate.time(work, beside=lambda: work())


"""


@pytest.mark.usefixtures("alone")
def test_gates_in_odd_places(project: Project) -> None:
    """Where fixtures clear away, in subtests, in tests that are run twice or change variables, in sets of words."""
    folder = project.folder / "odd"
    folder.mkdir()
    (folder / "test_odd.py").write_text(ODD)
    usual = {"test_changes_variables", "cleared", "one", "two"}
    project.pytest("odd", "-k", "not chance", code=EXIT_UNMEASURABLE, verdicts=dict.fromkeys(usual, "NEW"))
    said = project.pytest("odd", "--gate-update", code=EXIT_UNMEASURABLE)
    assert "does not come to this gate in the processes that measure" in said
    assert "Traceback" not in said
    project.pytest("odd", "--gate-update", "-k", "not chance", code=0)
    kept = json.loads((folder / BASELINE).read_bytes())["tests"]
    runs = {key.partition("::")[2]: entry["outcomes"]["runs"]["0"]["accuracy"] for key, entry in kept.items()}
    assert runs == dict.fromkeys(usual, 0.9) | {"test_changes_variables": 0.5}
    (folder / "conftest.py").write_text(RUN_TWICE)
    project.pytest("odd", "-k", "not chance", code=0, verdicts=dict.fromkeys(usual, "PASS"))
    (folder / "test_odd.py").rename(folder / "gone.py")
    (folder / "test_other.py").write_text("def test_other():\n    pass\n")
    project.pytest("odd", code=EXIT_UNMEASURABLE, verdicts=dict.fromkeys(usual, "UNMEASURABLE"))
    project.pytest("odd/test_other.py", code=0)


NOT_PASSED = """
import pytest


def train(seed):
    return {"accuracy": 0.5 + seed / 100}


@pytest.mark.skipif(SKIPPED, reason="not here")
def test_kept(gate):
    gate.outcomes(train, range(4))


@pytest.mark.skipif(not SKIPPED, reason="not now")
def test_few(gate):
    try:
        gate.outcomes(train, range(3), name="three")
    finally:
        gate.outcomes(train, range(2), name="two")


@pytest.mark.parametrize("gate", ["xor"])
def test_of_a_strangers_gate(gate):
    assert gate != "xor"
"""


LIMIT = """
import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session):  # as coverage's limit does
    result = yield
    session.testsfailed += 1
    return result
"""


@pytest.mark.usefixtures("alone")
def test_other_plugins_limits_and_ungated_tests_keep_nothing_from_being_written(project: Project) -> None:
    folder = project.folder / "odd"
    folder.mkdir()
    (folder / "test_odd.py").write_text(NOT_PASSED.replace("SKIPPED", "False"))
    (folder / "conftest.py").write_text(LIMIT)
    project.pytest("odd", "--gate-update", "-k", "kept", code=1)  # the limit says so
    assert (folder / BASELINE).exists(), "it is no test that failed"
    project.pytest("odd", "-k", "stranger", "--gate-json=odd/new/gate.json", code=1)
    assert (folder / "new" / "gate.json").exists()


@pytest.mark.usefixtures("alone")
def test_what_was_not_judged_or_not_run_did_not_pass(project: Project) -> None:
    """Behind gates that cannot be judged no failure hides, and a comparison with nothing is none."""
    folder = project.folder / "odd"
    folder.mkdir()
    path = folder / "test_odd.py"
    path.write_text(NOT_PASSED.replace("SKIPPED", "False"))
    project.pytest("odd", "--gate-update", "-k", "kept", code=0)
    project.commit("kept")
    path.write_text(NOT_PASSED.replace("SKIPPED", "True"))
    # A test without a gate fails beside two gates that cannot be judged.
    said = project.pytest("odd", code=1, verdicts=dict.fromkeys(("test_kept", "two", "three"), "UNMEASURABLE"))
    assert "3 seeds can show nothing" in said
    for some in ("-m", "not slow"), ("-p", "xdist.plugin", "-n", "1"):
        project.pytest("odd", "-k", "kept or stranger", *some, code=1, verdicts={"test_kept": "UNMEASURABLE"})
    project.pytest("odd", "-x", code=1)  # what comes after the first was not run
    path.write_text(
        NOT_PASSED.replace("SKIPPED", "False").replace("def test_kept(gate):", "def test_kept(gate):\n    assert 0")
    )
    said = project.pytest("odd", "-x", code=1, verdicts=dict.fromkeys(("test_kept", "test_few"), "UNMEASURABLE"))
    assert "was not run, for pytest ended before it" in said
    path.write_text(NOT_PASSED.replace("SKIPPED", "True").replace("assert gate !=", "assert gate =="))
    project.pytest("odd", code=EXIT_UNMEASURABLE)
    said = project.pytest("odd", "-k", "kept", *AGAINST, code=EXIT_UNMEASURABLE)
    assert "so nothing was compared with HEAD" in said
    path.write_text("def test_other(gate):\n    gate.outcomes(lambda seed: {'loss': 1.0 + seed}, range(4))\n")
    gone = dict.fromkeys(("test_few", "test_kept"), "UNMEASURABLE")
    said = project.pytest("odd", *AGAINST, verdicts={"test_other": "NEW", **gone})
    assert "is gated at HEAD, and is not here any more" in said
    other = "import pytest\n\n\n" + path.read_text()
    for kept in ("@pytest.mark.skip\ndef test_kept(gate):\n    pass\n", "def test_kept(gate):\n    pass\n"):
        path.write_text(f"{other}\n\n{kept}")
        said = project.pytest("odd", *AGAINST, verdicts={"test_other": "NEW", **gone})
        assert "is gated at HEAD, and is skipped or not gated here" in said
    alike = NOT_PASSED.replace("SKIPPED", "False").replace("gate !=", "gate ==")
    path.write_text(alike + "\n\n" + other.replace("import pytest\n", ""))
    # What is skipped alike at both is no change.
    project.pytest("odd", *AGAINST, verdicts={"test_other": "NEW", "test_kept": "PASS"})
    path.write_text(other)
    path.rename(folder / "test_another.py")
    said = project.pytest("odd", *AGAINST, verdicts={"test_other": "NEW", "test_kept": "UNMEASURABLE"})
    assert "is not here any more" in said


@pytest.mark.usefixtures("alone")
def test_another_revision_is_the_same_for_every_test(project: Project, tmp_path: Path) -> None:
    """Tests that it has not, of another repository, and modules that are imported late."""
    folder, elsewhere = project.folder / "odd", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (folder / "lib").mkdir(parents=True)
    (folder / "test_odd.py").write_text(ODD.replace("words = list(", "import late  # noqa\n    words = list("))
    for place in (elsewhere, folder / "lib"):
        (place / "late.py").touch()
    (folder / "conftest.py").write_text(f"import sys\n\nsys.path.append({str(elsewhere)!r})\n")
    project.commit("odd")
    said = project.pytest("odd", "-k", "variables", *AGAINST, verdicts={"test_changes_variables": "UNMEASURABLE"})
    assert "late was loaded from" in said
    (folder / "test_odd.py").write_text(ODD)
    project.commit("without what comes late")
    (folder / "test_odd.py").write_text(FIRST + ODD)
    project.pytest(
        "odd", "-k", "first or variables", *AGAINST, verdicts={"test_first": "NEW", "test_changes_variables": "PASS"}
    )
    project.git("clone", "--quiet", ".", str(tmp_path / "clone"))
    both = ["odd", str(tmp_path / "clone" / "odd"), "--import-mode=importlib", "--rootdir=."]
    said = project.pytest(*both, "-k", "variables", *AGAINST)
    assert "run pytest in one repository at a time" in said


@pytest.mark.usefixtures("alone")
def test_gates_whose_test_fails_or_that_change_places_are_not_judged(project: Project) -> None:
    """Before, in a fixture, or in a test that is meant to fail; in another order, of another kind, without a name."""
    path = project.folder / "test_order.py"
    one, two = (f"gate.outcomes(train, range(4), name={name!r})" for name in ("one", "two"))
    path.write_text(ORDER.format(holds="False", first=one, second=two))
    project.pytest("test_order.py", "-k", "after", code=1, verdicts={"prepared": "NEW", "test_after": "UNMEASURABLE"})
    path.write_text(ORDER.format(holds="True", first=one, second=two))
    project.pytest("test_order.py", "--gate-update", code=0)
    kept = {key.partition("::")[2] for key in read_baseline(project.folder / BASELINE)}
    assert {"prepared", "one", "two"} <= kept
    assert "test_expected" not in kept
    project.commit("two gates in an order")
    time = "gate.time(lambda: sum(range(9000)), beside=lambda: sum(range(9001)), name='one')"
    unnamed = "gate.outcomes(train, range(4))"
    for first, second, sentence in (
        (two, one, "the gates of this test come in another order"),
        (time, two, "a gate of this name was of another kind"),
        (unnamed, unnamed, "two gates have the name 'test_two'; give each its own"),
    ):
        path.write_text(ORDER.format(holds="True", first=first, second=second))
        said = project.pytest("test_order.py", "-k", "two", *AGAINST, code=EXIT_UNMEASURABLE)
        assert sentence in said


@pytest.mark.usefixtures("alone")
def test_what_training_throws_is_told(project: Project) -> None:
    """Nothing of it is a traceback, or a wait; and a child that reads its input finds the end of it."""
    (project.folder / "test_throws.py").write_text(
        "import subprocess, sys\n\n\ndef leave(seed):\n    sys.exit(3)\n\n\ndef wrong(seed):\n    return 0.5\n\n\n"
        "def child(seed):\n    return {'loss': 1.0 + len(subprocess.run(['cat'], capture_output=True).stdout)}\n\n\n"
        "def test_leaves(gate):\n    gate.outcomes(leave, seeds=range(4))\n\n\n"
        "def test_wrong(gate):\n    gate.outcomes(wrong, seeds=range(4))\n\n\n"
        "def test_child(gate):\n    gate.outcomes(child, seeds=range(4))\n"
    )
    found = {"test_leaves": "UNMEASURABLE", "test_wrong": "UNMEASURABLE", "test_child": "NEW"}
    # What today's code throws is a failure as in any test.
    said = project.pytest("test_throws.py", "--gate-update", "-W", "error", code=1, verdicts=found)
    for sentence in ("SystemExit: 3", "a dict with 'accuracy', 'loss' or both", "No baseline was written"):
        assert sentence in said
    assert "Traceback" not in said


def test_a_baseline_that_was_edited_is_none(project: Project, tmp_path: Path) -> None:
    document = json.loads((project.folder / BASELINE).read_bytes())
    run = document["tests"]["test_gate.py::test_training"]["outcomes"]["runs"]["3"]
    for entry in {"accuracy": float("nan")}, {"accuracy": "0.9"}, {"diverged": "no"}, {"loss": 1e999}:
        kept = dict(run)
        run.update(entry)
        (tmp_path / BASELINE).write_text(json.dumps(document))
        with pytest.raises(UnmeasurableError, match="is not a baseline of this version"):
            read_baseline(tmp_path / BASELINE)
        run.update(kept)
    twice = json.dumps(document).replace('"tests": {', '"tests": {"test_gate.py::test_training": {}, ')
    for text in (twice, json.dumps(document).replace('"libraries": {', '"libraries": [], "others": {')):
        (tmp_path / BASELINE).write_text(text)
        with pytest.raises(UnmeasurableError, match="is not a baseline of this version"):
            read_baseline(tmp_path / BASELINE)
    (tmp_path / BASELINE).write_text(json.dumps(document))
    assert read_baseline(tmp_path / BASELINE) == document["tests"]


def test_the_gate_finds_its_tests_wherever_a_checkout_lies(installed: Path, tmp_path: Path) -> None:
    """In a folder whose name pytest would take for a parameter, and with settings in a folder of their own."""
    project = Project(tmp_path / "fix [1]", installed)
    project.load_only("hw4.plugin")
    (project.folder / "ci").mkdir()
    (project.folder / "ci" / "pytest.ini").write_text("[pytest]\n")
    settings = ["-c", "ci/pytest.ini", "test_gate.py", "-k", "training"]
    project.pytest(*settings, "--gate-update", verdicts={"test_training": "NEW"})
    project.pytest(*settings, code=0, verdicts={"test_training": "PASS"})
    nearer = project.folder / "nearer"
    nearer.mkdir()
    (nearer / "pytest.ini").write_text("[pytest]\naddopts = --of-another-project\n")
    (nearer / "test_own.py").write_text("def test_own(gate, base):\n    gate.outcomes(base, range(4))\n")
    fixture = "import pytest\n\n\n@pytest.fixture\ndef base():\n    return lambda seed: {'loss': 1.0 + seed}\n"
    (project.folder / "conftest.py").write_text(fixture)
    # Settings that lie nearer to a test are not in force.
    project.pytest(".", "-k", "own", "--gate-update", code=0, verdicts={"test_own": "NEW"})


@pytest.mark.parametrize(("step", "refused"), [(0.1, False), (0.3, False), (3.0, True)])
def test_what_became_slower_gets_the_time_it_takes(step: float, refused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred milliseconds are just short enough for what is given; three times as many are measured all the same."""
    now = [0.0]

    def visit(slices: list[Any]) -> tuple[list[float], float]:
        taken = [0.1 if isinstance(each, str) else step * (1 + each) for each in slices]
        now[0] += sum(taken)
        return taken, 0.0

    member = SimpleNamespace(ask=lambda *_: {"step": step, "reference": 0.1})
    team: Any = SimpleNamespace(members=[member], visit=visit)
    monkeypatch.setitem(CLOCKS, "wall", lambda: now[0])
    judging: Any = SimpleNamespace(seconds=35.0)
    call: Any = SimpleNamespace(longer={})
    visits = functools.partial(Judging._visits, judging, [team], call, {"log": 0.0})
    if refused:
        with pytest.raises(UnmeasurableError, match=r"at least take .* s \(2\d for the code before\)"):
            visits()
    else:
        (sample,) = visits()
        assert math.exp(np.median(sample.ratios)) == pytest.approx(step / 0.1)


# --- pieces ------------------------------------------------------------------------------------------------------


class Frozen:
    """A reference whose size is kept in an object."""

    size = 1

    def __init__(self, n: int) -> None:
        self.n = n

    def work(self) -> int:
        return self.n

    __call__ = work


class Heir(Frozen):
    """One that inherits its work."""


class Slotted:
    """A reference whose size is kept in a slot."""

    __slots__ = ("__n",)

    def __init__(self, n: int) -> None:
        self.__n = n


def frozen_import() -> Any:
    """A reference that imports what it calls."""
    from tests import factory

    return factory.make_row(1)


def frozen_work(x: Any) -> Any:
    """A reference that calls another function of these tests."""
    return _inner(x) + 1


def _inner(x: Any) -> Any:
    return x * 2


def make_row(x: Any) -> Any:
    """Today's code, of the name of what the frozen reference takes from its module."""
    return x


def test_a_ruler_holds_nothing_of_today_that_is_named_alike(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = set()
    for number in (1, 2):
        (tmp_path / "frozen.py").write_text(f"def work():\n    return {number}\n")
        found.add(ruler(runpy.run_path(str(tmp_path / "frozen.py"), run_name="by_hand")["work"]))
    assert len(found) == 2, "a module that was loaded by hand is no library's"
    before = ruler(lambda: tests.factory.make_row(1))
    monkeypatch.setattr(sys.modules[__name__], "make_row", lambda x: x + 1)
    assert ruler(lambda: tests.factory.make_row(1)) == before


def test_a_ruler_is_its_code_and_its_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    def of(*sizes: object) -> str:
        return ruler(functools.partial(frozen_work, *sizes))

    first, cached, heir, imported = of(np.ones(3)), ruler(functools.cache(frozen_work)), Heir(1), ruler(frozen_import)
    many = [(each, each) for each in range(30_000)]
    of_many = of(many)
    assert first == of(np.ones(3))
    assert of(np.ones(4)) != first
    assert of(np.int64(3)) == of(3) != of(np.int64(4))
    assert of(range(3)) != of(range(4))
    assert of({1, 2}) != of({1})
    assert of(1, 11) != of(11, 1)
    assert of("/here/data.npy") == of("/there/data.npy") != of("/here/other.npy")
    assert of(Path("/here/data.npy")) == of(Path("/there/data.npy")) != of(Path("/here/other.npy"))
    assert of(Slotted(1)) == of(Slotted(1)) != of(Slotted(2))
    assert of(SimpleNamespace(n=1)) != of(SimpleNamespace(n=2))
    assert of(torch.float32) != of(torch.float64)
    assert ruler(lambda: 1) != ruler(lambda: 2)
    assert ruler(lambda: tests.factory.make_row(1)) != ruler(lambda: tests.factory.make_reading(1))
    assert ruler(Frozen(40).work) != ruler(Frozen(80).work)
    assert ruler(Frozen(40)) == ruler(Frozen(40))
    compiled = [np.add, np.multiply, np.dot, np.inner, torch.add, torch.matmul, torch.ones(3).sum, torch.ones(3).exp]
    compiled += [torch.ones(4).exp, sum, sorted]
    assert len(set(map(ruler, compiled))) == len(compiled)
    inherited = ruler(heir)
    monkeypatch.setattr(Frozen, "size", 2)
    resized = ruler(heir)
    monkeypatch.setattr(Frozen, "__call__", lambda self: self.n + 1)
    assert len({inherited, resized, ruler(heir)}) == 3
    monkeypatch.setattr(tests.factory, "make_row", lambda n: n)
    assert ruler(frozen_import) != imported
    monkeypatch.setattr(sys.modules[__name__], "_inner", lambda x: x * 3)
    assert of(np.ones(3)) != first
    assert of(many) != of_many
    assert ruler(functools.cache(frozen_work)) != cached


@pytest.mark.parametrize(
    ("files", "name", "loaded", "held"),
    [
        ({"project/torch/__init__.py", "project/__init__.py"}, "torch", "torch/__init__.py", False),
        ({"project/backends/torch.py"}, "torch", "torch/__init__.py", False),
        ({"packages/one/solo.py"}, "solo", "solo.py", True),
        ({"src/solo.py", "src/__init__.py"}, "solo", "solo.py", True),
        ({"one/project/part.py", "one/project/__init__.py"}, "project.part", "project/part.py", True),
    ],
)
def test_a_tree_holds_modules_and_not_those_in_its_packages(
    files: set[str], name: str, loaded: str, held: bool
) -> None:
    assert _has_module(frozenset(files), name, Path("/site-packages", loaded)) == held


def test_a_compiled_module_is_known_by_its_source(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "project").mkdir()
    for file in ("src/fast.pyx", "src/_C.cpp", "project/__init__.py"):
        (tmp_path / file).touch()
    assert _has_source(tmp_path, "project.fast")
    assert not _has_source(tmp_path, "project.slow")
    assert not _has_source(tmp_path, "torch._C"), "which is not this project's"


def test_an_installed_copy_is_known_by_where_it_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a compiled package whose sources are named otherwise: both sides of a comparison would load the one."""
    info = tmp_path / "site" / "fast_ops-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Name: fast-ops\nVersion: 1.0\n")
    (tmp_path / "site" / "fastops.abi3.so").touch()
    (info / "RECORD").write_text("fastops/__init__.py,,\nfastops.abi3.so,,\nfast_ops-1.0.dist-info/METADATA,,\n")
    (info / "direct_url.json").write_text(json.dumps({"url": f"file://{tmp_path}/a%20repo/crate", "dir_info": {}}))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert "fastops" in _installed_copies.__wrapped__(tmp_path / "a repo")
    assert "fastops" not in _installed_copies.__wrapped__(tmp_path / "another")
    (info / "RECORD").write_text("__editable___ops_finder.py,,\nfastops.abi3.so,,\n")
    (info / "direct_url.json").write_text(
        json.dumps({"url": f"file://{tmp_path}/a%20repo", "dir_info": {"editable": True}})
    )
    assert _installed_copies.__wrapped__(tmp_path / "a repo") == {"fastops"}, "its finder is no copy"


def test_a_checkout_may_be_its_own_virtual_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    assert _is_own(tmp_path / "training.py", tmp_path)
    assert not _is_own(tmp_path / "lib" / "site-packages" / "numpy.py", tmp_path)


def test_links_are_not_followed(tmp_path: Path) -> None:
    """A test is known by the name that it was collected by."""
    root, then = tmp_path.resolve() / "root", tmp_path / "then"
    (root / "shared").mkdir(parents=True)
    (root / "shared" / "check.py").touch()
    (root / "test_it.py").symlink_to("shared/check.py")
    (tmp_path / "view").symlink_to(root)
    tree = Tree(root, then)
    assert tree.place(root / "test_it.py") == then / "test_it.py"
    assert tree.place(tmp_path / "view" / "shared") == then / "shared"
    assert tree.place(tmp_path) == tmp_path


def test_options_reach_the_processes_that_measure_or_are_refused() -> None:
    option = argparse.Namespace(root=Path("small"), size=1, mode=Slotted, theirs=1)
    given: Any = SimpleNamespace(options={"size": 2, "theirs": 2, "gone": 2}, others={"root": _as_text(Path("big"))})
    take_options(option, {"theirs"}, given)
    assert vars(option) == {"root": Path("big"), "size": 2, "mode": Slotted, "theirs": 1}
    given.others = {"mode": _as_text(Slotted)}
    take_options(option, {"theirs"}, given)
    given.others = {"mode": _as_text(Frozen)}
    with pytest.raises(pytest.UsageError, match=r"the option 'mode' is .*Frozen.*, which cannot be handed"):
        take_options(option, {"theirs"}, given)


def test_processors_of_other_makers_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux on ARM gives numbers in the place of names; and torch may be told to leave a vector unit alone."""
    classes = set()
    for part in ("0xd0c", "0xd4f"):
        monkeypatch.setattr("hw4.machine._cpuinfo", lambda part=part: {"CPU implementer": "0x41", "CPU part": part})
        classes.add(processor_class())
    assert classes == {"0x41 0xd0c", "0x41 0xd4f"}
    for features in ("fp asimd", "fp asimd bf16"):  # all that a guest on an Apple processor sees
        facts = {"CPU implementer": "0x61", "CPU part": "0x000", "Features": features}
        monkeypatch.setattr("hw4.machine._cpuinfo", lambda facts=facts: facts)
        classes.add(processor_class())
    assert len(classes) == 4
    monkeypatch.setattr("hw4.machine._cpuinfo", lambda: {"model name": "it", "flags": "avx2 avx512f"})
    plain = processor_name()
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    assert processor_name() != plain, "torch rounds otherwise"


@pytest.mark.parametrize("seeds", [[0.5, 1.5, 2.5, 3.5], "1234", 8])
def test_seeds_are_whole_numbers(seeds: Any) -> None:
    with pytest.raises(TypeError, match=r"whole numbers, such as range\(8\), are expected"):
        Gate(None, None).outcomes(lambda seed: {"loss": seed}, seeds)  # type: ignore[arg-type]


def test_a_clock_sees_what_it_can() -> None:
    def sleep() -> None:
        time.sleep(0.02)

    seen, wall = _timed(sleep, 2, 0.0, "wall")
    assert seen >= 0.02
    hidden, _ = _timed(sleep, 2, 0.0, "processor")
    assert hidden < 0.02
    assert _waiting(["reference", 0.0], [(wall, wall), (0.25 * wall, wall)]) == pytest.approx(0.75)
    assert _waiting(["reference", 0.0], [(0.5 * wall, wall), (0.5 * wall, wall)]) == 0
    assert _waiting(["reference", 0.0], [(0.1 * wall, wall), (0.1 * wall, wall)]) == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("step", "reference", "calls"),
    [(0.014, 0.003, (1, 5)), (0.003, 0.004, (1, 1)), (0.2, 0.01, (1, 3)), (0.0005, 0.005, (10, 1)), (0.2, 0.1, (1, 1))],
)
def test_slices_of_a_step_and_its_reference_last_alike(
    step: float, reference: float, calls: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What neighbours cost now and then would otherwise fall on the longer one more often."""
    now = [0.0]

    def work(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setitem(CLOCKS, "processor", lambda: now[0])
    monkeypatch.setitem(CLOCKS, "wall", lambda: now[0])
    works = {"step": functools.partial(work, step), "reference": functools.partial(work, reference)}
    found, longer = _alike(works, None, "processor")
    assert found == dict(zip(works, calls, strict=True))
    assert _alike(works, longer, "processor") == (found, longer)
    kept, _ = _alike(works, {"step": 1, "reference": 2}, "processor")
    assert kept["reference"] == 2, "as the baseline has it"


def test_what_waits_is_not_repeated_until_it_has_worked_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    worked, waited = [0.0], [0.0]

    def work(seconds: float, waits: float) -> None:
        worked[0] += seconds
        waited[0] += waits

    monkeypatch.setitem(CLOCKS, "processor", lambda: worked[0])
    monkeypatch.setitem(CLOCKS, "wall", lambda: worked[0] + waited[0])
    works = {"step": functools.partial(work, 0.0015, 0.01), "reference": functools.partial(work, 0.02, 0.0)}
    _, longer = _alike(works, None, "processor")
    assert longer["step"] <= 2


def test_what_was_not_done_is_not_timed() -> None:
    """A generator, or a coroutine, is made in no time."""

    def step() -> Iterator[int]:
        yield 1

    for lazy in (step, lambda: map(abs, range(3)), lambda: [step()]):
        with pytest.raises(TypeError, match="did nothing yet"):
            _repeats(lazy, "processor")
    with pytest.raises(TypeError, match="Future, whose work may go on"):
        _repeats(lambda: {"a": [1, (Future(),)]}, "processor")
    around: list[Any] = [sum(range(9_000))]
    around.append(around)
    assert _repeats(lambda: around, "wall") >= 1
    with pytest.raises(TypeError, match="a Future, whose work may go on"):
        _repeats(lambda: (1, Future[int]()), "processor")
    for margin in (0.1, -0.1, 2.5, math.nan):
        with pytest.raises(ValueError, match=r"margin is .*; a share below the planted slowdown's 0\.1 is expected"):
            Gate(None, None).time(step, beside=step, margin=margin)  # type: ignore[arg-type]
    asked = list[Any]()
    mode: Any = SimpleNamespace(judge=lambda *given: asked.extend(given), time=print)
    Gate(mode, None).time(step, beside=lambda: None, margin=0.06)  # type: ignore[arg-type]
    assert asked[2].keywords == {"margin": 1.06}
    with pytest.raises(ValueError, match="beside is the step itself"):
        Gate(None, None).time(step, beside=step)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("result", "sentence"),
    [
        (0.9, "a dict with 'accuracy', 'loss' or both"),
        ({"acc": 0.9}, "a dict with 'accuracy', 'loss' or both"),
        ({"accuracy": 90.0}, "a share from 0 to 1"),
        ({"accuracy": 0.9, "f1": 0.8}, "'f1'"),
    ],
)
def test_outcomes_that_are_none_are_refused(result: object, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        as_outcome(result)


def test_the_seed_that_does_not_repeat_is_named() -> None:
    """Of seeds that train together, the one whose bits are others the second time."""
    first, second = (
        {str(seed): as_outcome({"loss": 1.0, "bits": factor * seed}) for seed in (0, 3)} for factor in (1, 2)
    )
    _check_repeats(first, first)
    with pytest.raises(UnmeasurableError, match=r"\(seed 3\)"):
        _check_repeats(first, second)


def test_a_run_that_is_not_finite_diverged() -> None:
    for lost in ({"loss": float("nan")}, {"loss": float("inf"), "accuracy": 0.1}, {"accuracy": None}):
        outcome = as_outcome(lost)
        assert (outcome.diverged, outcome.accuracy, outcome.loss) == (True, None, None)
    assert as_outcome({"loss": np.float32(0.5)}) == as_outcome({"loss": 0.5})
    assert as_outcome({"accuracy": math.fsum([0.9, 0.1]) + 4e-16}).accuracy == 1, "rounding has made it more than all"
    with pytest.raises(ValueError, match="'bits' hold <object"):
        as_outcome({"loss": 0.5, "bits": object()})
    assert as_outcome({"loss": 0.5, "bits": [1]}).digest != as_outcome({"loss": 0.5, "bits": [2]}).digest


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a commit, and variables of git's that point elsewhere."""
    folder = tmp_path / "repository"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "Größe.txt").write_bytes(b"one\r\ntwo\n")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "link").symlink_to("run.sh")
    (folder / ".gitattributes").write_text("sub export-ignore\n*.txt text eol=lf export-subst\n")
    for name, value in IDENTITY.items():
        monkeypatch.setenv(name, value)
    for arguments in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "first"]):
        git(folder, "-c", "core.autocrlf=false", *arguments)
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    return folder


def test_a_revisions_files_are_those_that_were_committed(repository: Path, tmp_path: Path) -> None:
    """Attributes that leave files out of archives do not; nothing is written into the repository."""
    before = sorted(path.stat().st_mtime_ns for path in (repository / ".git").rglob("*"))
    commit = write_revision(repository, ":/first", tmp_path / "then")
    then = tmp_path / "then"
    assert len(commit) == 40
    assert (then / "sub" / "Größe.txt").read_bytes() == b"one\ntwo\n"  # as git stored it
    assert os.access(then / "run.sh", os.X_OK)
    assert str((then / "link").readlink()) == "run.sh"
    assert sorted(path.stat().st_mtime_ns for path in (repository / ".git").rglob("*")) == before
    assert not (tmp_path / "index").exists()


def test_a_revisions_files_are_converted_as_a_checkout_converts_them(tmp_path: Path) -> None:
    """Line ends, encodings, $Id$, filters: today's files are, so unchanged ones would differ."""
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / ".gitattributes").write_text(
        "*.csv eol=crlf\n*.tex working-tree-encoding=UTF-16LE\n*.id ident\n*.up filter=up\n"
    )
    written = {"a b.csv": b"one\r\ntwo\r\n", "new\nline.csv": b"three\n", "x.tex": "é\n".encode("utf-16-le")}
    written |= {"v.id": b"$Id$\n", "w.up": b"WORDS\n", "empty.csv": b"", "no end.py": b"pass"}
    for name, contents in written.items():
        (folder / name).write_bytes(contents)
    person = [word for pair in ("user.name=a", "user.email=a@b") for word in ("-c", pair)]
    git(folder, "init", "--quiet")
    for key, command in (("clean", "tr A-Z a-z"), ("smudge", "tr a-z A-Z")):
        git(folder, "config", f"filter.up.{key}", command)
    for arguments in (["add", "--all"], ["commit", "--quiet", "--message", "first"]):
        git(folder, *person, *arguments)
    for name in written:
        (folder / name).unlink()
    git(folder, "checkout-index", "--all")
    write_revision(folder, "HEAD", tmp_path / "then")
    assert (folder / "v.id").read_bytes().startswith(b"$Id: ")
    named = written.keys() - {"new\nline.csv"}
    assert {name: (tmp_path / "then" / name).read_bytes() for name in named} == {
        name: (folder / name).read_bytes() for name in named
    }
    assert (tmp_path / "then" / "new\nline.csv").read_bytes() == b"three\n"


def test_a_file_that_is_missing_is_named(repository: Path, tmp_path: Path) -> None:
    blob = git(repository, "rev-parse", "HEAD:run.sh").decode().strip()
    (repository / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(Hw4Error, match=r"run\.sh is missing in the repository"):
        write_revision(repository, "HEAD", tmp_path / "then")


def test_a_file_that_git_lfs_keeps_is_the_file_and_no_pointer(repository: Path, tmp_path: Path) -> None:
    digest = hashlib.sha256(b"many numbers").hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize 12\n"
    with pytest.MonkeyPatch.context() as patch:
        for name in ("GIT_DIR", "GIT_INDEX_FILE"):
            patch.delenv(name)
        (repository / "data.bin").write_text(pointer)
        git(repository, "add", "--all")
        git(repository, "commit", "--quiet", "--message", "large")
    write_revision(repository, "HEAD", tmp_path / "alike")
    assert (tmp_path / "alike" / "data.bin").read_text() == pointer, "the work tree has no more"
    (repository / "data.bin").write_bytes(b"other numbers")
    with pytest.raises(Hw4Error, match=r"data\.bin is kept by git-lfs, and not in this clone; run 'git lfs fetch'"):
        write_revision(repository, "HEAD", tmp_path / "without")
    kept = repository / ".git" / "lfs" / "objects" / digest[:2] / digest[2:4] / digest
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"many numbers")
    write_revision(repository, "HEAD", tmp_path / "then")
    assert (tmp_path / "then" / "data.bin").read_bytes() == b"many numbers"


def test_git_is_quoted_where_it_is_fatal(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(Hw4Error, match=r"^fatal: detected dubious ownership"):
        git(repository, "rev-parse", "HEAD")


def test_the_plugin_starts_without_torch() -> None:
    code = (
        "import sys, hw4.plugin; print([name for name in ('torch', 'scipy', 'pandas', 'spacy') if name in sys.modules])"
    )
    environment = {name: value for name, value in os.environ.items() if name != SOCKET}
    assert python("-c", code, env=environment).stdout.strip() == "[]"


@pytest.mark.usefixtures("alone")
def test_tests_outside_of_pytests_rootdir_are_found_beside_a_revision(project: Project) -> None:
    """Their ids begin otherwise in the processes that measure, which are given files; without capturing, too."""
    (project.folder / "config").mkdir()
    (project.folder / "config" / "pytest.ini").write_text("[pytest]\n")
    (project.folder / "apart").mkdir()
    (project.folder / "apart" / "test_apart.py").write_text(
        "def train(seed):\n    return {'accuracy': 0.9, 'loss': 1.0 + seed}\n\n\n"
        "def test_apart(gate):\n    gate.outcomes(train, range(8))\n"
    )
    project.commit("tests apart")
    for more in ((), ("-p", "no:capture")):
        project.pytest("-c", "config/pytest.ini", "apart", *AGAINST, *more, code=0, verdicts={"test_apart": "PASS"})


DATA_CONFTEST = """
import os
from pathlib import Path

HERE = Path(__file__).parent
os.environ.setdefault("GATED_DATA", str(HERE / "data"))


def pytest_addoption(parser):
    parser.addoption("--data", type=Path, default=HERE / "data")
    parser.addoption("--epochs", type=int, default=90)
"""
DATA_TESTS = """
import os
from pathlib import Path

import pytest


def told(number):
    return lambda seed: {"accuracy": number + seed / 1000}


def test_option(gate, pytestconfig):
    gate.outcomes(told(float((pytestconfig.getoption("data") / "d.txt").read_text())), range(8))


def test_default(gate, pytestconfig):
    gate.outcomes(told(pytestconfig.getoption("epochs") / 100), range(8))


def test_variable(gate):
    gate.outcomes(told(float(Path(os.environ["GATED_DATA"], "d.txt").read_text())), range(8))


def test_link(gate):
    gate.outcomes(told(float((Path(__file__).parent / "link.txt").read_text())), range(8))
"""


@pytest.mark.usefixtures("alone")
def test_a_revisions_defaults_and_data_are_its_own(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the conftest says where they lie, the user, a variable, or a link that leads to today's."""
    folder = project.folder / "apart"
    (folder / "data").mkdir(parents=True)
    (folder / "conftest.py").write_text(DATA_CONFTEST)
    (folder / "test_data.py").write_text(DATA_TESTS)
    (folder / "data" / "d.txt").write_text("0.9")
    (folder / "link.txt").symlink_to(folder / "data" / "d.txt")
    project.commit("data")
    (folder / "data" / "d.txt").write_text("0.5")
    project.edit("apart/conftest.py", "default=90", "default=50")
    worse = dict.fromkeys(("test_option", "test_default", "test_variable"), "REGRESSION") | {
        "test_link": "UNMEASURABLE"
    }
    said = project.pytest("apart", *AGAINST, code=1, verdicts=worse)
    assert "data/d.txt was read from today's files" in said
    monkeypatch.setitem(project.environment, "GATED_DATA", str(folder / "data"))
    project.pytest("apart", f"--data={folder / 'data'}", *AGAINST, code=1, verdicts=worse)

    only = (
        "apart",
        "-k",
        "default",
        "--epochs=50",
        *AGAINST,
    )  # what is given holds for both, also where it is a default
    project.pytest(*only, code=0, verdicts={"test_default": "PASS"})


def test_paths_in_settings_lead_to_the_revisions_files(repository: Path, tmp_path: Path) -> None:
    """But for folders of which git keeps a part only: what serves both lies in today's."""
    write_revision(repository, "HEAD", tmp_path / "then")
    tree = Tree(repository.resolve(), (tmp_path / "then").resolve(), "HEAD", paired=True)
    folder = repository.resolve() / "sub"
    assert tree.moved([folder, str(folder), "sub", 3]) == [tree.base / "sub", str(tree.base / "sub"), "sub", 3]
    assert tree.moved(str(folder / "new.txt")) == str(folder / "new.txt"), "not in the revision"
    (folder / "large.bin").touch()
    assert tree.moved(str(folder)) == str(folder)
    for text in ("/" + "x" * 300, f"{repository}/{'x' * 300}", "/no\0path"):
        assert tree.moved(text) == text, "no path at all"


@pytest.mark.usefixtures("alone")
def test_gates_in_a_file_that_is_gone_or_amid_which_pytest_ended_did_not_pass(project: Project) -> None:
    """Without any baseline; and a test that neither side comes to is not new."""
    once = "def test_{0}(gate):\n    gate.outcomes(lambda seed: {{'accuracy': 0.9, 'loss': 1.0 + seed}}, range(8))\n"
    (project.folder / "apart").mkdir()
    for name in ("stays", "goes"):
        (project.folder / "apart" / f"test_{name}.py").write_text(once.format(name))
    project.commit("two files")
    (project.folder / "apart" / "test_goes.py").unlink()
    said = project.pytest("apart", *AGAINST, code=EXIT_UNMEASURABLE)
    assert "test_goes.py" in said
    assert "is gated at HEAD, and is not here any more" in said
    project.pytest("apart", "-p", "xdist.plugin", "--dist=loadfile", *AGAINST, code=EXIT_UNMEASURABLE)  # without -n
    skips = "import pytest\n\n\n@pytest.fixture(autouse=True)\ndef needs():\n    pytest.skip('a server')\n"
    (project.folder / "apart" / "conftest.py").write_text(skips)
    project.commit("needs a server")
    only = ("apart/test_stays.py", "--noconftest", *AGAINST)
    project.pytest(*only, code=0, verdicts={"test_stays": "PASS"})
    (project.folder / "apart" / "conftest.py").unlink()
    project.commit("needs none")
    ended = "\n\ndef test_ends(gate):\n    __import__('pytest').exit('enough', returncode=0)\n"
    (project.folder / "apart" / "test_stays.py").write_text(once.format("stays") + ended)
    verdicts = {"test_stays": "PASS", "test_ends": "UNMEASURABLE"}
    project.pytest("apart/test_stays.py", *AGAINST, code=EXIT_UNMEASURABLE, verdicts=verdicts)
    (project.folder / "sizes.py").write_text(
        "def pytest_addoption(parser):\n    parser.addoption('--sizes', type=int, default=1)\n\n\n"
        "def pytest_generate_tests(metafunc):\n    if 'size' in metafunc.fixturenames:\n"
        "        metafunc.parametrize('size', range(metafunc.config.getoption('sizes')))\n"
    )
    sized = once.replace("(gate)", "(gate, size)").format("sized")
    (project.folder / "apart" / "test_stays.py").write_text(sized)
    project.commit("sizes")
    verdicts = {"test_sized[0]": "PASS", "test_sized[1]": "UNMEASURABLE"}
    project.pytest("-p", "sizes", "--sizes=2", "apart/test_stays.py", *AGAINST, verdicts=verdicts)


def test_clocks_that_a_test_freezes_are_not_the_gates(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("monotonic", "perf_counter", "process_time"):
        monkeypatch.setattr(time, name, lambda: 5.0)
    assert min(_timed(lambda: sum(range(10_000)), 10, 0.0, "wall")) > 0


def test_a_step_that_sleeps_is_not_repeated_until_it_has_worked_as_long() -> None:
    assert _repeats(lambda: time.sleep(0.02), "processor") <= 8


def test_an_editors_way_of_naming_paths_is_not_ours(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_LITERAL_PATHSPECS", "1")
    assert git(repository, "ls-files", "--", ":(literal)run.sh") == b"run.sh\n"

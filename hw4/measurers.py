"""The processes that measure: pytest itself, run on the same tests, which stops at every gate and does as it is told.

A measurer is a new Python of one thread that collects the gated tests of a source tree and runs them up to where they
call the gate. There it answers requests, a line of JSON each: time these slices, train with this seed. So whatever a
test sets up is set up there as pytest does it, several measurers can be visited in turn, and those of another revision
in alternation with today's. They end when the process that started them does, whatever ends it.
"""

import _socket
import argparse
import builtins
import dis
import enum
import functools
import gc
import hashlib
import importlib.metadata
import inspect
import io
import itertools
import json
import math
import os
import platform
import re
import shlex
import signal
import site
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
import types
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest

from hw4.errors import Hw4Error
from hw4.gate import MOSTLY_WAITING, BrokenError, Outcome, Slice, UnmeasurableError
from hw4.machine import KEEP_MEMORY, ONE_THREAD, commit_of, git, processor_class, write_revision

_Socket = socket.socket  # before a test forbids sockets, which are put in the module's place then
SOCKET = "HW4_GATE_SOCKET"
ENVIRONMENT = pytest.StashKey[dict[str, str]]()  # the variables that pytest was started with
GIVEN = pytest.StashKey[dict[str, object]]()  # options that are not as they are by default
PROCESSES = 3
"""Processes that a measurement visits in turn: each has its own luck with its memory's layout, up to 1% of a time."""
ENDING_SECONDS = 5  # longest wait for a measurer to clear away what its fixtures set up
ANSWER_SECONDS = 180  # longest wait for a measurer to reach a test: it imports, collects and sets up as pytest does
SHORTEST_SECONDS = 0.001
"""Shorter calls than this are lost in what it takes to read the clock, and are repeated until they last as long."""
LENGTHENED_SECONDS = 0.03
"""A shorter call than the one beside it is repeated until it lasts as long, or this long."""
DROPPED = (
    *("ATEN_", "COVERAGE_", "COV_CORE_", "DNNL_", "GOMP_", "KMP_", "LD_PRELOAD", "MALLOC_", "MKL_", "NUMEXPR_"),
    *("OMP_", "ONEDNN_", "OPENBLAS_", "PYTEST_ADDOPTS", "PYTEST_CURRENT_TEST", "PYTEST_XDIST", "PYTHON", "TORCH"),
    *("RUN_TEST_IDS_PIPE", "TEST_RUN_PIPE"),  # by which an editor is told of results
)
"""Variables that change what is measured, by how they begin: a measurer does not inherit them, but for those KEPT."""
KEPT = (
    *("TORCH_HOME", "TORCH_EXTENSIONS_DIR", "TORCHINDUCTOR_CACHE_DIR", "TORCHDYNAMO_DISABLE", "PYTHON_ENV"),
    *("PYTHONDONTWRITEBYTECODE", "PYTHONHOME", "PYTHONNOUSERSITE", "PYTHONPYCACHEPREFIX", "PYTHONUSERBASE"),
)
"""Where things lie, and whether compiled ones are kept: child processes would compile on every call."""
STAYING = ("HOME", "OLDPWD", "PWD", "TMPDIR", "VIRTUAL_ENV", "XDG_")
"""Variables, by how they begin, whose paths are those of the user and not of the code."""
SETTINGS = {
    **ONE_THREAD,
    **KEEP_MEMORY,  # fresh pages cost more, and less evenly, than anything else in a slice
    "PYTHONHASHSEED": "0",  # the order of a set of words is an order of training
    "PYTHONUTF8": "1",
    **dict.fromkeys(("NUMBA_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "TF_NUM_INTRAOP_THREADS"), "1"),
    "TF_NUM_INTEROP_THREADS": "1",
    "JAX_CPU_ENABLE_ASYNC_DISPATCH": "false",
}
DEFAULTS = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"}
"""Settings for those who made none of their own."""
ROUNDED = 1e-6  # so far beyond 0 and 1 an accuracy may be by rounding
MOST_PARTS = 20_000  # of a frozen reference that are looked at for its fingerprint
LIBRARIES = (
    *("numpy", "scipy", "torch", "jax", "jaxlib", "tensorflow", "scikit-learn", "numba", "pandas", "polars"),
    *("xgboost", "lightgbm", "opencv-python", "opencv-python-headless", "transformers", "cupy"),
)
INSTALLED = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib", "scripts")]
INSTALLED += [*site.getsitepackages(), site.getusersitepackages()]
"""Where Python keeps itself and what was installed; not all of its prefix, in which a checkout may lie."""
Clock = Literal["processor", "wall"]
CLOCKS: dict[str, Callable[[], float]] = {"processor": time.process_time, "wall": time.perf_counter}
"""Here a test that freezes its clock does not find them."""


def machine_facts() -> dict[str, Any]:
    """What must be equal for two times to compare: class of processor, Python, the libraries that compute."""
    found = {}
    for name in LIBRARIES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return {"cpu": processor_class(), "python": platform.python_version(), "libraries": found}


# --- in the process that judges --------------------------------------------------------------------------------------


class Tree:
    """A source tree to measure: today's, or a revision's files written beside it.

    ``paired``: whether one is measured beside the other, so that neither may load what is the other's.
    """

    def __init__(self, root: Path, base: Path, name: str = "", *, paired: bool = False) -> None:
        self.root, self.base, self.name, self.paired = root, base, name, paired

    def place(self, path: Path) -> Path:
        """Where a path of today's tree lies in this one, links not followed; paths outside of it stay."""
        if not _is_own(path, self.root):
            return path
        return self.base / (path if path.is_relative_to(self.root) else path.resolve()).relative_to(self.root)

    def moved(self, value: Any) -> Any:
        """A setting whose text is a path of today's tree, to what lies there in this one; where nothing does, as it is.

        What git does not keep lies in today's alone, and serves both, with all that lies beside it.
        """
        if isinstance(value, list):
            return [self.moved(each) for each in value]
        if not isinstance(value, str | Path) or not Path(value).is_absolute():
            return value
        with suppress(OSError, ValueError):  # of text that is no path
            place = self.place(Path(value))
            there = place != Path(value) and os.path.lexists(place)
            if there and not (Path(value).is_dir() and _has_others(self.root, Path(value))):
                return type(value)(place)
        return value

    def search_path(self) -> str:
        """Where its modules are looked for: where this process looks, but in this tree first."""
        entries = [Path(entry).absolute() for entry in sys.path]
        kept = [each for each in entries if not any(each.is_relative_to(place) for place in INSTALLED)]
        if self.base != self.root:  # what setuptools finds in development mode, child processes would find in today's
            finders = [each for name, each in list(sys.modules.items()) if name.startswith("__editable__")]
            files = [Path(file) for each in finders for file in getattr(each, "MAPPING", {}).values()]
            kept += [file.parent for file in files if _is_own(file, self.root)]
        return os.pathsep.join(dict.fromkeys(str(self.place(each)) for each in kept if each.suffix != ".zip"))


def _has_others(root: Path, folder: Path) -> bool:
    """Whether a folder holds something that git does not keep, but for what Python compiles."""
    with suppress(Hw4Error, ValueError):
        inside = folder.resolve().relative_to(root)
        found = git(root, "ls-files", "--others", "-z", "--", f":(top,literal){inside}").split(b"\0")
        return any(name and not name.endswith(b".pyc") for name in found)
    return True


def _is_own(path: Path, root: Path) -> bool:
    """Whether a path belongs to a source tree, and not to a virtual environment inside of it."""
    path, installed = path.resolve(), Path(sys.prefix).resolve()
    inside = installed != root and installed.is_relative_to(root) and path.is_relative_to(installed)
    return path.is_relative_to(root) and not inside and "site-packages" not in path.parts


@contextmanager
def swept_folder() -> Iterator[Path]:
    """A temporary folder that goes whatever happens: a process of its own removes it, for one that is killed cannot."""
    folder = os.path.realpath(tempfile.mkdtemp(prefix="gate-"))
    # A byte is its end, or the end of this process: what else was forked here may hold the pipe open.
    sweep = "import os, shutil, sys; os.read(0, 1); [shutil.rmtree(sys.argv[1], True) for _ in range(3)]"
    try:
        sweeper = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", sweep, folder], stdin=subprocess.PIPE, start_new_session=True
        )
    except BaseException:
        Path(folder).rmdir()
        raise
    try:
        yield Path(folder)
    finally:
        sweeper.communicate(b".")


def repository(folder: Path, name: str) -> Path:
    """The root of the repository that a folder lies in; raises UnmeasurableError where it has no such revision."""
    try:
        root = Path(os.fsdecode(git(folder, "rev-parse", "--show-toplevel")).removesuffix("\n")).resolve()
    except Hw4Error as error:
        found = re.search(r"dubious ownership in repository at (.*)", str(error))
        way_out = f"; if it is yours, git config --global --add safe.directory {found[1]}" if found else ""
        what = "git is needed" if "could not be run" in str(error) else "there is no git repository"
        raise UnmeasurableError(f"{what} to take {name!r} from ({error}){way_out}") from error
    with _readable(name):
        commit_of(root, name)
    return root


def revision(folder: Path, name: str, into: Path) -> list[Tree]:
    """A revision of the repository that a folder lies in, written to another, and today's tree to measure beside it.

    Raises UnmeasurableError where there is no such revision.
    """
    root = repository(folder, name)
    with _readable(name):
        write_revision(root, name, into)
    return [Tree(root, into, name, paired=True), Tree(root, root, paired=True)]


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """What git says of a revision that cannot be read, with the way out."""
    try:
        yield
    except Hw4Error as error:
        raise UnmeasurableError(
            f"{name!r} cannot be read ({error}); name a commit, tag or branch that this clone has, and fetch history "
            f"if it is shallow"
        ) from error


class Measurer:
    """One process that measures; ``tests`` are gated tests' ids and files, in the order in which they are asked for.

    ``scratch`` is a folder for its temporary files.
    """

    def __init__(self, tree: Tree, config: pytest.Config, tests: Mapping[str, Path], scratch: Path) -> None:
        self._tests, self._tree = list(tests), tree
        folder = tree.place(config.invocation_params.dir)
        folder = folder if folder.is_dir() else tree.base
        places = [file for file in dict.fromkeys(map(tree.place, tests.values())) if file.exists()]
        files = [os.path.relpath(file, folder) for file in places]  # a bracket above it would be taken for a parameter
        ours, theirs = (_Socket(fileno=each.detach()) for each in _socket.socketpair())
        watched, self._alive = os.pipe()  # it ends when this process does, and with it what it writes to
        variables = config.stash[ENVIRONMENT]
        started = [(n, value if n.startswith(STAYING) else tree.moved(value)) for n, value in variables.items()]
        environment = {n: value for n, value in started if n in KEPT or not n.startswith(DROPPED)}
        environment |= {"PYTHONDONTWRITEBYTECODE": "1"} if sys.dont_write_bytecode else {}
        numbers = f"{theirs.fileno()} {watched}"
        option = {name: tree.moved(value) for name, value in config.stash[GIVEN].items()}
        carried = {name: value for name, value in option.items() if _is_plain(value)}
        others = {name: _as_text(value) for name, value in option.items() if not _is_plain(value)}
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  closed on exit
        options = [*_options(tree, config, scratch), f"--basetemp={scratch / 'tmp'}"]
        if config.pluginmanager.hasplugin("cacheprovider"):
            options += ["-o", f"cache_dir={scratch / 'cache'}"]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "pytest", *options, *(files or [str(scratch)])],  # without any, all are run
            stdin=subprocess.DEVNULL,
            stdout=self._said,
            stderr=subprocess.STDOUT,
            pass_fds=[theirs.fileno(), watched],
            cwd=folder,
            start_new_session=True,  # so that it can be ended together with the processes it starts
            env={**DEFAULTS, **environment, **SETTINGS, "PYTHONPATH": tree.search_path(), SOCKET: numbers},
        )
        theirs.close()
        os.close(watched)
        self._socket, self._lines = ours, ours.makefile("rw", encoding="utf-8")
        trees = [str(tree.root), str(tree.base)]
        self.missing = set[str]()  # tests that its tree has not, once it has collected
        self.gated = dict[str, str]()  # those that it has in the files of those asked for, and what tells their source
        self._over = set[tuple[str, str]]()  # gates that were not asked for
        settings = {"options": carried, "others": others, "trees": trees, "against": tree.paired}
        self.send({"tests": self._tests, "files": [str(tree.place(file)) for file in tests.values()], **settings})

    def finish(self) -> None:
        """Let it end its tests, so that fixtures clear away what they set up."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """End it and all that it started, after some seconds for ending by itself."""
        self.finish()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(ENDING_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._alive)
        with suppress(OSError):  # what was still to be sent to it
            self._lines.close()
        self._socket.close()
        self._said.close()

    def fileno(self) -> int:
        """For waiting until it answers."""
        return self._socket.fileno()

    def send(self, request: object) -> None:
        """Send a request; its answer is read later."""
        with suppress(OSError):  # found out when no answer comes
            self._lines.write(json.dumps(request) + "\n")
            self._lines.flush()

    def _hear(self, seconds: float) -> dict[str, Any]:
        self._socket.settimeout(seconds)
        line, how = "", ""
        try:
            line = self._lines.readline()
        except TimeoutError:
            how = f"gave no answer within {seconds:.0f} seconds; make the step or what comes before it smaller"
        except (OSError, ValueError):  # gone
            pass
        if not line:
            self._said.seek(0)
            said = [line for line in self._said.read().decode(errors="replace").splitlines() if line.strip()]
            signs = ("E ", "ERROR", "INTERNALERROR>", "pytest.")
            telling = [line for line in said if line.startswith(signs) or ": error: " in line]
            last = (telling or said or ["it said nothing"])[-1].removeprefix("E ").strip()
            raise UnmeasurableError(f"{self._where()}the process that measures {how or self._end()}: {last}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _end(self) -> str:
        try:
            code = self._process.wait(1)
        except subprocess.TimeoutExpired:
            return "stopped to answer"
        killed = f"was killed by signal {-code}" + " (out of memory?)" * (code == -signal.SIGKILL)
        return killed if code < 0 else f"ended early with exit status {code}"

    def ask(self, request: Mapping[str, object], seconds: float) -> dict[str, Any]:
        """Send a request and wait for its answer; raises UnmeasurableError when none comes, or with what went wrong."""
        self.send(request)
        return self.answer(seconds)

    def answer(self, seconds: float) -> dict[str, Any]:
        """Wait for an answer to what was sent."""
        answer = self._hear(seconds)
        ours = answer.get("broken") and not self._tree.name  # what was at a revision is no fault of today's
        wrong: type[UnmeasurableError] = BrokenError if ours else UnmeasurableError
        if "ended" in answer:
            raise wrong(f"{self._where()}the test ends at its gate: {answer['why']}")
        if "error" in answer:
            raise wrong(self._where() + answer["error"])
        return answer

    def reach(self, test: str, gate: str) -> dict[str, Any] | None:
        """Go on until a test comes to a gate; what it says there, or None where there is no such test or gate in it.

        Raises UnmeasurableError when the test does not get there.
        """
        while True:
            if test in self.missing:
                return None
            heard = self._hear(ANSWER_SECONDS)
            if "collected" in heard:
                self.missing = set(self._tests) - set(heard["collected"])
                self.gated = dict(heard.get("sources", {}))  # of an hw4 before there was that, it is empty
                broken = [why for file, why in heard["broken"].items() if test.startswith(file)]
                if test in self.missing and broken:
                    raise UnmeasurableError(self._where() + broken[0] + self._lack(broken[0]))
            elif "at" in heard:
                if (heard["at"], heard["gate"]) == (test, gate):
                    return heard
                if self._tests.index(heard["at"]) > self._tests.index(test):
                    raise UnmeasurableError(f"{self._where()}the test does not come to its gate")
                self._over |= {(test, heard["gate"])} if heard["at"] == test else set()
                self.send({"done": True} if heard["at"] == test else {"skip": True})
            elif heard.get("ended") == test:
                if heard["why"] == "passed" and (test, gate) in self._over:
                    raise UnmeasurableError(f"{self._where()}the gates of this test come in another order; keep it")
                if heard["why"] == "passed":
                    return None
                why = heard["why"] + self._lack(heard["why"])
                raise UnmeasurableError(f"{self._where()}the test ends before its gate: {why}")

    def _lack(self, error: str) -> str:
        """What may be missing in a revision's tree, where something is."""
        kinds = ("ModuleNotFoundError", "FileNotFoundError", "LookupError", "CalledProcessError")
        found = self._tree.name and any(kind in error for kind in kinds)
        return " (of a revision there is what git keeps: nothing ignored or generated, no submodule)" if found else ""

    def _where(self) -> str:
        return f"at {self._tree.name}, " if self._tree.name else ""


def is_gated(item: pytest.Item) -> bool:
    """Whether a test asks for the ``gate`` of this package, and not for a fixture or a parameter of that name."""
    found = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {}).get("gate", ())
    if not found or "gate" in getattr(getattr(item, "callspec", None), "params", ()):
        return False
    last = found[-1]
    return getattr(last.func, "__module__", "") == "hw4.plugin" or "gate" in last.argnames


def has_plugin(config: pytest.Config, name: str) -> bool:
    """Whether one of pytest's plugins is there, found by itself or asked for by -p."""
    return any(map(config.pluginmanager.hasplugin, (name, f"pytest_{name}")))


def _options(tree: Tree, config: pytest.Config, scratch: Path) -> list[str]:
    """Options that make pytest collect in another process what it collects in this one, and report nothing."""
    option = config.option
    options, ours = ["--continue-on-collection-errors"], ["-o", "addopts="]
    options += ["--capture=no"] if config.pluginmanager.hasplugin("capture") else []
    options += ["-q"] if config.pluginmanager.hasplugin("terminal") else []
    options += ["--rootdir", str(tree.place(config.rootpath)), f"--import-mode={option.importmode}"]
    if config.inipath is not None and tree.place(config.inipath).exists():
        options += ["-c", str(tree.place(config.inipath))]
    if config.inipath is None:  # settings that lie nearer to the tests are not in force
        (scratch / "pytest.ini").touch()
        options += ["-c", str(scratch / "pytest.ini"), "--confcutdir", str(tree.place(config.rootpath))]
    if config.pluginmanager.hasplugin("logging"):
        ours += ["-o", "log_file="]  # the user's would be emptied
    if has_plugin(config, "timeout"):  # waiting for requests is no time of the test's
        options += ["--timeout=0"]
    if option.confcutdir:
        place = tree.place(config.invocation_params.dir / option.confcutdir)
        options += ["--confcutdir", str(place)] if place.is_dir() else []
    if getattr(option, "disable_plugin_autoload", False):
        options += ["--disable-plugin-autoload"]
    reorders = ["no:randomly", "no:pytest_randomly"] if has_plugin(config, "randomly") else []
    left_out = ["vscode_pytest", *(["pytest_randomly"] if reorders else [])]  # the first tells its editor of results
    asked = [each for each in option.plugins or () if each not in left_out]
    for plugin in dict.fromkeys([*asked, *reorders]):
        options += ["-p", plugin]
    options += ["--noconftest"] * bool(option.noconftest) + ["--runxfail"] * bool(getattr(option, "runxfail", False))
    for setting in option.override_ini or ():
        options += ["-o", setting]
    for setting in option.pythonwarnings or ():
        options += ["-W", setting]
    return [*options, *ours]


def given_options(config: pytest.Config) -> dict[str, object]:
    """The options of a session that are not as they are by default: a default is code, and a revision has its own."""
    parser: Any = config._parser
    known = getattr(parser, "optparser", None) or parser._getparser()  # the second in pytest 8
    defaults = {each.dest: _default(each) for each in reversed(known._actions)}  # of several, argparse takes the first
    words = [*map(str, config.invocation_params.args), *config.getini("addopts")]
    words += shlex.split(os.environ.get("PYTEST_ADDOPTS", ""))
    said = {word.partition("=")[0] for word in words}
    given = {each.dest for each in known._actions if said.intersection(each.option_strings)}
    settings = vars(config.option).items()
    return {name: each for name, each in settings if name in given or defaults.get(name, UNSET) != each}


UNSET = object()


def _default(action: argparse.Action) -> object:
    """What an option is where it is not given: text is read as if it were."""
    convert = action.type if callable(action.type) else str
    with suppress(Exception):
        return convert(action.default) if isinstance(action.default, str) else action.default
    return action.default


def _is_plain(value: object) -> bool:
    """Whether a value survives JSON as it is."""
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float | bool)


def _as_text(value: object) -> list[str]:
    """The kind of an option that JSON does not know, and the text that it is told by."""
    if isinstance(value, Path):
        return ["path", str(value)]
    return ["other", re.sub(" at 0x[0-9a-f]+", "", repr(value))]


def take_options(option: argparse.Namespace, known: Collection[str], given: "Serving") -> None:
    """Set the options that a conftest added as they were given; raises UsageError for one that cannot be handed on."""
    mine = {name: value for name, value in vars(option).items() if name not in known}
    for name, value in given.options.items():
        if name in mine:
            setattr(option, name, value)
    for name, (kind, text) in given.others.items():
        if name in mine and kind == "path":
            setattr(option, name, Path(text))
        elif name in mine and _as_text(mine[name]) != [kind, text]:
            raise pytest.UsageError(
                f"the option {name!r} is {text:.60}, which cannot be handed to the processes that measure; let it be "
                f"text, a number or a path"
            )


class Team:
    """Several measurers of one tree, each test's visits going round among them."""

    def __init__(
        self, tree: Tree, config: pytest.Config, tests: Mapping[str, Path], scratch: Path, processes: int = PROCESSES
    ) -> None:
        self.tree, self._turn, self.on_a_gpu = tree, 0, False
        with ExitStack() as stack:
            self.members = []
            for _ in range(processes):  # all start at once
                member = Measurer(tree, config, tests, Path(tempfile.mkdtemp(dir=scratch)))
                stack.callback(member.close)
                self.members.append(member)
            self._stack = stack.pop_all()

    def close(self) -> None:
        """End every process."""
        for member in self.members:
            member.finish()
        self._stack.close()

    def reach(self, test: str, gate: str) -> dict[str, Any] | None:
        """Bring all to a gate; what they say there, or None where this tree has no such test or gate.

        Raises UnmeasurableError when they do not agree, or are not as they must be.
        """
        first, *others = (member.reach(test, gate) for member in self.members)
        if any(other != first for other in others):
            raise UnmeasurableError(
                "the processes that measure differ in the frozen reference, or in whether they come to this gate: seed "
                "what the test draws, and let nothing change meanwhile"
            )
        if first is not None and first["wrong"]:
            raise UnmeasurableError(first["wrong"])
        ours = machine_facts()["libraries"]
        if first is not None and not first.get("libraries", ours).items() <= ours.items():
            raise UnmeasurableError(
                f"the processes that measure load {first['libraries']}, and this one {ours}: use a virtual environment"
            )
        return first

    def visit(self, slices: list[Slice]) -> tuple[list[float], float]:
        """Time slices in the process whose turn it is: seconds, and the share of waiting in today's."""
        self._turn += 1
        answer = self.members[self._turn % len(self.members)].ask({"slices": slices}, ANSWER_SECONDS)
        return answer["seconds"], answer["waiting"]

    def leave(self) -> None:
        """Let all go on with their tests."""
        for member in self.members:
            member.send({"done": True})

    def train(self, chunks: Sequence[Sequence[int]], *, fault: bool, seconds: float) -> dict[str, Outcome]:
        """Outcomes by seed, each chunk of seeds trained by whichever process is free."""
        free, busy, todo, found = list(self.members), list[Any](), list(chunks), dict[str, Outcome]()
        while todo or busy:
            while todo and free:
                busy.append(free.pop())
                busy[-1].send({"seeds": list(todo.pop(0)), "fault": fault})
            ready: list[Any] = wait(busy, seconds)
            if not ready:
                raise UnmeasurableError(f"no training ended within {seconds:.0f} seconds")
            for member in ready:
                busy.remove(member)
                free.append(member)
                answer = member.answer(seconds)
                found |= {seed: Outcome(**run) for seed, run in answer["outcomes"].items()}
                self.on_a_gpu |= answer.get("gpu", False)
        return found


# --- in a process that measures --------------------------------------------------------------------------------------


class Serving:
    """pytest's plugin in a process that measures: it runs the tests that it is told of, and answers at their gates."""

    def __init__(self, numbers: str) -> None:
        number, watched = map(int, numbers.split())
        self._lines = socket.socket(fileno=number).makefile("rw", encoding="utf-8")
        self._broken, self._gated = dict[str, str](), dict[str, str]()
        self._looked = {"__main__"}
        threading.Thread(target=_end_with_the_judge, args=[watched], daemon=True).start()
        first = self._hear()
        self._tests: list[str] = first["tests"]
        self._files = list(map(Path, first["files"]))
        self.options: dict[str, object] = first["options"]
        self.others: dict[str, list[str]] = first["others"]
        self._root, self._base = map(Path, first["trees"])
        self._against = bool(first["against"])
        self._opened = set[str]()
        if self._against:  # an audit hook would see more, and cost something at many a step that opens nothing
            builtins.open = io.open = _Opening(open, self._opened)
        if self._base != self._root:  # after all else: before a package that is installed in development mode
            sys.path += [str(self._base), str(self._base / "src")]

    def _say(self, message: object) -> None:
        with suppress(OSError):  # nobody listens any more
            self._lines.write(json.dumps(message) + "\n")
            self._lines.flush()

    def _hear(self) -> dict[str, Any]:
        line = self._lines.readline()
        if not line:
            pytest.exit("nothing more is asked for", returncode=0)
        request: dict[str, Any] = json.loads(line)
        return request

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Keep why a file could not be collected."""
        if report.failed:
            self._broken[report.nodeid] = last_line(str(report.longrepr))

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Run the tests that are asked for, in that order, without a limit to their time: much of it is waiting."""
        known = {item.nodeid: item for item in items}
        places = {(item.path.resolve(), item.nodeid.partition("::")[2]): item for item in items}
        chosen = {}
        for test, file in zip(self._tests, self._files, strict=True):
            if found := known.get(test) or places.get((file.resolve(), test.partition("::")[2])):
                chosen[test] = found
                _rename(found, test)
        gated = [item for item in items if is_gated(item) and not item.nodeid.startswith("::")]
        self._gated = {item.nodeid: source_digest(item) for item in gated}
        items[:] = chosen.values()
        for node in {node for item in items for node in item.listchain()}:
            node.own_markers[:] = [mark for mark in node.own_markers if mark.name != "timeout"]

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Say what is there."""
        collected = [item.nodeid for item in session.items]
        self._say({"collected": collected, "broken": self._broken, "sources": self._gated})

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Say how a test ended; its gates may be in subtests, and where its fixtures clear away."""
        if report.when == "teardown" or not report.passed:
            skip = report.longrepr if isinstance(report.longrepr, tuple) else None  # a file, a line and the reason
            why = skip[2] if skip else last_line(report.longreprtext) or report.outcome
            self._say({"ended": report.nodeid, "why": why, "broken": report.failed})

    def _arrive(self, test: str, name: str, **facts: object) -> None:
        self._say(
            {"at": test, "gate": name, "wrong": self._wrong(), "libraries": machine_facts()["libraries"], **facts}
        )

    def _wrong(self) -> str:
        """Why nothing that is measured here would mean anything, in words, or nothing."""
        if sys.gettrace() is not None or sys.getprofile() is not None:
            return "a debugger, profiler or coverage slows the process that measures; run the gate without"
        threads = sys.modules["torch"].get_num_threads() if "torch" in sys.modules else 1
        if threads != 1:
            return f"torch was given {threads} threads by the test or its conftest; one is needed"
        return self._foreign() if self._against else ""

    def _read_elsewhere(self) -> str:
        """The first file that was read from today's tree though this is a revision's, in words, or nothing."""
        for name in sorted(self._opened - self._looked):
            with suppress(ValueError, OSError):  # of a name that is none
                file, own = Path(name), _is_own(Path(name), self._root) and not _is_own(Path(name), self._base)
                if own and file.suffix not in (".py", ".pyc") and _kept(self._root, file):
                    return f"{file.resolve()} was read from today's files: find it from the test's own place (__file__)"
            self._looked.add(name)
        return ""

    def _foreign(self) -> str:
        """The first module or file that is not from this tree though it belongs to it, in words, or nothing."""
        if found := self._read_elsewhere():
            return found
        files = _files(self._base)
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None)
            if name in self._looked or not file or name.partition(".")[0] in sys.stdlib_module_names:
                continue
            compiled = Path(file).suffix in (".so", ".pyd")
            if (
                compiled
                and self._base == self._root
                and _is_own(Path(file), self._root)
                and not _kept(self._root, Path(file))
            ):
                return f"{name} is compiled, and not kept in git: compare by a baseline"
            if not _is_own(Path(file), self._base):
                if _is_own(Path(file), self._root):
                    return f"{name} was loaded from today's files, {file}: import it by its name, without a fixed path"
                copied = name.partition(".")[0] in _installed_copies(self._root)
                if compiled and (copied or _has_source(self._base, name)):
                    return f"{name} is compiled, and the same on both sides: compare by a baseline"
                if copied or _has_module(files, name, Path(file)):
                    return (
                        f"{name} was loaded from {file}, which is not the code to be compared: install the project "
                        f"with 'pip install --editable', or set pytest's pythonpath"
                    )
            self._looked.add(name)
        return ""

    def time(
        self, test: str, name: str, step: Callable[[], object], beside: Callable[[], object], clock: Clock
    ) -> None:
        """Time slices of a step and its reference as asked, until told to go on."""
        self._arrive(test, name, ruler=ruler(beside), clock=clock)
        works, repeats, longer = {"reference": beside, "step": step}, dict[str, int](), dict[str, int]()
        gc.collect()
        gc.freeze()
        gc.disable()  # a collection costs as much as a slice, and falls on whichever comes
        try:
            while "slices" in (request := self._next()) or "prepare" in request:
                if not repeats:
                    repeats, longer = _alike(works, request["prepare"], clock)
                if "prepare" in request:  # on the wall, also where the clock does not see waiting
                    seconds = {name: _timed(work, repeats[name], 0.0, clock)[1] for name, work in works.items()}
                    wrong = self._wrong() or _on_a_gpu()  # now that all is loaded
                    lasts = {name: repeats[name] * seconds[name] for name in works}
                    ratio = seconds["step"] / max(seconds["reference"], 1e-12)
                    self._say({"error": wrong} if wrong else {**lasts, "ratio": ratio, "longer": longer})
                    continue
                gc.collect()  # what the last visit left would fill the memory
                beside()
                step()
                taken = [
                    _timed(beside, repeats["reference"], 0.0, clock)
                    if isinstance(piece, str)
                    else _timed(step, repeats["step"], piece, clock)
                    for piece in request["slices"]
                ]
                self._say({"seconds": [each[0] for each in taken], "waiting": _waiting(request["slices"], taken)})
        finally:
            gc.enable()
            gc.unfreeze()

    def outcomes(
        self, test: str, name: str, train: Callable[..., Any], fault: Callable[..., Any] | None, *, together: bool
    ) -> None:
        """Train with seeds as asked, until told to go on."""
        self._arrive(test, name)
        while "seeds" in (request := self._next()):
            work = fault if request["fault"] and fault is not None else train
            try:
                results = work(request["seeds"]) if together else {seed: work(seed) for seed in request["seeds"]}
                runs = {str(seed): vars(as_outcome(results[seed])) for seed in request["seeds"]}
            except Exception as error:
                why = f"training with seed {request['seeds'][0]} ended in {type(error).__name__}: {error}"
                self._say({"error": why, "broken": True})
            else:
                wrong = self._wrong()  # now that all is loaded
                self._say({"error": wrong} if wrong else {"outcomes": runs, "gpu": bool(_on_a_gpu())})

    def _next(self) -> dict[str, Any]:
        request = self._hear()
        if "skip" in request:
            pytest.skip("not asked for")
        return request


class _Opening:
    """Python's ``open`` that keeps the names of files that are read; no function, which would bind as a method."""

    def __init__(self, original: Callable[..., Any], names: set[str]) -> None:
        functools.update_wrapper(self, original)
        self._original, self._names = original, names

    def __call__(self, file: Any, mode: str = "r", *arguments: Any, **settings: Any) -> Any:
        """Open a file."""
        if isinstance(file, str | os.PathLike) and not set(mode) & set("wax"):
            self._names.add(os.path.abspath(os.fsdecode(file)))  # noqa: PTH100  links are followed later
        return self._original(file, mode, *arguments, **settings)


def source_digest(item: pytest.Item) -> str:
    """What tells a test's source, decorators and all, from another; "" where there is none to read."""
    with suppress(OSError, TypeError, AttributeError):
        return hashlib.sha256(inspect.getsource(item.function).encode()).hexdigest()  # type: ignore[attr-defined]
    return ""


OTHER_GPUS: dict[str, Callable[[Any], bool]] = {
    "jax": lambda jax: jax.default_backend() != "cpu" and bool(jax.live_arrays()),
    "tensorflow": lambda tensorflow: bool(tensorflow.config.list_logical_devices("GPU")),
    "cupy": lambda cupy: cupy.get_default_memory_pool().total_bytes() > 0,
    "mlx.core": lambda _: True,  # which also puts work off
}
"""Whether libraries other than torch work on a GPU, where they are loaded."""


def _on_a_gpu() -> str:
    """Why the step cannot be timed where it works on a GPU, in words, or nothing."""
    torch = sys.modules.get("torch")
    used = [name for name in ("cuda", "xpu") if torch and getattr(getattr(torch, name, None), "is_initialized", bool)()]
    if torch and torch.backends.mps.is_available() and torch.mps.current_allocated_memory():
        used.append("mps")
    for name, working in OTHER_GPUS.items():
        with suppress(Exception):
            used += [name] * (name in sys.modules and working(sys.modules[name]))
    sentence = "a GPU is used ({}), whose work goes on after a call has returned, and which no baseline knows"
    return f"{sentence.format(used[0])}: time the step on the CPU" if used else ""


def _kept(root: Path, file: Path) -> bool:
    """Whether a repository itself keeps a file, and not one that lies inside of it."""
    with suppress(Hw4Error):
        return bool(git(root, "ls-files", "--", f":(top,literal){file.resolve().relative_to(root)}"))
    return False


@functools.cache
def _installed_copies(root: Path) -> frozenset[str]:
    """Names of packages and modules that were installed from a tree, of whose files these are copies.

    Of what is installed in development mode these are compiled modules alone: the others find the tree's own files.
    """
    found = set[str]()
    for each in importlib.metadata.distributions():
        with suppress(OSError, ValueError, KeyError):
            about = json.loads(each.read_text("direct_url.json") or "{}")
            origin, editable = urlsplit(about.get("url", "")), about.get("dir_info", {}).get("editable")
            if origin.scheme == "file" and Path(unquote(origin.path)).resolve().is_relative_to(root):
                files = [file for file in each.files or () if not editable or file.suffix in (".so", ".pyd")]
                found |= {file.parts[0].partition(".")[0] for file in files}
    return frozenset(found)


def _has_source(base: Path, name: str) -> bool:
    """Whether a tree holds what an extension module is compiled from: of its own, not of a library's of that name."""
    top, stem = name.partition(".")[0], name.rpartition(".")[2]
    if top != stem and not any(top in file.split("/") for file in _files(base)):
        return False
    suffixes = (".pyx", ".c", ".cc", ".cpp", ".cu", ".rs", ".f90")
    return any(path.rpartition("/")[2] == stem + suffix for path in _files(base, suffixes) for suffix in suffixes)


@functools.cache
def _files(folder: Path, suffixes: tuple[str, ...] = (".py",)) -> frozenset[str]:
    """Files below a folder, by default Python's, relative to it; not those of environments and hidden folders."""
    found = set()
    for place, folders, files in os.walk(folder):
        here = Path(place)
        marks = ("pyvenv.cfg", "conda-meta")
        kept = [name for name in folders if name[0] != "." and name != "site-packages"]
        folders[:] = [name for name in kept if not any((here / name / mark).exists() for mark in marks)]
        found |= {(here / name).relative_to(folder).as_posix() for name in files if name.endswith(suffixes)}
    return frozenset(found)


def _has_module(files: frozenset[str], name: str, loaded: Path) -> bool:
    """Whether these files of a tree hold a module that was loaded from elsewhere, and not one of a package's own."""
    tail = name.replace(".", "/") + ("/__init__.py" if loaded.name == "__init__.py" else ".py")
    homes = [file.removesuffix(tail) for file in files if file == tail or file.endswith(f"/{tail}")]
    return any(home in ("", "src/") or f"{home}__init__.py" not in files for home in homes)


def _end_with_the_judge(watched: int) -> None:
    """End, with every process started here, when the process that started this one is gone."""
    while os.read(watched, 1):  # the judge writes nothing, so this is its end
        pass
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


def last_line(text: str) -> str:
    """The line of pytest's long account that says what happened."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line.removeprefix("E").strip() for line in text.splitlines() if line.startswith("E ")]
    named = [line for line in told or lines[::-1] if re.match(r"[\w.]*(Error|Exception|Exit|Warning)\b", line)]
    return next(iter(named or told or lines), "")


def _timed(work: Callable[[], object], repeats: int, slower: float, clock: Clock) -> tuple[float, float]:
    """Seconds of one call, by the clock and on the wall, of so many, made longer by a share that is spun away."""
    read = CLOCKS[clock]
    wall, start = CLOCKS["wall"](), read()
    for _ in range(repeats):
        work()
    taken = read() - start
    while slower and read() - start < taken * (1 + slower):
        pass
    taken = read() - start if slower else taken
    return taken / repeats, (CLOCKS["wall"]() - wall) / repeats


UNDONE = (types.GeneratorType, types.AsyncGeneratorType, map, filter, zip)


def _repeats(work: Callable[[], object], clock: Clock) -> int:
    """How often to call something in a row, so that it lasts long enough to be timed; TypeError where it is not done.

    A coroutine or a generator does nothing by being made.
    """
    result, repeats = work(), 1
    undone = isinstance(result, Iterator)
    later = ("block_until_ready", "add_done_callback", "__dask_graph__")
    todo, seen = [result], set[int]()
    for each in todo:
        if isinstance(each, tuple | list | dict):
            if id(each) not in seen:
                seen.add(id(each))
                todo += each.values() if isinstance(each, dict) else each
        elif undone or isinstance(each, UNDONE) or inspect.isawaitable(each):
            raise TypeError(f"a call gave {each!r:.40}..., and did nothing yet; let the step run it to its end")
        elif any(hasattr(type(each), name) for name in later):
            raise TypeError(f"a call gave a {type(each).__name__}, whose work may go on; let the step wait for its end")
    while repeats < 1_000_000:
        seconds, wall = (repeats * each for each in _timed(work, repeats, 0.0, clock))
        if seconds >= SHORTEST_SECONDS or wall >= LENGTHENED_SECONDS:  # the second of what waits, which is told later
            break
        repeats *= 2 if seconds > SHORTEST_SECONDS / 10 else 8
    return repeats


def _alike(
    works: Mapping[str, Callable[[], object]], longer: dict[str, int] | None, clock: Clock
) -> tuple[dict[str, int], dict[str, int]]:
    """How often to call each in a row, and how much of that is for slices of all to last about as long.

    What comes now and then, as from neighbours, falls more often on what lasts longer, and would seem to slow that.
    A first call after others takes longer than a second, so ratios compare where ``longer`` is what it was.
    """
    repeats = {name: _repeats(work, clock) for name, work in works.items()}
    if longer is None:
        lasts = {name: _lasts(work, repeats[name], clock) for name, work in works.items()}
        wanted = min(LENGTHENED_SECONDS, max(lasts.values()))
        longer = {name: max(1, round(wanted / max(lasts[name], SHORTEST_SECONDS))) for name in works}
    return {name: repeats[name] * longer[name] for name in works}, longer


def _lasts(work: Callable[[], object], repeats: int, clock: Clock) -> float:
    """Seconds of so many calls, the least of five unless they are long; on the wall where they mostly wait."""
    times = [_timed(work, repeats, 0.0, clock)]
    times += [_timed(work, repeats, 0.0, clock) for _ in range(4 if repeats * times[0][1] < LENGTHENED_SECONDS else 0)]
    seen, wall = min(clock for clock, _ in times), min(wall for _, wall in times)
    return repeats * (wall if wall > 2 * seen else seen)


def _waiting(slices: Sequence[Slice], taken: Sequence[tuple[float, float]]) -> float:
    """The share of today's calls that their clock does not see, beyond that of the reference's calls beside them.

    Where it sees next to nothing of either, both wait, and no neighbour is to blame.
    """

    def seen(reference: bool) -> float:
        chosen = [each for piece, each in zip(slices, taken, strict=True) if isinstance(piece, str) == reference]
        wall = math.fsum(wall for _, wall in chosen)
        return math.fsum(clock for clock, _ in chosen) / wall if wall else 1.0

    today, reference = seen(reference=False), seen(reference=True)
    if max(today, reference) < 1 - MOSTLY_WAITING:
        return 1 - today
    return max(0.0, 1 - today / max(reference, 1e-9))


def as_outcome(result: object) -> Outcome:
    """What ``train`` gave, checked: a mapping with an accuracy, a loss or both, and anything else whose bits count.

    Raises ValueError for anything else. Numbers that are not finite, and None, are those of a diverged run.
    """
    if not isinstance(result, Mapping) or not {"accuracy", "loss"} & set(result):
        raise ValueError(f"train(seed) returned {result!r:.60}; a dict with 'accuracy', 'loss' or both is expected")
    values = {name: None if result[name] is None else float(result[name]) for name in result if name != "bits"}
    unknown = sorted(set(values) - {"accuracy", "loss"})
    if unknown:
        raise ValueError(f"train(seed) returned {unknown[0]!r}; known are 'accuracy', 'loss' and 'bits'")
    accuracy, loss = values.get("accuracy"), values.get("loss")
    diverged = any(value is None or not math.isfinite(value) for value in values.values())
    bits = json.dumps([accuracy, loss, result.get("bits")], default=_exactly)
    digest = hashlib.sha256(bits.encode()).hexdigest()[:16]
    if accuracy is not None and -ROUNDED < accuracy < 1 + ROUNDED:  # a mean of batches' means may be beyond
        accuracy = min(max(accuracy, 0.0), 1.0)
    return Outcome(None if diverged else accuracy, None if diverged else loss, diverged, digest)


def _exactly(value: Any) -> object:
    """What stands for a value in a digest, to the last bit; raises ValueError for what has no such form."""
    if isinstance(value, complex):
        return [value.real, value.imag]
    if isinstance(value, bytes):
        return value.hex()
    if not hasattr(value, "tolist"):
        raise ValueError(f"'bits' hold {value!r:.60}; numbers, text, lists, dicts and arrays are expected")
    return [str(value.dtype), value.tolist()]


def ruler(reference: object) -> str:
    """Fingerprint of a frozen reference: its code, all code that it calls and is not installed, and its sizes.

    Followed are closures, defaults, partials, methods, base classes, imports and globals that the code names; of arrays
    counts their shape and type, of paths the name, of what other libraries make the length. What those do is their
    version's.
    """
    found, seen = list[str](), dict[int, object]()  # what was seen is kept, or another might get its id
    todo = deque([reference])
    while todo:
        value = todo.pop()
        if isinstance(value, str) and value.startswith("/"):  # wherever a checkout or a temporary folder lies
            found.append(value.rpartition("/")[2])
        elif value is None or isinstance(value, str | bytes | int | float | complex):
            found.append(repr(value))
        elif isinstance(value, types.ModuleType):
            found.append(value.__name__)
        elif isinstance(value, np.integer):
            found.append(str(value))
        elif hasattr(value, "shape") and hasattr(value, "dtype"):
            found.append(f"{tuple(value.shape)} {value.dtype}")
        elif id(value) not in seen and len(seen) < MOST_PARTS:
            seen[id(value)] = value
            if isinstance(value, types.FunctionType | type):
                found.append(value.__qualname__)
                todo += _parts_of_code(value) if _is_source(value) else []
            elif isinstance(value, list | tuple | dict):  # after all code, of which nothing may be left out
                found.append(str(len(value)))
                todo.extendleft(value.items() if isinstance(value, dict) else value)
            else:
                todo += _parts_of_value(value)
    return hashlib.sha256("\n".join(found).encode(errors="surrogatepass")).hexdigest()[:16]


def _parts_of_value(value: object) -> list[object]:
    """What a value that is no code and no number consists of, as far as a reference's work depends on it."""
    if isinstance(value, types.MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.items()]
    if named := _named(value):
        return [type(value), named]
    if slots := _slots(value):
        return [type(value), *slots, *sorted(getattr(value, "__dict__", {}).items())]
    holds = _is_source(type(value)) or isinstance(value, types.SimpleNamespace | argparse.Namespace)
    if (holds or hasattr(value, "_parameters")) and hasattr(value, "__dict__"):  # or a torch module
        return [type(value), *sorted(vars(value).items())]
    parts: list[object] = [type(value)]
    if callable(value):  # a library's compiled function or method: its name, and whose it is
        owner = getattr(value, "__self__", None)
        parts.append(getattr(value, "__qualname__", None) or getattr(value, "__name__", None))
        parts += [] if owner is None or isinstance(owner, types.ModuleType) else [owner]
    with suppress(Exception):
        parts.append(value.__wrapped__)  # type: ignore[attr-defined]  # cached or compiled
    with suppress(Exception):  # of a range, a set, a loader of data; but what is in a mapping comes and goes
        parts += [] if isinstance(value, Mapping) else [len(value)]  # type: ignore[arg-type]
    return parts


def _rename(item: pytest.Item, test: str) -> None:
    """Let an item have the id that its test was asked for by: outside of pytest's rootdir ids begin otherwise here."""
    item._nodeid = test  # type: ignore[attr-defined]
    if item.nodeid != test:  # pytest 9.2 keeps it in parts
        from _pytest.nodeid import coerce_node_id

        item._id = coerce_node_id(test)


def _named(value: object) -> str:
    """The name of what is known by its name: a file, a member of an enumeration, torch's dtypes and devices."""
    if isinstance(value, os.PathLike):
        return Path(os.fsdecode(value)).name
    kind = f"{type(value).__module__}.{type(value).__name__}"
    return str(value) if isinstance(value, enum.Enum) or kind in ("torch.dtype", "torch.device") else ""


def _slots(value: object) -> list[tuple[str, object]]:
    """What an object of a class that is not a library's holds in slots."""
    found = []
    for each in filter(_is_source, type(value).__mro__):
        slots = vars(each).get("__slots__", ())
        for name in [slots] if isinstance(slots, str) else slots:
            private = name.startswith("__") and not name.endswith("__")
            real = f"_{each.__name__.lstrip('_')}{name}" if private else name
            if real not in ("__dict__", "__weakref__") and hasattr(value, real):
                found.append((name, getattr(value, real)))
    return found


def _parts_of_code(value: types.FunctionType | type) -> list[object]:
    """What a function does and refers to, or what a class has and inherits."""
    if isinstance(value, type):
        has = [each for name, each in vars(value).items() if callable(each) or not name.startswith("__")]
        has = [getattr(each, "fget", getattr(each, "__func__", each)) for each in has]
        return [*filter(_is_source, value.__bases__), *has]
    parts: list[object] = [value.__defaults__, value.__kwdefaults__]
    codes = [value.__code__]
    for code in codes:
        steps = [each for each in dis.get_instructions(code) if each.opname != "EXTENDED_ARG"]
        loaded = _loaded(steps)
        found = [value.__globals__.get(name) if name in loaded else None for name in code.co_names]
        found += _imported(steps, value.__globals__)
        for module in found:  # of modules that are not installed, what the code names; they may name modules again
            if isinstance(module, types.ModuleType) and not _is_installed(_file(module)):
                of = [taken for name, taken in loaded.items() if value.__globals__.get(name) is module]
                whole = not of or any("" in taken for taken in of)
                names = [name for name in code.co_names if whole or any(name in taken for taken in of)]
                named = [vars(module).get(name) for name in names]
                found += [each for each in named if each is not None and not any(each is known for known in found)]
        parts += [code.co_code, *code.co_names, *found]
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                codes.append(constant)
            elif constant is not value.__doc__:
                parts.append(sorted(map(repr, constant)) if isinstance(constant, frozenset) else constant)
    for cell in value.__closure__ or ():
        with suppress(ValueError):  # an empty cell
            parts.append(cell.cell_contents)
    return parts


def _loaded(steps: list[dis.Instruction]) -> dict[str, set[str]]:
    """The globals that a code loads, each with the attributes that it takes of it at once; "" where it does not."""
    found = dict[str, set[str]]()
    for step, after in itertools.pairwise(steps):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"):
            taken = after.argval if after.opname in ("LOAD_ATTR", "LOAD_METHOD") else ""
            found.setdefault(step.argval, set()).add(taken)
    return found


def _imported(steps: list[dis.Instruction], names: dict[str, Any]) -> list[object]:
    """Modules that a function imports when it is called."""
    found = list[object]()
    for level, wanted, step in zip(steps, steps[1:], steps[2:], strict=False):
        if step.opname == "IMPORT_NAME":
            with suppress(Exception):  # of a library that is not there, in a branch that is not taken
                found.append(__import__(step.argval, names, None, wanted.argval or (), level.argval))
    return found


def _is_source(value: types.FunctionType | type) -> bool:
    """Whether a function or class is not from an installed library."""
    module = sys.modules.get(value.__module__ or "")
    if module is None:  # loaded from its file by hand
        file = getattr(getattr(value, "__code__", None), "co_filename", "")
        return isinstance(value, type) or not (file.startswith("<") or _is_installed(file or None))
    return not _is_installed(_file(module))


def _file(module: types.ModuleType | None) -> str | None:
    """Where a module comes from: its file, or the folder of a package without one."""
    return getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), None)


@functools.cache
def _is_installed(file: str | None) -> bool:
    """Whether a module's file is Python's or a library's, whose version says what it does."""
    path = Path(file or "/").resolve()
    library = {"site-packages", "dist-packages"} & set(path.parts)
    return not file or bool(library) or any(path.is_relative_to(Path(place).resolve()) for place in INSTALLED)

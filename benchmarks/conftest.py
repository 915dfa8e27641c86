"""What makes timings beside frozen code mean nothing is refused; their table is printed. And the sweep's options."""

import argparse
import os
import platform
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.workloads import WORKLOADS
from hw4.data.choose import choose_data
from hw4.errors import Hw4Error
from hw4.files import RECORDS
from hw4.machine import processor_class
from hw4.records import Store, TextCNNRecord, environment
from hw4.report.page import load_report
from hw4.runs import make_all
from hw4.specs import STRIDES, TRIALS, QuestionSet, TextCNNSpec, sweep_specs
from hw4.studies import require_equal_trials, sweep

SAVED = Path(__file__).parents[1] / "reports" / "benchmarks"
TIMER = time.process_time


_RATIOS: dict[str, str] = {}
TIMED = pytest.StashKey[list[str]]()


def report_ratio(name: str, ratio: str, plain: float, fast: float) -> None:
    """Put a ratio into the table printed at the end, with the seconds it came from."""
    _RATIOS[name] = f"{ratio}   plain {plain:7.3f} s   fast {fast:7.3f} s"


def _asked(config: pytest.Config, *names: str) -> bool:
    """Whether only these files of the folder are asked for: the sweep, or the gate, which have rules of their own."""
    files = {Path(argument.partition("::")[0]).name for argument in config.args}
    return bool(files) and files <= set(names)


def _timing(config: pytest.Config) -> bool:
    """Whether benchmarks are to be timed: not the sweep, not the gate, and not without pytest-benchmark."""
    others = _asked(config, "sweep.py") or _asked(config, "gate_timing.py", "gate_accuracy.py")
    return config.pluginmanager.hasplugin("benchmark") and not others and not config.option.collectonly


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Keep saved runs in one place, whatever the current folder, and make a comparison with none an ordinary run."""
    option = config.option
    if _asked(config, "sweep.py") and not hasattr(config, "workerinput"):
        try:  # a sweep that cannot be, or whose trials no chart could hold beside those of its folder
            require_equal_trials(wanted_specs(config), sweep_store(config).load_all("*_textcnn-*.json"))
        except Hw4Error as error:
            raise pytest.UsageError(str(error)) from error
    if not config.pluginmanager.hasplugin("benchmark"):
        return
    if option.benchmark_storage.endswith("./.benchmarks"):
        option.benchmark_storage = f"file://{SAVED}"
    if not _timing(config):
        return
    _refuse_what_times_nothing(config)
    if option.benchmark_compare_fail:
        raise pytest.UsageError(
            "--benchmark-compare-fail compares times of different moments, which on shared machines alarms without "
            "cause and sleeps with one; 'hw4 gate' judges slowdowns"
        )
    if option.benchmark_compare and option.benchmark_storage == f"file://{SAVED}":
        wanted = "*" if option.benchmark_compare is True else f"{option.benchmark_compare}*"
        if not any(SAVED.rglob(f"{wanted}.json")):
            if option.benchmark_compare is not True:
                raise pytest.UsageError(f"no saved run begins with {option.benchmark_compare!r} in {SAVED}")
            print(f"No saved run to compare with in {SAVED} yet; this is an ordinary run.")
            option.benchmark_compare = None
    if not option.benchmark_save and _can_write(SAVED):
        option.benchmark_autosave = option.benchmark_autosave or time.strftime("%Y%m%d_%H%M%S", time.gmtime())


def _can_write(folder: Path) -> bool:
    """Whether files can be kept in a folder; where they cannot, as in a read-only checkout, that is said."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError as error:
        print(f"This run is not saved: {folder} cannot be written to ({error.strerror}).")
        return False


def _refuse_what_times_nothing(config: pytest.Config) -> None:
    """Raise UsageError for every way in which benchmarks would run and pass without a time that means anything."""
    option = config.option
    reasons = {
        "pytest-xdist is active, and its workers disturb one another; leave out -n": hasattr(config, "workerinput")
        or getattr(option, "dist", "no") != "no",
        "--benchmark-disable times nothing; leave it out": option.benchmark_disable,
        "--benchmark-skip times nothing; leave it out": option.benchmark_skip,
        f"torch has {torch.get_num_threads()} threads, where one is needed": torch.get_num_threads() != 1,
    }
    for reason, applies in reasons.items():
        if applies:
            raise pytest.UsageError(f"benchmarks cannot run so: {reason}")


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_generate_machine_info() -> dict[str, Any]:
    """What must be equal for two runs' times to be compared."""
    return {
        "node": platform.node(),
        "cpu": processor_class(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timer": TIMER.__name__,
        "threads": torch.get_num_threads(),
    }


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_json(output_json: dict[str, Any]) -> None:
    """Say where a run was made, as records do, for its report."""
    output_json["environment"] = environment(threads=torch.get_num_threads(), dtype="float32").model_dump()


@pytest.hookimpl(tryfirst=True, optionalhook=True)
def pytest_benchmark_compare_machine_info(machine_info: dict[str, Any], compared_benchmark: dict[str, Any]) -> None:
    """Refuse to compare times of different machines; the ratios to plain code compare all the same."""
    saved = compared_benchmark["machine_info"]
    for name, here in machine_info.items():
        if saved.get(name) != here:
            raise pytest.UsageError(
                f"the saved run was made with {name} {saved.get(name)!r}, this one has {here!r}, and their times do "
                f"not compare; leave out --benchmark-compare, or name another run: --benchmark-compare=NUMBER"
            )


def _folder(text: str) -> Path:
    """A folder by its name, which an empty one is not."""
    if not text.strip():
        raise argparse.ArgumentTypeError("expected a folder, got nothing (is a variable empty?)")
    return Path(text)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of ``benchmarks/sweep.py`` and ``benchmarks/gate_accuracy.py``."""
    gate = parser.getgroup("gate")
    gate.addoption("--gate-data", choices=("embedded", "real"), default="embedded", help="what hw4's accuracies are of")
    group = parser.getgroup("sweep", "stride sweep (benchmarks/sweep.py)")
    group.addoption("--sweep-data", choices=("auto", "embedded", "real"), default="auto", help="questions to train on")
    group.addoption(
        "--sweep-out", metavar="DIR", type=_folder, help="folder for records and chart [reports/real or /embedded]"
    )
    group.addoption("--sweep-stride", metavar="N", type=int, action="append", help="a stride; repeat for several")
    group.addoption("--sweep-trials", metavar="N", type=int, default=TRIALS, help="models of each stride")
    group.addoption("--sweep-epochs", metavar="N", type=int, default=50, help="rounds through the questions")
    group.addoption("--sweep-learning-rate", metavar="X", type=float, default=0.1, help="learning rate of SGD")
    group.addoption("--sweep-momentum", metavar="X", type=float, default=0.8, help="momentum of SGD")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the gate's tests of the data that was not asked for; their baseline stays."""
    asked = config.getoption("--gate-data")
    others = [item for item in items if "real" in item.fixturenames and item.callspec.params["real"] != asked]  # type: ignore[attr-defined]
    if others:
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in others]


@cache
def sweep_data(config: pytest.Config) -> QuestionSet:
    """The question set asked for; looked at once, for real data are checked by their SHA-256 sums."""
    return choose_data(config.getoption("--sweep-data"), images=False, questions=True)[1]


@cache
def wanted_specs(config: pytest.Config) -> tuple[TextCNNSpec, ...]:
    return sweep_specs(
        sweep_data(config),
        strides=config.getoption("--sweep-stride") or STRIDES,
        trials=config.getoption("--sweep-trials"),
        epochs=config.getoption("--sweep-epochs"),
        learning_rate=config.getoption("--sweep-learning-rate"),
        momentum=config.getoption("--sweep-momentum"),
    )


def sweep_store(config: pytest.Config) -> Store[TextCNNRecord]:
    kind = "real" if sweep_data(config) == "trec" else "embedded"
    folder = config.getoption("--sweep-out") or config.rootpath / "reports" / kind
    return Store(folder / RECORDS, TextCNNRecord)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Draw the sweep's chart, or see to it that a whole run of the benchmarks timed every workload."""
    config = session.config
    option = config.option
    if hasattr(config, "workerinput") or option.collectonly or option.setuponly or option.setupplan:
        return
    if _asked(config, "sweep.py"):
        _draw_chart(session, exitstatus)
    elif _timing(config) and exitstatus in (0, pytest.ExitCode.NO_TESTS_COLLECTED) and _everything_asked(config):
        timed: list[str] = config.stash.get(TIMED, [])
        absent = sorted(set(WORKLOADS) - set(timed))
        if absent:
            print(f"\nNot timed: {', '.join(absent)}. A benchmark that is skipped or gone is no benchmark passed.")
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _everything_asked(config: pytest.Config) -> bool:
    """Whether the whole folder was asked for, and nothing left out on purpose."""
    option = config.option
    folders = [Path(argument).resolve() for argument in config.args if "::" not in argument]
    left_out = ("keyword", "markexpr", "deselect", "lf", "ignore", "ignore_glob")  # plugins may be switched off
    chosen = any(getattr(option, name, None) for name in left_out)
    return Path(__file__).parent in folders and not chosen


def _draw_chart(session: pytest.Session, exitstatus: int) -> None:
    """Draw from the records on disk, in the controlling process, once every worker has ended."""
    specs, store = wanted_specs(session.config), sweep_store(session.config)
    absent = [spec.key for spec in specs if not store.path(spec.key).exists()]
    if exitstatus != pytest.ExitCode.OK or absent:
        print(
            f"\nNo chart: {len(absent)} of {len(specs)} records are absent{f', {absent[0]} first' if absent else ''}."
        )
        return
    folder = store.folder.parent
    try:
        make_all([(store.folder, sweep(specs))], processes=os.cpu_count() or 1)
        print(f"\nReport: {load_report(folder).write(folder)}")
    except Hw4Error as error:
        print(f"\nNo chart: {error}.")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _RATIOS:
        terminalreporter.section("plain against fast: median ratio of paired rounds in processor time [95% bootstrap]")
        width = max(map(len, _RATIOS))
        for name, line in _RATIOS.items():
            terminalreporter.write_line(f"{name:{width}} {line}")

"""pytest's ``gate`` fixture: a test says in a few lines what must not become slower or worse, and this judges it.

    def test_step(gate):
        gate.time(step, beside=frozen_step)

    def test_training(gate):
        gate.outcomes(train, seeds=range(8))

Plain ``pytest`` compares with the baseline beside the tests, ``pytest --gate-update`` makes it, ``pytest --gate-against
REV`` compares with another revision and needs none. What measures are processes of their own; see ``hw4.measurers``.
"""

import argparse
import json
import math
import operator
import os
import random
import re
import shlex
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from _pytest.pathlib import fnmatch_ex

from hw4 import gate as gating
from hw4 import measurers
from hw4.errors import Hw4Error
from hw4.files import write_atomically
from hw4.gate import FAILING, BrokenError, Estimate, Finding, Outcome, Part, Rules, Runs, Sample, UnmeasurableError
from hw4.machine import git
from hw4.measurers import Clock, Serving, Team, Tree, has_plugin, is_gated, machine_facts

BASELINE = "gate-baseline.json"
SCHEMA_VERSION = 2
EXIT_UNMEASURABLE = 16
"""pytest's exit status when nothing is worse but something could not be judged; 0 to 6 are pytest's own."""
HERE = "measured here and now"
AS_THEY_ARE = {"reference": 1, "step": 1}  # how often calls are repeated that are as long, or were kept so
PATIENCE = 10  # a step that became slower may take so many times as long to measure as one is given
BASELINE_TEAMS, BASELINE_SAMPLES = 2, 2  # a baseline is measured by so many teams of processes, and so often by each
LARGEST_BASELINE_ERROR = math.sqrt(gating.LARGEST_ERROR**2 - gating.WANTED_ERROR**2 - gating.PROCESS_ERROR**2)
"""Beyond this nothing could ever be said beside it, however well today's times are known."""
_MODE = pytest.StashKey["Judging | Serving"]()
_KNOWN = pytest.StashKey[set[str]]()


class Gate:
    """What the ``gate`` fixture gives: two ways to say what is gated."""

    def __init__(self, mode: "Judging | Serving", item: pytest.Item) -> None:
        self._mode, self._item = mode, item

    def time(
        self,
        step: Callable[[], object],
        *,
        beside: Callable[[], object],
        clock: Clock = "processor",
        margin: float = gating.MARGIN - 1,
        name: str = "",
    ) -> None:
        """Gate the time of a call of ``step``, as a ratio to one of ``beside``.

        ``beside`` is a frozen reference: code that does the same kind of work in about the same time and is never
        edited; calls of one millisecond to a tenth of a second are best. ``clock`` is "processor", which neighbours on
        a shared machine disturb least but which does not see waiting (sleep, disk, network, child processes), or
        "wall", which does. A slowdown by a share up to ``margin`` passes: give more for a step that leans on cache and
        interpreter otherwise than its reference, for neighbours move such a ratio. ``name`` stands in the table and the
        baseline instead of the test's.
        """
        if clock not in ("processor", "wall"):
            raise ValueError(f"clock is {clock!r}; 'processor' or 'wall' is expected")
        for role, work in (("step", step), ("beside", beside)):
            if not callable(work):
                raise TypeError(f"{role} is {work!r:.60}; a function without arguments is expected")
        if not 0 <= margin < gating.PLANTED:
            raise ValueError(
                f"margin is {margin}; a share below the planted slowdown's {gating.PLANTED:g} is expected, as 0.025 is"
            )
        if step == beside:  # methods that are equal are not the same
            raise ValueError("beside is the step itself, and never faster than that; a frozen copy of it is expected")
        if isinstance(self._mode, Serving):
            self._mode.time(self._item.nodeid, name, step, beside, clock)
        else:
            self._mode.judge(self._item, "timing", partial(self._mode.time, margin=1 + margin), name)

    def outcomes(
        self,
        train: Callable[..., Any],
        seeds: Iterable[int],
        *,
        accuracy_margin: float = gating.ACCURACY_MARGIN,
        loss_margin: float = gating.LOSS_MARGIN,
        diverged_margin: int = 1,
        sees: float = 0.05,
        exact: bool = False,
        fault: Callable[..., Any] | None = None,
        together: int = 1,
        seconds: float = 900,
        name: str = "",
    ) -> None:
        """Gate how training ends, paired by seed.

        Args:
            train: called with a seed; returns a dict with "accuracy" (a share, 0 to 1), "loss" (above 0), or both, and
                with "bits" if more than these shall be equal. Numbers that are not finite are those of a diverged run.
            seeds: at least 4 of them; 8 or more see more.
            accuracy_margin: loss of accuracy that passes.
            loss_margin: relative growth of the loss that passes.
            diverged_margin: so many more diverged runs pass; none where all others keep their bits.
            sees: a loss of accuracy, and twice that share of the loss, that must be seen; where seeds differ too much
                for that the test is UNMEASURABLE.
            exact: whether training is deterministic, so that other bits on the same machine are a change.
            fault: trains with a mistake that must not pass, on every run; it takes as long as ``train``.
            together: so many seeds are given to ``train`` at once, as a list; it returns a dict by seed.
            seconds: longest wait for a training.
            name: stands in the table and the baseline instead of the test's.
        """
        chosen = _whole_numbers(seeds)
        if together < 1 or not 0 < seconds < math.inf:
            raise ValueError(f"together is {together} and seconds {seconds}; at least 1, and more than 0, are expected")
        rules = Rules(accuracy=accuracy_margin, loss=loss_margin, diverged=diverged_margin, sees=sees, exact=exact)
        if isinstance(self._mode, Serving):
            self._mode.outcomes(self._item.nodeid, name, train, fault, together=together > 1)
        else:
            chunks = [chosen[start : start + together] for start in range(0, len(chosen), together)]
            settings: dict[str, Any] = {"rules": rules, "fault": fault is not None, "seconds": seconds}
            self._mode.judge(self._item, "accuracy", partial(self._mode.outcomes, chunks=chunks, **settings), name)


def _whole_numbers(seeds: Iterable[int]) -> list[int]:
    """Seeds as a list; raises TypeError or ValueError for what are none."""
    try:
        chosen = [operator.index(seed) for seed in seeds]
    except TypeError as error:
        raise TypeError(f"seeds is {seeds!r:.60}; whole numbers, such as range(8), are expected") from error
    if len(set(chosen)) != len(chosen):
        raise ValueError(f"seeds are {chosen}; each may be given once")
    return chosen


@pytest.fixture
def gate(request: pytest.FixtureRequest) -> Gate:
    """Gate the time of a step beside a frozen reference, or the outcomes of training by seed: see hw4.plugin."""
    return Gate(request.config.stash[_MODE], request.node)


class Judging:
    """One pytest session that judges: its processes, its baselines and what it found."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.update: bool = config.option.gate_update
        self.against: str = config.option.gate_against or ""
        self.seconds: float = config.option.gate_seconds
        self.judged: dict[str, Finding] = {}
        self.unmeasurable = 0
        option = config.option
        chosen = (option.keyword, option.markexpr, getattr(option, "lf", ""), *("::" in each for each in config.args))
        self._only_looks = any(getattr(option, name, False) for name in ("collectonly", "setuponly", "setupplan"))
        spread = getattr(option, "dist", "no") != "no" and getattr(option, "tx", None)  # --dist alone spreads nothing
        self._whole = not any(chosen) and not spread
        self._items, self._baselines, self._looked = dict[str, pytest.Item](), list[Path](), set[Path]()
        self._reported, self._broken, self._answered = set[str](), set[str](), set[str]()
        self._before = dict[str, str]()
        self._nothing, self._failed = False, 0
        self._written, self._unwritten, self._left_out = False, "", list[str]()
        self._spread = hasattr(config, "workerinput")  # a worker of pytest-xdist
        self._tests, self._ran = dict[str, Path](), set[str]()
        self._calls, self._said = dict[str, int](), dict[str, list[Finding]]()
        self._claimed: dict[tuple[Path, str], tuple[str, int]] = {}
        self._stack, self._trees, self._teams = ExitStack(), list[Tree](), list[Team]()
        self._left: list[str] = []
        self._commits = dict[str, list[Tree]]()  # of baselines, written out to measure beside today's
        self._scratch: Path | None = None

    # --- the session

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Let no limit to every test's time end a gate, which has limits of its own; a test's own mark stays."""
        if has_plugin(self.config, "timeout"):
            for item in filter(is_gated, items):
                if item.get_closest_marker("timeout") is None:
                    item.add_marker(pytest.mark.timeout(0))

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Find the gated tests; raises UsageError when what will be written at the end cannot be."""
        self._items = {item.nodeid: item for item in session.items}
        self._tests = {item.nodeid: item.path for item in filter(is_gated, session.items)}
        if not self._tests or self._only_looks or self._spread:
            return
        if self.against:
            try:
                measurers.repository(next(iter(self._tests.values())).parent, self.against)
            except UnmeasurableError as error:
                raise pytest.UsageError(str(error)) from error
        folders = {path.parent for path in self._tests.values()} if self.update else set()
        if target := self._document:
            if target.is_dir():
                raise pytest.UsageError(f"--gate-json is {target}, a folder; the name of a file is expected")
            folders |= {target.parent} if target.is_file() or not target.exists() else set()
        for folder in sorted(folders):
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=folder):
                    pass
            except OSError as error:
                raise pytest.UsageError(
                    f"{folder} cannot be written to ({error.strerror}), so nothing was measured; make it writable, or "
                    f"leave out --gate-update or --gate-json"
                ) from error

    def pytest_collect_file(self, file_path: Path) -> None:
        """Remember baselines in folders that are looked through: all of their tests may be gone."""
        files = (self.config.invocation_params.dir / each for each in self.config.args)
        if file_path.name == BASELINE and not any(map(Path.is_file, files)):
            self._baselines.append(file_path)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Remember files that were looked into, also those that are skipped as a whole: their gates are not judged."""
        self._failed += report.failed
        if not report.failed:
            self._looked.add(self.config.rootpath / report.nodeid)

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Forget what an earlier run of this test has called, and end its processes."""
        if self._calls.pop(item.nodeid, None):
            self._end_teams()
        self._said.pop(item.nodeid, None)

    def pytest_deselected(self) -> None:
        """Remember that not everything was asked for."""
        self._whole = False

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Give what was judged along with the test's report, also from a worker of pytest-xdist."""
        report = yield
        vars(report)["gated"] = item.nodeid in self._tests
        early = report.when == "setup" and report.passed  # of gates in fixtures is told when the test has run
        if item.nodeid in self._said and not early:
            said = self._said.pop(item.nodeid)
            vars(report)["gate"] = [asdict(each) for each in said]
            new = [each for each in said if each.verdict == "NEW"]
            if new and report.passed and not self.update:  # all of its gates were asked; not all had an answer
                report.outcome, line = "skipped", item.location[1] or 0
                report.longrepr = (str(item.path), line, f"NEW: {new[0].advice}")
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what was judged; of a test that is run again, the last time."""
        self._reported |= {report.nodeid} if report.when == "teardown" else set()
        self._failed += report.failed and not hasattr(report, "wasxfail")
        self._ran |= {report.nodeid} if report.when == "call" and report.passed else set()
        self.unmeasurable += report.failed and self._unjudged(report)
        self._answered |= {report.nodeid} if getattr(report, "gate", ()) else set()
        for each in getattr(report, "gate", ()):
            self.judged[f"{each['path']}::{each['key']}"] = Finding(**each)
        if report.failed and getattr(report, "gated", False):
            self._add_failed(report)

    def _unjudged(self, report: pytest.CollectReport | pytest.TestReport) -> bool:
        """Whether a test has a gate that could not be judged, and none that is worse; that passes when renewing."""
        verdicts = {each["verdict"] for each in getattr(report, "gate", ())}
        return "UNMEASURABLE" in verdicts and (self.update or not verdicts & set(FAILING))

    def _add_failed(self, report: pytest.TestReport) -> None:
        """A gated test that failed otherwise than by its gates may not have come to them all."""
        self._broken.add(report.nodeid)
        if not any(each["verdict"] in (*FAILING, "UNMEASURABLE") for each in getattr(report, "gate", ())):
            file = self._tests.get(report.nodeid, self.config.rootpath / report.nodeid.partition("::")[0])
            path, test = file.parent / BASELINE, _short(report.nodeid)
            with suppress(UnmeasurableError):
                times = [entry for entry in read_baseline(path).values() if entry["test"] == test and "times" in entry]
                why = f"the test failed ({measurers.last_line(report.longreprtext)}), so that not all of its gates "
                why += "may have been judged: mend that first"
                finding = gating.refusal("timing" if times else "accuracy", test.partition("::")[2], why)
                self.judged[f"{path}::{test} failed"] = replace(finding, path=str(path), key=test)

    def pytest_report_teststatus(self, report: pytest.CollectReport | pytest.TestReport) -> tuple[str, str, str] | None:
        """What could not be judged, and what is new, are neither passed nor failed nor skipped."""
        verdicts = [each["verdict"] for each in getattr(report, "gate", ())]
        if report.failed and self._unjudged(report):
            return "unmeasurable", "U", "UNMEASURABLE"
        return ("new", "N", "NEW") if report.skipped and "NEW" in verdicts else None

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Give what could not be judged an exit status of its own, and write what is to be written."""
        self._end_teams()
        misused = exitstatus == pytest.ExitCode.USAGE_ERROR  # which is said, and nothing was run
        # After -x, say: of what else would fail nothing is known.
        unrun = set() if misused else set(self._items) - self._reported
        partial = session.shouldstop or session.shouldfail or unrun or exitstatus not in (0, 1)
        try:
            if not (partial or self._only_looks or self.update):
                self._add_missing()
        finally:
            self._stack.close()
        for test in () if self._only_looks else set(self._tests) & unrun:
            finding = gating.refusal("timing", test.partition("::")[2], "was not run, for pytest ended before it")
            self.judged[f"{test} unrun"] = replace(finding, path=str(self._tests[test].parent / BASELINE), key=test)
        asked = (self.against or self.update) and not misused
        self._nothing = bool(asked and not (self.judged or self._spread or self._only_looks))
        if self._nothing and exitstatus == 0:
            session.exitstatus = exitstatus = EXIT_UNMEASURABLE
        if self._spread or misused or not (self.judged or self._document) or self._only_looks:
            return
        failed = bool(session.testsfailed - self.unmeasurable or unrun)
        verdict = gating.overall([*self.judged.values()])
        unjudged = verdict == "UNMEASURABLE" and self.judged and not self.update
        if unjudged and (exitstatus == 0 or (exitstatus == 1 and not failed)):
            session.exitstatus = EXIT_UNMEASURABLE
        elif exitstatus == 0 and verdict in FAILING and not self.update:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if self.update and exitstatus in (0, 1):
            session.exitstatus = EXIT_UNMEASURABLE if self.unmeasurable and not failed else exitstatus
        try:
            self._write_all(session)
        except OSError as error:  # a full disk; what was found is printed all the same
            session.exitstatus, self._unwritten = pytest.ExitCode.INTERNAL_ERROR, str(error)

    def _write_all(self, session: pytest.Session) -> None:
        if self.update and not self._failed and session.exitstatus in (0, 1):  # another plugin's limits may have failed
            self._write_baselines()
        if document := self._document:
            facts: dict[str, Any] = {"against": self.against or None, "compared": self._compared()}
            facts |= {"update": self.update, "exit_code": int(session.exitstatus)}
            contents = gating.as_json([*self.judged.values()], facts)
            document.parent.mkdir(parents=True, exist_ok=True)
            if document.exists() and not document.is_file():  # a pipe, a terminal
                document.write_bytes(contents)
            else:
                write_atomically(document.resolve(), contents)
        if self.unmeasurable and getattr(self.config.option, "xmlpath", None):
            junit = Path(os.path.expandvars(self.config.option.xmlpath)).expanduser()
            with suppress(ET.ParseError):  # of a pipe's end, say
                _mark_errors(self.config.invocation_params.dir / junit, update=self.update)

    @property
    def _document(self) -> Path | None:
        """The file for JSON; tests may have changed the current folder meanwhile."""
        name = self.config.option.gate_json
        return self.config.invocation_params.dir / name if name else None

    def pytest_terminal_summary(self, terminalreporter: "pytest.TerminalReporter") -> None:
        """Print every finding, and the verdict with what it was compared with."""
        if not (self.judged or self._nothing or self._unwritten):
            return
        terminalreporter.section("gate")
        if self._unwritten:
            terminalreporter.write_line(f"It could not be written: {self._unwritten}.")
        if self._nothing:
            compared = f"compared with {self.against}" if self.against else "measured"
            terminalreporter.write_line(f"Verdict: UNMEASURABLE: no test came to its gate, so nothing was {compared}.")
            return
        findings = [*self.judged.values()]
        if not findings:
            return
        terminalreporter.write_line(gating.table(findings))
        if not self.update:
            terminalreporter.write_line(f"Verdict: {gating.overall(findings)}, compared with {self._compared()}.")
        elif self._written:
            paths = sorted({each.path for each in findings})
            terminalreporter.write_line(f"Baseline: {', '.join(paths)}; commit it with the change that it belongs to.")
            folders = {Path(each.path).parent for each in findings if each.part == "timing"}
            if any(_commit(each) is None for each in folders):
                terminalreporter.write_line(
                    "It names no commit, for not all is committed; renewed when it is, what looks slower later can be "
                    "measured beside that commit, which tells a change of the code from one of the machine."
                )
            if self._left_out:
                terminalreporter.write_line(f"Left out, for no test comes to it any more: {', '.join(self._left_out)}.")
        elif not self._unwritten:
            why = "something could not be measured" if self.unmeasurable else "a test failed, or not all were run"
            terminalreporter.write_line(f"No baseline was written, for {why}.")

    def _gone(self, path: Path, *, skipped: bool) -> list[str]:
        """Gates of a baseline that are no longer there: whose test is gone, or was run and did not come to them.

        Those of a file without any test, which may have been ``skipped`` as a whole, count or do not. Where only some
        tests were asked for, those are looked at.
        """
        if not (self._whole or skipped):
            return []
        asked = path in (*(file.parent / BASELINE for file in self._tests.values()), *self._baselines)
        here = {_short(test): test for test, file in self._here().items() if file.parent == path.parent}
        files = {test.partition("::")[0] for test in here}
        gone = []
        for key, entry in read_baseline(path).items():
            file, test = entry["test"].partition("::")[0], here.get(entry["test"])
            missing = asked and not (path.parent / file).exists()
            empty = file in files or (skipped and path.parent / file in self._looked)
            lost = (skipped and test not in self._broken) or test in self._ran if test else missing or empty
            lost = lost and (self._whole or test is not None)
            gone += [key] * (lost and f"{path}::{key}" not in self.judged)
        return gone

    def _here(self) -> dict[str, Path]:
        """The tests that were asked for, with their files; those of pytest-xdist's workers are known by reports."""
        reported = {test: self.config.rootpath / test.partition("::")[0] for test in self._reported}
        return reported | {test: item.path for test, item in self._items.items()}

    def _add_missing(self) -> None:
        """A gated test that is no longer there, or is skipped, was not passed."""
        if self.against:
            where = {True: "is skipped or not gated here", False: "is not here any more"}
            now = {test: measurers.source_digest(self._items[test]) for test in self._before.keys() & self._items}
            gone = {test for test, then in self._before.items() if now.get(test) != then}  # else it is skipped at both
            gone = gone | {*self._kept_then()} if self._whole else gone & self._items.keys()
            for test in sorted(gone - self._answered - self._broken):
                sentence = f"is gated at {self.against}, and {where[test in self._items]}"
                finding = gating.refusal("timing", test.partition("::")[2] or test, sentence)
                self.judged[f"{test} gone"] = replace(finding, path=test.partition("::")[0], key=test)
            return
        files = [*self._here().values(), *self._looked]
        for path in dict.fromkeys([*(file.parent / BASELINE for file in files), *self._baselines]):
            with suppress(UnmeasurableError):  # a file that is no baseline: said at every test
                for key in self._gone(path, skipped=True):
                    part: Part = "timing" if "times" in read_baseline(path)[key] else "accuracy"
                    sentence = f"is in {path.name}, and was not run; if it is gone for good, renew or delete that"
                    finding = gating.refusal(part, key.partition("::")[2], sentence)
                    self.judged[f"{path}::{key}"] = replace(finding, path=str(path), key=key)

    def _kept_then(self) -> Iterator[str]:
        """Tests of the revision's baselines, and files with gates, that are gone from the folders asked for."""
        if not (self._trees and self._trees[0].name):
            return
        then, named = self._trees[0], set[Path]()
        asked = [(self.config.invocation_params.dir / each).resolve() for each in self.config.args]
        for path in sorted(then.base.rglob(BASELINE)):
            folder = then.root / path.parent.relative_to(then.base)
            if any(folder.is_relative_to(each) for each in asked):
                with suppress(UnmeasurableError):
                    for entry in read_baseline(path).values():
                        file = folder / entry["test"].partition("::")[0]
                        if not file.exists():
                            named.add(file)
                            yield os.path.relpath(folder / entry["test"], self.config.rootpath)
        new = {each.key.rpartition("::")[2].partition("[")[0] for each in self.judged.values() if each.verdict == "NEW"}
        left_out = [(self.config.invocation_params.dir / each).resolve() for each in self.config.option.ignore or ()]
        for path in sorted(then.base.rglob("*.py")):
            file = then.root / path.relative_to(then.base)
            wanted = any(file.is_relative_to(each) for each in asked) and not any(map(file.is_relative_to, left_out))
            named_so = any(fnmatch_ex(name, path) for name in self.config.getini("python_files"))
            if wanted and named_so and file not in named and not file.exists() and _gated_names(path) - new:
                yield os.path.relpath(file, self.config.rootpath)

    def _compared(self) -> str:
        told = {part: [each.compared for each in self.judged.values() if each.part == part] for part in PARTS}
        words = {part: "; ".join(dict.fromkeys(filter(None, found))) for part, found in told.items()}
        said = dict.fromkeys(filter(None, words.values()))
        if len(said) < 2:
            return "".join(said) or "nothing"
        return ", ".join(f"{PARTS[part]} with {found}" for part, found in words.items())

    def _write_baselines(self) -> None:
        for path in {each.path for each in self.judged.values()}:
            gone = self._gone(Path(path), skipped=False)
            self._left_out += gone
            tests = {key: entry for key, entry in read_baseline(Path(path)).items() if key not in gone}
            for each in self.judged.values():
                if each.path == path and each.keeps:
                    tests.setdefault(each.key, {}).update(each.keeps)
            document = {"schema_version": SCHEMA_VERSION, "tests": tests}
            write_atomically(Path(path).resolve(), (json.dumps(document, indent=1, sort_keys=True) + "\n").encode())
        self._written = True

    # --- one call of the gate

    def judge(self, item: pytest.Item, part: Part, judge: Callable[["Call"], Finding], name: str) -> None:
        """Judge one call of the gate; fails the test where it finds something worse, or cannot say."""
        count = self._calls[item.nodeid] = self._calls.get(item.nodeid, 0) + 1
        place = os.path.relpath(item.path, self.config.invocation_params.dir)
        renew = f"pytest {shlex.quote('::'.join([place, *item.nodeid.split('::')[1:]]))} --gate-update"
        command = "" if self.against else self.config.option.gate_take or renew
        call = Call(item.nodeid, count, name, item.path.parent / BASELINE, f"{item.path.name}::", command)
        try:
            self._claim(call)
            self._tests.setdefault(item.nodeid, item.path)  # of a fixture that was asked for while the test ran
            finding = judge(call)
        except BrokenError as error:
            self._end_teams()
            pytest.fail(str(error), pytrace=False)
        except (UnmeasurableError, OSError) as error:  # or a full disk, too many open files
            finding = gating.refusal(part, call.name, str(error))
            self._end_teams()  # whatever they are about; the next test starts others
        except BaseException:
            self._end_teams()
            raise
        self._said.setdefault(item.nodeid, []).append(replace(finding, key=call.key, path=str(call.path)))
        item.user_properties.append(("gate", finding.verdict))
        if finding.verdict == "UNMEASURABLE" or (finding.verdict in FAILING and not self.update):
            change = f"before {finding.before}, now {finding.now}, change {finding.change}: "
            pytest.fail(f"{finding.verdict}: {change * (finding.before != '-')}{finding.advice}", pytrace=False)

    def _claim(self, call: "Call") -> None:
        """Take a name; raises UnmeasurableError where another gate has it."""
        mine = (call.test, call.count)
        if self._claimed.setdefault((call.path, call.key), mine) != mine:
            raise UnmeasurableError(f"two gates have the name {call.name!r}; give each its own")

    def _new(self, part: Part, call: "Call") -> Finding:
        advice = f"no baseline yet; to make one, run `{call.command}`"
        if self.against:
            advice = f"{self.against} has no such test, so there is nothing to compare"
            lacking = [call.test in member.missing for member in self._teams[0].members]
            if not all(lacking):  # it went through the test, and is past its other gates
                self._end_teams()
        return Finding(part=part, what=call.name, verdict="NEW", advice=advice)

    def _team(self, call: "Call", number: int) -> Team:
        """Processes of a tree, started when they are first needed: of a revision, if there is one, then of today's."""
        if self._scratch is None:
            self._scratch = self._stack.enter_context(measurers.swept_folder())
            root = self.config.rootpath.resolve()
            if self.against:
                self._trees = measurers.revision(call.path.parent, self.against, self._scratch / "then")
            else:
                self._trees = [Tree(root, root)] * (BASELINE_TEAMS if self.update else 1)
        if not self._trees:
            raise UnmeasurableError(f"{self.against!r} could not be read")  # as was said at an earlier test
        if self.against:
            self._require_inside(self._trees[0], call)
        if call.test not in self._left:
            self._end_teams()  # they are past this test, or do not know it
        while self._left and self._left[0] != call.test:
            self._left.pop(0)
        if not self._teams:
            tests = list(self._tests)
            self._left = tests[tests.index(call.test) :]
            for tree in self._trees:  # one by one: those that start are ended where another cannot
                self._teams.append(self._start(tree, self._left))
        return self._teams[number]

    def _require_inside(self, then: Tree, call: "Call") -> None:
        """Raises UnmeasurableError where what is measured is not of the repository that a revision was read from."""
        for what, path in ("the test", call.path), ("pytest's rootdir", self.config.rootpath):
            if not path.resolve().is_relative_to(then.root):
                raise UnmeasurableError(
                    f"{what} lies outside of {then.root}, of which {then.name!r} was read; run pytest in "
                    f"one repository at a time, with --rootdir if its settings lie above"
                )
        for plugin in self.config.pluginmanager.get_plugins():
            file = Path(getattr(plugin, "__file__", None) or "")
            if file.name == "conftest.py" and then.root.is_relative_to(file.parent) and file.parent != then.root:
                raise UnmeasurableError(
                    f"{file} acts on the tests here, and would not on those of {then.name!r}; let it lie inside of "
                    f"{then.root}, or pass --confcutdir"
                )

    def _start(self, tree: Tree, tests: Sequence[str]) -> Team:
        assert self._scratch is not None  # it is made with the trees
        chosen = {test: self._tests[test] for test in tests}
        return Team(tree, self.config, chosen, self._scratch, 1 if self._spread else measurers.PROCESSES)

    def _end_teams(self) -> None:
        self._left = []
        while self._teams:
            team = self._teams.pop()
            for member in team.members if team.tree.name else ():
                self._before |= member.gated
            team.close()

    # --- times

    def time(self, call: "Call", margin: float) -> Finding:
        """Measure a step and judge it."""
        if self._spread:
            raise UnmeasurableError("pytest-xdist is active, and its workers disturb one another; leave out -n")
        call = replace(call, margin=margin)
        if self.update:
            return self._new_time(call)
        stored = {} if self.against else read_baseline(call.path).get(call.key, {}).get("times", {})
        if not stored and not self.against:
            return self._new("timing", call)
        row = call.row(stored) if stored else {}
        teams = [self._team(call, number) for number in range(1 + bool(self.against))]
        then = teams[0].reach(call.test, call.given) if self.against else row
        now = _reach(teams[-1], call)
        call.longer.update(row.get("longer", AS_THEY_ARE) if row else {})
        if then is None:
            teams[-1].leave()
            return self._new("timing", call)
        call.require_same(then, now)
        samples = self._visits(teams, call, row)
        for team in teams:
            team.leave()
        if samples[-1].now.minus(_measured_before(samples, row)).slower(call.margin):
            return self._look_again(teams, samples, call, row)
        return self._found(samples, call, row)

    def _found(
        self, samples: Sequence[Sample], call: "Call", row: Mapping[str, Any], *, seen: str = "", compared: str = ""
    ) -> Finding:
        """What samples of the code before, unless a baseline's ``row`` is given, and of today's say."""
        if self.against and samples[0].self_check:
            raise UnmeasurableError(f"{samples[0].self_check}, at {self.against}; run again")
        before = _measured_before(samples, row)
        found = gating.judge_times(call.name, before, samples[-1], take=call.take, margin=call.margin, seen=seen)
        return replace(found, compared=compared or (call.source(row) if row else f"{self.against}, {HERE}"))

    def _look_again(
        self, teams: Sequence[Team], samples: Sequence[Sample], call: "Call", row: Mapping[str, Any]
    ) -> Finding:
        """Judge what looked slower by a second look in other processes: other memory, another moment.

        On another machine of the class, and at another hour, a step that leans on memory may take some hundredths more
        of its reference's time than in the baseline. So the baseline's commit is measured beside today's code where
        that can be done, and only what is slower than that counts.
        """
        beside = self._beside_commit(call, row) if row else ""
        if not isinstance(beside, str):
            for sample, where in zip(beside, (" at the baseline's commit", ""), strict=True):
                sample.require_sound(where)
            compared = f"{call.source(row)}, and that commit {HERE}"
            found = self._found(beside, call, {}, seen="also beside the baseline's commit", compared=compared)
            looked = samples[-1].now.minus(_measured_before(samples, row))
            return _excused(found, looked) if found.verdict == "PASS" else found
        again = self._confirm([team.tree for team in teams], call, row)
        slower = again[-1].now.minus(_measured_before(again, row)).slower(call.margin)
        for sample, more in zip(samples, again, strict=True):
            sample.add(more, confirmed=slower)
        found = self._found(samples, call, row, seen="also in new processes")
        unseen = f"; whether it is the machine cannot be told, for {beside}" if beside else ""
        return replace(found, advice=f"{found.advice}{unseen}") if found.verdict == "REGRESSION" else found

    def _visits(self, teams: Sequence[Team], call: "Call", row: Mapping[str, Any]) -> list[Sample]:
        """Visit teams in turn, in random order, until every sample is precise or the time is over.

        What is given is for the code before, by a baseline's ``row`` or the first team: slower code takes longer. How
        often calls are repeated to last alike is the baseline's, or what the first process finds, for all.
        """
        rng, least, needed = random.Random(), 0.0, 0.0  # an order that is always the same could favour one arm always
        before = math.exp(row["log"]) if row else math.inf
        for team in teams:
            calls = []
            for member in team.members:
                calls.append(member.ask({"prepare": call.longer or None}, measurers.ANSWER_SECONDS))
                call.longer.update(calls[-1].get("longer", AS_THEY_ARE))  # of an hw4 before there was that
            step, reference = min((each["step"], each["reference"]) for each in calls)
            ratio = min(each.get("ratio", each["step"] / max(each["reference"], 1e-12)) for each in calls)
            before = min(before, ratio)
            for_steps = gating.LEAST_VISITS * (3 * gating.ROUNDS + 1) * step
            others = gating.LEAST_VISITS * (gating.ROUNDS + 2) * reference
            needed += for_steps + others
            least += for_steps * min(1.0, before / max(ratio, 1e-12)) + others
        seconds = self.seconds * len(teams)
        if least > seconds or needed > PATIENCE * seconds:
            raise UnmeasurableError(
                f"the {gating.LEAST_VISITS} visits that are needed at least take {needed:.0f} s"
                f"{f' ({least:.0f} for the code before)' * (needed > 1.5 * least)}, and {seconds:.0f} are given; "
                f"make the step smaller, or give more with --gate-seconds"
            )
        pairs = [(team, Sample()) for team in teams]
        end = measurers.CLOCKS["wall"]() + max(seconds, 1.5 * needed)
        while not all(sample.precise(len(pairs)) for _, sample in pairs) and measurers.CLOCKS["wall"]() < end:
            for team, sample in rng.sample(pairs, len(pairs)):
                sample.visit(team.visit, rng)
        for _, sample in pairs:
            if not sample.self_check and sample.now.ratio * gating.LARGEST_RATIO < 1:
                raise UnmeasurableError(f"the step takes {sample.now.ratio:.2g} of the reference's time: does it work?")
        return [sample for _, sample in pairs]

    def _confirm(self, trees: Sequence[Tree], call: "Call", row: Mapping[str, Any]) -> list[Sample]:
        """Measure once more, in new processes."""
        with ExitStack() as stack:
            new = [stack.enter_context(closing(self._start(tree, [call.test]))) for tree in trees]
            reached = [_reach(team, call) for team in new]
            for then in reached[:-1]:
                call.require_same(then, reached[-1])
            return self._visits(new, call, row)

    def _beside_commit(self, call: "Call", row: Mapping[str, Any]) -> list[Sample] | str:
        """Measure the commit that a baseline is of, and today's code beside it; or why it cannot be done, in words."""
        if not (commit := row.get("commit")):
            return "the baseline names no commit: renew it when all is committed"
        assert self._scratch is not None  # it is made with the trees
        try:
            if commit not in self._commits:
                place = Path(tempfile.mkdtemp(dir=self._scratch))
                self._commits[commit] = measurers.revision(call.path.parent, commit, place)
            self._require_inside(self._commits[commit][0], call)
            return self._confirm(self._commits[commit], replace(call, longer={**call.longer}), {})
        except BrokenError:
            raise
        except (UnmeasurableError, OSError) as error:
            return str(error)

    def _new_time(self, call: "Call") -> Finding:
        """Measure a step for the baseline: several times, by two teams of processes."""
        samples, facts, where, dropped = list[Sample](), dict[str, Any](), machine_facts(), list[str]()
        times = dict(read_baseline(call.path).get(call.key, {}).get("times", {}))
        for number in range(BASELINE_TEAMS):
            team = self._team(call, number)
            facts = _reach(team, call)
            for _ in range(BASELINE_SAMPLES):
                samples += self._visits([team], call, {})
                if samples[-1].self_check:
                    raise UnmeasurableError(f"{samples[-1].self_check}; run again when less runs beside it")
            team.leave()
        now = gating.combined([sample.now for sample in samples])
        if now.error > LARGEST_BASELINE_ERROR:
            raise UnmeasurableError(
                f"measured {len(samples)} times, it took {', '.join(f'{each.now.ratio:.3f}' for each in samples)} of "
                f"the reference's time; let calls of the step all do the same, and run again when less runs beside it"
            )
        if now.ratio > gating.LARGEST_RATIO:
            raise UnmeasurableError(f"the step takes {now.ratio:.0f} times as long as its reference: give one like it")
        old = times.get(where["cpu"])
        change = None
        if old and (old["ruler"], old["clock"]) == (facts["ruler"], facts["clock"]):
            change = now.minus(Estimate(old["log"], old["error"], old["freedom"]))
        kept = {"log": now.log, "error": now.error, "freedom": now.freedom, "commit": _commit(call.path.parent)}
        kept |= {name: facts[name] for name in ("ruler", "clock")} | {"longer": call.longer}
        kept |= {name: where[name] for name in ("python", "libraries")}
        if old and (change is None or change.slower(call.margin) or change.faster(call.margin)):
            # Then those of other processors are wrong, too.
            dropped = [f"'{name}'" for name in times if name != where["cpu"]]
            times.clear()
        times[where["cpu"]] = kept
        return Finding(
            part="timing",
            what=call.name,
            before=f"{math.exp(old['log']):.3f}" if old else "-",
            now=f"{now.ratio:.3f}",
            change=f"x {change}" if change else "-",
            verdict="NEW" if change is None else "REGRESSION" if change.slower(call.margin) else "PASS",
            advice=f"times of {', '.join(dropped)} go, for they are of the code before" if dropped else "",
            keeps=call.keep(times=times),
        )

    # --- outcomes

    def outcomes(self, call: "Call", chunks: list[list[int]], rules: Rules, *, fault: bool, seconds: float) -> Finding:
        """Train with every seed and judge how that ends."""
        seeds = [str(seed) for chunk in chunks for seed in chunk]
        entries = {} if self.against else read_baseline(call.path)
        known = entries.get(call.key, {}).get("outcomes", {})
        before = {seed: Outcome(**run) for seed, run in known.get("runs", {}).items()}
        expected = seeds if self.update else [*before] or seeds
        if problem := gating.unlike(expected, seeds):
            raise UnmeasurableError(f"{problem}; {call.way_out}" if {*expected} != {*seeds} else problem)
        if not (before or self.against or self.update):
            return self._new("accuracy", call)
        same_machine = False
        if self.against:
            if (then := self._team(call, 0).reach(call.test, call.given)) is None:
                _reach(self._team(call, -1), call)  # what neither side comes to is not new
                return self._new("accuracy", call)
            call.require_same(then, {})
            before = self._team(call, 0).train(chunks, fault=False, seconds=seconds)
            self._team(call, 0).leave()
        team = self._team(call, -1)
        _reach(team, call)
        where = machine_facts()
        now = team.train(chunks, fault=False, seconds=seconds)
        if not (self.against or team.on_a_gpu):  # of which nothing tells whether it is the same
            libraries = known.get("libraries", {}).items() <= where["libraries"].items()
            same_machine = self.update or (libraries and all(known[name] == where[name] for name in ("cpu", "python")))
        train = partial(team.train, seconds=seconds)
        if rules.exact:
            _check_repeats(now, train(chunks[:1], fault=False))
        several = sum(entry["test"] == _short(call.test) for entry in entries.values())
        tests, take = len(self._tests) * max(1, several, call.count), call.take  # as many as there may be
        if fault:
            _check_fault(now, train(chunks, fault=True), rules, same_machine=same_machine, tests=tests)
        team.leave()
        runs = {seed: asdict(run) for seed, run in now.items()}
        keeps = call.keep(outcomes={**where, "commit": _commit(call.path.parent), "runs": runs}) if self.update else {}
        compared = f"{self.against}, trained here and now" if self.against else call.source(known)
        finding = gating.judge_outcomes(
            call.name, before, now, rules=rules, same_machine=same_machine, tests=tests, take=take
        )
        if self.update and finding.verdict == "UNMEASURABLE":  # what was kept does not compare with what will be
            finding = Finding(part="accuracy", what=call.name, now=gating.words(now), verdict="NEW")
        return replace(finding, keeps=keeps, compared=compared)


@dataclass(frozen=True)
class Call:
    """One call of the gate: the test's id, its number there, its name, its baseline's file and the way to renew it."""

    test: str
    count: int
    given: str
    path: Path
    prefix: str
    command: str
    longer: dict[str, int] = field(default_factory=dict, compare=False)
    margin: float = gating.MARGIN

    @property
    def name(self) -> str:
        """Its name in the table."""
        return self.given or self.test.partition("::")[2]

    @property
    def key(self) -> str:
        """Its name in the baseline: the test's file, and its own."""
        return self.prefix + self.name

    @property
    def take(self) -> str:
        """How a change is accepted, in words; beside a revision there is nothing to renew."""
        return f"take it with `{self.command}`" if self.command else "merge it"

    def keep(self, **keeps: object) -> dict[str, Any]:
        """What a renewed baseline keeps of this call."""
        return {"test": _short(self.test), **keeps}

    def source(self, stored: Mapping[str, Any]) -> str:
        """The baseline that is compared with, in words."""
        commit = stored.get("commit")
        return f"the baseline {self.path.name}" + (f" of commit {commit[:10]}" if commit else "")

    @property
    def way_out(self) -> str:
        """What to do where the baseline does not compare."""
        return f"{self.take}, or compare with another commit by --gate-against REV"

    def require_same(self, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        """Raises UnmeasurableError where a gate was of another kind, or its ratio to another reference or clock's."""
        if ("ruler" in then) != ("ruler" in now):
            raise UnmeasurableError("a gate of this name was of another kind (times or outcomes): give it another name")
        for name, what in (("ruler", "the frozen reference"), ("clock", "the clock")):
            if now.get(name) != then.get(name):
                raise UnmeasurableError(
                    f"{what} is another now ({now[name]}) than then ({then[name]}), so that ratios do not compare; if "
                    f"it was meant to change, {self.take}"
                )

    def row(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """What was measured on such a processor with such libraries; raises UnmeasurableError where nothing was."""
        here = machine_facts()
        if here["cpu"] not in stored:
            known = ", ".join(f"'{name}'" for name in stored)
            raise UnmeasurableError(
                f"the baseline has no times of this processor, '{here['cpu']}', only of {known}; {self.way_out}"
            )
        row: dict[str, Any] = stored[here["cpu"]]
        then, now = ({"python": each["python"], **each["libraries"]} for each in (row, here))
        for name in then:
            if now.get(name) != then[name]:
                raise UnmeasurableError(
                    f"the baseline was made with {name} {then[name]}, this is {now.get(name, 'without')}, and their "
                    f"ratios do not compare; {self.way_out}"
                )
        return row


def _reach(team: Team, call: Call) -> dict[str, Any]:
    """Bring processes to a gate that this one has come to; raises UnmeasurableError where they do not come to it."""
    reached = team.reach(call.test, call.given)
    if reached is None:
        raise UnmeasurableError("the test does not come to this gate in the processes that measure")
    return reached


def _measured_before(samples: Sequence[Sample], row: Mapping[str, Any]) -> Estimate:
    """What a step took before: by a baseline's row, or as measured first."""
    return Estimate(row["log"], row["error"], row["freedom"]) if row else samples[0].now


def _excused(found: Finding, looked: Estimate) -> Finding:
    """What looked slower by a baseline and not beside its commit: by the machine or the hour, unless by too much."""
    drift = looked.ratio / found.numbers["change"] - 1
    if drift > gating.LARGEST_DRIFT:
        sentence = (
            f"x {looked} by the baseline's times, and its commit takes as long here: something that git does not keep "
            f"(a library, a build, a variable, data) makes both slower, or the machine is unlike; renew the baseline"
        )
        return replace(gating.refusal("timing", found.what, sentence), compared=found.compared)
    sentence = f"x {looked} by the baseline's times, but its commit takes as long here: it is the machine or the hour"
    return replace(found, advice="; ".join(filter(None, (sentence, found.advice))))


def _short(test: str) -> str:
    """A test's id from its file's name on."""
    file, _, name = test.partition("::")
    return f"{file.rpartition('/')[2]}::{name}"


def _check_repeats(now: Runs, again: Runs) -> None:
    """Raises UnmeasurableError where the same code gave other bits the second time."""
    for seed in again:
        if again[seed].digest != now[seed].digest:
            raise UnmeasurableError(
                f"the same code gave other numbers the second time (seed {seed}); seed everything that "
                f"training draws from, or leave out exact=True"
            )


def _check_fault(now: Runs, faulty: Runs, rules: Rules, *, same_machine: bool, tests: int) -> None:
    """Raises UnmeasurableError where a planted mistake is not seen."""
    seen = gating.judge_outcomes("", now, faulty, rules=rules, same_machine=same_machine, tests=tests, take="").verdict
    if seen not in FAILING:
        raise UnmeasurableError(
            f"the planted fault was judged {seen}; the outcomes mean nothing until that is understood"
        )


def read_baseline(path: Path) -> dict[str, dict[str, Any]]:
    """The entries of a baseline by test; empty where there is no file; raises UnmeasurableError for another file."""
    if not path.exists():
        return {}
    try:
        document = json.loads(path.read_bytes(), object_pairs_hook=_once_each)
        known = document["schema_version"] == SCHEMA_VERSION and all(map(_is_entry, document["tests"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        known = False
    if not known:
        raise UnmeasurableError(
            f"{path} is not a baseline of this version; restore it, or delete it and make a new one with --gate-update"
        )
    tests: dict[str, dict[str, Any]] = document["tests"]
    return tests


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; raises ValueError where a name stands twice in it, as after a merge by hand."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice")
    return found


def _is_entry(entry: Mapping[str, Any]) -> bool:
    """Whether an entry of a baseline is whole and its numbers finite; raises KeyError or TypeError where it is not."""
    times, outcomes = entry.get("times", {}).values(), [entry["outcomes"]] if "outcomes" in entry else []
    whole = [isinstance(entry["test"], str) and "::" in entry["test"]]
    for row in times:
        whole += [math.isfinite(row["log"]), 0 < row["error"] < math.inf, row["freedom"] >= 1]
        whole += [row[name] is not None for name in ("ruler", "clock")]
        longer = row.get("longer", AS_THEY_ARE)
        whole += [longer.keys() == AS_THEY_ARE.keys(), all(isinstance(n, int) and n > 0 for n in longer.values())]
    for trained in outcomes:
        whole += [trained["cpu"] is not None, *(bool(Outcome(**run)) for run in trained["runs"].values())]
    for each in (*times, *outcomes):
        commit = each.get("commit")
        whole += [each["python"] is not None, isinstance(each["libraries"], dict)]
        whole += [commit is None or re.fullmatch("[0-9a-f]{40,64}", commit) is not None]
    return all(whole)


PARTS = {"timing": "times", "accuracy": "outcomes"}


def _commit(folder: Path) -> str | None:
    """Today's commit of the repository that a folder lies in, where all is committed."""
    others = f":(top,exclude,glob)**/{BASELINE}"  # one that was renewed changes nothing that is measured
    seen = ("--untracked-files=all", "--ignore-submodules=none")
    try:
        changed = git(folder, "status", "--porcelain", *seen, "--", others)
        return None if changed else git(folder, "rev-parse", "HEAD").decode().strip()
    except Hw4Error:
        return None


def _gated_names(file: Path) -> set[str]:
    """Names of the tests in a file that ask for the gate, as far as its text tells."""
    with suppress(OSError):
        found = re.findall(rb"^\s*(?:async )?def (test\w*)\s*\([^)]*\bgate\b", file.read_bytes(), flags=re.MULTILINE)
        return {name.decode() for name in found}
    return set()


def _mark_errors(path: Path, *, update: bool) -> None:
    """In JUnit XML what could not be judged is an error, not a failure."""
    if not path.is_file():  # of /dev/null nothing can be read again
        return
    document = ET.parse(path)
    for suite in document.iter("testsuite"):
        for case in suite.iter("testcase"):
            said = [each.get("value") for each in case.iter("property") if each.get("name") == "gate"]
            unjudged = "UNMEASURABLE" in said and (update or not set(said) & set(FAILING))
            for failure in case.findall("failure") if unjudged else ():
                failure.tag = "error"
        for tag in ("failure", "error"):
            suite.set(f"{tag}s", str(len(suite.findall(f"testcase/{tag}"))))
    document.write(path, encoding="utf-8", xml_declaration=True)


# --- pytest's hooks ------------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the gate's options."""
    group = parser.getgroup("gate", "gate of training times and outcomes (hw4)")
    group.addoption("--gate-update", action="store_true", help="show what changes, and renew the baselines")
    group.addoption(
        "--gate-against", metavar="REV", help="compare with this git revision, measured in alternation; no baseline"
    )
    group.addoption(
        "--gate-seconds",
        metavar="S",
        type=float,
        default=30,
        help="time to measure a gated step in; slower code gets more  [30]",
    )
    group.addoption("--gate-json", metavar="FILE", help="write verdict and findings as JSON")
    group.addoption("--gate-take", default="", help=argparse.SUPPRESS)  # the command that renews, for advice


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Remember the variables, and which options are not from a conftest: what that sets, a revision's sets itself."""
    early_config.stash[_KNOWN] = set(vars(early_config.known_args_namespace))
    early_config.stash[measurers.ENVIRONMENT] = dict(os.environ)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Judge, or measure for a process that judges."""
    if measurers.SOCKET in os.environ:
        serving = Serving(os.environ.pop(measurers.SOCKET))
        known: set[str] = config.stash.get(_KNOWN, set(vars(config.option)))
        measurers.take_options(config.option, known, serving)
        config.stash[_MODE] = serving
        config.pluginmanager.register(serving, "gate-serving")
        return
    against = config.option.gate_against
    for option, given, what in (("against", against, "a revision"), ("json", config.option.gate_json, "a file")):
        if given is not None and not given.strip():
            raise pytest.UsageError(f"--gate-{option} needs {what}, and was given nothing; is a variable empty?")
    if against and config.option.gate_update:
        raise pytest.UsageError("--gate-update takes what is measured now, so it does not go with --gate-against")
    if not 0 < config.option.gate_seconds < math.inf:
        raise pytest.UsageError(f"--gate-seconds is {config.option.gate_seconds:g}; a number above 0 is expected")
    config.stash.setdefault(measurers.ENVIRONMENT, dict(os.environ))  # before tests change it for themselves
    config.stash[measurers.GIVEN] = measurers.given_options(config)
    config.stash[_MODE] = Judging(config)
    config.pluginmanager.register(config.stash[_MODE], "gate-judging")

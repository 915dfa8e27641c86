"""Thread policy, Hypothesis profile, options and data shared by tests and benchmarks."""

import os
import sys
from pathlib import Path
from typing import NoReturn

from hw4.machine import ONE_THREAD

# Before torch is imported anywhere: two threads beside a busy neighbour can be sixty times slower than one, and the
# workers of pytest-xdist are neighbours.
os.environ.update(ONE_THREAD)

import pytest
import torch
from hypothesis import settings

from hw4 import cli
from hw4.data.images import Data, load_images
from hw4.data.locate import HOMEWORK_VERSION, IMAGES, find_model, find_root, model_version
from hw4.data.questions import find_trec
from tests.factory import Command, Said

torch.set_num_threads(1)

# Examples are drawn from the test's own name, so that a red test is red again; time limits would measure neighbours.
settings.register_profile("hw4", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("hw4")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of this suite."""
    parser.addoption(
        "--require-real-data", action="store_true", help="fail instead of skip when the real data is not found"
    )


LONGEST_FIRST = (
    *("test_plugin", "test_curvature", "test_mutations", "test_cli", "test_sweep"),
    *("test_experiments", "test_first_contact", "test_audit", "test_runs"),
    *("test_cluster", "test_browser", "test_packages", "test_course"),
)
"""Files that would keep one worker of pytest-xdist busy at the end. The plugin's, which time, run beside those of one
process."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let no long file begin last."""
    order = {name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


@pytest.fixture(scope="session")
def digits() -> Data:
    """The embedded images, all of them."""
    return load_images("digits")


@pytest.fixture(scope="session")
def real_images(request: pytest.FixtureRequest) -> Data:
    """The homework's 6,000 images of FashionMNIST, where they can be found."""
    if find_root(IMAGES) is None:
        without(request, "the real FashionMNIST: run 'hw4 fetch' or set HW4_DATA")
    return load_images("fashion-mnist")


@pytest.fixture(scope="session")
def real_questions(request: pytest.FixtureRequest) -> Path:
    """The data root with TREC's questions and spaCy's model, where it can be found."""
    root = find_trec()
    model = find_model()
    if root is None or model is None or model_version(model) != HOMEWORK_VERSION:
        without(request, "the real TREC questions and spaCy vectors: set HW4_DATA")
    return root


@pytest.fixture
def hw4(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command in this process, which fails unless it ends with ``code``: gives what it printed."""

    def call(*arguments: str, code: int = 0) -> Said:
        monkeypatch.setattr(sys, "argv", ["hw4", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        said = Said(*capsys.readouterr())
        assert int(stopped.value.code or 0) == code, said.err
        return said

    return call


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without pictures, for tests that look at their words or names alone."""
    monkeypatch.setattr("hw4.report.page.png", lambda *_: b"")
    monkeypatch.setattr("hw4.report.page.svg", lambda *_: [])


def without(request: pytest.FixtureRequest, needed: str) -> NoReturn:
    """Skip, or fail where the real data is required, and say what is needed."""
    if request.config.getoption("--require-real-data"):
        pytest.fail(f"needs {needed}")
    pytest.skip(f"needs {needed}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many planted faults (tests/mutations.py) were seen by their tests."""
    ended = [
        value
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", None) == "call"
        for name, value in report.user_properties
        if name == "mutation"
    ]
    if ended:
        terminalreporter.write_line(f"Planted faults: {ended.count('killed')} of {len(ended)} killed.")

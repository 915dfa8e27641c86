"""Options of the fault tests."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the number of kills."""
    parser.addoption("--kills", type=int, default=51, help="how many times processes are killed in all")

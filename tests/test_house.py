"""The house itself: imports point one way, and importing costs nothing."""

import ast
import re
from pathlib import Path

import pytest

import hw4
from tests.factory import python

PACKAGE = Path(hw4.__file__).parent
LAYERS = (
    *("errors", "files", "machine", "progress", "geometry", "variants", "specs", "readings"),
    *("memory", "borrowed", "examples", "data", "models", "training", "objective", "smoothness", "curvature"),
    *("records", "results", "stats", "processes", "cluster", "studies", "claim", "experiments", "sweep", "weights"),
    *("runs", "audit", "gate", "measurers", "plugin", "report", "cli"),
)
"""A module may import from those before it, strangers aside."""
STRANGERS = {
    "models": {"data"},
    "training": {"data"},
    "objective": {"data", "models"},
    "smoothness": {"data", "models"},
    "curvature": {"data", "models"},
    "gate": {"audit", "data", "experiments", "models", "objective", "records", "runs", "smoothness", "sweep"},
    "measurers": {"data", "models", "records", "runs", "training"},
    "plugin": {"data", "models", "records", "runs", "training"},
    "report": {"audit", "curvature", "data", "experiments", "models", "objective", "runs", "sweep", "training"},
}


def imported_modules(path: Path) -> set[str]:
    """First name below hw4 of everything that a module imports from the package."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("hw4."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.ImportFrom) and node.module == "hw4":
            found.update(alias.name for alias in node.names if alias.name in LAYERS)
        elif isinstance(node, ast.Import):
            found.update(alias.name.split(".")[1] for alias in node.names if alias.name.startswith("hw4."))
    return found


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_point_one_way(layer: str) -> None:
    folder = PACKAGE / layer
    allowed = {*LAYERS[: LAYERS.index(layer)], layer} - STRANGERS.get(layer, set())
    for path in folder.glob("*.py") if folder.is_dir() else [PACKAGE / f"{layer}.py"]:
        assert imported_modules(path) <= allowed, f"{path.name} imports against the order of {LAYERS}"


ROOMS = {"words": set(), "drawing": set(), "entry": set(), "page": {"drawing", "entry"}}
SECOND_FILES = {"claim": "landscapes", "audit": "notebook"}
"""Of a study in two files."""


def test_no_study_borrows_from_a_sibling_and_the_page_knows_none() -> None:
    for path in (PACKAGE / "report").glob("*.py"):
        named = re.findall(
            r"^from hw4\.report\.(\w+) import|^from hw4\.report import (\w+)", path.read_text(), flags=re.M
        )
        taken = {"".join(names) for names in named} - {"STUDIES"}
        shared = {"words", "drawing", "entry", SECOND_FILES.get(path.stem, "entry")}
        assert path.stem == "__init__" or taken <= ROOMS.get(path.stem, shared), f"{path.name} takes {taken}"


def test_every_module_has_its_layer() -> None:
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert modules | {"data", "report"} == set(LAYERS)


def test_no_function_is_longer_than_45_lines() -> None:
    """Counted with signature and docstring, without decorators."""
    for node in (node for path in PACKAGE.rglob("*.py") for node in ast.walk(ast.parse(path.read_text()))):
        if isinstance(node, ast.FunctionDef) and node.end_lineno is not None:
            assert node.end_lineno - node.lineno < 45, f"{node.name} is longer"


LIGHT = (
    *("specs", "readings", "records", "results", "stats", "studies", "claim", "runs", "data.choose"),
    *("gate", "plugin", "report.page", "cli"),
)


def test_importing_leaves_torch_alone() -> None:
    code = """
import importlib, sys
for name in sys.argv[1:]:
    for loaded in [each for each in sys.modules if each.partition(".")[0] == "hw4"]:
        del sys.modules[loaded]  # each is imported first, so that no circle is hidden
    importlib.import_module(name)
    if "torch" in sys.modules:
        sys.exit(f"{name} imports torch")
"""
    names = ["hw4", *(f"hw4.{name}" for name in LIGHT)]
    done = python("-c", code, *names)
    assert (done.returncode, done.stderr) == (0, "")


def test_public_names_are_there() -> None:
    for name in hw4.__all__:
        assert getattr(hw4, name).__doc__
    with pytest.raises(AttributeError, match="nothing_such"):
        _ = hw4.nothing_such

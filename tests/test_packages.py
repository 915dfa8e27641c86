"""What people install: a source distribution that is the repository, and a wheel that needs none."""

import email.message
import email.parser
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from hw4.machine import git
from tests.factory import python, run

ROOT = Path(__file__).parents[1]
SECONDS = 240
NOT_SOURCES = (
    *(".git", ".venv", ".tox", "build", "dist", "*.egg-info"),
    *("__pycache__", ".*_cache", ".hypothesis", ".benchmarks"),
)
COMMANDS = ("run", "sweep", "claim", "audit", "report", "gate", "fetch")
RUNTIME = {
    *("torch", "torchvision", "numpy", "scipy", "scikit-learn", "spacy", "matplotlib", "pandas", "pydantic", "typer"),
    *("tqdm", "requests", "pooch", "jinja2", "filelock", "safetensors"),
}


def build(source: Path, kind: str, folder: Path) -> Path:
    """The sdist or wheel of a source folder, by the build backend itself and so without a network."""
    code = f"from setuptools.build_meta import build_{kind} as build; build({str(folder)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True, timeout=SECONDS)
    (built,) = folder.glob("*.tar.gz" if kind == "sdist" else "*.whl")
    return built


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: building writes beside the sources, which may be read-only."""
    folder = tmp_path_factory.mktemp("sdist")

    def ignored(where: str, names: list[str]) -> set[str]:
        runs = set(names) - {"reference"} if Path(where) == ROOT / "reports" else set()
        return runs | shutil.ignore_patterns(*NOT_SOURCES)(where, names)

    source = shutil.copytree(ROOT, folder / "source", ignore=ignored)
    for path in (source, *source.rglob("*")):
        path.chmod(path.stat().st_mode | 0o200)
    return build(source, "sdist", folder)


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the sdist alone, as pip does where there is no wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    return build(folder / sdist.name.removesuffix(".tar.gz"), "wheel", folder)


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> email.message.Message:
    """The wheel's metadata."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return email.parser.BytesParser().parsebytes(archive.read(name))


def test_the_sdist_is_the_repository(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        packed = {member.name.partition("/")[2] for member in archive if member.isfile()}
    made = {"PKG-INFO", "setup.cfg", "MANIFEST.in", *(name for name in packed if name.startswith("hw4.egg-info/"))}
    assert sdist.stat().st_size < 8 * 2**20
    if not (ROOT / ".git").exists():
        pytest.skip("which files are the repository's, only git knows, and this is no checkout")
    committed = git(ROOT, "ls-files", "-z").decode().rstrip("\0").split("\0")
    assert set(committed) - packed == set()
    new = git(ROOT, "ls-files", "-z", "--others", "--exclude-standard").decode().rstrip("\0").split("\0")
    assert packed - {*committed, *new} - made == set()


def test_the_wheel_holds_the_package_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    sources = {path for path in (ROOT / "hw4").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert packed == {path.relative_to(ROOT).as_posix() for path in sources}


def test_the_metadata_names_everything_and_no_test_tool_is_required(metadata: email.message.Message) -> None:
    required = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert {re.split(r"[^\w-]", line)[0] for line in required} == RUNTIME
    assert metadata["Author"] == metadata["Maintainer"] == "hw4 maintainers"
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Keywords"]
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert "Project-URL" not in metadata
    assert not [line for line in metadata.get_all("Classifier", []) if line.startswith("License")], "SPDX says it"
    environments = (ROOT / "tox.ini").read_text()
    for version in re.findall(r":: Python :: 3\.(\d+)", str(metadata.get_all("Classifier"))):
        assert f"py3{version}" in environments


def test_the_wheel_does_without_the_repository(wheel: Path, tmp_path: Path) -> None:
    """In an environment of its own, whose other libraries are those of this one."""
    venv.create(tmp_path / "venv", symlinks=True)
    bin_ = tmp_path / "venv" / "bin"
    (site,) = (tmp_path / "venv").glob("lib/python3*/site-packages")
    pip = [sys.executable, "-m", "pip", "--quiet", "--python", str(bin_ / "python")]
    subprocess.run([*pip, "install", "--no-deps", str(wheel)], check=True, capture_output=True, timeout=SECONDS)
    elsewhere = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (site / "libraries.pth").write_text("\n".join(elsewhere))
    work = tmp_path / "work"
    work.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST", "COV_"))}

    def said(*command: str, code: int = 0) -> str:
        program, *arguments = command
        done = run(str(bin_ / program), *arguments, cwd=work, env=kept)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    assert said("python", "-c", "import hw4; print(hw4.__file__)").strip() == str(site / "hw4" / "__init__.py")
    without = "import sys; sys.modules.update(pytest=None, pytest_benchmark=None, hypothesis=None, xdist=None); "
    said("python", "-c", f"{without}import hw4.cli, hw4.smoothness, hw4.report.page, hw4.sweep, hw4.audit")
    helps = "for name in sys.argv[1:]: app([name, '--help'], prog_name='hw4', standalone_mode=False)"
    told = said("python", "-c", f"import sys; from hw4.cli import app\n{helps}", *COMMANDS)
    assert all(f"Usage: hw4 {command}" in told for command in COMMANDS)
    small = ["--seeds", "1", "--passes", "1", "--subset", "0.1", "--out", "made"]
    said("hw4", "run", "--data", "embedded", "--exercise", "pooling", *small)
    assert "made/index.html" in said("hw4", "report", "--out", "made")
    assert "needs a checkout" in said("hw4", "gate", code=5)
    (work / "test_own.py").write_text(
        "def test_own(gate):\n    gate.outcomes(lambda seed: {'loss': 1.0}, seeds=range(8))"
    )
    assert "1 new" in said("python", "-m", "pytest", "-q", "test_own.py", code=16)


def test_workflows_are_what_actionlint_takes() -> None:
    program = shutil.which("actionlint")
    if program is None:
        pytest.skip("needs actionlint")
    workflows = [ROOT / ".github" / "workflows" / "ci.yml", ROOT / "docs" / "example" / "gate.yml"]
    done = run(program, *map(str, workflows))
    assert (done.returncode, done.stdout) == (0, "")


def test_tests_run_from_another_folder_without_plugins_and_where_no_cache_can_be_kept(tmp_path: Path) -> None:
    """As in a read-only checkout; the superuser, who may write everywhere, cannot make a folder in a file either."""
    (tmp_path / "file").touch()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = ["-m", "pytest", f"{ROOT}/tests/test_house.py", "-k", "45", "-o", f"cache_dir={tmp_path}/file/no"]
    done = python(*command, cwd=tmp_path, env=kept | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"})
    assert done.returncode == 0, done.stdout + done.stderr

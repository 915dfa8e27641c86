"""Whoever types the README's two commands on an empty machine gets the homework on its own data."""

import functools
import http.server
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hw4.data.locate import IMAGES, MODEL, QUESTIONS, damage
from tests.factory import python


@pytest.fixture
def mirror(real_questions: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """The real data root, served on loopback as any web server would."""
    request.getfixturevalue("real_images")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_arguments: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(real_questions))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join(10)


def test_two_commands_bring_the_homework_on_its_own_data(mirror: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if name not in {"HW4_DATA", "XDG_CACHE_HOME"}}
    # Few text CNNs of one epoch: tests/test_sweep.py trains all, for all fifty, on the same questions.
    few = "specs.sweep_specs = functools.partial(specs.sweep_specs, trials=2, epochs=1)"
    (tmp_path / "sitecustomize.py").write_text(f"import functools\n\nfrom hw4 import specs\n\n{few}\n")
    environment = {**kept, "HOME": str(home), "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}

    def hw4(*arguments: str) -> subprocess.CompletedProcess[str]:
        return python("-m", "hw4", *arguments, cwd=tmp_path, env=environment)

    command = ["run", "--data", "real", "--seeds", "1", "--passes", "1"]
    missing = hw4(*command)
    assert missing.returncode == 1
    for needed in (IMAGES, QUESTIONS, MODEL):
        assert needed.title in missing.stderr, "all that is missing is said at once, before anything is trained"
    assert "run 'hw4 fetch'" in missing.stderr

    fetched = hw4("fetch", "--mirror", mirror)
    assert fetched.returncode == 0, fetched.stderr
    root = home / ".cache" / "hw4"
    for data in (IMAGES, QUESTIONS, MODEL):
        assert f"{data.title} is complete and verified in {root / data.folder}" in fetched.stdout
        assert damage(data, root / data.folder) == []
    assert all(path.stat().st_mode & 0o044 for path in root.rglob("*")), "colleagues may read it, too"

    run = hw4(*command, "--directions", "1", "--subset", "0.01", "--no-controls", "--no-longer")
    assert run.returncode in (0, 4), run.stderr
    assert "W095" not in run.stdout + run.stderr
    page = (tmp_path / "reports" / "real" / "index.html").read_text()
    titles = re.findall(r'<h2 id="[^"]*-title">(.*?)</h2>', page)
    assert [title.partition(":")[0] for title in titles] == ["Exercise 1", "Exercise 2", "Exercise 3"]
    assert "not the homework's vectors" not in page

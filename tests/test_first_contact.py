"""Two commands on a new computer: the homework on its own data."""

import functools
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hw4 import cli
from hw4.data.locate import IMAGES, MODEL, QUESTIONS


class Quiet(SimpleHTTPRequestHandler):
    """What ``python -m http.server`` answers, without its lines on stderr."""

    def log_message(self, *_arguments: object) -> None:  # noqa: D102
        pass


@pytest.fixture
def mirror(real_images: object, real_questions: Path) -> Iterator[str]:
    """A loopback server of a folder with the real data."""
    del real_images
    handler = functools.partial(Quiet, directory=str(real_questions))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}/"
        http.shutdown()
        thread.join(10)


def test_two_commands_lead_to_the_homeworks_page(mirror: str, tmp_path: Path) -> None:
    folders = {name: str(tmp_path / name) for name in ("HOME", "XDG_CACHE_HOME", "HW4_DATA")}

    def hw4(*arguments: str, seconds: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "hw4", *arguments]
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            cwd=tmp_path,
            env={**os.environ, **folders},
        )

    done = hw4("run", "--data", "real", seconds=60)
    assert done.returncode == cli.FAILED
    assert "run 'hw4 fetch'" in done.stderr, "before anything is fetched, this is the way out"

    fetched = hw4("fetch", "--mirror", mirror, seconds=60)
    assert (fetched.returncode, fetched.stderr) == (0, "")
    assert [line.partition(" is complete")[0] for line in fetched.stdout.splitlines()[1:]] == [
        data.title for data in (IMAGES, QUESTIONS, MODEL)
    ]

    # A tenth of the homework's images, and no search for a smaller rate: a minute less, and the same way.
    quick = ["--seeds", "1", "--passes", "1", "--subset", "0.01", "--no-rescue"]
    done = hw4("run", "--data", "real", *quick, "--out", "out", seconds=300)
    assert done.returncode in {0, cli.DIVERGED}, done.stderr
    assert done.returncode or done.stderr == "", "a library's warning reached the terminal"
    titles = re.findall(r"<h2 id=.*?>(.*?)</h2>", (tmp_path / "out" / "index.html").read_text())
    assert [title.partition(":")[0] for title in titles[:3]] == ["Exercise 1", "Exercise 2", "Exercise 3"]

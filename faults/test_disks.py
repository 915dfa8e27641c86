"""Disks that are full or cannot be written, and clocks that jump: one sentence, and nothing half-written."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hw4.records import ConvNetRecord, Store

RUN = ["run", "--data", "embedded", "--subset", "0.1", "--passes", "1", "--exercise", "pooling", "--processes", "2"]


def hw4(out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hw4", *RUN, *more, "--out", str(out)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


Mount = Callable[..., Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mount small file systems in memory, where this process may."""
    places: list[Path] = []

    def mounted(name: str, options: str, *, again: bool = False) -> Path:
        place = tmp_path / name
        place.mkdir(exist_ok=True)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=False, capture_output=True
        )
        if done.returncode:
            pytest.skip("needs to mount a tmpfs, which takes root")
        if not again:
            places.append(place)
        return place

    yield mounted
    for place in places:
        subprocess.run(["umount", "--lazy", str(place)], check=False)


def test_a_full_disk_is_named_and_what_is_finished_stays(mount: Mount) -> None:
    disk = mount("small", "size=64k")
    done = hw4(disk / "out", "--seeds", "9")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "No space left on device" in done.stderr
    found = Store(disk / "out" / "records", ConvNetRecord).load_all()
    assert 1 <= len(found) < 18
    subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
    again = hw4(disk / "out", "--seeds", "9")
    assert again.returncode == 0, again.stderr
    assert f"Found on disk: {len(found)} of 18." in again.stdout
    assert not [path for path in (disk / "out" / "records").iterdir() if path.suffix != ".json"]


def test_a_read_only_folder_is_named_before_training(mount: Mount) -> None:
    disk = mount("fixed", "size=1m,ro")
    done = hw4(disk / "out")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert str(disk / "out") in done.stderr
    assert "Read-only file system" in done.stderr
    assert "test accuracy" not in done.stdout


def test_a_clock_that_jumps_back_disturbs_nothing(tmp_path: Path) -> None:
    """Times are taken from clocks that only run forward; the calendar is asked by nobody."""
    code = (
        "import itertools, sys, time\n"
        "falling = itertools.count(2_000_000_000, -86_400)\n"
        "time.time = lambda: float(next(falling))\n"
        f"sys.argv = ['hw4', *{RUN!r}, '--processes', '1', '--out', {str(tmp_path)!r}]\n"
        "from hw4.cli import main\nmain()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False, env={**os.environ}
    )
    assert done.returncode == 0, done.stderr
    for record in Store(tmp_path / "records", ConvNetRecord).load_all():
        assert all(time.wall_seconds > 0 and time.cpu_seconds > 0 for time in record.times)

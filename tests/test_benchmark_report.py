"""The benchmarks' page: true to the saved run, and clear about files that are none."""

import json
from pathlib import Path
from typing import Any

import pytest

from hw4.errors import RecordError
from hw4.records import environment
from hw4.report.benchmarks import answers, newest_run, ratio_chart, read_run
from tests.factory import Command


def saved(folder: Path, number: int = 1, **changes: Any) -> Path:
    """A run as pytest-benchmark saves it: one workload twice as fast as plain PyTorch, one slower, one undecided."""
    info = {
        "plain_seconds": 2.0,
        "parameters": 29_034,
        "multiply_adds": 10**10,
        "images_per_second": 6_000.0,
        "peak_fraction": 0.25,
    }
    rows = [
        {
            "params": {"name": name},
            "group": "pass",
            "stats": {"median": 1.0},
            "extra_info": {**info, "ratio": ratio, "low": 0.9 * ratio, "high": 1.1 * ratio, **changes},
        }
        for name, ratio in (("quick", 2.0), ("slow", 0.5), ("same", 1.01))
    ]
    document = {
        "benchmarks": rows,
        "datetime": "2030-01-02T03:04:05+00:00",
        "environment": environment(threads=1, dtype="float32").model_dump(),
    }
    path = folder / "Linux" / f"{number:04}_run.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def test_the_page_tells_the_newest_run(hw4: Command, tmp_path: Path) -> None:
    saved(tmp_path, 9)
    newest = saved(tmp_path, 10)
    assert newest_run(tmp_path) == newest
    elsewhere = tmp_path / "Another machine" / "0011_run.json"  # which has a number of its own
    elsewhere.parent.mkdir()
    elsewhere.write_text(newest.read_text().replace("2030-01-02", "2029-01-02"))
    assert newest_run(tmp_path) == newest
    hw4("report", "--out", str(tmp_path))
    page = (tmp_path / "index.html").read_text()
    for expected in ("0010_run.json", "2.00 [1.80,\u00a02.20]", "6,000 images", "25%", "29,034", "10 G"):
        assert expected in page
    assert (tmp_path / "benchmarks.png").stat().st_size > 10_000


def test_words_and_picture_follow_the_intervals(tmp_path: Path) -> None:
    rows, _, _ = read_run(saved(tmp_path))
    first, *others = answers(rows)
    assert "1 of 3 workloads are faster" in first
    assert others == ["Not decided: same.", "Slower than plain PyTorch: slow."]
    (ax,) = ratio_chart(rows).axes
    assert ax.get_xlim() == pytest.approx((0.45 / 1.2, 2.2 * 1.25)), "room beside every whisker"
    assert [row.name for row in rows] == [text.get_text() for text in ax.get_yticklabels()][::-1]


@pytest.mark.parametrize(
    ("contents", "named"),
    [("{", "not a saved run"), ("{}", "not a saved run"), ("[]", "not a saved run"), (None, "ratio")],
)
def test_a_file_that_is_no_run_is_named(contents: str | None, named: str, tmp_path: Path) -> None:
    path = saved(tmp_path, ratio=-1.0)
    if contents is not None:
        path.write_text(contents)
    with pytest.raises(RecordError, match=f"{path.name}.*{named}.*pytest benchmarks"):
        read_run(path)


def test_no_run_at_all_is_none(tmp_path: Path) -> None:
    assert newest_run(tmp_path) is None

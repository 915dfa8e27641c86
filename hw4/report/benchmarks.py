"""The benchmarks' table and picture, from a run that pytest-benchmark saved."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from matplotlib.figure import Figure
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hw4.errors import RecordError, first_problem
from hw4.records import Environment
from hw4.report.drawing import DPI, legend_below
from hw4.report.entry import Entry

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class TimedWorkload(BaseModel):
    """What one benchmark put into ``extra_info``, and its own median; times in processor seconds of one thread."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    group: str
    seconds: Positive
    plain_seconds: Positive
    ratio: Positive
    low: Positive
    high: Positive
    parameters: int
    multiply_adds: Positive
    images_per_second: Positive | None = None
    questions_per_second: Positive | None = None
    peak_fraction: Positive

    @property
    def rate(self) -> str:
        """Examples per second with their unit."""
        if self.images_per_second is not None:
            return f"{self.images_per_second:,.0f} images"
        return f"{self.questions_per_second or 0:,.0f} questions"


@dataclass(frozen=True)
class SavedRun:
    """One run of the benchmarks."""

    path: Path
    date: str
    environment: Environment
    rows: tuple[TimedWorkload, ...]


def newest_run(folder: Path) -> Path | None:
    """The run saved last below a folder, or None."""
    return max(folder.glob("*/[0-9]*_*.json"), key=lambda path: path.name, default=None)


def read_run(path: Path) -> SavedRun:
    """Read a saved run; raises RecordError when it holds no benchmarks of this suite."""
    try:
        contents: dict[str, Any] = json.loads(path.read_bytes())
        rows = tuple(
            TimedWorkload.model_validate(
                {
                    "name": row["params"]["name"],
                    "group": row["group"],
                    "seconds": row["stats"]["median"],
                    **row["extra_info"],
                }
            )
            for row in contents["benchmarks"]
        )
        environment = Environment.model_validate_json(json.dumps(contents["environment"]))
        date = str(contents["datetime"])[:16].replace("T", " ")
    except ValidationError as error:
        raise RecordError(
            f"{path} was not saved by these benchmarks ({first_problem(error)}); delete it and run 'pytest benchmarks'"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise RecordError(
            f"{path} is not a saved run of these benchmarks ({error!r:.80}); delete it and run 'pytest benchmarks'"
        ) from error
    return SavedRun(path, date, environment, rows)


EXPLANATION = (
    "Each workload is the homework's own: a pass over 6,000 images, or a round through 900 questions for ten models, "
    "of random values. The plain code ran right before and right after each round of hw4's. The last column is the "
    "share that hw4 reaches of the multiply-adds per second of this machine's own fastest product of two matrices of "
    "1024 x 1024"
)
HEADER = (
    "workload",
    "parameters",
    "multiply-adds",
    "plain, s",
    "hw4, s",
    "times faster",
    "per second",
    "of matrix peak",
)


def table_rows(run: SavedRun) -> list[tuple[str, ...]]:
    """The table: one row for each workload."""
    return [
        (
            row.name,
            f"{row.parameters:,}",
            f"{row.multiply_adds / 1e9:.3g} G",
            f"{row.plain_seconds:.3f}",
            f"{row.seconds:.3f}",
            f"{row.ratio:.2f} [{row.low:.2f},\u00a0{row.high:.2f}]",
            row.rate,
            f"{row.peak_fraction:.0%}",
        )
        for row in run.rows
    ]


def caption(run: SavedRun) -> str:
    """What the picture shows."""
    return (
        "Processor time of plain PyTorch over that of hw4, one thread, median of paired rounds with 95% bootstrap "
        f"intervals; saved {run.date}"
    )


def ratio_chart(run: SavedRun) -> Figure:
    """Draw the ratios to plain PyTorch with their intervals, on a logarithmic axis that includes 1."""
    canvas = Figure(figsize=(8, 1.6 + 0.42 * len(run.rows)), dpi=DPI, layout="constrained")
    ax = canvas.subplots()
    for y, row in enumerate(reversed(run.rows)):
        ax.errorbar(
            row.ratio,
            y,
            xerr=[[max(0.0, row.ratio - row.low)], [max(0.0, row.high - row.ratio)]],
            fmt="o",
            color="#0072B2",
            ecolor="#0072B2",
            capsize=4,
            label="median of paired rounds, 95% bootstrap interval",
        )
        ax.annotate(f"{row.ratio:.2f}", (row.ratio, y), xytext=(0, 6), textcoords="offset points", ha="center")
    ax.axvline(1, color="#444444", linestyle=":", label="as fast as plain PyTorch")
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter("{x:g}")
    ax.set_xlim(min(0.8, *(row.low / 1.2 for row in run.rows)), max(2.2, *(row.high * 1.25 for row in run.rows)))
    ax.set_ylim(-0.6, len(run.rows) - 0.3)
    ax.set_yticks(range(len(run.rows)), [row.name for row in reversed(run.rows)])
    ax.set_xlabel("processor seconds of plain PyTorch / those of hw4 (times faster)")
    ax.grid(axis="x", alpha=0.3)
    legend_below(canvas)
    return canvas


def answers(run: SavedRun) -> list[str]:
    """What the run says, workload by workload that is decided."""
    slower = [row.name for row in run.rows if row.high < 1]
    undecided = [row.name for row in run.rows if row.low <= 1 <= row.high]
    faster = [row for row in run.rows if row.low > 1]
    sentences = []
    if faster:
        low, high = min(faster, key=lambda row: row.ratio), max(faster, key=lambda row: row.ratio)
        sentences.append(
            f"{len(faster)} of {len(run.rows)} workloads are faster than plain PyTorch, from {low.ratio:.2f} times "
            f"({low.name}) to {high.ratio:.2f} times ({high.name})."
        )
    if undecided:
        sentences.append(f"Not decided: {', '.join(undecided)}.")
    if slower:
        sentences.append(f"Slower than plain PyTorch: {', '.join(slower)}.")
    return sentences


def load(folder: Path, _anyway: bool = False) -> list[Entry]:
    """The report's part on the newest run of the benchmarks saved below the folder or beside it."""
    places = (folder, folder / "benchmarks", folder.parent / "benchmarks")
    path = next((run for place in places if (run := newest_run(place)) is not None), None)
    return [] if path is None else [_entry(path)]


def _entry(path: Path) -> Entry:
    run = read_run(path)
    return Entry(
        title="Benchmarks: hw4 beside plain PyTorch",
        question="How fast is hw4, beside the same work written plainly, and beside what this machine can do?",
        file_name="benchmarks.png",
        figure=ratio_chart(run),
        caption=caption(run),
        alt=f"How many times faster than plain PyTorch each workload is. {' '.join(answers(run))}",
        tables=[("", HEADER, table_rows(run))],
        answer=answers(run),
        rerun="pytest benchmarks",
        environments=[run.environment],
        data=[f"Saved run {path.name}", EXPLANATION],
    )

"""The benchmarks' table and picture, from a run that pytest-benchmark saved."""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from matplotlib.figure import Figure
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hw4.errors import RecordError, first_problem
from hw4.records import Environment
from hw4.report.drawing import DPI, error_bar, legend_below
from hw4.report.entry import Entry
from hw4.report.words import show
from hw4.stats import Interval

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
    def faster(self) -> Interval:
        """How many times faster than plain PyTorch it is: median of paired rounds, 95% bootstrap interval."""
        return Interval(self.ratio, min(self.low, self.ratio), max(self.high, self.ratio), 2)

    @property
    def cells(self) -> tuple[str, ...]:
        """Its row in the table."""
        images, questions = self.images_per_second, self.questions_per_second or 0
        return (
            self.name,
            f"{self.parameters:,}",
            f"{self.multiply_adds / 1e9:.3g} G",
            f"{self.plain_seconds:.3f}",
            f"{self.seconds:.3f}",
            show(self.faster, digits=2),
            f"{questions:,.0f} questions" if images is None else f"{images:,.0f} images",
            f"{self.peak_fraction:.0%}",
        )


def newest_run(folder: Path) -> Path | None:
    """The run saved last below a folder, or None; every machine's are numbered for themselves."""
    return max(folder.glob("*/[0-9]*_*.json"), key=lambda path: (_date(path), path.name), default=None)


def _date(path: Path) -> str:
    with suppress(ValueError, KeyError, TypeError, RecursionError):
        return str(json.loads(path.read_bytes())["datetime"])
    return ""


def read_run(path: Path) -> tuple[list[TimedWorkload], Environment, str]:
    """The workloads of a saved run, where and when it was; raises RecordError when it holds none of this suite's."""
    try:
        contents: dict[str, Any] = json.loads(path.read_bytes())
        rows = [
            TimedWorkload(
                name=row["params"]["name"], group=row["group"], seconds=row["stats"]["median"], **row["extra_info"]
            )
            for row in contents["benchmarks"]
        ]
        environment = Environment.model_validate_json(json.dumps(contents["environment"]))
        date = str(contents["datetime"])[:16].replace("T", " ")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        problem = first_problem(error) if isinstance(error, ValidationError) else f"{error!r:.80}"
        raise RecordError(
            f"{path} is not a saved run of these benchmarks ({problem}); delete or move it, and run 'pytest benchmarks'"
        ) from error
    return rows, environment, date


EXPLANATION = (
    "Each workload is the homework's own: a pass over 6,000 images, or a round through 900 questions for ten models, "
    "of random values. The plain code ran beside each round of hw4's, in turn before and after it. The last column is "
    "the share that hw4 reaches of the multiply-adds per second of this machine's own fastest product of two matrices "
    "of 1024 x 1024"
)

TIMES = ("plain, s", "hw4, s", "times faster", "per second")
HEADER = ("workload", "parameters", "multiply-adds", *TIMES, "of matrix peak")


def ratio_chart(rows: Sequence[TimedWorkload]) -> Figure:
    """Draw the ratios to plain PyTorch with their intervals, on a logarithmic axis that includes 1."""
    canvas = Figure(figsize=(8, 1.6 + 0.42 * len(rows)), dpi=DPI, layout="constrained")
    ax = canvas.subplots()
    for y, row in enumerate(reversed(rows)):
        look: dict[str, Any] = {"fmt": "o", "color": "#0072B2", "ecolor": "#0072B2", "capsize": 4}
        label = "median of paired rounds, 95% bootstrap interval"
        ax.errorbar(row.ratio, y, xerr=error_bar(row.faster), label=label, **look)
        ax.annotate(f"{row.ratio:.2f}", (row.ratio, y), xytext=(0, 6), textcoords="offset points", ha="center")
    ax.axvline(1, color="#444444", linestyle=":", label="as fast as plain PyTorch")
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter("{x:g}")
    ax.set_xlim(min(0.8, *(row.low / 1.2 for row in rows)), max(2.2, *(row.high * 1.25 for row in rows)))
    ax.set_ylim(-0.6, len(rows) - 0.3)
    ax.set_yticks(range(len(rows)), [row.name for row in reversed(rows)])
    ax.set_xlabel("processor seconds of plain PyTorch / those of hw4 (times faster)")
    ax.grid(axis="x", alpha=0.3)
    legend_below(canvas)
    return canvas


def answers(rows: Sequence[TimedWorkload]) -> Iterator[str]:
    """What the run says, workload by workload that is decided."""
    slower = [row.name for row in rows if row.high < 1]
    undecided = [row.name for row in rows if row.low <= 1 <= row.high]
    faster = sorted((row for row in rows if row.low > 1), key=lambda row: row.ratio)
    if faster:
        low, high = faster[0], faster[-1]
        yield (
            f"{len(faster)} of {len(rows)} workloads are faster than plain PyTorch, from {low.ratio:.2f} times "
            f"({low.name}) to {high.ratio:.2f} times ({high.name})."
        )
    if undecided:
        yield f"Not decided: {', '.join(undecided)}."
    if slower:
        yield f"Slower than plain PyTorch: {', '.join(slower)}."


def load(folder: Path, _anyway: bool = False) -> list[Entry]:
    """The report's part on the newest run of the benchmarks saved below the folder or beside it."""
    own = next(filter(None, map(newest_run, (folder, folder / "benchmarks"))), None)
    path = own or newest_run(folder.parent / "benchmarks")
    if path is None:
        return []
    try:
        rows, environment, date = read_run(path)
    except RecordError:
        if path == own:
            raise
        return []  # somebody else's, in a folder that may have any name
    return [
        Entry(
            title="Benchmarks: hw4 beside plain PyTorch",
            question="How fast is hw4, beside the same work written plainly, and beside what this machine can do?",
            answer=list(answers(rows)),
            tables=[("", HEADER, [row.cells for row in rows])],
            file_name="benchmarks.png",
            figure=ratio_chart(rows),
            alt=f"How many times faster than plain PyTorch each workload is. {' '.join(answers(rows))}",
            caption="Processor time of plain PyTorch over that of hw4, one thread, median of paired rounds with 95% "
            f"bootstrap intervals; saved {date}",
            rerun="pytest benchmarks",
            environments=[environment],
            data=[f"Saved run {path.name}", EXPLANATION],
        )
    ]

"""The report page: one self-contained HTML file, and the figures beside it as PNG."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from matplotlib.figure import Figure

from hw4.files import write_atomically
from hw4.records import AuditRecord, ConvNetRecord, Environment, LandscapeRecord, TextCNNRecord
from hw4.report import audit, claim
from hw4.report.benchmarks import HEADER, answers, caption, ratio_chart, read_run, table_rows
from hw4.report.figures import alt_text, figure
from hw4.report.findings import Section, sections
from hw4.report.strides import chart, chart_alt_text, summarise

INTRO = (
    "Values are means with 95% intervals in brackets (Student's t over seeds or trials, for this data set), taken at "
    "the end of training unless said otherwise."
)


@dataclass(frozen=True)
class Entry:
    """One part of a page: a figure with its words. ``tables`` are captions, headers and rows."""

    title: str
    file_name: str
    figure: Figure
    alt: str
    caption: str
    tables: Sequence[tuple[str, Sequence[str], Sequence[Sequence[str]]]]
    answer: Sequence[str]


def write_report(records: Sequence[ConvNetRecord], folder: Path) -> Path:
    """Write the page of exercises 1 and 3, ``index.html``, and its figures as PNG into ``folder``; returns its path.

    Raises RecordError when the records cannot be reported together, before anything is written.
    """
    found = sections(records)
    entries = [
        Entry(
            section.title, _file_name(section, found), figure(section), alt_text(section), section.caption,
            [("", section.header, section.rows)], section.answer,
        )
        for section in found
    ]  # fmt: skip
    facts = [
        f"Smoothness: full gradient over all training images and all parameters, normalised by "
        f"{setting.norm_mode} statistics in chunks of at most {setting.chunk_size} images, along one minibatch update"
        for setting in dict.fromkeys(section.setting for section in found)
    ]
    data = [
        f"{record.data.title}: {record.data.n_train:,} training and {record.data.n_test:,} test images, SHA-256 of the "
        f"images used {record.data.checksum}"
        for record in records
    ]
    return write_page(
        "BatchNorm and smoothness, pooling and stride", entries, [r.environment for r in records], data + facts, folder
    )


def write_sweep_report(records: Sequence[TextCNNRecord], folder: Path, *, anyway: bool = False) -> Path:
    """Write the page of exercise 2, ``index.html``, and its chart into ``folder``; returns the page's path.

    Raises RecordError for an incomplete or mixed set of trials, unless ``anyway``, before anything is written.
    """
    found = summarise(records, anyway=anyway)
    entry = Entry(
        "Exercise 2: a text CNN against its stride", "strides.png", chart(found), chart_alt_text(found), found.caption,
        found.tables, found.answer,
    )  # fmt: skip
    facts = [f"SHA-256 of the vectors and labels used: {found.data.checksum}"]
    return write_page(
        "A text CNN against its stride", [entry], [record.environment for record in records], facts, folder
    )


def write_claim_report(ladder: Sequence[ConvNetRecord], landscapes: Sequence[LandscapeRecord], folder: Path) -> Path:
    """Write the page on the homework's claim, ``index.html``, and its figures into ``folder``; raises RecordError."""
    found = claim.assemble(ladder, landscapes)
    entries = [
        Entry(
            "Does BatchNorm allow larger learning rates?", "ladder.png", claim.ladder_figure(found),
            "Final train loss and test accuracy against the learning rate with and without BatchNorm, and the learning "
            "rates that smoothness and sharpness would allow. The tables give the values.",
            found.caption,
            [("Largest stable learning rates, and what measurements along the runs would allow",
              claim.PREDICTION_HEADER, claim.prediction_rows(found)),
             ("The ladder", claim.HEADER, claim.ladder_rows(found))],
            claim.answers(found),
        ),
        Entry(
            "Along the update, over a range of steps", "range.png", claim.range_figure(found),
            "Bands of loss, gradient change and effective smoothness over steps of half to four times the update.",
            found.caption, [], claim.range_answers(found),
        ),
        Entry(
            "Sharpness, kinks and layers", "curvature.png", claim.curvature_figure(found),
            "Largest Hessian eigenvalue and kink share after some passes, and smoothness of each layer.",
            found.caption, [], claim.failures(found),
        ),
    ]  # fmt: skip
    environments = [r.environment for r in ladder] + [r.environment for r in landscapes]
    return write_page("BatchNorm, smoothness and learning rates", entries, environments, [], folder)


def write_audit_report(record: AuditRecord, folder: Path) -> Path:
    """Write the audit's page, ``index.html``, and its figure into ``folder``; returns the page's path."""
    entry = Entry(
        "What the solved notebook reported, and what each flaw changes", "audit.png", audit.figure(record),
        audit.alt_text(), audit.caption(record), [("", audit.HEADER, audit.rows(record))], audit.answers(record),
    )  # fmt: skip
    intro = (
        "Each row repeats one flaw of the homework's solved notebook on hw4's own models and data, beside the same "
        "thing done right; ratios have 95% intervals over paired seeds."
    )
    return write_page("the notebook, audited", [entry], [record.environment], [], folder, intro=intro)


def write_benchmark_report(run: Path, folder: Path) -> Path:
    """Write the page of a saved run of the benchmarks and its picture into ``folder``; raises RecordError."""
    saved = read_run(run)
    entry = Entry(
        "Benchmarks: hw4 beside plain PyTorch", "benchmarks.png", ratio_chart(saved),
        "How many times faster than plain PyTorch each workload is. The table that follows gives the numbers.",
        caption(saved), [("", HEADER, table_rows(saved))], answers(saved),
    )  # fmt: skip
    intro = (
        "Each workload is the homework's own: a pass over 6,000 images, or a round through 900 questions for ten "
        "models. The plain code ran right before and right after each round of hw4's. The last column is the share "
        "that hw4 reaches of the multiply-adds per second of this machine's own product of two 1024 x 1024 matrices."
    )
    return write_page("how fast", [entry], [saved.environment], [f"Saved run: {run.name}"], folder, intro=intro)


def write_page(
    title: str,
    entries: Sequence[Entry],
    environments: Sequence[Environment],
    facts: Sequence[str],
    folder: Path,
    *,
    intro: str | None = None,
) -> Path:
    """Write a self-contained ``index.html`` and its figures as PNG; returns the page's path."""
    pngs = []
    for entry in entries:
        buffer = io.BytesIO()
        entry.figure.savefig(buffer, format="png", metadata={"Software": None})
        pngs.append(buffer.getvalue())
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("hw4.report", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = templates.get_template("index.html.jinja").render(
        title=title,
        entries=[(entry, base64.b64encode(png).decode()) for entry, png in zip(entries, pngs, strict=True)],
        intro=intro or f"{len(environments)} training runs. {INTRO}",
        environment=environments[0],
        facts=list(dict.fromkeys(facts)),
    )
    folder.mkdir(parents=True, exist_ok=True)
    for entry, png in zip(entries, pngs, strict=True):
        write_atomically(folder / entry.file_name, png)
    path = folder / "index.html"
    write_atomically(path, page.encode())
    return path


def _file_name(section: Section, found: Sequence[Section]) -> str:
    """File of a section's figure: the exercise, and the setting's key where several settings are reported."""
    alone = len({other.setting for other in found}) == 1
    return f"{section.exercise}.png" if alone else f"{section.exercise}_{section.setting.key}.png"

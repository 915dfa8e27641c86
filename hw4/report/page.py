"""The report: all that a folder holds, as one self-contained page, or as figures and words for a notebook."""

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.figure import Figure

from hw4.errors import RecordError
from hw4.files import AUDIT, LADDER, LANDSCAPES, RECORDS, write_atomically
from hw4.records import (
    AuditRecord,
    ConvNetRecord,
    DataIdentity,
    Environment,
    LandscapeRecord,
    QuestionIdentity,
    Store,
    TextCNNRecord,
    read_record,
)
from hw4.report import audit, benchmarks, claim, gate
from hw4.report.figures import alt_text, figure
from hw4.report.findings import QUESTIONS, Section, sections
from hw4.report.strides import Summary, chart, chart_alt_text, summaries

Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]
"""Caption, header and rows."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One part of a report: a question, its figure, the answer in words, tables, and the command that makes it again.

    ``data`` are sentences on what was seen, ``environments`` those of the records, ``seconds`` of processor time went
    into training passes where that was timed.
    """

    title: str
    question: str
    answer: Sequence[str]
    tables: Sequence[Table]
    rerun: str
    caption: str
    environments: Sequence[Environment] = ()
    data: Sequence[str] = ()
    seconds: float | None = None
    figure: Figure | None = None
    file_name: str = ""
    alt: str = ""

    @property
    def anchor(self) -> str:
        """The title as the page's links know it."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")

    @property
    def circumstances(self) -> list[str]:
        """Where and with what the records were made, each place once, in words."""
        return list(dict.fromkeys(map(_circumstances, self.environments)))


@dataclass(frozen=True)
class Report:
    """All parts that a folder holds, in the order of the page."""

    entries: Sequence[Entry] = field(default_factory=list)

    def write(self, folder: Path) -> Path:
        """Write a self-contained ``index.html`` and every figure as PNG into ``folder``; returns the page's path."""
        pngs = {entry.file_name: _png(entry.figure) for entry in self.entries if entry.figure is not None}
        templates = jinja2.Environment(
            loader=jinja2.PackageLoader("hw4.report", "."), autoescape=True, undefined=jinja2.StrictUndefined,
            trim_blocks=True, lstrip_blocks=True,
        )  # fmt: skip
        page = templates.get_template("index.html.jinja").render(
            entries=self.entries, images={name: base64.b64encode(png).decode() for name, png in pngs.items()}
        )
        folder.mkdir(parents=True, exist_ok=True)
        for name, png in pngs.items():
            write_atomically(folder / name, png)
        path = folder / "index.html"
        write_atomically(path, page.encode())
        return path

    def as_json(self) -> dict[str, Any]:
        """Questions, answers and tables, for scripts."""
        return {
            entry.title: {
                "question": entry.question, "answer": list(entry.answer), "rerun": entry.rerun,
                "tables": [{"caption": caption, "header": list(header), "rows": [list(row) for row in rows]}
                           for caption, header, rows in entry.tables],
            }
            for entry in self.entries
        }  # fmt: skip


def load_report(folder: Path | str, *, anyway: bool = False) -> Report:
    """Read every record below a folder that ``hw4`` wrote to, and bring them into figures, tables and words.

    The exercises' records lie in ``records/``, those of ``hw4 claim`` and ``hw4 audit`` in ``claim/`` and ``audit/``;
    the newest saved benchmarks and the last gate are looked for below the folder and beside it. ``anyway`` lets an
    incomplete or mixed sweep pass. Raises RecordError when there is nothing, or when records cannot stand together.
    """
    folder = Path(folder)
    audited = folder / AUDIT / "audit.json"
    places = (folder, folder / "benchmarks", folder.parent / "benchmarks")
    gates = (place / "gate" / "gate.json" for place in (folder, folder.parent))
    report = compose(
        Store(folder / RECORDS, ConvNetRecord).load_all("*_convnet-*.json"),
        Store(folder / RECORDS, TextCNNRecord).load_all("*_textcnn-*.json"),
        ladder=Store(folder / LADDER, ConvNetRecord).load_all(),
        landscapes=Store(folder / LANDSCAPES, LandscapeRecord).load_all(),
        audited=read_record(audited, AuditRecord) if audited.exists() else None,
        timed=next((run for place in places if (run := benchmarks.newest_run(place)) is not None), None),
        judged=next((path for path in gates if path.exists()), None),
        anyway=anyway,
    )
    if not report.entries:
        raise RecordError(f"there are no records in {folder}; make them with 'hw4 run --out {folder}'")
    return report


def compose(
    convnets: Sequence[ConvNetRecord] = (),
    trials: Sequence[TextCNNRecord] = (),
    *,
    ladder: Sequence[ConvNetRecord] = (),
    landscapes: Sequence[LandscapeRecord] = (),
    audited: AuditRecord | None = None,
    timed: Path | None = None,
    judged: Path | None = None,
    anyway: bool = False,
) -> Report:
    """The report of these records, of a saved run of the benchmarks and of a gate's JSON; raises RecordError."""
    entries = [_exercise(section, convnets) for section in sections(convnets)] if convnets else []
    if trials:
        entries += map(_sweep, summaries(trials, anyway=anyway))
    entries.sort(key=lambda entry: entry.title)  # exercise by exercise
    if ladder or landscapes:
        entries += _claim(ladder, landscapes)
    if audited is not None:
        entries.append(_audit(audited))
    if timed is not None:
        entries.append(_benchmarks(timed))
    if judged is not None:
        entries.append(_gate(judged))
    return Report(entries)


def _exercise(section: Section, records: Sequence[ConvNetRecord]) -> Entry:
    mine = [run for arm in section.arms for run in arm.runs.values()]
    alone = len({record.spec.setting for record in records}) == 1
    setting = section.setting
    return Entry(
        title=section.title if alone else f"{section.title} ({setting.key})", question=QUESTIONS[section.exercise],
        file_name=f"{section.exercise}{'' if alone else f'_{setting.key}'}.png",
        figure=figure(section), alt=alt_text(section), caption=section.caption,
        tables=[("", section.header, section.rows)], answer=section.answer,
        rerun=f"hw4 run --exercise {section.exercise} --fresh", environments=[record.environment for record in mine],
        data=[
            *dict.fromkeys(_data(record.data) for record in mine),
            f"Seeds {', '.join(map(str, section.seeds))}: initial weights and minibatches, the same for both networks",
            f"Smoothness: full gradients over all training images and all parameters, normalised by "
            f"{setting.norm_mode} statistics in chunks of at most {setting.chunk_size} images, along minibatch updates",
        ],
        seconds=sum(time.cpu_seconds for record in mine for time in record.times),
    )  # fmt: skip


def _sweep(found: Summary) -> Entry:
    title, suffix = "Exercise 2: a text CNN against its stride", found.suffix
    return Entry(
        title=f"{title} ({suffix})" if suffix else title,
        question=QUESTIONS["strides"],
        file_name=f"strides{f'_{suffix}' if suffix else ''}.png",
        figure=chart(found),
        alt=chart_alt_text(found),
        caption=found.caption,
        tables=found.tables,
        answer=found.answer,
        rerun="hw4 sweep --fresh",
        environments=[record.environment for record in found.records],
        data=[_data(found.data)],
    )


def _claim(ladder: Sequence[ConvNetRecord], landscapes: Sequence[LandscapeRecord]) -> list[Entry]:
    found = claim.assemble(ladder, landscapes)
    about: dict[str, Any] = {"caption": found.caption, "rerun": "hw4 claim --fresh"}
    return [
        Entry(
            title="The claim: does BatchNorm allow larger learning rates?", question=QUESTIONS["claim"],
            file_name="ladder.png", figure=claim.ladder_figure(found), alt=claim.ladder_alt_text(found),
            tables=[("Largest stable learning rates, and what measurements along the runs would allow",
                     claim.PREDICTION_HEADER, claim.prediction_rows(found)),
                    ("The ladder", claim.HEADER, claim.ladder_rows(found))],
            answer=claim.answers(found), seconds=sum(time.cpu_seconds for run in ladder for time in run.times),
            data=[_data(found.any_rung.data)], **about,
            environments=[*(run.environment for run in ladder), *(view.environment for view in landscapes)],
        ),
        Entry(
            title="The claim: along the update, over a range of steps",
            question="How do loss, gradient and smoothness change over steps shorter and longer than the one taken?",
            file_name="range.png", figure=claim.range_figure(found), tables=[], answer=claim.range_answers(found),
            alt="Bands of loss, gradient change and effective smoothness over steps of half to four times the update. "
            + " ".join(claim.range_answers(found)), **about,
        ),
        Entry(
            title="The claim: sharpness, kinks and layers", question="Where does the simple story fail?",
            file_name="curvature.png", figure=claim.curvature_figure(found), tables=[], answer=claim.failures(found),
            alt="Largest Hessian eigenvalue and kink share after some passes, and smoothness of each layer. The answer "
            "gives the values.", **about,
        ),
    ]  # fmt: skip


def _audit(record: AuditRecord) -> Entry:
    return Entry(
        title="The solved notebook, audited", question=QUESTIONS["audit"], file_name="audit.png",
        figure=audit.figure(record), alt=audit.alt_text(), caption=audit.caption(record),
        tables=[("Each flaw on hw4's own models and data; ratios have 95% intervals over paired seeds",
                 audit.HEADER, audit.rows(record))],
        answer=audit.answers(record), rerun="hw4 audit", environments=[record.environment],
        data=[_data(record.data), _data(record.questions_data)],
    )  # fmt: skip


def _benchmarks(path: Path) -> Entry:
    run = benchmarks.read_run(path)
    return Entry(
        title="Benchmarks: hw4 beside plain PyTorch", question=QUESTIONS["benchmarks"], file_name="benchmarks.png",
        figure=benchmarks.ratio_chart(run), caption=benchmarks.caption(run),
        alt=f"How many times faster than plain PyTorch each workload is. {' '.join(benchmarks.answers(run))}",
        tables=[("", benchmarks.HEADER, benchmarks.table_rows(run))], answer=benchmarks.answers(run),
        rerun="pytest benchmarks", environments=[run.environment],
        data=[f"Saved run {path.name}", benchmarks.EXPLANATION],
    )  # fmt: skip


def _gate(path: Path) -> Entry:
    judged = gate.read_gate(path)
    return Entry(
        title="The gate's last word", question=QUESTIONS["gate"], answer=gate.answers(judged),
        caption="", tables=[("", gate.HEADER, gate.rows(judged))], rerun="hw4 gate", environments=[judged.environment],
    )  # fmt: skip


def _data(data: DataIdentity | QuestionIdentity) -> str:
    what = "questions" if isinstance(data, QuestionIdentity) else "images"
    vectors = f", vectors: {data.vectors}" if isinstance(data, QuestionIdentity) else ""
    return (
        f"{data.title}: {data.n_train:,} training and {data.n_test:,} test {what}{vectors}, SHA-256 of what was used "
        f"{data.checksum}"
    )


def _circumstances(made: Environment) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in made.versions.items())
    return (
        f"{made.cpu}, {made.threads} thread{'s' if made.threads > 1 else ''} of {made.logical_cpus} logical processors"
        f"{'' if made.device == 'cpu' else f', {made.device}'}, {made.dtype}, {made.platform}; {versions}; commit "
        f"{made.commit or 'unknown'}{' with uncommitted changes' if made.dirty else ''}"
    )


def _png(drawn: Figure) -> bytes:
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()

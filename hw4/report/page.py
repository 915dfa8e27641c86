"""The report: all that a folder holds, as one self-contained page, or as figures and words for a notebook."""

import base64
import io
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
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
    QuestionIdentity,
    RunNote,
    Store,
    TextCNNRecord,
    read_record,
)
from hw4.report import audit, benchmarks, claim, gate, notebook
from hw4.report.figures import alt_text, figure
from hw4.report.findings import QUESTIONS, Section, sections
from hw4.report.strides import Summary, chart, chart_alt_text, summaries
from hw4.specs import (
    AUDIT_SEEDS,
    BISECTIONS,
    DEFAULT_SUBSET,
    LADDER_RATES,
    NOTEBOOK_SEEDS,
    SEEDS,
    STRIDES,
    TRIALS,
    VIEWS,
    TextCNNSpec,
)

FILE_NAME = re.compile(r"File: <code>([\w.-]+\.png)</code>")
"""How the page names a figure's file."""

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

    @property
    def duration(self) -> str:
        """The processor time of the training passes, in a unit that suits it."""
        seconds = self.seconds or 0
        return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.{0 if seconds >= 10 else 1}f} seconds"


@dataclass(frozen=True)
class Report:
    """All parts that a folder holds, in the order of the page.

    ``absent`` names what was asked for and is not there, with the reason; ``notes`` are said before everything else.
    """

    entries: Sequence[Entry] = field(default_factory=list)
    absent: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def write(self, folder: Path) -> Path:
        """Write a self-contained ``index.html`` and every figure as PNG into ``folder``; returns the page's path.

        Figures of the page before that are on this one no more are removed.
        """
        pngs = {entry.file_name: _png(entry.figure) for entry in self.entries if entry.figure is not None}
        templates = jinja2.Environment(
            loader=jinja2.PackageLoader("hw4.report", "."), autoescape=True, undefined=jinja2.StrictUndefined,
            trim_blocks=True, lstrip_blocks=True,
        )  # fmt: skip
        page = templates.get_template("index.html.jinja").render(
            report=self, images={name: base64.b64encode(png).decode() for name, png in pngs.items()}
        )
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "index.html"
        before = set(FILE_NAME.findall(path.read_text(errors="replace"))) if path.exists() else set()
        for name, png in pngs.items():
            write_atomically(folder / name, png)
        write_atomically(path, page.encode())
        for name in before - pngs.keys():
            (folder / name).unlink(missing_ok=True)
        return path

    def as_json(self) -> dict[str, Any]:
        """Questions, answers and tables of every part, for scripts."""
        return {
            entry.title: {
                "question": entry.question, "answer": list(entry.answer), "rerun": entry.rerun,
                "tables": [{"caption": caption, "header": list(header), "rows": [list(row) for row in rows]}
                           for caption, header, rows in entry.tables],
            }
            for entry in self.entries
        }  # fmt: skip


def load_report(folder: Path | str, *, anyway: bool = False, whole: bool = True) -> Report:
    """Read every record below a folder that ``hw4`` wrote to, and bring them into figures, tables and words.

    The exercises' records lie in ``records/``, those of ``hw4 claim`` and ``hw4 audit`` in ``claim/`` and ``audit/``;
    the newest saved benchmarks and the last gate are looked for below the folder and beside it. ``anyway`` lets an
    incomplete or mixed sweep pass. Raises RecordError when there is nothing, or when records cannot stand together;
    a report that need not be ``whole`` names such a part, and why it is absent, instead.
    """
    folder = Path(folder)
    audited = folder / AUDIT / "audit.json"
    places = (folder, folder / "benchmarks", folder.parent / "benchmarks")
    gates = (place / "gate" / "gate.json" for place in (folder, folder.parent))
    report = compose(
        Store(folder / RECORDS, ConvNetRecord).load_all("*_convnet-*.json"),
        Store(folder / RECORDS, TextCNNRecord).load_all("*_textcnn-*.json"),
        ladder=Store(folder / LADDER, ConvNetRecord).load_all(),
        landscapes=Store(folder / LANDSCAPES, ConvNetRecord).load_all(),
        audited=read_record(audited, AuditRecord) if audited.exists() else None,
        timed=next((run for place in places if (run := benchmarks.newest_run(place)) is not None), None),
        judged=next((path for path in gates if path.exists()), None),
        note=Store(folder, RunNote).load("run"),
        anyway=anyway,
        whole=whole,
    )
    if not report.entries and report.absent:
        reasons = "; ".join(f"{title}: {reason}" for title, reason in report.absent.items())
        raise RecordError(f"nothing in {folder} can be reported ({reasons})")
    if not report.entries:
        raise RecordError(f"there are no records in {folder}; make them with 'hw4 run --out {folder}'")
    return report


def compose(
    convnets: Sequence[ConvNetRecord] = (),
    trials: Sequence[TextCNNRecord] = (),
    *,
    ladder: Sequence[ConvNetRecord] = (),
    landscapes: Sequence[ConvNetRecord] = (),
    audited: AuditRecord | None = None,
    timed: Path | None = None,
    judged: Path | None = None,
    note: RunNote | None = None,
    anyway: bool = False,
    whole: bool = True,
) -> Report:
    """The report of these records, of a saved run of the benchmarks and of a gate's JSON; raises RecordError.

    When it need not be ``whole``, a part whose records cannot be reported is named as absent instead.
    """
    absent = dict(note.failed) if note else {}

    def part(title: str, entries: Callable[[], list[Entry]]) -> list[Entry]:
        try:
            return entries()
        except RecordError as error:
            if whole:
                raise
            absent.setdefault(title, str(error))
            return []

    entries = [
        *part("Exercises 1 and 3", lambda: _exercises(convnets)),
        *part("Exercise 2", lambda: [_sweep(each) for each in summaries(trials, anyway=anyway)] if trials else []),
    ]
    entries.sort(key=lambda entry: entry.title)  # exercise by exercise
    entries += part("The claim", lambda: _claim(ladder, landscapes) if ladder or landscapes else [])
    entries += part("The audit", lambda: _audit(audited) if audited else [])
    entries += part("The benchmarks", lambda: [_benchmarks(timed)] if timed else [])
    entries += part("The gate", lambda: [_gate(judged)] if judged else [])
    return Report(entries, absent, note.notes if note else ())


def again(command: str, **options: tuple[object, object]) -> str:
    """The ``hw4`` command line that makes records again, from (value, default) of each option; defaults are left out.

    A value of True is a flag, a list an option given several times.
    """
    words = ["hw4", command]
    for name, (value, default) in options.items():
        if value == default:
            continue
        option = f"--{name.replace('_', '-')}"
        for each in value if isinstance(value, list) else [value]:
            words += [option] if each is True else [option, str(each)]  # all digits: fewer would be another run
    return " ".join(words)


CHOICE = {"fashion-mnist": "real", "digits": "embedded", "trec": "real", "grammar": "embedded"}
"""What ``--data`` says for a data set."""


def _run_again(section: Section) -> str:
    """The command that makes an exercise's records again; both exercises have the plain network first."""
    run = next(iter(section.arms[0].runs.values()))
    spec, fields = run.spec, type(run.spec).model_fields
    same_named: tuple[str, ...] = ("passes", "learning_rate", "batch_size", "directions")
    return again(
        "run",
        exercise=(section.exercise, None),
        data=(CHOICE[spec.data], None),
        seeds=(max(section.seeds) + 1, SEEDS),
        subset=(spec.subset, DEFAULT_SUBSET[spec.data]),
        no_noise_floor=(not spec.noise_floor, False),
        device=(run.environment.device, "cpu"),
        **{name: (getattr(spec, name), fields[name].default) for name in same_named},
        fresh=(True, False),
    )


def _sweep_again(found: Summary) -> str:
    """The command that makes a sweep's records again."""
    spec, fields = found.bars[0].records[0].spec, TextCNNSpec.model_fields
    trials = max(len(bar.records) for bar in found.bars)
    return again(
        "sweep",
        data=(CHOICE[found.data.name], None),
        stride=([bar.stride for bar in found.bars], list(STRIDES)),
        trials=(trials, TRIALS),
        **{name: (getattr(spec, name), fields[name].default) for name in ("epochs", "learning_rate", "momentum")},
        fresh=(True, False),
    )


def _claim_again(found: claim.Claim) -> str:
    """The command that makes the claim's records again."""
    spec, rates = found.any_rung.spec, found.rates
    tried = Counter((name, seed) for name, rungs in found.ladders.items() for rung in rungs for seed in rung.runs)
    return again(
        "claim",
        data=(CHOICE[spec.data], None),
        seeds=(len(found.ladders["pool"][0].runs), SEEDS),
        landscapes=(len(found.landscapes["pool"]), VIEWS),
        passes=(spec.passes, type(spec).model_fields["passes"].default),
        rate=(rates, list(LADDER_RATES)),
        bisections=(max(tried.values()) - len(rates), BISECTIONS),
        fresh=(True, False),
    )


def _audit_again(record: AuditRecord) -> str:
    """The command that makes the audit's record again."""
    seeds, passes = len({run.seed for run in record.runs}), len(record.runs[0].train_loss) - 1
    repeats = len({run.seed for run in record.notebook.repeated}) if record.notebook else NOTEBOOK_SEEDS
    return again(
        "audit",
        data=(CHOICE[record.data.name], None),
        seeds=(seeds, AUDIT_SEEDS),
        notebook_seeds=(repeats, NOTEBOOK_SEEDS),
        passes=(passes, 10),
    )


def _exercises(records: Sequence[ConvNetRecord]) -> list[Entry]:
    alone = len({record.spec.setting for record in records}) == 1
    return [_exercise(section, alone=alone) for section in sections(records)] if records else []


def _exercise(section: Section, *, alone: bool) -> Entry:
    mine = [run for arm in section.arms for run in arm.runs.values()]
    setting, words, key = section.setting, section.setting_words, section.setting_key
    return Entry(
        title=section.title if alone or not words else f"{section.title} ({words})",
        question=QUESTIONS[section.exercise],
        file_name=f"{section.exercise}{'' if alone or not key else f'_{key}'}.png",
        figure=figure(section),
        alt=alt_text(section),
        caption=section.caption,
        tables=[("", section.header, section.rows)],
        answer=section.answer,
        rerun=_run_again(section),
        environments=[record.environment for record in mine],
        data=[
            *dict.fromkeys(_data(record.data) for record in mine),
            f"Seeds {', '.join(map(str, section.seeds))}: initial weights and minibatches, the same for both networks",
            f"Smoothness: full gradients over all training images and all parameters, normalised by "
            f"{setting.norm_mode} statistics in chunks of at most {setting.chunk_size} images, along minibatch updates",
        ],
        seconds=sum(time.cpu_seconds for record in mine for time in record.times),
    )


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
        rerun=_sweep_again(found),
        environments=[record.environment for record in found.records],
        data=[_data(found.data)],
    )


def _claim(ladder: Sequence[ConvNetRecord], landscapes: Sequence[ConvNetRecord]) -> list[Entry]:
    found = claim.assemble(ladder, landscapes)
    about: dict[str, Any] = {"caption": found.caption, "rerun": _claim_again(found)}
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


def _audit(record: AuditRecord) -> list[Entry]:
    about: dict[str, Any] = {"rerun": _audit_again(record), "environments": [record.environment]}
    about["data"] = [_data(record.data), _data(record.questions_data)]
    flaws = Entry(
        title="The solved notebook, audited",
        question=QUESTIONS["audit"],
        file_name="audit.png",
        figure=audit.figure(record),
        alt=audit.alt_text(),
        caption=audit.caption(record),
        tables=[
            (
                "Each flaw on hw4's own models and data; ratios have 95% intervals over paired seeds",
                audit.HEADER,
                audit.rows(record),
            )
        ],
        answer=audit.answers(record),
        **about,
    )
    if record.notebook is None:
        return [flaws]
    found = notebook.reproduce(record.notebook)
    numbers = Entry(
        title="The solved notebook, number by number",
        question=QUESTIONS["notebook"],
        file_name="notebook.png",
        figure=notebook.figure(found),
        alt=notebook.alt_text(),
        caption=notebook.caption(record.notebook),
        tables=[
            ("What lies inside our 95% prediction intervals", notebook.RUN_HEADER, notebook.run_rows(found)),
            ("Text CNNs; p-values are Holm's over all tests", notebook.STRIDE_HEADER, notebook.stride_rows(found)),
            ("Every number, with our interval", notebook.NUMBER_HEADER, notebook.number_rows(found)),
        ],
        answer=notebook.answers(found),
        **about,
    )
    return [flaws, numbers]


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

"""The report: all that a folder holds, as one self-contained page, or as figures and words for a notebook."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2

from hw4.errors import AloneError, RecordError
from hw4.files import write_atomically
from hw4.records import RunNote, Store
from hw4.report import STUDIES
from hw4.report.drawing import DEFAULT_STYLE, png, svg
from hw4.report.entry import Entry

FILE_NAME = re.compile(r"File: <code>([\w.+-]+\.png)</code>")  # how the page names a figure's file


@dataclass(frozen=True)
class Report:
    """All parts that a folder holds, in the order of the page.

    ``absent`` names what was asked for and is not there, with the reason; ``notes`` are said before everything else.
    """

    entries: Sequence[Entry] = field(default_factory=list)
    absent: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @DEFAULT_STYLE
    def write(self, folder: Path | str) -> Path:
        """Write a self-contained ``index.html`` and every figure as PNG into ``folder``; returns the page's path.

        Figures of the page before that are on this one no more are removed.
        """
        folder = Path(folder)
        drawn = [(entry, entry.figure) for entry in self.entries if entry.figure is not None]
        pngs = {entry.file_name: png(figure, entry.title, entry.caption) for entry, figure in drawn}
        templates = jinja2.Environment(
            loader=jinja2.PackageLoader("hw4.report", "."),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        page = templates.get_template("index.html.jinja").render(
            report=self, panels={entry.file_name: svg(figure, entry.anchor) for entry, figure in drawn}
        )
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "index.html"
        before = set(FILE_NAME.findall(path.read_text(errors="replace"))) if path.exists() else set()
        for name, contents in pngs.items():
            write_atomically(folder / name, contents)
        write_atomically(path, page.encode(errors="backslashreplace"))  # a path may hold bytes that are no letters
        for name in before - pngs.keys():
            (folder / name).unlink(missing_ok=True)
        return path

    def as_json(self) -> dict[str, Any]:
        """Questions, answers and tables of every part, for scripts."""
        return {
            entry.title: {
                "question": entry.question,
                "answer": list(entry.answer),
                "rerun": entry.rerun,
                "tables": [
                    {"caption": caption, "header": list(header), "rows": list(map(list, rows))}
                    for caption, header, rows in entry.tables
                ],
            }
            for entry in self.entries
        }


@DEFAULT_STYLE
def load_report(folder: Path | str, *, anyway: bool = False, whole: bool = True) -> Report:
    """Read every record below a folder that ``hw4`` wrote to, and bring them into figures, tables and words.

    The exercises' records lie in ``records/`` and ``controls/``, those of ``hw4 claim`` and ``hw4 audit`` in ``claim/``
    and ``audit/``; the newest saved benchmarks and the last gate are looked for below the folder and beside it.
    ``anyway`` lets an incomplete or mixed sweep pass. Raises RecordError when there is nothing, or when records cannot
    stand together; a report that need not be ``whole`` names such a part, and why it is absent, instead. Networks that
    were trained alone are noted beside whatever else there is.
    """
    folder = Path(folder)
    nothing = f"there are no records in {folder}; make them with 'hw4 run --out {shlex.quote(str(folder))}'"
    if not folder.is_dir():  # a page of its neighbours alone would hide a slip of the pen
        raise RecordError(nothing)
    note = Store(folder, RunNote).load("run")
    absent, notes, entries = dict(note.failed) if note else {}, list(note.notes) if note else [], list[Entry]()
    alone: dict[str, str] = {}
    for title, study in STUDIES:
        try:
            entries += study(folder, anyway)
        except AloneError as error:
            alone[title] = str(error)
        except RecordError as error:
            if whole:
                raise
            absent.setdefault(title, str(error))
    notes += [note for entry in entries for note in entry.notes]
    for title in [title for title in absent if any(entry.title.startswith(title) for entry in entries)]:
        notes.append(f"{title} is not whole: {absent.pop(title)}.")
    if not entries and (absent or alone):
        reasons = "; ".join(f"{title}: {reason}" for title, reason in (absent | alone).items())
        raise RecordError(f"nothing in {folder} can be reported ({reasons})")
    if not entries:
        raise RecordError(nothing)
    exercises_first = sorted(entries, key=lambda entry: entry.title if entry.title.startswith("Exercise") else "Others")
    return Report(exercises_first, absent, [*notes, *(f"{title}: {reason}." for title, reason in alone.items())])

"""The report page: one self-contained HTML file, and the figures beside it as PNG."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from hw4.files import write_atomically
from hw4.records import ConvNetRecord
from hw4.report.figures import alt_text, figure
from hw4.report.findings import Section, sections


def write_report(records: Sequence[ConvNetRecord], folder: Path) -> Path:
    """Write ``index.html`` and one PNG per exercise and setting into ``folder``; returns the page's path.

    Raises RecordError when the records cannot be reported together, before anything is written.
    """
    found = sections(records)
    entries = []
    for section in found:
        buffer = io.BytesIO()
        figure(section).savefig(buffer, format="png", metadata={"Software": None})
        entries.append((section, _file_name(section, found), buffer.getvalue()))
    environment = Environment(loader=PackageLoader("hw4.report", "."), autoescape=True, undefined=StrictUndefined)
    page = environment.get_template("index.html.jinja").render(
        sections=[
            {"section": section, "png": name, "alt": alt_text(section), "data": base64.b64encode(png).decode()}
            for section, name, png in entries
        ],
        runs=records,
    )
    folder.mkdir(parents=True, exist_ok=True)
    for _, name, png in entries:
        write_atomically(folder / name, png)
    path = folder / "index.html"
    write_atomically(path, page.encode())
    return path


def _file_name(section: Section, found: Sequence[Section]) -> str:
    """File of a section's figure: the exercise, and the setting's key where several settings are reported."""
    alone = len({other.setting for other in found}) == 1
    return f"{section.exercise}.png" if alone else f"{section.exercise}_{section.setting.key}.png"

"""What the gate says: a finding for each thing it looked at, one verdict over all, as a table, JSON and JUnit XML."""

import json
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

from hw4.errors import Hw4Error

Part = Literal["timing", "accuracy"]
Verdict = Literal["PASS", "NEW", "REGRESSION", "CHANGED", "SUSPICIOUS", "UNMEASURABLE"]
FAILING: tuple[Verdict, ...] = ("REGRESSION", "CHANGED", "SUSPICIOUS")
EXIT_CODES = {"PASS": 0, "REGRESSION": 1, "CHANGED": 1, "SUSPICIOUS": 1, "UNMEASURABLE": 3}


class UnmeasurableError(Hw4Error):
    """Nothing can be said about a part, for a reason that is known before or while measuring."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One row: what was looked at, before and now in words, the change with its interval, verdict and way out.

    ``numbers`` are what the words come from.
    """

    part: Part
    what: str
    before: str
    now: str
    change: str
    verdict: Verdict
    advice: str = ""
    numbers: dict[str, float] = field(default_factory=dict)


def refusal(part: Part, what: str, sentence: str) -> Finding:
    """A finding that says why something cannot be measured."""
    return Finding(part=part, what=what, before="-", now="-", change="-", verdict="UNMEASURABLE", advice=sentence)


def overall(findings: Sequence[Finding]) -> Verdict:
    """One verdict: a failure in a part that measured itself sound, else anything unmeasurable, else PASS.

    Within a part one unmeasurable finding takes the whole part's word away: a ruler that is wrong once is not read.
    Nothing found, or nothing but new things, is nothing measured.
    """
    unsound = {finding.part for finding in findings if finding.verdict == "UNMEASURABLE"}
    for verdict in FAILING:
        if any(finding.verdict == verdict and finding.part not in unsound for finding in findings):
            return verdict
    for part in {finding.part for finding in findings}:
        if all(finding.verdict == "NEW" for finding in findings if finding.part == part):
            unsound.add(part)
    return "UNMEASURABLE" if unsound or not findings else "PASS"


def table(findings: Sequence[Finding]) -> str:
    """The findings as lines of text, columns aligned, advice below the row it belongs to."""
    header = ("", "before", "now", "change", "verdict")
    rows = [(f"{f.part}: {f.what}", f.before, f.now, f.change, f.verdict) for f in findings]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(header, widths, strict=True)).rstrip()]
    for row, finding in zip(rows, findings, strict=True):
        lines.append("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        if finding.advice:
            lines.append(f"    {finding.advice}")
    return "\n".join(lines)


def as_json(findings: Sequence[Finding], facts: Mapping[str, object]) -> bytes:
    """The findings, the verdict over all and what is known of the circumstances."""
    verdict = overall(findings)
    document = {
        "verdict": verdict,
        "exit_code": EXIT_CODES[verdict],
        **facts,
        "findings": [asdict(finding) for finding in findings],
    }
    return (json.dumps(document, indent=1) + "\n").encode()


def as_junit(findings: Sequence[Finding]) -> bytes:
    """The findings as JUnit XML: failures fail, what could not be measured is an error, what is new is skipped."""
    suite = ET.Element("testsuite", name="hw4 gate", tests=str(len(findings)))
    kinds = {"failure": 0, "error": 0, "skipped": 0}
    for finding in findings:
        case = ET.SubElement(suite, "testcase", classname=f"hw4.gate.{finding.part}", name=finding.what)
        if finding.verdict == "PASS":
            continue
        kind = {"UNMEASURABLE": "error", "NEW": "skipped"}.get(finding.verdict, "failure")
        kinds[kind] += 1
        message = f"{finding.verdict}: before {finding.before}, now {finding.now}, change {finding.change}"
        ET.SubElement(case, kind, message=message, type=finding.verdict).text = finding.advice
    suite.set("failures", str(kinds["failure"]))
    suite.set("errors", str(kinds["error"]))
    suite.set("skipped", str(kinds["skipped"]))
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ET.tostring(root, encoding="unicode")}\n'.encode()

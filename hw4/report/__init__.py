"""Records to figures, words and a page. Nothing here trains or knows of torch; equal records give an equal report."""

from collections.abc import Callable
from pathlib import Path

from hw4.report import audit, benchmarks, claim, exercises, gate, strides
from hw4.report.entry import Entry

STUDIES: tuple[tuple[str, Callable[[Path, bool], list[Entry]]], ...] = (
    ("Exercises 1 and 3", exercises.load),
    ("Exercise 2", strides.load),
    ("The claim", claim.load),
    ("The audit", audit.load),
    ("The benchmarks", benchmarks.load),
    ("The gate", gate.load),
)
"""What the page says where a study cannot be reported, and what makes its parts of the report, in the page's order.

That takes the folder of the records, and whether an incomplete or mixed sweep passes; it gives no parts where there
are no records of the study, and raises RecordError for what cannot be reported.
"""

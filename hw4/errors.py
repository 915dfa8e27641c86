"""Errors meant for the person at the terminal: one sentence with the value, what was expected and the way out."""

from pydantic import ValidationError


class Hw4Error(Exception):
    """Base of every error that the command line prints as one sentence instead of a traceback."""


class DataError(Hw4Error):
    """A data file is missing, cut short, altered, not what its name says, or could not be downloaded."""


class RecordError(Hw4Error):
    """A record file cannot be read as a record of this version, or a set of records cannot be reported together."""


class AloneError(RecordError):
    """Networks of which none stands beside what it is compared with: no fault, but nothing to report either."""


class SpecError(Hw4Error, ValueError):
    """A run was described with values that cannot be run."""


class WorkersError(Hw4Error):
    """Other machines cannot be given work, or are gone: nothing more can be made there."""


class ObjectiveError(Hw4Error, ValueError):
    """The loss is no fixed function of the parameters, no mean over the examples, or cannot be measured; says why."""


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def first_problem(error: ValidationError) -> str:
    """Say the first problem of a pydantic error: the field, its value and what was expected."""
    problem = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in problem["loc"]) or "document"
    return f"{field} is {problem['input']!r:.60}, but {problem['msg'][0].lower()}{problem['msg'][1:]}"

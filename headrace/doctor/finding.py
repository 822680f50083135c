"""One thing that is wrong, or soon will be."""

from dataclasses import dataclass
from typing import Literal

from headrace.errors import HeadraceError

Severity = Literal["error", "warning", "note"]
"""error: something does not work or is lost; warning: it soon will be; note: good to know."""


@dataclass(frozen=True)
class Finding:
    """What is wrong with a part, and what to do about it."""

    severity: Severity
    part: str
    problem: str
    value: str | None
    """What it is about: a path, an id, a figure."""
    advice: str


def error(part: str, problem: str, value: object, advice: str) -> Finding:
    return Finding("error", part, problem, None if value is None else str(value), advice)


def of_error(part: str, fault: HeadraceError) -> Finding:
    return error(part, fault.problem, fault.value, fault.next_step)


def warning(part: str, problem: str, value: object, advice: str) -> Finding:
    return Finding("warning", part, problem, None if value is None else str(value), advice)


def note(part: str, problem: str, value: object, advice: str) -> Finding:
    return Finding("note", part, problem, None if value is None else str(value), advice)

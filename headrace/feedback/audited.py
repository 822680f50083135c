"""Answers that were drawn for an audit, as far as those who answered it count (trust.not_counted)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from headrace.feedback.sources import author_of
from headrace.feedback.trust import NotCounted
from headrace.store import audits as rows

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, RowMapping


def drawn(conn: "Connection", task: str, is_nothing: NotCounted, *, first: str, before: str) -> list[dict[str, Any]]:
    """`store.audits.drawn`, each answer once: an audit that counts nothing is one that nobody has answered.

    Args:
        is_nothing: says whether what a source said counts nothing.
    """
    found: dict[str, dict[str, Any]] = {}
    for row in rows.drawn(conn, task, first=first, before=before):
        one = dict(row) | {"is_answered": is_heard(row, is_nothing)}
        if one["is_answered"] or row["prediction_id"] not in found:
            found[row["prediction_id"]] = one
    return list(found.values())


def unheard(
    conn: "Connection", task: str, is_nothing: NotCounted, *, first: str, before: str
) -> "dict[str, Sequence[RowMapping]]":
    """Prediction to its audits, of those that were all answered by somebody who counts nothing."""
    found: dict[str, list[RowMapping]] = {}
    for row in rows.drawn(conn, task, first=first, before=before):
        found.setdefault(row["prediction_id"], []).append(row)
    return {
        prediction_id: lines
        for prediction_id, lines in found.items()
        if all(line["is_answered"] and not is_heard(line, is_nothing) for line in lines)
    }


def is_heard(row: "RowMapping", is_nothing: NotCounted) -> bool:
    """Whether an audit was answered by somebody who counts."""
    return bool(row["is_answered"]) and not is_nothing(author_of(row), row["answered_at"])

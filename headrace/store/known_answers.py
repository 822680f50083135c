"""Known answers: inputs whose answer is known, in force or retired."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.engine import Connection, RowMapping

from headrace.records import KnownAnswer
from headrace.store import schema
from headrace.store.noun import as_records, one_or_none
from headrace.store.votes import OWNER

_KNOWN = schema.known_answers
_REVIEWS = schema.reviews
_CHANNELS = schema.channels


def add(conn: Connection, known: Sequence[KnownAnswer]) -> None:
    if known:
        conn.execute(insert(_KNOWN), [dict(vars(one)) for one in known])


def renew(conn: Connection, known_id: str, *, answer: Any) -> None:
    """Put one into force, or give it another answer."""
    conn.execute(update(_KNOWN).where(_KNOWN.c.id == known_id).values(answer=answer, retired_at=None))


def retire(conn: Connection, known_id: str, at: datetime) -> None:
    conn.execute(update(_KNOWN).where(_KNOWN.c.id == known_id).values(retired_at=at))


def find(conn: Connection, known_id: str) -> KnownAnswer | None:
    return one_or_none(KnownAnswer, conn.execute(select(_KNOWN).where(_KNOWN.c.id == known_id)).mappings().first())


def listing(conn: Connection, task: str, *, retired: bool = False) -> list[KnownAnswer]:
    """Those in force, in the order they came.

    Args:
        retired: the others, too.
    """
    query = select(_KNOWN).where(_KNOWN.c.task == task).order_by(_KNOWN.c.created_at, _KNOWN.c.id)
    if not retired:
        query = query.where(_KNOWN.c.retired_at.is_(None))
    return as_records(KnownAnswer, conn.execute(query).mappings().all())


def reviewed(conn: Connection, task: str) -> Sequence[RowMapping]:
    """What sources said in reviews to known questions that are in force, in the order of the answers.

    Columns: known_answer_id, text_hash, channel, labeller, key_id, answer, at.
    """
    query = (
        select(
            _REVIEWS.c.known_answer_id,
            _KNOWN.c.text_hash,
            _CHANNELS.c.name.label("channel"),
            _REVIEWS.c.labeller,
            _REVIEWS.c.key_id,
            _REVIEWS.c.answer,
            _REVIEWS.c.answered_at.label("at"),
        )
        .join(_KNOWN, _KNOWN.c.id == _REVIEWS.c.known_answer_id)
        .join(_CHANNELS, _CHANNELS.c.id == _REVIEWS.c.channel_id)
        .where(_REVIEWS.c.task == task, _REVIEWS.c.state == "answered", _KNOWN.c.retired_at.is_(None))
        .where(_REVIEWS.c.labeller != OWNER, _REVIEWS.c.answer.is_not(None))
        .order_by(_REVIEWS.c.answered_at, _REVIEWS.c.id)
    )
    return conn.execute(query).mappings().all()

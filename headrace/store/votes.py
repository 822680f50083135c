"""Labels that people gave here, as feedback or in reviews, with who gave them and when; and when corrections came."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import func, select
from sqlalchemy.engine import Connection

from headrace.store import schema

_CHANNELS = schema.channels
_LABELLERS = schema.labellers
_EXAMPLES = schema.examples
_LABELS = schema.labels
_GROUPS = schema.split_groups
_FEEDBACK = schema.feedback
_PREDICTIONS = schema.predictions
_REVIEWS = schema.reviews
_KNOWN = schema.known_answers


OF_SOURCES = ("feedback", "review")
"""Origins of labels that count by what is known of who gave them; all others are of who runs the workspace."""

OWNER = "owner"
"""Labeller, and origin of the labels, of what who runs the workspace says here. No source has this name."""


class CastVote(NamedTuple):
    """A labeller's latest label on an example, made of feedback or given in a review."""

    example_id: str
    channel: str
    labeller: str
    value: Any
    at: datetime
    text_hash: str
    side: str | None
    """None: not split yet."""
    labelled_at: datetime
    """When the feedback became a label."""
    is_checked: bool
    """Whether the example has labels of who runs the workspace."""
    is_review: bool = False
    labeller_id: str = ""
    key_id: str | None = None


T = TypeVar("T")
Who = tuple[str, str | None]
"""A labeller, and the key through which he or she speaks."""


def after(said: Mapping[Who, T], who: Who, now: T) -> dict[Who, T]:
    """What stands of what was said of one thing, after somebody spoke again.

    It takes the place of what the same labeller said through the same key. Without a key it is said by who runs the
    workspace, and takes the place of all that this labeller said.
    """
    labeller, key_id = who
    stands = {one: was for one, was in said.items() if one[0] != labeller or key_id not in (None, one[1])}
    return {**stands, who: now}


def cast(conn: Connection, task: str, *, on_known: bool = False) -> list[CastVote]:
    """All votes of a task, those on an example side by side, in an order that no workspace-made id decides.

    Args:
        on_known: only those on inputs whose answer is known.
    """
    checked = _LABELS.alias("checked")
    is_checked = (
        select(checked.c.id)
        .where(checked.c.example_id == _EXAMPLES.c.id, checked.c.task == task, checked.c.origin.not_in(OF_SOURCES))
        .correlate(_EXAMPLES)
        .exists()
    )
    query = (
        select(
            _EXAMPLES.c.id,
            _CHANNELS.c.name,
            _LABELLERS.c.name,
            _LABELS.c.value,
            func.coalesce(_FEEDBACK.c.at, _LABELS.c.created_at, type_=schema.Instant),
            _EXAMPLES.c.text_hash,
            _GROUPS.c.side,
            _LABELS.c.created_at,
            is_checked,
            _LABELS.c.origin == "review",
            _LABELS.c.labeller_id,
            _LABELS.c.key_id,
        )
        .select_from(_LABELS)
        .join(_EXAMPLES, _EXAMPLES.c.id == _LABELS.c.example_id)
        .join(_LABELLERS, _LABELLERS.c.id == _LABELS.c.labeller_id)
        .join(_CHANNELS, _CHANNELS.c.id == _EXAMPLES.c.channel_id)
        .outerjoin(_GROUPS, _GROUPS.c.group_key == _EXAMPLES.c.group_key)
        .outerjoin(_FEEDBACK, _FEEDBACK.c.id == _LABELS.c.feedback_id)
        .where(_LABELS.c.task == task, _LABELS.c.origin.in_(OF_SOURCES))
        .order_by(_CHANNELS.c.name, _EXAMPLES.c.key, _LABELLERS.c.name, _LABELS.c.created_at, _LABELS.c.id)
    )
    if on_known:
        known = select(_KNOWN.c.text_hash).where(_KNOWN.c.task == task, _KNOWN.c.retired_at.is_(None))
        query = query.where(_EXAMPLES.c.text_hash.in_(known))
    latest: dict[str, dict[Who, CastVote]] = {}
    for row in conn.execute(query):
        vote = CastVote(*row[:8], *map(bool, row[8:10]), *row[10:])
        latest[vote.example_id] = after(latest.get(vote.example_id, {}), (vote.labeller, vote.key_id), vote)
    return [vote for votes in latest.values() for vote in votes.values()]


def n_checked(conn: Connection, task: str, side: str) -> int:
    """Examples of a side that have a label of who runs the workspace."""
    query = (
        select(func.count(_LABELS.c.example_id.distinct()))
        .join(_EXAMPLES, _EXAMPLES.c.id == _LABELS.c.example_id)
        .join(_GROUPS, _GROUPS.c.group_key == _EXAMPLES.c.group_key)
        .where(_LABELS.c.task == task, _LABELS.c.origin.not_in(OF_SOURCES), _GROUPS.c.side == side)
    )
    return conn.execute(query).scalar_one()


def volunteered(conn: Connection, task: str, since: datetime) -> Iterator[tuple[str, str, datetime]]:
    """(channel, labeller, instant) of sources' corrections from an instant on, without those reviews asked for."""
    asked_for = (
        select(_REVIEWS.c.id)
        .where(_REVIEWS.c.prediction_id == _FEEDBACK.c.prediction_id, _REVIEWS.c.labeller == _FEEDBACK.c.labeller)
        .where(_REVIEWS.c.state == "answered", _REVIEWS.c.key_id.is_not_distinct_from(_FEEDBACK.c.key_id))
        .correlate(_FEEDBACK)
        .exists()
    )
    query = (
        select(_CHANNELS.c.name, _FEEDBACK.c.labeller, _FEEDBACK.c.at)
        .join(_PREDICTIONS, _PREDICTIONS.c.id == _FEEDBACK.c.prediction_id)
        .join(_CHANNELS, _CHANNELS.c.id == _PREDICTIONS.c.channel_id)
        .where(_FEEDBACK.c.kind == "correction", _PREDICTIONS.c.task == task, ~asked_for)
        .where(_FEEDBACK.c.at >= since, _FEEDBACK.c.labeller != OWNER)
        .order_by(_FEEDBACK.c.at, _FEEDBACK.c.id)
    )
    return ((channel, labeller, at) for channel, labeller, at in conn.execute(query))

"""The review queue, and what it is filled from: logged answers, examples, known answers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, insert, or_, select, update
from sqlalchemy.engine import Connection

from headrace.ids import first_id
from headrace.records import Input
from headrace.store import schema
from headrace.store.noun import as_record, in_parts, lock_table, origin

_REVIEWS = schema.reviews
_PREDICTIONS = schema.predictions
_FEEDBACK = schema.feedback
_EXAMPLES = schema.examples
_KNOWN = schema.known_answers
_LABELS = schema.labels
_CHANNELS = schema.channels
_ABOUT = ("prediction_id", "example_id", "known_answer_id", "release_id")
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Review:
    """A question to people: about an answer, an example, or one whose answer is known."""

    id: str
    task: str
    channel: str
    reason: str
    """audit | disagreement | label-error | useful | random | known; not shown to who is asked."""
    prediction_id: str | None
    example_id: str | None
    known_answer_id: str | None
    release_id: str | None
    probability: float | None
    """With which it was drawn; None: it was chosen."""
    priority: float
    """The greater, the sooner."""
    state: str
    """open | answered | skipped"""
    answer: Any
    labeller: str | None
    """Who answered; of an open known question, who is asked."""
    created_at: datetime
    answered_at: datetime | None
    text: str | None
    """None where the store has it no more."""
    text_pair: str | None
    output: Mapping[str, Any] | None
    """What was answered, of a review about an answer."""
    key_id: str | None = None
    """Through which it was answered; None: through none."""

    @property
    def is_blind(self) -> bool:
        """Whether it is judged without what the model said: figures rest on what was drawn for them."""
        return self.reason == "audit" or (self.reason == "disagreement" and self.probability is not None)

    @property
    def input(self) -> Input | None:
        return self.text if self.text is None or self.text_pair is None else (self.text, self.text_pair)


def add(conn: Connection, reviews: Sequence[Mapping[str, Any]], *, config_hash: str) -> None:
    """Open reviews; each mapping has the columns that differ from their defaults."""
    if reviews:
        blank = dict.fromkeys((*_ABOUT, "probability", "answer", "labeller", "answered_at"))
        same = {**blank, "state": "open", **origin(config_hash)}
        conn.execute(insert(_REVIEWS), [{**same, **review} for review in reviews])


def lock(conn: Connection) -> None:
    """Let no other process open reviews until this transaction ends."""
    lock_table(conn, _REVIEWS)


def find(conn: Connection, review_id: str) -> Review | None:
    found = conn.execute(_shown().where(_REVIEWS.c.id == review_id)).mappings().first()
    return None if found is None else as_record(Review, found)


def listing(
    conn: Connection, task: str, *, state: str | None = None, reason: str | None = None, limit: int | None = None
) -> list[Review]:
    """Reviews of a task, the most pressing first, with what they ask about where that is still there."""
    query = _shown().where(_REVIEWS.c.task == task).order_by(_REVIEWS.c.priority.desc(), _REVIEWS.c.id)
    if state is not None:
        query = query.where(_REVIEWS.c.state == state)
    if reason is not None:
        query = query.where(_REVIEWS.c.reason == reason)
    return [as_record(Review, row) for row in conn.execute(query.limit(limit)).mappings()]


def waiting(conn: Connection, task: str, labeller: str, *, channel: str | None, limit: int) -> list[Review]:
    """Open reviews that anybody may answer and whose text is at hand, the most pressing first.

    A labeller is not asked again about an answer that he or she has reviewed.
    """
    mine = _REVIEWS.alias("mine")
    is_done = select(mine.c.id).where(
        mine.c.prediction_id == _REVIEWS.c.prediction_id, mine.c.labeller == labeller, mine.c.state == "answered"
    )
    query = _shown().where(_REVIEWS.c.task == task, _REVIEWS.c.state == "open", _REVIEWS.c.reason != "known")
    if channel is not None:
        query = query.where(_CHANNELS.c.name == channel)
    query = query.where(or_(_PREDICTIONS.c.text.is_not(None), _EXAMPLES.c.text.is_not(None)), ~is_done.exists())
    query = query.order_by(_REVIEWS.c.priority.desc(), _REVIEWS.c.id).limit(limit)
    return [as_record(Review, row) for row in conn.execute(query).mappings()]


def known_asked(conn: Connection, task: str, labeller: str) -> list[Review]:
    """Known questions that a labeller was asked, answered or not, in order."""
    query = _shown().where(_REVIEWS.c.task == task, _REVIEWS.c.reason == "known", _REVIEWS.c.labeller == labeller)
    return [as_record(Review, row) for row in conn.execute(query.order_by(_REVIEWS.c.id)).mappings()]


def unasked_known(conn: Connection, task: str, labeller: str) -> str | None:
    """A known answer that is in use and about which a labeller was not asked: the one asked least; None: all were."""
    asked = select(_REVIEWS.c.id).where(_REVIEWS.c.known_answer_id == _KNOWN.c.id).correlate(_KNOWN)
    n_asked = select(func.count()).where(_REVIEWS.c.known_answer_id == _KNOWN.c.id).correlate(_KNOWN).scalar_subquery()
    query = select(_KNOWN.c.id).where(_KNOWN.c.task == task, _KNOWN.c.retired_at.is_(None))
    query = query.where(~asked.where(_REVIEWS.c.labeller == labeller).exists())
    found: str | None = conn.execute(query.order_by(n_asked, _KNOWN.c.id).limit(1)).scalar()
    return found


def n_answered(conn: Connection, task: str, labeller: str) -> int:
    """Reviews that a labeller has answered."""
    mine = and_(_REVIEWS.c.task == task, _REVIEWS.c.labeller == labeller, _REVIEWS.c.state == "answered")
    return conn.execute(select(func.count()).select_from(_REVIEWS).where(mine)).scalar_one()


def n_open(conn: Connection, task: str) -> dict[str, int]:
    """Reason to the number of open reviews."""
    query = select(_REVIEWS.c.reason, func.count()).where(_REVIEWS.c.task == task, _REVIEWS.c.state == "open")
    return {reason: n for reason, n in conn.execute(query.group_by(_REVIEWS.c.reason))}


def unanswered(conn: Connection, release_id: str) -> tuple[int, datetime | None]:
    """How many questions about a release's differences wait for an answer, and since when the oldest does."""
    waiting = and_(_REVIEWS.c.release_id == release_id, _REVIEWS.c.state == "open", _REVIEWS.c.probability.is_not(None))
    n, oldest = conn.execute(select(func.count(), func.min(_REVIEWS.c.created_at)).where(waiting)).one()
    return n, oldest


def settle(
    conn: Connection,
    review_id: str,
    state: str,
    answer: Any,
    labeller: str,
    key_id: str | None,
    at: datetime,
    *,
    was: str = "open",
) -> bool:
    """Close a review; False when another one was faster."""
    query = update(_REVIEWS).where(_REVIEWS.c.id == review_id, _REVIEWS.c.state == was)
    values = {"state": state, "answer": answer, "labeller": labeller, "key_id": key_id, "answered_at": at}
    return conn.execute(query.values(**values)).rowcount == 1


def skip_lost(conn: Connection, task: str, at: datetime) -> int:
    """Skip open reviews whose answer has left the store; how many."""
    there = select(_PREDICTIONS.c.id).where(_PREDICTIONS.c.id == _REVIEWS.c.prediction_id).exists()
    lost = and_(_REVIEWS.c.prediction_id.is_not(None), ~there)
    query = update(_REVIEWS).where(_REVIEWS.c.task == task, _REVIEWS.c.state == "open", lost)
    return conn.execute(query.values(state="skipped", answered_at=at)).rowcount


def skip_of_ended_releases(conn: Connection, task: str, at: datetime) -> int:
    """Skip open disagreements that a release asked for which has ended; how many."""
    is_open = select(schema.releases.c.id).where(schema.releases.c.state == "open").scalar_subquery()
    query = update(_REVIEWS).where(_REVIEWS.c.task == task, _REVIEWS.c.state == "open")
    query = query.where(_REVIEWS.c.release_id.is_not(None), _REVIEWS.c.release_id.not_in(is_open))
    return conn.execute(query.values(state="skipped", answered_at=at)).rowcount


def auditable(conn: Connection, task: str, *, after: str) -> Iterator[tuple[str, str, float]]:
    """(id, id of the channel, probability) of answers that could be drawn for an audit, in the order of their ids.

    Args:
        after: id from which on to look.
    """
    columns = (_PREDICTIONS.c.id, _PREDICTIONS.c.channel_id, _PREDICTIONS.c.audit_probability)
    query = select(*columns).where(_PREDICTIONS.c.id > after, _could_be_audited(task)).order_by(_PREDICTIONS.c.id)
    for row in conn.execute(query, execution_options={"yield_per": 2000}):
        yield row[0], row[1], row[2]


def newest_audit(conn: Connection, task: str) -> str | None:
    """The newest prediction that a review audits."""
    query = select(func.max(_REVIEWS.c.prediction_id)).where(_REVIEWS.c.task == task, _REVIEWS.c.reason == "audit")
    found: str | None = conn.execute(query).scalar()
    return found


def disagreements(conn: Connection, release_id: str, *, limit: int) -> Rows:
    """Inputs that both arms of a shadow release answered, without a correction or a review, the newest first.

    Columns: prediction_id and channel_id of the control's answer, control and candidate (outputs).
    """
    control, shadow = _PREDICTIONS.alias("control"), _PREDICTIONS.alias("shadow")
    query = (
        select(
            control.c.id.label("prediction_id"),
            control.c.channel_id,
            control.c.output.label("control"),
            shadow.c.output.label("candidate"),
        )
        .select_from(shadow)
        .join(control, and_(control.c.request_id == shadow.c.request_id, control.c.row == shadow.c.row))
        .where(shadow.c.release_id == release_id, shadow.c.arm == "shadow", shadow.c.error.is_(None))
        .where(control.c.arm == "control", control.c.error.is_(None), control.c.text.is_not(None))
        .where(~_is_corrected(control), ~_is_reviewed(control))
        .order_by(shadow.c.id.desc())
        .limit(limit)
    )
    return [dict(row) for row in conn.execute(query).mappings()]


def unlabelled(conn: Connection, task: str, *, limit: int) -> Rows:
    """Answers to users without a correction or a review, the newest first; columns id, channel_id, text_hash, output.

    Inputs whose channel has a label for their text are left out: there is nothing to learn about them.
    """
    p = _PREDICTIONS.c
    labelled = (
        select(_LABELS.c.id)
        .join(_EXAMPLES, _EXAMPLES.c.id == _LABELS.c.example_id)
        .where(_EXAMPLES.c.text_hash == p.text_hash, _EXAMPLES.c.channel_id == p.channel_id, _LABELS.c.task == task)
        .correlate(_PREDICTIONS)
        .exists()
    )
    query = (
        select(p.id, p.channel_id, p.text_hash, p.output)
        .where(p.task == task, p.arm != "shadow", p.error.is_(None), p.text.is_not(None))
        .where(~_is_corrected(_PREDICTIONS), ~_is_reviewed(_PREDICTIONS), ~labelled)
        .order_by(p.id.desc())
        .limit(limit)
    )
    return [dict(row) for row in conn.execute(query).mappings()]


def places_of(conn: Connection, example_ids: Sequence[str]) -> dict[str, str]:
    """Example id to the id of its channel, of those examples that are there."""
    found: dict[str, str] = {}
    for part in in_parts(example_ids):
        query = select(_EXAMPLES.c.id, _EXAMPLES.c.channel_id).where(_EXAMPLES.c.id.in_(part))
        found |= {example_id: channel_id for example_id, channel_id in conn.execute(query)}
    return found


def reviewed_examples(conn: Connection, task: str) -> set[str]:
    """Examples that a review asks or has asked about."""
    query = select(_REVIEWS.c.example_id).where(_REVIEWS.c.task == task, _REVIEWS.c.example_id.is_not(None))
    return set(conn.execute(query).scalars())


def reviewed_predictions(conn: Connection, task: str, ids: Sequence[str], *, reason: str | None = None) -> set[str]:
    """Those of the predictions about which there is a review for a reason; None: for any but an audit."""
    is_such = _REVIEWS.c.reason != "audit" if reason is None else _REVIEWS.c.reason == reason
    found: set[str] = set()
    for part in in_parts(ids):
        query = select(_REVIEWS.c.prediction_id).where(_REVIEWS.c.task == task, is_such)
        found.update(conn.execute(query.where(_REVIEWS.c.prediction_id.in_(part))).scalars())
    return found


def example(conn: Connection, example_id: str) -> Mapping[str, Any] | None:
    """An example by its id; columns channel_id, channel, text, text_pair."""
    columns = (_EXAMPLES.c.channel_id, _CHANNELS.c.name.label("channel"), _EXAMPLES.c.text, _EXAMPLES.c.text_pair)
    query = select(*columns).join(_CHANNELS, _CHANNELS.c.id == _EXAMPLES.c.channel_id)
    found = conn.execute(query.where(_EXAMPLES.c.id == example_id)).mappings().first()
    return None if found is None else dict(found)


def labels_of(
    conn: Connection, example_id: str, task: str, labeller_id: str, origin: str, key_id: str | None
) -> list[Any]:
    """What a labeller said of an example by labels of an origin, through a key, in order."""
    mine = and_(_LABELS.c.example_id == example_id, _LABELS.c.task == task, _LABELS.c.labeller_id == labeller_id)
    query = select(_LABELS.c.value).where(
        mine, _LABELS.c.origin == origin, _LABELS.c.key_id.is_not_distinct_from(key_id)
    )
    return list(conn.execute(query.order_by(_LABELS.c.created_at, _LABELS.c.id)).scalars())


def example_with(conn: Connection, channel_id: str, text_hash: str) -> str | None:
    """Id of a channel's first example with a text."""
    query = select(func.min(_EXAMPLES.c.id)).where(
        _EXAMPLES.c.channel_id == channel_id, _EXAMPLES.c.text_hash == text_hash
    )
    found: str | None = conn.execute(query).scalar()
    return found


def newest_prediction_with(
    conn: Connection, task: str, channel_id: str, text_hash: str, *, since: datetime
) -> str | None:
    """Id of the latest answer to a text of a channel from an instant on."""
    p = _PREDICTIONS.c
    query = select(func.max(p.id)).where(p.id >= first_id("prediction", since), p.task == task)
    query = query.where(p.channel_id == channel_id, p.text_hash == text_hash, p.arm != "shadow", p.error.is_(None))
    found: str | None = conn.execute(query).scalar()
    return found


def _shown() -> Select[Any]:
    """Reviews with the name of their channel and the text that they ask about, by whichever of three ways."""
    text, pair = (
        func.coalesce(*(table.c[name] for table in (_PREDICTIONS, _EXAMPLES, _KNOWN))).label(name)
        for name in ("text", "text_pair")
    )
    return (
        select(_REVIEWS, _CHANNELS.c.name.label("channel"), text, pair, _PREDICTIONS.c.output)
        .join(_CHANNELS, _CHANNELS.c.id == _REVIEWS.c.channel_id)
        .outerjoin(_PREDICTIONS, _PREDICTIONS.c.id == _REVIEWS.c.prediction_id)
        .outerjoin(_EXAMPLES, _EXAMPLES.c.id == _REVIEWS.c.example_id)
        .outerjoin(_KNOWN, _KNOWN.c.id == _REVIEWS.c.known_answer_id)
    )


def _could_be_audited(task: str) -> ColumnElement[bool]:
    return and_(_PREDICTIONS.c.task == task, _PREDICTIONS.c.audit_probability.is_not(None))


def _is_corrected(prediction: Any) -> ColumnElement[bool]:
    said = and_(_FEEDBACK.c.prediction_id == prediction.c.id, _FEEDBACK.c.kind == "correction")
    return select(_FEEDBACK.c.id).where(said).correlate(prediction).exists()


def _is_reviewed(prediction: Any) -> ColumnElement[bool]:
    return select(_REVIEWS.c.id).where(_REVIEWS.c.prediction_id == prediction.c.id).correlate(prediction).exists()

"""Rows taken out for good, and the tombstones that say so.

What goes is a list of steps, each a table with a condition; the order respects who refers to whom. A step is taken in
short transactions, so that a server's writes find gaps, and can be taken again after a kill. A question that was drawn
stays, without what was answered: it was drawn all the same, and a figure of those alone that others answered is none.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Table, Text, and_, cast, delete, func, insert, not_, or_, select, update
from sqlalchemy.engine import Connection

from headrace.store import schema
from headrace.store.noun import in_parts

_ERASURES = schema.erasures
_EXAMPLES = schema.examples
_LABELS = schema.labels
_LABELLERS = schema.labellers
_PREDICTIONS = schema.predictions
_FEEDBACK = schema.feedback
_REVIEWS = schema.reviews
_KNOWN = schema.known_answers
_IMPORTS = schema.imports
_QUARANTINE = schema.quarantine
SIDES = schema.split_groups.name
"""Table of the groups' sides: those without rows are left over."""
_WITH_TEXTS = {
    _EXAMPLES: (_EXAMPLES.c.text, _EXAMPLES.c.text_pair),
    _PREDICTIONS: (_PREDICTIONS.c.text, _PREDICTIONS.c.text_pair),
    _KNOWN: (_KNOWN.c.text, _KNOWN.c.text_pair),
    _FEEDBACK: (_FEEDBACK.c.comment,),
}
_OPEN_AGAIN: Mapping[str, Any] = {
    "state": "open",
    **dict.fromkeys(("answer", "labeller", "key_id", "answered_at")),
}
_NOTHING_TOLD: Mapping[str, Any] = {"description": "", "owner": "", "licence": ""}


class Erasure(NamedTuple):
    """A row of the table: what was erased, when, and what became of the versions that used it."""

    id: str
    kind: str
    subject: str
    facts: dict[str, Any]
    retrain_by: datetime
    rebuilt_at: datetime | None
    at: datetime
    receipt: dict[str, Any]


@dataclass(frozen=True)
class Doomed:
    """What is to go. Of a whole channel, all of it; else what is listed."""

    channel_id: str
    whole_channel: bool = False
    names: Collection[str] = ()
    """Labellers of the channel."""
    example_ids: Sequence[str] = ()
    """With all labels and reviews of them."""
    prediction_ids: Sequence[str] = ()
    """With all feedback on them."""
    text_hashes: Sequence[str] = ()
    """Of the inputs, whose known answers go too."""
    quarantined: Sequence[int] = field(default=())
    """Numbers of quarantined rows."""


class Step(NamedTuple):
    table: Table
    key: Any
    condition: ColumnElement[bool]
    instead: Mapping[str, Any] | None = None
    """What the rows hold afterwards, which stay then; None: they go."""


def steps(doomed: Doomed) -> Iterator[Step]:
    """What to delete or to empty, in order."""
    yield from _of_channel(doomed.channel_id) if doomed.whole_channel else _of_lists(doomed)
    key = schema.split_groups.c.group_key
    yield Step(schema.split_groups, key, key.not_in(select(_EXAMPLES.c.group_key)))
    streams = schema.drift_streams.c
    yield Step(schema.drift_streams, streams.version_id, streams.stream == "embeddings")  # holds vectors of inputs


def _of_channel(channel_id: str) -> Iterator[Step]:
    examples = select(_EXAMPLES.c.id).where(_EXAMPLES.c.channel_id == channel_id)
    predictions = select(_PREDICTIONS.c.id).where(_PREDICTIONS.c.channel_id == channel_id)
    labellers = select(_LABELLERS.c.id).where(_LABELLERS.c.channel_id == channel_id)
    imports = select(_IMPORTS.c.id).where(_IMPORTS.c.channel_id == channel_id)
    hashes = select(_EXAMPLES.c.text_hash)
    ours, theirs = (
        hashes.where(_EXAMPLES.c.channel_id == channel_id),
        hashes.where(_EXAMPLES.c.channel_id != channel_id),
    )
    known = and_(_KNOWN.c.text_hash.in_(ours), _KNOWN.c.text_hash.not_in(theirs))
    of_known = _REVIEWS.c.known_answer_id.in_(select(_KNOWN.c.id).where(known))
    about = or_(_REVIEWS.c.channel_id == channel_id, _REVIEWS.c.example_id.in_(examples), of_known)
    yield Step(_REVIEWS, _REVIEWS.c.id, about)
    yield Step(_KNOWN, _KNOWN.c.id, known)
    yield Step(_FEEDBACK, _FEEDBACK.c.id, _FEEDBACK.c.prediction_id.in_(predictions))
    yield Step(_LABELS, _LABELS.c.id, or_(_LABELS.c.example_id.in_(examples), _LABELS.c.labeller_id.in_(labellers)))
    yield Step(_EXAMPLES, _EXAMPLES.c.id, _EXAMPLES.c.channel_id == channel_id)
    yield Step(_PREDICTIONS, _PREDICTIONS.c.id, _PREDICTIONS.c.channel_id == channel_id)
    yield Step(_QUARANTINE, _QUARANTINE.c.seq, _QUARANTINE.c.import_id.in_(imports))
    yield Step(_IMPORTS, _IMPORTS.c.id, _IMPORTS.c.channel_id == channel_id)
    for table in (schema.suspensions, schema.alarms):
        yield Step(table, table.c.id, table.c.channel_id == channel_id)
    streams = schema.drift_streams
    yield Step(streams, streams.c.version_id, streams.c.channel_id == channel_id)
    yield Step(_LABELLERS, _LABELLERS.c.id, _LABELLERS.c.channel_id == channel_id)


def _of_lists(doomed: Doomed) -> Iterator[Step]:
    channel_id, names = doomed.channel_id, list(doomed.names)
    for hashes in in_parts(doomed.text_hashes):
        known = and_(_KNOWN.c.text_hash.in_(hashes), _KNOWN.c.text_hash.not_in(_elsewhere(channel_id, hashes)))
        yield Step(_REVIEWS, _REVIEWS.c.id, _REVIEWS.c.known_answer_id.in_(select(_KNOWN.c.id).where(known)))
        yield Step(_KNOWN, _KNOWN.c.id, known)
    for ids in in_parts(doomed.prediction_ids):
        yield Step(_REVIEWS, _REVIEWS.c.id, _REVIEWS.c.prediction_id.in_(ids))
        yield Step(_FEEDBACK, _FEEDBACK.c.id, _FEEDBACK.c.prediction_id.in_(ids))
    for ids in in_parts(doomed.example_ids):
        yield Step(_REVIEWS, _REVIEWS.c.id, _REVIEWS.c.example_id.in_(ids))
        yield Step(_LABELS, _LABELS.c.id, _LABELS.c.example_id.in_(ids))
    if names:
        yield from _of_labellers(channel_id, names)
    for ids in in_parts(doomed.example_ids):
        yield Step(_EXAMPLES, _EXAMPLES.c.id, _EXAMPLES.c.id.in_(ids))
    for ids in in_parts(doomed.prediction_ids):
        yield Step(_PREDICTIONS, _PREDICTIONS.c.id, _PREDICTIONS.c.id.in_(ids))
    for start in range(0, len(doomed.quarantined), 400):
        yield Step(_QUARANTINE, _QUARANTINE.c.seq, _QUARANTINE.c.seq.in_(doomed.quarantined[start : start + 400]))


def _elsewhere(channel_id: str, hashes: Sequence[str]) -> Any:
    """Of these inputs, those that another channel has, too."""
    query = select(_EXAMPLES.c.text_hash).where(_EXAMPLES.c.text_hash.in_(hashes))
    return query.where(_EXAMPLES.c.channel_id != channel_id)


def _of_labellers(channel_id: str, names: Sequence[str]) -> Iterator[Step]:
    """What labellers of a channel said, and that they are there."""
    predictions = select(_PREDICTIONS.c.id).where(_PREDICTIONS.c.channel_id == channel_id)
    mine = and_(_LABELLERS.c.channel_id == channel_id, _LABELLERS.c.name.in_(names))
    labellers = select(_LABELLERS.c.id).where(mine)
    reviewed = and_(_REVIEWS.c.channel_id == channel_id, _REVIEWS.c.labeller.in_(names))
    there = select(_PREDICTIONS.c.id).where(_PREDICTIONS.c.id == _REVIEWS.c.prediction_id).correlate(_REVIEWS).exists()
    is_drawn = and_(_REVIEWS.c.probability.is_not(None), there)
    yield Step(_REVIEWS, _REVIEWS.c.id, and_(reviewed, is_drawn), _OPEN_AGAIN)
    yield Step(_REVIEWS, _REVIEWS.c.id, and_(reviewed, not_(is_drawn)))
    said = and_(_FEEDBACK.c.labeller.in_(names), _FEEDBACK.c.prediction_id.in_(predictions))
    yield Step(_FEEDBACK, _FEEDBACK.c.id, said)
    yield Step(_LABELS, _LABELS.c.id, _LABELS.c.labeller_id.in_(labellers))
    suspended = schema.suspensions
    about = and_(suspended.c.channel_id == channel_id, suspended.c.labeller.in_(names))
    yield Step(suspended, suspended.c.id, about)
    yield Step(_LABELLERS, _LABELLERS.c.id, mine)


def counts(conn: Connection, doomed: Doomed) -> dict[str, int]:
    """Table to the rows that would go, each once, though several steps may mean it; without sides left over by them."""
    found: dict[str, int] = {}
    keys: dict[str, set[Any]] = {}
    for step in steps(doomed):
        name = step.table.name
        if name == SIDES or step.instead is not None:
            continue
        if doomed.whole_channel:  # one step a table
            found[name] = conn.execute(select(func.count()).select_from(step.table).where(step.condition)).scalar_one()
        else:
            keys.setdefault(name, set()).update(conn.execute(select(step.key).where(step.condition)).scalars())
    found |= {name: len(some) for name, some in keys.items()}
    return {name: n for name, n in found.items() if n}


def kept_texts(conn: Connection, doomed: Doomed) -> Iterator[str]:
    """Every text of the rows that stay, of whatever channel."""
    gone: dict[str, set[Any]] = {}
    for step in steps(doomed):
        if step.table in _WITH_TEXTS:
            found = conn.execute(select(step.key).where(step.condition)).scalars()
            gone.setdefault(step.table.name, set()).update(found)
    for table, columns in _WITH_TEXTS.items():
        query, went = select(table.c.id, *columns), gone.get(table.name, ())
        for row_id, *texts in conn.execute(query, execution_options={"yield_per": 2000}):
            if row_id not in went:
                yield from (one for one in texts if one)


def remove_some(conn: Connection, step: Step, n: int) -> int:
    """Delete or empty up to `n` rows of a step; how many."""
    if conn.dialect.name == "sqlite":
        conn.exec_driver_sql("PRAGMA secure_delete=ON")  # also where the disk has no room to rewrite the file later
    some = select(step.key).where(step.condition).limit(n)
    change = delete(step.table) if step.instead is None else update(step.table).values(**step.instead)
    return conn.execute(change.where(step.condition, step.key.in_(some))).rowcount


def forget_channel(conn: Connection, channel_id: str) -> None:
    """Empty what is told of a channel. Its name stays, since the ledger's lines are about it."""
    conn.execute(update(schema.channels).where(schema.channels.c.id == channel_id).values(**_NOTHING_TOLD))


def forget_errors(conn: Connection) -> None:
    """Empty what finished jobs said of the values that they failed on."""
    jobs = schema.jobs
    failed = select(jobs.c.id, jobs.c.error).where(jobs.c.error.is_not(None), jobs.c.state.in_(("failed", "cancelled")))
    for row in conn.execute(failed).all():
        said = {**row.error, "message": "not kept since an erasure", "value": None} if row.error else row.error
        conn.execute(update(jobs).where(jobs.c.id == row.id).values(error=said))


TOLD = tuple(
    (next(iter(table.primary_key)), table.c[name])
    for table, names in (
        (schema.artifacts, ("facts",)),
        (schema.alarms, ("evidence",)),
        (schema.suspensions, ("reason", "evidence", "lifted_by", "lifted_because")),
        (schema.channels, ("description", "owner", "licence")),
        (schema.imports, ("source", "report")),
        (schema.jobs, ("args", "progress", "result", "error")),
    )
    for name in names
)
"""Key and column of what is told in sentences and facts, and may name somebody whose row is another."""


class Told(NamedTuple):
    """A value that tells of others in a row that stays."""

    column: Any
    key: Any
    row_id: str
    value: Any


def told(conn: Connection) -> list[Told]:
    """Everything that is told in sentences and facts."""
    return [
        Told(column, key, row_id, value)
        for key, column in TOLD
        for row_id, value in conn.execute(select(key, column).where(column.is_not(None)))
    ]


def rewrite(conn: Connection, one: Told, value: Any) -> None:
    conn.execute(update(one.column.table).where(one.key == one.row_id).values({one.column: value}))


def ledger_lines_with(conn: Connection, words: Sequence[str]) -> list[int]:
    """Numbers of lines whose reason, actor or evidence has one of some words in it."""
    line = schema.ledger.c
    written = [json.dumps(word)[1:-1] for word in words]  # as evidence is stored
    has_one = [column.contains(word, autoescape=True) for word in words for column in (line.reason, line.actor)]
    has_one += [cast(line.evidence, Text).contains(word, autoescape=True) for word in written]
    return list(conn.execute(select(line.seq).where(or_(*has_one)).order_by(line.seq)).scalars())


def add(conn: Connection, erasure: Erasure) -> None:
    """Write a tombstone down; the same one twice is one row."""
    if find(conn, erasure.id) is None:
        conn.execute(insert(_ERASURES).values(**erasure._asdict()))


def find(conn: Connection, erasure_id: str) -> Erasure | None:
    row = conn.execute(select(_ERASURES).where(_ERASURES.c.id == erasure_id)).first()
    return None if row is None else Erasure(**row._mapping)


def newest(conn: Connection) -> str | None:
    """Id of the erasure that was begun last."""
    found: str | None = conn.execute(select(func.max(_ERASURES.c.id))).scalar()
    return found


def listing(conn: Connection) -> list[Erasure]:
    """Oldest first."""
    return [Erasure(**row._mapping) for row in conn.execute(select(_ERASURES).order_by(_ERASURES.c.id))]


def change(conn: Connection, erasure_id: str, **values: Any) -> None:
    conn.execute(update(_ERASURES).where(_ERASURES.c.id == erasure_id).values(**values))

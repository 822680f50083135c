"""What rows came from and what was made of them: reads across the tables, for tracing and for erasure."""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Select, or_, select
from sqlalchemy.engine import Connection

from headrace.store import schema
from headrace.store.noun import in_parts

_CHANNELS = schema.channels
_EXAMPLES = schema.examples
_LABELS = schema.labels
_PREDICTIONS = schema.predictions
_FEEDBACK = schema.feedback
_REVIEWS = schema.reviews

Line = dict[str, Any]


def example(conn: Connection, example_id: str) -> Line | None:
    """An example with the name of its channel, and the source of its import."""
    query = (
        select(_EXAMPLES, _CHANNELS.c.name.label("channel"), schema.imports.c.source)
        .join(_CHANNELS, _CHANNELS.c.id == _EXAMPLES.c.channel_id)
        .outerjoin(schema.imports, schema.imports.c.id == _EXAMPLES.c.import_id)
        .where(_EXAMPLES.c.id == example_id)
    )
    return _first(conn, query)


def like(conn: Connection, channel_id: str, text_hashes: Sequence[str]) -> list[str]:
    """Ids of a channel's examples of these inputs."""
    query = select(_EXAMPLES.c.id).where(_EXAMPLES.c.channel_id == channel_id).order_by(_EXAMPLES.c.id)
    found: list[str] = []
    for part in in_parts(text_hashes):
        found += conn.execute(query.where(_EXAMPLES.c.text_hash.in_(part))).scalars()
    return found


def labels(conn: Connection, example_ids: Sequence[str]) -> list[Line]:
    """All labels of examples, with the labeller's name."""
    query = _labels().order_by(_LABELS.c.created_at, _LABELS.c.id)
    return [line for part in in_parts(example_ids) for line in _all(conn, query.where(_LABELS.c.example_id.in_(part)))]


def label(conn: Connection, label_id: str) -> Line | None:
    return _first(conn, _labels().where(_LABELS.c.id == label_id))


def _labels() -> Select[Any]:
    who = schema.labellers
    return select(_LABELS, who.c.name.label("labeller")).join(who, who.c.id == _LABELS.c.labeller_id)


def feedback(conn: Connection, prediction_ids: Sequence[str]) -> list[Line]:
    """All that was said of predictions, in the order it came."""
    query = select(_FEEDBACK).order_by(_FEEDBACK.c.id)
    return [
        line
        for part in in_parts(prediction_ids)
        for line in _all(conn, query.where(_FEEDBACK.c.prediction_id.in_(part)))
    ]


def one_feedback(conn: Connection, feedback_id: str) -> Line | None:
    return _first(conn, select(_FEEDBACK).where(_FEEDBACK.c.id == feedback_id))


def predictions_of_input(conn: Connection, request_id: str, row: int) -> list[Line]:
    """The answers that all arms gave to one input, with the name of the channel."""
    same = (_PREDICTIONS.c.request_id == request_id, _PREDICTIONS.c.row == row)
    return _all(conn, _predictions().where(*same).order_by(_PREDICTIONS.c.id))


def prediction(conn: Connection, prediction_id: str) -> Line | None:
    return _first(conn, _predictions().where(_PREDICTIONS.c.id == prediction_id))


def _predictions() -> Select[Any]:
    return select(_PREDICTIONS, _CHANNELS.c.name.label("channel")).join(
        _CHANNELS, _CHANNELS.c.id == _PREDICTIONS.c.channel_id
    )


def reviews(conn: Connection, example_ids: Sequence[str], prediction_ids: Sequence[str]) -> list[Line]:
    """What people were asked about examples and predictions."""
    found: dict[str, Line] = {}
    for column, ids in ((_REVIEWS.c.example_id, example_ids), (_REVIEWS.c.prediction_id, prediction_ids)):
        for part in in_parts(ids):
            found |= {line["id"]: line for line in _all(conn, select(_REVIEWS).where(column.in_(part)))}
    return [found[name] for name in sorted(found)]


def snapshots(conn: Connection, task: str | None = None) -> list[Line]:
    """Of a task or of all, oldest first."""
    query = select(schema.snapshots).order_by(schema.snapshots.c.created_at, schema.snapshots.c.id)
    return _all(conn, query if task is None else query.where(schema.snapshots.c.task == task))


def artifacts(conn: Connection) -> set[str]:
    """Digests of all that are recorded."""
    return set(conn.execute(select(schema.artifacts.c.digest)).scalars())


def runs(conn: Connection) -> list[Line]:
    """Every run with what decides what it read."""
    kept = schema.runs.c
    columns = (kept.id, kept.task, kept.snapshot_id, kept.method, kept.params, kept.checkpoint, kept.created_at)
    return _all(conn, select(*columns, kept.state).order_by(kept.created_at, kept.id))


def versions(conn: Connection) -> list[Line]:
    query = select(schema.model_versions).order_by(schema.model_versions.c.task, schema.model_versions.c.number)
    return _all(conn, query)


def adapters(conn: Connection) -> list[Line]:
    """Kept adapters, with the name of the channel and the run that trained them."""
    query = (
        select(schema.adapters, _CHANNELS.c.name.label("channel"), schema.artifacts.c.facts)
        .join(_CHANNELS, _CHANNELS.c.id == schema.adapters.c.channel_id)
        .join(schema.artifacts, schema.artifacts.c.digest == schema.adapters.c.artifact)
        .order_by(schema.adapters.c.version_id, _CHANNELS.c.name)
    )
    return _all(conn, query)


def releases(conn: Connection) -> list[Line]:
    return _all(conn, select(schema.releases).order_by(schema.releases.c.started_at, schema.releases.c.id))


def labelled_by(conn: Connection, channel_id: str, names: Sequence[str]) -> list[str]:
    """Ids of the examples that have a label of one of these labellers of a channel."""
    who = schema.labellers
    query = (
        select(_LABELS.c.example_id)
        .join(who, who.c.id == _LABELS.c.labeller_id)
        .where(who.c.channel_id == channel_id, who.c.name.in_(names))
        .distinct()
    )
    return list(conn.execute(query).scalars())


def asked_by(conn: Connection, channel_id: str, units: Sequence[str]) -> list[tuple[str, str]]:
    """(id, text hash) of a channel's predictions that one of these units asked for."""
    query = select(_PREDICTIONS.c.id, _PREDICTIONS.c.text_hash)
    mine = query.where(_PREDICTIONS.c.channel_id == channel_id, _PREDICTIONS.c.unit.in_(units))
    return [(row.id, row.text_hash) for row in conn.execute(mine)]


def asked(conn: Connection, channel_id: str, text_hashes: Sequence[str]) -> list[str]:
    """Ids of a channel's predictions for these inputs."""
    query = select(_PREDICTIONS.c.id).where(_PREDICTIONS.c.channel_id == channel_id)
    found: list[str] = []
    for part in in_parts(text_hashes):
        found += conn.execute(query.where(_PREDICTIONS.c.text_hash.in_(part))).scalars()
    return found


def only_from_feedback(conn: Connection, example_ids: Sequence[str], but: Sequence[str]) -> list[str]:
    """Those of the examples that no import brought and that have no label of anybody but these labellers."""
    who = schema.labellers
    others = (
        select(_LABELS.c.id)
        .join(who, who.c.id == _LABELS.c.labeller_id)
        .where(_LABELS.c.example_id == _EXAMPLES.c.id, who.c.name.not_in(but))
        .exists()
    )
    query = select(_EXAMPLES.c.id).where(_EXAMPLES.c.import_id.is_(None), ~others)
    return [i for part in in_parts(example_ids) for i in conn.execute(query.where(_EXAMPLES.c.id.in_(part))).scalars()]


def from_feedback_like(conn: Connection, channel_id: str, text_hashes: Sequence[str]) -> list[str]:
    """Ids of a channel's examples of these inputs that came back as feedback."""
    query = select(_EXAMPLES.c.id).where(_EXAMPLES.c.channel_id == channel_id, _EXAMPLES.c.import_id.is_(None))
    found: list[str] = []
    for part in in_parts(text_hashes):
        found += conn.execute(query.where(_EXAMPLES.c.text_hash.in_(part))).scalars()
    return found


def names_in(conn: Connection, channel_id: str) -> set[str]:
    """Every name under which somebody labelled, answered or asked in a channel."""
    of_feedback = select(_FEEDBACK.c.labeller).join(_PREDICTIONS, _PREDICTIONS.c.id == _FEEDBACK.c.prediction_id)
    queries = [
        select(schema.labellers.c.name).where(schema.labellers.c.channel_id == channel_id),
        of_feedback.where(_PREDICTIONS.c.channel_id == channel_id),
        select(_REVIEWS.c.labeller).where(_REVIEWS.c.channel_id == channel_id),
        select(schema.suspensions.c.labeller).where(schema.suspensions.c.channel_id == channel_id),
        select(_PREDICTIONS.c.unit).where(_PREDICTIONS.c.channel_id == channel_id),
    ]
    found = {name for query in queries for name in conn.execute(query.distinct()).scalars()}
    return found - {None}


def inputs_in(conn: Connection, channel_id: str) -> set[str]:
    """Text hashes of all inputs of a channel."""
    tables = (_EXAMPLES, _PREDICTIONS)
    queries = [select(table.c.text_hash).where(table.c.channel_id == channel_id).distinct() for table in tables]
    return {text_hash for query in queries for text_hash in conn.execute(query).scalars()}


def oldest(conn: Connection, example_ids: Sequence[str]) -> Any:
    """When the first of some examples came; None where there are none."""
    query = select(_EXAMPLES.c.created_at).order_by(_EXAMPLES.c.created_at).limit(1)
    found = [conn.execute(query.where(_EXAMPLES.c.id.in_(part))).scalar() for part in in_parts(example_ids)]
    return min((at for at in found if at is not None), default=None)


def texts(conn: Connection, example_ids: Sequence[str], prediction_ids: Sequence[str]) -> Iterator[str]:
    """Every text of examples and predictions."""
    for table, ids in ((_EXAMPLES, example_ids), (_PREDICTIONS, prediction_ids)):
        for part in in_parts(ids):
            for row in conn.execute(select(table.c.text, table.c.text_pair).where(table.c.id.in_(part))):
                yield from (one for one in row if one)


def texts_of_channel(conn: Connection, channel_id: str) -> Iterator[str]:
    for table in (_EXAMPLES, _PREDICTIONS):
        for row in conn.execute(select(table.c.text, table.c.text_pair).where(table.c.channel_id == channel_id)):
            yield from (one for one in row if one)


def comments(conn: Connection, channel_id: str, labellers: Sequence[str] | None) -> Iterator[str]:
    """What was said in words in a channel; by some, or by all."""
    query = select(_FEEDBACK.c.comment).join(_PREDICTIONS, _PREDICTIONS.c.id == _FEEDBACK.c.prediction_id)
    query = query.where(_PREDICTIONS.c.channel_id == channel_id, _FEEDBACK.c.comment.is_not(None))
    if labellers is not None:
        query = query.where(_FEEDBACK.c.labeller.in_(labellers))
    yield from (comment for comment in conn.execute(query).scalars() if comment is not None)


def example_ids_of_channel(conn: Connection, channel_id: str) -> list[str]:
    return list(conn.execute(select(_EXAMPLES.c.id).where(_EXAMPLES.c.channel_id == channel_id)).scalars())


def quarantined(conn: Connection, channel_id: str) -> Iterator[Line]:
    """Rows that imports of a channel put aside."""
    ours = select(schema.imports.c.id).where(schema.imports.c.channel_id == channel_id)
    yield from _all(conn, select(schema.quarantine).where(schema.quarantine.c.import_id.in_(ours)))


def channel_named(conn: Connection, name_or_id: str) -> Line | None:
    """A channel by its name or its id."""
    either = or_(_CHANNELS.c.name == name_or_id, _CHANNELS.c.id == name_or_id)
    return _first(conn, select(_CHANNELS).where(either))


def _first(conn: Connection, query: Select[Any]) -> Line | None:
    found = conn.execute(query).mappings().first()
    return None if found is None else dict(found)


def _all(conn: Connection, query: Select[Any]) -> list[Line]:
    return [dict(row) for row in conn.execute(query).mappings()]

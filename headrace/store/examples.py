"""Examples, their labels, and the side of the split that each group of examples is on.

Rows of an import that is not done are not there for anybody but that import: every reader goes through `_visible`.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, and_, func, or_, select
from sqlalchemy.engine import Connection

from headrace.ids import new_id
from headrace.records import Input
from headrace.store import schema
from headrace.store.noun import in_parts, insert_many

_CHANNELS = schema.channels
_LABELLERS = schema.labellers
_EXAMPLES = schema.examples
_LABELS = schema.labels
_GROUPS = schema.split_groups
_IMPORTS = schema.imports
_DONE = select(_IMPORTS.c.id).where(_IMPORTS.c.state == "done").scalar_subquery()


class Known(NamedTuple):
    """An example that is there already."""

    id: str
    text_hash: str


class NewExample(NamedTuple):
    """The values of an example that differ from row to row of an import."""

    id: str
    key: str
    text: str
    text_hash: str
    group_key: str
    text_pair: str | None = None


class NewLabel(NamedTuple):
    """The values of a label that differ from row to row of an import."""

    id: str
    example_id: str
    labeller_id: str
    value: Any
    score: float | None
    origin: str


class GroupedText(NamedTuple):
    """An example as the split sees it."""

    channel: str
    key: str
    group_key: str
    text_hash: str
    text: str
    text_pair: str | None = None

    @property
    def input(self) -> Input:
        return self.text if self.text_pair is None else (self.text, self.text_pair)


class LabelledRow(NamedTuple):
    """An example with one of its labels, or with None for each value of the label."""

    example_id: str
    channel: str
    key: str
    group_key: str
    text_hash: str
    text: str
    labeller_id: str | None
    value: Any
    origin: str | None
    text_pair: str | None = None
    key_id: str | None = None
    """Of the key through which the label came; None: of none."""

    @property
    def input(self) -> Input:
        return self.text if self.text_pair is None else (self.text, self.text_pair)


def new_ids(noun: str, n: int) -> list[str]:
    """`n` fresh ids, in order: one random id whose last 32 bits count up. Cheaper than `n` calls of `new_id`."""
    head = new_id(noun)[:-8]
    return [f"{head}{i:08x}" for i in range(n)]


def known(conn: Connection, channel_id: str, keys: Sequence[str]) -> dict[str, Known]:
    """Those of `keys` that a channel has, also of the import that is running."""
    query = select(_EXAMPLES.c.key, _EXAMPLES.c.id, _EXAMPLES.c.text_hash).where(_EXAMPLES.c.channel_id == channel_id)
    found: dict[str, Known] = {}
    for part in in_parts(keys):
        for key, example_id, text_hash in conn.execute(query.where(_EXAMPLES.c.key.in_(part))):
            found[key] = Known(example_id, text_hash)
    return found


def labels_of(conn: Connection, task: str, example_ids: Sequence[str]) -> dict[str, list[tuple[str, str, Any]]]:
    """Example id to its labels of a task as (labeller id, origin, value)."""
    query = select(_LABELS.c.example_id, _LABELS.c.labeller_id, _LABELS.c.origin, _LABELS.c.value)
    found: dict[str, list[tuple[str, str, Any]]] = {}
    for part in in_parts(example_ids):
        mine = query.where(_LABELS.c.task == task, _LABELS.c.example_id.in_(part))
        for example_id, *label in conn.execute(mine):
            found.setdefault(example_id, []).append((label[0], label[1], label[2]))
    return found


def add_examples(
    conn: Connection, rows: Sequence[NewExample], *, channel_id: str, import_id: str, now: datetime
) -> None:
    same = {"channel_id": channel_id, "import_id": import_id, "prediction_id": None, "created_at": now}
    insert_many(conn, _EXAMPLES, NewExample._fields, rows, same)


def add_labels(conn: Connection, rows: Sequence[NewLabel], *, task: str, import_id: str, now: datetime) -> None:
    same = {"task": task, "import_id": import_id, "feedback_id": None, "created_at": now}
    insert_many(conn, _LABELS, NewLabel._fields, rows, same)


def count(conn: Connection) -> int:
    """Examples that readers see."""
    return conn.execute(select(func.count()).select_from(_EXAMPLES).where(_visible(_EXAMPLES))).scalar_one()


def grouped_texts(conn: Connection) -> Iterator[GroupedText]:
    """Every example, in the order of channel and key, which no workspace-made id decides."""
    query = (
        select(
            _CHANNELS.c.name,
            _EXAMPLES.c.key,
            _EXAMPLES.c.group_key,
            _EXAMPLES.c.text_hash,
            _EXAMPLES.c.text,
            _EXAMPLES.c.text_pair,
        )
        .join(_CHANNELS, _CHANNELS.c.id == _EXAMPLES.c.channel_id)
        .where(_visible(_EXAMPLES))
        .order_by(_CHANNELS.c.name, _EXAMPLES.c.key)
    )
    return (GroupedText(*row) for row in conn.execute(query))


def labelled_rows(conn: Connection, task: str, *, unlabelled: bool = False) -> Iterator[LabelledRow]:
    """A line per label of a task, the labels of an example side by side and in the order they came.

    Args:
        unlabelled: also a line for each example without a label of the task.
    """
    return (LabelledRow(*row) for row in conn.execute(_labelled(task, unlabelled=unlabelled)))


def labelled_since(conn: Connection, task: str, since: datetime) -> list[LabelledRow]:
    """A line per label of a task that was given, given anew, or of an import that was done after an instant."""
    at = func.coalesce(_IMPORTS.c.finished_at, _LABELS.c.created_at, type_=schema.Instant)
    query = _labelled(task, unlabelled=False).outerjoin(_IMPORTS, _IMPORTS.c.id == _LABELS.c.import_id)
    return [LabelledRow(*row) for row in conn.execute(query.where(at > since))]


def _labelled(task: str, *, unlabelled: bool) -> Select[Any]:
    mine = and_(_LABELS.c.example_id == _EXAMPLES.c.id, _LABELS.c.task == task, _visible(_LABELS))
    return (
        select(
            _EXAMPLES.c.id,
            _CHANNELS.c.name,
            _EXAMPLES.c.key,
            _EXAMPLES.c.group_key,
            _EXAMPLES.c.text_hash,
            _EXAMPLES.c.text,
            _LABELS.c.labeller_id,
            _LABELS.c.value,
            _LABELS.c.origin,
            _EXAMPLES.c.text_pair,
            _LABELS.c.key_id,
        )
        .select_from(_EXAMPLES)
        .join(_CHANNELS, _CHANNELS.c.id == _EXAMPLES.c.channel_id)
        .join(_LABELS, mine, isouter=unlabelled)
        .where(_visible(_EXAMPLES))
        .order_by(_CHANNELS.c.name, _EXAMPLES.c.key, _LABELS.c.created_at, _LABELS.c.id)
    )


def inputs_to_learn_from(conn: Connection, *, until: datetime) -> list[Input]:
    """Different inputs that were there at a moment, labelled or not, whose group is for training or validation."""
    query = (
        select(_EXAMPLES.c.text, _EXAMPLES.c.text_pair)
        .join(_CHANNELS, _CHANNELS.c.id == _EXAMPLES.c.channel_id)
        .join(_GROUPS, _GROUPS.c.group_key == _EXAMPLES.c.group_key)
        .where(_visible(_EXAMPLES), _EXAMPLES.c.created_at <= until, _GROUPS.c.side.in_(("train", "validation")))
        .order_by(_CHANNELS.c.name, _EXAMPLES.c.key)
    )
    return list(dict.fromkeys(text if pair is None else (text, pair) for text, pair in conn.execute(query)))


def sides(conn: Connection) -> dict[str, str]:
    """Group key to its side, of the groups that have one."""
    return {group: side for group, side in conn.execute(select(_GROUPS.c.group_key, _GROUPS.c.side))}


def add_sides(conn: Connection, side_of: Mapping[str, str], now: datetime) -> None:
    """Give groups their side. A side is given once: the database refuses a second one."""
    insert_many(conn, _GROUPS, ("group_key", "side"), list(side_of.items()), {"created_at": now})


def _visible(table: Any) -> ColumnElement[bool]:
    return or_(table.c.import_id.is_(None), table.c.import_id.in_(_DONE))

"""Sources of feedback: who said what, and what is known of how well each knows.

A *source* is a labeller of a channel, through each key that he or she speaks through: whoever holds another key is not
believed for a name. The channel itself is one, too: its newcomers are judged together.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from headrace.errors import BadInput
from headrace.records import Suspension
from headrace.store import known_answers, suspensions, votes
from headrace.store.votes import CastVote
from headrace.tasks import TASK_TYPES, TaskType
from headrace.workspace import Workspace

if TYPE_CHECKING:
    from sqlalchemy.engine import RowMapping


@dataclass(frozen=True)
class Source:
    """Who says something."""

    channel: str
    labeller: str | None = None
    """None: the channel itself."""
    key: str | None = None
    """Id of the key that he or she speaks through, of several that took each other's place the first; None: none."""

    def __str__(self) -> str:
        name = self.channel if self.labeller is None else f"{self.channel}/{self.labeller}"
        return name if self.key is None else f"{name} via {self.key}"


@dataclass(frozen=True)
class Said:
    """All that trust rests on, read in one moment."""

    votes: Sequence[CastVote]
    known: Mapping[str, Any]
    """Text hash to the answer that is known."""
    answers: Mapping[Source, Sequence[bool]]
    """Of each labeller, whether the answer to each known question was right, in the order of time."""
    suspensions: Sequence[Suspension]
    """Those that are not lifted."""
    n_checked: int
    """Training examples with labels that are no feedback."""


def gather(ws: Workspace, task: str, *, on_known: bool = False) -> Said:
    """Read it all: what is in tables in one transaction. Labels that the task has no more are passed over.

    Args:
        on_known: of the votes, only those on inputs whose answer is known; no examples are counted.
    """
    task_type: TaskType = TASK_TYPES.get(ws.task(task).type)(ws.task(task))
    with ws.store.read() as conn:
        known = {one.text_hash: one.answer for one in known_answers.listing(conn, task)}
        cast = votes.cast(conn, task, on_known=on_known) if known or not on_known else []
        reviewed = [dict(line) for line in known_answers.reviewed(conn, task)]
        held = [one for one in suspensions.listing(conn, task) if one.lifted_at is None]
        n_checked = 0 if on_known else votes.n_checked(conn, task, "train")
    plain = {vote.value for vote in cast if isinstance(vote.value, str)}
    gone = {value for value in plain if not _is_label(task_type, value)}
    usable = [vote for vote in cast if not isinstance(vote.value, str) or vote.value not in gone]
    return Said(usable, known, _answers(usable, known, reviewed), held, n_checked)


def author_of(line: "RowMapping") -> Source:
    """Whose a correction or the answer of a review is, of a row with their columns."""
    return Source(line["channel"], line["labeller"], line["key_id"])


def source_of(vote: CastVote) -> Source:
    return Source(vote.channel, vote.labeller, vote.key_id)


def covered(held: Iterable[Suspension]) -> Callable[[Source, datetime], bool]:
    """A function that says whether any of these suspensions is about what a source said at an instant."""
    spans: dict[Source, list[Suspension]] = defaultdict(list)
    for one in held:
        spans[Source(one.channel, one.labeller)].append(one)

    def is_covered(source: Source, at: datetime) -> bool:
        names = Source(source.channel, source.labeller), Source(source.channel)  # through whatever key
        theirs = (one for name in names for one in spans.get(name, ()))
        return any(one.since <= at and (one.until is None or at < one.until) for one in theirs)

    return is_covered


def is_same(one: Any, other: Any) -> bool:
    """Whether two targets say the same; the order of parts does not count."""
    return bool(_plain(one) == _plain(other))


def _plain(target: Any) -> Any:
    return sorted(json.dumps(part, sort_keys=True) for part in target) if isinstance(target, list | tuple) else target


def _is_label(task_type: TaskType, value: str) -> bool:
    try:
        task_type.parse_label(value)
    except BadInput:
        return False
    return True


def _answers(
    cast: Sequence[CastVote], known: Mapping[str, Any], reviewed: Sequence[Mapping[str, Any]]
) -> dict[Source, list[bool]]:
    """The latest answer of each labeller to each known question."""
    said = [(source_of(vote), vote.text_hash, vote.at, vote.value) for vote in cast if vote.text_hash in known]
    said += [
        (Source(line["channel"], line["labeller"], line["key_id"]), line["text_hash"], line["at"], line["answer"])
        for line in reviewed
    ]
    latest: dict[tuple[Source, str], bool] = {}
    for source, text_hash, _, value in sorted(said, key=lambda line: line[2]):
        latest.pop((source, text_hash), None)
        latest[source, text_hash] = is_same(value, known[text_hash])
    found: dict[Source, list[bool]] = defaultdict(list)
    for (source, _), is_right in latest.items():
        found[source].append(is_right)
    return dict(found)

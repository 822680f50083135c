"""Feedback as people look at it: the newest of it, and what metrics and events say of each version in each channel.

Metrics and events are evidence like corrections, with the same bias: they are volunteered. Of a labeller who speaks
twice of one answer, the latest value of a metric counts, and the latest event that `[feedback.events]` gives a meaning.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import sqrt
from statistics import NormalDist, fmean, stdev
from typing import TYPE_CHECKING

from headrace.config import FeedbackTable
from headrace.errors import BadInput, nearest
from headrace.feedback.intake import KINDS
from headrace.feedback.naming import check_instant, check_number
from headrace.records import Feedback, Interval
from headrace.stats.intervals import LEVEL, wilson
from headrace.store import feedback as rows
from headrace.store.channels import check_channel
from headrace.store.noun import as_record
from headrace.store.votes import Who, after
from headrace.workspace import Workspace

if TYPE_CHECKING:
    from sqlalchemy.engine import RowMapping

EVENTS = "events"
"""Name of the signal that events make: the share of answers that they say are right."""


@dataclass(frozen=True)
class Heard:
    """One feedback, and what it is about."""

    feedback: Feedback
    task: str
    channel: str
    is_replaced: bool
    """The labeller has thought again since; it is kept, and counts no more."""


@dataclass(frozen=True)
class Signal:
    """What a metric, or the events, say of a version's answers to one channel."""

    channel: str
    version: str
    name: str
    better: str
    n_answers: int
    """Answers that it speaks of."""
    mean: Interval | None
    """Over those answers: a share for truths and events. None where one number alone was reported, or no meaning."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Event to the answers that it came for."""


def listing(
    ws: Workspace,
    task: str | None = None,
    *,
    channel: str | None = None,
    kind: str | None = None,
    labeller: str | None = None,
    since: datetime | None = None,
    limit: int = 20,
) -> list[Heard]:
    """The newest feedback, the newest first.

    Raises:
        NotFound: no such task or channel.
        BadInput: no such kind, a limit below 1, or an instant without a time zone.
    """
    if kind not in (None, *KINDS):
        raise BadInput("no such kind of feedback", value=kind, next_step=nearest(str(kind), list(KINDS)))
    check_number("limit", limit)
    check_instant("since", since)
    name = None if task is None else ws.task_name(task)
    with ws.store.read() as conn:
        check_channel(conn, channel)
        found = rows.newest(conn, task=name, channel=channel, kind=kind, labeller=labeller, since=since, limit=limit)
    return [
        Heard(as_record(Feedback, line), line["task"], line["channel"], bool(line["is_replaced"])) for line in found
    ]


def summary(
    ws: Workspace, task: str | None = None, *, channel: str | None = None, since: datetime | None = None
) -> list[Signal]:
    """What metrics and events say, by channel, then version, then name.

    Raises:
        NotFound: no such task or channel.
        BadInput: an instant without a time zone.
    """
    check_instant("since", since)
    name = ws.task_name(task)
    with ws.store.read() as conn:
        check_channel(conn, channel)
        votes = _latest(rows.votes(conn, name, channel=channel, since=since), ws.settings.feedback)
    return [_signal(name, place, votes[place], ws.settings.feedback) for place in sorted(votes)]


Place = tuple[str, int, str]
"""Channel, number of the version, name of the signal."""


@dataclass
class _Votes:
    """Of one place: what counts of each labeller on each prediction, and which events came for which predictions."""

    values: dict[str, dict[Who, float]] = field(default_factory=dict)
    events: dict[str, set[str]] = field(default_factory=dict)


def _latest(lines: "Iterable[RowMapping]", settings: FeedbackTable) -> dict[Place, _Votes]:
    meanings = settings.events.model_dump()
    found: dict[Place, _Votes] = {}
    for line in lines:
        votes = found.setdefault((line["channel"], line["version"], line["metric"] or EVENTS), _Votes())
        who, before = (line["labeller"], line["key_id"]), votes.values.get(line["prediction_id"], {})
        if line["event"] is None:
            votes.values[line["prediction_id"]] = after(before, who, line["value"])
            continue
        votes.events.setdefault(line["event"], set()).add(line["prediction_id"])
        if (meaning := meanings.get(line["event"], "none")) != "none":
            votes.values[line["prediction_id"]] = after(before, who, float(meaning == "right"))
    return found


def _signal(task: str, place: Place, votes: _Votes, settings: FeedbackTable) -> Signal:
    channel, number, name = place
    declared = settings.metrics.get(name) if name != EVENTS else None
    answers = {name: fmean(said.values()) for name, said in votes.values.items()}  # of one answer: they are not several
    is_truth = name == EVENTS or (declared is not None and declared.kind == "bool")
    is_share = is_truth and all(0 <= value <= 1 for value in answers.values())  # it may have been declared otherwise
    spoken_of: Collection[str] = set(answers).union(*votes.events.values())
    return Signal(
        channel=channel,
        version=f"{task}/{number}",
        name=name,
        better="higher" if declared is None else declared.better,
        n_answers=len(spoken_of),
        mean=wilson(sum(answers.values()), len(answers)) if is_share else _mean(list(answers.values())),
        counts=Counter({event: len(found) for event, found in sorted(votes.events.items())}),
    )


def _mean(values: Sequence[float]) -> Interval | None:
    """With the ends that the normal distribution gives; None for fewer than two values."""
    if len(values) < 2:
        return None
    middle = fmean(values)
    half = NormalDist().inv_cdf((1 + LEVEL) / 2) * stdev(values) / sqrt(len(values))
    return Interval(middle, middle - half, middle + half, LEVEL)

"""What an alarm says: what has changed, since when, and whether answers are worse for it.

The first two come from the stream that gave it. The third comes from audits alone: how sure the model is says nothing
of answers that it is wrong about.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.feedback import audited
from headrace.feedback.panels import ErrorStream, Stream
from headrace.feedback.trust import NotCounted
from headrace.records import Interval
from headrace.stats import audits, drift
from headrace.store import drift as rows
from headrace.store import versions
from headrace.tasks import TaskType

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, RowMapping

CLASSES, CONFIDENCE, ERRORS, EMBEDDINGS = "classes", "confidence", "errors", "embeddings"
"""The streams."""
_MIN_BEFORE = 50
"""Answered audits before a change from which they may say what accuracy was, where held-out rows say it less well."""
_LATELY = 200
"""Answered audits that "lately" means where the errors themselves are the alarm."""
_SHARES_RIGHT = ("accuracy", "subset_accuracy", "exact_match", "recall_at_1")
"""Figures that are the share of right answers, whichever of them a task has."""


@dataclass(frozen=True)
class Alarm:
    """Something has changed in a channel (None: in all together) under a version."""

    id: str
    task: str
    channel: str | None
    version_id: str
    stream: str
    evidence: Mapping[str, Any]
    """`since`, `n_answers` since then, `changes` and `effect` on accuracy, as of the last look."""
    at: datetime
    ended_at: datetime | None = None

    @property
    def touches_accuracy(self) -> bool:
        return bool(self.evidence["effect"]["accuracy"] == "affected")

    @property
    def in_words(self) -> str:
        """One sentence."""
        where = "all channels" if self.channel is None else f"channel {self.channel}"
        since = self.evidence["since"]
        when = "" if since is None else f" since {since[:16].replace('T', ' ')} UTC"
        sort = "confidence " if self.stream == CONFIDENCE else ""
        told = [sort + _changed(change) for change in self.evidence["changes"][:3]]
        what = ", ".join(told) or f"{self.stream} not what was usual"
        return f"{where}{when}: {what}; {_effect_in_words(self.evidence['effect'])}"


@dataclass(frozen=True)
class Scope:
    """Answers of a version to one channel, or to all (`channel_id` empty), from the id `first` on."""

    channel_id: str
    version_id: str
    first: str
    channel: str | None = field(default=None, compare=False)
    """Its name."""

    @property
    def key(self) -> tuple[str, str]:
        return self.channel_id, self.version_id

    def has(self, row: "RowMapping", id_of: str = "id") -> bool:
        """Whether an answer belongs here."""
        here = self.channel_id in ("", row["channel_id"]) and row["version_id"] == self.version_id
        return here and bool(row[id_of] >= self.first)


@dataclass(frozen=True)
class Look:
    """By what audits are read."""

    task_type: TaskType
    is_nothing: NotCounted


def alarm_of(row: "RowMapping") -> Alarm:
    return Alarm(**{name: row[name] for name in Alarm.__dataclass_fields__})


def held_out(conn: "Connection", task: str, scope: Scope) -> Interval | None:
    """The share of right answers on held-out rows, of the channel where it has any; None where no figure is one."""
    found = [e for e in versions.evaluations(conn, task, version_id=scope.version_id) if e.predictor == "version"]
    if not found:
        return None
    results = found[0].results  # of the rows that it was made with; later ones are of other rows
    for part in (results.get("channels", {}).get(scope.channel or "", {}), results["overall"]):
        for name in _SHARES_RIGHT:
            ends = part.get("intervals", {}).get(name)
            if ends and ends["low"] is not None:
                return Interval(ends["estimate"], ends["low"], ends["high"])
    return None


def evidence_of(
    conn: "Connection", task: str, look: Look, scope: Scope, stream: Stream, *, before: str
) -> dict[str, Any]:
    """What a stream of answers' alarm says, of what came before the id `before`."""
    changes, n = stream.changes()
    since = rows.began_at(conn, task, scope.key, first=scope.first, before=before, n_back=n) if n else None
    return evidence_since(conn, task, look, scope, since, n, changes, before=before)


def evidence_since(
    conn: "Connection",
    task: str,
    look: Look,
    scope: Scope,
    since: datetime | None,
    n_answers: int,
    changes: Sequence[Mapping[str, Any]] = (),
    *,
    before: str,
) -> dict[str, Any]:
    """What an alarm says of a change that began then, and was seen in so many answers."""
    drawn = _drawn(conn, task, look, scope, before)
    start = "~" if since is None else rows.first_answer(since)
    earlier = _tally(look.task_type, [row for row in drawn if row["prediction_id"] < start])
    was = _narrower(audits.estimate(earlier) if earlier.n_audited >= _MIN_BEFORE else None, held_out(conn, task, scope))
    later = _tally(look.task_type, [row for row in drawn if row["prediction_id"] >= start])
    return {
        "since": None if since is None else since.isoformat(),
        "n_answers": n_answers,
        "changes": list(changes),
        "effect": _effect(later, was),
    }


def evidence_of_errors(
    conn: "Connection", task: str, look: Look, scope: Scope, stream: ErrorStream, *, before: str
) -> dict[str, Any]:
    """What the alarm of the audits says: they are the evidence, so accuracy is affected."""
    assert stream.detector is not None
    allowed = stream.detector.allowed_share
    told = [row for row in _drawn(conn, task, look, scope, before) if row["is_answered"]]
    lately = _tally(look.task_type, told[-_LATELY:])
    now = audits.estimate(lately)
    effect = {"accuracy": "affected", "now": now and vars(now), "before": {"at_least": 1 - allowed}, "n_more": 0}
    wrong = None if now is None else vars(Interval(1 - now.estimate, 1 - now.high, 1 - now.low, now.level))
    changes = [] if wrong is None else [{"what": "wrong answers", "before": allowed, "now": wrong}]
    return {"since": None, "n_answers": lately.n_audited, "changes": changes, "effect": effect}


def _effect(later: audits.Tally, before: Interval | None) -> dict[str, Any]:
    if before is None:
        now = audits.estimate(later)
        n_more = max(1, _MIN_BEFORE - later.n_audited)
        return {"accuracy": "not known", "now": now and vars(now), "before": None, "n_more": n_more}
    found = drift.effect(later, before)
    return {
        "accuracy": found.accuracy,
        "now": found.now and vars(found.now),
        "before": vars(before),
        "n_more": found.n_more,
    }


def _narrower(one: Interval | None, other: Interval | None) -> Interval | None:
    known = [interval for interval in (one, other) if interval is not None]
    return min(known, key=lambda interval: interval.high - interval.low, default=None)


def _tally(task_type: TaskType, drawn: Sequence[Mapping[str, Any]]) -> audits.Tally:
    """Sums of audited answers; those that were not answered yet are left out."""
    told = [row for row in drawn if row["is_answered"]]
    right = np.array([task_type.answers_match(row["output"], row["answer"]) for row in told], dtype=np.float64)
    probability = np.array([row["probability"] for row in told], dtype=np.float64)
    return audits.tally(probability, np.ones(len(told), dtype=bool), right)


def _drawn(conn: "Connection", task: str, look: Look, scope: Scope, before: str) -> list[dict[str, Any]]:
    found = audited.drawn(conn, task, look.is_nothing, first=scope.first, before=before)
    return [row for row in found if _is_of(scope, row)]


def _is_of(scope: Scope, row: Mapping[str, Any]) -> bool:
    return row["version_id"] == scope.version_id and scope.channel in (None, row["channel"])


def _changed(change: Mapping[str, Any]) -> str:
    now = change["now"]
    return f"{change['what']} {change['before']:.1%} -> {now['estimate']:.1%} [{now['low']:.1%}, {now['high']:.1%}]"


def _effect_in_words(effect: Mapping[str, Any]) -> str:
    if effect["n_more"] is None:
        ends = effect["before"]
        known = f"only known to lie within {ends['low']:.1%} to {ends['high']:.1%}"
        return f"whether answers are worse cannot be told, since accuracy before is {known}"
    if effect["accuracy"] == "not known":
        return f"whether answers are worse is not known, about {effect['n_more']:,} answered audits would settle it"
    return f"accuracy is {effect['accuracy']}"

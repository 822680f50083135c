"""What fills the review queue: audits that were drawn, differences, and what there is most to learn from.

See headrace/feedback/reviews.py for the reasons.
"""

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from headrace.feedback import asking, audited, auditing, trust
from headrace.feedback.trust import NotCounted
from headrace.ids import first_id, made_at, new_id
from headrace.records import Release
from headrace.store import channels, releases
from headrace.store import reviews as rows
from headrace.tasks import TASK_TYPES, TaskType
from headrace.workspace import Workspace

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

SHADOW = "shadow"
_LATE = timedelta(minutes=10)  # how much later than it was given an answer may be written to the log
_AUDITS_FIRST, _THEN_DISAGREEMENTS, _THEN_OTHERS = 3.0, 2.0, 1.0
_FAR_OFF_S = 1e11  # seconds since 1970 over this are below 1 for 3000 years
_POOL = 5_000  # unlabelled answers, the newest, that are chosen from
_SEEN_DISAGREEMENTS = 2_000
_MOST_ASKED = 3  # people asked to audit one answer, while those before count nothing
_LAST = "~"  # greater than any id


@dataclass(frozen=True)
class Filled:
    """Reviews that were opened, by reason, and those given up because nobody needs them any more."""

    n_audits: int
    n_disagreements: int
    n_label_errors: int
    n_useful: int
    n_random: int
    n_skipped: int


def fill(ws: Workspace, task: str | None = None, *, suspects: Sequence[str] = ()) -> Filled:
    """Open the reviews that are due; may be called at any time, and again.

    Audits: every one that was drawn, and again where who answered counts nothing. Disagreements: up to
    `feedback.review_rows`, the newest first. Beyond those, `feedback.review_rows` in all: half at random, as far as
    there are answers, half the suspects and the most useful.

    Args:
        suspects: ids of examples whose label is suspected of being wrong, the likeliest first.
    """
    task = ws.task_name(task)
    with ws.store.read() as conn:
        audits = list(_audits(ws, conn, task))
        disagreements = list(_disagreements(ws, conn, task))
        label_errors, useful, drawn = _others(ws, conn, task, suspects)
    opened = [*audits, *disagreements, *label_errors, *useful, *drawn]
    now, is_nothing = ws.clock(), trust.not_counted(ws, task)
    with ws.store.write() as conn:
        rows.lock(conn)
        n_skipped = rows.skip_lost(conn, task, now) + rows.skip_of_ended_releases(conn, task, now)
        there = _asked_already(conn, task, opened)
        new = [one for one in opened if _subject(one) not in there] + _audits_again(ws, conn, task, is_nothing)
        made = [{"id": new_id("review"), "task": task, "created_at": now, **one} for one in new]
        rows.add(conn, made, config_hash=ws.config_hash)
    n = Counter(str(one["reason"]) for one in new)
    return Filled(n["audit"], n["disagreement"], n["label-error"], n["useful"], n["random"], n_skipped)


def _audits(ws: Workspace, conn: "Connection", task: str) -> Iterator[dict[str, Any]]:
    newest = rows.newest_audit(conn, task)
    after = "" if newest is None else first_id("prediction", made_at(newest) - _LATE)
    salt = ws.settings.feedback.audit_salt
    for prediction_id, channel_id, probability in rows.auditable(conn, task, after=after):
        if auditing.is_drawn(prediction_id, probability, salt=salt):
            priority = _audit_priority(prediction_id)
            yield _review({"channel_id": channel_id}, "audit", prediction_id, priority, probability=probability)


def _audits_again(ws: Workspace, conn: "Connection", task: str, is_nothing: NotCounted) -> list[dict[str, Any]]:
    """Audits that are not too old and were answered by those who count nothing alone, for somebody else."""
    first = first_id("prediction", ws.clock() - timedelta(days=ws.settings.feedback.audit_days))
    ids = {one.name: one.id for one in channels.listing(conn)}
    found = audited.unheard(conn, task, is_nothing, first=first, before=_LAST)
    return [
        _review({"channel_id": ids[lines[0]["channel"]]}, "audit", name, _audit_priority(name), probability=probability)
        for name, lines in found.items()
        if len(lines) < _MOST_ASKED and (probability := lines[0]["probability"])
    ]


def _audit_priority(prediction_id: str) -> float:
    """The oldest is due first."""
    return _AUDITS_FIRST + 1 - made_at(prediction_id).timestamp() / _FAR_OFF_S


def _disagreements(ws: Workspace, conn: "Connection", task: str) -> Iterator[dict[str, Any]]:
    release = releases.open_release(conn, task)
    if release is None or release.policy != SHADOW:
        return
    n_left = ws.settings.feedback.review_rows - rows.n_open(conn, task).get("disagreement", 0)
    if asking.asks(release):
        yield from _drawn_disagreements(ws, conn, release, n_left)
        return
    task_type: TaskType = TASK_TYPES.get(ws.task(task).type)(ws.task(task))
    for row in rows.disagreements(conn, release.id, limit=_SEEN_DISAGREEMENTS):
        if n_left <= 0:
            return
        if not task_type.answers_match(row["control"], task_type.answer_of(row["candidate"])):
            n_left -= 1
            priority = _THEN_DISAGREEMENTS + made_at(row["prediction_id"]).timestamp() / _FAR_OFF_S
            yield _review(row, "disagreement", row["prediction_id"], priority) | {"release_id": release.id}


def _drawn_disagreements(ws: Workspace, conn: "Connection", release: Release, n_most: int) -> Iterator[dict[str, Any]]:
    """Those that a release rests on; nobody can be asked about one whose text was not kept."""
    for row in asking.due(ws, conn, release, n_most):
        prediction_id = row["prediction_id"]
        priority = _THEN_DISAGREEMENTS + 1 - made_at(prediction_id).timestamp() / _FAR_OFF_S  # the oldest is due first
        about = {"release_id": release.id} | ({} if row["has_text"] else {"state": "skipped"})
        probability = asking.share_of(release)
        yield _review(dict(row), "disagreement", prediction_id, priority, probability=probability) | about


def _others(
    ws: Workspace, conn: "Connection", task: str, suspects: Sequence[str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    """Suspects, the most useful, and as many drawn at random as there is room for both together."""
    n_open, n_most = rows.n_open(conn, task), ws.settings.feedback.review_rows
    n_random = max(0, (n_most + 1) // 2 - n_open.get("random", 0))
    n_chosen = max(0, n_most // 2 - n_open.get("useful", 0) - n_open.get("label-error", 0))
    pool = _different(rows.unlabelled(conn, task, limit=_POOL)) if n_random or n_chosen else []
    rng = random.Random(f"{ws.settings.feedback.audit_salt} {pool[0]['id'] if pool else ''}")
    drawn = rng.sample(pool, min(n_random, (len(pool) + 1) // 2))  # the other half of a small pool may be chosen
    share = len(drawn) / max(1, len(pool))
    at_random = [
        _review(row, "random", row["id"], priority, probability=share) for row, priority in _ranked(drawn, n_random)
    ]
    taken = {row["id"] for row in drawn}
    reviewed = rows.reviewed_examples(conn, task)
    doubted = [example_id for example_id in suspects if example_id not in reviewed]
    known = rows.places_of(conn, doubted)
    doubted = [example_id for example_id in doubted if example_id in known]
    margins = [(margin, row) for row in pool if (margin := auditing.margin_of(row["output"])) is not None]
    nearest = [row for _, row in sorted(margins, key=lambda one: (one[0], one[1]["id"])) if row["id"] not in taken]
    n_doubted = min(len(doubted), max(n_chosen // 2, n_chosen - len(nearest)))
    label_errors = [
        {
            "reason": "label-error",
            "prediction_id": None,
            "example_id": example_id,
            "channel_id": known[example_id],
            "priority": priority,
        }
        for example_id, priority in _ranked(doubted[:n_doubted], n_doubted)
    ]
    n_useful = n_chosen - n_doubted
    useful = [_review(row, "useful", row["id"], priority) for row, priority in _ranked(nearest[:n_useful], n_useful)]
    return label_errors, useful, at_random


def _different(pool: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The first answer to each text of a channel."""
    return list({(row["channel_id"], row["text_hash"]): row for row in reversed(pool)}.values())[::-1]


def _ranked(found: Sequence[Any], n: int) -> Iterator[tuple[Any, float]]:
    """Each with its priority, so that those of several lists come in turn."""
    for place, one in enumerate(found):
        yield one, _THEN_OTHERS + 0.9 * (1 - place / max(1, n))


def _review(
    row: Mapping[str, Any], reason: str, prediction_id: str, priority: float, *, probability: float | None = None
) -> dict[str, Any]:
    return {
        "reason": reason,
        "prediction_id": prediction_id,
        "example_id": None,
        "release_id": None,
        "channel_id": row["channel_id"],
        "priority": priority,
        "probability": probability,
    }


def _subject(one: Mapping[str, Any]) -> tuple[str, str]:
    """What a review is about; audits, and differences that a coin drew, stand beside another one of the same answer."""
    return _stand(one), one["prediction_id"] or one["example_id"]


def _stand(one: Mapping[str, Any]) -> str:
    if one["reason"] == "disagreement":
        return "other" if one["probability"] is None else "disagreement"
    return "audit" if one["reason"] == "audit" else "other"


def _asked_already(conn: "Connection", task: str, opened: Sequence[Mapping[str, Any]]) -> set[tuple[str, str]]:
    """Subjects of reviews that are there, since another process may have filled the queue meanwhile."""
    found = {("other", one) for one in rows.reviewed_examples(conn, task)}
    for stand in ("audit", "disagreement", "other"):
        ids = [one["prediction_id"] for one in opened if one["prediction_id"] and _stand(one) == stand]
        reason = None if stand == "other" else stand
        found |= {(stand, one) for one in rows.reviewed_predictions(conn, task, ids, reason=reason)}
    return found

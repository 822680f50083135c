"""The review queue: what people are asked, in which order, and what becomes of their answers.

    audit          drawn by chance as the answer was given; live accuracy is quoted from these alone
    disagreement   both arms of the open shadow release answered, and not the same
    label-error    an example whose label is suspected of being wrong
    useful         an answer that the model was nearest to giving otherwise
    random         an answer drawn by chance from all that have no label, with its probability
    known          a question whose answer is known; who is asked cannot tell it from the others

An answer about a prediction is feedback as well, one about an example is a label of origin `review`, and one about a
known question is in its review alone. Why somebody is asked, and what the model said, is not shown to who is asked: it
would say what to answer.
"""

import random
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from headrace.errors import BadInput, NotFound, WrongState, nearest
from headrace.feedback import asking, auditing, intake
from headrace.feedback.intake import Given
from headrace.ids import PREFIXES, first_id, made_at, new_id
from headrace.records import Input, Release
from headrace.store import channels, outcomes, predictions, releases
from headrace.store import reviews as rows
from headrace.store.reviews import Review
from headrace.tasks import TASK_TYPES, TaskType
from headrace.workspace import Workspace

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

SHADOW = "shadow"
STATES = ("open", "answered", "skipped")
_LATE = timedelta(minutes=10)  # how much later than it was given an answer may be written to the log
_AUDITS_FIRST, _THEN_DISAGREEMENTS, _THEN_OTHERS = 3.0, 2.0, 1.0
_FAR_OFF_S = 1e11  # seconds since 1970 over this are below 1 for 3000 years
_POOL = 5_000  # unlabelled answers, the newest, that are chosen from
_SEEN_DISAGREEMENTS = 2_000
_SPREAD = 20  # the most pressing, of which labellers at work at once get different ones
_FIRST_KNOWN = 3  # questions of every newcomer that are known ones
_SETTLED = 8  # known answers after which a labeller is asked few more
_KNOWN_SHARE, _KNOWN_SHARE_SETTLED = 0.25, 0.05


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

    Audits: every one that was drawn. Disagreements: up to `feedback.review_rows`, the newest first. Beyond those,
    `feedback.review_rows` in all: half at random, half the suspects and the most useful.

    Args:
        suspects: ids of examples whose label is suspected of being wrong, the likeliest first.
    """
    task = ws.task_name(task)
    with ws.store.read() as conn:
        audits = list(_audits(ws, conn, task))
        disagreements = list(_disagreements(ws, conn, task))
        label_errors, useful, drawn = _others(ws, conn, task, suspects)
    opened = [*audits, *disagreements, *label_errors, *useful, *drawn]
    now = ws.clock()
    with ws.store.write() as conn:
        rows.lock(conn)
        n_skipped = rows.skip_lost(conn, task, now) + rows.skip_of_ended_releases(conn, task, now)
        there = _asked_already(conn, task, opened)
        new = [one for one in opened if _subject(one) not in there]
        made = [{"id": new_id("review"), "task": task, "created_at": now, **one} for one in new]
        rows.add(conn, made, config_hash=ws.config_hash)
    n = Counter(str(one["reason"]) for one in new)
    return Filled(n["audit"], n["disagreement"], n["label-error"], n["useful"], n["random"], n_skipped)


def next_of(
    ws: Workspace, task: str | None = None, *, labeller: str = "anonymous", channel: str | None = None, n: int = 1
) -> list[Review]:
    """The next reviews for a labeller, at most `n`; the same until they are answered, here or by another.

    A queue that runs out is filled first. Known questions are mixed in: the first ones of a newcomer, then some, and a
    few for ever.
    """
    task = ws.task_name(task)
    labeller = intake.labeller_of(ws, labeller)
    waiting = _waiting(ws, task, channel, n + _SPREAD)
    if len(waiting) < n:
        fill(ws, task)
        waiting = _waiting(ws, task, channel, n + _SPREAD)
    with ws.store.read() as conn:
        n_done = rows.n_answered(conn, task, labeller)
        asked = rows.known_asked(conn, task, labeller)
    if not waiting:
        return []
    order = sorted(waiting[:_SPREAD], key=lambda one: (-int(one.priority), auditing.place_of(one.id, labeller)))
    others = iter([*order, *waiting[_SPREAD:]])
    open_known = iter([one for one in asked if one.state == "open" and channel in (None, one.channel)])
    n_known = sum(one.state == "answered" for one in asked)
    found: list[Review] = []
    are_left = True
    for place in range(n_done, n_done + n):
        review = None
        if are_left and _is_known_at(place, n_known, labeller):
            review = next(open_known, None) or _ask_known(ws, task, labeller, waiting[0])
            are_left = review is not None
        review = review or next(others, None)
        if review is None:
            break
        found.append(review)
    return found


def shown(review: Review) -> dict[str, Any]:
    """What a labeller sees of a review: nothing that tells why it is asked."""
    return {
        "id": review.id,
        "task": review.task,
        "channel": review.channel,
        "text": review.text,
        "text_pair": review.text_pair,
    }


def listing(
    ws: Workspace, task: str | None = None, *, state: str | None = "open", n: int | None = None
) -> list[Review]:
    """Reviews of a task, the most pressing first, for who runs the workspace.

    Args:
        state: None: in whatever state.
        n: at most so many.

    Raises:
        BadInput: no such state.
    """
    if state not in (None, *STATES):
        raise BadInput("no such state of a review", value=state, next_step=nearest(str(state), [*STATES, "all"]))
    with ws.store.read() as conn:
        return rows.listing(conn, ws.task_name(task), state=state, limit=n)


def answer(
    ws: Workspace,
    review_id: str,
    answer: Any,
    labeller: str = "anonymous",
    *,
    channels: Collection[str] | None = None,
) -> Review:
    """Take a person's answer to a review. The same again changes nothing; another one replaces it, and both are kept.

    Args:
        channels: names of those of which a review may be; None: of all.

    Raises:
        NotFound: no such review, or what it asks about is gone.
        BadInput: the answer is no label of the task.
        WrongState: somebody else has answered it, or it was skipped.
    """
    with ws.store.write() as conn:
        return receive(ws, conn, review_id, answer, labeller, channels=channels)


def receive(
    ws: Workspace,
    conn: "Connection",
    review_id: str,
    answer: Any,
    labeller: str,
    *,
    channels: Collection[str] | None = None,
) -> Review:
    """`answer`, in a transaction that is there."""
    labeller = intake.labeller_of(ws, labeller)
    review = _answerable(conn, review_id, labeller, channels)
    task_type: TaskType = TASK_TYPES.get(ws.task(review.task).type)(ws.task(review.task))
    parsed = task_type.parse_label(answer, review.input)
    if review.state == "answered" and review.answer == parsed:
        return review
    said = {"state": "answered", "answer": parsed, "labeller": labeller, "at": ws.clock()}
    if not rows.settle(conn, review.id, was=review.state, **said):
        raise WrongState("somebody else answers this review now", value=review_id, next_step="Take the next one")
    if review.prediction_id is not None:
        intake.receive(ws, conn, Given(review.prediction_id, correction=parsed, labeller=labeller))
    if review.example_id is not None:
        add_label(ws, conn, review.example_id, review.task, parsed, labeller)
    return _found(conn, review_id)


def skip(
    ws: Workspace, review_id: str, labeller: str = "anonymous", *, channels: Collection[str] | None = None
) -> Review:
    """Leave a review without an answer. A skipped audit counts as one that might have said anything.

    Args:
        channels: see `answer`.

    Raises:
        NotFound: no such review.
        WrongState: it is not open.
    """
    labeller = intake.labeller_of(ws, labeller)
    with ws.store.write() as conn:
        review = _found(conn, review_id, channels)
        if not rows.settle(conn, review_id, state="skipped", answer=None, labeller=labeller, at=ws.clock()):
            raise WrongState(f"the review is {review.state}", value=review_id, next_step="Take the next one")
        return _found(conn, review_id)


def take(
    ws: Workspace,
    conn: "Connection",
    task: str,
    about: str,
    label: Any,
    labeller: str,
    *,
    channels: Collection[str] | None = None,
) -> bool:
    """Take a label that was given elsewhere; whether it says anything new.

    A second opinion, on a review that somebody else has answered, is one about what the review is about.

    Args:
        about: id of a review, a prediction or an example.
        channels: see `answer`.

    Raises:
        NotFound: there is none with this id.
        BadInput, WrongState: see `answer`.
    """
    labeller = intake.labeller_of(ws, labeller)
    if _is_of("review", about):
        review = _found(conn, about, channels)
        subject = review.prediction_id or review.example_id
        if subject is None or review.state == "open" or review.labeller == labeller:
            return receive(ws, conn, about, label, labeller) != review
        about = subject
    task_type: TaskType = TASK_TYPES.get(ws.task(task).type)(ws.task(task))
    if _is_of("example", about):
        parsed = task_type.parse_label(label, _input_of(_example(conn, about, channels)))
        return add_label(ws, conn, about, task, parsed, labeller)
    prediction = predictions.find(conn, about) if _is_of("prediction", about) else None
    if prediction is None or prediction.task != task or not _is_among(prediction.channel, channels):
        raise NotFound("no such review, prediction or example", value=about, next_step="Export what waits for labels")
    parsed = task_type.parse_label(label, _input_of(vars(prediction)))
    said = [one for one in predictions.feedback_on(conn, about) if (one.kind, one.labeller) == ("correction", labeller)]
    if said and said[-1].correction == parsed:
        return False
    intake.receive(ws, conn, Given(about, correction=parsed, labeller=labeller))
    return True


def add_label(ws: Workspace, conn: "Connection", example_id: str, task: str, target: Any, labeller: str) -> bool:
    """Give an example a label of origin `review`, which counts more than the one it was imported with; whether it has
    another one now.

    Raises:
        NotFound: no such example.
    """
    channel_id, now = _example(conn, example_id)["channel_id"], ws.clock()
    labeller_id = channels.labeller_ids(conn, channel_id, {labeller}, now)[labeller]
    if rows.review_labels(conn, example_id, task, labeller_id)[-1:] == [target]:
        return False
    label = {
        "id": new_id("label"),
        "example_id": example_id,
        "task": task,
        "labeller_id": labeller_id,
        "value": target,
        "score": None,
        "origin": "review",
        "import_id": None,
        "feedback_id": None,
        "created_at": now,
    }
    outcomes.add_labels(conn, [label])
    return True


def _audits(ws: Workspace, conn: "Connection", task: str) -> Iterator[dict[str, Any]]:
    newest = rows.newest_audit(conn, task)
    after = "" if newest is None else first_id("prediction", made_at(newest) - _LATE)
    salt = ws.settings.feedback.audit_salt
    for prediction_id, channel_id, probability in rows.auditable(conn, task, after=after):
        if auditing.is_drawn(prediction_id, probability, salt=salt):
            priority = _AUDITS_FIRST + 1 - made_at(prediction_id).timestamp() / _FAR_OFF_S  # the oldest is due first
            yield _review({"channel_id": channel_id}, "audit", prediction_id, priority, probability=probability)


def _disagreements(ws: Workspace, conn: "Connection", task: str) -> Iterator[dict[str, Any]]:
    release = releases.open_release(conn, task)
    if release is None or release.policy != SHADOW:
        return
    n_left = ws.settings.feedback.review_rows - rows.n_open(conn, task).get("disagreement", 0)
    if release.options.get("margin"):
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
    """Those that a release's margin rests on; nobody can be asked about one whose text was not kept."""
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


def _waiting(ws: Workspace, task: str, channel: str | None, limit: int) -> list[Review]:
    with ws.store.read() as conn:
        return rows.waiting(conn, task, channel=channel, limit=limit)


def _is_known_at(place: int, n_known: int, labeller: str) -> bool:
    """Whether a labeller's question number `place`, from 0, is a known one."""
    if place < _FIRST_KNOWN:
        return True
    share = _KNOWN_SHARE if n_known < _SETTLED else _KNOWN_SHARE_SETTLED
    return auditing.place_of(str(place), labeller) < share


def _ask_known(ws: Workspace, task: str, labeller: str, beside: Review) -> Review | None:
    """Open a known question for a labeller, in the channel of what is asked beside it; None: all were asked."""
    with ws.store.write() as conn:
        rows.lock(conn)
        known = rows.unasked_known(conn, task, labeller)
        channel = channels.find(conn, beside.channel)
        if known is None or channel is None:
            return None
        review_id = _id_as_old_as(beside.id)  # one that is made as it is asked for would tell what it is
        review = {
            "id": review_id,
            "task": task,
            "channel_id": channel.id,
            "reason": "known",
            "known_answer_id": known,
            "priority": beside.priority,
            "labeller": labeller,
            "created_at": ws.clock(),
        }
        rows.add(conn, [review], config_hash=ws.config_hash)
        return _found(conn, review_id)


def _id_as_old_as(review_id: str) -> str:
    """A fresh id with the time of another one."""
    n_chars = len(PREFIXES["review"]) + 13  # _ and 48 bits of milliseconds
    return review_id[:n_chars] + new_id("review")[n_chars:]


def _answerable(conn: "Connection", review_id: str, labeller: str, channels: Collection[str] | None) -> Review:
    review = _found(conn, review_id, channels)
    if review.state == "skipped" or (review.state == "answered" and review.labeller != labeller):
        raise WrongState(f"the review is {review.state} already", value=review_id, next_step="Take the next one")
    if review.text is None:
        raise NotFound("what the review asks about is gone", value=review_id, next_step="Take the next one")
    return review


def _is_of(noun: str, row_id: str) -> bool:
    return row_id.startswith(f"{PREFIXES[noun]}_")


def _is_among(channel: str, channels: Collection[str] | None) -> bool:
    return channels is None or channel in channels


def _example(conn: "Connection", example_id: str, channels: Collection[str] | None = None) -> Mapping[str, Any]:
    example = rows.example(conn, example_id)
    if example is None or not _is_among(example["channel"], channels):
        raise NotFound("no such example", value=example_id, next_step="It may have been erased: take another one")
    return example


def _input_of(row: Mapping[str, Any]) -> Input | None:
    text, pair = row["text"], row["text_pair"]
    return text if text is None or pair is None else (text, pair)


def _found(conn: "Connection", review_id: str, channels: Collection[str] | None = None) -> Review:
    """What is of another channel is said to be missing, in the same words as what is."""
    review = rows.find(conn, review_id)
    if review is None or not _is_among(review.channel, channels):
        raise NotFound("no such review", value=review_id, next_step="Run: headrace review list")
    return review

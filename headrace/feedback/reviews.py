"""The review queue: what people are asked, in which order, and what becomes of their answers.

    audit          drawn by chance as the answer was given; live accuracy is quoted from these alone
    disagreement   both arms of the open shadow release answered, and not the same
    label-error    an example whose label is suspected of being wrong
    useful         an answer that the model was nearest to giving otherwise
    random         an answer drawn by chance from all that have no label, with its probability
    known          a question whose answer is known; who is asked cannot tell it from the others

An answer about a prediction is feedback as well, one about an example is a label of origin `review` (both become labels
of origin `owner`, where who runs the workspace gives them without a labeller), and one about a known question is in its
review alone. Why somebody is asked, and what the model said, is not shown to who is asked: it would say what to answer.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from headrace.errors import BadInput, NotFound, WrongState, nearest
from headrace.feedback import auditing, intake
from headrace.feedback.filling import fill
from headrace.feedback.intake import Given
from headrace.feedback.naming import check_number
from headrace.ids import PREFIXES, new_id
from headrace.records import Input
from headrace.store import channels, outcomes, predictions
from headrace.store import reviews as rows
from headrace.store.channels import check_channel
from headrace.store.reviews import Review
from headrace.store.votes import OWNER
from headrace.tasks import TASK_TYPES, TaskType
from headrace.workspace import Workspace

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

STATES = ("open", "answered", "skipped")
_SPREAD = 20  # the most pressing, of which labellers at work at once get different ones
_FIRST_KNOWN = 3  # questions of every newcomer that are known ones
_SETTLED = 8  # known answers after which a labeller is asked few more
_KNOWN_SHARE, _KNOWN_SHARE_SETTLED = 0.25, 0.05


def next_of(
    ws: Workspace, task: str | None = None, *, labeller: str | None = None, channel: str | None = None, n: int = 1
) -> list[Review]:
    """The next reviews for a labeller, at most `n`; the same until they are answered, here or by another.

    A queue that runs out is filled first. Known questions are mixed in: the first ones of a newcomer, then some, and a
    few for ever.

    Args:
        labeller: None: who runs the workspace, who is asked nothing that is known.

    Raises:
        NotFound: no such task or channel.
        BadInput: fewer than one, or a name that cannot be one.
    """
    check_number("n", n)
    task = ws.task_name(task)
    with ws.store.read() as conn:
        check_channel(conn, channel)
    who = intake.labeller_of(ws, labeller)
    waiting = _waiting(ws, task, who, channel, n + _SPREAD)
    if len(waiting) < n:
        fill(ws, task)
        waiting = _waiting(ws, task, who, channel, n + _SPREAD)
    with ws.store.read() as conn:
        n_done = rows.n_answered(conn, task, who)
        asked = rows.known_asked(conn, task, who)
    if not waiting:
        return []
    order = sorted(waiting[:_SPREAD], key=lambda one: (-int(one.priority), auditing.place_of(one.id, who)))
    others = iter([*order, *waiting[_SPREAD:]])
    open_known = iter([one for one in asked if one.state == "open" and channel in (None, one.channel)])
    n_known = sum(one.state == "answered" for one in asked)
    found: list[Review] = []
    are_left = who != OWNER
    for place in range(n_done, n_done + n):
        review = None
        if are_left and _is_known_at(place, n_known, who):
            review = next(open_known, None) or _ask_known(ws, task, who, waiting[0])
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
        BadInput: no such state, or fewer than one.
    """
    check_number("n", n)
    if state not in (None, *STATES):
        raise BadInput("no such state of a review", value=state, next_step=nearest(str(state), [*STATES, "all"]))
    with ws.store.read() as conn:
        return rows.listing(conn, ws.task_name(task), state=state, limit=n)


def answer(
    ws: Workspace,
    review_id: str,
    answer: Any,
    labeller: str | None = None,
    *,
    channels: Collection[str] | None = None,
    key_id: str | None = None,
) -> Review:
    """Take a person's answer to a review. The same again changes nothing; another one replaces it, and both are kept.

    Of a known question the first answer counts, whatever else comes.

    Args:
        labeller: None: who runs the workspace; it is a label that counts whatever is known of anybody.
        channels: names of those of which a review may be; None: of all.
        key_id: through which it comes; None: through none.

    Raises:
        NotFound: no such review, or what it asks about is gone.
        BadInput: the answer is no label of the task.
        WrongState: somebody else has answered it, or it was skipped.
    """
    with ws.store.write() as conn:
        return _receive(ws, conn, review_id, answer, _speaker(ws, labeller, key_id), channels)


@dataclass(frozen=True)
class _Speaker:
    """Who answers."""

    labeller: str
    key_id: str | None

    @property
    def is_owner(self) -> bool:
        """Whoever runs the workspace."""
        return self.labeller == OWNER

    def has_answered(self, review: Review) -> bool:
        return review.labeller == self.labeller and self.key_id in (None, review.key_id)


def _speaker(ws: Workspace, labeller: str | None, key_id: str | None) -> _Speaker:
    return _Speaker(intake.labeller_of(ws, labeller), key_id)


def _receive(
    ws: Workspace, conn: "Connection", review_id: str, answer: Any, by: _Speaker, channels: Collection[str] | None
) -> Review:
    """`answer`, in a transaction that is there."""
    review = _answerable(conn, review_id, by, channels)
    task_type: TaskType = TASK_TYPES.get(ws.task(review.task).type)(ws.task(review.task))
    parsed = task_type.parse_label(answer, review.input)
    if review.state == "answered" and (review.answer == parsed or review.known_answer_id is not None):
        return replace(review, answer=parsed)  # to refuse an answer would tell that the question is a known one
    if not rows.settle(conn, review.id, "answered", parsed, by.labeller, by.key_id, ws.clock(), was=review.state):
        raise WrongState("somebody else answers this review now", value=review_id, next_step="Take the next one")
    if review.prediction_id is not None:
        _correct(ws, conn, review.prediction_id, parsed, by)
    if review.example_id is not None:
        _add_label(ws, conn, review.example_id, review.task, parsed, by)
    return _found(conn, review_id)


def skip(
    ws: Workspace,
    review_id: str,
    labeller: str | None = None,
    *,
    channels: Collection[str] | None = None,
    key_id: str | None = None,
) -> Review:
    """Leave a review without an answer. A skipped audit counts as one that might have said anything.

    Args:
        labeller, channels, key_id: see `answer`.

    Raises:
        NotFound: no such review.
        WrongState: it is not open.
    """
    with ws.store.write() as conn:
        review = _found(conn, review_id, channels)
        by, now = _speaker(ws, labeller, key_id), ws.clock()
        if not rows.settle(conn, review_id, "skipped", None, by.labeller, by.key_id, now):
            raise WrongState(f"the review is {review.state}", value=review_id, next_step="Take the next one")
        return _found(conn, review_id)


def take(
    ws: Workspace,
    conn: "Connection",
    task: str,
    about: str,
    label: Any,
    labeller: str | None,
    *,
    channels: Collection[str] | None = None,
    key_id: str | None = None,
) -> bool:
    """Take a label that was given elsewhere; whether it says anything new.

    A second opinion, on a review that somebody else has answered, is one about what the review is about.

    Args:
        about: id of a review, a prediction or an example.
        labeller, channels, key_id: see `answer`.

    Raises:
        NotFound: there is none with this id.
        BadInput, WrongState: see `answer`.
    """
    by = _speaker(ws, labeller, key_id)
    if _is_of("review", about):
        review = _found(conn, about, channels)
        subject = review.prediction_id or review.example_id
        if subject is None or review.state == "open" or by.has_answered(review):
            return _receive(ws, conn, about, label, by, None) != review
        about = subject
    task_type: TaskType = TASK_TYPES.get(ws.task(task).type)(ws.task(task))
    if _is_of("example", about):
        parsed = task_type.parse_label(label, _input_of(_example(conn, about, channels)))
        return _add_label(ws, conn, about, task, parsed, by)
    prediction = predictions.find(conn, about) if _is_of("prediction", about) else None
    if prediction is None or prediction.task != task or not _is_among(prediction.channel, channels):
        raise NotFound("no such review, prediction or example", value=about, next_step="Export what waits for labels")
    parsed = task_type.parse_label(label, _input_of(vars(prediction)))
    mine = "correction", by.labeller, by.key_id
    said = [one for one in predictions.feedback_on(conn, about) if (one.kind, one.labeller, one.key_id) == mine]
    if said and said[-1].correction == parsed:
        return False
    _correct(ws, conn, about, parsed, by)
    return True


def _correct(ws: Workspace, conn: "Connection", prediction_id: str, correction: Any, by: _Speaker) -> None:
    labeller = None if by.is_owner else by.labeller
    intake.receive(ws, conn, Given(prediction_id, correction=correction, labeller=labeller, key_id=by.key_id))


def _add_label(ws: Workspace, conn: "Connection", example_id: str, task: str, target: Any, by: _Speaker) -> bool:
    """Give an example a label of origin `review`, or `owner`; whether it says anything new.

    It outweighs the one that was imported where its labeller counts fully (feedback.settling), and else is a vote as
    feedback is. That of who runs the workspace outweighs it whatever is known of anybody.

    Raises:
        NotFound: no such example.
    """
    channel_id, now = _example(conn, example_id)["channel_id"], ws.clock()
    labeller_id = channels.labeller_ids(conn, channel_id, {by.labeller}, now)[by.labeller]
    origin = OWNER if by.is_owner else "review"
    if rows.labels_of(conn, example_id, task, labeller_id, origin, by.key_id)[-1:] == [target]:
        return False
    label = {
        "id": new_id("label"),
        "example_id": example_id,
        "task": task,
        "labeller_id": labeller_id,
        "value": target,
        "score": None,
        "origin": origin,
        "import_id": None,
        "feedback_id": None,
        "created_at": now,
        "key_id": by.key_id,
    }
    outcomes.add_labels(conn, [label])
    return True


def _waiting(ws: Workspace, task: str, labeller: str, channel: str | None, limit: int) -> list[Review]:
    with ws.store.read() as conn:
        return rows.waiting(conn, task, labeller, channel=channel, limit=limit)


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


def _answerable(conn: "Connection", review_id: str, by: _Speaker, channels: Collection[str] | None) -> Review:
    review = _found(conn, review_id, channels)
    if review.state == "skipped" or (review.state == "answered" and not by.has_answered(review)):
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

"""Take feedback on predictions: check it, and write it where its prediction is.

`Given` is what somebody said, checked in shape; `receive_all` checks it against its prediction and writes it. The
server runs it on the queue that wrote the predictions, `give` and `give_all` run it at once, for the SDK and the
command line.

A labeller who speaks again of the same prediction, through the same key or through none, replaces what was said before
(votes.after): all is kept, and whoever reads evidence takes the latest of (labeller, key, prediction, kind, metric).
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from itertools import islice, tee
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from headrace.config import EventsTable
from headrace.errors import AlreadyExists, BadInput, HeadraceError, NotFound, WrongState, nearest
from headrace.ids import PREFIXES, first_id, new_id
from headrace.personal.policies import Door, door_of
from headrace.records import Feedback, Input, Prediction
from headrace.store import predictions
from headrace.store.votes import OWNER
from headrace.tasks import TASK_TYPES, TaskType
from headrace.workspace import Workspace

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

EVENTS: tuple[str, ...] = tuple(EventsTable.model_fields)
"""What a user may have done with an answer; `[feedback.events]` declares what each says of it."""

KINDS = ("correction", "metric", "comment", "event")
_UNLOGGED = f"{PREFIXES['unlogged']}_"
_ISSUED = f"{PREFIXES['prediction']}_"
_MAX_NAME_CHARS = 200  # width of the columns labeller and idempotency_key
_MAX_METRIC_CHARS = 64
_MAX_COMMENT_CHARS = 20_000
_MAX_DEPTH = 8  # of a correction
_GROUP = 500  # of one transaction
_ID_DIGITS = 32


@dataclass(frozen=True)
class Given:
    """Feedback as given. Exactly one of correction, metric with value, comment, event.

    Raises:
        BadInput: none or several of them, or a value out of bounds.
    """

    prediction_id: str
    correction: Any = None
    metric: str | None = None
    value: float | None = None
    """True and false are values of a metric too."""
    comment: str | None = None
    event: str | None = None
    channel: str | None = None
    """Who says it. A prediction of another channel is none for it; None: whoever it is."""
    labeller: str | None = "anonymous"
    """None: who runs the workspace."""
    idempotency_key: str | None = None
    channels: frozenset[str] | None = None
    """Those of which a prediction may be, by the key of who speaks; None: of all."""
    key_id: str | None = None
    """Through which it comes; None: through none."""

    def __post_init__(self) -> None:
        said = [name for name in KINDS if getattr(self, name) is not None]
        if len(said) != 1:
            raise BadInput(
                "feedback is exactly one of correction, metric with value, comment, event",
                value=", ".join(said) or "none of them",
                next_step="Send one; several observations are several feedbacks",
            )
        if (self.metric is None) != (self.value is None):
            raise BadInput(
                "metric and value go together",
                value=f"metric={self.metric}, value={self.value}",
                next_step="Send both, or neither",
            )
        if self.value is not None and not (isinstance(self.value, int | float) and _is_finite(self.value)):
            raise BadInput("the value of a metric is a finite number", value=self.value, next_step="Send a number")
        if self.event is not None and self.event not in EVENTS:
            raise BadInput("no such event", value=self.event, next_step=nearest(self.event, list(EVENTS)))
        _check_text("prediction id", self.prediction_id, _MAX_NAME_CHARS)
        _check_text("metric", self.metric, _MAX_METRIC_CHARS)
        _check_text("comment", self.comment, _MAX_COMMENT_CHARS)
        _check_text("channel", self.channel, _MAX_NAME_CHARS)
        check_labeller(self.labeller)
        _check_text("idempotency key", self.idempotency_key, _MAX_NAME_CHARS)

    @property
    def kind(self) -> Literal["correction", "metric", "comment", "event"]:
        if self.correction is not None:
            return "correction"
        if self.metric is not None:
            return "metric"
        return "comment" if self.comment is not None else "event"


_FIELDS = {field.name: field.type for field in fields(Given) if field.name not in ("channels", "key_id")}
"""What may be said; by which key is not for the one who speaks to say."""


def parse(said: object) -> Given:
    """Feedback from what JSON holds, such as a line of a file: an object with the fields of `Given`.

    Raises:
        BadInput: it is none.
    """
    if not isinstance(said, Mapping):
        raise BadInput("feedback is a JSON object", value=said, next_step='Write {"prediction_id": "...", ...}')
    for name, value in said.items():
        if name not in _FIELDS:
            raise BadInput("feedback has no such field", value=name, next_step=nearest(str(name), list(_FIELDS)))
        if name not in ("correction", "value") and not isinstance(value, str | None):
            raise BadInput(f"{name} is a text", value=value, next_step="Write it in quotes")
    if not isinstance(said.get("prediction_id"), str):
        raise BadInput("feedback names its prediction", value="prediction_id", next_step="Send the id of the answer")
    if not isinstance(said.get("value"), int | float | None):
        raise BadInput("the value of a metric is a number", value=said["value"], next_step="Send a number")
    _check_correction(said.get("correction"))
    return Given(**{name: value for name, value in said.items() if value is not None})


def give(
    ws: Workspace,
    prediction_id: str,
    *,
    correction: Any = None,
    metric: str | None = None,
    value: float | None = None,
    comment: str | None = None,
    event: str | None = None,
    channel: str | None = None,
    labeller: str = "anonymous",
    idempotency_key: str | None = None,
) -> Feedback:
    """Record feedback on a prediction of this workspace, without a server.

    Raises:
        BadInput: not exactly one of the four kinds, a correction that is no label of the task, or a metric that
            headrace.toml does not declare or declares otherwise.
        NotFound: no such prediction, or it is another channel's.
        WrongState: the prediction is older than `feedback.window_days`.
        AlreadyExists: the idempotency key came before with other feedback.
    """
    given = Given(prediction_id, correction, metric, value, comment, event, channel, labeller, idempotency_key)
    with ws.store.write() as conn:
        return receive(ws, conn, given)


def give_all(ws: Workspace, several: Iterable[object]) -> Iterator[Feedback | HeadraceError]:
    """Record any number of feedbacks, each as `parse` takes it; of each, in order, the record or why it was refused.

    What was yielded is on disk. An error in the place of a feedback is handed through.

    Raises:
        BadInput: it is nothing that feedbacks come from.
    """
    if not isinstance(several, Iterable):
        raise BadInput("feedback is a sequence of objects", value=several, next_step="Give a list, or a generator")
    waiting = iter(several)
    while group := list(islice(waiting, _GROUP)):
        parsed = [_parsed(one) for one in group]
        with ws.store.write() as conn:
            taken = iter(receive_all(ws, conn, [one for one in parsed if isinstance(one, Given)]))
        yield from [next(taken) if isinstance(one, Given) else one for one in parsed]


def give_file(ws: Workspace, path: Path) -> Iterator[tuple[int, Feedback | HeadraceError]]:
    """Record the feedback of a file of JSON lines, as `give_all` does; with the number of each line, from 1.

    Raises:
        NotFound: no such file.
    """
    if not path.is_file():
        raise NotFound("no such file", value=str(path), next_step="Give a file of JSON lines")
    with path.open("rb") as file:
        read, answered = tee((number, line) for number, line in enumerate(file, start=1) if line.strip())
        for taken in give_all(ws, (_said_in(line) for _, line in read)):
            yield next(answered)[0], taken


def receive(ws: Workspace, conn: "Connection", given: Given) -> Feedback:
    """Check feedback against its prediction and write it; the same under the same key is written once.

    Raises:
        NotFound, WrongState, BadInput, AlreadyExists: see `give`.
    """
    (taken,) = receive_all(ws, conn, [given])
    if isinstance(taken, HeadraceError):
        raise taken
    return taken


def receive_all(ws: Workspace, conn: "Connection", givens: Sequence[Given]) -> list[Feedback | HeadraceError]:
    """What `receive` does, for several at once: of each, in order, the record or why it was refused."""
    found = predictions.find_all(conn, {given.prediction_id for given in givens})
    door = door_of(ws)
    if door.is_on:
        cleaned = [_cleaned(door, found.get(given.prediction_id), given) for given in givens]
        sound = iter(_received(ws, conn, found, [one for one in cleaned if isinstance(one, Given)]))
        return [next(sound) if isinstance(one, Given) else one for one in cleaned]
    return _received(ws, conn, found, givens)


def _cleaned(door: Door, prediction: Prediction | None, given: Given) -> Given | HeadraceError:
    """Feedback without what is personal in it, or why that is refused; by the rules of no channel but the speaker's."""
    channel = None if prediction is None or not _may_speak(given, prediction) else prediction.channel
    try:
        return replace(
            given,
            correction=door.value(channel, given.correction),
            comment=None if given.comment is None else door.clean(channel, given.comment).text,
            labeller=None if given.labeller is None else door.name(channel, given.labeller),
            idempotency_key=None if given.idempotency_key is None else door.name(channel, given.idempotency_key),
        )
    except HeadraceError as error:
        return error


def _received(
    ws: Workspace, conn: "Connection", found: Mapping[str, Prediction], givens: Sequence[Given]
) -> list[Feedback | HeadraceError]:
    keys = {_kept_key(given, found.get(given.prediction_id)) for given in givens}
    known = predictions.feedback_with_keys(conn, {key for key in keys if key})
    taken: list[Feedback | HeadraceError] = []
    fresh = []
    for given in givens:
        try:
            feedback = make(ws, _issued(ws, conn, found.get(given.prediction_id), given), given)
            before = _taken_before(known, feedback)
        except HeadraceError as error:
            taken.append(error)
            continue
        taken.append(before or feedback)
        if before is None:
            fresh.append(feedback)
    predictions.add_feedback(conn, fresh, config_hash=ws.config_hash)
    return taken


def make(ws: Workspace, prediction: Prediction, given: Given) -> Feedback:
    """The record of feedback on a prediction, its correction parsed by the prediction's task.

    Raises:
        BadInput: the correction is no label of the task, or the metric is not declared as given.
        NotFound: headrace.toml has the task no more.
    """
    correction = given.correction
    if correction is not None:
        task = ws.task(prediction.task)
        task_type: TaskType = TASK_TYPES.get(task.type)(task)
        correction = task_type.parse_label(correction, _input_of(prediction))
    if given.metric is not None:
        _check_metric(ws, given.metric, given.value)
    return Feedback(
        id=new_id("feedback"),
        prediction_id=prediction.id,
        kind=given.kind,
        correction=correction,
        metric=given.metric,
        value=None if given.value is None else float(given.value),
        comment=given.comment,
        labeller=OWNER if given.labeller is None else given.labeller,
        idempotency_key=_kept_key(given, prediction),
        at=ws.clock(),
        event=given.event,
        key_id=given.key_id,
    )


def _issued(ws: Workspace, conn: "Connection", found: Prediction | None, given: Given) -> Prediction:
    """The prediction, if it was issued to the channel that speaks and is not too old.

    What is said of another channel's prediction is what is said of none, so that nobody learns which ids there are.
    """
    name, settings = given.prediction_id, ws.settings
    if name.startswith(_UNLOGGED):
        raise NotFound(
            "this answer is not in the prediction log, so it takes no feedback",
            value=name,
            next_step="The log is off (serve.log), or its queue was full (serve.log_queue_rows)",
        )
    if found is not None and not _may_speak(given, found):
        found = None
    is_late = _is_older(name, ws, settings.feedback.window_days)
    if found is None and not is_late:
        is_late = _is_older(name, ws, settings.serve.log_keep_days) or _has_moved(name, conn)
    if is_late:
        raise WrongState(
            "too late for feedback on this prediction",
            value=name,
            next_step=f"It is taken for {settings.feedback.window_days:g} days (feedback.window_days), as long as the "
            "prediction is not in files yet (serve.log_keep_days, serve.log_keep_rows)",
        )
    if found is None:
        raise NotFound("no such prediction", value=name, next_step="Send the id that /v1/predict gave your channel")
    return found


def _may_speak(given: Given, prediction: Prediction) -> bool:
    is_named = given.channel in (None, prediction.channel)
    return is_named and (given.channels is None or prediction.channel in given.channels)


def _kept_key(given: Given, prediction: Prediction | None) -> str | None:
    """An idempotency key as it is kept: where keys to the server are bound to channels, each channel has its own."""
    key = given.idempotency_key
    if key is None or given.channels is None or prediction is None:
        return key
    return hashlib.sha256(f"{prediction.channel}\0{key}".encode()).hexdigest()


def _parsed(said: object) -> Given | HeadraceError:
    try:
        return said if isinstance(said, HeadraceError) else parse(said)
    except HeadraceError as error:
        return error


def _said_in(line: bytes) -> object:
    """What a line holds, or why it cannot be read."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        shown = line[:200].decode(errors="replace").strip()
        return BadInput(f"the line is no JSON: {error}", value=shown, next_step="Write one object a line")


def _is_older(prediction_id: str, ws: Workspace, days: float) -> bool:
    """Whether a prediction was made longer ago; its id says when, whether it is there or not."""
    limit = first_id("prediction", ws.clock() - timedelta(days=days))
    return _is_id(prediction_id) and prediction_id < limit


def _has_moved(prediction_id: str, conn: "Connection") -> bool:
    """Whether the store begins with later predictions: the oldest move to files."""
    oldest = predictions.oldest(conn)
    return _is_id(prediction_id) and oldest is not None and prediction_id < oldest


def _is_id(name: str) -> bool:
    digits = name.removeprefix(_ISSUED)
    return len(digits) == _ID_DIGITS and name.startswith(_ISSUED) and set(digits) <= set("0123456789abcdef")


def _taken_before(known: dict[str, Feedback], feedback: Feedback) -> Feedback | None:
    """What came under the same key before. From now on `known` has this one."""
    if feedback.idempotency_key is None:
        return None
    before = known.setdefault(feedback.idempotency_key, feedback)
    if _said(before) != _said(feedback):
        raise AlreadyExists(
            "this idempotency key came before with other feedback",
            value=feedback.idempotency_key,
            next_step="Use a fresh key for every observation",
        )
    return None if before is feedback else before


def _check_metric(ws: Workspace, name: str, value: float | None) -> None:
    declared = ws.settings.feedback.metrics
    if name not in declared:
        declare = f"Declare it in headrace.toml: [feedback.metrics.{name}]"
        raise BadInput("no such metric", value=name, next_step=nearest(name, list(declared)) if declared else declare)
    is_truth = isinstance(value, bool)
    if declared[name].kind == "bool" and not (is_truth or value in (0, 1)):
        raise BadInput(f"{name} is true or false", value=value, next_step="Send true or false, or 1 or 0")
    if declared[name].kind == "number" and is_truth:
        raise BadInput(f"{name} is a number", value=value, next_step="Send a number")


def _input_of(prediction: Prediction) -> Input | None:
    """What was asked; None where the log kept its hash only."""
    if prediction.text is None or prediction.text_pair is None:
        return prediction.text
    return prediction.text, prediction.text_pair


def _said(feedback: Feedback) -> dict[str, Any]:
    return {name: value for name, value in vars(feedback).items() if name not in ("id", "at", "key_id")}


def _check_correction(value: object, depth: int = 0) -> None:
    """Check that a correction of any task type can be kept."""
    if depth > _MAX_DEPTH:
        raise BadInput(
            f"a correction has lists and objects within each other more than {_MAX_DEPTH} deep",
            value=f"{depth} deep",
            next_step="Send what the task's type takes for a label",
        )
    if isinstance(value, str) and ("\0" in value or not _is_unicode(value)):
        raise BadInput("a correction has text that cannot be stored", value=value, next_step="Send valid Unicode")
    if isinstance(value, float) and not math.isfinite(value):
        raise BadInput("a correction has a number that is not finite", value=value, next_step="Send a number")
    parts = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in parts:
        _check_correction(part, depth + 1)


def labeller_of(ws: Workspace, name: str | None) -> str:
    """What a labeller is called here: their name without what is personal in it.

    Args:
        name: None: who runs the workspace.

    Raises:
        BadInput: see `check_labeller`.
    """
    check_labeller(name)
    return OWNER if name is None else door_of(ws).name(None, name)


def check_labeller(name: str | None) -> None:
    """
    Raises:
        BadInput: it is no name that the store can keep, or not theirs.
    """
    _check_text("labeller", name, _MAX_NAME_CHARS)
    if name == OWNER:
        raise BadInput(
            "this name is kept for who runs the workspace",
            value=name,
            next_step="Give another one; who runs the workspace answers without a labeller",
        )


def _check_text(name: str, text: str | None, max_chars: int) -> None:
    if text is None:
        return
    if not isinstance(text, str):  # of a caller in Python
        raise BadInput(f"{name} is a text", value=text, next_step="Give a str")
    if not text.strip() or len(text) > max_chars or "\0" in text or not _is_unicode(text):
        raise BadInput(
            f"{name} must be 1 to {max_chars} characters of valid Unicode without NUL",
            value=text,
            next_step=f"Shorten or correct the {name}",
        )


def _is_unicode(text: str) -> bool:
    """Whether a database can keep the text; half of a surrogate pair cannot be encoded."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return False

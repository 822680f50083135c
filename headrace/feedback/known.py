"""Known answers: questions that do not show what they are, by which sources are judged.

They come from a file, or from examples whose labellers all agree. One that turns out wrong is retired, and nobody is
judged by it any more.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any

from headrace import auditing
from headrace.errors import BadInput, NotFound, WrongState
from headrace.feedback.sources import is_same
from headrace.ids import new_id
from headrace.personal.places import moved_target
from headrace.personal.policies import Door, door_of
from headrace.records import Input, KnownAnswer
from headrace.store import examples, known_answers, votes
from headrace.tasks import TASK_TYPES, TaskType
from headrace.tasks.inputs import text_hash
from headrace.workspace import Workspace

_MIN_AGREEING = 3
_POINTING = ("token_classification",)  # problems whose answers say where
_INEXACT = ("regression", "question_answering")


@dataclass(frozen=True)
class Added:
    """What `add` did."""

    n_added: int
    n_changed: int
    """Known before with another answer, or retired."""
    n_known: int
    """There already."""


def add(ws: Workspace, answers: Sequence[tuple[Input, object]], *, task: str | None = None) -> Added:
    """Take inputs whose answers are known; one that is known already gets the new answer.

    Raises:
        BadInput: an answer that is no label of the task, or a task whose answers are never exactly right or wrong.
    """
    name = ws.task_name(task)
    task_type = _task_type(ws, name)
    parsed = [_cleaned(door_of(ws), task_type, given, answer) for given, answer in answers]
    with ws.store.write() as conn:
        there = {one.text_hash: one for one in known_answers.listing(conn, name, retired=True)}
        fresh: dict[str, KnownAnswer] = {}
        changed: set[str] = set()
        for given, answer in parsed:
            digest, now = text_hash(given), ws.clock()
            text, pair = given if isinstance(given, tuple) else (given, None)
            old = there.get(digest)
            if old is None:
                fresh[digest] = KnownAnswer(new_id("known answer"), name, text, pair, digest, answer, now, None)
            elif old.retired_at is not None or not is_same(old.answer, answer):
                known_answers.renew(conn, old.id, answer=answer)
                changed.add(digest)
        known_answers.add(conn, list(fresh.values()))
        if fresh or changed:
            auditing.note(ws, conn, "known.add", name, facts={"n_added": len(fresh), "n_changed": len(changed)})
    return Added(len(fresh), len(changed), len(parsed) - len(fresh) - len(changed))


def _cleaned(door: Door, task_type: TaskType, given: Input, answer: object) -> tuple[Input, Any]:
    """An input without what is personal in it, and the target that is right for that."""
    target = task_type.parse_label(answer, given)
    kept, became = door.input(None, given)
    return kept, moved_target(target, became[-1]) if task_type.problem in _POINTING and kept != given else target


def add_agreed(ws: Workspace, n: int, *, task: str | None = None) -> Added:
    """Take up to `n` examples that three or more labellers gave one and the same label, spread evenly by hash.

    Labels that came back as feedback or in reviews have no say: whoever is judged would be the judge.

    Raises:
        WrongState: no example has so many labellers who agree.
        BadInput: less than one.
    """
    if n < 1:
        raise BadInput("known answers to take must be 1 or more", value=n, next_step="Give a number from 1 on")
    name = ws.task_name(task)
    _task_type(ws, name)
    found: list[tuple[str, Input, Any]] = []
    with ws.store.read() as conn:
        taken = {one.text_hash for one in known_answers.listing(conn, name, retired=True)}
        for _, group in groupby(examples.labelled_rows(conn, name), key=attrgetter("example_id")):
            lines = [line for line in group if line.origin == "labeller"]
            latest = {line.labeller_id: line.value for line in lines}
            said = list(latest.values())
            if len(said) >= _MIN_AGREEING and all(is_same(one, said[0]) for one in said):
                found.append((lines[0].text_hash, lines[0].input, said[0]))
    fresh = sorted((one for one in found if one[0] not in taken), key=lambda one: one[0])
    if not found:
        raise WrongState(
            f"no example has {_MIN_AGREEING} labellers who agree",
            value=name,
            next_step="Give a file of inputs with known labels: headrace known add FILE",
        )
    return add(ws, [(given, answer) for _, given, answer in fresh[:n]], task=name)


def retire(ws: Workspace, known_id: str) -> KnownAnswer:
    """Ask it no more, and judge nobody by it.

    Raises:
        NotFound: there is no such known answer.
    """
    with ws.store.write() as conn:
        if known_answers.find(conn, known_id) is None:
            raise NotFound("no such known answer", value=known_id, next_step="Run: headrace known list")
        known_answers.retire(conn, known_id, ws.clock())
        found = known_answers.find(conn, known_id)
        assert found is not None
        auditing.note(ws, conn, "known.retire", known_id, facts={"task": found.task})
    return found


@dataclass(frozen=True)
class Asked:
    """A known answer, and how often it was met."""

    known: KnownAnswer
    n_asked: int
    n_right: int
    """Of all sources: where most are wrong, look at the known answer first."""


def listing(ws: Workspace, task: str | None = None, *, retired: bool = False) -> list[Asked]:
    """Known answers in the order they came, with how sources answered.

    Args:
        retired: those that are not in force, too; nobody is asked them, so nothing is counted.
    """
    name = ws.task_name(task)
    with ws.store.read() as conn:
        known = known_answers.listing(conn, name, retired=retired)
        said = [(vote.text_hash, vote.value) for vote in votes.cast(conn, name, on_known=True)]
        said += [(line["text_hash"], line["answer"]) for line in known_answers.reviewed(conn, name)]
    answer_of = {one.text_hash: one.answer for one in known}
    n_asked = Counter(digest for digest, _ in said)
    n_right = Counter(digest for digest, value in said if digest in answer_of and is_same(value, answer_of[digest]))
    return [Asked(one, n_asked[one.text_hash], n_right[one.text_hash]) for one in known]


def _task_type(ws: Workspace, task: str) -> TaskType:
    found: TaskType = TASK_TYPES.get(ws.task(task).type)(ws.task(task))
    if found.problem in _INEXACT:
        raise BadInput(
            "answers of this task type are not simply right or wrong, so sources cannot be judged by known ones",
            value=found.name,
            next_step="Label a sample in reviews instead: headrace review next",
        )
    return found

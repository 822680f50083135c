"""Feedback into snapshots: what labels that came back amount to, in the order of headrace/feedback/trust.py.

Every snapshot that is trained on is frozen here, so that no way to train takes feedback at its word.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from headrace import vectors
from headrace.data import snapshot, split
from headrace.data.sources import Options, open_source
from headrace.errors import BadInput, MissingExtra, WrongState
from headrace.feedback import drift, influence, known, labels, suspensions, trust
from headrace.feedback.settling import DISPUTED, SUSPECTED, Doubts, Settlement, settle, worth
from headrace.feedback.sources import gather
from headrace.feedback.triggers import Facts
from headrace.records import Input, ModelVersion, Settled, Snapshot, SnapshotRow, Suspension
from headrace.store import examples, runs, snapshots, versions
from headrace.store.votes import OF_SOURCES
from headrace.tasks import TASK_TYPES, TaskType
from headrace.tasks.inputs import parse_input
from headrace.workspace import Workspace

Report = Callable[..., None]
_MOST_CHECKED = {"train": 4_000, "validation": 1_000}  # whose vectors are computed: seconds once, on two cores

_DOUBTFUL, _MOST_DOUBTFUL = "doubtful", 1_000  # key of a snapshot's facts


def silent(*_args: object, **_facts: object) -> None:
    """A report to nobody."""


def freeze(ws: Workspace, *, task: str | None = None, report: Report = silent) -> Snapshot:
    """Freeze the labelled examples of a task; those with feedback alone by what it amounts to.

    Raises:
        WrongState: nothing is labelled, or a side would be empty.
        MissingExtra: pyarrow is not installed.
    """
    return frozen(ws, settlement(ws, task=task, report=report), task=task)


def frozen(ws: Workspace, found: Settlement, *, task: str | None = None) -> Snapshot:
    """The snapshot of what a settlement says."""
    doubtful = [example_id for example_id, one in found.settled.items() if one.held_back in (SUSPECTED, DISPUTED)]
    facts = {"trust": found.facts, _DOUBTFUL: sorted(doubtful)[:_MOST_DOUBTFUL]} if found.facts["n_labels"] else {}
    return snapshot.freeze(ws, task=task, settled=found.settled, facts=facts)


def doubtful(ws: Workspace, one: Snapshot) -> list[str]:
    """Ids of examples that a snapshot left out because their labels are suspected or disputed: people can tell."""
    with ws.store.read() as conn:
        artifact = runs.find_artifact(conn, one.artifact)
    return [] if artifact is None else list(artifact.facts.get(_DOUBTFUL, ()))


def settlement(ws: Workspace, *, task: str | None = None, report: Report = silent) -> Settlement:
    """What the labels that came back amount to now; vectors have their say where they can be had."""
    name = ws.task_name(task)
    task_type: TaskType = TASK_TYPES.get(ws.task(name).type)(ws.task(name))
    split.assign(ws)  # caps hang on sides
    said, settings = gather(ws, name), ws.settings.feedback
    weights = trust.weights_of(trust.judged(said, settings))
    first = settle(said, weights, task_type, settings, Doubts(left_out="no label counts"))
    if not first.counted:
        return first
    rows = _looked_at(snapshot.current(ws, name, first.settled)[0])
    return settle(said, weights, task_type, settings, _doubts(ws, name, rows, first, task_type, report))


def _looked_at(rows: Sequence[SnapshotRow]) -> list[SnapshotRow]:
    """All rows from feedback, and of the checked ones so many of each side, evenly over channels and keys."""
    found = [row for row in rows if row.origin == "feedback"]
    for side, most in _MOST_CHECKED.items():
        own = [row for row in rows if row.side == side and row.origin != "feedback"]
        step = max(1.0, len(own) / most)
        found += [own[int(i * step)] for i in range(min(most, len(own)))]
    return found


def _doubts(
    ws: Workspace, task: str, rows: Sequence[SnapshotRow], first: Settlement, task_type: TaskType, report: Report
) -> Doubts:
    if why := influence.reason_to_pass(rows, first, task_type):
        return Doubts(left_out=why)
    try:
        found = vectors.of_inputs(ws, [row.input for row in rows], task=task, report=report)
    except MissingExtra as error:
        return Doubts(left_out=str(error))
    return influence.doubts(rows, found, first, task_type, ws.settings.feedback)


def collect(ws: Workspace, *, task: str | None = None) -> tuple[int, list[Suspension]]:
    """Make labels of the corrections that came, and suspend bursts; how many were used, and what was suspended."""
    name = ws.task_name(task)
    return labels.to_labels(ws, name), suspensions.watch(ws, name)


def n_new(ws: Workspace, found: Settlement, old: Snapshot, rows: Sequence[SnapshotRow]) -> int:
    """Labels that count and came after an older snapshot, each by what it is worth; 0 where its rows are the same.

    Args:
        rows: those of now, as `found` has them be.
    """
    if snapshot.hash_of(rows) == old.content_hash:
        return 0
    with ws.store.read() as conn:
        came = examples.labelled_since(conn, old.task, old.created_at)
    own = {one.example_id for one in came if snapshot.is_checked(one, found.settled.get(one.example_id, Settled()))}
    fresh = own | {vote.example_id for vote in found.counted if vote.labelled_at > old.created_at}
    settings = ws.settings.feedback
    return round(sum(worth(row.weight, settings) for row in rows if row.example_id in fresh))


def trigger_facts(ws: Workspace, *, task: str | None = None, report: Report = silent) -> Facts:
    """What is known now of whether a new version is due (headrace/feedback/triggers.py).

    Raises:
        NotFound: no such task.
        WrongState: the task has no version.
    """
    name = ws.task_name(task)
    with ws.store.read() as conn:
        made = versions.listing(conn, name)
    if not made:
        raise WrongState("the task has no model version", value=name, next_step="Make one first: headrace train")
    newest = made[-1]
    n_new_labels, n_held_back = _since(ws, made, report)
    worse = [one for one in drift.open_alarms(ws, name) if one.touches_accuracy and one.at > newest.created_at]
    return Facts(
        newest=newest.name,
        newest_at=newest.created_at,
        now=ws.clock(),
        n_new_labels=n_new_labels,
        n_held_back=n_held_back,
        alarms=tuple(one.in_words for one in worse),
    )


def _since(ws: Workspace, made: Sequence[ModelVersion], report: Report) -> tuple[int, int]:
    """New labels that count since the newest of the versions made, and examples with new feedback that does not."""
    old = snapshot.find(ws, made[-1].snapshot_id)
    with ws.store.read() as conn:
        came = examples.labelled_since(conn, old.task, old.created_at)
    if not came:  # what labels amount to takes vectors of rows
        return 0, 0
    found = settlement(ws, task=old.task, report=report)
    rows, _ = snapshot.current(ws, old.task, found.settled)
    of_sources = {one.example_id for one in came if one.origin in OF_SOURCES}
    back = [found.settled[example_id] for example_id in of_sources & found.settled.keys()]
    n_held_back = sum(one.held_back is not None and not one.reviewers for one in back)
    with ws.store.read() as conn:
        same = snapshots.with_hash(conn, old.task, snapshot.hash_of(rows))
    is_made = same is not None and same.id in {version.snapshot_id for version in made}
    return 0 if is_made else n_new(ws, found, old, rows), n_held_back


def add_known(
    ws: Workspace,
    source: str | Path,
    *,
    task: str | None = None,
    format: str | None = None,
    label_column: str = "label",
) -> known.Added:
    """Take the rows of a file as known answers: its inputs and labels.

    Raises:
        NotFound: no such file, format or source.
        BadInput: a row that cannot be read or has no label, or an answer that is no label of the task.
    """
    name = ws.task_name(task)
    settings = ws.task(name)
    task_type: TaskType = TASK_TYPES.get(settings.type)(settings)
    text, *pair = task_type.fields
    options = Options(text=text, pair=next(iter(pair), ""), label=label_column, takes_turns=settings.input == "turns")
    rows: list[tuple[Input, object]] = []
    for row in open_source(str(source), format=format).read(str(source), options):
        if row.error is not None or row.label in (None, ""):
            raise BadInput(
                "a known answer needs an input and a label",
                value=f"line {row.line}: {row.detail or row.error or 'no label'}",
                next_step="Mend the line, or take it out",
            )
        given = {text: row.text, pair[0]: row.text_pair} if pair else row.text
        rows.append((parse_input(settings, task_type.fields, given), row.label))
    return known.add(ws, rows, task=name)

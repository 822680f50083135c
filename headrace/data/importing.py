"""Rows of a source become examples and labels of a channel; bad rows are put aside with line and reason.

States of an import: running -> done. All rows are read and checked first, then written by key in chunks, so that a
live server can write in between; nobody sees them until one transaction says `done`. Only one import runs at a time (an
OS lock), so an import found `running` by the holder of that lock is the leftover of a dead process, and is taken back
first.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from heapq import nsmallest
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from headrace import auditing
from headrace.config import TaskTable
from headrace.data import channels
from headrace.data.checking import Checked, Checker, put_aside
from headrace.data.sources import Options, open_source, shown
from headrace.errors import BadInput, NotFound, WrongState
from headrace.ids import new_id
from headrace.personal import mapping
from headrace.personal.policies import door_of
from headrace.records import Channel, ImportReport, RawRow
from headrace.store import channels as channel_rows
from headrace.store import examples, imports
from headrace.store.examples import Known, NewExample, NewLabel
from headrace.store.imports import Quarantined
from headrace.store.staging import Staging
from headrace.tasks import TASK_TYPES, TaskType
from headrace.workspace import Workspace

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

_CHUNK_ROWS = 5_000
_REMOVED_AT_ONCE = 5_000
_N_SHOWN = 5
_OWN_LABELLER = "import"
"""Labeller of a row's own label, which is also its origin."""

ProgressCall = Callable[[int, int | None], None]


def import_rows(
    ws: Workspace,
    channel: str,
    source: str | Path,
    *,
    task: str | None = None,
    format: str | None = None,
    text_column: str | None = None,
    pair_column: str | None = None,
    label_column: str = "label",
    id_column: str = "id",
    group_column: str = "group",
    query: str | None = None,
    strict: bool = False,
    progress: ProgressCall | None = None,
) -> ImportReport:
    """Import a source into a channel. Running it again adds nothing; running it after a kill finishes the work.

    Args:
        format: name of a source, where the location does not tell.
        text_column, pair_column: the input's parts; None: the names that the task type gives them.
        label_column: empty for rows without labels.
        strict: keep nothing if any row is bad.
        progress: called after each chunk with rows read and None, then with rows written and rows in all.

    Raises:
        NotFound: no such channel, task, format or source.
        BadInput: the source cannot be read as a whole, has no rows, or has a bad row under `strict`.
        WrongState: another import is running.
    """
    task = ws.task_name(task)
    into = channels.find(ws, channel)
    location = str(source)
    settings = ws.task(task)
    task_type: TaskType = TASK_TYPES.get(settings.type)(settings)
    max_chars = ws.settings.data.max_chars
    named = Options(label=label_column, id=id_column, group=group_column, query=query, max_chars=max_chars)
    options = with_parts(named, settings, task_type.fields, text_column, pair_column)
    door = door_of(ws)
    checker = Checker(into.name, settings, task_type, options.max_chars, door)
    rows = open_source(location, format=format).read(location, options)
    with only_import(ws):
        intake = _Intake(ws, into, task, door.shown(shown(location)), checker)
        return _run(intake, rows, strict=strict, progress=progress)


def with_parts(
    named: Options, task: TaskTable, fields: tuple[str, ...], text_column: str | None, pair_column: str | None
) -> Options:
    """Options with the columns of the input's parts, by the task type's own names where no others are given."""
    pair = fields[1] if len(fields) > 1 else ""
    if pair_column and not pair:
        raise BadInput("the task reads inputs of one part", value=f"--pair {pair_column}", next_step="Leave --pair out")
    takes_turns = task.input == "turns" and text_column is None
    return replace(named, text=text_column or fields[0], pair=pair_column or pair, takes_turns=takes_turns)


def quarantined(ws: Workspace, import_id: str) -> list[dict[str, Any]]:
    """The rows that an import put aside: line, reason, detail and the raw text in short.

    Raises:
        NotFound: no such import.
    """
    with ws.store.read() as conn:
        if not imports.exists(conn, import_id):
            raise NotFound("no such import", value=import_id, next_step="The report of `headrace import` names it")
        return [row._asdict() for row in imports.quarantined(conn, import_id)]


@contextmanager
def only_import(ws: Workspace) -> Iterator[None]:
    """Hold the lock of imports, and take back what dead imports left.

    Raises:
        WrongState: another import is running.
    """
    lock = FileLock(ws.state_folder / "import.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise WrongState(
            "another import is running in this workspace", value=str(ws.root), next_step="Try again when it is done"
        ) from None
    try:
        with ws.store.read() as conn:
            leftovers = imports.unfinished(conn)
        for import_id in leftovers:
            _take_back(ws, import_id)
        yield
    finally:
        lock.release()


def _take_back(ws: Workspace, import_id: str) -> None:
    more = True
    while more:
        with ws.store.write(durable=False) as conn:
            more = imports.remove_some(conn, import_id, _REMOVED_AT_ONCE)


@dataclass
class _Intake:
    """One import: where rows go, and what has happened so far."""

    ws: Workspace
    channel: Channel
    task: str
    source: str
    checker: Checker
    id: str = field(default_factory=lambda: new_id("import"))
    n_rows: int = 0
    n_added: int = 0
    n_known: int = 0
    n_labels: int = 0
    n_unlabelled: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    first_bad: list[Quarantined] = field(default_factory=list)
    labellers: dict[str, str] = field(default_factory=dict)


def _run(intake: _Intake, rows: Iterator[RawRow], *, strict: bool, progress: ProgressCall | None) -> ImportReport:
    ws, began = intake.ws, time.monotonic()
    with ws.store.write() as conn:
        imports.start(
            conn,
            intake.id,
            channel_id=intake.channel.id,
            task=intake.task,
            source=intake.source,
            now=ws.clock(),
            config_hash=ws.config_hash,
        )
    try:
        with Staging(in_memory=bool(ws.settings.store.key_file)) as staging:
            _read(intake, rows, staging, progress)
            _write(intake, staging, progress)
        _refuse_if_useless(intake, strict=strict)
    except BaseException:  # also an interrupt: what was written so far is taken back before it goes on
        _take_back(ws, intake.id)
        raise
    report = _report(intake, time.monotonic() - began)
    with ws.store.write() as conn:
        imports.finish(conn, intake.id, asdict(report), ws.clock())
        counts = {name: getattr(report, name) for name in ("n_rows", "n_added", "n_labels", "n_quarantined")}
        facts = {"channel": report.channel, "task": intake.task, **counts}
        auditing.note(ws, conn, "import", intake.id, facts=facts)
    return report


def _read(intake: _Intake, rows: Iterator[RawRow], staging: Staging, progress: ProgressCall | None) -> None:
    """Check every row of the source; good ones are staged, bad ones put aside."""
    while chunk := list(islice(rows, _CHUNK_ROWS)):
        checked = [intake.checker.check(row) for row in chunk]
        staging.add((one[0], one[1], one[2:]) for one in checked if isinstance(one, Checked))
        bad = [one for one in checked if isinstance(one, Quarantined)]
        kept, intake.checker.kept = intake.checker.kept, []
        if bad or kept:
            with intake.ws.store.write(durable=False) as conn:
                _put_aside(intake, conn, bad)
                mapping.keep(intake.ws, conn, intake.channel.id, kept)
        intake.n_rows += len(chunk)
        if progress is not None:
            progress(intake.n_rows, None)


def _write(intake: _Intake, staging: Staging, progress: ProgressCall | None) -> None:
    """Write the staged rows in chunks, each a transaction. Not durable one by one: the one that finishes is."""
    rows = (Checked(key, line, *rest) for key, line, rest in staging.by_key())
    n_done = intake.reasons.total()
    while chunk := list(islice(rows, _CHUNK_ROWS)):
        now = intake.ws.clock()
        with intake.ws.store.write(durable=False) as conn:
            imports.widen_cache(conn)
            _name_labellers(intake, conn, chunk)
            new, labels, refused = _sorted_out(intake, conn, chunk)
            examples.add_examples(conn, new, channel_id=intake.channel.id, import_id=intake.id, now=now)
            examples.add_labels(conn, labels, task=intake.task, import_id=intake.id, now=now)
            _put_aside(intake, conn, refused)
        intake.n_added += len(new)
        intake.n_known += len(chunk) - len(new) - len(refused)
        intake.n_labels += len(labels)
        n_done += len(chunk)
        if progress is not None:
            progress(n_done, intake.n_rows)


def _put_aside(intake: _Intake, conn: "Connection", bad: list[Quarantined]) -> None:
    imports.add_quarantined(conn, intake.id, bad)
    intake.reasons.update(one.reason for one in bad)
    intake.first_bad = nsmallest(_N_SHOWN, [*intake.first_bad, *bad])


def _name_labellers(intake: _Intake, conn: "Connection", rows: Iterable[Checked]) -> None:
    names = {name for row in rows if row.labels for name in row.labels} | {_OWN_LABELLER}
    if fresh := names - intake.labellers.keys():
        found = channel_rows.labeller_ids(conn, intake.channel.id, fresh, intake.ws.clock())
        intake.labellers.update(found)


def _sorted_out(
    intake: _Intake, conn: "Connection", rows: list[Checked]
) -> tuple[list[NewExample], list[NewLabel], list[Quarantined]]:
    """Examples and labels that are not there yet, and rows that contradict what is there."""
    there = examples.known(conn, intake.channel.id, [row.key for row in rows])
    labels_of = examples.labels_of(conn, intake.task, [known.id for known in there.values()])
    example_ids = examples.new_ids("example", len(rows))
    label_ids = iter(examples.new_ids("label", sum(1 + len(row.labels) for row in rows)))
    new: list[NewExample] = []
    labels: list[NewLabel] = []
    refused: list[Quarantined] = []
    for row, fresh_id in zip(rows, example_ids, strict=True):
        known = there.get(row.key)
        if known is None:
            known = there[row.key] = Known(fresh_id, row.text_hash)
            new.append(NewExample(fresh_id, row.key, row.text, row.text_hash, row.group_key, row.text_pair))
            intake.n_unlabelled += row.target is None and not row.labels
        have = labels_of.setdefault(known.id, [])
        if problem := _contradiction(row, known, have):
            refused.append(put_aside(row.line, *problem, row.text))
            continue
        for labeller_id, origin, target, score in _labels_in(intake, row):
            if (labeller_id, origin, target) not in have:
                have.append((labeller_id, origin, target))
                labels.append(NewLabel(next(label_ids), known.id, labeller_id, target, score, origin))
    return new, labels, refused


def _contradiction(row: Checked, known: Known, have: list[tuple[str, str, Any]]) -> tuple[str, str] | None:
    """(reason, detail) when an example is there already and says something else."""
    if known.text_hash != row.text_hash:
        return "duplicate_id", f"the id {row.key!r} is there already with another text"
    if row.target is None or not have:
        return None
    own = [value for _, origin, value in have if origin == "import"]
    if not own or row.target in own:
        return None
    if row.has_id:
        return "duplicate_id", f"the id {row.key!r} is there already with label {own[0]!r}, not {row.target!r}"
    return "conflicting_label", f"the same text is there already with label {own[0]!r}, not {row.target!r}"


def _labels_in(intake: _Intake, row: Checked) -> Iterator[tuple[str, str, Any, float | None]]:
    """(labeller id, origin, target, score) of a row's own label and of its labellers'."""
    if row.target is not None:
        yield intake.labellers[_OWN_LABELLER], "import", row.target, None
    for name, (target, score) in row.labels.items():
        yield intake.labellers[name], "labeller", target, score


def _refuse_if_useless(intake: _Intake, *, strict: bool) -> None:
    if intake.n_rows == 0:
        raise BadInput("the source has no rows", value=intake.source, next_step="Give one with a row or more")
    if strict and intake.reasons:
        first = "; ".join(f"line {bad.line}: {bad.reason} ({bad.detail})" for bad in intake.first_bad)
        raise BadInput(
            f"{intake.reasons.total()} of {intake.n_rows} rows are bad, and nothing was kept; the first: {first}",
            value=intake.source,
            next_step="Correct them, or import without --strict to put them aside",
        )


def _report(intake: _Intake, seconds: float) -> ImportReport:
    n_quarantined = intake.reasons.total()
    return ImportReport(
        id=intake.id,
        channel=intake.channel.name,
        source=intake.source,
        n_rows=intake.n_rows,
        n_added=intake.n_added,
        n_known=intake.n_known,
        n_labels=intake.n_labels,
        n_quarantined=n_quarantined,
        reasons=dict(sorted(intake.reasons.items())),
        quarantine=f"headrace check --quarantine {intake.id}" if n_quarantined else "",
        seconds=round(seconds, 3),
        n_unlabelled=intake.n_unlabelled,
    )

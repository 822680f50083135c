"""Take a labeller, a channel or an example out of the workspace for good.

In this order, so that what says where the rest is goes last, and a kill at any moment is finished by the next erasure:

    tombstone (begun) -> snapshots, exports and other files -> old predictions -> caches and logs -> rows of the store
    -> free pages and the database's log -> receipt, tombstone (done)

Versions stay as they are: they answer until they are replaced, and are listed with the day by which they should be.
"""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from headrace import auditing, jobs, retention
from headrace.data import importing
from headrace.errors import WrongState
from headrace.ids import new_id
from headrace.lineage import affected, receipts, remnants, searching, subjects, tombstones, workspace_files
from headrace.lineage.affected import Affected
from headrace.lineage.searching import Search
from headrace.lineage.subjects import Rows, Subject
from headrace.lineage.tombstones import BEGUN, DONE, Tombstone
from headrace.personal import mapping
from headrace.registry import resolve
from headrace.store import erasures, lineage, snapshots
from headrace.store.erasures import Erasure
from headrace.version import VERSION
from headrace.workspace import Workspace

Report = Callable[..., None]
_REMOVED_AT_ONCE = 2_000  # rows per transaction, so that a server's writes find gaps
_STEPS = ("files", "snapshots", "predictions", "caches", "rows", "free pages", "receipt")


@dataclass(frozen=True)
class Plan:
    """What an erasure would take, and what was made of it."""

    kind: str
    channel: str
    rows: dict[str, int]
    """Table to rows. Predictions that have moved to files come on top."""
    snapshots: list[str]
    """Ids of snapshots whose files go."""
    versions: list[str]
    """Names of versions that used the rows."""
    in_charge: list[str]
    """Those of them that answer now."""
    adapters: list[dict[str, str]]
    """Version and channel of adapters that used the rows, where it is not the version's whole model."""
    files: list[str]
    """Files of yours below the workspace that hold some of it; of JSON lines, CSV and TSV only those rows go."""


@dataclass(frozen=True)
class Erased:
    """What an erasure did."""

    id: str
    plan: Plan
    n_log_rows: int
    """Predictions taken out of files."""
    files_left: list[str]
    ledger_lines: list[int]
    """Lines of the ledger in which people wrote such a name; no line can be changed."""
    retrain_by: datetime
    receipt: str
    """Path of the signed receipt."""
    finished: list[str] = field(default_factory=list)
    """Ids of erasures that a kill had left unfinished, and that were finished first."""


def plan(ws: Workspace, *, labeller: str | None = None, channel: str | None = None, example: str | None = None) -> Plan:
    """What `erase` would take now. Changes nothing.

    Raises:
        BadInput: not one of: labeller and channel, channel, example.
        NotFound: no such channel, labeller or example.
        MissingExtra: there are snapshots and pyarrow is not installed.
    """
    subject = subjects.asked_for(ws, labeller=labeller, channel=channel, example=example)
    subjects.check_known(ws, subject)
    return _planned(ws, subject, subjects.rows_of(ws, subject))[0]


def erase(
    ws: Workspace,
    *,
    labeller: str | None = None,
    channel: str | None = None,
    example: str | None = None,
    keep_files: bool = False,
    report: Report = lambda *_args, **_facts: None,
) -> Erased:
    """Erase a labeller of a channel, a channel, or an example with its input; see docs/lineage.md for what that takes.

    Killed at any moment, the same call again finishes it.

    Args:
        keep_files: leave files of the user's below the workspace that hold some of it; they are named.

    Raises:
        BadInput, NotFound, MissingExtra: see `plan`.
        WrongState: a job, an import or another erasure is running.
        Unavailable: something reads the database for so long that its log cannot be emptied.
    """
    with _alone(ws):
        key = tombstones.key_of(ws.state_folder)
        receipts.make_key(ws)
        left = _unfinished(ws)
        keys = tombstones.key_for(left, [ws.state_folder])
        finished = [_finished(ws, one, keys, report) for one in left]
        for one in finished:
            if _is_same(ws, one, labeller, channel, example, key):
                return one
        subject = subjects.asked_for(ws, labeller=labeller, channel=channel, example=example)
        subjects.check_known(ws, subject)
        erasure_id, at = new_id("erasure"), ws.clock().astimezone(UTC).isoformat()
        tombstone = subjects.tombstone_of(subject, key, erasure_id=erasure_id, at=at, keep_files=keep_files)
        rows = subjects.rows_of(ws, subject)
        planned, found = _planned(ws, subject, rows)
        tombstones.append(ws, tombstone)
        _write_down(ws, tombstone, planned, found)
        done = _carried_out(ws, tombstone, key, subject, rows, report, is_first=True)
        return replace(done, finished=[one.id for one in finished])


def apply(ws: Workspace, known: Sequence[Tombstone], folders: Sequence[Path]) -> list[Erased]:
    """Erase again what tombstones of a newer state of this workspace say. For a workspace that nobody uses yet.

    Args:
        folders: state folders that may have the keys that the tombstones were made with.

    Raises:
        NotFound: a key is in none of them.
    """
    with ws.store.read() as conn:
        done = {one.id for one in erasures.listing(conn) if one.facts["state"] == DONE}
    newer = [one for one in known if one.id not in done]
    keys = tombstones.key_for(newer, folders)
    found = []
    for tombstone in newer:
        subject = subjects.in_store(ws, tombstone, keys.get(tombstone.key, b""))
        if subject is None:  # of a channel that came later
            tombstones.append(ws, tombstone)
            continue
        tombstones.append(ws, replace(tombstone, state=BEGUN))
        planned, uses = _planned(ws, subject, subjects.rows_of(ws, subject))
        _write_down(ws, tombstone, planned, uses)
        found.append(_finished(ws, tombstone, keys, lambda *_args, **_facts: None))
    return found


def _is_same(
    ws: Workspace, done: Erased, labeller: str | None, channel: str | None, example: str | None, key: bytes
) -> bool:
    """Whether an erasure that was finished just now is the one that is asked for."""
    with ws.store.read() as conn:
        found = erasures.find(conn, done.id)
        row = None if channel is None else lineage.channel_named(conn, channel)
    if found is None or (example is None) == (row is None):
        return False
    if row is None:
        return found.subject == example
    kind, names = ("channel", frozenset[str]()) if labeller is None else ("labeller", frozenset({labeller}))
    return found.subject == subjects.identity(Subject(kind, row["name"], row["id"], names), key)


@contextmanager
def _alone(ws: Workspace) -> Iterator[None]:
    """Keep other erasures and imports out, and refuse where a job may be reading what is to go."""
    lock = FileLock(ws.state_folder / "erase.lock", thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise WrongState(
            "another erasure is running in this workspace", value=str(ws.root), next_step="Try again when it is done"
        ) from None
    try:
        check_no_job(ws)
        with importing.only_import(ws):
            yield
    finally:
        lock.release()


def check_no_job(ws: Workspace) -> None:
    """
    Raises:
        WrongState: a job is queued or running.
    """
    live = [job for job in jobs.listing(ws) if job.state in ("queued", "running")]
    if live:
        raise WrongState(
            "a job is running, which may read what is to go",
            value=f"{live[0].id} ({live[0].target})",
            next_step=f"Wait for it (headrace job follow {live[0].id}), or stop it (headrace job cancel {live[0].id})",
        )


def _unfinished(ws: Workspace) -> list[Tombstone]:
    return [one for one in tombstones.read(ws.state_folder / tombstones.FILE) if one.state == BEGUN]


def _planned(ws: Workspace, subject: Subject, rows: Rows) -> tuple[Plan, Affected]:
    with ws.store.read() as conn:
        counts = erasures.counts(conn, rows.doomed)
    found = (
        affected.of_channel(ws, subject.channel)
        if rows.doomed.whole_channel
        else affected.of_examples(ws, subject.channel, rows.touched)
    )
    used = [one for one in found.versions if one["how"] != "measured"]
    whole = {one["name"] for one in used if one["how"] != "adapter"}
    files = workspace_files.holding(ws, _search(ws, subject, rows))
    planned = Plan(
        kind=subject.kind,
        channel=subject.channel,
        rows=counts,
        snapshots=[one["id"] for one in found.snapshots],
        versions=[one["name"] for one in used],
        in_charge=[one["name"] for one in used if one["in_charge"]],
        adapters=[
            {"version": one["version"], "channel": one["channel"]}
            for one in found.adapters
            if one["version"] not in whole
        ],
        files=[str(path) for path in files],
    )
    return planned, found


def _search(ws: Workspace, subject: Subject, rows: Rows) -> Search:
    """For what files and rows that stay are searched."""
    names = subjects.names_of(ws, subject)
    return searching.search_for(
        names | subjects.texts_of(ws, subject, rows.doomed), channel=subject.channel, names=names
    )


def _write_down(ws: Workspace, tombstone: Tombstone, planned: Plan, found: Affected) -> None:
    """Keep what will not be found any more after a kill: nothing of it is personal."""
    facts = {
        "state": BEGUN,
        "channel": planned.channel,
        "rows": planned.rows,
        "snapshots": planned.snapshots,
        "runs": [one["id"] for one in found.runs],
        "versions": planned.versions,
        "in_charge": planned.in_charge,
        "adapters": planned.adapters,
    }
    retrain_by = tombstones.at_of(tombstone) + timedelta(days=ws.settings.erase.retrain_days)
    row = Erasure(
        tombstone.id, tombstone.kind, tombstone.subject, facts, retrain_by, None, tombstones.at_of(tombstone), {}
    )
    with ws.store.write() as conn:
        erasures.add(conn, row)
        said = {"kind": row.kind, "channel": planned.channel, "rows": planned.rows, "versions": planned.versions}
        auditing.note(ws, conn, "erase", row.id, facts=said)


def _finished(ws: Workspace, tombstone: Tombstone, keys: Mapping[str, bytes], report: Report) -> Erased:
    """Do what is left of an erasure that was begun."""
    key = keys.get(tombstone.key, b"")  # of a channel no digest is needed
    subject = subjects.in_store(ws, tombstone, key)
    assert subject is not None  # a channel is never deleted
    rows = subjects.rows_of(ws, subject)
    with ws.store.read() as conn:
        known = erasures.find(conn, tombstone.id)
    if known is None:  # killed between the two places that hold the intent
        _write_down(ws, tombstone, *_planned(ws, subject, rows))
    return _carried_out(ws, tombstone, key, subject, rows, report, is_first=False)


def _carried_out(
    ws: Workspace,
    tombstone: Tombstone,
    key: bytes,
    subject: Subject,
    rows: Rows,
    report: Report,
    *,
    is_first: bool,
) -> Erased:
    """Do all steps, those that a killed run did already included.

    Args:
        is_first: no run was killed; else only the plan knows how many rows there were.
    """

    def at(step: str) -> None:
        report(step, _STEPS.index(step), len(_STEPS))

    with ws.store.read() as conn:
        known = erasures.find(conn, tombstone.id)
    assert known is not None
    at("files")
    search = _search(ws, subject, rows)
    holding = workspace_files.holding(ws, search)
    for path in () if tombstone.keep_files else holding:
        workspace_files.clean(path, search)
    at("snapshots")
    facts = {**known.facts, "snapshots": _without_snapshots(ws, subject, rows, known)}
    at("predictions")
    n_log_rows = retention.remove(ws, subjects.logged(subject.kind, tombstone, key))
    at("caches")
    _empty_caches(ws, facts["runs"])
    if find_spec("pyarrow") is not None:  # else nothing here ever made a snapshot
        _without_orphans(ws)
    at("rows")
    remnants.forget(ws, search)
    ledger_lines = remnants.in_ledger(ws, subjects.names_of(ws, subject))
    n_removed = _remove_rows(ws, rows)
    facts["rows"] = n_removed if is_first else facts["rows"]
    facts["snapshots"] = _without_snapshots(ws, subject, rows, known._replace(facts=facts))  # one may have been frozen
    at("free pages")
    ws.store.scrub()
    at("receipt")
    files_left = [str(path) for path in holding] if tombstone.keep_files else []
    facts |= {"state": DONE, "n_log_rows": n_log_rows, "n_files": len(holding), "n_files_left": len(files_left)}
    path = write_receipt(ws, known._replace(facts=facts), done_at=ws.clock())
    tombstones.append(ws, replace(tombstone, state=DONE))
    report("done", len(_STEPS), len(_STEPS))
    return Erased(
        id=tombstone.id,
        plan=_plan_of(known.kind, facts, [str(path) for path in holding]),
        n_log_rows=n_log_rows,
        files_left=files_left,
        ledger_lines=ledger_lines,
        retrain_by=known.retrain_by,
        receipt=str(path),
    )


def _plan_of(kind: str, facts: Mapping[str, Any], files: list[str]) -> Plan:
    names = ("channel", "rows", "snapshots", "versions", "in_charge", "adapters")
    return Plan(kind=kind, files=files, **{name: facts[name] for name in names})


def _without_snapshots(ws: Workspace, subject: Subject, rows: Rows, known: Erasure) -> list[str]:
    """Mark the snapshots that hold any of it as erased and delete their files; ids of all of them.

    A snapshot is never written anew: its hash says which rows a version was made of, and it would say it of others.
    """
    with ws.store.read() as conn:
        there = lineage.snapshots(conn)
    whole = rows.doomed.whole_channel
    live = [one for one in there if one["erased_at"] is None] if rows.touched or whole else []
    held = affected.holding(ws, live, subject.channel, None if whole else rows.touched, None)
    found = sorted({*known.facts["snapshots"], *(one.snapshot["id"] for one in held)})
    for one in there:
        if one["id"] in found:
            with ws.store.write() as conn:
                snapshots.mark_erased(conn, one["id"], one["erased_at"] or ws.clock())
            ws.artifacts.remove(one["artifact"])
    return found


def _without_orphans(ws: Workspace) -> None:
    """Delete the files of snapshots that no row names: a process ended between the two, or waits for our lock."""
    is_snapshot = resolve("headrace.data.parquet:is_snapshot", purpose="looking into snapshots")
    with ws.store.read() as conn:
        known = lineage.artifacts(conn)
    for digest in set(ws.artifacts.digests()) - known:
        folder = ws.artifacts.look(digest)
        if folder is None or is_snapshot(folder):
            ws.artifacts.remove(digest)


def _empty_caches(ws: Workspace, run_ids: Sequence[str]) -> None:
    """Delete what was computed from rows and can be computed again, and what processes said of them."""
    ws.artifacts.clear_scratch()
    for name in ("cache", "logs"):
        shutil.rmtree(ws.state_folder / name, ignore_errors=True)
    for run_id in run_ids:
        shutil.rmtree(ws.state_folder / "runs" / run_id, ignore_errors=True)


def _remove_rows(ws: Workspace, rows: Rows) -> dict[str, int]:
    """Table to the number of rows that went, but for sides of groups without rows."""
    n_removed: Counter[str] = Counter()
    mapping.shred(ws, rows.doomed.channel_id, rows.people)
    for step in erasures.steps(rows.doomed):
        n = 1
        while n:
            with ws.store.write() as conn:
                n = erasures.remove_some(conn, step, _REMOVED_AT_ONCE)
            n_removed[step.table.name] += n if step.instead is None else 0
    with ws.store.write() as conn:
        erasures.forget_errors(conn)
        if rows.doomed.whole_channel:
            erasures.forget_channel(conn, rows.doomed.channel_id)
    return {name: n for name, n in n_removed.items() if n and name != erasures.SIDES}


def write_receipt(ws: Workspace, erasure: Erasure, *, done_at: datetime) -> Path:
    """Sign what was done, keep it in the store and as a file; the path of the file."""
    facts = erasure.facts
    content = {
        "receipt": "headrace erasure, form 1",
        "id": erasure.id,
        "kind": erasure.kind,
        "channel": facts["channel"],
        "subject": erasure.subject,
        "asked_at": erasure.at.isoformat(),
        "done_at": done_at.isoformat(),
        "rows": facts["rows"],
        "rows_in_files": facts["n_log_rows"],
        "files": facts["n_files"],
        "files_left": facts["n_files_left"],
        "snapshots": facts["snapshots"],
        "versions": facts["versions"],
        "adapters": facts["adapters"],
        "retrain_by": erasure.retrain_by.isoformat(),
        "rebuilt_at": None if erasure.rebuilt_at is None else erasure.rebuilt_at.isoformat(),
        "rebuilt": facts.get("rebuilt", []),
        "headrace": VERSION,
    }
    receipt = receipts.signed(ws, content)
    path = receipts.write(ws, receipt)
    with ws.store.write() as conn:
        erasures.change(conn, erasure.id, facts=facts, receipt=receipt, rebuilt_at=erasure.rebuilt_at)
    return path


def listing(ws: Workspace) -> list[dict[str, Any]]:
    """Every erasure, oldest first: what it was about, which versions used it, and by when to replace them.

    Until none of those versions is `in_charge`, the day counts. `made` are those that `rebuild` trained without it.
    """
    with ws.store.read() as conn:
        found = erasures.listing(conn)
    in_charge = affected.in_charge(ws)
    return [
        {
            "id": one.id,
            "kind": one.kind,
            "channel": one.facts["channel"],
            "at": one.at,
            "state": one.facts["state"],
            "versions": one.facts["versions"],
            "in_charge": [name for name in one.facts["versions"] if name in in_charge],
            "made": [line["version"] for line in one.facts.get("rebuilt", ()) if line["version"] is not None],
            "retrain_by": one.retrain_by,
            "rebuilt_at": one.rebuilt_at,
            "is_late": not in_charge.isdisjoint(one.facts["versions"]) and one.retrain_by < ws.clock(),
        }
        for one in found
    ]

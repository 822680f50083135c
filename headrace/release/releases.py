"""Releases: which version answers, which one is tried beside it, and the ledger of every such decision.

    (none) --start--> open --promote--> promoted     the candidate is in charge
                      open --reject---> rejected     the control stays
                      open --stop-----> stopped      no decision; a rollback also stops
                      open --hold-----> open

A version is in charge when the newest `promote` or `rollback` line of its task names it. Every change is one write
transaction that checks the state it starts from, so of two callers at once the second gets WrongState.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace.errors import NotFound, WrongState, nearest
from headrace.ids import new_id
from headrace.records import Decision, LedgerEntry, ModelVersion, Release
from headrace.release.policies import POLICIES
from headrace.store import channels, ledger, versions
from headrace.store import releases as rows
from headrace.workspace import Workspace

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

FIRST = "first version: nothing to compare it with"
_END_STATES = {"promote": "promoted", "reject": "rejected", "stop": "stopped"}


@dataclass(frozen=True)
class Serving:
    """Who answers for a task: the control, and the candidate of the open release beside it."""

    control: ModelVersion
    candidate: ModelVersion | None
    release: Release | None


def serving(ws: Workspace, task: str | None = None) -> Serving:
    """Who answers for a task now.

    Raises:
        WrongState: no version is in charge yet.
    """
    task = ws.task_name(task)
    with ws.store.read() as conn:
        control = _control(conn, task)
        release = rows.open_release(conn, task)
        candidate = None if release is None else versions.find(conn, release.candidate_id)
        has_version = bool(versions.listing(conn, task))
    if control is None:
        step = "Put one in charge: headrace serve, or headrace release promote 1"
        raise WrongState(
            "no version of the task is in charge yet",
            value=task,
            next_step=step if has_version else "Make one first: headrace train",
        )
    return Serving(control, candidate, release)


def find_version(ws: Workspace, task: str | None, name: str | int) -> ModelVersion:
    """The version called `name`: "task/2", "2" or its id.

    Raises:
        NotFound: there is none; the message names the nearest.
    """
    task = ws.task_name(task)
    with ws.store.read() as conn:
        return _named(conn, task, name)


def ensure_control(ws: Workspace, task: str | None = None, *, actor: str = "cli") -> ModelVersion:
    """The version in charge; where none ever was, the newest one takes charge, with a ledger line.

    Raises:
        WrongState: the task has no version.
    """
    task = ws.task_name(task)
    with ws.store.write() as conn:
        control = _control(conn, task)
        if control is not None:
            return control
        known = versions.listing(conn, task)
        if not known:
            raise WrongState("the task has no model version", value=task, next_step="Make one first: headrace train")
        _append(ws, conn, task, "promote", known[-1].id, None, FIRST, {}, actor)
        return known[-1]


def start(
    ws: Workspace,
    *,
    candidate: ModelVersion | str,
    task: str | None = None,
    policy: str | None = None,
    evidence: Mapping[str, Any] | None = None,
    actor: str = "cli",
) -> Release:
    """Open a release: the candidate answers beside the control from now on.

    Args:
        evidence: what speaks for trying it, such as the gates it passed; goes to the ledger.

    Raises:
        WrongState: no version is in charge, the candidate itself is, or a release of the task is open.
        NotFound: no such version or policy.
    """
    task = ws.task_name(task if task or isinstance(candidate, str) else candidate.task)
    policy = policy or ws.settings.release.policy
    POLICIES.get(policy)
    with ws.store.write() as conn:
        version = _named(conn, task, candidate if isinstance(candidate, str) else candidate.id)
        control = _control(conn, task)
        running = rows.open_release(conn, task)
        if control is None:
            raise WrongState(
                "no version is in charge to compare the candidate with",
                value=task,
                next_step="Put one in charge first: headrace release promote",
            )
        if control.id == version.id:
            raise WrongState("the candidate is already in charge", value=version.name, next_step="Name another version")
        if running is not None:
            raise WrongState(
                "a release of the task is open", value=running.id, next_step="Decide it or run: headrace release stop"
            )
        release = Release(
            id=new_id("release"),
            task=task,
            control_id=control.id,
            candidate_id=version.id,
            policy=policy,
            options={
                "alpha": ws.settings.release.alpha,
                "channels": [channel.name for channel in channels.listing(conn)],
            },
            state="open",
            started_at=ws.clock(),
            ended_at=None,
        )
        rows.add(conn, release, config_hash=ws.config_hash)
        reason = f"{version.name} is tried beside {control.name}"
        _append(ws, conn, task, "start", version.id, release.id, reason, dict(evidence or {}), actor)
    return release


def decide(ws: Workspace, release: Release, decision: Decision, *, actor: str = "cli") -> LedgerEntry:
    """Write a policy's decision to the ledger; promote and reject also close the release.

    Raises:
        WrongState: the release is closed, by an earlier or a faster decision.
    """
    with ws.store.write() as conn:
        return _decide(ws, conn, release, decision.verdict, decision.reason, decision.evidence, actor)


def promote(
    ws: Workspace,
    version: ModelVersion | str | None = None,
    *,
    task: str | None = None,
    reason: str = "by hand",
    evidence: Mapping[str, Any] | None = None,
    actor: str = "cli",
) -> LedgerEntry:
    """Put a version in charge by hand; without a name, the candidate of the open release.

    Raises:
        WrongState: it is in charge already, nothing is open to promote, or another version's release is open.
        NotFound: no such version.
    """
    task = ws.task_name(task if task or not isinstance(version, ModelVersion) else version.task)
    facts = dict(evidence or {})
    with ws.store.write() as conn:
        running = rows.open_release(conn, task)
        if version is None and running is None:
            raise WrongState("no release is open", value=task, next_step="Name the version to promote, such as 2")
        if version is None:
            assert running is not None
            return _decide(ws, conn, running, "promote", reason, facts, actor)
        found = _named(conn, task, version if isinstance(version, str) else version.id)
        if running is not None and running.candidate_id == found.id:
            return _decide(ws, conn, running, "promote", reason, facts, actor)
        if running is not None:
            raise WrongState(
                "the open release tries another version",
                value=running.id,
                next_step="Run first: headrace release stop",
            )
        if found.id == ledger.control_id(conn, task):
            raise WrongState("the version is in charge already", value=found.name, next_step="Name another version")
        return _append(ws, conn, task, "promote", found.id, None, reason, facts, actor)


def rollback(
    ws: Workspace,
    *,
    to: str | None = None,
    task: str | None = None,
    reason: str = "by hand",
    evidence: Mapping[str, Any] | None = None,
    actor: str = "cli",
) -> LedgerEntry:
    """Put the version in charge that was so before, or a named one that once was; an open release is stopped.

    Rolling back twice goes two versions back, not back and forth.

    Raises:
        WrongState: none was in charge before, or the named one never was.
        NotFound: no such version.
    """
    task = ws.task_name(task)
    with ws.store.write() as conn:
        lines = [e for e in ledger.listing(conn, task) if e.kind in ("promote", "rollback")]
        target = _earlier(lines) if to is None else _named(conn, task, to).id
        if target is None:
            raise WrongState(
                "no version was in charge before this one", value=task, next_step="`headrace history` shows who was"
            )
        if target not in {e.version_id for e in lines[:-1]} or target == lines[-1].version_id:
            raise WrongState(
                "one can only go back to a version that was in charge before",
                value=to,
                next_step="`headrace history` shows who was; `headrace release promote` puts any version in charge",
            )
        running = rows.open_release(conn, task)
        if running is not None:
            _close(ws, conn, running, "stop", f"stopped by a rollback: {reason}", {}, actor)
        return _append(ws, conn, task, "rollback", target, None, reason, dict(evidence or {}), actor)


def stop(ws: Workspace, task: str | None = None, *, reason: str = "by hand", actor: str = "cli") -> LedgerEntry:
    """Close the open release without a decision; the control stays.

    Raises:
        WrongState: none is open.
    """
    task = ws.task_name(task)
    with ws.store.write() as conn:
        running = rows.open_release(conn, task)
        if running is None:
            raise WrongState("no release is open", value=task, next_step="`headrace release status` shows the state")
        return _close(ws, conn, running, "stop", reason, {}, actor)


def rejected_at_gate(
    ws: Workspace, version: ModelVersion, gates: list[dict[str, Any]], *, actor: str = "cli"
) -> LedgerEntry:
    """Record that a version failed a gate before it met any traffic; there is no release to close."""
    failed = [f"{gate['gate']}: {gate['reason']}" for gate in gates if not gate["passed"]]
    if not failed:
        raise WrongState("every gate passed, so there is nothing to reject", value=version.name)
    reason = f"{version.name} failed before traffic. {'; '.join(failed)}"
    with ws.store.write() as conn:
        return _append(ws, conn, version.task, "reject", version.id, None, reason, {"gates": gates}, actor)


def status(ws: Workspace, task: str | None = None, *, decision: Decision | None = None) -> dict[str, Any]:
    """Who is in charge, who is tried, since when; with a policy's decision, what it says and rests on.

    `state` is `open` while a release takes traffic, `idle` between releases, `empty` before the first version.
    """
    task = ws.task_name(task)
    with ws.store.read() as conn:
        control, release = _control(conn, task), rows.open_release(conn, task)
        candidate = None if release is None else versions.find(conn, release.candidate_id)
        lines = ledger.listing(conn, task)
    last_at = lines[-1].at if lines else None
    since = last_at if release is None else release.started_at
    return {
        "task": task,
        "control": None if control is None else control.name,
        "candidate": None if candidate is None else candidate.name,
        "state": "empty" if control is None else "idle" if release is None else "open",
        "since": None if since is None else since.isoformat(),
        "release": None if release is None else release.id,
        "policy": None if release is None else release.policy,
        "verdict": None if decision is None else decision.verdict,
        "reason": None if decision is None else decision.reason,
        "evidence": None if decision is None else decision.evidence,
    }


def history(ws: Workspace, task: str | None = None) -> list[LedgerEntry]:
    """The ledger, oldest line first; of one task or of all."""
    name = None if task is None else ws.task_name(task)
    with ws.store.read() as conn:
        return ledger.listing(conn, name)


def _decide(
    ws: Workspace,
    conn: "Connection",
    release: Release,
    verdict: str,
    reason: str,
    evidence: dict[str, Any],
    actor: str,
) -> LedgerEntry:
    if verdict != "hold":
        return _close(ws, conn, release, verdict, reason, evidence, actor)
    found = rows.find(conn, release.id)
    if found is None or found.state != "open":
        raise _closed(release, found)
    return _append(ws, conn, release.task, "hold", release.candidate_id, release.id, reason, evidence, actor)


def _close(
    ws: Workspace, conn: "Connection", release: Release, kind: str, reason: str, evidence: dict[str, Any], actor: str
) -> LedgerEntry:
    """End an open release and write its last line, in the caller's transaction."""
    if not rows.close(conn, release.id, state=_END_STATES[kind], ended_at=ws.clock()):
        raise _closed(release, rows.find(conn, release.id))
    return _append(ws, conn, release.task, kind, release.candidate_id, release.id, reason, evidence, actor)


def _closed(release: Release, found: Release | None) -> WrongState:
    return WrongState(
        f"the release is {'unknown' if found is None else found.state}, not open",
        value=release.id,
        next_step="`headrace history` shows what was decided",
    )


def _append(
    ws: Workspace,
    conn: "Connection",
    task: str,
    kind: str,
    version_id: str,
    release_id: str | None,
    reason: str,
    evidence: dict[str, Any],
    actor: str,
) -> LedgerEntry:
    return ledger.append(
        conn,
        config_hash=ws.config_hash,
        id=new_id("ledger"),
        task=task,
        kind=kind,
        version_id=version_id,
        release_id=release_id,
        reason=reason,
        evidence=evidence,
        actor=actor,
        at=ws.clock(),
    )


def _control(conn: "Connection", task: str) -> ModelVersion | None:
    version_id = ledger.control_id(conn, task)
    return None if version_id is None else versions.find(conn, version_id)


def _earlier(lines: list[LedgerEntry]) -> str | None:
    """The version in charge before the current one: promotions pile up, a rollback takes off down to its target."""
    pile: list[str] = []
    for line in lines:
        assert line.version_id is not None
        if line.kind == "rollback" and line.version_id in pile:
            while pile[-1] != line.version_id:
                pile.pop()
        else:
            pile.append(line.version_id)
    return pile[-2] if len(pile) > 1 else None


def _named(conn: "Connection", task: str, name: str | int) -> ModelVersion:
    """The version with this id, number or "task/number"."""
    known = versions.listing(conn, task)
    wanted = str(name).strip()
    for version in known:
        if wanted in (version.id, version.name, str(version.number)):
            return version
    if not known:
        raise NotFound("the task has no model version", value=wanted, next_step="Make one first: headrace train")
    raise NotFound("no such model version", value=wanted, next_step=nearest(wanted, [v.name for v in known]))

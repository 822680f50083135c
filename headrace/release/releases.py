"""Releases: a candidate tried beside the version in charge, and every decision about it.

    (none) --start--> open --promote--> promoted     the candidate is in charge
                      open --reject---> rejected     the control stays
                      open --stop-----> stopped      no decision; a rollback also stops
                      open --advance--> open         the arms have other shares, in the next stage
                      open --hold-----> open

A release about channels may be decided for one after the other: each ends with a line of its own, and the release
closes with the last; as `mixed` where they ended differently. Every change is one write transaction that checks the
state it starts from, so of two callers at once the second gets WrongState.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from headrace.errors import BadInput, WrongState
from headrace.ids import new_id
from headrace.records import Decision, LedgerEntry, ModelVersion, Release
from headrace.release import controls, ledger
from headrace.release.endings import ENDS, is_about, left_of, settle, still_open
from headrace.release.policies import POLICIES, Policy, options_of
from headrace.store import channels, versions
from headrace.store import ledger as lines
from headrace.store import releases as rows
from headrace.store.channels import check_channel
from headrace.workspace import Workspace

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection


def start(
    ws: Workspace,
    *,
    candidate: ModelVersion | str,
    task: str | None = None,
    policy: str | None = None,
    scope: Sequence[str] = (),
    others: Sequence[ModelVersion | str] = (),
    options: Mapping[str, Any] | None = None,
    weights: Mapping[str, float] | None = None,
    evidence: Mapping[str, Any] | None = None,
    actor: str = "cli",
) -> Release:
    """Open a release: the candidate answers beside the control from now on.

    Args:
        scope: names of the channels it is about; none: as `release.scope` of the settings says.
        others: further candidates.
        options: what the policy is asked with where the settings say otherwise (see `policies.options_of`); frozen now.
        weights: arm to share of traffic; none: as the policy begins.
        evidence: what speaks for trying it, such as the gates it passed; goes to the ledger.

    Raises:
        WrongState: no version is in charge, the candidate itself is, or a release of the task is open.
        NotFound: no such version, channel or policy.
        BadInput: a candidate is named twice, or there are several and the policy is for one.
    """
    task = ws.task_name(task if task or isinstance(candidate, str) else candidate.task)
    policy = policy or ws.settings.release.policy
    rule: Policy = POLICIES.get(policy)
    if others and policy != "bandit":
        raise BadInput("this policy tries one candidate", value=policy, next_step="Choose bandit for several")
    with ledger.writing(ws) as conn:
        tried = [_version(conn, task, one) for one in (candidate, *others)]
        names = [channel.name for channel in channels.listing(conn)]
        about = _scope(ws, conn, scope, names)
        control_id = _check_start(conn, task, tried, about)
        own = options_of(ws.settings.release, about or names, n_candidates=len(tried)) | dict(options or {})
        release = Release(
            id=new_id("release"),
            task=task,
            control_id=control_id,
            candidate_id=tried[0].id,
            policy=policy,
            options=own,
            state="open",
            started_at=ws.clock(),
            ended_at=None,
            others=tuple(version.id for version in tried[1:]),
            scope=about,
            weights=dict(weights or rule.weights(own)),
        )
        _open(ws, conn, release, tried, evidence or {}, actor)
    return release


def decide(ws: Workspace, release: Release, decision: Decision, *, actor: str = "cli") -> list[LedgerEntry]:
    """Write a policy's decision to the ledger; the lines written.

    Promote and reject also close the release: for all channels that are left, or with `decision.channels` for those it
    decides on. Channels decided before stay as they are.

    Raises:
        WrongState: the release is closed or in another stage, by an earlier or a faster decision.
        BadInput: an advance without weights.
    """
    with ledger.writing(ws) as conn:
        found = still_open(conn, release)
        written: list[LedgerEntry] = []
        for kind, part in _fresh_ends(conn, found, decision).items():
            written += settle(
                ws,
                conn,
                found,
                kind,
                decision.reason,
                actor,
                channels=part,
                evidence=decision.evidence,
                version_id=found.version_of(decision.arm),
            )
        if written:
            return written
        if decision.verdict == "advance":
            return [_advance(ws, conn, release, decision, actor)]
        return [_note(ws, conn, found, "hold", decision, decision.evidence, actor)]


def promote(
    ws: Workspace,
    version: ModelVersion | str | None = None,
    *,
    task: str | None = None,
    channel: str | None = None,
    reason: str = "by hand",
    evidence: Mapping[str, Any] | None = None,
    actor: str = "cli",
) -> LedgerEntry:
    """Put a version in charge by hand; without a name, the candidate of the open release.

    The candidate of an open release takes charge of what the release is about, and the release is decided.

    Args:
        channel: put it in charge of this one only.

    Returns:
        The line written; the last one where a release about channels is decided.

    Raises:
        WrongState: it is in charge already, nothing is open to promote, or another version's release is open.
        NotFound: no such version or channel.
    """
    task = ws.task_name(task if task or not isinstance(version, ModelVersion) else version.task)
    with ledger.writing(ws) as conn:
        check_channel(conn, channel)
        running = rows.open_release(conn, task)
        if running is not None and not is_about(conn, running, channel):
            running = None
        if version is None and running is None:
            raise WrongState("no release is open", value=channel or task, next_step="Name the version, such as 2")
        found = None if version is None else _version(conn, task, version)
        if running is not None:
            if found is not None and found.id not in (running.candidate_id, *running.others):
                raise WrongState(
                    "the open release tries another version",
                    value=running.id,
                    next_step="Run first: headrace release stop",
                )
            part = None if channel is None else [channel]
            version_id = running.candidate_id if found is None else found.id
            return settle(
                ws, conn, running, "promote", reason, actor, channels=part, evidence=evidence, version_id=version_id
            )[-1]
        assert found is not None
        if channel is not None and lines.control_id(conn, task) is None:
            raise WrongState(
                "no version is in charge of the whole task yet",
                value=task,
                next_step="Run first: headrace release promote",
            )
        if not controls.would_change(conn, task, channel, found.id):
            raise WrongState("the version is in charge already", value=found.name, next_step="Name another version")
        return ledger.append(
            ws, conn, "promote", task=task, version_id=found.id, reason=reason, actor=actor, evidence=evidence,
            channel=channel,
        )  # fmt: skip


def reject(
    ws: Workspace,
    *,
    task: str | None = None,
    channel: str | None = None,
    reason: str = "by hand",
    evidence: Mapping[str, Any] | None = None,
    actor: str = "cli",
) -> LedgerEntry:
    """Close the open release by hand: the control stays, and the candidate is not tried again unasked.

    Args:
        channel: in this one only.

    Raises:
        WrongState: none is open there.
        NotFound: no such channel.
    """
    return _end(ws, "reject", task, channel, reason, actor, evidence)


def stop(
    ws: Workspace, task: str | None = None, *, channel: str | None = None, reason: str = "by hand", actor: str = "cli"
) -> LedgerEntry:
    """Close the open release without a decision; the control stays.

    Args:
        channel: in this one only.

    Raises:
        WrongState: none is open there.
        NotFound: no such channel.
    """
    return _end(ws, "stop", task, channel, reason, actor, None)


def rejected_at_gate(
    ws: Workspace, version: ModelVersion, gates: list[dict[str, Any]], *, actor: str = "cli"
) -> LedgerEntry:
    """Record that a version failed a gate before it met any traffic; there is no release to close."""
    failed = [f"{gate['gate']}: {gate['reason']}" for gate in gates if not gate["passed"]]
    if not failed:
        raise WrongState("every gate passed, so there is nothing to reject", value=version.name)
    reason = f"{version.name} failed before traffic. {'; '.join(failed)}"
    with ledger.writing(ws) as conn:
        return ledger.append(
            ws, conn, "reject", task=version.task, version_id=version.id, reason=reason, actor=actor,
            evidence={"gates": gates},
        )  # fmt: skip


def status(ws: Workspace, task: str | None = None, *, decision: Decision | None = None) -> dict[str, Any]:
    """Who is in charge, who is tried, since when; with a policy's decision, what it says and rests on.

    `state` is `open` while a release takes traffic, `idle` between releases, `empty` before the first version.
    """
    task = ws.task_name(task)
    with ws.store.read() as conn:
        known = {version.id: version.name for version in versions.listing(conn, task)}
        in_charge, release = lines.controls(conn, task), rows.open_release(conn, task)
        last = lines.last(conn, task)
        left = None if release is None else left_of(conn, release)
    since = release.started_at if release is not None else None if last is None else last.at
    return {
        "task": task,
        "control": known[in_charge[None]] if in_charge else None,
        "channels": {name: known[version_id] for name, version_id in in_charge.items() if name is not None},
        "candidate": None if release is None else known[release.candidate_id],
        "state": "empty" if not in_charge else "idle" if release is None else "open",
        "since": None if since is None else since.isoformat(),
        "release": None if release is None else release.id,
        "policy": None if release is None else release.policy,
        "scope": left,
        "verdict": None if decision is None else decision.verdict,
        "reason": None if decision is None else decision.reason,
        "evidence": None if decision is None else decision.evidence,
    }


def _open(
    ws: Workspace,
    conn: "Connection",
    release: Release,
    tried: Sequence[ModelVersion],
    evidence: Mapping[str, Any],
    actor: str,
) -> None:
    """Write a release and its first line."""
    rows.add(conn, release, config_hash=ws.config_hash)
    control = versions.find(conn, release.control_id)
    assert control is not None  # the ledger refers to it
    names = " and ".join(version.name for version in tried)
    where = "" if release.scope is None else f" in {', '.join(release.scope)}"
    ledger.append(
        ws,
        conn,
        "start",
        task=release.task,
        version_id=release.candidate_id,
        release_id=release.id,
        reason=f"{names} {'are' if len(tried) > 1 else 'is'} tried beside {control.name}{where}",
        evidence={**evidence, "weights": release.weights, "scope": release.scope},
        actor=actor,
    )


def _fresh_ends(conn: "Connection", release: Release, decision: Decision) -> dict[str, list[str] | None]:
    """Kind of line to the channels that a decision ends the release in now; None: in all that are left."""
    if not decision.channels:
        return {decision.verdict: None} if decision.verdict in ENDS else {}
    found: dict[str, list[str] | None] = {}
    for kind in ENDS:
        named = [name for name, verdict in decision.channels.items() if verdict == kind]
        if part := [name for name in named if is_about(conn, release, name)]:
            found[kind] = part
    return found


def _advance(ws: Workspace, conn: "Connection", release: Release, decision: Decision, actor: str) -> LedgerEntry:
    if decision.weights is None:
        raise BadInput("an advance needs the shares of the arms", next_step="Have the policy give `weights`")
    if not rows.advance(conn, release, decision.weights):
        raise WrongState(
            "the release is in another stage by now", value=release.id, next_step="Look at its evidence again"
        )
    evidence = {**decision.evidence, "weights": dict(decision.weights), "stage": release.stage + 1}
    return _note(ws, conn, release, "advance", decision, evidence, actor)


def _note(
    ws: Workspace,
    conn: "Connection",
    release: Release,
    kind: str,
    decision: Decision,
    evidence: Mapping[str, Any],
    actor: str,
) -> LedgerEntry:
    """A line about a release that goes on."""
    return ledger.append(
        ws,
        conn,
        kind,
        task=release.task,
        version_id=release.candidate_id,
        release_id=release.id,
        reason=decision.reason,
        evidence=evidence,
        actor=actor,
    )


def _end(
    ws: Workspace,
    kind: str,
    task: str | None,
    channel: str | None,
    reason: str,
    actor: str,
    evidence: Mapping[str, Any] | None,
) -> LedgerEntry:
    """End the open release by hand, or its part in a channel."""
    task = ws.task_name(task)
    with ledger.writing(ws) as conn:
        check_channel(conn, channel)
        running = rows.open_release(conn, task)
        if running is None:
            raise WrongState("no release is open", value=task, next_step="`headrace release status` shows the state")
        part = None if channel is None else [channel]
        return settle(ws, conn, running, kind, reason, actor, channels=part, evidence=evidence)[-1]


def _version(conn: "Connection", task: str, version: ModelVersion | str) -> ModelVersion:
    return controls.named(conn, task, version if isinstance(version, str) else version.id)


def _scope(ws: Workspace, conn: "Connection", scope: Sequence[str], known: Sequence[str]) -> tuple[str, ...] | None:
    """The channels a release is about; None: the whole task."""
    for name in scope:
        check_channel(conn, name)
    if not scope and ws.settings.release.scope == "channels":
        scope = known
    return tuple(sorted(set(scope))) or None


def _check_start(conn: "Connection", task: str, tried: Sequence[ModelVersion], about: tuple[str, ...] | None) -> str:
    """Id of the control: of the channels that the release is about, or where they have several, of the whole task.

    Raises:
        WrongState, BadInput: see `start`.
    """
    in_charge, running = lines.controls(conn, task), rows.open_release(conn, task)
    if not in_charge:
        raise WrongState(
            "no version is in charge to compare the candidate with",
            value=task,
            next_step="Put one in charge first: headrace release promote",
        )
    for version in tried:
        if not any(controls.would_change(conn, task, name, version.id) for name in about or [None]):
            raise WrongState("the candidate is already in charge", value=version.name, next_step="Name another version")
    if len({version.id for version in tried}) < len(tried):
        names = ", ".join(version.name for version in tried)
        raise BadInput("a release tries a version once", value=names, next_step="Name each candidate once")
    if running is not None:
        raise WrongState(
            "a release of the task is open", value=running.id, next_step="Decide it or run: headrace release stop"
        )
    here = {in_charge.get(name, in_charge[None]) for name in about or [None]}
    return here.pop() if len(here) == 1 else in_charge[None]

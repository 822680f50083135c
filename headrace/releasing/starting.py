"""A release from the outside: what a candidate must show before it starts, and how the start is written down.

A new version reaches traffic through a release alone. What it fails before traffic keeps it from starting, unless a
person gives a reason, which goes to the ledger.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from headrace.errors import BadInput, WrongState
from headrace.evaluate.gates import HARM, Gate
from headrace.records import LedgerEntry, ModelVersion, Release
from headrace.release import controls, ledger, releases
from headrace.release.controls import FIRST, Serving
from headrace.release.policies import POLICIES
from headrace.releasing import gating
from headrace.workspace import Workspace

Report = Callable[..., None]
_MOST_SAID = 3


def _silent(*_args: object, **_facts: object) -> None:
    """A report to nobody."""


def start(
    ws: Workspace,
    *,
    candidate: ModelVersion | str,
    task: str | None = None,
    policy: str | None = None,
    scope: Sequence[str] = (),
    others: Sequence[ModelVersion | str] = (),
    despite: str | None = None,
    actor: str = "cli",
    report: Report = _silent,
) -> Release:
    """Open a release of a version that passes its gates: it answers beside the one in charge from now on.

    Args:
        scope: names of the channels it is about; none: as release.scope of the settings says.
        others: further candidates, which must pass too.
        despite: why a version that fails a gate is tried all the same; goes to the ledger.

    Raises:
        WrongState: a gate fails and no reason is given, no version is in charge, the candidate itself is, or a release
            of the task is open.
        NotFound: no such version, channel or policy.
        BadInput: the reason is empty, or a candidate is named twice.
    """
    if despite is not None and not despite.strip():
        raise BadInput("a reason must say something", value=despite, next_step='Such as --despite "agreed with Ann"')
    task = ws.task_name(task if task or isinstance(candidate, str) else candidate.task)
    POLICIES.get(policy or ws.settings.release.policy)
    serving = controls.serving(ws, task)
    tried, control = [_version(ws, task, one) for one in (candidate, *others)], _control(serving, scope)
    evidence: dict[str, Any] = {}
    if serving.release is None and control not in tried:  # else the start itself says what is wrong
        evidence = _shown(ws, control, tried, scope, despite, report)
    return releases.start(
        ws,
        candidate=tried[0],
        task=task,
        policy=policy,
        scope=scope,
        others=tried[1:],
        evidence=evidence,
        actor=actor,
    )


def promote(
    ws: Workspace,
    version: ModelVersion | str | None = None,
    *,
    task: str | None = None,
    channel: str | None = None,
    reason: str | None = None,
    actor: str = "cli",
) -> LedgerEntry:
    """Put a version in charge by hand; without a name, the candidate of the open release.

    Nothing has shown then that it is fit, so a reason goes to the ledger, with what its gates said where they were
    asked. A first version needs none: there is nothing to compare it with.

    Args:
        channel: put it in charge of this one only.

    Raises:
        BadInput: a version is in charge already and no reason is given.
        WrongState: it is in charge already, nothing is open to promote, or another version's release is open.
        NotFound: no such version or channel.
    """
    task = ws.task_name(task if task or not isinstance(version, ModelVersion) else version.task)
    try:
        serving = controls.serving(ws, task)
    except WrongState:
        return releases.promote(ws, version, task=task, channel=channel, reason=reason or FIRST, actor=actor)
    tried = serving.candidate if version is None else _version(ws, task, version)
    control = serving.control if channel is None else serving.control_of(channel)
    if tried not in (None, control) and not (reason and reason.strip()):  # else the promotion itself says what is wrong
        raise BadInput(
            "a promotion by hand needs a reason, which goes to the ledger",
            value=reason,
            next_step='Such as --reason "the old one fails on Mondays", or let `headrace release start` try it first',
        )
    known = None if tried is None else gating.kept(ws, control, tried)
    gates = "were not asked" if tried is None or known is None else gates_of(ws, control, tried)[0]
    evidence = {"by_hand": True, "gates": gates}
    return releases.promote(
        ws, version, task=task, channel=channel, reason=reason or "", evidence=evidence, actor=actor
    )


def _shown(
    ws: Workspace,
    control: ModelVersion,
    tried: Sequence[ModelVersion],
    scope: Sequence[str],
    despite: str | None,
    report: Report,
) -> dict[str, Any]:
    """What the ledger says of the candidates at the start.

    Raises:
        WrongState: a gate fails and no reason is given.
    """
    found = {version.name: gates_of(ws, control, version, report, scope) for version in tried}
    failed = {name: failing(judged) for name, (judged, _) in found.items() if failing(judged)}
    if failed and despite is None:
        raise WrongState(
            "; ".join(f"{name} fails before traffic. {in_words(gates)}" for name, gates in failed.items()),
            value=", ".join(gate["gate"] for gates in failed.values() for gate in gates),
            next_step=_ways_on([gate for gates in failed.values() for gate in gates], found[tried[0].name][1]),
        )
    judged, measured = found[tried[0].name]
    evidence = {"gates": judged, "comparison": measured["comparison"]}
    if len(tried) > 1:
        evidence["others"] = {version.name: found[version.name][0] for version in tried[1:]}
    return evidence | ({"despite": despite} if failed else {})


def gates_where_it_fits(
    ws: Workspace, control: ModelVersion, candidate: ModelVersion, report: Report = _silent
) -> tuple[list[str], list[Gate], dict[str, Any]]:
    """The gates of a candidate; with release.scope = "channels", of the channels that it does not harm.

    Returns:
        The channels to try it in (none: as the settings say), the verdicts, and what was measured.
    """
    judged, found = gates_of(ws, control, candidate, report)
    scope = fitting_channels(failing(judged), found) if ws.settings.release.scope == "channels" else []
    if scope:
        again, found_again = gates_of(ws, control, candidate, report, scope)
        if not failing(again):
            return scope, again, found_again
    return [], judged, found


def fitting_channels(failed: Sequence[Gate], measured: Mapping[str, Any]) -> list[str]:
    """The channels in which a candidate may do though it fails in others; none where it fails for another reason.

    What fails on all rows together may do so because of some channels' rows, so it is to be asked again of the others.
    """
    if not all(gate["gate"].startswith(HARM) for gate in failed):
        return []
    out = {gate["channel"] for gate in failed} - {None}
    return [name for name in measured["comparison"]["channels"] if name not in out] if out else []


def _ways_on(failed: Sequence[Gate], measured: Mapping[str, Any]) -> str:
    fit = fitting_channels(failed, measured)
    elsewhere = f"try it where it does: {' '.join(f'--channel {name}' for name in fit)}, " if fit else ""
    return f'Make a better version, {elsewhere}or give a reason for the ledger: --despite "..."'


def gates_of(
    ws: Workspace,
    control: ModelVersion,
    candidate: ModelVersion,
    report: Report = _silent,
    scope: Sequence[str] = (),
) -> tuple[list[Gate], dict[str, Any]]:
    """The verdict of every gate on a candidate, one on its past among them, and what was measured.

    Args:
        scope: names of the channels whose rows count; none: all.
    """
    judged, found = gating.gates_of(ws, control, candidate, report, scope)
    lines = ledger.history(ws, candidate.task)
    about = {None, *scope} if scope else {line.channel for line in lines}
    mine = [line for line in lines if line.version_id == candidate.id and line.channel in about]
    rejected = [line for line in mine if line.kind == "reject" and line.release_id]
    told = f"rejected on {rejected[-1].at:%Y-%m-%d}: {rejected[-1].reason}" if rejected else "no release rejected it"
    past = {"gate": "not rejected before", "passed": not rejected, "figure": len(rejected), "limit": 0, "reason": told}
    return [*judged, past | {"channel": None}], found


def failing(gates: Sequence[Gate]) -> list[Gate]:
    return [gate for gate in gates if not gate["passed"]]


def in_words(gates: Sequence[Gate]) -> str:
    """The first few with their reasons."""
    told = "; ".join(f"{gate['gate']}: {gate['reason']}" for gate in gates[:_MOST_SAID])
    return told if len(gates) <= _MOST_SAID else f"{told}; and {len(gates) - _MOST_SAID} more"


def _control(serving: Serving, scope: Sequence[str]) -> ModelVersion:
    """What the candidate is measured beside: the version in charge of the channels, or where they have several, of all.

    The release has the same control (see `releases.start`).
    """
    here = {serving.control_of(name).id: serving.control_of(name) for name in scope}
    return next(iter(here.values())) if len(here) == 1 else serving.control


def _version(ws: Workspace, task: str, version: ModelVersion | str) -> ModelVersion:
    return controls.find_version(ws, task, version if isinstance(version, str) else version.id)

"""A release from the outside: what a candidate must show before it starts, and how the start is written down.

A new version reaches traffic through a release alone. What it fails before traffic keeps it from starting, unless a
person gives a reason, which goes to the ledger.
"""

from collections.abc import Callable
from typing import Any

from headrace import gating
from headrace.errors import BadInput, WrongState
from headrace.evaluate.gates import Gate
from headrace.records import ModelVersion, Release
from headrace.release import releases
from headrace.workspace import Workspace

Report = Callable[..., None]


def _silent(*_args: object, **_facts: object) -> None:
    """A report to nobody."""


def start(
    ws: Workspace,
    *,
    candidate: ModelVersion | str,
    task: str | None = None,
    policy: str | None = None,
    despite: str | None = None,
    actor: str = "cli",
    report: Report = _silent,
) -> Release:
    """Open a release of a version that passes its gates: it answers beside the one in charge from now on.

    Args:
        despite: why a version that fails a gate is tried all the same; goes to the ledger.

    Raises:
        WrongState: a gate fails and no reason is given, no version is in charge, the candidate itself is, or a release
            of the task is open.
        NotFound: no such version or policy.
        BadInput: the reason is empty.
    """
    if despite is not None and not despite.strip():
        raise BadInput(
            "a reason must say something", value=despite, next_step='Write such as --despite "agreed with A"'
        )
    task = ws.task_name(task if task or isinstance(candidate, str) else candidate.task)
    control = releases.serving(ws, task).control
    version = releases.find_version(ws, task, candidate if isinstance(candidate, str) else candidate.id)
    evidence: dict[str, Any] = {}
    if control.id != version.id:  # else the start itself says what is wrong
        judged, found = gates_of(ws, control, version, report)
        evidence = {"gates": judged, "comparison": found["comparison"]}
        failed = [gate for gate in judged if not gate["passed"]]
        if failed and despite is None:
            raise WrongState(
                f"{version.name} fails before traffic. {in_words(failed)}",
                value=", ".join(gate["gate"] for gate in failed),
                next_step='Make a better version, or give a reason for the ledger: --despite "..."',
            )
        if failed:
            evidence["despite"] = despite
    return releases.start(ws, candidate=version, task=task, policy=policy, evidence=evidence, actor=actor)


def gates_of(
    ws: Workspace, control: ModelVersion, candidate: ModelVersion, report: Report = _silent
) -> tuple[list[Gate], dict[str, Any]]:
    """The verdict of every gate on a candidate, one on its past among them, and what was measured."""
    judged, found = gating.gates_of(ws, control, candidate, report)
    lines = releases.history(ws, candidate.task)
    rejected = [line for line in lines if line.kind == "reject" and line.version_id == candidate.id and line.release_id]
    told = f"rejected on {rejected[-1].at:%Y-%m-%d}: {rejected[-1].reason}" if rejected else "no release rejected it"
    past = {"gate": "not rejected before", "passed": not rejected, "figure": len(rejected), "limit": 0, "reason": told}
    return [*judged, past], found


def in_words(gates: list[Gate]) -> str:
    return "; ".join(f"{gate['gate']}: {gate['reason']}" for gate in gates)

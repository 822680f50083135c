"""Is a candidate fit to meet traffic? Measured beside the version in charge, on the same held-out rows, and kept.

The rows are the test side of the candidate's own snapshot. A control that was trained on another snapshot has not seen
them either: a row keeps its side.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from headrace import making
from headrace import per_channel as adapting
from headrace.data import snapshot
from headrace.evaluate import classes, comparison, evaluating, gates, renaming
from headrace.personal.policies import door_of
from headrace.records import ModelVersion, SnapshotRow
from headrace.store import adapters, channels, runs, versions
from headrace.tasks import Calibration, Outputs, TaskType
from headrace.workspace import Workspace

Report = Callable[..., None]
CONTROL, IN_SCOPE = "control", "control in scope"
"""Predictors of the evaluations that hold what was measured here, on all rows or on those of some channels."""
_MEASURED = frozenset({"control", "scope", "comparison", "classes", "latency", "n_bytes"})
_N_TIMED_ROWS = 512  # half a second at 1,000 rows/s


@dataclass(frozen=True, eq=False)
class Asked:
    """What a version says to some rows, in the names that the task has now."""

    outputs: Outputs
    calibration: Calibration
    ask_some: Callable[[], object]
    """Asks about a part of the rows once more, to be timed."""
    n_some: int


def asked(ws: Workspace, version: ModelVersion, task_type: TaskType, rows: Sequence[SnapshotRow]) -> Asked:
    """Ask a version's exported artifact about rows, each by the adapter of its channel where it has one."""
    inputs, channels = [row.input for row in rows], [row.channel for row in rows]
    answer, facts = adapting.answerer(ws, version, channels)
    outputs = answer(inputs, channels)
    read = renaming.as_now(making.task_type_of(facts.task), task_type, outputs, facts.calibration)
    some = slice(None, None, max(1, len(rows) // _N_TIMED_ROWS))
    return Asked(*read, partial(answer, inputs[some], channels[some]), len(inputs[some]))


def gates_of(
    ws: Workspace, control: ModelVersion, candidate: ModelVersion, report: Report, scope: Sequence[str] = ()
) -> tuple[list[gates.Gate], dict[str, Any]]:
    """The verdict of every gate, and what was measured (see `measured`)."""
    found, limits = measured(ws, control, candidate, report, scope), ws.settings.release
    own = making.describe(ws, candidate)["evaluations"]["version"]
    ms, n_bytes = found["latency"]["ms_per_row"], found["n_bytes"]
    return [
        *gates.no_harm(found["comparison"], max_drop_share=limits.max_drop_share),
        *gates.no_harm_in_classes(found["classes"], max_drop_share=limits.max_drop_share),
        *gates.agreement(own["agreement"], min_agreement_share=limits.min_agreement_share),
        *gates.membership(own.get("membership"), personal_channels(ws)),
        *gates.size(
            n_bytes["candidate"],
            n_bytes["control"],
            max_times=limits.max_size_times,
            max_bytes=limits.max_size_bytes,
        ),
        *gates.latency(
            ms["candidate"],
            ms["control"],
            n_rows=found["latency"]["n_rows"],
            max_times=limits.max_latency_times,
        ),
    ], found


def personal_channels(ws: Workspace) -> list[str]:
    """Channels whose texts are looked at for personal data."""
    with ws.store.read() as conn:
        known = [one.name for one in channels.listing(conn)]
    door = door_of(ws)
    return [name for name in known if door.policy(name) != "off"]


def measured(
    ws: Workspace, control: ModelVersion, candidate: ModelVersion, report: Report, scope: Sequence[str] = ()
) -> dict[str, Any]:
    """What the gates and the plan of a release look at, as it was kept, or measured now and kept.

    Args:
        scope: names of the channels whose rows count; none, or none that has rows: all.

    Returns:
        The control's evaluation on the candidate's held-out rows, and `control` (its name), `scope`, `comparison` (see
        evaluate/comparison.py), `classes` (see evaluate/classes.py), `latency` (`n_rows`, and `ms_per_row` of both) and
        `n_bytes` (of both).

    Raises:
        BadInput: the candidate's snapshot has no test rows.
    """
    if (found := kept(ws, control, candidate, scope)) is not None:
        return found
    rows = snapshot.rows(ws, snapshot.find(ws, candidate.snapshot_id), "test")
    mine = [row for row in rows if row.channel in scope]
    results = _measure(ws, control, candidate, mine or rows, report) | {"scope": sorted(scope)}
    name = IN_SCOPE if scope else CONTROL
    making.keep(ws, [making.evaluation_of(ws, control.task, candidate.id, name, candidate.snapshot_id, results)])
    return results


def kept(
    ws: Workspace, control: ModelVersion, candidate: ModelVersion, scope: Sequence[str] = ()
) -> dict[str, Any] | None:
    """What was measured before; None where nothing was."""
    with ws.store.read() as conn:
        known = versions.evaluations(conn, candidate.task, version_id=candidate.id)
    name = IN_SCOPE if scope else CONTROL
    beside = [e.results for e in known if e.predictor == name and e.results.get("control") == control.name]
    whole = [results for results in reversed(beside) if results.keys() >= _MEASURED]
    return next((results for results in whole if results["scope"] == sorted(scope)), None)


def _measure(
    ws: Workspace, control: ModelVersion, candidate: ModelVersion, rows: Sequence[SnapshotRow], report: Report
) -> dict[str, Any]:
    task_type = making.task_type_of(ws.task(control.task))
    report("compare", 0, len(rows))
    old, new = (asked(ws, version, task_type, rows) for version in (control, candidate))
    results = evaluating.evaluate(task_type, rows, old.outputs, calibration=old.calibration)
    old_s, new_s = making.fastest_in_turn(old.ask_some, new.ask_some)
    report("compare", len(rows), len(rows))
    return results | {
        "control": control.name,
        "comparison": comparison.compare(
            task_type,
            rows,
            old.outputs,
            new.outputs,
            calibration_a=old.calibration,
            calibration_b=new.calibration,
        ),
        "classes": classes.compare(
            task_type,
            rows,
            old.outputs,
            new.outputs,
            calibration_a=old.calibration,
            calibration_b=new.calibration,
        ),
        "latency": {
            "n_rows": old.n_some,
            "ms_per_row": {"control": 1000 * old_s / old.n_some, "candidate": 1000 * new_s / new.n_some},
        },
        "n_bytes": {"control": _n_bytes(ws, control), "candidate": _n_bytes(ws, candidate)},
    }


def _n_bytes(ws: Workspace, version: ModelVersion) -> int:
    """Bytes of a version's files, with those of its adapters."""
    with ws.store.read() as conn:
        own = [one.artifact for one in adapters.of_version(conn, version.id) if one.artifact is not None]
        found = [runs.find_artifact(conn, digest) for digest in [version.artifact, *own]]
    return sum(one.n_bytes for one in found if one is not None)

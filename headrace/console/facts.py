"""What the report says about a task, read from the store in one moment."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from headrace.feedback import accuracy, drift, trust
from headrace.feedback.accuracy import Live
from headrace.feedback.trust import SourceTrust
from headrace.records import (
    Adapter,
    Channel,
    Evaluation,
    Interval,
    LedgerEntry,
    ModelVersion,
    Release,
    Run,
    Snapshot,
    Suspension,
)
from headrace.releasing.standing import curves_of, release_status
from headrace.store import (
    adapters,
    channels,
    imports,
    ledger,
    outcomes,
    releases,
    runs,
    snapshots,
    suspensions,
    versions,
)
from headrace.tasks import TASK_TYPES
from headrace.workspace import Workspace


@dataclass(frozen=True)
class TaskFacts:
    """Everything in the order it came; `newest` is the version with the highest number."""

    task: str
    main_metric: str
    channels: list[Channel]
    imports: list[dict[str, Any]]
    snapshots: list[Snapshot]
    versions: list[ModelVersion]
    control: ModelVersion | None
    own_controls: dict[str, str]
    """Channels that another version is in charge of, and its name."""
    release: Release | None
    """The open one."""
    tried: Release | None
    """The open release, or the last one."""
    state: dict[str, Any]
    """What `headrace.releasing.standing.release_status` says."""
    curves: dict[str, Any]
    """Candidate arms of `tried` to their e-values over time."""
    ledger: list[LedgerEntry]
    evaluations: list[Evaluation]
    adapters: list[Adapter]
    """What was decided about the channels of the newest version; empty where it has no adapters."""
    run: Run | None
    """The run that made the newest version, or the newest run."""
    sources: Sequence[SourceTrust]
    """Whose feedback became labels."""
    suspensions: Sequence[Suspension]
    n_new_corrections: int
    n_corrections_without_text: int
    live: Live
    """Accuracy by audits."""
    drift: dict[str, Any]
    """What `headrace.feedback.drift.standing` says."""
    made_at: datetime

    @property
    def newest(self) -> ModelVersion | None:
        return self.versions[-1] if self.versions else None

    @property
    def newest_name(self) -> str:
        return self.versions[-1].name if self.versions else ""

    @property
    def control_name(self) -> str:
        return "" if self.control is None else self.control.name

    def name_of(self, version_id: str | None) -> str:
        return next((version.name for version in self.versions if version.id == version_id), "")

    def evaluation(self, version: ModelVersion | None, predictor: str = "version") -> Evaluation | None:
        """The newest evaluation on test rows of a version, or of another predictor beside it."""
        if version is None:
            return None
        mine = [
            e
            for e in self.evaluations
            if e.side == "test"
            and e.predictor == predictor
            and (e.version_id == version.id or (e.version_id is None and e.snapshot_id == version.snapshot_id))
        ]
        return mine[-1] if mine else None

    def beside_newest(self) -> tuple[str, Evaluation] | None:
        """The version to see the newest one against, on the newest one's rows where it was measured there."""
        compared = self.evaluation(self.newest, "control")
        if compared is not None:
            return compared.results["control"], compared
        if self.control is None or self.newest is None or self.control.id == self.newest.id:
            return None
        own = self.evaluation(self.control)
        return None if own is None else (self.control.name, own)


def gather(ws: Workspace, task: str) -> TaskFacts:
    """Read it all: what is in tables in one transaction."""
    state, newest = release_status(ws, task=task), _last_release(ws, task)
    live, watched = accuracy.live(ws, task), drift.standing(ws, task)
    curves = state["over_time"] or ({} if newest is None else curves_of(ws, newest))
    sources = trust.judge(ws, task)
    with ws.store.read() as conn:
        known = versions.listing(conn, task)
        in_charge = ledger.controls(conn, task)
        names = {version.id: version.name for version in known}
        own = {channel: names[version_id] for channel, version_id in in_charge.items() if channel is not None}
        tried = runs.listing(conn, task)
        made_newest = [run for run in tried if known and run.id == known[-1].run_id]
        return TaskFacts(
            task=task,
            main_metric=TASK_TYPES.get(ws.task(task).type).main_metric,
            channels=channels.listing(conn),
            imports=imports.reports(conn, task),
            snapshots=snapshots.listing(conn, task),
            versions=known,
            control=next((version for version in known if version.id == in_charge.get(None)), None),
            own_controls=own,
            release=newest if state["release"] is not None else None,
            tried=newest,
            state=state,
            curves=curves,
            ledger=ledger.listing(conn, task),
            evaluations=versions.evaluations(conn, task),
            adapters=adapters.of_version(conn, known[-1].id) if known else [],
            run=next(iter(made_newest or tried[-1:]), None),
            sources=sources,
            suspensions=suspensions.listing(conn, task),
            n_new_corrections=outcomes.count_unused(conn, task, with_text=True),
            n_corrections_without_text=outcomes.count_unused(conn, task, with_text=False),
            live=live,
            drift=watched,
            made_at=ws.clock(),
        )


def _last_release(ws: Workspace, task: str) -> Release | None:
    with ws.store.read() as conn:
        found = releases.listing(conn, task)
    return found[-1] if found else None


def interval_of(figures: dict[str, Any], metric: str) -> Interval | None:
    """A metric with its interval from one part (`overall`, or a channel) of an evaluation's results; None without."""
    estimate, ends = figures.get(metric), figures.get("intervals", {}).get(metric)
    if estimate is None or ends is None or ends["low"] is None:
        return None
    return Interval(estimate, ends["low"], ends["high"])

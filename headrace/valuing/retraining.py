"""Leave out one source after the other in real fine-tunes, and compare what each answers on test rows.

Every fine-tune is a run, and what it answered is kept with it, so that a job that was killed goes on where it was. They
start from the version in charge, and are short; but that version has seen the rows that are left out, so what is found
is less than the source is worth. From the base model it takes as long as training, once for each source.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from headrace import jobs, making, warm_start
from headrace.data import snapshot
from headrace.errors import BadInput, Unusable, nearest
from headrace.evaluate import comparison
from headrace.finetune import base_models
from headrace.records import Run, SnapshotRow
from headrace.registry import resolve
from headrace.release import controls
from headrace.stats import paired
from headrace.store import runs
from headrace.tasks import Outputs, TaskType
from headrace.valuing.sources import Report, Sides, Source, sides_at, source_of
from headrace.workspace import Workspace

ALPHA = 0.05
NOISE_POINTS = 1.0
"""What two seeds of one method differ by in the benches, when they differ much: a smaller loss is no harm."""
STARTS = ("version", "base")
_EPOCHS = 1.0  # from the version in charge
_KEPT = "value"
"""Key in a run's facts: what it lost or gained beside the run on all rows."""


def check(ws: Workspace, task: str, start: str) -> None:
    """Refuse at once what could only be refused at work.

    Raises:
        BadInput: no such start, or the version in charge is none.
        WrongState: no version is in charge.
        MissingExtra: the training parts are not installed.
    """
    if start not in STARTS:
        raise BadInput("fine-tunes start from the version in charge, or from the base model", value=start,
                       next_step=nearest(start, list(STARTS)))  # fmt: skip
    making.check_ready(ws, task)
    if start == "version":
        _checkpoint(ws, task)


def retrained(ws: Workspace, sides: Sides, start: str, report: Report) -> dict[str, Any]:
    """What `leave_out_each` found; waits for the job."""
    args = {"task": sides.task, "snapshot_id": sides.frozen.id, "start": start}
    for job in jobs.follow(ws, making.submitted(ws, "headrace.valuing.retraining:leave_out_each", args).id):
        if job.progress:
            report(**job.progress)
    return jobs.result_of(job)


def leave_out_each(
    ws: Workspace, progress: jobs.Progress, *, task: str, snapshot_id: str, start: str
) -> dict[str, Any]:
    """The job: fine-tune on all rows and without each source, and compare.

    Returns:
        `start`, `epochs`, `main_metric`, `noise_points`, and `sources`: of each what it adds in points of the main
        metric (`for`: itself, others, all), its run, a verdict (helps, harms, not known), or a reason why it cannot be
        left out.
    """
    frozen = snapshot.find(ws, snapshot_id)
    work = _Work(ws, sides_at(ws, task, frozen), start, progress.report)
    with jobs.only_one(ws, f"value-{task}", progress):
        sources = list(work.sides.n_rows)
        found = [_without(work, source, f"{i}/{len(sources)}") for i, source in enumerate(sources, start=1)]
        return {
            "start": start,
            "epochs": work.epochs,
            "main_metric": work.task_type.main_metric,
            "noise_points": NOISE_POINTS,
            "sources": _judged(found),
        }


@dataclass(frozen=True)
class _Work:
    """What all fine-tunes share."""

    ws: Workspace
    sides: Sides
    start: str
    report: Report

    @cached_property
    def task_type(self) -> TaskType:
        return making.task_type_of(self.ws.task(self.sides.task))

    @property
    def epochs(self) -> float:
        own = self.ws.settings.finetune.epochs
        return min(own, _EPOCHS) if self.start == "version" else own

    @cached_property
    def whole(self) -> Run:
        """The fine-tune on all rows."""
        return _run(self, None)

    @cached_property
    def answers(self) -> "_Answers":
        return _answers(self, _tuned(self, self.whole, None, "all rows"))

    def rows_without(self, source: Source | None) -> list[SnapshotRow]:
        kept = [row for row in self.sides.train if source is None or source_of(row) != source]
        return [*kept, *self.sides.validation]


@dataclass(frozen=True, eq=False)
class _Answers:
    """What a fine-tune says of the test rows."""

    outputs: Outputs
    calibration: dict[str, Any]


def _without(work: _Work, source: Source, where: str) -> dict[str, Any]:
    """What a source adds, as kept with its run, or measured now."""
    about: dict[str, Any] = {"source": source.name, "channel": source.channel, "kind": source.kind}
    about["n_rows"] = work.sides.n_rows[source]
    run = _run(work, source)
    kept = run.facts.get(_KEPT, {})
    if kept.get("beside") != work.whole.id:
        try:
            checkpoint = _tuned(work, run, source, where)
        except (BadInput, Unusable) as error:  # no rows or one class are left, or it diverged: the others may be told
            return {**about, "run_id": run.id, "reason": str(error)}
        kept = {"beside": work.whole.id, "for": _added(work, source, _answers(work, checkpoint))}
        facts = {**making.find_run(work.ws, run.id).facts, _KEPT: kept}
        with work.ws.store.write() as conn:
            runs.change(conn, run.id, facts=facts)
    return {**about, "run_id": run.id, "for": kept["for"]}


def _run(work: _Work, source: Source | None) -> Run:
    """The run that rows, settings, start and source decide, found or made."""
    ws, task = work.ws, work.sides.task
    own = warm_start.from_base(ws.settings.finetune)  # what to start from is asked for by `start`, with a fresh head
    settings = own.model_copy(update={"epochs": work.epochs})
    planned = making.planned_run(ws, task, work.sides.frozen, settings)
    left_out = None if source is None else [source.channel, source.kind]
    if work.start == "version":
        base = base_models.find(str(_checkpoint(ws, task)))
        planned = replace(planned, base_model=base.name, base_digest=base.digest)
    params = {**planned.params, _KEPT: {"without": left_out, "start": work.start}}
    deciding = ["value", task, work.sides.frozen.content_hash, planned.base_digest, params]
    return making.run_with(ws, replace(planned, params=params, fingerprint=making.hash_of(deciding)))


def _checkpoint(ws: Workspace, task: str) -> Path:
    """The folder of the version in charge, to start from.

    Raises:
        WrongState: none is in charge.
        BadInput: it is not a plain model.
    """
    control = controls.serving(ws, task).control
    return warm_start.plain_weights(ws, control, next_step="Start from the base model: --start base")


def _tuned(work: _Work, run: Run, source: Source | None, where: str) -> str:
    """Digest of a run's checkpoint, found or made."""

    def report(step: str, done: float, total: float, **facts: Any) -> None:
        name = "nothing" if source is None else source.name
        work.report(step, done, total, **{**facts, "left_out": name, "source": where})

    return making.fine_tuned(work.ws, run, work.rows_without(source), report)


def _answers(work: _Work, checkpoint: str) -> _Answers:
    load = resolve("headrace.export.checkpoint:load", purpose="the checkpoint")
    predictor = load(work.ws.artifacts.get(checkpoint), work.ws.task(work.sides.task))
    validation = work.sides.validation
    fitted = work.task_type.calibrate(
        [row.target for row in validation], predictor.logits([row.input for row in validation])
    )
    return _Answers(predictor.logits([row.input for row in work.sides.test]), fitted)


def _added(work: _Work, source: Source, without: _Answers) -> dict[str, Any]:
    """For whom a source adds what: the run on all rows beside the one without, on the same test rows."""
    own = [i for i, row in enumerate(work.sides.test) if row.channel == source.channel]
    others = [i for i, row in enumerate(work.sides.test) if row.channel != source.channel]
    parts = {"itself": own, "others": others, "all": [*own, *others]}
    return {whom: _part(work, places, without) for whom, places in parts.items() if places}


def _part(work: _Work, places: Sequence[int], without: _Answers) -> dict[str, Any]:
    compared = comparison.compare(
        work.task_type,
        [work.sides.test[i] for i in places],
        without.outputs[places],
        work.answers.outputs[places],
        calibration_a=without.calibration,
        calibration_b=work.answers.calibration,
    )
    overall, each = compared["overall"], compared["channels"].values()
    found = overall["difference"]
    points = {key: None if found[key] is None else round(100 * found[key], 4) for key in ("estimate", "low", "high")}
    points |= {key: found[key] for key in ("level", "reason") if key in found}
    lose = sum(one["losses"] > one["wins"] for one in each) > sum(one["wins"] > one["losses"] for one in each)
    return {"n": len(places), "points": points, "wins": overall["wins"], "losses": overall["losses"], "most_lose": lose}


def _judged(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each with a verdict: exact tests of rows won and lost, corrected for all of them, and more than noise."""
    parts = {
        (one["source"], whom): one["for"][whom] for one in found for whom in ("itself", "others")
        if whom in one.get("for", {})
    }  # fmt: skip
    chances = {
        "harms": paired.holm({"\n".join(k): paired.mcnemar(p["losses"], p["wins"]) for k, p in parts.items()}),
        "helps": paired.holm({"\n".join(k): paired.mcnemar(p["wins"], p["losses"]) for k, p in parts.items()}),
    }
    return [{**one, **_verdict(one, parts, chances)} for one in found]


def _verdict(
    one: dict[str, Any], parts: dict[tuple[str, str], dict[str, Any]], chances: dict[str, dict[str, float]]
) -> dict[str, Any]:
    for verdict, sign in (("harms", -1), ("helps", 1)):
        for whom in ("others", "itself"):
            part = parts.get((one["source"], whom))
            if part is None:
                continue
            p, estimate = chances[verdict]["\n".join((one["source"], whom))], part["points"]["estimate"]
            is_much = sign * (estimate if estimate is not None else math.nan) > NOISE_POINTS
            if p < ALPHA and is_much and (verdict == "helps" or part["most_lose"]):  # as in frozen.py
                return {"verdict": verdict, "p": p, "whom": whom}
    return {"verdict": "not known", "p": None, "whom": None}

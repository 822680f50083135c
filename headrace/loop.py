"""The order of the stages: the only place that knows it. Everything here can be killed and run again.

train:    snapshot -> run -> fine-tune -> export -> evaluate -> model version         (one job)
improve:  labels from feedback -> train -> gates -> shadow release, then, once there is evidence, a decision
"""

import json
import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from headrace import compression, jobs, making, search, trusting
from headrace import per_channel as adapting
from headrace.config import TaskTable
from headrace.config_sources import read_catalogue
from headrace.data import channels, quality, snapshot
from headrace.errors import BadInput
from headrace.evaluate import evaluating, model_card
from headrace.evaluate.plain_use import library_of
from headrace.export.writing import check_destination, check_format, export_to
from headrace.finetune import base_models
from headrace.making import describe, evaluation_of, export_checkpoint, find_run, keep, task_type_of
from headrace.personal.policies import door_of
from headrace.records import Adapter, Artifact, Job, ModelVersion, Release
from headrace.release import controls, ledger, releases
from headrace.releasing import gating, judging, starting
from headrace.store import runs
from headrace.tasks import TASK_TYPES, TaskType
from headrace.tasks.inputs import parse_inputs
from headrace.workspace import Workspace
from headrace.workspace import init as make_workspace

Report = Callable[..., None]


def silent(*_args: object, **_facts: object) -> None:
    """A report to nobody."""


def init(
    root: Path | str,
    *,
    task: str,
    task_type: str = "text-classification",
    labels: Sequence[str] = (),
    catalogue: str = "",
) -> Workspace:
    """Make a workspace with one task, whose settings are checked before anything is written.

    Raises:
        NotFound: no such task type.
        BadConfig: the labels or the catalogue do not suit it.
        AlreadyExists: there is a workspace already.
        Unusable: the folder cannot be written.
    """
    entries = read_catalogue(Path(root) / catalogue) if catalogue else {}
    task_type_of(TaskTable(type=task_type, labels=tuple(labels or entries), descriptions=entries))
    return make_workspace(root, task=task, task_type=task_type, labels=tuple(labels), catalogue=catalogue)


def check_quality(ws: Workspace, *, task: str | None = None, report: Report = silent) -> quality.QualityReport:
    """The quality of the rows, with lengths in the base model's own tokens where that can be had."""
    count = None
    if find_spec("transformers") is not None:  # without it no base model is at hand
        count = base_models.token_counter(ws.task(task).base_model)
    return quality.check(ws, task=task, count_tokens=count, progress=lambda done, total: report("rows", done, total))


def train(
    ws: Workspace,
    *,
    task: str | None = None,
    n_trials: int | None = None,
    per_channel: bool = False,
    channel: str | None = None,
    report: Report = silent,
) -> dict[str, Any]:
    """Make a model version of the newest labelled rows and describe it; waits for the job.

    The same rows and settings give the same version; a run that was killed goes on where it was.

    Args:
        n_trials: search the settings within the ranges of `[search]` first, with this many runs.
        per_channel: give each channel an adapter on top, where held-out rows say that it helps.
        channel: with `per_channel`, train this one's only, on the shared model of the version in charge.

    Raises:
        BadInput: the rows cannot train the task, or no adapters can stand on what the settings make.
        MissingExtra: the training parts, or the library of finetune.tracker, are not installed.
    """
    started = start_training(ws, task=task, n_trials=n_trials, per_channel=per_channel, channel=channel)
    for job in jobs.follow(ws, started.id):
        if job.progress:
            report(**job.progress)
    return jobs.result_of(job)


def start_training(
    ws: Workspace,
    *,
    task: str | None = None,
    n_trials: int | None = None,
    per_channel: bool = False,
    channel: str | None = None,
) -> Job:
    """Start the job of `train`, or find the one that is at that work already.

    Raises:
        BadInput: options that do not go together.
    """
    if channel is not None and not per_channel:
        raise BadInput("a single channel is trained with --per-channel only", value=channel, next_step="Add it")
    if per_channel and n_trials is not None:
        raise BadInput(
            "a search does not train adapters",
            value=f"--search {n_trials}",
            next_step="Search first, then train --per-channel with the settings found",
        )
    if per_channel:
        return adapting.start(ws, task=task, channel=channel)
    return making.start_training(ws, task=task) if n_trials is None else search.start(ws, n_trials, task=task)


def evaluate_version(
    ws: Workspace, version: str, *, task: str | None = None, side: str = "test", report: Report = silent
) -> dict[str, Any]:
    """Measure the exported artifact of a version on a side of the newest snapshot; kept as an evaluation.

    Raises:
        NotFound: no such version.
    """
    found = controls.find_version(ws, task, version)
    frozen = trusting.freeze(ws, task=found.task)
    rows = snapshot.rows(ws, frozen, side)
    report("evaluate", 0, len(rows))
    task_type = task_type_of(ws.task(found.task))
    answers = gating.asked(ws, found, task_type, rows)
    results = evaluating.evaluate(task_type, rows, answers.outputs, calibration=answers.calibration)
    report("evaluate", len(rows), len(rows))
    keep(ws, [evaluation_of(ws, found.task, found.id, "version", frozen.id, results)])
    return results


def export_version(
    ws: Workspace,
    version: str,
    destination: Path | str,
    *,
    backend: str = "hf",
    precision: str | None = None,
    task: str | None = None,
) -> dict[str, Any]:
    """Write a version with its model card and evaluation into an empty or new folder, in a format others load.

    Raises:
        NotFound: no such version or backend.
        BadInput: the backend does not write this precision.
        AlreadyExists: the folder is not empty.
        Unusable: it cannot be written.
    """
    found = controls.find_version(ws, task, version)
    with ws.store.read() as conn:
        artifact = runs.find_artifact(conn, found.artifact)
    assert artifact is not None
    precision = precision or ("fp32" if backend == "hf" else ws.settings.export.precision)
    check_format(backend, precision)
    check_destination(Path(destination))
    if (artifact.facts["backend"], artifact.facts["precision"]) != (backend, precision):
        rows = snapshot.rows(ws, snapshot.find(ws, found.snapshot_id))
        artifact = export_checkpoint(
            ws, find_run(ws, found.run_id), found.checkpoint, rows, silent, backend=backend, precision=precision
        )
    described = describe(ws, found)
    files = {
        "README.md": _card(ws, found, described, artifact),
        "evaluation.json": json.dumps(described["evaluations"]["version"], indent=1, ensure_ascii=False),
    }
    export_to(ws, artifact.digest, Path(destination), files)
    return {
        "version": found.name,
        "backend": backend,
        "precision": precision,
        "artifact": artifact.digest,
        "n_bytes": artifact.n_bytes,
        "destination": str(destination),
    }


def export_adapter(
    ws: Workspace, version: str, channel: str, destination: Path | str, *, task: str | None = None
) -> dict[str, Any]:
    """Write a channel's adapter into an empty or new folder, as peft loads it; see `per_channel.export_adapter`."""
    return adapting.export_adapter(ws, version, channel, destination, task=task)


def export_compressed(
    ws: Workspace,
    version: str,
    destination: Path | str,
    *,
    backend: str = "hf",
    precision: str | None = None,
    task: str | None = None,
    max_drop: float | None = None,
    ways: Sequence[str] = (),
    report: Report = silent,
) -> dict[str, Any]:
    """Compress a version (see `compression.compress`), and export the one chosen as `export_version` does.

    Returns:
        What `export_version` returns, and as `compression` what was measured and chosen.
    """
    check_format(backend, precision or ("fp32" if backend == "hf" else ws.settings.export.precision))
    check_destination(Path(destination))
    found = compression.compress(ws, version, task=task, max_drop=max_drop, ways=ways, report=report)
    written = export_version(ws, found["version"], destination, backend=backend, precision=precision, task=task)
    return {**written, "compression": found}


def predict(
    ws: Workspace,
    inputs: Sequence[object],
    *,
    version: str | None = None,
    task: str | None = None,
    channel: str | None = None,
) -> list[dict[str, Any]]:
    """Answers of a version (default: the one in charge of the channel), here and unlogged.

    Args:
        inputs: texts, objects with the parts that the task type reads, or conversations as lists of {role, text}.
        channel: whose inputs they are; its adapter answers where the version has one for it.

    Raises:
        BadInput: no input, or one that is empty or of another shape.
        NotFound: no such version or channel.
        WrongState: none is in charge.
    """
    if not inputs:
        raise BadInput("there is no text to answer", next_step="Give one text or more")
    name = ws.task_name(task)
    parsed = parse_inputs(ws.task(name), task_type_of(ws.task(name)).fields, inputs)
    if channel is not None:
        channels.find(ws, channel)
    door = door_of(ws)
    parsed = [door.input(channel, one)[0] for one in parsed]  # as the version was trained
    found = controls.find_version(ws, name, version) if version else controls.serving(ws, name).control_of(channel)
    outputs, facts = adapting.answers_of(ws, found, parsed, [channel] * len(parsed))
    task_type: TaskType = TASK_TYPES.get(facts.task.type)(facts.task)
    return task_type.decode(outputs, facts.calibration)


def improve(
    ws: Workspace, *, task: str | None = None, min_new_labels: int | None = None, report: Report = silent
) -> dict[str, Any]:
    """Turn the wheel by one step: decide on the open release, or make and try a version from new labels that count.

    Returns `{"step": ...}`, one of: `decision` (with verdict and evidence), the name of the policy by which a candidate
    is being tried, such as `shadow`, `gate` (a candidate failed before traffic) or `waiting` (not enough new labels).
    All but a decision say under `feedback` how many labels came, from how many sources, how many do not count and why.

    Args:
        min_new_labels: from how many on to start a new version; None: `feedback.min_new_labels`.

    Raises:
        WrongState: no version is in charge yet.
    """
    name = ws.task_name(task)
    serving = controls.serving(ws, name)
    if serving.release is not None:
        return _decide(ws, serving.release)
    trusting.collect(ws, task=name)
    newest = max((serving.control, *serving.channels.values()), key=lambda version: version.number)
    settlement = trusting.settlement(ws, task=name, report=report)
    old, new = snapshot.find(ws, newest.snapshot_id), trusting.frozen(ws, settlement, task=name)
    n_new = trusting.n_new(ws, settlement, old, snapshot.rows(ws, new))
    needed = ws.settings.feedback.min_new_labels if min_new_labels is None else min_new_labels
    if n_new < needed:
        return {"step": "waiting", "n_new_labels": n_new, "n_needed": needed, "feedback": settlement.facts}
    result = train(ws, task=name, per_channel=adapting.has_adapters(ws, serving.control), report=report)
    candidate = controls.find_version(ws, name, result["version"])
    return {**_try(ws, serving.control, candidate, report), "feedback": settlement.facts}


def _decide(ws: Workspace, release: Release) -> dict[str, Any]:
    decision = judging.decision_of(ws, release)
    written = releases.decide(ws, release, decision, actor="improve")
    candidate = controls.find_version(ws, release.task, release.candidate_id)
    return {
        "step": "decision",
        "verdict": decision.verdict,
        "reason": decision.reason,
        "evidence": decision.evidence,
        "candidate": candidate.name,
        "ledger": written[-1].id,
    }


def _try(ws: Workspace, control: ModelVersion, candidate: ModelVersion, report: Report) -> dict[str, Any]:
    """Compare the candidate with the control on the same held-out rows; open a release if the gates pass."""
    lines = [line for line in ledger.history(ws, control.task) if line.version_id == candidate.id]
    if any(line.kind == "reject" or line.evidence.get("is_used_up") for line in lines):
        return {"step": "waiting", "n_new_labels": 0, "reason": f"{candidate.name} was tried; no new labels since"}
    scope, judged, found = starting.gates_where_it_fits(ws, control, candidate, report)
    shown = {
        "candidate": candidate.name,
        "control": control.name,
        "comparison": found["comparison"],
        "gates": judged,
        "version": describe(ws, candidate),
    }
    if not all(gate["passed"] for gate in judged):
        releases.rejected_at_gate(ws, candidate, judged, actor="improve")
        return {"step": "gate", **shown}
    release = starting.start(ws, candidate=candidate, scope=scope, actor="improve")
    return {"step": release.policy, "release": release.id, "scope": release.scope, **shown}


def _card(ws: Workspace, version: ModelVersion, described: dict[str, Any], artifact: Artifact) -> str:
    with ws.store.read() as conn:
        run = runs.find(conn, version.run_id)
    assert run is not None
    frozen = snapshot.find(ws, version.snapshot_id)
    own = [Adapter(**one) for one in described["adapters"]]
    library = library_of(artifact.facts["backend"], os.listdir(ws.artifacts.get(artifact.digest)))
    return model_card.render(
        version,
        run,
        frozen,
        described["evaluations"],
        library=library,
        calibration=artifact.facts["calibration"],
        adapters=own,
    )

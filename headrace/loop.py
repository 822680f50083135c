"""The order of the stages: the only place that knows it. Everything here can be killed and run again.

train:    snapshot -> run -> fine-tune -> export -> evaluate -> model version         (one job)
improve:  labels from feedback -> train -> gates -> shadow release, then, once there is evidence, a decision
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from headrace import jobs
from headrace.config import TaskTable, read_catalogue
from headrace.data import quality, snapshot
from headrace.errors import BadInput
from headrace.evaluate import agreement, baselines, comparison, evaluating, gates, model_card
from headrace.export import ArtifactFacts
from headrace.export import load as load_artifact
from headrace.export.writing import check_destination, check_format, export, export_to
from headrace.feedback import labels as feedback_labels
from headrace.feedback import outcomes
from headrace.finetune import base_models
from headrace.finetune.methods import METHODS
from headrace.ids import new_id
from headrace.records import Decision, Evaluation, Input, Job, ModelVersion, Release, Run, Snapshot, SnapshotRow
from headrace.registry import require, resolve
from headrace.release import releases
from headrace.release.policies import POLICIES
from headrace.store import runs, versions
from headrace.store.releases import open_release
from headrace.tasks import TASK_TYPES, Outputs, Predictor, TaskType
from headrace.tasks.inputs import as_one_text, parse_inputs
from headrace.workspace import Workspace
from headrace.workspace import init as make_workspace

Report = Callable[..., None]
_N_TIMED_ROWS = 512  # of the checkpoint, which is slow; enough for a rate


def silent(*_args: object, **_facts: object) -> None:
    """A report to nobody."""


def init(
    root: Path | str,
    *,
    task: str,
    task_type: str = "text-classification",
    labels: tuple[str, ...] = (),
    catalogue: str = "",
) -> Workspace:
    """Make a workspace with one task, whose settings are checked before anything is written.

    Args:
        catalogue: file of JSON lines with `label` and `text`, seen from `root`; in place of labels.

    Raises:
        NotFound: no such task type.
        BadConfig: the labels or the catalogue do not suit it.
        AlreadyExists: there is a workspace already.
        Unusable: the folder cannot be written.
    """
    entries = read_catalogue(Path(root) / catalogue) if catalogue else {}
    _task_type(TaskTable(type=task_type, labels=labels or tuple(entries), descriptions=entries))
    return make_workspace(root, task=task, task_type=task_type, labels=labels, catalogue=catalogue)


def check_quality(ws: Workspace, *, task: str | None = None, report: Report = silent) -> quality.QualityReport:
    """The quality of the rows, with lengths in the base model's own tokens where that can be had."""
    count = None
    if find_spec("transformers") is not None:  # without it no base model is at hand
        count = base_models.token_counter(ws.task(task).base_model)
    return quality.check(ws, task=task, count_tokens=count, progress=lambda done, total: report("rows", done, total))


def train(ws: Workspace, *, task: str | None = None, report: Report = silent) -> dict[str, Any]:
    """Make a model version of the newest labelled rows and describe it; waits for the job.

    The same rows and settings give the same version; a run that was killed goes on where it was.

    Raises:
        BadInput: the rows cannot train the task.
        MissingExtra: the training parts are not installed.
    """
    started = start_training(ws, task=task)
    for job in jobs.follow(ws, started.id):
        if job.progress:
            report(**job.progress)
    return jobs.result_of(job)


def start_training(ws: Workspace, *, task: str | None = None) -> Job:
    """Start `make_version` on the newest labelled rows, or find the job that is doing so already."""
    name = ws.task_name(task)
    require("torch", "transformers", "accelerate", purpose="training")
    check_format(ws.settings.export.backend, ws.settings.export.precision)
    run = _run_of(ws, name, snapshot.freeze(ws, task=name))
    target, args = "headrace.loop:make_version", {"run_id": run.id}
    running = jobs.find_running(ws, target, args)
    if running is not None:
        return running
    overrides = {s.key: s.value for s in ws.shown if s.source == "command line"}
    return jobs.submit(ws, target, args, overrides=overrides)


def make_version(ws: Workspace, progress: jobs.Progress, *, run_id: str) -> dict[str, Any]:
    """The job: do what is not done yet of fine-tuning, exporting, evaluating and registering a run."""
    with jobs.only_one(ws, run_id, progress):  # another would write to the same folder, and leaves nothing to do
        return _made_version(ws, progress, run_id)


def _made_version(ws: Workspace, progress: jobs.Progress, run_id: str) -> dict[str, Any]:
    with ws.store.read() as conn:
        run = runs.find(conn, run_id)
    assert run is not None
    made = _version_of(ws, run)
    if made is None:
        rows = snapshot.rows(ws, snapshot.find(ws, run.snapshot_id))
        checkpoint = run.checkpoint
        if checkpoint is None:
            fine_tune = resolve("headrace.finetune.running:fine_tune", purpose="training")
            checkpoint = fine_tune(ws, run, rows, progress.report)
        else:  # a kill may have left what it was made in
            shutil.rmtree(ws.state_folder / "runs" / run.id, ignore_errors=True)
        artifact = _export(ws, run.task, checkpoint, rows, progress.report)
        made = _register(ws, run, checkpoint, artifact, rows, progress.report)
    return describe(ws, made)


def describe(ws: Workspace, version: ModelVersion) -> dict[str, Any]:
    """What is known of a version, as JSON: its run, and its evaluation beside checkpoint and baselines."""
    with ws.store.read() as conn:
        run = runs.find(conn, version.run_id)
        found = versions.evaluations(conn, version.task, version_id=version.id)
    assert run is not None
    results = {e.predictor: e.results for e in found}
    own = next(e.results for e in found if e.predictor == "version")  # later ones are of `evaluate`, on other rows
    results["version"] = own
    return {
        "version": version.name,
        "version_id": version.id,
        "method": run.method,
        "n_train_rows": run.facts["n_train_rows"],
        "seconds": run.facts["seconds"],
        "main_metric": own["main_metric"],
        "agreement": own["agreement"],
        "rows_per_s": own["rows_per_s"],
        "evaluations": results,
    }


def evaluate_version(
    ws: Workspace, version: str, *, task: str | None = None, side: str = "test", report: Report = silent
) -> dict[str, Any]:
    """Measure the exported artifact of a version on a side of the newest snapshot; kept as an evaluation.

    Raises:
        NotFound: no such version.
    """
    found = releases.find_version(ws, task, version)
    frozen = snapshot.freeze(ws, task=found.task)
    rows = snapshot.rows(ws, frozen, side)
    report("evaluate", 0, len(rows))
    results, _ = _measure(ws, found, rows)
    report("evaluate", len(rows), len(rows))
    _keep(ws, [_evaluation(ws, found.task, found.id, "version", frozen.id, results)])
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
    found = releases.find_version(ws, task, version)
    with ws.store.read() as conn:
        artifact = runs.find_artifact(conn, found.artifact)
    assert artifact is not None
    precision = precision or ("fp32" if backend == "hf" else ws.settings.export.precision)
    check_format(backend, precision)
    check_destination(Path(destination))
    if (artifact.facts["backend"], artifact.facts["precision"]) != (backend, precision):
        rows = snapshot.rows(ws, snapshot.find(ws, found.snapshot_id))
        artifact = _export(ws, found.task, found.checkpoint, rows, silent, backend=backend, precision=precision)
    described = describe(ws, found)
    files = {
        "README.md": _card(ws, found, described),
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


def predict(
    ws: Workspace, inputs: Sequence[object], *, version: str | None = None, task: str | None = None
) -> list[dict[str, Any]]:
    """Answers of a version (default: the one in charge), here and unlogged.

    Args:
        inputs: texts, objects with the parts that the task type reads, or conversations as lists of {role, text}.

    Raises:
        BadInput: no input, or one that is empty or of another shape.
        NotFound: no such version.
        WrongState: none is in charge.
    """
    if not inputs:
        raise BadInput("there is no text to answer", next_step="Give one text or more")
    name = ws.task_name(task)
    parsed = parse_inputs(ws.task(name), _task_type(ws.task(name)).fields, inputs)
    found = releases.find_version(ws, name, version) if version else releases.serving(ws, name).control
    predictor, facts = load_artifact(ws.artifacts.get(found.artifact))
    task_type: TaskType = TASK_TYPES.get(facts.task.type)(facts.task)
    return task_type.decode(predictor.logits(parsed), facts.calibration)


def improve(ws: Workspace, *, task: str | None = None, report: Report = silent) -> dict[str, Any]:
    """Turn the wheel by one step: decide on the open release, or make and try a version from new labels.

    Returns `{"step": ...}`, one of: `decision` (with verdict and evidence), `shadow` (a candidate is being tried),
    `gate` (a candidate failed before traffic) or `waiting` (not enough new labels).

    Raises:
        WrongState: no version is in charge yet.
    """
    name = ws.task_name(task)
    serving = releases.serving(ws, name)
    if serving.release is not None:
        return _decide(ws, serving.release)
    feedback_labels.to_labels(ws, name)
    old, new = snapshot.find(ws, serving.control.snapshot_id), snapshot.freeze(ws, task=name)
    n_new = _n_new(old, new)
    if n_new < ws.settings.feedback.min_new_labels:
        return {"step": "waiting", "n_new_labels": n_new, "n_needed": ws.settings.feedback.min_new_labels}
    result = train(ws, task=name, report=report)
    candidate = releases.find_version(ws, name, result["version"])
    return _try(ws, serving.control, candidate, result, report)


def evidence(ws: Workspace, release: Release) -> Decision:
    """What the release's policy says about the corrections so far; changes nothing."""
    pairs, n_requests = outcomes.paired(ws, release)
    policy = POLICIES.get(release.policy)
    decision: Decision = policy.decide(pairs, n_requests=n_requests, **release.options)
    return decision


def release_status(ws: Workspace, *, task: str | None = None) -> dict[str, Any]:
    """Who answers, who is tried, and what the evidence says so far; changes nothing."""
    name = ws.task_name(task)
    with ws.store.read() as conn:
        running = open_release(conn, name)
    return releases.status(ws, name, decision=None if running is None else evidence(ws, running))


def _decide(ws: Workspace, release: Release) -> dict[str, Any]:
    decision = evidence(ws, release)
    entry = releases.decide(ws, release, decision, actor="improve")
    candidate = releases.find_version(ws, release.task, release.candidate_id)
    return {
        "step": "decision",
        "verdict": decision.verdict,
        "reason": decision.reason,
        "evidence": decision.evidence,
        "candidate": candidate.name,
        "ledger": entry.id,
    }


def _try(
    ws: Workspace, control: ModelVersion, candidate: ModelVersion, result: dict[str, Any], report: Report
) -> dict[str, Any]:
    """Compare the candidate with the control on the same held-out rows; open a shadow release if the gates pass."""
    if any(line.version_id == candidate.id and line.kind == "reject" for line in releases.history(ws, control.task)):
        return {"step": "waiting", "n_new_labels": 0, "reason": f"{candidate.name} was rejected; no new labels since"}
    if result["evaluations"].get("control", {}).get("control") != control.name:
        _compare(ws, control, candidate, report)
        result = describe(ws, candidate)
    compared = result["evaluations"]["control"]["comparison"]
    limits = ws.settings.release
    passed = [
        *gates.no_harm(compared, max_drop_share=limits.max_drop_share),
        *gates.agreement(result["agreement"], min_agreement_share=limits.min_agreement_share),
    ]
    shown = {"candidate": candidate.name, "control": control.name, "comparison": compared, "gates": passed}
    if not all(gate["passed"] for gate in passed):
        releases.rejected_at_gate(ws, candidate, passed, actor="improve")
        return {"step": "gate", **shown, "version": result}
    release = releases.start(
        ws, candidate=candidate, evidence={"gates": passed, "comparison": compared}, actor="improve"
    )
    return {"step": "shadow", "release": release.id, **shown, "version": result}


def _compare(ws: Workspace, control: ModelVersion, candidate: ModelVersion, report: Report) -> None:
    rows = snapshot.rows(ws, snapshot.find(ws, candidate.snapshot_id), "test")
    report("compare", 0, len(rows))
    results, control_logits = _measure(ws, control, rows)
    candidate_logits = _logits(ws, candidate, rows)[0]
    compared = comparison.compare(_task_type(ws.task(control.task)), rows, control_logits, candidate_logits)
    report("compare", len(rows), len(rows))
    results |= {"comparison": compared, "control": control.name}
    _keep(ws, [_evaluation(ws, control.task, candidate.id, "control", candidate.snapshot_id, results)])


def _run_of(ws: Workspace, task: str, frozen: Snapshot) -> Run:
    """The run that these rows and settings decide, found or made."""
    settings = ws.task(task)
    METHODS.get(ws.settings.finetune.method)
    base = base_models.find(settings.base_model)
    params = {"task": settings.model_dump(mode="json"), "finetune": ws.settings.finetune.model_dump(mode="json")}
    deciding = json.dumps([task, frozen.content_hash, base.digest, params], sort_keys=True)
    run = Run(
        id=new_id("run"),
        task=task,
        snapshot_id=frozen.id,
        base_model=base.name,
        base_digest=base.digest,
        method=ws.settings.finetune.method,
        params=params,
        fingerprint=f"sha256:{hashlib.sha256(deciding.encode()).hexdigest()}",
        seed=ws.settings.finetune.seed,
        state="running",
        job_id=None,
        checkpoint=None,
        history=[],
        facts={},
        created_at=ws.clock(),
    )
    with ws.store.write() as conn:
        found = runs.with_fingerprint(conn, run.fingerprint)
        if found is None:
            runs.add(conn, run, config_hash=ws.config_hash)
    return found or run


def _version_of(ws: Workspace, run: Run) -> ModelVersion | None:
    """The version of a run in the format that the settings ask for."""
    wanted = (ws.settings.export.backend, ws.settings.export.precision)
    with ws.store.read() as conn:
        for version in versions.listing(conn, run.task):
            artifact = runs.find_artifact(conn, version.artifact)
            if version.run_id != run.id or artifact is None:
                continue
            if (artifact.facts["backend"], artifact.facts["precision"]) == wanted:
                return version
    return None


def _export(
    ws: Workspace,
    task: str,
    checkpoint: str,
    rows: Sequence[SnapshotRow],
    report: Report,
    *,
    backend: str | None = None,
    precision: str | None = None,
) -> Any:
    backend, precision = backend or ws.settings.export.backend, precision or ws.settings.export.precision
    report("export", 0, 1, backend=backend, precision=precision)
    train_rows = [row for row in rows if row.side == "train"]
    step = max(1, len(train_rows) // ws.settings.export.n_calibration)
    artifact = export(
        ws,
        checkpoint,
        task=task,
        backend=backend,
        precision=precision,
        calibration=[row.input for row in train_rows[::step]],
        validation=[row for row in rows if row.side == "validation"],
    )
    report("export", 1, 1, backend=backend, precision=precision)
    return artifact


def _register(
    ws: Workspace, run: Run, checkpoint: str, artifact: Any, rows: Sequence[SnapshotRow], report: Report
) -> ModelVersion:
    """Evaluate, then write version and evaluations in one transaction."""
    test = [row for row in rows if row.side == "test"]
    results = _evaluate_all(ws, run, checkpoint, artifact.digest, rows, test, report)
    with ws.store.write() as conn:
        version = ModelVersion(
            id=new_id("version"),
            task=run.task,
            number=versions.next_number(conn, run.task),
            run_id=run.id,
            snapshot_id=run.snapshot_id,
            checkpoint=checkpoint,
            artifact=artifact.digest,
            created_at=ws.clock(),
        )
        versions.add(conn, version, config_hash=ws.config_hash)
        for predictor, result in results.items():
            evaluation = _evaluation(ws, run.task, version.id, predictor, run.snapshot_id, result)
            versions.add_evaluation(conn, evaluation, config_hash=ws.config_hash)
    return version


def _evaluate_all(
    ws: Workspace,
    run: Run,
    checkpoint: str,
    artifact: str,
    rows: Sequence[SnapshotRow],
    test: Sequence[SnapshotRow],
    report: Report,
) -> dict[str, dict[str, Any]]:
    """The exported version, its checkpoint and two baselines, on the same held-out rows."""
    task = TaskTable.model_validate(run.params["task"])
    task_type = _task_type(task)
    inputs = [row.input for row in test]
    report("evaluate", 0, 4, on="exported version")
    predictor, facts = load_artifact(ws.artifacts.get(artifact))
    own_logits, own_rate = _timed(predictor, inputs)
    report("evaluate", 1, 4, on="checkpoint")
    load_checkpoint = resolve("headrace.export.checkpoint:load", purpose="the checkpoint")
    slow_inputs = inputs[:: max(1, len(inputs) // _N_TIMED_ROWS)]
    slow_logits, slow_rate = _timed(load_checkpoint(ws.artifacts.get(checkpoint), task), slow_inputs)
    report("evaluate", 2, 4, on="baselines")
    train_rows = [row for row in rows if row.side == "train"]
    embed = resolve("headrace.finetune.embeddings:embed", purpose="the baseline")
    vectors = embed(
        run.base_model, [as_one_text(row.input) for row in [*train_rows, *test]], max_tokens=task.max_tokens
    )
    targets = [row.target for row in train_rows]
    simple = {
        "majority": baselines.majority(task_type, targets, n=len(test)),
        "centroid": baselines.nearest_centroid(task_type, vectors[: len(targets)], targets, vectors[len(targets) :]),
    }
    results = {name: evaluating.evaluate(task_type, test, logits) for name, logits in simple.items()}
    own = evaluating.evaluate(task_type, test, own_logits, calibration=facts.calibration)
    own["agreement"] = agreement.agreement(task_type, own_logits[:: max(1, len(inputs) // _N_TIMED_ROWS)], slow_logits)
    own["rows_per_s"] = {"exported": round(own_rate, 1), "checkpoint": round(slow_rate, 1)}
    report("evaluate", 4, 4, on="done")
    return {"version": own, **results}


def _card(ws: Workspace, version: ModelVersion, described: dict[str, Any]) -> str:
    with ws.store.read() as conn:
        run = runs.find(conn, version.run_id)
    assert run is not None
    return model_card.render(version, run, snapshot.find(ws, version.snapshot_id), described["evaluations"])


def _timed(predictor: Predictor, inputs: Sequence[Input]) -> tuple[Outputs, float]:
    predictor.logits(inputs[:32])  # first calls compile
    started = time.perf_counter()
    logits = predictor.logits(inputs)
    return logits, len(inputs) / (time.perf_counter() - started)


def _measure(ws: Workspace, version: ModelVersion, rows: Sequence[SnapshotRow]) -> tuple[dict[str, Any], Outputs]:
    outputs, facts = _logits(ws, version, rows)
    return evaluating.evaluate(_task_type(facts.task), rows, outputs, calibration=facts.calibration), outputs


def _logits(ws: Workspace, version: ModelVersion, rows: Sequence[SnapshotRow]) -> tuple[Outputs, ArtifactFacts]:
    predictor, facts = load_artifact(ws.artifacts.get(version.artifact))
    return predictor.logits([row.input for row in rows]), facts


def _task_type(settings: TaskTable) -> TaskType:
    made: TaskType = TASK_TYPES.get(settings.type)(settings)
    return made


def _evaluation(
    ws: Workspace, task: str, version_id: str, predictor: str, snapshot_id: str, results: dict[str, Any]
) -> Evaluation:
    return Evaluation(new_id("evaluation"), task, version_id, predictor, snapshot_id, "test", results, ws.clock())


def _keep(ws: Workspace, evaluations: Sequence[Evaluation]) -> None:
    with ws.store.write() as conn:
        for evaluation in evaluations:
            versions.add_evaluation(conn, evaluation, config_hash=ws.config_hash)


def _n_new(old: Snapshot, new: Snapshot) -> int:
    return 0 if old.content_hash == new.content_hash else new.n_rows - old.n_rows

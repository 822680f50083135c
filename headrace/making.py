"""From rows to a model version: a run, its fine-tuning, the export, the evaluation and the registration.

Each step leaves something that is found again (run, checkpoint, artifact, version), so a killed one goes on from there.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace import jobs, signing, trusting, warm_start
from headrace.config import FinetuneTable, TaskTable
from headrace.data import snapshot
from headrace.evaluate import agreement, baselines, evaluating, membership
from headrace.export import load as load_artifact
from headrace.export.writing import check_format, export
from headrace.finetune import base_models, tracking
from headrace.finetune.checking import check_methods, check_settings
from headrace.ids import new_id
from headrace.records import Artifact, Evaluation, Input, Job, ModelVersion, Run, Snapshot, SnapshotRow
from headrace.registry import require, resolve
from headrace.release import controls
from headrace.store import adapters, examples, runs, versions
from headrace.tasks import TASK_TYPES, FloatArray, Outputs, Predictor, TaskType
from headrace.tasks.inputs import as_one_text
from headrace.workspace import Workspace

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

Report = Callable[..., None]
_N_TIMED_ROWS = 512  # of the checkpoint, which is slow; enough for a rate
_N_ROUNDS, _MOST_ROUNDS, _LEAST_TIMED_S = 7, 70, 0.5


@dataclass(frozen=True)
class Material:
    """What a run reads besides its own snapshot."""

    unlabelled: list[str]
    teacher: Path | None
    start: Path | None


def start_training(ws: Workspace, *, task: str | None = None) -> Job:
    """Start `make_version` on the newest labelled rows, or find the job that is doing so already."""
    name = ws.task_name(task)
    check_ready(ws, name)
    run = run_of(ws, name, trusting.freeze(ws, task=name), ws.settings.finetune)
    return submitted(ws, "headrace.making:make_version", {"run_id": run.id})


def check_ready(ws: Workspace, task: str | None = None) -> None:
    """Refuse at once what training or export would only refuse at work.

    Args:
        task: of which the settings of finetune will make a run; None: they will make none.
    """
    tracker = ws.settings.finetune.tracker
    require("torch", "transformers", "accelerate", purpose="training")
    if tracker != "none":
        require(tracker, purpose=f"finetune.tracker = {tracker}")
    check_format(ws.settings.export.backend, ws.settings.export.precision)
    for name in ws.settings.finetune.augment.translators:
        base_models.find(name)  # fetched here, since jobs have no network
    if task is not None:
        check_finetune(ws, task, ws.settings.finetune)


def check_finetune(ws: Workspace, task: str, finetune: FinetuneTable) -> None:
    """Refuse settings that no run of the task can be made by, as `check_settings` and `warm_start.check` do."""
    settings = ws.task(task)
    task_type = task_type_of(settings)
    check_settings(settings, task_type, finetune, base_models.find(settings.base_model).folder)
    warm_start.check(ws, settings, task_type, finetune, task)


def submitted(ws: Workspace, target: str, args: dict[str, Any]) -> Job:
    """The job that does this work: a live one, or a new one under the same settings as here."""
    running = jobs.find_running(ws, target, args)
    if running is not None:
        return running
    overrides = {s.key: s.value for s in ws.shown if s.source == "command line"}
    return jobs.submit(ws, target, args, overrides=overrides)


def make_version(ws: Workspace, progress: jobs.Progress, *, run_id: str) -> dict[str, Any]:
    """The job: do what is not done yet of fine-tuning, exporting, evaluating and registering a run."""
    with jobs.only_one(ws, run_id, progress):  # another would write to the same folder, and leaves nothing to do
        return describe(ws, made_version(ws, find_run(ws, run_id), progress.report))


def made_version(ws: Workspace, run: Run, report: Report) -> ModelVersion:
    """The version of a run in the format that the settings ask for, found or made."""
    made = version_of(ws, run)
    if made is None:
        rows = snapshot.rows(ws, snapshot.find(ws, run.snapshot_id))
        checkpoint = fine_tuned(ws, run, rows, report)
        artifact = export_checkpoint(ws, run, checkpoint, rows, report)
        results = _evaluate_all(ws, run, checkpoint, artifact.digest, rows, report)
        made = register(ws, run, checkpoint=checkpoint, artifact=artifact.digest, results=results)
    return made


def fine_tuned(ws: Workspace, run: Run, rows: Sequence[SnapshotRow], report: Report) -> str:
    """Digest of a run's checkpoint, found or made."""
    if run.checkpoint is not None:  # a kill may have left what it was made in
        shutil.rmtree(ws.state_folder / "runs" / run.id, ignore_errors=True)
        return run.checkpoint
    fine_tune = resolve("headrace.finetune.running:fine_tune", purpose="training")
    given = vars(_material(ws, run))
    with tracking.to(ws.state_folder / "tracking", run.id):
        checkpoint: str = fine_tune(ws, run, warm_start.rows_of(ws, run, rows), report, **given)
    return checkpoint


def find_run(ws: Workspace, run_id: str) -> Run:
    with ws.store.read() as conn:
        run = runs.find(conn, run_id)
    assert run is not None
    return run


def run_of(ws: Workspace, task: str, frozen: Snapshot, finetune: FinetuneTable) -> Run:
    """The run that these rows and settings decide, found or made."""
    return run_with(ws, planned_run(ws, task, frozen, finetune))


def run_with(ws: Workspace, run: Run) -> Run:
    """The run with this one's fingerprint: one that was there already, or this one, written down."""
    with ws.store.write() as conn:
        found = runs.with_fingerprint(conn, run.fingerprint)
        if found is None:
            runs.add(conn, run, config_hash=ws.config_hash)
    return found or run


def planned_run(ws: Workspace, task: str, frozen: Snapshot, finetune: FinetuneTable) -> Run:
    """The run that these rows and settings decide, not written down."""
    settings, now = ws.task(task), ws.clock()
    if finetune.teacher:  # by one of its several names
        finetune = finetune.model_copy(update={"teacher": controls.find_version(ws, task, finetune.teacher).name})
    if finetune.start:
        finetune = finetune.model_copy(update={"start": warm_start.version_of(ws, task, finetune.start).name})
    base = base_models.find(settings.base_model)
    unread = {"tracker", "per_channel"}  # the first only looks on, the second decides what comes after
    deciding_settings = finetune.model_dump(mode="json", exclude=unread)
    params = {"task": settings.model_dump(mode="json"), "finetune": deciding_settings}
    if material := _material_hashes(ws, task, frozen, finetune):
        params["material"] = material
    return Run(
        id=new_id("run"),
        task=task,
        snapshot_id=frozen.id,
        base_model=base.name,
        base_digest=base.digest,
        method=finetune.method,
        params=params,
        fingerprint=hash_of([task, frozen.content_hash, base.digest, params]),
        seed=finetune.seed,
        state="running",
        job_id=None,
        checkpoint=None,
        history=[],
        facts={},
        created_at=now,
    )


def hash_of(deciding: Any) -> str:
    """SHA-256 of a JSON value."""
    return f"sha256:{hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()}"


def _material_hashes(ws: Workspace, task: str, frozen: Snapshot, finetune: FinetuneTable) -> dict[str, Any]:
    """What a run reads besides its snapshot, by hash; empty where its settings ask for nothing.

    Raises:
        NotFound: no such method, teacher or start.
        BadConfig: distil without a teacher.
        BadInput, WrongState: as `warm_start.check_rows`.
    """
    check_methods(ws.task(task), task_type_of(ws.task(task)), finetune)
    found: dict[str, Any] = {}
    if finetune.teacher:
        found["teacher"] = controls.find_version(ws, task, finetune.teacher).checkpoint
    if finetune.method == "continue-pretraining":
        found["unlabelled"] = hash_of(unlabelled_texts(ws, until=ws.clock()))
    if finetune.start:
        version = controls.find_version(ws, task, finetune.start)
        warm_start.check_rows(ws, frozen, finetune, version)
        found["start"] = version.checkpoint
    return found


def _material(ws: Workspace, run: Run) -> Material:
    hashes = run.params.get("material", {})
    return Material(
        unlabelled=unlabelled_texts(ws, until=run.created_at) if "unlabelled" in hashes else [],
        teacher=ws.artifacts.get(hashes["teacher"]) if "teacher" in hashes else None,
        start=ws.artifacts.get(hashes["start"]) if "start" in hashes else None,
    )


def unlabelled_texts(ws: Workspace, *, until: datetime) -> list[str]:
    """Texts that were there at a moment, labelled or not, but for the test side's; parts of a pair are texts."""
    with ws.store.read() as conn:
        found = examples.inputs_to_learn_from(conn, until=until)
    parts = (part for one in found for part in ((one,) if isinstance(one, str) else one))
    return list(dict.fromkeys(parts))


def task_of(run: Run) -> TaskTable:
    """The task as it was when the run began."""
    return TaskTable.model_validate(run.params["task"])


def task_type_of(settings: TaskTable) -> TaskType:
    made: TaskType = TASK_TYPES.get(settings.type)(settings)
    return made


def describe(ws: Workspace, version: ModelVersion) -> dict[str, Any]:
    """What is known of a version, as JSON: its run, its evaluation beside checkpoint and baselines, its adapters."""
    with ws.store.read() as conn:
        run = runs.find(conn, version.run_id)
        own_channels = adapters.of_version(conn, version.id)
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
        "adapters": [vars(one) for one in own_channels],
    }


def version_of(ws: Workspace, run: Run) -> ModelVersion | None:
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


def export_checkpoint(
    ws: Workspace,
    run: Run,
    checkpoint: str,
    rows: Sequence[SnapshotRow],
    report: Report,
    *,
    backend: str | None = None,
    precision: str | None = None,
    bank: Mapping[str, Any] | None = None,
) -> Artifact:
    """The artifact of a run's checkpoint, in the settings' format unless another is named; `bank` as `export` has it.

    It is of the task as it was when the run began: a catalogue or a length that changed since is not what was learnt.
    """
    backend, precision = backend or ws.settings.export.backend, precision or ws.settings.export.precision
    report("export", 0, 1, backend=backend, precision=precision)
    train_rows = [row for row in rows if row.side == "train"]
    step = max(1, len(train_rows) // ws.settings.export.n_calibration)
    artifact: Artifact = export(
        ws,
        checkpoint,
        task=task_of(run),
        backend=backend,
        precision=precision,
        calibration=[row.input for row in train_rows[::step]],
        validation=[row for row in rows if row.side == "validation"],
        bank=bank,
    )
    report("export", 1, 1, backend=backend, precision=precision)
    return artifact


def next_version(ws: Workspace, conn: "Connection", run: Run, *, checkpoint: str, artifact: str) -> ModelVersion:
    """What a run made, under the task's next number, which is free as long as `conn` writes."""
    return ModelVersion(
        id=new_id("version"),
        task=run.task,
        number=versions.next_number(conn, run.task),
        run_id=run.id,
        snapshot_id=run.snapshot_id,
        checkpoint=checkpoint,
        artifact=artifact,
        created_at=ws.clock(),
    )


def register(
    ws: Workspace, run: Run, *, checkpoint: str, artifact: str, results: Mapping[str, dict[str, Any]]
) -> ModelVersion:
    """Write what a run made as the task's next version, with its evaluations by predictor, in one transaction."""
    with ws.store.write() as conn:
        version = next_version(ws, conn, run, checkpoint=checkpoint, artifact=artifact)
        signing.sign(ws, conn, version)
        versions.add(conn, version, config_hash=ws.config_hash)
        for predictor, result in results.items():
            evaluation = evaluation_of(ws, run.task, version.id, predictor, run.snapshot_id, result)
            versions.add_evaluation(conn, evaluation, config_hash=ws.config_hash)
    return version


def _evaluate_all(
    ws: Workspace, run: Run, checkpoint: str, artifact: str, rows: Sequence[SnapshotRow], report: Report
) -> dict[str, dict[str, Any]]:
    """The exported version, its checkpoint and the task's baselines, on the same held-out rows."""
    task = task_of(run)
    task_type = task_type_of(task)
    test = [row for row in rows if row.side == "test"]
    inputs = [row.input for row in test]
    report("evaluate", 0, 4, on="exported version")
    predictor, facts = load_artifact(ws.artifacts.get(artifact))
    own_logits, own_rate = timed(predictor, inputs)
    report("evaluate", 1, 4, on="checkpoint")
    load_checkpoint = resolve("headrace.export.checkpoint:load", purpose="the checkpoint")
    slow_inputs = inputs[:: max(1, len(inputs) // _N_TIMED_ROWS)]
    slow_logits, slow_rate = timed(load_checkpoint(ws.artifacts.get(checkpoint), task), slow_inputs)
    report("evaluate", 2, 4, on="baselines")
    train_rows = [row for row in rows if row.side == "train"]
    results = {
        name: evaluating.evaluate(task_type, test, outputs)
        for name, outputs in _baselines(run.base_model, task_type, task, train_rows, inputs).items()
    }
    own = evaluating.evaluate(task_type, test, own_logits, calibration=facts.calibration)
    same_rows = own_logits[:: max(1, len(inputs) // _N_TIMED_ROWS)]
    own["agreement"] = agreement.agreement(task_type, same_rows, slow_logits, facts.calibration)
    own["membership"] = _membership(task_type, predictor, train_rows, test, own_logits)
    own["rows_per_s"] = {"exported": round(own_rate, 1), "checkpoint": round(slow_rate, 1)}
    report("evaluate", 4, 4, on="done")
    return {"version": own, **results}


def _membership(
    task_type: TaskType,
    predictor: Predictor,
    train: Sequence[SnapshotRow],
    test: Sequence[SnapshotRow],
    outputs: Outputs,
) -> dict[str, Any] | None:
    """Whether a training row can be told from a held-out one by what the exported version answers to it."""
    if not membership.applies(task_type):
        return None
    members, places = membership.sample(train), membership.sample(range(len(test)))
    of_members = predictor.logits([one.input for one in members])
    return membership.measure(task_type, members, of_members, [test[i] for i in places], outputs[places])


def _baselines(
    base_model: str, task_type: TaskType, task: TaskTable, train: Sequence[SnapshotRow], inputs: Sequence[Input]
) -> dict[str, Outputs]:
    """Answers of what needs no training, by its name; none for tasks on tokens."""
    targets = [row.target for row in train]
    majority = baselines.majority(task_type, targets, n=len(inputs))
    if majority is None:
        return {}
    known = task.labels if task_type.problem == "retrieval" else ()
    entries = [task.descriptions.get(label, label) for label in known]
    embed = resolve("headrace.finetune.embeddings:embed", purpose="the baseline")
    texts = entries or [as_one_text(row.input) for row in train]
    vectors: FloatArray = embed(base_model, [*texts, *(as_one_text(one) for one in inputs)], task)
    learnt, asked = vectors[: len(texts)], vectors[len(texts) :]
    if entries:
        return {"majority": majority, "zero-shot": baselines.zero_shot(task_type, asked, learnt)}
    centroid = baselines.nearest_centroid(task_type, learnt, targets, asked)
    return {"majority": majority} if centroid is None else {"majority": majority, "centroid": centroid}


def timed(predictor: Predictor, inputs: Sequence[Input]) -> tuple[Outputs, float]:
    """Outputs, and rows per second."""
    predictor.logits(inputs[:32])  # first calls compile
    started = time.perf_counter()
    logits = predictor.logits(inputs)
    return logits, len(inputs) / (time.perf_counter() - started)


def fastest_in_turn(one: Callable[[], object], other: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the fastest of several calls of each, made in turn: other work on the machine only ever adds.

    Short calls are made more often, since a single disturbance would tell of all of them.
    """
    rounds: list[tuple[float, float]] = []
    while len(rounds) < _N_ROUNDS or (sum(map(sum, rounds)) < _LEAST_TIMED_S and len(rounds) < _MOST_ROUNDS):
        rounds.append((_seconds(one), _seconds(other)))
    return min(first for first, _ in rounds), min(second for _, second in rounds)


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def evaluation_of(
    ws: Workspace, task: str, version_id: str, predictor: str, snapshot_id: str, results: dict[str, Any]
) -> Evaluation:
    return Evaluation(new_id("evaluation"), task, version_id, predictor, snapshot_id, "test", results, ws.clock())


def keep(ws: Workspace, evaluations: Sequence[Evaluation]) -> None:
    with ws.store.write() as conn:
        for evaluation in evaluations:
            versions.add_evaluation(conn, evaluation, config_hash=ws.config_hash)

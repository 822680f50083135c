"""From a shared model to a version with channel adapters: shared version, adapters in one pass, decision, registration.

Each step leaves something that is found again (shared version, cohorts of adapters, artifacts, version), so a killed
one goes on from there.
"""

import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from headrace import jobs, making, signing, trusting
from headrace.checkpoints import low_rank
from headrace.checkpoints.low_rank import LowRank
from headrace.config import FinetuneTable, TaskTable
from headrace.data import snapshot
from headrace.errors import NotFound, WrongState, nearest
from headrace.evaluate import adapters as evidence_for
from headrace.evaluate import agreement, comparison, evaluating, membership
from headrace.export import ArtifactFacts
from headrace.export import load as load_artifact
from headrace.export.writing import check_format, export_to
from headrace.finetune.methods import check_adaptable, method_for
from headrace.ids import new_id
from headrace.records import Adapter, Artifact, Input, Job, ModelVersion, Run, Snapshot, SnapshotRow
from headrace.registry import resolve
from headrace.release import controls
from headrace.store import adapters, erasures, runs, versions
from headrace.tasks import Outputs, TaskType
from headrace.workspace import Workspace

Report = Callable[..., None]
Answerer = Callable[[Sequence[Input], Sequence[str | None]], Outputs]
"""From inputs and the channel of each to outputs."""
_STAYS = "; a new one was turned down: "
_N_CHECKED_ROWS = 512  # of the checkpoint, which is slow; enough for a share


@dataclass(frozen=True)
class _Work:
    """What a run with adapters reads, and where it leaves what it makes."""

    ws: Workspace
    run: Run
    shared: ModelVersion
    rows: Sequence[SnapshotRow]
    folder: Path
    report: Report

    @property
    def settings(self) -> FinetuneTable:
        return FinetuneTable.model_validate(self.run.params["finetune"])

    @property
    def channel(self) -> str | None:
        """The only one that is trained; None: all."""
        name: str | None = self.run.params["per_channel"]["channel"]
        return name

    @property
    def task_type(self) -> TaskType:
        return making.task_type_of(making.task_of(self.run))

    def side(self, name: str) -> list[SnapshotRow]:
        return [row for row in self.rows if row.side == name]


@dataclass(frozen=True)
class _Trained:
    """Adapters that were tried, and the model they stand on."""

    shared: Any
    """headrace.finetune.channel_adapters.Shared."""
    folders: Mapping[str, Path]
    own: Mapping[str, LowRank]

    def answers(self, rows: Sequence[SnapshotRow], channels: Sequence[str] = ()) -> Outputs:
        """What the checkpoint says, with the adapters of `channels`."""
        outputs: Outputs = _part("answers")(self.shared, rows, {name: self.own[name] for name in channels})
        return outputs


def start(ws: Workspace, *, task: str | None = None, channel: str | None = None) -> Job:
    """Start the job that makes a version with channel adapters, or find the one that is at that work already.

    Args:
        channel: train only this one's, on the shared model of the version in charge; the others' stay as they are.

    Raises:
        BadInput: no adapters can stand on what the settings make.
        NotFound: the channel has no rows.
        WrongState: no version is in charge whose adapter could be replaced.
    """
    name = ws.task_name(task)
    making.check_ready(ws, name if channel is None else None)
    check_format(ws.settings.export.backend, ws.settings.export.precision, with_bank=True)
    frozen = trusting.freeze(ws, task=name)
    if channel is None:
        task_type, finetune = making.task_type_of(ws.task(name)), ws.settings.finetune
        check_adaptable(method_for(finetune.method, task_type), task_type, finetune)
        beneath = making.run_of(ws, name, frozen, ws.settings.finetune)
        run = _run_of(ws, beneath, frozen, {"channel": None, "shared_run": beneath.id, "shared": beneath.fingerprint})
    else:
        if channel not in frozen.n_by_channel:
            raise NotFound(
                "the channel has no labelled rows", value=channel, next_step=nearest(channel, [*frozen.n_by_channel])
            )
        control = controls.serving(ws, name).control
        beneath = making.find_run(ws, control.run_id)
        _check_same_task(ws.task(name), making.task_of(beneath), control)
        facts = {"channel": channel, "shared_version": control.name, "shared": control.id}
        run = _run_of(ws, beneath, frozen, facts)
    return making.submitted(ws, "headrace.per_channel:make_version", {"run_id": run.id})


def _check_same_task(now: TaskTable, then: TaskTable, version: ModelVersion) -> None:
    if (now.type, now.labels) != (then.type, then.labels):
        raise WrongState(
            f"the task's type or labels are others than those of {version.name}",
            value=list(now.labels),
            next_step="Train all channels: headrace train --per-channel",
        )


def _run_of(ws: Workspace, beneath: Run, frozen: Snapshot, facts: dict[str, Any]) -> Run:
    """The run of adapters on the model of another run, found or made."""
    finetune = ws.settings.finetune.model_dump(mode="json", exclude={"tracker"})
    known = {key: facts[key] for key in ("channel", "shared")}  # a run's id is drawn, its fingerprint is not
    run = replace(
        beneath,
        id=new_id("run"),
        snapshot_id=frozen.id,
        method=f"{beneath.method.partition(' + ')[0]} + per-channel",
        params={**beneath.params, "finetune": finetune, "per_channel": facts},
        fingerprint=making.hash_of(["per-channel", frozen.content_hash, known, finetune]),
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


def make_version(ws: Workspace, progress: jobs.Progress, *, run_id: str) -> dict[str, Any]:
    """The job: do what is not done yet of the shared version, the adapters, the decision and the registration."""
    with jobs.only_one(ws, run_id, progress):
        run = making.find_run(ws, run_id)
        version = _version_of(ws, run)
        if version is None:
            shared = _shared_version(ws, run, progress)
            rows = snapshot.rows(ws, snapshot.find(ws, run.snapshot_id))
            folder = ws.state_folder / "runs" / run.id
            version = _make(_Work(ws, run, shared, rows, folder, progress.report))
            shutil.rmtree(folder, ignore_errors=True)
        return making.describe(ws, version)


def _version_of(ws: Workspace, run: Run) -> ModelVersion | None:
    """The version of a run: in the format that the settings ask for, or in that of the model that was there before."""
    if run.params["per_channel"]["channel"] is None:
        return making.version_of(ws, run)
    with ws.store.read() as conn:
        return next((one for one in versions.listing(conn, run.task) if one.run_id == run.id), None)


def _shared_version(ws: Workspace, run: Run, progress: jobs.Progress) -> ModelVersion:
    facts = run.params["per_channel"]
    if "shared_version" in facts:
        return controls.find_version(ws, run.task, facts["shared_version"])
    with jobs.only_one(ws, facts["shared_run"], progress):
        return making.made_version(ws, making.find_run(ws, facts["shared_run"]), progress.report)


def _make(work: _Work) -> ModelVersion:
    started = time.perf_counter()
    earlier = _adapters(work.ws, work.shared)
    bank = _bank_of(work.ws, work.shared)
    checkpoint = work.ws.artifacts.get(work.shared.checkpoint)
    shared = _part("open_shared")(checkpoint, making.task_of(work.run), work.settings, bank=bank)
    old = _replaced(work, earlier)
    decided, trained = _tried(work, shared, old)
    artifact = work.shared.artifact if bank else _exported(work, shared.bank)
    others = [one for one in earlier if work.channel is not None and one.channel != work.channel]
    made = [_chosen(work, name, trained.folders.get(name), one, old) for name, one in decided.items()]
    facts = {
        "seconds": round(time.perf_counter() - started, 2),
        "n_train_rows": len(work.side("train")),
        "n_channels": len(decided),
        "n_trained": len(trained.folders),
        "n_kept": sum(one.is_kept for one in made),
    }
    evaluations, told = _evaluated(work, artifact, trained, [*others, *made])
    made = [replace(one, evidence=one.evidence | told.get(one.channel, {})) for one in made]
    return _register(work, artifact, [*others, *made], evaluations, facts)


def _bank_of(ws: Workspace, version: ModelVersion) -> dict[str, Any]:
    """The room for adapters that a version's artifact has; empty: none."""
    with ws.store.read() as conn:
        artifact = runs.find_artifact(conn, version.artifact)
    assert artifact is not None
    bank: dict[str, Any] = artifact.facts.get("bank", {})
    return bank


def _replaced(work: _Work, earlier: Sequence[Adapter]) -> Adapter | None:
    """The adapter that the channel has; none where its version used what was erased: that one has to go."""
    with work.ws.store.read() as conn:
        has_used = any(work.shared.name in one.facts["versions"] for one in erasures.listing(conn))
    return None if has_used else next((one for one in earlier if one.channel == work.channel and one.is_kept), None)


def _tried(work: _Work, shared: Any, old: Adapter | None) -> tuple[dict[str, dict[str, Any]], _Trained]:
    """The evidence of every channel that was asked for, and the adapters of those that could be told.

    Args:
        old: what the only channel has, to be compared with.
    """
    own, train, validation = work.settings.per_channel, work.side("train"), work.side("validation")
    n_train = dict(sorted(Counter(row.channel for row in train).items()))
    wanted = {row.channel: n_train.get(row.channel, 0) for row in work.rows if work.channel in (None, row.channel)}
    n_validation = Counter(row.channel for row in validation)
    decided = evidence_for.too_small(wanted, n_validation, alpha=own.alpha, min_rows=own.min_rows)
    channels = sorted(wanted.keys() - decided.keys())
    folders = _part("train")(shared, work.settings, train, channels, work.folder, work.report) if channels else {}
    trained = _Trained(shared, folders, {name: low_rank.read(path) for name, path in folders.items()})
    held_out = [row for row in validation if row.channel in folders]
    if held_out:
        work.report("decide", 0, 1)
        plain = trained.answers(held_out)
        calibration = work.task_type.calibrate([row.target for row in held_out], plain)
        outputs = trained.answers(held_out, channels)
        decided |= evidence_for.decide(
            work.task_type, held_out, plain, outputs, calibration=calibration, alpha=own.alpha
        )
        if old is not None:
            weights = low_rank.read(work.ws.artifacts.get(str(old.artifact)))
            before = replace(trained, own={old.channel: weights}).answers(held_out, channels)
            decided[old.channel]["against_old"] = evidence_for.against_old(
                work.task_type, held_out, before, outputs, calibration=calibration, alpha=own.alpha
            )
    return dict(sorted(decided.items())), trained


def _exported(work: _Work, bank: dict[str, Any]) -> str:
    return making.export_checkpoint(work.ws, work.run, work.shared.checkpoint, work.rows, work.report, bank=bank).digest


def _chosen(work: _Work, channel: str, folder: Path | None, evidence: dict[str, Any], old: Adapter | None) -> Adapter:
    """A channel's new adapter, none, or the old one where the new is worse."""
    compared = evidence.get("against_old")
    if compared is None or old is None:
        return _stored(work, channel, folder if evidence["kept"] else None, evidence)
    if compared["is_worse"]:
        reason = f"{old.evidence['reason'].partition(_STAYS)[0]}{_STAYS}{compared['reason']}"
        return replace(old, evidence=old.evidence | {"against_old": compared, "reason": reason})
    evidence = evidence | {"reason": f"{evidence['reason']}; {compared['reason']}"}
    return _stored(work, channel, folder if evidence["kept"] else None, evidence)


def _stored(work: _Work, channel: str, folder: Path | None, evidence: dict[str, Any]) -> Adapter:
    """A channel's adapter, its files in the artifact store where it is kept."""
    if folder is None:
        return Adapter(channel, None, None, False, evidence)
    weights = low_rank.weights_digest(low_rank.read(folder))
    copy = work.ws.artifacts.new_folder()
    shutil.copytree(folder, copy, dirs_exist_ok=True)
    digest, n_bytes = work.ws.artifacts.put(copy)
    artifact = Artifact(digest, "adapter", n_bytes, {"run": work.run.id, "channel": channel, "weights": weights})
    with work.ws.store.write() as conn:
        runs.add_artifact(conn, artifact, work.ws.clock())
    return Adapter(channel, digest, weights, True, evidence)


def _evaluated(
    work: _Work, artifact: str, trained: _Trained, adapters_: Sequence[Adapter]
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Evaluations of the test side by predictor, and what each kept channel gains there."""
    test, task_type = work.side("test"), work.task_type
    inputs, channels = [row.input for row in test], [row.channel for row in test]
    work.report("evaluate", 0, 2, on="exported version")
    predictor, facts = load_artifact(work.ws.artifacts.get(artifact))
    shared_outputs, _ = making.timed(predictor, inputs)
    started = time.perf_counter()
    answer = _by_channel(lambda own, _: work.ws.artifacts.get(own), predictor, adapters_, channels)
    outputs = answer(inputs, channels)
    rate = len(inputs) / (time.perf_counter() - started)
    work.report("evaluate", 1, 2, on="checkpoint")
    step = max(1, len(test) // _N_CHECKED_ROWS)
    own = evaluating.evaluate(task_type, test, outputs, calibration=facts.calibration)
    started = time.perf_counter()
    of_checkpoint = _of_checkpoint(work, trained, adapters_, test[::step])
    slow_rate = len(test[::step]) / (time.perf_counter() - started)
    own["agreement"] = agreement.agreement(task_type, outputs[::step], of_checkpoint, facts.calibration)
    own["membership"] = _membership(work, answer, outputs)
    own["rows_per_s"] = {"exported": round(rate, 1), "checkpoint": round(slow_rate, 1)}
    read = facts.calibration
    compared = comparison.compare(task_type, test, shared_outputs, outputs, calibration_a=read, calibration_b=read)
    before = evaluating.evaluate(task_type, test, shared_outputs, calibration=facts.calibration)
    metric = task_type.main_metric
    told = {
        name: {"test": {**part, "shared": before["channels"][name][metric], "own": own["channels"][name][metric]}}
        for name, part in compared["channels"].items()
    }
    work.report("evaluate", 2, 2, on="done")
    kept = {one.channel for one in adapters_ if one.is_kept}
    return {"version": own, "shared": before | {"comparison": compared}}, {n: told[n] for n in kept & told.keys()}


def _membership(work: _Work, answer: Answerer, outputs: Outputs) -> dict[str, Any] | None:
    """Whether a training row can be told from a held-out one by what its channel is answered."""
    if not membership.applies(work.task_type):
        return None
    members, test = membership.sample(work.side("train")), work.side("test")
    of_members = answer([row.input for row in members], [row.channel for row in members])
    places = membership.sample(range(len(test)))
    return membership.measure(work.task_type, members, of_members, [test[i] for i in places], outputs[places])


def _of_checkpoint(
    work: _Work, trained: _Trained, adapters_: Sequence[Adapter], rows: Sequence[SnapshotRow]
) -> Outputs:
    """What the checkpoint says with the adapters that the version has."""
    kept = [one for one in adapters_ if one.artifact is not None]
    own = {one.channel: low_rank.read(work.ws.artifacts.get(str(one.artifact))) for one in kept}
    return replace(trained, own=own).answers(rows, [one.channel for one in kept])


def _register(
    work: _Work,
    artifact: str,
    adapters_: Sequence[Adapter],
    evaluations: Mapping[str, dict[str, Any]],
    facts: dict[str, Any],
) -> ModelVersion:
    """Version, adapters, evaluations and the end of the run in one transaction."""
    ws, run = work.ws, work.run
    with ws.store.write() as conn:
        version = making.next_version(ws, conn, run, checkpoint=work.shared.checkpoint, artifact=artifact)
        done = {"state": "done", "checkpoint": version.checkpoint, "facts": facts, "finished_at": ws.clock()}
        runs.change(conn, run.id, **done)
        signing.sign(ws, conn, version, {one.channel: one.artifact for one in adapters_ if one.artifact is not None})
        versions.add(conn, version, config_hash=ws.config_hash)
        adapters.add(conn, version.id, adapters_)
        for predictor, results in evaluations.items():
            evaluation = making.evaluation_of(ws, run.task, version.id, predictor, run.snapshot_id, results)
            versions.add_evaluation(conn, evaluation, config_hash=ws.config_hash)
    return version


def answers_of(
    ws: Workspace, version: ModelVersion, inputs: Sequence[Input], channels: Sequence[str | None]
) -> tuple[Outputs, ArtifactFacts]:
    """What a version says, each input by the adapter of its channel where it has one; and how to read it."""
    answer, facts = answerer(ws, version, channels)
    return answer(inputs, channels), facts


def answerer(ws: Workspace, version: ModelVersion, channels: Sequence[str | None]) -> tuple[Answerer, ArtifactFacts]:
    """A version that is loaded, with its adapters of `channels`, to be asked as often as one likes."""
    predictor, facts = load_artifact(signing.folder_of(ws, version, version.artifact))
    return _by_channel(partial(signing.folder_of, ws, version), predictor, _adapters(ws, version), channels), facts


def _by_channel(
    folder_of: Callable[[str, str], Path], predictor: Any, known: Sequence[Adapter], channels: Sequence[str | None]
) -> Answerer:
    kept = {one.channel: one.artifact for one in known if one.artifact is not None and one.channel in set(channels)}
    own = {name: predictor.adapter(predictor.add_adapter(folder_of(one, name))) for name, one in kept.items()}

    def answer(inputs: Sequence[Input], of_channels: Sequence[str | None]) -> Outputs:
        more = [[own.get(channel or "") for channel in of_channels]] if own else []
        outputs: Outputs = predictor.logits(inputs, *more)
        return outputs

    return answer


def has_adapters(ws: Workspace, version: ModelVersion) -> bool:
    """Whether a version was made with channel adapters, kept or not."""
    return bool(_adapters(ws, version))


def _adapters(ws: Workspace, version: ModelVersion) -> list[Adapter]:
    with ws.store.read() as conn:
        return adapters.of_version(conn, version.id)


def export_adapter(
    ws: Workspace, version: str, channel: str, destination: Path | str, *, task: str | None = None
) -> dict[str, Any]:
    """Write a channel's adapter to an empty or new folder, as peft loads it onto the exported shared model.

    Raises:
        NotFound: no such version, or the channel has no adapter in it; the message says why.
    """
    found = controls.find_version(ws, task, version)
    known = {one.channel: one for one in _adapters(ws, found)}
    own = known.get(channel)
    if own is None or own.artifact is None:
        kept = [one.channel for one in known.values() if one.is_kept]
        why = f", since {own.evidence['reason']}" if own is not None else ""
        raise NotFound(
            f"the channel answers by the shared model of {found.name}{why}",
            value=channel,
            next_step=f"Adapters of its own have: {', '.join(kept)}" if kept else "Export the version itself",
        )
    export_to(ws, own.artifact, Path(destination), {"README.md": _readme(found, own)})
    with ws.store.read() as conn:
        artifact = runs.find_artifact(conn, own.artifact)
    assert artifact is not None
    return {
        "version": found.name,
        "backend": "peft",
        "precision": "fp32",
        "channel": channel,
        "artifact": own.artifact,
        "adapter": own.weights,
        "n_bytes": artifact.n_bytes,
        "destination": str(destination),
    }


def _readme(version: ModelVersion, own: Adapter) -> str:
    return (
        f"# Adapter of channel {own.channel} for {version.name}\n\n"
        f"Weights {own.weights}. Kept since, on held-out rows: {own.evidence['reason']}.\n\n"
        f"Write the shared model beside it with `headrace export {version.name} shared`, then:\n\n"
        "```python\n"
        "from peft import PeftModel\n"
        "from transformers import AutoModelForSequenceClassification\n\n"
        'shared = AutoModelForSequenceClassification.from_pretrained("shared")\n'
        'model = PeftModel.from_pretrained(shared, "this folder")\n'
        "```\n"
    )


def _part(name: str) -> Any:
    """A part of what needs torch, imported when it is asked for."""
    return resolve(f"headrace.finetune.channel_adapters:{name}", purpose="training")

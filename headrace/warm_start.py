"""Warm start: a run that goes on from a version's weights in place of the base model's (finetune.start).

What a version has learnt is what it was trained on, and all that it stands on: its own start, its teacher, and theirs.
"""

from collections.abc import Sequence
from pathlib import Path

from headrace.ancestry import Line, with_ancestors
from headrace.config import FinetuneTable, TaskTable
from headrace.data import snapshot
from headrace.errors import BadConfig, BadInput, WrongState
from headrace.finetune import base_models
from headrace.finetune.methods import METHODS, Method, form_of
from headrace.finetune.rehearsal import held_out, new_rows, rehearsed
from headrace.records import ModelVersion, Run, Snapshot, SnapshotRow
from headrace.release import controls
from headrace.store import lineage, runs
from headrace.tasks import TaskType
from headrace.workspace import Workspace

CONTROL = "control"
"""Names the version in charge when the run is planned."""
_WITHOUT = "Start from the base model: --set finetune.start="


def version_of(ws: Workspace, task: str, name: str) -> ModelVersion:
    """The version that `finetune.start` names: by one of its names, or `control`.

    Raises:
        NotFound: there is none of that name.
        WrongState: none is in charge yet.
    """
    if name != CONTROL:
        return controls.find_version(ws, task, name)
    try:
        return controls.serving(ws, task).control
    except WrongState:
        raise WrongState(
            "no version of the task is in charge yet, to start from",
            value=f"finetune.start = {name}",
            next_step="Make the first from the base model: headrace train --set finetune.start=",
        ) from None


def able() -> list[str]:
    """Names of the methods that can go on from a version's weights, head and all."""
    return [name for name in METHODS.names() if _can(METHODS.get(name))]


def _can(method: Method) -> bool:
    return method.starts_warm and method.trains and method.first is None


def check(ws: Workspace, task: TaskTable, task_type: TaskType, finetune: FinetuneTable, task_name: str) -> None:
    """Refuse a start that no run of the task can have, as far as settings and the version itself tell.

    Raises:
        BadConfig: a share of rows to rehearse, and no start; a method that cannot go on from a version.
        BadInput: the version has other outputs, another base model, or no weights that the method could go on from.
        NotFound, WrongState: as `version_of`.
    """
    if not finetune.start:
        _check_share(finetune)
        return
    method = METHODS.get(finetune.method)
    if not _can(method):
        raise BadConfig(
            f"method {finetune.method} cannot go on from a version's weights",
            value=f"finetune.start = {finetune.start}",
            next_step=f"{_WITHOUT}, or choose one of: {', '.join(able())}",
        )
    version = version_of(ws, task_name, finetune.start)
    made = _run(ws, _origin(ws, version.task, version.checkpoint)["id"])
    _check_same(task, task_type, TaskTable.model_validate(made.params["task"]), version)
    if base_models.find(task.base_model).digest != made.base_digest:
        raise BadInput(
            "the version that is the start stands on another base model",
            value=f"{version.name} on {made.base_model}",
            next_step=_WITHOUT,
        )
    _check_form(ws, version, form_of(method, task_type))


def _check_share(finetune: FinetuneTable) -> None:
    share = finetune.sampling.replay_share
    if share != 1:
        raise BadConfig(
            "finetune.sampling.replay_share leaves out what a start has learnt, and finetune.start names none",
            value=share,
            next_step="Set finetune.start to a version of this task, or to control, or remove the share",
        )


def _check_same(task: TaskTable, task_type: TaskType, then: TaskTable, version: ModelVersion) -> None:
    has_head = task_type.problem != "retrieval"  # there the catalogue stands in its place
    if task.type != then.type or (has_head and task.labels != then.labels):
        raise BadInput(
            "the version that is the start has other outputs than the task",
            value=f"{version.name}: {then.type} {list(then.labels)}",
            next_step=_WITHOUT,
        )


def plain_weights(ws: Workspace, version: ModelVersion, *, next_step: str) -> Path:
    """The folder of a version's weights, where they are those of a whole model.

    Raises:
        BadInput: they are of parts that cannot be merged into their base model.
    """
    folder = ws.artifacts.get(version.checkpoint)
    if (folder / "adapter_config.json").exists():
        raise BadInput(
            "the version that is the start has parts that cannot be merged into its base model",
            value=version.name,
            next_step=next_step,
        )
    return folder


def from_base(finetune: FinetuneTable) -> FinetuneTable:
    """The settings of a run that begins anew: without a start, and so without a share of rows to rehearse."""
    sampling = finetune.sampling.model_copy(update={"replay_share": 1.0})
    return finetune.model_copy(update={"start": "", "sampling": sampling})


def _check_form(ws: Workspace, version: ModelVersion, wanted: str) -> None:
    other = f"{_WITHOUT}, or start from a version of another method, such as full or lora"
    folder = plain_weights(ws, version, next_step=other)
    form = "embedding" if (folder / "modules.json").exists() else "head"
    if form != wanted:
        raise BadInput(
            "the version that is the start has another head than the method trains",
            value=version.name,
            next_step=f"{_WITHOUT}, or set finetune.method = {'head' if form == 'embedding' else 'full'}",
        )


def check_rows(ws: Workspace, frozen: Snapshot, finetune: FinetuneTable, version: ModelVersion) -> None:
    """Refuse a start that has learnt what the run is measured by, or all that there is.

    Raises:
        BadInput: rows of the test or validation side were learnt; no row is new, and not all train again.
        WrongState: what was learnt cannot be told any more, since some of it was erased.
    """
    rows = snapshot.rows(ws, frozen)
    known: dict[str, SnapshotRow] = {}
    for run in _stands_on(ws, version):
        known |= {row.example_id: row for row in held_out(rows, _trained_on(ws, run, version.name))}
    if known:
        raise BadInput(
            "the version that is the start, or one that it stands on, was trained on rows that are held out now",
            value=f"{version.name}: {len(known)} rows of the test or validation side",
            next_step=_WITHOUT,
        )
    if finetune.sampling.replay_share != 1 and not new_rows(rows, _learnt(ws, version.task, version.checkpoint)):
        raise BadInput(
            "no row is new to the version that is the start, so there is nothing to learn",
            value=version.name,
            next_step="Import or label more rows, or set finetune.sampling.replay_share = 1",
        )


def rows_of(ws: Workspace, run: Run, rows: Sequence[SnapshotRow]) -> list[SnapshotRow]:
    """Those of a run's rows that it uses: with a start, what is new to it and a share of what it has learnt."""
    start, share = run.params.get("material", {}).get("start"), run.params["finetune"]["sampling"]["replay_share"]
    if start is None or share == 1:
        return list(rows)
    return rehearsed(rows, _learnt(ws, run.task, start), share=share, seed=run.seed)


def _learnt(ws: Workspace, task: str, checkpoint: str) -> list[SnapshotRow]:
    """What a checkpoint's own run was trained on."""
    return _trained_on(ws, _origin(ws, task, checkpoint), checkpoint)


def _trained_on(ws: Workspace, run: Line, name: str) -> list[SnapshotRow]:
    frozen = snapshot.find(ws, run["snapshot_id"])
    if frozen.erased_at is not None:
        raise WrongState(
            "the version that is the start, or one that it stands on, used rows of which some were erased",
            value=name,
            next_step=f"{_WITHOUT}, or start from a version that was made since",
        )
    return [row for row in snapshot.rows(ws, frozen, "train") if row.weight > 0]


def _origin(ws: Workspace, task: str, checkpoint: str) -> Line:
    """The run that made a checkpoint; one that put adapters beside it did not."""
    with ws.store.read() as conn:
        known = lineage.runs(conn)
    made = (one for one in known if one["checkpoint"] == checkpoint and one["task"] == task)
    return next(one for one in made if "per_channel" not in one["params"])


def _stands_on(ws: Workspace, version: ModelVersion) -> list[Line]:
    """The run that made a version's weights, and all whose models these stand on or learnt from."""
    with ws.store.read() as conn:
        known, versions = lineage.runs(conn), lineage.versions(conn)
    ids = with_ancestors([_origin(ws, version.task, version.checkpoint)["id"]], known, versions)
    return [one for one in known if one["id"] in ids and "per_channel" not in one["params"]]


def _run(ws: Workspace, run_id: str) -> Run:
    with ws.store.read() as conn:
        found = runs.find(conn, run_id)
    assert found is not None
    return found

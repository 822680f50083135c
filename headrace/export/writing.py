"""Export a checkpoint: write it in a format, load it back, calibrate it, put it into the artifact store."""

import errno
import inspect
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock

from headrace import signing
from headrace.artifacts import MANIFEST
from headrace.config import TaskTable
from headrace.errors import AlreadyExists, BadInput, Unusable, nearest
from headrace.export.artifact import ArtifactFacts, Backend, load, write_facts
from headrace.export.backends import BACKENDS
from headrace.records import Artifact, Input, SnapshotRow
from headrace.store import runs
from headrace.tasks import TASK_TYPES, TaskType
from headrace.workspace import Workspace


def export(
    ws: Workspace,
    checkpoint: str,
    *,
    task: TaskTable,
    backend: str,
    precision: str,
    calibration: Sequence[Input],
    validation: Sequence[SnapshotRow],
    bank: Mapping[str, Any] | None = None,
) -> Artifact:
    """Write checkpoint `checkpoint` (a digest) in a format; a kill in the middle leaves no artifact.

    Args:
        calibration: inputs of the training side, for int8.
        validation: rows that temperature, thresholds and the like are fitted on.
        bank: `targets` and `rank` of channel adapters to leave room for.

    Raises:
        NotFound: no such checkpoint or backend.
        BadInput: the backend does not write this precision, or the checkpoint does not fit the task.
        MissingExtra: the libraries for writing are not installed.
    """
    format_ = check_format(backend, precision, with_bank=bool(bank))
    room = {"bank": bank} if bank else {}
    source = ws.artifacts.get(checkpoint)
    folder = ws.artifacts.new_folder()
    try:
        given: dict[str, Any] = {"task": task, "precision": precision, "calibration": calibration, **room}
        facts: ArtifactFacts = format_.write(source, folder, **given)
        write_facts(folder, facts)
        fitted = _calibration(folder, facts.task, validation)
        facts = facts.model_copy(update={"calibration": {**facts.calibration, **fitted}})
        write_facts(folder, facts)
        digest, n_bytes = ws.artifacts.put(folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    artifact = Artifact(digest=digest, kind=backend, n_bytes=n_bytes, facts=facts.model_dump(mode="json"))
    with ws.store.write() as conn:
        runs.add_artifact(conn, artifact, ws.clock())
    return artifact


def check_format(backend: str, precision: str, *, with_bank: bool = False) -> type[Backend]:
    """The backend, which is known and writes this precision.

    Args:
        with_bank: ask also for room for channel adapters.

    Raises:
        NotFound: no such backend.
        BadInput: it does not write this precision, or leaves no room for channel adapters.
        MissingExtra: its libraries are not installed.
    """
    format_: type[Backend] = BACKENDS.get(backend)
    if precision not in format_.precisions:
        raise BadInput(
            f"backend {backend!r} does not write this precision",
            value=precision,
            next_step=nearest(precision, list(format_.precisions)),
        )
    if with_bank and "bank" not in inspect.signature(format_.write).parameters:
        raise BadInput(
            "the backend has no room for channel adapters", value=backend, next_step="Set export.backend to openvino"
        )
    return format_


def check_destination(destination: Path) -> None:
    """Check that nothing is where a directory is to be written.

    Raises:
        AlreadyExists: something is there, and it is no empty directory.
    """
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise AlreadyExists(
            "the destination is not an empty directory",
            value=str(destination.absolute()),
            next_step="Choose another one",
        )


def _calibration(folder: Path, task: TaskTable, validation: Sequence[SnapshotRow]) -> dict[str, Any]:
    """Fitted on the artifact as it will serve; loading it back is also the proof that it can be loaded."""
    predictor, _ = load(folder)
    if not validation:
        return {}
    task_type: TaskType = TASK_TYPES.get(task.type)(task)
    return task_type.calibrate([row.target for row in validation], predictor.logits([row.input for row in validation]))


def export_to(ws: Workspace, digest: str, destination: Path, files: Mapping[str, str] | None = None) -> Path:
    """Copy an artifact to a directory of the user's, signed if there is a key to; it appears whole or not at all.

    Args:
        files: name to text of what goes beside it, such as a model card; stronger than the artifact's own.

    Raises:
        NotFound: no such artifact.
        AlreadyExists: the directory is there and not empty.
        Unusable: it cannot be written.
    """
    source = ws.artifacts.get(digest)
    destination = Path(destination).absolute()
    unfinished = destination.parent / f".{destination.name}.headrace-unfinished"
    with FileLock(ws.state_folder / "export.lock"):  # one at a time, so what is there unfinished is a dead one's
        _copy(source, destination, unfinished, files or {}, seal=partial(signing.sign_folder, ws))
    return destination


def _copy(
    source: Path, destination: Path, unfinished: Path, files: Mapping[str, str], *, seal: Callable[[Path, str], None]
) -> None:
    try:
        check_destination(destination)
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(source, unfinished, ignore=shutil.ignore_patterns(MANIFEST))
        for name, text in files.items():
            (unfinished / name).write_text(text, "utf-8")
        seal(unfinished, destination.name)
        os.replace(unfinished, destination)
    except (OSError, shutil.Error) as error:
        raise _unusable(error, destination) from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _unusable(error: Exception, destination: Path) -> Unusable:
    number = error.errno if isinstance(error, OSError) else None
    reason = os.strerror(number) if number else str(error)
    if number == errno.ENOTEMPTY:
        reason = "something was written there meanwhile"
    return Unusable(
        f"the directory cannot be written: {reason}", value=str(destination), next_step="Choose another one"
    )

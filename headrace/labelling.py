"""Labels to and from files: what waits for one goes out, for people to label elsewhere, and comes back with labels.

Every row carries `headrace_id`, the id of the review or of the example that it is about, and its label finds the way
back by that alone. Written are Label Studio's tasks with pre-labels, CSV and JSON lines; read is whatever the sources
of rows read. In CSV, a cell that a spreadsheet would take for a formula is written with a quote before it.
"""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace import cells
from headrace.auditing import note
from headrace.data import label_studio, snapshot
from headrace.data.sources import Options, open_source
from headrace.errors import BadInput, Unusable, UserError, WrongState
from headrace.feedback import auditing, reviews
from headrace.feedback.naming import check_number
from headrace.records import Input, RawRow
from headrace.store.channels import check_channel
from headrace.store.reviews import Review
from headrace.tasks import TASK_TYPES, TaskType
from headrace.workspace import Workspace

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

ID = "headrace_id"
FORMATS = {"label-studio": ".json", "csv": ".csv", "jsonl": ".jsonl"}
_ALL = 1_000_000
_AT_ONCE = 200  # rows of a transaction, so that a server's writes find gaps


@dataclass(frozen=True)
class Exported:
    n_rows: int
    format: str


@dataclass(frozen=True)
class Refused:
    """A row whose label was not taken."""

    line: int
    id: str
    problem: str


@dataclass(frozen=True)
class Imported:
    n_rows: int
    n_labels: int
    """Labels that said something new."""
    n_unlabelled: int
    refused: tuple[Refused, ...]


@dataclass(frozen=True)
class _Row:
    """One row on its way out."""

    id: str
    channel: str
    input: Input
    prelabel: Any = None
    """What a model answered, as a target."""
    confidence: float | None = None
    label: Any = None
    """What is known already, as a target."""


def export_labels(
    ws: Workspace,
    file: Path | str,
    *,
    format: str | None = None,
    task: str | None = None,
    channel: str | None = None,
    labeller: str | None = None,
    labelled: bool = False,
    prelabels: bool = True,
    n: int | None = None,
) -> Exported:
    """Write open reviews, or the labelled rows of the newest snapshot, to a file.

    Args:
        format: label-studio, csv or jsonl; None: by the file's name.
        labeller: for whom the reviews are: known questions are mixed in as this labeller is due to be asked. None: for
            who runs the workspace, without any.
        labelled: rows with labels instead, whichever side they are on.
        prelabels: whether the model's answers go with reviews. Those of audits and of drawn disagreements never do,
            since they are to be judged without it.
        n: at most so many rows.

    Raises:
        BadInput: the format is not clear from the name, or fewer than one row.
        NotFound: no such task or channel.
        WrongState: there is no snapshot yet.
        Unusable: the file cannot be written.
    """
    path, task = Path(file), ws.task_name(task)
    check_number("n", n)
    with ws.store.read() as conn:
        check_channel(conn, channel)
    format = format or _format_of(path)
    if format not in FORMATS:
        raise BadInput("no such format of labels", value=format, next_step=f"Known: {', '.join(FORMATS)}")
    task_type = _task_type(ws, task)
    if labelled:
        rows = _labelled(ws, task, channel)
    else:
        waiting = reviews.next_of(ws, task, labeller=labeller, channel=channel, n=n or _ALL)
        rows = (_waiting(task_type, review, prelabels=prelabels) for review in waiting)
    chosen = list(islice(rows, n))
    write = {"label-studio": _write_tasks, "csv": _write_csv, "jsonl": _write_jsonl}[format]
    try:
        write(path, chosen, task_type)
    except OSError as error:
        raise Unusable(f"the file cannot be written: {error.strerror}", value=str(path), next_step="Check it") from None
    return Exported(len(chosen), format)


def import_labels(
    ws: Workspace,
    file: Path | str,
    *,
    format: str | None = None,
    task: str | None = None,
    labeller: str | None = None,
    label: str = "label",
) -> Imported:
    """Take the labels of a file that `export_labels` wrote; once more changes nothing.

    Args:
        labeller: whose labels they are, where a row does not say: they count as much as this labeller does. None: of
            who runs the workspace; they count as if they had been imported.
        label: column, or Label Studio's control, with the label.

    Raises:
        BadInput, NotFound: the file cannot be read as a whole.
    """
    task = ws.task_name(task)
    fields = _task_type(ws, task).fields
    pair = fields[1] if len(fields) > 1 else ""
    options = Options(
        text=fields[0], pair=pair, label=label, id=ID, group="", max_chars=ws.settings.data.max_chars,
        takes_turns=ws.task(task).input == "turns",
    )  # fmt: skip
    source = open_source(str(file), format=format)
    rows = source.read(str(file), options)
    n_rows = n_labels = n_unlabelled = 0
    refused: list[Refused] = []
    while some := list(islice(rows, _AT_ONCE)):
        n_rows += len(some)
        n_before = n_labels
        with ws.store.write() as conn:
            for row in some:
                given = list(_given(row, labeller))
                n_unlabelled += not given and row.error is None
                if row.error is not None:
                    refused.append(Refused(row.line, cells.plain(row.key or ""), row.detail or row.error))
                for who, said in given:
                    problem, is_new = _taken(ws, conn, task, row, said, who)
                    n_labels += is_new
                    refused += [] if problem is None else [Refused(row.line, cells.plain(row.key or ""), problem)]
            if n_labels > n_before:
                note(ws, conn, "label.import", task, facts={"n_rows": len(some), "n_labels": n_labels - n_before})
    return Imported(n_rows, n_labels, n_unlabelled, tuple(refused))


def labelling_config(ws: Workspace, task: str | None = None) -> str:
    """A labelling config of Label Studio that fits a task."""
    return label_studio.config_for(_task_type(ws, ws.task_name(task)))


def _taken(
    ws: Workspace, conn: "Connection", task: str, row: RawRow, said: Any, labeller: str | None
) -> tuple[str | None, bool]:
    """What is wrong with a label, if anything, and whether it said something new."""
    if row.key is None:
        return f"no {ID}", False
    try:
        with conn.begin_nested():
            return None, reviews.take(ws, conn, task, cells.plain(row.key), said, labeller)
    except UserError as error:
        return str(error), False


def _given(row: RawRow, labeller: str | None) -> Iterator[tuple[str | None, Any]]:
    """Who labelled a row, and what they said."""
    own = cells.plain(row.label) if isinstance(row.label, str) else row.label
    if own is not None and own != "":
        yield labeller, own
    for one in row.labels:
        yield labeller if one.labeller == label_studio.NOBODY else one.labeller, one.label


def _task_type(ws: Workspace, task: str) -> TaskType:
    found: TaskType = TASK_TYPES.get(ws.task(task).type)(ws.task(task))
    return found


def _format_of(path: Path) -> str:
    found = next((name for name, suffix in FORMATS.items() if path.suffix.lower() == suffix), None)
    if found is None:
        known = ", ".join(FORMATS)
        raise BadInput("the format is not clear from the name", value=str(path), next_step=f"Give --format: {known}")
    return found


def _waiting(task_type: TaskType, review: Review, *, prelabels: bool) -> _Row:
    assert review.input is not None, "what waits has its text"
    if review.output is None or review.is_blind or not prelabels:
        return _Row(review.id, review.channel, review.input)
    confidence = auditing.confidence_of(review.output)
    return _Row(review.id, review.channel, review.input, task_type.answer_of(review.output), confidence)


def _labelled(ws: Workspace, task: str, channel: str | None) -> Iterator[_Row]:
    newest = snapshot.latest(ws, task)
    if newest is None:
        raise WrongState("there is no snapshot of labelled rows yet", value=task, next_step="Run: headrace snapshot")
    for row in snapshot.rows(ws, newest):
        if channel in (None, row.channel):
            yield _Row(row.example_id, row.channel, row.input, label=row.target)


def _parts(row: _Row, task_type: TaskType) -> dict[str, str]:
    parts = (row.input,) if isinstance(row.input, str) else row.input
    return dict(zip(task_type.fields, parts, strict=True))


def _write_tasks(path: Path, rows: Sequence[_Row], task_type: TaskType) -> None:
    config = label_studio.read_config(label_studio.config_for(task_type))
    control = label_studio.control_for(config, task_type)
    tasks = [_task(row, task_type, control) for row in rows]
    path.write_text(json.dumps(tasks, ensure_ascii=False, indent=1), "utf-8")


def _task(row: _Row, task_type: TaskType, control: label_studio.Control) -> dict[str, Any]:
    parts = _parts(row, task_type)
    text = parts[control.to_name]
    task: dict[str, Any] = {"data": {**parts, ID: row.id, "channel": row.channel}, "annotations": [], "predictions": []}
    if row.prelabel is not None:
        results = label_studio.results_of(row.prelabel, control, text, result_id=row.id)
        task["predictions"] = [{"model_version": "headrace", "score": row.confidence, "result": results}]
    if row.label is not None:
        task["annotations"] = [{"result": label_studio.results_of(row.label, control, text, result_id=row.id)}]
    return task


def _write_csv(path: Path, rows: Sequence[_Row], task_type: TaskType) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([ID, "channel", *task_type.fields, "label", "prelabel"])
        for row in rows:
            said = [row.id, row.channel, *_parts(row, task_type).values(), _cell(row.label), _cell(row.prelabel)]
            writer.writerow([cells.safe(cell) for cell in said])


def _write_jsonl(path: Path, rows: Sequence[_Row], task_type: TaskType) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            line: Mapping[str, Any] = {
                ID: row.id,
                "channel": row.channel,
                **_parts(row, task_type),
                "label": row.label,
                "prelabel": row.prelabel,
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _cell(target: Any) -> str:
    """A target as text that its task type reads."""
    if target is None or isinstance(target, str):
        return target or ""
    return json.dumps(target, ensure_ascii=False)

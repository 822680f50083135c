"""From one row back to where it came from, and forward to everything that used it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headrace import retention
from headrace.ancestry import name_of
from headrace.errors import NotFound
from headrace.ids import PREFIXES
from headrace.lineage import affected
from headrace.store import lineage
from headrace.workspace import Workspace

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

Line = dict[str, Any]
_KEPT_BACK = ("config_hash", "code_version", "params", "history", "facts")
"""Columns that say nothing of where a row came from."""


@dataclass(frozen=True)
class Trace:
    """What is known of one row: where it came from, and what used it. Entries are JSON, ids and names in them."""

    id: str
    kind: str
    """example, label, feedback, prediction, snapshot, run or version."""
    row: Line
    """The row itself."""
    channel: str | None = None
    examples: list[Line] = field(default_factory=list)
    """The inputs that are trained on, with the import that they came with."""
    predictions: list[Line] = field(default_factory=list)
    """Answers that were given to the input."""
    feedback: list[Line] = field(default_factory=list)
    """What was said of those answers, and by whom."""
    labels: list[Line] = field(default_factory=list)
    reviews: list[Line] = field(default_factory=list)
    snapshots: list[Line] = field(default_factory=list)
    """With the row's side, target, weight and origin, where it is one example."""
    runs: list[Line] = field(default_factory=list)
    versions: list[Line] = field(default_factory=list)
    adapters: list[Line] = field(default_factory=list)
    releases: list[Line] = field(default_factory=list)


def trace(ws: Workspace, row_id: str) -> Trace:
    """Trace an example, label, feedback, prediction, snapshot, run or version, by its id.

    Raises:
        NotFound: no such row, or an id of another kind.
        MissingExtra: there are snapshots and pyarrow is not installed.
    """
    ways: dict[str, Callable[[Workspace, str], Trace | None]] = {
        PREFIXES["example"]: _example,
        PREFIXES["label"]: _label,
        PREFIXES["feedback"]: _feedback,
        PREFIXES["prediction"]: _prediction,
        PREFIXES["snapshot"]: _snapshot,
        PREFIXES["run"]: _run,
        PREFIXES["version"]: _version,
    }
    way = ways.get(str(row_id).partition("_")[0])
    if way is None:
        begin = ", ".join(f"{prefix}_" for prefix in ways)
        raise NotFound("rows that can be traced have other ids", value=row_id, next_step=f"They begin with {begin}")
    found = way(ws, row_id)
    if found is None:
        raise NotFound(
            "no such row", value=row_id, next_step="Check the id; what was erased, or deleted with old logs, is gone"
        )
    return found


def _example(ws: Workspace, example_id: str) -> Trace | None:
    with ws.store.read() as conn:
        row = lineage.example(conn, example_id)
    return None if row is None else _of_example(ws, "example", example_id, row, row)


def _of_example(ws: Workspace, kind: str, row_id: str, row: Line, example: Line) -> Trace:
    """The trace of a row whose input is one example."""
    with ws.store.read() as conn:
        labels = lineage.labels(conn, [example["id"]])
        said = [one for i in _ids(labels, "feedback_id") if (one := lineage.one_feedback(conn, i))]
        asked = _of_inputs(conn, [*_ids([example], "prediction_id"), *_ids(said, "prediction_id")])
        prediction_ids = [one["id"] for one in asked]
        said = lineage.feedback(conn, prediction_ids)
        reviews = lineage.reviews(conn, [example["id"]], prediction_ids)
    missing = set(_ids([example], "prediction_id")) - set(prediction_ids)
    asked += [one for i in sorted(missing) if (one := _moved(ws, i))]
    return Trace(
        id=row_id,
        kind=kind,
        row=_plain(row),
        channel=example["channel"],
        examples=_all_plain([example]),
        predictions=_all_plain(asked),
        feedback=_all_plain(said),
        labels=_all_plain(labels),
        reviews=_all_plain(reviews),
        **_used_by(ws, example["channel"], [example["id"]]),
    )


def _label(ws: Workspace, label_id: str) -> Trace | None:
    with ws.store.read() as conn:
        row = lineage.label(conn, label_id)
        example = None if row is None else lineage.example(conn, row["example_id"])
    return None if row is None or example is None else _of_example(ws, "label", label_id, row, example)


def _feedback(ws: Workspace, feedback_id: str) -> Trace | None:
    with ws.store.read() as conn:
        row = lineage.one_feedback(conn, feedback_id)
        asked = None if row is None else lineage.prediction(conn, row["prediction_id"])
    return None if row is None or asked is None else _of_prediction(ws, "feedback", feedback_id, row, asked)


def _prediction(ws: Workspace, prediction_id: str) -> Trace | None:
    with ws.store.read() as conn:
        row = lineage.prediction(conn, prediction_id)
    row = row or _moved(ws, prediction_id)
    return None if row is None else _of_prediction(ws, "prediction", prediction_id, row, row)


def _of_prediction(ws: Workspace, kind: str, row_id: str, row: Line, asked: Line) -> Trace:
    """The trace of a row about one answer; forward through the examples that came of it, which are those it labels."""
    with ws.store.read() as conn:
        arms = lineage.predictions_of_input(conn, asked["request_id"], asked["row"]) or [asked]
        said = lineage.feedback(conn, [one["id"] for one in arms])
        said_ids = {one["id"] for one in said}
        like = lineage.like(conn, asked["channel_id"], [asked["text_hash"]])
        labels = [one for one in lineage.labels(conn, like) if one["feedback_id"] in said_ids]
        of_labels = {one["example_id"] for one in labels}
        arm_ids = [one["id"] for one in arms]
        examples = [one for i in like if (one := lineage.example(conn, i)) and _came_of(one, of_labels, arm_ids)]
        reviews = lineage.reviews(conn, [one["id"] for one in examples], arm_ids)
        answered_by = next((v for v in lineage.versions(conn) if v["id"] == asked["version_id"]), None)
    used = _used_by(ws, asked["channel"], [one["id"] for one in examples])
    shown = _plain(row) | ({} if answered_by is None else {"version": name_of(answered_by)})
    return Trace(
        id=row_id,
        kind=kind,
        row=shown,
        channel=asked["channel"],
        examples=_all_plain(examples),
        predictions=_all_plain(arms),
        feedback=_all_plain(said),
        labels=_all_plain(labels),
        reviews=_all_plain(reviews),
        **used,
    )


def _came_of(example: Line, labelled: set[str], prediction_ids: Sequence[str]) -> bool:
    return example["id"] in labelled or example["prediction_id"] in prediction_ids


def _snapshot(ws: Workspace, snapshot_id: str) -> Trace | None:
    with ws.store.read() as conn:
        row = next((one for one in lineage.snapshots(conn) if one["id"] == snapshot_id), None)
    if row is None:
        return None
    most = {channel: {"train": n, "validation": n, "test": n} for channel, n in row["n_by_channel"].items()}
    found = vars(affected.used(ws, [affected.Held(row, most)], None)) | {"snapshots": []}
    return Trace(id=snapshot_id, kind="snapshot", row=_plain(row), **found)


def _run(ws: Workspace, run_id: str) -> Trace | None:
    with ws.store.read() as conn:
        row = next((one for one in lineage.runs(conn) if one["id"] == run_id), None)
    if row is None:
        return None
    read = _trace_of(ws, row["snapshot_id"])
    made = [one for one in read.versions if one["run_id"] == run_id]
    return Trace(id=run_id, kind="run", row=_plain(row), snapshots=[read.row], **_of_versions(read, made))


def _version(ws: Workspace, version_id: str) -> Trace | None:
    with ws.store.read() as conn:
        row = next((one for one in lineage.versions(conn) if one["id"] == version_id), None)
    if row is None:
        return None
    read = _trace_of(ws, row["snapshot_id"])
    made = [one for one in read.versions if one["id"] == version_id]
    runs = [one for one in read.runs if one["id"] == row["run_id"]]
    shown = _plain(row) | {"name": name_of(row)}
    return Trace(id=version_id, kind="version", row=shown, snapshots=[read.row], runs=runs, **_of_versions(read, made))


def _trace_of(ws: Workspace, snapshot_id: str) -> Trace:
    found = _snapshot(ws, snapshot_id)
    assert found is not None  # a run refers to it
    return found


def _of_versions(read: Trace, made: Sequence[Line]) -> dict[str, Any]:
    ids, names = {one["id"] for one in made}, {one["name"] for one in made}
    return {
        "versions": list(made),
        "adapters": [one for one in read.adapters if one["version_id"] in ids],
        "releases": [one for one in read.releases if names & set(one["versions"])],
    }


def _used_by(ws: Workspace, channel: str, example_ids: Sequence[str]) -> dict[str, Any]:
    return vars(affected.of_examples(ws, channel, example_ids))


def _of_inputs(conn: "Connection", prediction_ids: Sequence[str]) -> list[Line]:
    """Predictions with the other arms' answers to the same inputs, each once."""
    found: dict[str, Line] = {}
    for prediction_id in dict.fromkeys(prediction_ids):
        one = lineage.prediction(conn, prediction_id)
        if one is not None:
            found |= {same["id"]: same for same in lineage.predictions_of_input(conn, one["request_id"], one["row"])}
    return list(found.values())


def _moved(ws: Workspace, prediction_id: str) -> Line | None:
    """A prediction that has left the store for a file."""
    return retention.find(ws, prediction_id)


def _ids(lines: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    return [one[name] for one in lines if one[name] is not None]


def _plain(row: Mapping[str, Any]) -> Line:
    return {name: value for name, value in row.items() if name not in _KEPT_BACK}


def _all_plain(rows: Sequence[Mapping[str, Any]]) -> list[Line]:
    return [_plain(row) for row in rows]

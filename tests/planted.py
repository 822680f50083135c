"""Rows put straight into a store, for tests of parts that read what other parts write."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import insert

from headrace.ids import new_id
from headrace.records import Artifact, Channel, Evaluation, ModelVersion, Prediction, Run
from headrace.store import channels, runs, schema, versions
from headrace.store.noun import origin
from headrace.store.predictions import LogRow
from headrace.workspace import Workspace

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ORIGIN = origin("0123456789abcdef")


def plant_channel(ws: Workspace, name: str) -> Channel:
    channel = Channel(new_id("channel"), name, "", "", "", NOON)
    with ws.store.write() as conn:
        channels.add(conn, channel)
    return channel


def plant_version(ws: Workspace, *, task: str = "tone", history: list[dict[str, Any]] | None = None) -> ModelVersion:
    """The next version of a task, with the snapshot, the run and the artifacts that it refers to."""
    with ws.store.write() as conn:
        number = versions.next_number(conn, task)
        digests = [f"sha256:{hashlib.sha256(f'{task}{number}{kind}'.encode()).hexdigest()}" for kind in "sca"]
        for digest, kind in zip(digests, ("snapshot", "checkpoint", "openvino"), strict=True):
            runs.add_artifact(conn, Artifact(digest, kind, 1234567, {}), NOON)
        snapshot_id, run_id = new_id("snapshot"), new_id("run")
        values = {
            "id": snapshot_id,
            "task": task,
            "content_hash": digests[0],
            "artifact": digests[0],
            "n_rows": 300,
            "n_by_side": {"train": 200, "validation": 30, "test": 70},
            "n_by_channel": {"a": 200, "b": 100},
            "n_from_feedback": 5 * (number - 1),
            "created_at": NOON,
        }
        conn.execute(insert(schema.snapshots).values(**values, **ORIGIN))
        run = Run(
            run_id, task, snapshot_id, "minilm-l6", "sha256:0", "full", {}, f"{task}{number}", 1, "done", None,
            digests[1], history or [], {}, NOON,
        )  # fmt: skip
        runs.add(conn, run, config_hash=ORIGIN["config_hash"])
        version = ModelVersion(new_id("version"), task, number, run_id, snapshot_id, digests[1], digests[2], NOON)
        versions.add(conn, version, config_hash=ORIGIN["config_hash"])
    return version


def plant_evaluation(
    ws: Workspace, version: ModelVersion, results: dict[str, Any], *, predictor: str = "version", side: str = "test"
) -> None:
    evaluation = Evaluation(
        new_id("evaluation"), version.task, version.id, predictor, version.snapshot_id, side, results, NOON
    )
    with ws.store.write() as conn:
        versions.add_evaluation(conn, evaluation, config_hash=ORIGIN["config_hash"])


def log_row(answer: Prediction, channel_id: str, row: int = 0) -> LogRow:
    """A prediction as the server hands it to the log."""
    facts = {**vars(answer), "channel_id": channel_id, "row": row}
    return LogRow(**{name: facts[name] for name in LogRow._fields})


def plant_answer(
    ws: Workspace,
    channel: Channel,
    version: ModelVersion,
    label: str,
    *,
    text: str | None = "some text",
    request_id: str | None = None,
    row: int = 0,
    arm: str = "control",
    release_id: str | None = None,
    error: str | None = None,
    probability: float = 1.0,
    unit: str | None = None,
) -> tuple[str, str]:
    """One prediction; returns its id and its request's id."""
    prediction_id, request_id = new_id("prediction"), request_id or new_id("request")
    values = {
        "id": prediction_id,
        "request_id": request_id,
        "row": row,
        "task": version.task,
        "channel_id": channel.id,
        "unit": unit,
        "arm": arm,
        "release_id": release_id,
        "version_id": version.id,
        "artifact": version.artifact,
        "adapter": None,
        "text": text,
        "text_hash": hashlib.sha256((text or "?").encode()).hexdigest(),
        "output": {"label": label, "confidence": 0.9, "scores": {}},
        "latency_ms": 1.0,
        "error": error,
        "at": NOON,
        "probability": probability,
    }
    with ws.store.write() as conn:
        conn.execute(insert(schema.predictions).values(**values, **ORIGIN))
    return prediction_id, request_id


def plant_correction(
    ws: Workspace, prediction_id: str, label: str, *, labeller: str = "anonymous", minute: int = 0
) -> str:
    feedback_id = new_id("feedback")
    values = {
        "id": feedback_id,
        "prediction_id": prediction_id,
        "kind": "correction",
        "correction": label,
        "labeller": labeller,
        "used": False,
        "at": NOON + timedelta(minutes=minute),
    }
    with ws.store.write() as conn:
        conn.execute(insert(schema.feedback).values(**values, **ORIGIN))
    return feedback_id


def figures_of(counts: list[list[int]], labels: list[str]) -> dict[str, Any]:
    """Classification figures with intervals, as an evaluation keeps them."""
    import numpy as np

    from headrace.tasks import text_classification as classes

    confusion = np.asarray(counts)
    n = int(confusion.sum())
    found = {"n": n, **classes.figures(confusion), "per_class": classes.per_class(*classes.sums_of(confusion), labels)}
    ends = {
        m: {"estimate": found[m], "low": found[m] - 0.05, "high": found[m] + 0.04} for m in ("macro_f1", "accuracy")
    }
    bins = [{"n": 10 + 30 * i, "confidence": 0.4 + 0.1 * i, "accuracy": 0.33 + 0.12 * i} for i in range(6)]
    return {
        **found, "confusion": counts, "labels": labels, "ece": 0.043, "reliability": bins, "intervals": ends,
    }  # fmt: skip


def results_of(by_channel: dict[str, list[list[int]]], labels: list[str], **more: Any) -> dict[str, Any]:
    total = [[sum(cells) for cells in zip(*rows, strict=True)] for rows in zip(*by_channel.values(), strict=True)]
    channels = {name: figures_of(counts, labels) for name, counts in by_channel.items()}
    return {"main_metric": "macro_f1", "overall": figures_of(total, labels), "channels": channels, **more}


def plant_import(ws: Workspace, channel: Channel, *, source: str = "rows.csv", state: str = "done") -> str:
    import_id = new_id("import")
    report = {
        "id": import_id, "channel": channel.name, "source": source, "n_rows": 100, "n_added": 90, "n_known": 3,
        "n_labels": 90, "n_quarantined": 7, "reasons": {"unknown label": 7}, "quarantine": "", "seconds": 0.5,
    }  # fmt: skip
    values = {
        "id": import_id, "channel_id": channel.id, "task": "tone", "source": source, "state": state,
        "report": report, "started_at": NOON, "finished_at": NOON,
    }  # fmt: skip
    with ws.store.write() as conn:
        conn.execute(insert(schema.imports).values(**values, **ORIGIN))
    return import_id

"""Versions of a workspace that answer held-out rows as a test wants them to, without a model."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import update

from conftest import LABELS, sentences, write_jsonl
from headrace import labelling, making, trusting
from headrace import per_channel as adapting
from headrace.data import channels, importing, snapshot
from headrace.export.artifact import ArtifactFacts
from headrace.records import Input, ModelVersion, SnapshotRow
from headrace.store import runs, schema
from headrace.workspace import Workspace
from planted import plant_evaluation, plant_version

Says = Callable[[SnapshotRow], str]
"""From a row to the label that a version answers."""


def fill(ws: Workspace, folder: Path, n_rows: int = 300, names: Sequence[str] = ("web", "phone")) -> list[SnapshotRow]:
    """Import rows of some channels; the test side of their snapshot."""
    for name in names:
        channels.add(ws, name)
        importing.import_rows(ws, name, write_jsonl(folder / f"{name}.jsonl", sentences(n_rows, channel=name)))
    return snapshot.rows(ws, snapshot.freeze(ws), "test")


def plant(ws: Workspace, *, agreement: float = 1.0) -> ModelVersion:
    """The next version, of the newest snapshot, with all that a gate asks of what is known of it."""
    version = replace(plant_version(ws), snapshot_id=snapshot.freeze(ws).id)
    with ws.store.write() as conn:
        known = schema.model_versions
        conn.execute(update(known).where(known.c.id == version.id).values(snapshot_id=version.snapshot_id))
        runs.change(conn, version.run_id, facts={"n_train_rows": 9, "seconds": 1.0})
    share = {"n": 100, "share": agreement, "low": agreement, "high": agreement, "max_logit_difference": 0.0}
    measured = {"agreement": share, "rows_per_s": {"exported": 1.0, "checkpoint": 1.0}, "main_metric": "macro_f1"}
    plant_evaluation(ws, version, {**measured, "overall": {"n": 1}, "channels": {}})
    return version


def relabel(ws: Workspace, folder: Path, n: int) -> int:
    """Who runs the workspace gives the first imported rows another label, by a file; how many labels were taken."""
    rows = [row for row in snapshot.rows(ws, trusting.freeze(ws)) if row.origin == "import"][:n]
    lines = [{labelling.ID: row.example_id, "text": row.text, "label": wrong(row)} for row in rows]
    return labelling.import_labels(ws, write_jsonl(folder / "labels.jsonl", lines)).n_labels


def answer_with(
    monkeypatch: pytest.MonkeyPatch,
    ws: Workspace,
    rows: Sequence[SnapshotRow],
    says: dict[int, Says],
    *,
    times_as_slow: float = 1.0,
) -> list[int]:
    """Have the versions of these numbers answer so, and be timed so; the numbers of those that were loaded."""
    by_text, loaded = {row.text: row for row in rows}, list[int]()

    def answerer(_: Workspace, version: ModelVersion, __: object) -> tuple[adapting.Answerer, ArtifactFacts]:
        loaded.append(version.number)

        def answer(inputs: Sequence[Input], _channels: object) -> np.ndarray:
            labels = [says[version.number](by_text[str(text)]) for text in inputs]
            return np.eye(3, dtype=np.float32)[[LABELS.index(label) for label in labels]] * 4

        return answer, ArtifactFacts(backend="stub", precision="fp32", task=ws.task("tone"))

    monkeypatch.setattr(adapting, "answerer", answerer)
    monkeypatch.setattr(making, "fastest_in_turn", lambda *_: (0.01, 0.01 * times_as_slow))
    return loaded


def right(row: SnapshotRow) -> str:
    return str(row.target)


def wrong(row: SnapshotRow) -> str:
    return LABELS[(LABELS.index(row.target) + 1) % 3]


def sometimes_wrong(every: int, *, but_in: str = "") -> Says:
    """Wrong on about one row in `every`, by hash; in the channel `but_in` on all."""
    return lambda row: wrong(row) if row.channel == but_in or hash_of(row) % every == 0 else right(row)


def hash_of(row: SnapshotRow) -> int:
    return int.from_bytes(row.key.encode()[-3:], "big") * 7919 // 13

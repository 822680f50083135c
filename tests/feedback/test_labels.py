"""Corrections become labels: once, on the right example, and none is lost when the process dies."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select

from headrace.feedback.labels import count_new, count_without_text, to_labels
from headrace.ids import new_id
from headrace.records import Channel, ModelVersion
from headrace.store import schema
from headrace.workspace import Workspace, open_workspace
from planted import NOON, ORIGIN, plant_answer, plant_channel, plant_correction, plant_import, plant_version


@pytest.fixture
def answered(workspace: Workspace) -> tuple[Workspace, Channel, ModelVersion]:
    return workspace, plant_channel(workspace, "a"), plant_version(workspace)


def rows_of(ws: Workspace, table: Any) -> list[Any]:
    with ws.store.read() as conn:
        return list(conn.execute(select(table).order_by(table.c.id)).mappings())


def plant_example(ws: Workspace, channel: Channel, text: str, *, import_id: str | None) -> str:
    digest = hashlib.sha256(text.encode()).hexdigest()
    values = {
        "id": new_id("example"), "channel_id": channel.id, "key": digest, "text": text, "text_hash": digest,
        "group_key": digest, "import_id": import_id, "created_at": NOON,
    }  # fmt: skip
    with ws.store.write() as conn:
        conn.execute(insert(schema.examples).values(**values))
    return values["id"]


def test_a_correction_of_a_new_text_becomes_an_example_with_its_origin(
    answered: tuple[Workspace, Channel, ModelVersion],
) -> None:
    ws, channel, version = answered
    prediction_id, _ = plant_answer(ws, channel, version, "positive", text="so so")
    feedback_id = plant_correction(ws, prediction_id, "neutral", labeller="ann")
    assert (count_new(ws), to_labels(ws, "tone"), count_new(ws)) == (1, 1, 0)
    (example,), (label,) = rows_of(ws, schema.examples), rows_of(ws, schema.labels)
    assert (example["text"], example["prediction_id"], example["import_id"]) == ("so so", prediction_id, None)
    assert example["key"] == example["text_hash"] == example["group_key"]
    assert (label["example_id"], label["value"], label["origin"]) == (example["id"], "neutral", "feedback")
    assert (label["feedback_id"], label["task"]) == (feedback_id, "tone")
    assert [row["name"] for row in rows_of(ws, schema.labellers)] == ["ann"]


def test_doing_it_again_adds_nothing(answered: tuple[Workspace, Channel, ModelVersion]) -> None:
    ws, channel, version = answered
    plant_correction(ws, plant_answer(ws, channel, version, "positive")[0], "neutral")
    assert [to_labels(ws, "tone") for _ in range(3)] == [1, 0, 0]
    assert len(rows_of(ws, schema.labels)) == 1


def test_a_text_the_channel_knows_keeps_its_example(answered: tuple[Workspace, Channel, ModelVersion]) -> None:
    ws, channel, version = answered
    known = plant_example(ws, channel, "seen before", import_id=plant_import(ws, channel))
    other = plant_channel(ws, "b")
    for there in (channel, other):
        prediction_id, _ = plant_answer(ws, there, version, "positive", text="seen before")
        plant_correction(ws, prediction_id, "negative")
    assert to_labels(ws, "tone") == 2
    examples = {row["id"]: row["channel_id"] for row in rows_of(ws, schema.examples)}
    assert examples[known] == channel.id
    assert sorted(examples.values()) == sorted([channel.id, other.id])  # the other channel has its own


def test_labellers_have_one_label_per_text_the_latest(answered: tuple[Workspace, Channel, ModelVersion]) -> None:
    ws, channel, version = answered
    first, _ = plant_answer(ws, channel, version, "positive")
    again, _ = plant_answer(ws, channel, version, "positive")
    plant_correction(ws, first, "negative", labeller="ann", minute=1)
    plant_correction(ws, again, "neutral", labeller="ann", minute=2)
    plant_correction(ws, first, "positive", labeller="bob", minute=1)
    assert to_labels(ws, "tone") == 3
    assert sorted(row["value"] for row in rows_of(ws, schema.labels)) == ["neutral", "positive"]
    last = plant_correction(ws, first, "positive", labeller="ann", minute=3)
    assert to_labels(ws, "tone") == 1
    labels = rows_of(ws, schema.labels)
    assert [row["value"] for row in labels] == ["positive", "positive"]
    assert last in {row["feedback_id"] for row in labels}


def test_corrections_without_text_are_counted_and_kept(answered: tuple[Workspace, Channel, ModelVersion]) -> None:
    ws, channel, version = answered
    plant_correction(ws, plant_answer(ws, channel, version, "positive", text=None)[0], "neutral")
    assert (to_labels(ws, "tone"), count_new(ws), count_without_text(ws)) == (0, 0, 1)
    assert rows_of(ws, schema.examples) == []


def test_a_text_of_a_running_import_waits(answered: tuple[Workspace, Channel, ModelVersion]) -> None:
    # A label on a row that is taken back after a kill would be lost, or would keep the row from being taken back.
    ws, channel, version = answered
    import_id = plant_import(ws, channel, state="running")
    example_id = plant_example(ws, channel, "arriving", import_id=import_id)
    plant_correction(ws, plant_answer(ws, channel, version, "positive", text="arriving")[0], "neutral")
    assert (to_labels(ws, "tone"), count_new(ws)) == (0, 1)
    with ws.store.write() as conn:
        conn.execute(schema.imports.update().values(state="done"))
    assert to_labels(ws, "tone") == 1
    assert rows_of(ws, schema.labels)[0]["example_id"] == example_id


def test_other_tasks_and_other_kinds_are_left_alone(answered: tuple[Workspace, Channel, ModelVersion]) -> None:
    ws, channel, version = answered
    prediction_id, _ = plant_answer(ws, channel, version, "positive")
    values = {"id": new_id("feedback"), "prediction_id": prediction_id, "kind": "comment", "comment": "hm"}
    with ws.store.write() as conn:
        conn.execute(insert(schema.feedback).values(**values, labeller="x", used=False, at=NOON, **ORIGIN))
        conn.execute(schema.predictions.update().values(task="another"))
    plant_correction(ws, prediction_id, "neutral")
    assert (to_labels(ws, "tone"), count_new(ws)) == (0, 0)


@pytest.mark.slow
def test_a_kill_in_the_middle_loses_and_doubles_nothing(
    answered: tuple[Workspace, Channel, ModelVersion], tmp_path: Path
) -> None:
    ws, channel, version = answered
    n = 60
    for i in range(n):
        plant_correction(ws, plant_answer(ws, channel, version, "positive", text=f"text {i}")[0], "neutral")
    marker = tmp_path / "inside"
    # Dies between the labels and the marks, inside the transaction: the worst moment there is.
    code = (
        "import sys, time, pathlib\n"
        "from headrace.store import outcomes\n"
        "from headrace.workspace import open_workspace\n"
        "from headrace.feedback.labels import to_labels\n"
        "outcomes.mark_used = lambda *_: (pathlib.Path(sys.argv[2]).touch(), time.sleep(60))\n"
        "to_labels(open_workspace(sys.argv[1]), 'tone')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(ws.root), str(marker)])
    try:
        deadline = time.monotonic() + 30
        while not marker.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert marker.exists()
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait(timeout=10)
    with open_workspace(ws.root) as after:
        assert rows_of(after, schema.labels) == []
        assert (count_new(after), to_labels(after, "tone")) == (n, n)
        assert len(rows_of(after, schema.labels)) == len(rows_of(after, schema.examples)) == n

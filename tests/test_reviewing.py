"""Suspected label errors for the queue. Catches: errors that are not found, rows that only seem so, a queue that cannot
be filled where the training parts are not installed."""

from pathlib import Path

import numpy as np
import pytest

from conftest import LABELS, sentences, write_jsonl
from headrace import reviewing, vectors
from headrace.data import channels, importing, snapshot
from headrace.feedback import reviews
from headrace.records import Input
from headrace.workspace import Workspace

N, N_WRONG = 300, 12


@pytest.fixture
def ws(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """300 rows whose vectors say their class, of which some have another label."""
    rows = sentences(N)
    truth = {row["text"]: LABELS.index(row["label"]) for row in rows}
    for row in rows[:N_WRONG]:
        row["label"] = LABELS[(LABELS.index(row["label"]) + 1) % 3]
    channels.add(workspace, "web")
    importing.import_rows(workspace, "web", write_jsonl(tmp_path / "rows.jsonl", rows))
    snapshot.freeze(workspace)

    def of_inputs(_: Workspace, inputs: list[Input], **__: object) -> np.ndarray:
        rng = np.random.default_rng(3)
        return np.eye(3)[[truth[str(one)] for one in inputs]] + rng.normal(0, 0.15, (len(inputs), 3))

    monkeypatch.setattr(vectors, "of_inputs", of_inputs)
    return workspace


def test_planted_errors_are_asked_about_and_hardly_anything_else(ws: Workspace) -> None:
    newest = snapshot.latest(ws)
    assert newest is not None
    train = {row.example_id: row for row in snapshot.rows(ws, newest, "train")}
    wrong = {key for key, row in train.items() if int(row.key.removeprefix("c-")) < N_WRONG}
    found = reviewing.suspects(ws, "tone")
    assert len(wrong & set(found)) >= 0.7 * len(wrong)  # it names what two ways of counting agree on
    assert len(set(found) - wrong) <= 2
    filled = reviewing.fill(ws)
    assert filled.n_label_errors == len(found)
    assert {one.example_id for one in reviews.listing(ws) if one.reason == "label-error"} == set(found)
    assert reviewing.fill(ws).n_label_errors == 0


def test_without_the_training_parts_the_rest_is_filled(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reviewing, "find_spec", lambda _: None)
    assert reviewing.suspects(ws, "tone") == []
    assert reviewing.fill(ws).n_label_errors == 0

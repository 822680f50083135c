"""What a run reads besides its snapshot: unlabelled texts, a teacher. A start has tests/test_warm_start.py.

Catches: texts of the test side in pretraining, a run that does not notice another teacher or new texts.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import LABELS, sentences, write_jsonl
from headrace import loop, making
from headrace.data import channels, importing, snapshot, split
from headrace.errors import BadConfig, NotFound
from headrace.records import Run
from headrace.store import examples
from headrace.workspace import Workspace, open_workspace
from planted import plant_version


@pytest.fixture
def ws(tmp_path: Path, tiny_base: Path) -> Iterator[Workspace]:
    root = tmp_path / "ws"
    loop.init(root, task="tone", labels=LABELS).close()
    with (root / "headrace.toml").open("a") as file:
        file.write(f"base_model = {json.dumps(str(tiny_base))}\n")
    with open_workspace(root) as opened:
        channels.add(opened, "a")
        add(opened, sentences(90, channel="a"))
        yield opened


def add(ws: Workspace, rows: list[dict[str, Any]], **options: Any) -> None:
    source = ws.root / f"{rows[0]['id']}.jsonl"
    importing.import_rows(ws, "a", write_jsonl(source, rows), **options)


def planned(ws: Workspace, **finetune: Any) -> Run:
    settings = ws.settings.finetune.model_validate({**ws.settings.finetune.model_dump(), **finetune})
    return making.planned_run(ws, "tone", snapshot.freeze(ws), settings)


def test_pretraining_reads_every_text_but_the_test_sides(ws: Workspace) -> None:
    before = planned(ws, method="continue-pretraining")
    new = [{"id": row["id"], "text": row["text"]} for row in sentences(60, seed=5, channel="b")]
    add(ws, new, label_column="")
    run = planned(ws, method="continue-pretraining")
    assert run.fingerprint != before.fingerprint
    assert planned(ws).fingerprint == planned(ws).fingerprint
    found = making._material(ws, run).unlabelled
    side_of = split.assign(ws)
    with ws.store.read() as conn:
        there = {row.text: side_of[row.group_key] for row in examples.grouped_texts(conn)}
    assert len(there) == 150
    assert set(found) == {text for text, side in there.items() if side in ("train", "validation")}
    assert {row["text"] for row in new} & set(found)
    assert making._material(ws, planned(ws)).unlabelled == []
    assert set(making._material(ws, before).unlabelled) < set(found)  # what came later is not in it


def test_a_teacher_is_a_version_and_part_of_the_run(ws: Workspace) -> None:
    with pytest.raises(BadConfig, match="distil needs a teacher"):
        planned(ws, method="distil")
    with pytest.raises(NotFound):
        planned(ws, method="distil", teacher="7")
    with pytest.raises(NotFound):
        planned(ws, method="no-such-method")
    version = plant_version(ws)
    run = planned(ws, method="distil", teacher="1")
    assert run.params["material"]["teacher"] == version.checkpoint
    assert run.fingerprint == planned(ws, method="distil", teacher=version.id).fingerprint


def test_the_parts_of_a_pair_are_texts_of_their_own_and_each_comes_once(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches: pairs that pretraining reads as one text too, beside their parts."""
    monkeypatch.setattr(examples, "inputs_to_learn_from", lambda *_, **__: [("a", "b"), "c", ("a", "d")])
    assert making.unlabelled_texts(ws, until=ws.clock()) == ["a", "b", "c", "d"]

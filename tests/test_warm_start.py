"""`finetune.start` in a workspace. Catches: a run that begins anew all the same, or trains on what it should leave out;
a start that cannot be and is found out in the job; one that has learnt held-out rows; what was erased handed on.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conftest import LABELS, TINY_TRAINING, make_tiny_base, sentences, write_jsonl
from finetune.toy_tasks import make_lively
from headrace import jobs, loop, making, warm_start
from headrace.data import channels, importing, snapshot
from headrace.errors import BadConfig, BadInput, HeadraceError, NotFound, WrongState
from headrace.export.checkpoint import load
from headrace.lineage import affected, erasing
from headrace.records import ModelVersion, Run
from headrace.release import controls
from headrace.store import runs
from headrace.workspace import Workspace, open_workspace
from planted import plant_version

SETTINGS = (
    TINY_TRAINING
    + """epochs = 4
learning_rate = 0.01
min_steps = 0
evals_per_epoch = 1
precision = "fp32"

[export]
backend = "hf"
precision = "fp32"
"""
)


@pytest.fixture(scope="module")
def made(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with version 1 of 120 rows, and 60 rows that came after it."""
    base = make_lively(tiny_base, tmp_path_factory.mktemp("lively"))
    root = tmp_path_factory.mktemp("made") / "ws"
    loop.init(root, task="tone", labels=LABELS).close()
    with (root / "headrace.toml").open("a") as file:
        file.write(SETTINGS.format(base=json.dumps(str(base))))
    with open_workspace(root) as ws:
        channels.add(ws, "a")
        add(ws, "first", sentences(120, channel="a"))
        version_by(ws)
        add(ws, "second", sentences(60, seed=4, channel="b"))
    return root


@pytest.fixture
def ws(made: Path, tmp_path: Path) -> Iterator[Workspace]:
    shutil.copytree(made, tmp_path / "ws")
    with open_workspace(tmp_path / "ws") as opened:
        yield opened


def add(ws: Workspace, name: str, rows: list[dict[str, str]], **options: Any) -> None:
    importing.import_rows(ws, "a", write_jsonl(ws.root / f"{name}.jsonl", rows), **options)


def finetune(ws: Workspace, *, share: float = 1.0, **changes: Any) -> Any:
    own = ws.settings.finetune.model_dump() | {"sampling": {"replay_share": share}} | changes
    return ws.settings.finetune.model_validate(own)


def planned(ws: Workspace, **changes: Any) -> Run:
    return making.planned_run(ws, "tone", snapshot.freeze(ws), finetune(ws, **changes))


def version_by(ws: Workspace, **changes: Any) -> ModelVersion:
    run = making.run_with(ws, planned(ws, **changes))
    return making.made_version(ws, run, jobs.Progress(ws, None).report)


def facts(ws: Workspace, version: ModelVersion) -> dict[str, Any]:
    return making.find_run(ws, version.run_id).facts


@pytest.mark.slow
def test_a_start_is_part_of_the_run_by_its_weights(ws: Workspace) -> None:
    first = controls.find_version(ws, "tone", "1")
    run = planned(ws, start="1")
    assert run.params["material"] == {"start": first.checkpoint}
    assert run.params["finetune"]["start"] == "tone/1"
    assert run.fingerprint == planned(ws, start=first.id).fingerprint != planned(ws).fingerprint
    controls.ensure_control(ws, "tone")
    assert planned(ws, start="control").fingerprint == run.fingerprint  # so that a killed one is found again
    with pytest.raises(NotFound):
        planned(ws, start="7")


@pytest.mark.slow
def test_new_rows_alone_train_from_where_the_start_was(ws: Workspace) -> None:
    frozen = snapshot.freeze(ws)
    train = snapshot.rows(ws, frozen, "train")
    n_new = sum(row.key.startswith("b-") for row in train)
    n_old = len(train) - n_new
    assert 0 < n_new < n_old
    still = {"epochs": 1, "learning_rate": 1e-12, "start": "1"}
    second = version_by(ws, share=0.0, **still)
    assert facts(ws, second)["n_train_rows"] == n_new
    first = controls.find_version(ws, "tone", "1")
    texts = [row.text for row in train]
    before, after = (load(ws.artifacts.get(one.checkpoint), ws.task("tone")).logits(texts) for one in (first, second))
    assert len(set(before.argmax(axis=1))) == 3  # it has learnt something
    assert after == pytest.approx(before, abs=1e-4)
    half = warm_start.rows_of(ws, planned(ws, share=0.5, **still), snapshot.rows(ws, frozen))
    assert sum(row.side == "train" for row in half) == n_new + round(0.5 * n_old)
    assert half == warm_start.rows_of(ws, planned(ws, share=0.5, **still), snapshot.rows(ws, frozen))
    assert warm_start.rows_of(ws, planned(ws, **still), snapshot.rows(ws, frozen)) == snapshot.rows(ws, frozen)


@pytest.mark.slow
def test_a_warm_start_begins_with_a_lower_loss(ws: Workspace) -> None:
    losses = []
    for start in ("", "1"):
        version = version_by(ws, start=start, epochs=1)
        history = making.find_run(ws, version.run_id).history
        losses.append(next(entry["eval_loss"] for entry in history if "eval_loss" in entry))
    assert losses[1] < 0.8 * losses[0]


@pytest.mark.slow
def test_nothing_new_is_nothing_to_learn(ws: Workspace) -> None:
    version_by(ws, epochs=1)
    with pytest.raises(BadInput, match="no row is new"):
        planned(ws, start="2", share=0.2)
    planned(ws, start="2")  # all train again


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "error", "why"),
    [
        ({"share": 0.5}, BadConfig, "finetune.start names none"),
        *(
            ({"start": "1", "method": method, **more}, BadConfig, "cannot go on from a version")
            for method, more in (
                ("distil", {"teacher": "1"}),
                ("zero-shot", {}),
                ("contrastive", {}),
                ("continue-pretraining", {}),
                ("prefix", {}),
                ("prompt", {"adapter": {"n_virtual_tokens": 4}}),
            )
        ),
        ({"start": "1", "method": "head"}, BadInput, "another head"),
        ({"start": "control"}, WrongState, "no version of the task is in charge"),
        ({"start": "9"}, NotFound, "no such model version"),
    ],
)
def test_it_is_refused_before_the_job(
    ws: Workspace, changes: dict[str, Any], error: type[HeadraceError], why: str
) -> None:
    with pytest.raises(error, match=why) as refused:
        making.check_finetune(ws, "tone", finetune(ws, **changes))
    assert refused.value.next_step
    assert jobs.listing(ws) == []


@pytest.mark.slow
def test_a_start_of_another_task_or_base_is_refused(ws: Workspace, tmp_path: Path) -> None:
    making.check_finetune(ws, "tone", finetune(ws, start="1"))
    own = finetune(ws, start="1")
    other = make_tiny_base(tmp_path / "other")  # not the lively one
    for setting, value, why in (
        ("labels", json.dumps(LABELS[::-1]), "other outputs"),
        ("base_model", str(other), "another base model"),
    ):
        other_settings = {f"tasks.tone.{setting}": value}
        with open_workspace(ws.root, overrides=other_settings) as turned, pytest.raises(BadInput, match=why):
            making.check_finetune(turned, "tone", own)


@pytest.mark.slow
def test_parts_that_cannot_be_merged_are_refused(ws: Workspace) -> None:
    version_by(ws, method="prefix", epochs=1, adapter={"n_virtual_tokens": 2})
    with pytest.raises(BadInput, match="cannot be merged"):
        making.check_finetune(ws, "tone", finetune(ws, start="2"))


@pytest.mark.slow
def test_what_is_held_out_now_was_not_learnt_by_any_it_stands_on(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = version_by(ws, start="1", epochs=1, share=0.0)
    assert facts(ws, second)["n_train_rows"] > 0
    planned(ws, start="2")
    moved = [row for row in snapshot.rows(ws, snapshot.find(ws, controls.find_version(ws, "tone", "1").snapshot_id))]
    moved = [row for row in moved if row.side == "train"][:3]
    ids = {row.example_id for row in moved}
    current = snapshot.current

    def turned(*args: Any, **kwargs: Any) -> Any:
        rows, left_out = current(*args, **kwargs)
        return [replace(row, side="test") if row.example_id in ids else row for row in rows], left_out

    monkeypatch.setattr(snapshot, "current", turned)
    with pytest.raises(BadInput, match="held out now") as refused:
        planned(ws, start="1")
    assert "3 rows" in str(refused.value.value)
    # Version 2 did not train on them where its own snapshot has them held out; version 1, from which it started, did.
    with ws.store.write() as conn:
        runs.change(conn, second.run_id, snapshot_id=snapshot.freeze(ws).id)
    with pytest.raises(BadInput, match="held out now"):
        planned(ws, start="2")
    with pytest.raises(BadInput, match="held out now"):
        planned(ws, start="2", share=0.5)


@pytest.mark.slow
def test_what_the_start_learnt_is_traced_and_erased_through_to_what_went_on_from_it(ws: Workspace) -> None:
    first = controls.find_version(ws, "tone", "1")
    old = snapshot.rows(ws, snapshot.find(ws, first.snapshot_id), "train")[0]
    version_by(ws, start="1", epochs=1, share=0.0)
    third = version_by(ws, start="2", epochs=1)
    rows = snapshot.rows(ws, snapshot.find(ws, third.snapshot_id))
    fewer = [row for row in rows if row.example_id != old.example_id]
    assert len(fewer) == len(rows) - 1
    without = plant_version(ws)  # whose snapshot has not the row
    with ws.store.write() as conn:
        params = {**making.find_run(ws, without.run_id).params, "material": {"start": third.checkpoint}}
        runs.change(conn, without.run_id, params=params)
    how = {one["name"]: one["how"] for one in affected.of_examples(ws, "a", [old.example_id]).versions}
    assert how == {"tone/1": "trained", "tone/2": "trained", "tone/3": "trained", "tone/4": "inherited"}
    done = erasing.erase(ws, example=old.example_id)
    assert set(done.plan.versions) == {"tone/1", "tone/2", "tone/3", "tone/4"}
    with pytest.raises(WrongState, match="some were erased"):
        planned(ws, start="3")

"""Advice on methods from a workspace. Catches: advice that fails on a kind of task, figures of other rows than the
validation side, a base model that is not compared, an answer that is no JSON."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import LABELS, make_tiny_base, sentences, write_jsonl
from headrace.advising import advise_method
from headrace.data import channels
from headrace.data.importing import import_rows
from headrace.finetune.methods import METHODS
from headrace.workspace import Workspace, init, open_workspace


@pytest.fixture
def ws(tmp_path: Path, tiny_base: Path) -> Iterator[Workspace]:
    init(tmp_path / "ws", task="tone", labels=LABELS).close()
    with (tmp_path / "ws" / "headrace.toml").open("a") as file:
        file.write(f"base_model = {json.dumps(str(tiny_base))}\n")
    with open_workspace(tmp_path / "ws") as opened:
        channels.add(opened, "c")
        import_rows(opened, "c", write_jsonl(tmp_path / "rows.jsonl", sentences(300)))
        yield opened


@pytest.mark.slow
def test_advice_names_a_method_with_its_cost_and_what_needs_no_training(ws: Workspace, tiny_base: Path) -> None:
    advice = advise_method(ws, base_models_tried=[str(tiny_base)])
    assert json.loads(json.dumps(advice)) == advice
    assert [one["base_model"] for one in advice["base_models"]] == [str(tiny_base)]  # the same one once
    measured = advice["base_models"][0]["measured"]
    assert set(measured) == {"majority", "zero-shot", "few-shot", "frozen", "probe"}
    assert measured["frozen"]["estimate"] > measured["majority"]["estimate"]
    choice = advice["choice"]
    assert choice["method"] in {one["method"] for one in advice["methods"]}
    assert choice["seconds"] > 0
    is_other = METHODS.get(choice["method"]).trains and choice["epochs"] != ws.settings.finetune.epochs
    epochs = f" --set finetune.epochs={choice['epochs']:g}" if is_other else ""
    assert choice["run"] == f"train --method {choice['method']}{epochs}"  # what gave the quality
    assert advice["facts"]["n_train_rows"] > 150
    assert advice["reasons"]


@pytest.mark.slow
def test_tasks_on_tokens_keep_their_base_model_and_say_why(tmp_path: Path, tiny_base: Path) -> None:
    other = make_tiny_base(tmp_path / "other")
    init(tmp_path / "ws", task="names", task_type="token-classification", labels=("PER",)).close()
    with (tmp_path / "ws" / "headrace.toml").open("a") as file:
        file.write(f"base_model = {json.dumps(str(tiny_base))}\n")
    rows = [{"id": str(i), "text": f"it was good {i}", "label": [[7, 11, "PER"]]} for i in range(60)]
    with open_workspace(tmp_path / "ws") as opened:
        channels.add(opened, "c")
        import_rows(opened, "c", write_jsonl(tmp_path / "rows.jsonl", rows))  # type: ignore[arg-type]
        advice = advise_method(opened, base_models_tried=[str(other)])
        alone = advise_method(opened)
    assert len(advice["base_models"]) == 2
    assert advice["choice"]["base_model"] == str(tiny_base)
    assert "nothing tells which is better: the task's own is taken" in advice["reasons"][0]
    assert not any("task's own" in reason for reason in alone["reasons"])

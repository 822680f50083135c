"""Training that goes on from a version's weights, and the rows it has. Catches: a start whose encoder, head, CRF or
unit is lost, so that training begins anew unseen; rows that were learnt and train all the same; draws that differ."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune import toy
from finetune.toy_tasks import TASKS, make_lively, rows_of
from headrace.checkpoints.loading import load
from headrace.checkpoints.saving import save
from headrace.config import TaskTable
from headrace.export.checkpoint import load as predictor_of
from headrace.finetune.methods import METHODS, form_of
from headrace.finetune.rehearsal import held_out, new_rows, rehearsed
from headrace.finetune.running import Tuned, tune
from headrace.tasks import TASK_TYPES, TaskType
from headrace.testing.methods import settings_for
from headrace.warm_start import able

STILL = 1e-12
"""A learning rate at which training moves nothing."""
Make = Callable[..., Path]


@pytest.fixture(scope="module")
def base(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_lively(tiny_base, tmp_path_factory.mktemp("lively"))


@pytest.fixture(scope="module")
def made(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Makes the checkpoint of a type of task by a method, once."""

    @cache
    def make(kind: str, method: str = "full", **loss: Any) -> Path:
        folder = tmp_path_factory.mktemp("start")
        settings = settings_for(method, epochs=2, loss=dict(loss))
        return saved(tune(tmp_path_factory.mktemp("run"), base, TASKS[kind], settings, rows_of(kind), _silent), folder)

    return make


def _silent(*_args: object, **_facts: object) -> None:
    pass


def saved(tuned: Tuned, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    save(tuned.network, tuned.tokenizer, folder)
    return folder


def answers(folder: Path, task: TaskTable, rows: Any) -> list[np.ndarray]:
    found = predictor_of(folder, task).logits([row.input for row in rows])
    return [np.asarray(getattr(one, "logits", one)) for one in found]


def _assert_alike(tmp_path: Path, base: Path, start: Path, kind: str, method: str, **loss: Any) -> None:
    """Training that moves nothing ends where the start was."""
    rows = rows_of(kind, 40)
    settings = settings_for(method, epochs=1, learning_rate=STILL, loss=dict(loss))
    tuned = tune(tmp_path / "run", base, TASKS[kind], settings, rows, _silent, start=start)
    before = answers(start, TASKS[kind], rows)
    for one, expected in zip(answers(saved(tuned, tmp_path / "made"), TASKS[kind], rows), before, strict=True):
        np.testing.assert_allclose(one, expected, atol=2e-4)
    assert max(float(np.abs(one - before[0][:1]).max()) for one in before) > 0.01  # it has learnt something


@pytest.mark.slow
@pytest.mark.parametrize("method", able())
def test_every_method_that_can_goes_on_from_what_the_start_answers(
    method: str, base: Path, made: Make, tmp_path: Path
) -> None:
    kind = "text-classification"
    task_type: TaskType = TASK_TYPES.get(kind)(TASKS[kind])
    by = "head" if form_of(METHODS.get(method), task_type) == "embedding" else "lora"
    _assert_alike(tmp_path, base, made(kind, by), kind, method)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in TASKS if kind != "text-classification"])
def test_every_type_of_task_goes_on(kind: str, base: Path, made: Make, tmp_path: Path) -> None:
    """A regression's head is put into standard deviations and back; the catalogue of retrieval is embedded anew."""
    _assert_alike(tmp_path, base, made(kind), kind, "full")


def test_a_crf_goes_on_with_its_transitions(base: Path, made: Make, tmp_path: Path) -> None:
    kind, task_type = "token-classification", TASK_TYPES.get("token-classification")(TASKS["token-classification"])
    start = made(kind, crf=True)
    _assert_alike(tmp_path, base, start, kind, "full", crf=True)
    (before, _), (after, _) = load(start, task_type), load(tmp_path / "made", task_type)
    assert before.crf is not None
    assert after.crf is not None
    assert float(before.crf["transitions"].detach().abs().max()) > 0.01
    np.testing.assert_allclose(after.crf["transitions"].detach(), before.crf["transitions"].detach(), atol=1e-5)
    settings = settings_for("full", epochs=1, learning_rate=STILL)
    without = tune(tmp_path / "without", base, TASKS[kind], settings, rows_of(kind, 40), _silent, start=start)
    assert without.network.crf is None


def test_what_can_go_on() -> None:
    assert set(able()) == {"full", "head", "freeze", "bitfit", "lora", "dora", "adalora", "ia3", "adapter"}


# --- Which rows ---------------------------------------------------------------------------------------------------


def test_rows_that_were_learnt_are_drawn_by_their_share_and_new_ones_all_come() -> None:
    rows = [replace(row, side="test") if i % 10 == 9 else row for i, row in enumerate(toy.rows(100))]
    train = [row for row in rows if row.side == "train"]
    learnt = train[:40]
    new = train[40:]
    assert new_rows(rows, learnt) == new
    assert rehearsed(rows, learnt, share=1.0, seed=1) == rows
    held = [row for row in rows if row.side != "train"]
    none = rehearsed(rows, learnt, share=0.0, seed=1)
    assert sorted(none, key=rows.index) == none
    assert [row for row in none if row.side == "train"] == new
    assert [row for row in none if row.side != "train"] == held
    half = rehearsed(rows, learnt, share=0.5, seed=1)
    assert len(half) == len(held) + len(new) + 20
    assert half == rehearsed(rows, learnt[::-1], share=0.5, seed=1) != rehearsed(rows, learnt, share=0.5, seed=2)
    assert set(map(id, rehearsed(rows, learnt, share=0.25, seed=1))) < set(map(id, half))


def test_a_row_with_another_label_or_text_is_new() -> None:
    rows = [replace(row, side="train") for row in toy.rows(4)]
    learnt = [replace(rows[0], target="other"), replace(rows[1], text="other"), rows[2], replace(rows[2], target="no")]
    assert new_rows(rows, learnt[:3]) == [rows[0], rows[1], rows[3]]


def test_held_out_rows_that_were_learnt_are_found_by_id_and_by_text() -> None:
    train, validation, test, other = (
        replace(row, side=side)  # type: ignore[arg-type]
        for row, side in zip(toy.rows(4), ("train", "validation", "test", "test"), strict=True)
    )
    learnt = [train, replace(validation, side="train", text="older"), replace(test, side="train", example_id="older")]
    assert held_out([train, validation, test, other], learnt) == [validation, test]

"""Which checkpoint is kept, and when training ends. Catches: a model of the first steps that is kept because F1 is 0 at
first and at second; a model that is judged by other thresholds than those it answers with."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from conftest import FILLER, WORDS
from finetune import toy
from headrace.checkpoints.saving import save
from headrace.config import FinetuneTable, TaskTable
from headrace.export.checkpoint import load
from headrace.finetune.running import tune
from headrace.finetune.training import Watcher, _score, best_main_metric
from headrace.tasks.multi_label import MultiLabel

SETTINGS = FinetuneTable(
    epochs=30, batch_tokens=256, learning_rate=1e-3, patience=2, evals_per_epoch=2, precision="fp32"
)


def silent(*_args: object, **_facts: object) -> None:
    pass


def state_of(*evaluations: tuple[float, float]) -> SimpleNamespace:
    """A trainer's state after evaluations of (main metric, loss)."""
    return SimpleNamespace(
        log_history=[
            {"eval_metric_main": metric, "eval_loss": loss, "step": 10 * n}
            for n, (metric, loss) in enumerate(evaluations, start=1)
        ]
    )


@pytest.mark.parametrize(
    ("evaluations", "is_over"),
    [
        ([(0.02, 0.5), (0.0, 0.4), (0.0, 0.3), (0.0, 0.2)], False),  # it learns, which F1 does not show yet
        ([(0.0, 0.2), (0.0, 0.3), (0.0, 0.4)], True),
        ([(0.0, 0.2), (0.0, 0.1999), (0.0, 0.1998)], True),  # too little of a fall to wait for
        ([(0.0, 0.2), (0.0, 0.1985), (0.0, 0.197), (0.0, 0.1955)], False),  # falls that add up
        ([(0.5, 0.2), (0.6, 0.3), (0.7, 0.4)], False),  # surer of its errors, and right more often
        ([(0.5, 0.2), (0.6, 0.1), (0.6, 0.3), (0.55, 0.2)], True),
        ([(0.3, 0.9), (0.4, float("nan")), (0.4, 0.8), (0.4, 0.9)], False),
        ([(0.3, 0.9), (0.4, 0.8), (0.4, float("nan")), (0.4, float("nan"))], True),
    ],
)
def test_training_ends_where_neither_metric_nor_loss_is_better(
    evaluations: list[tuple[float, float]], is_over: bool
) -> None:
    assert Watcher(silent, patience=2)._is_over(state_of(*evaluations)) == is_over


@pytest.mark.parametrize(("n_warm", "is_over"), [(9, True), (10, True), (19, True), (20, False), (500, False)])
def test_the_warm_up_ends_nothing(n_warm: int, is_over: bool) -> None:
    at_10, at_20, at_30 = [(0.0, 0.2)] * 3
    assert Watcher(silent, patience=2)._is_over(state_of(at_10, at_20, at_30), n_warm) == is_over


@pytest.mark.parametrize(
    ("evaluations", "kept"),
    [
        ([(0.0, 0.5), (0.0, 0.4), (0.0, 0.6)], 1),
        ([(0.5, 0.9), (0.4, 0.1)], 0),  # the loss decides between equals only
        ([(1.0, 0.2), (1.0, 0.9)], 0),
        ([(0.5, float("nan")), (0.5, 0.9)], 1),
    ],
)
def test_of_equal_metrics_the_least_loss_is_kept(evaluations: list[tuple[float, float]], kept: int) -> None:
    entries = state_of(*evaluations).log_history
    assert max(range(len(entries)), key=lambda i: _score(entries[i])) == kept


def test_what_is_kept_is_named_by_its_own_metric() -> None:
    assert best_main_metric(state_of((0.25, 0.9), (0.5, 0.8), (0.5, 0.7), (0.4, 0.1))) == 0.5
    assert best_main_metric(SimpleNamespace(log_history=[{"loss": 1.0}])) is None


@pytest.mark.slow
def test_training_goes_on_where_f1_does_not_show_it_yet(tiny_base: Path, tmp_path: Path) -> None:
    """One word in ten is in an entity, so that no tag but O is likely at first."""
    rows = [replace(row, text=" ".join([row.text, *FILLER])) for row in toy.ner_rows(80)]
    tuned = tune(tmp_path, tiny_base, toy.NER, SETTINGS, rows, silent)
    figures = [entry["eval_metric_main"] for entry in tuned.history if "eval_metric_main" in entry]
    best_before = [max(figures[: n + 1]) for n in range(len(figures))]
    assert max(best_before.count(figure) for figure in best_before[:8]) > SETTINGS.patience, "F1 shows it at once"
    assert tuned.facts["best_main_metric"] == max(figures) > 0.5


@pytest.mark.slow
def test_rare_labels_are_judged_by_the_thresholds_they_will_have(tiny_base: Path, tmp_path: Path) -> None:
    """At .5 none of them would be answered in these few steps."""
    words = sorted(word for some in WORDS.values() for word in some)
    task = TaskTable(type="multi-label", labels=tuple(words), max_tokens=32)
    rows = [replace(row, target=[word for word in row.text.split() if word in words]) for row in toy.rows(160)]
    for name in ("run", "checkpoint"):
        (tmp_path / name).mkdir()
    tuned = tune(tmp_path / "run", tiny_base, task, SETTINGS.model_copy(update={"epochs": 6}), rows, silent)
    save(tuned.network, tuned.tokenizer, tmp_path / "checkpoint")
    validation = [row for row in rows if row.side == "validation"]
    outputs = load(tmp_path / "checkpoint", task).logits([row.input for row in validation])
    task_type, targets = MultiLabel(task), [row.target for row in validation]
    fitted = task_type.metrics(targets, outputs, task_type.calibrate(targets, outputs))["macro_f1"]
    assert tuned.facts["best_main_metric"] == pytest.approx(fitted, abs=1e-6)
    assert fitted > task_type.metrics(targets, outputs)["macro_f1"] + 0.2

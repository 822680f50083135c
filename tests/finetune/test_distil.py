"""Learning from a teacher. Catches: answers of other rows, padding that counts, a temperature that is forgotten,
numbers in another unit than the student's."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit, rel_entr, softmax
from torch import nn
from transformers import AutoModel, AutoTokenizer, ModernBertConfig

from finetune import toy
from finetune.toy_tasks import TASKS, rows_of
from headrace.checkpoints.loading import fresh, keep_layers
from headrace.checkpoints.saving import save
from headrace.config import FinetuneTable, TaskTable
from headrace.errors import BadConfig
from headrace.finetune.features import IGNORED
from headrace.finetune.methods import Plan
from headrace.finetune.methods.distil import _answers, _Taught, distance
from headrace.finetune.running import tune
from headrace.tasks import TASK_TYPES

SETTINGS = FinetuneTable(method="distil", epochs=1, min_steps=4, batch_tokens=256, precision="fp32")


def _teacher(base: Path, folder: Path, task: TaskTable, **kwargs: object) -> Path:
    torch.manual_seed(8)
    network = fresh(base, TASK_TYPES.get(task.type)(task), **kwargs)
    folder.mkdir()
    save(network, AutoTokenizer.from_pretrained(base), folder)
    return folder


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_distances_against_scipy(temperature: float) -> None:
    rng = np.random.default_rng(2)
    mask = np.array([[1, 1, 1, 0], [1, 1, 0, 0]], dtype=bool)
    a, b = rng.normal(size=(2, 2, 4, 3)).astype(np.float32) * 3
    p, q = (softmax(z / temperature, axis=-1) for z in (b, a))
    square = temperature**2

    def found(problem: str, x: np.ndarray, y: np.ndarray) -> float:
        given = (torch.from_numpy(z) for z in (x, y))
        return float(distance(problem, *given, torch.from_numpy(mask), temperature))

    per_token = rel_entr(p, q).sum(axis=-1)
    assert found("token_classification", a, b) == pytest.approx(square * per_token[mask].mean(), rel=1e-4)
    assert found("single_label_classification", a[:, 0], b[:, 0]) == pytest.approx(
        square * per_token[:, 0].mean(), rel=1e-4
    )
    s, t = (expit(z[:, 0] / temperature) for z in (b, a))
    binary = rel_entr(s, t) + rel_entr(1 - s, 1 - t)
    assert found("multi_label_classification", a[:, 0], b[:, 0]) == pytest.approx(square * binary.mean(), rel=1e-3)
    places = []
    for row, n in enumerate(mask.sum(axis=1)):
        for end in range(2):
            own = [softmax(z[row, :n, end] / temperature) for z in (b, a)]
            places.append(rel_entr(*own).sum())
    assert found("question_answering", a[..., :2], b[..., :2]) == pytest.approx(square * np.mean(places), rel=1e-4)
    assert found("regression", a[:, 0, :1], b[:, 0, :1]) == pytest.approx(((a - b)[:, 0, 0] ** 2).mean(), rel=1e-4)


@pytest.mark.parametrize("kind", sorted(TASKS))
def test_every_task_type_learns_from_a_teacher(tiny_base: Path, tmp_path: Path, kind: str) -> None:
    form = "embedding" if kind == "retrieval" else "head"
    teacher = _teacher(tiny_base, tmp_path / "teacher", TASKS[kind], form=form)
    tuned = tune(
        tmp_path / "run", tiny_base, TASKS[kind], SETTINGS, rows_of(kind, 40), lambda *_a, **_f: None, teacher=teacher
    )
    assert len(tuned.network.layers) == tuned.network.config.num_hidden_layers == 1


def test_the_answers_are_those_of_each_row(tiny_base: Path, tmp_path: Path) -> None:
    """One row at a time, numbers in standard deviations of the training targets."""
    task = toy.REGRESSION
    task_type, rows = TASK_TYPES.get(task.type)(task), toy.rows(30, regression=True)
    teacher = _teacher(tiny_base, tmp_path / "teacher", task)
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    plan = Plan(tmp_path, tiny_base, task, task_type, SETTINGS, tokenizer, rows, rows, teacher=teacher)
    torch.manual_seed(8)
    network = fresh(tiny_base, task_type).eval()
    targets = np.array([row.target for row in rows])
    with torch.no_grad():
        alone = np.array([float(network(**tokenizer(row.text, return_tensors="pt"))) for row in rows])
    expected = (alone - targets.mean()) / targets.std()
    assert np.allclose([float(one) for one in _answers(plan)], expected, atol=1e-4)


def test_what_is_missing_or_does_not_fit(tiny_base: Path, tmp_path: Path) -> None:
    def run(teacher: Path | None, **changes: object) -> None:
        settings = SETTINGS.model_copy(update=changes)
        tune(tmp_path / "run", tiny_base, toy.TASK, settings, toy.rows(40), lambda *_a, **_f: None, teacher=teacher)

    with pytest.raises(BadConfig, match=r"finetune.teacher names none.*Set finetune.teacher"):
        run(None)
    other = _teacher(tiny_base, tmp_path / "other", TaskTable(labels=("a", "b", "c")))
    with pytest.raises(BadConfig, match="teacher has other outputs"):
        run(other)
    with pytest.raises(BadConfig, match="student_layers is more than the base model has: 9"):
        run(other, student_layers=9)


def test_a_student_keeps_what_kind_each_layer_is(tmp_path: Path) -> None:
    """Catches: local attention where the student learnt global attention, once it is loaded."""
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 4}
    config = ModernBertConfig(vocab_size=30, pad_token_id=0, global_attn_every_n_layers=3, **sizes)
    AutoModel.from_config(config).save_pretrained(tmp_path)
    network = fresh(tmp_path, TASK_TYPES.get(toy.TASK.type)(toy.TASK))
    kinds = [layer.attention_type for layer in network.layers]
    keep_layers(network, 2)
    assert network.config.layer_types == [layer.attention_type for layer in network.layers] == [kinds[0], kinds[3]]


class _Said(nn.Module):
    """A network whose logits (2, 4, 3) are its weights."""

    problem = "token_classification"

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(3)))


def test_a_student_follows_the_teacher_at_the_words_alone_and_by_the_weight_of_the_row() -> None:
    """Catches: [CLS], [SEP] and later pieces of words, of which the teacher learnt nothing; a doubtful row that pulls
    as a sure one does."""
    network, answers = _Said(), torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(4))
    labels = torch.tensor([[IGNORED, 0, IGNORED, 2], [IGNORED, 1, IGNORED, IGNORED]])
    batch = {"row": torch.arange(2), "labels": labels, "weight": torch.tensor([1.0, 0.25])}
    batch["attention_mask"] = torch.ones(2, 4, dtype=torch.long)

    class Nothing:
        def __call__(self, network: Any, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.zeros(()), network.logits

        def refresh(self, network: Any) -> None:
            pass

    loss, _ = _Taught(Nothing(), list(answers), 1.0)(network, batch)  # type: ignore[arg-type]
    loss.backward()
    is_word = (labels != IGNORED).numpy()
    p, q = (softmax(z.detach().numpy(), axis=-1) for z in (answers, network.logits))
    assert float(loss.detach()) == pytest.approx(rel_entr(p, q).sum(axis=-1)[is_word].sum() / 3 / 2, rel=1e-4)
    expected = (q - p) / 3 / 2 * is_word[..., None] * np.array([1.0, 0.25])[:, None, None]
    assert network.logits.grad is not None
    assert np.allclose(network.logits.grad.numpy(), expected, atol=1e-6)


def test_a_batch_without_words_is_no_distance_apart() -> None:
    nothing = torch.zeros(1, 2, dtype=torch.bool)
    assert float(distance("token_classification", torch.ones(1, 2, 3), torch.zeros(1, 2, 3), nothing, 2.0)) == 0

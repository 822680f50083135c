"""What a row weighs in training. Catches: a loss that takes every row for a whole one, a weight that no CRF feels, a
mixed row that counts more than what it is mixed with, a row without weight that trains all the same."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from conftest import LABELS
from finetune import toy
from headrace.config import FinetuneTable, LossTable, TaskTable
from headrace.finetune.crf import Crf, fresh_crf
from headrace.finetune.features import IGNORED
from headrace.finetune.losses import criterion_of
from headrace.finetune.methods.contrastive import thinned
from headrace.finetune.objectives import Batch, Objective, Plain
from headrace.finetune.robust import mixed
from headrace.finetune.running import Tuned, tune
from headrace.tasks import TASK_TYPES

WEIGHTS = [1.0, 0.25, 0.0, 1.0]
N, K, T = 4, 3, 5


class _Table(nn.Module):
    """A network whose logits are its weights."""

    def __init__(self, problem: str, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.problem, self.n_outputs = problem, K
        self.logits = nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(1)))
        self.crf: nn.ParameterDict | None = None
        self.head = nn.Identity()

    def forward(self, **_: Tensor) -> Tensor:
        found: Tensor = self.head(self.logits)
        return found


CASES: dict[str, tuple[tuple[int, ...], Tensor]] = {
    "text-classification": ((N, K), torch.tensor([0, 1, 2, 1])),
    "multi-label": ((N, K), torch.eye(K)[[0, 1, 2, 1]]),
    "text-regression": ((N, 1), torch.tensor([0.5, -1.0, 2.0, 0.0])),
    "token-classification": ((N, T, K), torch.tensor([[0, 1, 2, IGNORED, IGNORED]] * N)),
    "extractive-qa": ((N, T, 2), torch.tensor([[1, 2]] * N)),
}


def _batch(labels: Tensor, weights: list[float] | None) -> Batch:
    batch = {"labels": labels, "input_ids": torch.zeros(N, T, dtype=torch.long)}
    batch["attention_mask"] = torch.ones(N, T, dtype=torch.long)
    return batch if weights is None else {**batch, "weight": torch.tensor(weights)}


def _gradients(objective: Objective, network: _Table, batch: Batch) -> tuple[Tensor, Tensor]:
    network.zero_grad()
    loss, _ = objective(network, batch)  # type: ignore[arg-type]
    loss.backward()
    assert network.logits.grad is not None
    return loss.detach(), network.logits.grad.clone()


@pytest.mark.parametrize("name", CASES)
def test_a_row_moves_the_network_by_its_weight(name: str) -> None:
    shape, labels = CASES[name]
    settings = (
        TaskTable(type=name) if name in ("text-regression", "extractive-qa") else TaskTable(type=name, labels=LABELS)
    )
    task_type = TASK_TYPES.get(name)(settings)
    objective = Plain(criterion_of(task_type, LossTable(), []))
    network = _Table(task_type.problem, shape)
    loss, plain = _gradients(objective, network, _batch(labels, None))
    same, weighed = _gradients(objective, network, _batch(labels, WEIGHTS))
    assert float(same) == pytest.approx(float(loss), rel=1e-5)  # what is shown stays comparable
    expected = plain * torch.tensor(WEIGHTS).reshape(-1, *[1] * (plain.ndim - 1))
    assert torch.allclose(weighed, expected, atol=1e-7)


def test_a_crf_learns_its_transitions_by_weight_too() -> None:
    labels = torch.tensor([[0, 1, 2, 0, IGNORED], [2, 2, 1, IGNORED, IGNORED], [1, 0, 1, 2, 0], [0, 0, 0, 0, 0]])
    network = _Table("token_classification", (N, T, K))
    network.crf = fresh_crf(K)
    found = {}
    for name, weights in (("whole", [1.0] * N), ("first", [1.0, 0, 0, 0]), ("others", [0, 1.0, 1.0, 1.0])):
        _, emissions = _gradients(Crf(), network, _batch(labels, weights))
        found[name] = emissions, *(p.grad.clone() for p in network.crf.values() if p.grad is not None)
        network.crf.zero_grad()
    for whole, first, others in zip(found["whole"], found["first"], found["others"], strict=True):
        assert torch.allclose(whole, first + others, atol=1e-6)
        assert float(first.abs().sum()) > 0


def test_a_mixed_row_weighs_what_the_lighter_does() -> None:
    seen: dict[str, Any] = {}

    class Noting:
        def __call__(self, network: Any, batch: Batch) -> tuple[Tensor, Tensor]:
            seen.update(batch)
            return torch.tensor(0.0), network()

        def refresh(self, network: Any) -> None:
            pass

    network = _Table("single_label_classification", (N, K))
    batch = _batch(CASES["text-classification"][1], WEIGHTS)
    mixed(Noting(), network, batch, 0.7, torch.tensor([1, 0, 3, 2]))  # type: ignore[arg-type]
    assert seen["weight"].tolist() == [0.25, 0.25, 0.0, 0.0]


def test_pairs_are_drawn_by_weight() -> None:
    rows = [replace(row, weight=0.25 if i % 2 else 1.0) for i, row in enumerate(toy.rows(2000))]
    kept = thinned(rows, seed=1)
    assert sum(row.weight == 1 for row in kept) == 1000
    assert 190 < sum(row.weight == 0.25 for row in kept) < 310
    assert thinned(rows, seed=1) == kept


@pytest.mark.slow
def test_wrong_rows_of_little_weight_hardly_teach(tiny_base: Path, tmp_path: Path) -> None:
    """Two thirds of the training rows say the next label; as whole rows they would be what is learnt."""
    tuned = _tuned(tiny_base, tmp_path, weight=0.02, epochs=20)
    best = max(point["eval_metric_main"] for point in tuned.history if "eval_metric_main" in point)
    assert best > 0.9  # whole rows: .33 to .39 with three seeds


def test_a_row_without_weight_is_no_training_row(tiny_base: Path, tmp_path: Path) -> None:
    assert _tuned(tiny_base, tmp_path, weight=0.0, epochs=0.1).facts["n_train_rows"] == 120


def _tuned(base: Path, folder: Path, *, weight: float, epochs: float) -> Tuned:
    rows = toy.rows(480)
    train = [row for row in rows if row.side == "train"]
    wrong = {row.key for i, row in enumerate(train) if i % 3}
    next_of = dict(zip(LABELS, (*LABELS[1:], LABELS[0]), strict=True))
    given = [replace(r, target=next_of[r.target], weight=weight) if r.key in wrong else r for r in rows]
    settings = FinetuneTable(epochs=epochs, min_steps=1, batch_tokens=256, learning_rate=2e-3, patience=40)
    return tune(folder, base, toy.TASK, settings, given, lambda *_a, **_f: None)

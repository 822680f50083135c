"""Losses against torch's own functions and hand computation. Catches: a mean over the wrong thing, weights of the wrong
class, tokens without a label that count, an option that is silently without effect."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from headrace.config import LossTable, TaskTable
from headrace.errors import BadConfig
from headrace.finetune.features import IGNORED
from headrace.finetune.losses import class_loss, criterion_of, label_loss
from headrace.tasks import TASK_TYPES

TASKS = {
    "text-classification": TaskTable(labels=("a", "b", "c")),
    "multi-label": TaskTable(type="multi-label", labels=("a", "b", "c")),
    "text-regression": TaskTable(type="text-regression"),
    "token-classification": TaskTable(type="token-classification", labels=("X",)),
    "extractive-qa": TaskTable(type="extractive-qa"),
}


def _criterion(kind: str, features: list[dict[str, Any]] = [], **options: Any) -> Any:  # noqa: B006
    task = TASKS[kind]
    return criterion_of(TASK_TYPES.get(kind)(task), LossTable(**options), features)


def _logits(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 3


@given(st.integers(0, 1000), st.sampled_from([0.0, 0.1, 0.7]), st.booleans())
def test_classes_as_torch_computes_them(seed: int, smoothing: float, weighted: bool) -> None:
    logits = _logits(6, 4, seed=seed)
    labels = torch.tensor([0, 1, 2, 3, IGNORED, seed % 4])
    weights = torch.tensor([0.5, 1.0, 2.0, 7.0]) if weighted else None
    expected = functional.cross_entropy(logits, labels, weight=weights, label_smoothing=smoothing, ignore_index=IGNORED)
    assert torch.allclose(class_loss(logits, labels, weights=weights, smoothing=smoothing), expected, atol=1e-5)


def test_shares_as_labels_mix_their_losses() -> None:
    logits = _logits(2, 3)
    soft = torch.tensor([[0.25, 0.75, 0.0], [1.0, 0.0, 0.0]])
    expected = functional.cross_entropy(logits, soft)
    assert torch.allclose(class_loss(logits, soft), expected)


def test_focal_loss_by_hand() -> None:
    """Two classes, p of the label 0.8 and 0.3: (0.2^2 * -ln 0.8 + 0.7^2 * -ln 0.3) / 2."""
    probs = torch.tensor([[0.8, 0.2], [0.7, 0.3]])
    found = class_loss(probs.log(), torch.tensor([0, 1]), gamma=2)
    assert float(found) == pytest.approx((0.2**2 * -np.log(0.8) + 0.7**2 * -np.log(0.3)) / 2, rel=1e-5)


def test_focal_loss_of_labels_by_hand() -> None:
    probs = torch.tensor([[0.8, 0.3]])
    found = label_loss(probs.logit(), torch.tensor([[1.0, 0.0]]), gamma=2)
    assert float(found) == pytest.approx((0.2**2 * -np.log(0.8) + 0.3**2 * -np.log(0.7)) / 2, rel=1e-5)


def test_focal_loss_of_a_sure_answer_has_a_slope() -> None:
    """(1 - p)^gamma has none at p = 1 for gamma below 1, which made the gradient nan."""
    logits = torch.tensor([[200.0, 0.0]], requires_grad=True)
    class_loss(logits, torch.tensor([0]), gamma=0.5).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@given(st.integers(0, 1000), st.booleans())
def test_labels_as_torch_computes_them(seed: int, weighted: bool) -> None:
    logits, labels = _logits(5, 3, seed=seed), (_logits(5, 3, seed=seed + 1) > 0).float()
    weights = torch.tensor([0.5, 1.0, 9.0]) if weighted else None
    expected = functional.binary_cross_entropy_with_logits(logits, labels, pos_weight=weights)
    assert torch.allclose(label_loss(logits, labels, weights=weights), expected, atol=1e-5)


def test_a_batch_without_any_label_costs_nothing() -> None:
    """Texts of spaces only have no words; 0 / 0 would end the training as diverged."""
    assert float(class_loss(_logits(1, 2, 3), torch.full((1, 2), IGNORED))) == 0


def test_balanced_classes_weigh_alike_and_an_empty_one_as_one_row() -> None:
    """6 rows, 3 classes: weights 6 / (3 * 4), 6 / (3 * 2), and of the class without rows 6 / (3 * 1)."""
    features = [{"labels": k} for k in (0, 0, 0, 0, 1, 1)]
    criterion = _criterion("text-classification", features, class_weights="balanced")
    logits, labels = _logits(4, 3), torch.tensor([0, 1, 2, 0])
    expected = functional.cross_entropy(logits, labels, weight=torch.tensor([0.5, 1.0, 2.0]))
    assert torch.allclose(criterion(logits, labels), expected)


def test_balanced_tags_pass_over_what_is_no_word() -> None:
    features = [{"labels": [IGNORED, 0, 0, 1, IGNORED]}, {"labels": [IGNORED, 0, IGNORED]}]
    criterion = _criterion("token-classification", features, class_weights="balanced")
    logits, labels = _logits(1, 4, 3), torch.tensor([[IGNORED, 0, 1, 2]])
    weights = torch.tensor([4 / 9, 4 / 3, 4 / 3])
    expected = functional.cross_entropy(logits[0], labels[0], weight=weights, ignore_index=IGNORED)
    assert torch.allclose(criterion(logits, labels), expected)


def test_balanced_labels_weigh_rows_with_as_rows_without() -> None:
    features = [{"labels": [1.0, 0.0, 1.0]}, {"labels": [0.0, 0.0, 1.0]}, {"labels": [0.0, 0.0, 1.0]}]
    criterion = _criterion("multi-label", features, class_weights="balanced")
    logits, labels = _logits(2, 3), torch.tensor([[1.0, 1.0, 1.0], [0.0, 1.0, 0.0]])
    weights = torch.tensor([2.0, 3.0, 1 / 3])
    expected = functional.binary_cross_entropy_with_logits(logits, labels, pos_weight=weights)
    assert torch.allclose(criterion(logits, labels), expected)


def test_numbers_and_places() -> None:
    assert float(_criterion("text-regression")(torch.tensor([[1.0], [3.0]]), torch.tensor([0.0, 1.0]))) == 2.5
    logits = torch.full((1, 4, 2), -50.0)
    logits[0, 1, 0] = logits[0, 2, 1] = 50.0
    assert float(_criterion("extractive-qa")(logits, torch.tensor([[1, 2]]))) == pytest.approx(0)
    assert float(_criterion("extractive-qa")(logits, torch.tensor([[1, 3]]))) == pytest.approx(50)


@pytest.mark.parametrize(
    ("kind", "options", "name"),
    [
        ("text-classification", {"crf": True}, "crf"),
        ("text-regression", {"class_weights": "balanced"}, "class_weights"),
        ("extractive-qa", {"focal_gamma": 1.0}, "focal_gamma"),
        ("multi-label", {"label_smoothing": 0.1}, "label_smoothing"),
        ("token-classification", {"crf": True, "focal_gamma": 1.0}, "focal_gamma"),
    ],
)
def test_an_option_without_effect_is_refused_by_name(kind: str, options: dict[str, Any], name: str) -> None:
    with pytest.raises(BadConfig, match=rf"finetune\.loss\.{name}"):
        _criterion(kind, **options)

"""The loss of each problem, from logits and labels.

Dimensions: B inputs, T tokens, K outputs; `...` is B, or B and T for tasks on tokens.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from headrace.config import LossTable
from headrace.finetune.checking import check_loss
from headrace.finetune.features import IGNORED, Feature
from headrace.finetune.objectives import Criterion
from headrace.tasks import TaskType


def criterion_of(task_type: TaskType, settings: LossTable, features: Sequence[Feature]) -> Criterion:
    """The mean loss that suits the task type; `features` of the training side tell how frequent a class is.

    Raises:
        BadConfig: an option of the loss that this problem has no use for.
    """
    check_loss(task_type, settings)
    problem, n_classes = task_type.problem, task_type.n_outputs
    weights = None
    if settings.class_weights == "balanced":
        weights = _balance_of_labels(features) if problem.startswith("multi") else _balance(features, n_classes)
    if problem in ("single_label_classification", "token_classification"):
        gamma, smoothing = settings.focal_gamma, settings.label_smoothing
        return partial(class_loss, weights=weights, gamma=gamma, smoothing=smoothing)
    if problem == "multi_label_classification":
        return partial(label_loss, weights=weights, gamma=settings.focal_gamma)
    return {"retrieval": class_loss, "regression": _squared, "question_answering": _span}[problem]


def class_loss(
    logits: Tensor, labels: Tensor, *, weights: Tensor | None = None, gamma: float = 0.0, smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy over classes, the mean by weight of the label's class; 0 where nothing has a label.

    Args:
        logits: (..., K).
        labels: (...) classes or IGNORED, or (..., K) shares that sum to 1.
        weights: (K,) of the classes.
        gamma: focal loss: each class's term shrinks by (1 - p)^gamma (Lin et al. 2017, "Focal Loss for Dense Object
            Detection", section 3.2).
        smoothing: share of the label that is spread over all classes (Szegedy et al. 2016, "Rethinking the Inception
            Architecture", section 7).
    """
    n_classes = logits.shape[-1]
    if not labels.is_floating_point():
        one_hot = functional.one_hot(labels.clamp(min=0), n_classes)
        labels = (one_hot * (labels != IGNORED)[..., None]).to(logits.dtype)
    total = (labels if weights is None else labels * weights.to(logits)).sum()
    if smoothing:
        labels = labels * (1 - smoothing) + labels.sum(dim=-1, keepdim=True) * smoothing / n_classes
    log_probs = logits.log_softmax(dim=-1)
    terms = labels * log_probs
    if weights is not None:
        terms = terms * weights.to(logits)
    if gamma:
        terms = terms * _focus(log_probs, gamma)
    return -terms.sum() / total.clamp(min=torch.finfo(logits.dtype).tiny)


def label_loss(logits: Tensor, labels: Tensor, *, weights: Tensor | None = None, gamma: float = 0.0) -> Tensor:
    """Binary cross-entropy of every label, the mean over B and K.

    Args:
        logits: (B, K).
        labels: (B, K) from 0 to 1.
        weights: (K,) of a label that is there, beside one that is not.
        gamma: focal loss, as in `class_loss`.
    """
    there, absent = functional.logsigmoid(logits), functional.logsigmoid(-logits)
    hits, misses = labels * there, (1 - labels) * absent
    if gamma:
        hits, misses = hits * _focus(there, gamma), misses * _focus(absent, gamma)
    if weights is not None:
        hits = hits * weights.to(logits)
    return -(hits + misses).mean()


def _focus(log_probs: Tensor, gamma: float) -> Tensor:
    """(1 - p)^gamma, away from 0 where its slope has no bound."""
    return (-torch.expm1(log_probs)).clamp(min=1e-6) ** gamma


def _balance(features: Sequence[Feature], n_classes: int) -> Tensor:
    """Weights (K,) n / (K * n_k) of classes or tags; one without rows weighs what one row would."""
    parts = [torch.as_tensor(feature["labels"]).reshape(-1) for feature in features]
    weights = torch.cat([torch.full(one.shape, f.get("weight", 1.0)) for one, f in zip(parts, features, strict=True)])
    labels = torch.cat(parts)
    kept = labels != IGNORED
    counts = torch.bincount(labels[kept], weights[kept], minlength=n_classes)
    return counts.sum() / (n_classes * counts.clamp(min=1))


def _balance_of_labels(features: Sequence[Feature]) -> Tensor:
    """Weights (K,) of labels that are there: rows without it to rows with it, each counted as one at least."""
    weights = torch.tensor([feature.get("weight", 1.0) for feature in features])
    n_with = weights @ torch.tensor([feature["labels"] for feature in features]).float()
    return (weights.sum() - n_with).clamp(min=1) / n_with.clamp(min=1)


def _squared(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.mse_loss(logits.squeeze(1), labels)


def _span(logits: Tensor, labels: Tensor) -> Tensor:
    """Source: Devlin et al. 2019, "BERT", section 4.2."""
    start, end = (functional.cross_entropy(logits[..., i], labels[:, i]) for i in range(2))
    return (start + end) / 2

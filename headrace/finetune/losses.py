"""The loss of each problem, from logits and labels.

Dimensions: B inputs, T tokens, K outputs.
"""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

from headrace.config import LossTable
from headrace.finetune.features import IGNORED, Feature
from headrace.finetune.objectives import Criterion
from headrace.tasks import TaskType


def criterion_of(task_type: TaskType, settings: LossTable, features: Sequence[Feature]) -> Criterion:
    """The mean loss that suits the task type; `features` of the training side tell how frequent a class is."""
    return {
        "single_label_classification": functional.cross_entropy,
        "retrieval": functional.cross_entropy,
        "multi_label_classification": functional.binary_cross_entropy_with_logits,
        "regression": _squared,
        "token_classification": _tags,
        "question_answering": _span,
    }[task_type.problem]


def _squared(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.mse_loss(logits.squeeze(1), labels)


def _tags(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)


def _span(logits: Tensor, labels: Tensor) -> Tensor:
    """Source: Devlin et al. 2019, "BERT", section 4.2."""
    start, end = (functional.cross_entropy(logits[..., i], labels[:, i]) for i in range(2))
    return (start + end) / 2

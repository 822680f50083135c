"""Have a fresh head answer what is known without the text, so that training need not learn it first."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from headrace.checkpoints.network import Network
from headrace.tasks import TaskType


def start_at_prior(
    network: Network, task_type: TaskType, targets: Sequence[Any], row_weights: Sequence[float] | None = None
) -> None:
    """Set the head's bias: the log share of each class, the log odds of each label, 0 for a standardised number.

    Args:
        row_weights: how much each row counts; 1 where None.
    """
    if task_type.problem not in ("single_label_classification", "multi_label_classification", "regression"):
        return
    if network.head.bias is None:
        return
    encoded = task_type.encode_targets(targets)
    weights = np.ones(len(encoded)) if row_weights is None else np.asarray(row_weights)
    if task_type.problem == "regression":
        prior = np.zeros(1)
    elif task_type.problem == "multi_label_classification":
        shares = (weights @ encoded + 0.5) / (weights.sum() + 1)  # a label without rows stays possible
        prior = np.log(shares / (1 - shares))
    else:
        counts = np.bincount(encoded, weights, minlength=task_type.n_outputs) + 1.0  # and so does a class
        prior = np.log(counts / counts.sum())
    with torch.no_grad():
        network.head.bias.copy_(torch.as_tensor(prior, dtype=network.head.bias.dtype))

"""Have a fresh head answer what is known without the text, so that training need not learn it first."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from headrace.checkpoints.network import Network
from headrace.checkpoints.windows import Words
from headrace.records import SnapshotRow
from headrace.tasks import FloatArray


def start_at_prior(network: Network, task_type: Any, rows: Sequence[SnapshotRow]) -> None:
    """Set the head's bias: log share of each class or tag, log odds of each label, 0 for a standardised number.

    Where most words have one tag, a head that has to learn so first moves the whole model to that: some methods lose
    all entities then (docs/log.md, "Entities start at the prior").
    Source: Lin et al. 2017, "Focal Loss for Dense Object Detection", arXiv 1708.02002, section 3.3.

    Args:
        rows: those to train on; each counts by its weight.
    """
    if network.head.bias is None:
        return
    weights, targets = np.asarray([row.weight for row in rows]), [row.target for row in rows]
    if task_type.problem == "regression":
        prior: FloatArray = np.zeros(1)
    elif task_type.problem == "multi_label_classification":
        shares = (weights @ task_type.encode_targets(targets) + 0.5) / (
            weights.sum() + 1
        )  # one without rows is possible
        prior = np.log(shares / (1 - shares))
    elif task_type.problem == "single_label_classification":
        prior = _log_shares(_counts(task_type, task_type.encode_targets(targets), weights))
    elif task_type.problem == "token_classification":
        tags = [task_type.tags_of(row.target, Words(row.text).spans) for row in rows]
        n_words = [len(of_row) for of_row in tags]
        prior = _log_shares(_counts(task_type, np.concatenate(tags), np.repeat(weights, n_words)))
    else:
        return
    with torch.no_grad():
        network.head.bias.copy_(torch.as_tensor(prior, dtype=network.head.bias.dtype))


def _counts(task_type: Any, found: NDArray[np.int64], weights: FloatArray) -> FloatArray:
    """How often each class was found (K,)."""
    return np.bincount(found, weights, minlength=task_type.n_outputs).astype(np.float64)


def _log_shares(counts: FloatArray) -> FloatArray:
    seen = counts + 1.0  # so that a class without rows stays possible
    return np.asarray(np.log(seen / seen.sum()))

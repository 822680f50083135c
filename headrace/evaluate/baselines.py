"""What a fine-tuned model has to beat: answers that need no training, or only a frozen base model. Pure."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.tasks import FloatArray, TaskType

_RIDGE = 1.0  # penalty on the weights of unit vectors; scikit-learn's default too


def majority(task_type: TaskType, targets: Sequence[Any], *, n: int) -> FloatArray:
    """The same answer n times, logits (n, K): the most frequent class of the training targets, or their mean.

    The logits are log frequencies, so the confidence is the class's share.
    """
    truth = task_type.encode_targets(targets)
    if task_type.problem == "regression":
        row = np.array([truth.mean()])
    else:
        counts = np.bincount(truth, minlength=task_type.n_outputs)
        row = np.log(np.maximum(counts, 1e-9) / counts.sum())
    return np.tile(row.astype(np.float32), (n, 1))


def nearest_centroid(
    task_type: TaskType, train_vectors: FloatArray, targets: Sequence[Any], vectors: FloatArray
) -> FloatArray:
    """The class whose mean vector is nearest, logits (N, K) = cosines; for numbers, ridge regression on the vectors.

    Args:
        train_vectors: (M, D), of the rows with `targets` (M).
        vectors: (N, D), to answer.
    """
    truth = task_type.encode_targets(targets)
    if task_type.problem == "regression":
        return _ridge(train_vectors, truth, vectors)
    members = np.eye(task_type.n_outputs)[truth]
    centroids = _unit(members.T @ train_vectors)
    cosines = _unit(vectors.astype(np.float64)) @ centroids.T
    cosines[:, members.sum(axis=0) == 0] = -2.0  # a class that was never seen: below every cosine
    return cosines.astype(np.float32)


def _ridge(train_vectors: FloatArray, truth: NDArray[Any], vectors: FloatArray) -> FloatArray:
    centre, level = train_vectors.mean(axis=0), truth.mean()
    x = (train_vectors - centre).astype(np.float64)
    weights = np.linalg.solve(x.T @ x + _RIDGE * np.eye(x.shape[1]), x.T @ (truth - level))
    answers: FloatArray = ((vectors - centre) @ weights + level).astype(np.float32)[:, None]
    return answers


def _unit(vectors: FloatArray) -> FloatArray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: FloatArray = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
    return unit

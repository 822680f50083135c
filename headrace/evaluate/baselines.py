"""What a fine-tuned model has to beat: answers that need no training, or only a frozen base model. Pure."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.tasks import FloatArray, TaskType
from headrace.tasks.retrieval import SCALE

_ON_TOKENS = ("token_classification", "question_answering")
_NEVER = -2.0  # below every cosine
_RIDGE = 1.0  # penalty on the weights of unit vectors; scikit-learn's default too


def majority(task_type: TaskType, targets: Sequence[Any], *, n: int) -> FloatArray | None:
    """The same answer n times, logits (n, K): the most frequent class of the training targets, or their mean.

    The logits are log frequencies, or log odds of each label, so the confidence is the class's share. None for tasks on
    tokens, where one answer to all makes no sense.
    """
    if task_type.problem in _ON_TOKENS:
        return None
    truth = task_type.encode_targets(targets)
    if task_type.problem == "regression":
        row = np.array([truth.mean()])
    elif task_type.problem == "multi_label_classification":
        shares = np.clip(truth.mean(axis=0, dtype=np.float64), 1e-9, 1 - 1e-9)
        row = np.log(shares / (1 - shares))
    else:
        counts = np.bincount(truth, minlength=task_type.n_outputs)
        row = np.log(np.maximum(counts, 1e-9) / counts.sum())
    return np.tile(row.astype(np.float32), (n, 1))


def nearest_centroid(
    task_type: TaskType, train_vectors: FloatArray, targets: Sequence[Any], vectors: FloatArray
) -> FloatArray | None:
    """The class whose mean vector is nearest, logits (N, K) = cosines; for numbers, ridge regression on the vectors.

    A label of several is answered where the mean of the rows with it is nearer than that of the rows without it. None
    for tasks on tokens, whose inputs have no one vector.

    Args:
        train_vectors: (M, D), of the rows with `targets` (M).
        vectors: (N, D), to answer.
    """
    if task_type.problem in _ON_TOKENS:
        return None
    truth = task_type.encode_targets(targets)
    if task_type.problem == "regression":
        return _ridge(train_vectors, truth, vectors)
    if task_type.problem == "multi_label_classification":
        return _cosines(truth, train_vectors, vectors) - _cosines(1 - truth, train_vectors, vectors)
    cosines = _cosines(np.eye(task_type.n_outputs)[truth], train_vectors, vectors)
    return cosines * np.float32(SCALE) if task_type.problem == "retrieval" else cosines


def zero_shot(task_type: TaskType, vectors: FloatArray, entry_vectors: FloatArray) -> FloatArray:
    """The label whose text is nearest, logits (N, K) = SCALE times the cosines; no training at all.

    Args:
        vectors: (N, D), to answer.
        entry_vectors: (K, D), of the labels' texts in the order of the task type's outputs.
    """
    assert len(entry_vectors) == task_type.n_outputs
    return (SCALE * (_unit(vectors.astype(np.float64)) @ _unit(entry_vectors.astype(np.float64)).T)).astype(np.float32)


def _cosines(members: NDArray[Any], train_vectors: FloatArray, vectors: FloatArray) -> FloatArray:
    """Cosines (N, K) to the mean of each group's vectors; below every cosine for a group without rows.

    Args:
        members: (M, K) of zeros and ones.
    """
    centroids = _unit(members.T.astype(np.float64) @ train_vectors)
    cosines = _unit(vectors.astype(np.float64)) @ centroids.T
    cosines[:, members.sum(axis=0) == 0] = _NEVER
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

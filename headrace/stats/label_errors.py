"""Which labels are likely wrong, from probabilities of a model that never saw them (confident learning). numpy only.

Probabilities must be out of fold, as `linear_probe.out_of_fold` gives them: a model that was trained on a wrong label
believes it. What is found goes to people; nothing is deleted.
Source: Northcutt, Jiang and Chuang 2021, "Confident learning: estimating uncertainty in dataset labels". Dimensions: N
rows, K classes.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def self_confidence(probs: NDArray[Any], labels: Ints) -> Floats:
    """The probability of the label that was given (N): the lower, the likelier it is wrong."""
    found: Floats = np.asarray(probs, dtype=np.float64)[np.arange(len(labels)), labels]
    return found


def thresholds(probs: NDArray[Any], labels: Ints) -> Floats:
    """How sure the model is of each class on rows that have its label (K); 1 for a class without rows (equation 2)."""
    k = probs.shape[1]
    counts = np.bincount(labels, minlength=k)
    sums = np.bincount(labels, self_confidence(probs, labels), minlength=k)
    found: Floats = np.divide(sums, counts, out=np.ones(k), where=counts > 0)
    return found


def confident_classes(probs: NDArray[Any], labels: Ints) -> Ints:
    """The class that each row confidently belongs to (N), the likeliest of those at their threshold; -1 where none."""
    reached = np.asarray(probs) >= thresholds(probs, labels) - 1e-12  # a threshold that is its only row's is reached
    best = np.where(reached, probs, -1.0).argmax(axis=1)
    found: Ints = np.where(reached.any(axis=1), best, -1)
    return found


def confident_joint(probs: NDArray[Any], labels: Ints) -> Ints:
    """Counts (K, K): rows with the label of the row that confidently belong to the class of the column (equation 1)."""
    k = probs.shape[1]
    classes = confident_classes(probs, labels)
    sure = classes >= 0
    found: Ints = np.bincount(labels[sure] * k + classes[sure], minlength=k * k).reshape(k, k)
    return found


def joint(probs: NDArray[Any], labels: Ints) -> Floats:
    """Estimated shares (K, K) of label and true class: the confident joint, with each label's rows as many as there are
    (equation 3)."""
    k = probs.shape[1]
    counts = confident_joint(probs, labels).astype(np.float64)
    n_labels = np.bincount(labels, minlength=k)
    counts[np.diag_indices(k)] = np.maximum(counts.diagonal(), 1e-12)  # a label of which nothing is sure is right
    rows = counts / counts.sum(axis=1, keepdims=True) * n_labels[:, None]
    found: Floats = rows / max(1, len(labels))
    return found


@dataclass(frozen=True, eq=False)
class Suspects:
    """Labels that are likely wrong, the likeliest first."""

    rows: Ints
    """(n,) rows."""
    confidences: Floats
    """(n,) of the label given."""
    classes: Ints
    """(n,) what the model would say."""
    wrong_share: float
    """Of all labels, as the joint estimates it."""


def suspects(probs: NDArray[Any], labels: Ints, *, by: str = "both") -> Suspects:
    """Labels to show to people, in the order of the model's confidence in them.

    Args:
        probs: (N, K), out of fold.
        by: `confident`, rows that confidently belong to another class; `rate`, of each pair of label and other class as
            many rows as the joint says, those of the largest margin first; `both`, what both name.

    Raises:
        ValueError: another word in `by`.
    """
    probs = np.asarray(probs, dtype=np.float64)
    if by not in {"confident", "rate", "both"}:
        raise ValueError(f"by is confident, rate or both, not {by!r}")
    chosen = np.ones(len(labels), dtype=bool)
    if by != "rate":
        classes = confident_classes(probs, labels)
        chosen &= (classes >= 0) & (classes != labels)
    if by != "confident":
        chosen &= _by_rate(probs, labels)
    chosen &= probs.argmax(axis=1) != labels  # what the model itself would say cannot be its error
    confidences = self_confidence(probs, labels)
    rows = np.flatnonzero(chosen)
    rows = rows[np.argsort(confidences[rows], kind="stable")]
    shares = joint(probs, labels)
    return Suspects(rows, confidences[rows], probs[rows].argmax(axis=1), float(shares.sum() - np.trace(shares)))


def _by_rate(probs: Floats, labels: Ints) -> NDArray[np.bool_]:
    """The rows that pruning by noise rate names (section 3.2, method 3)."""
    chosen = np.zeros(len(labels), dtype=bool)
    n_wrong = np.rint(joint(probs, labels) * len(labels)).astype(int)
    for label, other in np.argwhere(n_wrong > 0):
        mine = np.flatnonzero(labels == label)
        if label != other:
            margins = probs[mine, other] - probs[mine, label]
            chosen[mine[np.argsort(-margins, kind="stable")[: n_wrong[label, other]]]] = True
    return chosen

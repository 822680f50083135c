"""Rows and logits for evaluation tests."""

from collections.abc import Sequence

import numpy as np

from headrace.config import TaskTable
from headrace.records import SnapshotRow
from headrace.tasks.text_classification import TextClassification
from headrace.tasks.text_regression import TextRegression

LABELS = ("no", "maybe", "yes")
CLASSES = TextClassification(TaskTable(labels=LABELS))
NUMBERS = TextRegression(TaskTable(type="text-regression"))


def rows_of(targets: Sequence[object], channels: Sequence[str] | None = None) -> list[SnapshotRow]:
    names = channels or ["web"] * len(targets)
    return [
        SnapshotRow(f"e{i}", name, f"k{i}", "text", target, "test", 1.0, "import")
        for i, (target, name) in enumerate(zip(targets, names, strict=True))
    ]


def answers(labels: Sequence[str]) -> np.ndarray:
    """Logits that answer with `labels`."""
    return (np.eye(3, dtype=np.float32) * 4)[[LABELS.index(label) for label in labels]]


def noisy(truth: Sequence[str], *, share_right: float, seed: int) -> np.ndarray:
    """Logits that are right on about `share_right` of the rows."""
    rng = np.random.default_rng(seed)
    return answers([t if rng.random() < share_right else LABELS[rng.integers(3)] for t in truth])

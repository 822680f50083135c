"""Rows and logits for evaluation tests."""

from collections.abc import Sequence

import numpy as np

from headrace.config import TaskTable
from headrace.records import SnapshotRow
from headrace.tasks import TokenLogits
from headrace.tasks.multi_label import MultiLabel
from headrace.tasks.retrieval import Retrieval
from headrace.tasks.text_classification import TextClassification
from headrace.tasks.text_regression import TextRegression
from headrace.tasks.token_classification import TokenClassification

LABELS = ("no", "maybe", "yes")
CLASSES = TextClassification(TaskTable(labels=LABELS))
NUMBERS = TextRegression(TaskTable(type="text-regression"))

SETS = MultiLabel(TaskTable(type="multi-label", labels=LABELS))
ENTRIES = Retrieval(TaskTable(type="retrieval", labels=LABELS, descriptions={label: f"{label}!" for label in LABELS}))
TAGS = TokenClassification(TaskTable(type="token-classification", labels=("PER", "ORG")))
TEXT = "Ann met Acme"
WORDS = ((0, 3), (4, 7), (8, 12))
_TAGS = {"PER": 1, "ORG": 3}


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


def tagged(targets: Sequence[Sequence[Sequence[object]]]) -> np.ndarray:
    """Outputs that answer with entities of TEXT, each of one word."""
    outputs = np.empty(len(targets), dtype=object)
    for i, target in enumerate(targets):
        logits = np.zeros((3, 5), np.float32)
        logits[:, 0] = 1
        for start, _, kind in target:
            logits[[word[0] for word in WORDS].index(start), _TAGS[kind]] = 4
        outputs[i] = TokenLogits(TEXT, np.array(WORDS, np.int32), logits, np.zeros(3, np.int32))
    return outputs

"""Rows of a toy task for fine-tuning tests."""

from conftest import LABELS, sentences
from headrace.config import TaskTable
from headrace.records import SnapshotRow

TASK = TaskTable(labels=LABELS, max_tokens=32)
REGRESSION = TaskTable(type="text-regression", max_tokens=32)


def rows(n: int = 160, *, regression: bool = False) -> list[SnapshotRow]:
    made = []
    for i, row in enumerate(sentences(n)):
        side = "validation" if i % 4 == 0 else "train"
        target = float(LABELS.index(row["label"])) - 1 if regression else row["label"]
        made.append(SnapshotRow(row["id"], "c", row["id"], row["text"], target, side, 1.0, "import"))
    return made

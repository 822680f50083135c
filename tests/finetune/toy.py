"""Rows of a toy task for fine-tuning tests."""

import random

from conftest import FILLER, LABELS, sentences
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


NER = TaskTable(type="token-classification", labels=("PER", "LOC"), max_tokens=32)
_NAMES = {"PER": ["awful", "broken slow", "hate"], "LOC": ["great lovely", "good", "fast kind"]}


def ner_rows(n: int = 120) -> list[SnapshotRow]:
    """Fillers around one name of the toy vocabulary, whose words tell its type."""
    rng = random.Random(0)
    made = []
    for i in range(n):
        kind = rng.choice(list(_NAMES))
        before, name, after = rng.choices(FILLER, k=rng.randrange(1, 6)), rng.choice(_NAMES[kind]), rng.choices(FILLER)
        start = len(" ".join(before)) + 1
        target = [[start, start + len(name), kind]]
        side = "validation" if i % 4 == 0 else "train"
        text = " ".join([*before, name, *after])
        made.append(SnapshotRow(f"n{i}", "c", f"n{i}", text, target, side, 1.0, "import"))
    return made

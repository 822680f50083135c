"""Checkpoints for export tests: a tiny model that has learnt nothing but answers texts differently."""

from pathlib import Path

from conftest import LABELS, sentences
from headrace.config import TaskTable

TASK = TaskTable(labels=LABELS, max_tokens=48)
REGRESSION = TaskTable(type="text-regression", max_tokens=48)
TEXTS = [
    *(row["text"] for row in sentences(60)),
    *(" ".join(["really good service"] * n) for n in range(1, 24)),
    "Awful! Hate it?",
]


def make_checkpoint(base: Path, folder: Path, *, task: TaskTable = TASK, n_outputs: int | None = None) -> Path:
    """Write a sequence-classification directory of the tiny base with a large random head."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(2)
    names = list(task.labels) or ["value"]
    n = n_outputs or len(names)
    named = dict(enumerate(names)) if n == len(names) else {i: f"LABEL_{i}" for i in range(n)}
    model = AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=n, id2label=named, label2id={v: k for k, v in named.items()}
    )
    with torch.no_grad():
        for name, weights in model.named_parameters():  # random weights of usual size answer all texts alike
            if weights.ndim == 2:
                weights.mul_(8 if "embedding" in name else 4)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder

"""Rows of a toy task of every type: words that stand for their labels, in a few fillers."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from conftest import FILLER, LABELS, WORDS
from finetune import toy
from headrace.config import TaskTable
from headrace.records import SnapshotRow

TASKS = {
    "text-classification": toy.TASK,
    "text-regression": toy.REGRESSION,
    "multi-label": TaskTable(type="multi-label", labels=LABELS, max_tokens=32),
    "text-pair": TaskTable(type="text-pair", labels=("same", "other"), max_tokens=48),
    "token-classification": TaskTable(type="token-classification", labels=("POS", "NEG"), max_tokens=32),
    "extractive-qa": TaskTable(type="extractive-qa", max_tokens=48),
    "retrieval": TaskTable(
        type="retrieval", labels=LABELS, descriptions={label: " ".join(WORDS[label]) for label in LABELS}, max_tokens=32
    ),
}


def rows_of(kind: str, n: int = 160) -> list[SnapshotRow]:
    """`n` rows of the task of a type, a quarter of them for validation."""
    rows = toy.rows(n, regression=kind == "text-regression")
    if kind in ("text-classification", "text-regression", "retrieval"):
        return rows
    rng = random.Random(7)
    return [replace(row, **_parts(kind, row, rng)) for row in rows]


def _parts(kind: str, row: SnapshotRow, rng: random.Random) -> dict[str, Any]:
    text = row.text.rpartition(" ")[0]
    if kind == "multi-label":
        other = rng.choice(LABELS)
        chosen = {row.target, other}
        return {"text": f"{text} {rng.choice(WORDS[other])}", "target": [label for label in LABELS if label in chosen]}
    if kind == "text-pair":
        other = rng.choice(LABELS)
        pair = f"{rng.choice(FILLER)} {rng.choice(WORDS[other])}"
        return {"text": text, "text_pair": pair, "target": "same" if other == row.target else "other"}
    if kind == "token-classification":
        types = {word: kind for kind, label in (("POS", "positive"), ("NEG", "negative")) for word in WORDS[label]}
        return {"text": text, "target": [[*span, types[word]] for word, span in _words(text) if word in types]}
    known = {word: span for word, span in _words(text) if word in WORDS[row.target]}
    word = next(iter(known))
    return {"text": f"the {word}", "text_pair": text, "target": {"answers": [{"text": word, "start": known[word][0]}]}}


def _words(text: str) -> list[tuple[str, tuple[int, int]]]:
    found, start = [], 0
    for word in text.split(" "):
        found.append((word, (start, start + len(word))))
        start += len(word) + 1
    return found


def make_lively(base: Path, folder: Path) -> Path:
    """A copy of the tiny base with larger weights; random layers of usual size make all texts alike to the head."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(base)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.ndim == 2 and "embeddings" not in name:
                weights.mul_(12 if "value" in name or "attention.output" in name else 8)
        model.get_input_embeddings().weight.mul_(20)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder

"""int8 of the built-in base model. Catches: kernels that are wrong at one length only, as OpenVINO's with bf16 are
where the length is the head size, 32, on processors with AMX. The tiny model of the other tests does not show it."""

from pathlib import Path

import numpy as np
import pytest

from conftest import LABELS
from headrace.config import TaskTable
from headrace.export import BACKENDS
from headrace.finetune import base_models

TASK = TaskTable(labels=LABELS)
WORDS = [
    "the",
    "film",
    "was",
    "good",
    "but",
    "phone",
    "is",
    "bad",
    "and",
    "service",
    "slow",
    "today",
    "so",
    "we",
    "left",
]


def text(n_tokens: int, turn: int = 0) -> str:
    """Every word is one token; two more open and close the text."""
    return " ".join(WORDS[(i * (turn + 1) + turn) % len(WORDS)] for i in range(n_tokens - 2))


@pytest.mark.slow
def test_int8_is_right_at_every_padded_length(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    head_only(base_models.find("minilm-l6").folder, checkpoint)
    (tmp_path / "int8").mkdir()
    calibration = [text(n, n) for n in range(4, 60, 2)]
    backend = BACKENDS.get("openvino")
    facts = backend.write(checkpoint, tmp_path / "int8", task=TASK, precision="int8", calibration=calibration)
    predictor = backend.load(tmp_path / "int8", facts)
    texts = [text(n, turn) for n in range(8, 129, 8) for turn in range(4)]
    alone = np.concatenate([predictor.logits([one]) for one in texts])
    # beside a longer text, each row is padded to another length
    beside = np.stack([predictor.logits([one, text(min(128, len(one.split()) + 12))])[0] for one in texts])
    distance = np.abs(alone - beside).max(axis=1) / alone.std()
    assert distance.max() < 0.25, dict(zip(range(8, 129, 8), distance.reshape(-1, 4).max(axis=1).round(2), strict=True))


def head_only(base: Path, folder: Path) -> None:
    """The base model as it is, with a head of random weights."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(0)
    names = dict(enumerate(LABELS))
    model = AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=3, id2label=names, label2id={name: i for i, name in names.items()}
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)

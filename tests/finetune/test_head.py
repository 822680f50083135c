"""The frozen base with a head. Catches: a base model that moves, a wrong form, retrieval that trains nothing."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from finetune import toy
from finetune.toy_tasks import TASKS, rows_of
from headrace.config import FinetuneTable
from headrace.errors import BadInput
from headrace.finetune.running import tune

SETTINGS = FinetuneTable(method="head", epochs=1, min_steps=4, batch_tokens=256, precision="fp32")


@pytest.mark.parametrize("kind", ["multi-label", "text-pair", "token-classification", "extractive-qa"])
def test_only_the_head_moves(tiny_base: Path, tmp_path: Path, kind: str) -> None:
    tuned = tune(tmp_path, tiny_base, TASKS[kind], SETTINGS, rows_of(kind), lambda *_a, **_f: None)
    on_tokens = kind in ("token-classification", "extractive-qa")
    assert tuned.network.form == ("head" if on_tokens else "embedding")
    before = AutoModel.from_pretrained(tiny_base).state_dict()
    after = tuned.network.encoder.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in after)
    assert tuned.facts["n_trained_parameters"] == sum(p.numel() for p in tuned.network.head.parameters())
    assert tuned.facts["learning_rate"] == (5e-3 if on_tokens else 0.1)


def test_retrieval_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot do a retrieval task"):
        tune(tmp_path, tiny_base, TASKS["retrieval"], SETTINGS, toy.rows(), lambda *_a, **_f: None)

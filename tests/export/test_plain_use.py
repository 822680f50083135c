"""An exported folder used as its model card says. Catches: a pipeline of transformers that answers by a head made at
random, bf16 weights that sentence-transformers cannot multiply, texts cut elsewhere than headrace cuts them."""

import os
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headrace.checkpoints.loading import fresh
from headrace.checkpoints.saving import save
from headrace.evaluate.plain_use import library_of, lines_for
from headrace.export import BACKENDS, write_facts
from headrace.tasks import TASK_TYPES
from small_checkpoint import TASK, TEXTS

LONG = " ".join(TEXTS[:60])


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "near"), [("fp32", 1e-4), ("bf16", 0.02)])
def test_vectors_under_a_linear_layer(precision: str, near: float, tiny_base: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, pipeline

    task_type = TASK_TYPES.get(TASK.type)(TASK)
    torch.manual_seed(0)
    network = fresh(tiny_base, task_type, form="embedding")
    checkpoint, folder = tmp_path / "checkpoint", tmp_path / "out"
    checkpoint.mkdir()
    folder.mkdir()
    save(network, AutoTokenizer.from_pretrained(tiny_base), checkpoint)
    format_ = BACKENDS.get("hf")
    facts = format_.write(checkpoint, folder, task=TASK, precision=precision, calibration=TEXTS)
    facts = facts.model_copy(update={"calibration": {"temperature": 0.02}})
    write_facts(folder, facts)
    known: dict[str, Any] = {}
    with chdir(folder):
        exec(lines_for(library_of("hf", os.listdir(folder)), TASK), known)
        found = [known["answer"](text) for text in (TEXTS[0], LONG)]
    own = task_type.decode(format_.load(folder, facts).logits([TEXTS[0], LONG]), {"temperature": 0.02})
    for mine, theirs in zip(own, found, strict=True):
        assert np.allclose(list(mine["scores"].values()), [theirs[label] for label in mine["scores"]], atol=near)
    with pytest.raises(ValueError), pytest.warns(UserWarning, match="zero-element"):  # noqa: PT011  NumPy's own
        pipeline("text-classification", str(folder))(TEXTS[0])

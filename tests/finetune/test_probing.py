"""The speed of training here, tried. Catches: steps in another precision, or with other activations kept, than those
that training will have."""

from pathlib import Path
from typing import Any

import pytest
import torch

from finetune import toy
from headrace.checkpoints.loading import fresh
from headrace.config import FinetuneTable
from headrace.finetune import probing

N_INPUTS = 40


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_steps_are_those_of_training(
    precision: Any, checkpointing: bool, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[bool] = []

    def watched(*args: Any, **options: Any) -> Any:
        network = fresh(*args, **options)
        note = lambda *_args: passes.append(torch.is_autocast_enabled("cpu"))  # noqa: E731
        network.layers[0].attention.register_forward_hook(note)
        return network

    monkeypatch.setattr(probing, "fresh", watched)
    settings = FinetuneTable(precision=precision, gradient_checkpointing=checkpointing, batch_tokens=64)
    texts = [row.text for row in toy.rows(N_INPUTS)]
    speed = probing.measure(tiny_base, toy.TASK, texts, settings)
    assert set(passes) == {precision == "bf16"}
    assert len(passes) == 7 * (2 if checkpointing else 1)  # a backward pass computes them again
    more = probing.measure(tiny_base, toy.TASK, texts, settings.model_copy(update={"batch_tokens": 256}))
    assert speed.n_batches > more.n_batches
    assert speed.batch_s > 0

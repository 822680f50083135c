"""Heads that a checkpoint holds as zeros. Catches: an export that computes them all the same, or answers otherwise."""

from pathlib import Path

import numpy as np
import pytest

from headrace.checkpoints.heads import attentions, pad
from headrace.checkpoints.loading import load
from headrace.checkpoints.saving import save
from headrace.export import BACKENDS, checkpoint
from headrace.tasks import TASK_TYPES
from small_checkpoint import TASK, TEXTS, make_checkpoint


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_heads_that_are_zeros_are_left_out(backend: str, tiny_base: Path, tmp_path: Path) -> None:
    if backend == "onnxruntime":
        pytest.importorskip("onnxruntime")
    network, tokenizer = load(make_checkpoint(tiny_base, tmp_path / "whole"), TASK_TYPES.get(TASK.type)(TASK))
    attentions(network)[0].keep([1])
    n_parameters = sum(p.numel() for p in network.parameters())
    pad(network)
    (tmp_path / "cut").mkdir()
    save(network, tokenizer, tmp_path / "cut")
    (tmp_path / "out").mkdir()
    format_ = BACKENDS.get(backend)
    facts = format_.write(tmp_path / "cut", tmp_path / "out", task=TASK, precision="fp32", calibration=TEXTS)
    assert facts.n_parameters == n_parameters < sum(p.numel() for p in network.parameters())
    found = format_.load(tmp_path / "out", facts).logits(TEXTS[:20])
    assert np.allclose(found, checkpoint.load(tmp_path / "cut", TASK).logits(TEXTS[:20]), atol=1e-3)

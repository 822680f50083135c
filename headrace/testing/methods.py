"""What every fine-tuning method must do, on a toy task that a second of training solves."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headrace.config import FinetuneTable, TaskTable
from headrace.records import SnapshotRow
from headrace.registry import resolve


def check_method(name: str, base_folder: Path, task: TaskTable, rows: Sequence[SnapshotRow]) -> None:
    """Loss falls; the same seed gives the same weights; what is frozen stays; the result is a plain model.

    Raises:
        AssertionError: naming what the method got wrong.
    """
    settings = FinetuneTable(method=name, epochs=2, batch_tokens=256, seed=3)
    first, again = (_tuned(base_folder, task, settings, rows) for _ in range(2))
    losses = [entry["loss"] for entry in first.history if "loss" in entry]
    assert len(losses) >= 2, f"{name}: no learning curve"
    assert min(losses[1:]) < losses[0], f"{name}: the loss did not fall: {losses}"
    weights, same = _weights(first.model), _weights(again.model)
    assert weights.keys() == same.keys(), f"{name}: other weights the second time"
    for key, value in weights.items():
        assert np.array_equal(value, same[key]), f"{name}: same seed, other {key}"
    assert type(first.model).__module__.startswith("transformers."), f"{name}: finish() left a wrapped model"
    assert 0 < first.facts["n_trained_parameters"] <= first.facts["n_parameters"], f"{name}: nothing trains"
    _check_frozen(name, base_folder, weights, first.facts)


def _check_frozen(name: str, base_folder: Path, weights: dict[str, Any], facts: dict[str, Any]) -> None:
    from safetensors.numpy import load_file

    base = load_file(base_folder / "model.safetensors")
    moved = {
        key
        for key, value in weights.items()
        if (theirs := base.get(key.partition(".")[2])) is not None and not np.array_equal(value, theirs)
    }
    n_moved = sum(weights[key].size for key in moved)
    if name == "lora":  # merged into the weights it updated, so more of them moved than trained
        assert moved, f"{name}: no weight of the base model moved"
    else:
        assert n_moved <= facts["n_trained_parameters"], f"{name}: frozen weights moved: {sorted(moved)[:5]}"


def _tuned(base_folder: Path, task: TaskTable, settings: FinetuneTable, rows: Sequence[SnapshotRow]) -> Any:
    tune = resolve("headrace.finetune.running:tune", purpose="fine-tuning")
    with tempfile.TemporaryDirectory() as folder:
        return tune(Path(folder), base_folder, task, settings, rows, lambda *_args, **_facts: None)


def _weights(model: Any) -> dict[str, Any]:
    return {key: value.detach().cpu().numpy() for key, value in model.state_dict().items()}

"""States of frozen layers kept on disk. Catches: another result than without, rows mixed up between sides, a file of
other weights or texts taken for these, a folder that outgrows its bound, a half-written file read."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from conftest import make_tiny_base
from finetune import toy
from finetune.toy_tasks import TASKS, rows_of
from headrace.checkpoints.loading import fresh
from headrace.config import FinetuneTable
from headrace.finetune.activations import _cut_of, _make_room
from headrace.finetune.running import Tuned, tune
from headrace.tasks.text_classification import TextClassification

SETTINGS = FinetuneTable(epochs=1, min_steps=6, batch_tokens=256, evals_per_epoch=1, precision="fp32")

# A softmax over tokens is the same whatever is added to them all: its slope is rounding alone, which AdamW scales up.
_FREE = {"model.qa_outputs.bias"}


def _tune(folder: Path, base: Path, kind: str, *, cache: Path | None = None, **changes: object) -> Tuned:
    settings = FinetuneTable.model_validate(SETTINGS.model_dump() | changes)
    return tune(folder, base, TASKS[kind], settings, rows_of(kind, 80), lambda *_a, **_f: None, cache=cache)


def _greatest_gap(a: Tuned, b: Tuned) -> float:
    one, other = a.network.state_dict(), b.network.state_dict()
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one if name not in _FREE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "kind", "gap"),
    [
        ("head", "text-classification", 1e-5),
        ("head", "token-classification", 1e-5),
        ("head", "extractive-qa", 1e-5),
        ("freeze", "text-regression", 1e-5),
        ("freeze", "text-pair", 1e-5),
    ],
)
def test_the_same_weights_as_without(tiny_base: Path, tmp_path: Path, method: str, kind: str, gap: float) -> None:
    cache = tmp_path / "cache"
    plain = _tune(tmp_path / "a", tiny_base, kind, method=method)
    assert not plain.facts["activations"]["cached"]
    first = _tune(tmp_path / "b", tiny_base, kind, cache=cache, method=method)
    second = _tune(tmp_path / "c", tiny_base, kind, cache=cache, method=method)
    assert [t.facts["activations"]["hit"] for t in (first, second)] == [False, True]
    assert _greatest_gap(plain, first) <= gap
    assert _greatest_gap(first, second) == 0
    measured = [[e["eval_loss"] for e in t.history if "eval_loss" in e] for t in (plain, first)]
    assert np.allclose(*measured, atol=1e-4)
    assert not any("forward" in m.__dict__ for m in first.network.modules())


def test_bf16_stays_within_rounding(tiny_base: Path, tmp_path: Path) -> None:
    changes = {"method": "freeze", "precision": "bf16"}
    plain = _tune(tmp_path / "a", tiny_base, "text-classification", **changes)
    kept = _tune(tmp_path / "b", tiny_base, "text-classification", cache=tmp_path / "cache", **changes)
    assert kept.facts["activations"]["cached"]
    assert _greatest_gap(plain, kept) < 2e-3
    width = kept.network.config.hidden_size
    assert kept.facts["activations"]["n_bytes"] % (2 * width) == 0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"dropout": 0.1}, "dropout"),
        ({"robust": {"adversarial": "fgm"}}, "adversarial"),
        ({"gradient_checkpointing": True}, "gradient_checkpointing"),
        ({"cache_bytes": 0}, "cache_bytes is 0"),
        ({"cache_bytes": 500}, "more than finetune.cache_bytes"),
    ],
)
def test_off_where_it_cannot_be_and_says_why(
    tiny_base: Path, tmp_path: Path, changes: dict[str, object], reason: str
) -> None:
    cache = tmp_path / "cache"
    tuned = _tune(tmp_path / "a", tiny_base, "text-classification", cache=cache, method="freeze", **changes)
    facts = tuned.facts["activations"]
    assert not facts["cached"]
    assert reason in facts["reason"]
    assert not list(cache.glob("*"))


def test_nothing_is_said_where_nothing_is_frozen(tiny_base: Path, tmp_path: Path) -> None:
    assert "activations" not in _tune(tmp_path, tiny_base, "text-classification", cache=tmp_path / "c").facts


def test_a_family_that_cannot_be_cut_trains_as_a_whole(tiny_base: Path, tmp_path: Path) -> None:
    """Electra widens its embeddings between them and the first layer, which a pass from states does once more."""
    base = toy.base_of_family("electra", tiny_base, tmp_path / "base")
    tuned = _tune(tmp_path / "run", base, "text-classification", cache=tmp_path / "cache", method="freeze")
    facts = tuned.facts["activations"]
    assert (facts["cached"], facts["reason"]) == (False, "the layers of this model family cannot be cut off")
    assert not any("forward" in m.__dict__ for m in tuned.network.modules())


@pytest.mark.parametrize("family", ["mpnet", "deberta-v2"])
def test_what_frozen_layers_share_with_others_is_frozen_too(family: str, tiny_base: Path, tmp_path: Path) -> None:
    base = toy.base_of_family(family, tiny_base, tmp_path / "base")
    plain = _tune(tmp_path / "a", base, "text-classification", method="freeze")
    kept = _tune(tmp_path / "b", base, "text-classification", cache=tmp_path / "cache", method="freeze")
    assert kept.facts["activations"]["cached"]
    assert _greatest_gap(plain, kept) <= 1e-5
    before = load_file(base / "model.safetensors")
    after = {name.split(".", 1)[1]: t for name, t in plain.network.encoder.state_dict(prefix="e.").items()}
    same = {name for name, tensor in after.items() if name in before and torch.equal(tensor, before[name])}
    assert {name for name in after if name.startswith(("embeddings.", "encoder.layer.0", "encoder.rel"))} <= same
    assert not {name for name in after if name.startswith("encoder.layer.1") and "key.bias" not in name} & same


def test_layers_that_read_what_trains_are_not_cut_off(tiny_base: Path, tmp_path: Path) -> None:
    base = toy.base_of_family("mpnet", tiny_base, tmp_path / "base")
    network = fresh(base, TextClassification(TASKS["text-classification"]))
    for name, parameter in network.encoder.named_parameters():
        parameter.requires_grad = "layer.1" in name or "relative" in name
    cut = _cut_of(network)
    ids = torch.tensor([[1, 7, 8]])
    assert cut is not None
    assert cut.reads_what_trains({"input_ids": ids, "attention_mask": torch.ones_like(ids)})


def test_a_family_without_a_list_of_layers_trains_as_a_whole(tiny_base: Path, tmp_path: Path) -> None:
    base = toy.base_of_family("albert", tiny_base, tmp_path / "base")
    tuned = _tune(tmp_path / "run", base, "text-classification", cache=tmp_path / "cache")
    assert "activations" not in tuned.facts
    assert tuned.history


def test_the_least_recently_used_file_goes(tiny_base: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"

    def hit(kind: str, n: str) -> bool:
        tuned = _tune(tmp_path / n, tiny_base, kind, cache=cache, method="head", cache_bytes=25_000)
        return bool(tuned.facts["activations"]["hit"])

    # each file has 80 vectors of 32 numbers, 10,240 bytes and a header: two of them fit
    assert not hit("text-classification", "1")
    assert not hit("multi-label", "2")
    assert hit("text-classification", "3")
    assert not hit("text-pair", "4")
    assert sum(path.stat().st_size for path in cache.iterdir()) <= 25_000
    assert hit("text-classification", "5")
    assert not hit("multi-label", "6")


def test_other_weights_are_another_file_and_a_broken_one_is_made_again(tmp_path: Path) -> None:
    base, cache = make_tiny_base(tmp_path / "base"), tmp_path / "cache"
    right = _tune(tmp_path / "1", base, "text-classification", cache=cache, method="head")
    (path,) = cache.iterdir()
    path.write_bytes(path.read_bytes()[:-100])
    again = _tune(tmp_path / "2", base, "text-classification", cache=cache, method="head")
    assert not again.facts["activations"]["hit"]
    assert _greatest_gap(right, again) == 0
    from transformers import AutoModel

    model = AutoModel.from_pretrained(base)
    with torch.no_grad():
        model.encoder.layer[1].output.dense.bias += 0.5
    model.save_pretrained(base)
    other = _tune(tmp_path / "3", base, "text-classification", cache=cache, method="head")
    assert not other.facts["activations"]["hit"]
    assert len(list(cache.iterdir())) == 2


def test_what_others_have_in_the_folder_is_left_alone(tmp_path: Path) -> None:
    """Catches: a crash at the folder of another process; a file that another process is writing taken away."""
    (tmp_path / "process-1").mkdir()
    for name, age_s in (("old.npy", 300), ("new.npy", 200), ("writing.part", 400), ("dead.part", 200_000)):
        (tmp_path / name).write_bytes(b"1234")
        os.utime(tmp_path / name, (time.time() - age_s,) * 2)
    _make_room(tmp_path, 4)
    assert {path.name for path in tmp_path.iterdir()} == {"process-1", "new.npy", "writing.part"}

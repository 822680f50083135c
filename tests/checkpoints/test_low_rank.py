"""Adapters as plain arrays. Catches: a directory that peft reads otherwise than we do, a digest that misses a change or
hangs on the order of names, files that are not whole read as an adapter, torch on the serving path."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from headrace.checkpoints import low_rank
from headrace.checkpoints.low_rank import LowRank
from headrace.errors import Damaged

FAMILIES = {  # name -> (config, linear layers that are updated, head); DistilBERT has a pre_classifier beside its head
    "bert": (
        lambda: transformers.BertConfig(
            vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8, num_labels=3
        ),
        ("bert.encoder.layer.0.attention.self.query", "bert.encoder.layer.1.attention.self.value"),
        "classifier",
    ),
    "roberta": (
        lambda: transformers.RobertaConfig(
            vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8, num_labels=3
        ),
        ("roberta.encoder.layer.0.attention.self.query", "roberta.encoder.layer.1.attention.self.value"),
        "classifier.out_proj",
    ),
    "distilbert": (
        lambda: transformers.DistilBertConfig(
            vocab_size=50, dim=16, n_layers=2, n_heads=2, hidden_dim=8, num_labels=3
        ),
        ("distilbert.transformer.layer.0.attention.q_lin", "distilbert.transformer.layer.1.attention.v_lin"),
        "classifier",
    ),
}  # fmt: skip


def drawn(paths: tuple[str, ...] = ("x.query", "x.value"), head: str = "classifier", seed: int = 0) -> LowRank:
    rng = np.random.default_rng(seed)

    def some(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    return LowRank(2.0, {path: (some(4, 16), some(16, 4)) for path in paths}, (some(3, 16), some(3)), head)


@pytest.mark.parametrize("family", FAMILIES)
def test_peft_loads_the_directory_and_answers_as_the_arrays_say(family: str, tmp_path: Path) -> None:
    from peft import PeftModel

    config, paths, head = FAMILIES[family]
    torch.manual_seed(0)
    shared = transformers.AutoModelForSequenceClassification.from_config(config()).eval()
    shared.save_pretrained(tmp_path / "shared")
    own = drawn(paths, head)
    low_rank.write(tmp_path / "own", own, base="shared")
    with torch.no_grad():  # the arrays added to the weights by hand
        for path, (a, b) in own.updates.items():
            shared.get_submodule(path).weight += own.scale * torch.from_numpy(b @ a)
        assert own.head is not None
        shared.get_submodule(head).weight.copy_(torch.from_numpy(own.head[0]))
        shared.get_submodule(head).bias.copy_(torch.from_numpy(own.head[1]))
        ids = torch.randint(5, 50, (4, 9))
        expected = shared(ids).logits
        fresh = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "shared")
        found = PeftModel.from_pretrained(fresh, str(tmp_path / "own")).eval()(ids).logits
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("has_head", [True, False])
def test_what_is_written_is_read_back(tmp_path: Path, has_head: bool) -> None:
    own = drawn() if has_head else replace(drawn(), head=None, head_path="")
    low_rank.write(tmp_path / "a", own, base="shared")
    low_rank.write(tmp_path / "b", own, base="shared")
    found = low_rank.read(tmp_path / "a")
    assert (found.scale, found.rank, found.head_path) == (own.scale, 4, own.head_path)
    assert low_rank.weights_digest(found) == low_rank.weights_digest(own)
    assert all(np.array_equal(x, y) for p in own.updates for x, y in zip(own.updates[p], found.updates[p], strict=True))
    for name in (low_rank.CONFIG, low_rank.WEIGHTS):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_digest_is_of_what_is_added_alone() -> None:
    own = drawn()
    digest = low_rank.weights_digest(own)
    assert digest.startswith("sha256:")
    assert low_rank.weights_digest(replace(own, updates=dict(reversed(own.updates.items())))) == digest
    as_fortran = {path: (np.asfortranarray(a), b) for path, (a, b) in own.updates.items()}
    assert low_rank.weights_digest(replace(own, updates=as_fortran)) == digest
    scaled = {path: (a, b * 2) for path, (a, b) in own.updates.items()}  # by a power of two, so exactly
    assert low_rank.weights_digest(replace(own, scale=1.0, updates=scaled)) == digest
    a, b = own.updates["x.query"]
    nudged = a.copy()
    nudged[0, 0] = np.nextafter(nudged[0, 0], np.float32(9))
    assert own.head is not None
    others = [
        replace(own, scale=3.0),
        replace(own, head=None),
        replace(own, head=(own.head[0] * 2, own.head[1])),
        replace(own, updates={**own.updates, "x.query": (nudged, b)}),
        replace(own, updates={**own.updates, "x.query": (a.reshape(8, 8), b)}),
        replace(own, updates={"y.query": (a, b), "x.value": own.updates["x.value"]}),
    ]
    assert len({digest, *(low_rank.weights_digest(other) for other in others)}) == 7


def test_what_is_not_whole_is_damaged(tmp_path: Path) -> None:
    low_rank.write(tmp_path / "own", drawn(), base="shared")
    weights, config = tmp_path / "own" / low_rank.WEIGHTS, tmp_path / "own" / low_rank.CONFIG
    whole, facts = weights.read_bytes(), json.loads(config.read_text("utf-8"))
    for kept in (0, 7, len(whole) // 2, len(whole) - 1):
        weights.write_bytes(whole[:kept])
        with pytest.raises(Damaged, match="safetensors file"):
            low_rank.read(tmp_path / "own")
    weights.write_bytes(whole)
    for broken in ("{", "[]", json.dumps({**facts, "r": 0}), json.dumps({**facts, "target_modules": ["x.key"]}),
                   json.dumps({**facts, "target_modules": ["x.query"]})):  # fmt: skip
        config.write_text(broken, "utf-8")
        with pytest.raises(Damaged, match="cannot be read"):
            low_rank.read(tmp_path / "own")
    with pytest.raises(Damaged, match="cannot be read"):
        low_rank.read(tmp_path / "nowhere")


def test_reading_needs_no_torch() -> None:
    code = "import sys, headrace.checkpoints.low_rank; sys.exit('torch' in sys.modules or 'peft' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

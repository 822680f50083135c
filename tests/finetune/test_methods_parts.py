"""What methods do to other kinds of models, and the settings they refuse.

Catches: a merge that changes answers, a layer found by a name that only BERT has, a prompt that a saved tokenizer
forgets or that stands before the first token, a bad setting met with a traceback.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoTokenizer,
    DistilBertConfig,
    DistilBertModel,
    ModernBertConfig,
    ModernBertModel,
    RobertaConfig,
    RobertaModel,
)

from finetune import toy
from headrace.checkpoints.encoding import Encoder, standalone_tokenizer
from headrace.checkpoints.loading import fresh
from headrace.checkpoints.network import Network
from headrace.config import AdapterTable, FinetuneTable
from headrace.errors import BadInput
from headrace.finetune.methods import METHODS, Plan
from headrace.tasks.text_classification import TextClassification

MERGED = ["adalora", "adapter", "dora", "ia3", "lora"]
SIZES = {"vocab_size": 130, "max_position_embeddings": 80}
KINDS: dict[str, Any] = {
    "roberta": lambda: RobertaModel(
        RobertaConfig(**SIZES, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    ),
    "distilbert": lambda: DistilBertModel(DistilBertConfig(**SIZES, dim=32, n_layers=2, n_heads=2, hidden_dim=64)),
    "modernbert": lambda: ModernBertModel(
        ModernBertConfig(
            **SIZES, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, pad_token_id=0
        )
    ),
}  # fmt: skip


def base_of(kind: str, tiny_base: Path, folder: Path) -> Path:
    if kind == "bert":
        return tiny_base
    torch.manual_seed(0)
    KINDS[kind]().save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_base).save_pretrained(folder)
    return folder


def plan_for(base: Path, **settings: Any) -> Plan:
    return Plan(
        folder=base,
        base_folder=base,
        task=toy.TASK,
        task_type=TextClassification(toy.TASK),
        settings=FinetuneTable(adapter=AdapterTable(rank=4, width=8, n_virtual_tokens=5), **settings),
        tokenizer=AutoTokenizer.from_pretrained(base),
        train=toy.rows(40),
        validation=[],
    )


def stirred(network: Network) -> Network:
    """What trains, moved at random."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.requires_grad and "magnitude" not in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return network.eval()


def logits(network: Network) -> torch.Tensor:
    ids = torch.arange(10, 34).reshape(2, 12)
    with torch.inference_mode():
        return network.eval()(ids, torch.ones_like(ids))


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
@pytest.mark.parametrize("name", MERGED)
def test_a_merge_changes_no_answer(name: str, kind: str, tiny_base: Path, tmp_path: Path) -> None:
    base = base_of(kind, tiny_base, tmp_path)
    plan, method = plan_for(base), METHODS.get(name)
    network = stirred(method.prepare(fresh(base, plan.task_type), plan))
    before = logits(network)
    merged = method.finish(network, plan)
    assert torch.allclose(logits(merged), before, atol=1e-5)
    assert before.std() > 1e-3


@pytest.mark.parametrize("name", ["adapter", "prompt", "prefix", "lora", "dora", "adalora"])
def test_before_training_nothing_has_changed(name: str, tiny_base: Path) -> None:
    """Updates start at zero; prompt and prefix change what is read, but not the weights."""
    plan, method = plan_for(tiny_base), METHODS.get(name)
    torch.manual_seed(3)
    plain = logits(fresh(tiny_base, plan.task_type))
    torch.manual_seed(3)
    prepared = method.prepare(fresh(tiny_base, plan.task_type), plan)
    if name != "prefix":
        assert torch.allclose(logits(prepared), plain, atol=1e-5)
    else:
        assert not torch.allclose(logits(prepared), plain, atol=1e-7)


@pytest.mark.parametrize("kind", ["roberta", "distilbert"])
def test_a_head_that_starts_at_random_trains(kind: str, tiny_base: Path, tmp_path: Path) -> None:
    """DistilBERT's head has two layers, of which peft knows one by name."""
    base = base_of(kind, tiny_base, tmp_path)
    for name in ("lora", "bitfit", "ia3", "adapter", "freeze", "prompt"):
        plan = plan_for(base)
        network = METHODS.get(name).prepare(fresh(base, plan.task_type), plan)
        still = [n for n, p in network.named_parameters() if "classifier" in n and not p.requires_grad]
        assert not still, (name, still)


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("adapter", "modernbert", "one plain feed-forward block"),
        ("prefix", "modernbert", "takes past_key_values"),
        ("prefix", "distilbert", "takes past_key_values"),
    ],
)
def test_models_that_a_method_cannot_do(name: str, kind: str, message: str, tiny_base: Path, tmp_path: Path) -> None:
    base = base_of(kind, tiny_base, tmp_path)
    plan = plan_for(base)
    with pytest.raises(BadInput, match=message + ".*Choose method"):
        METHODS.get(name).prepare(fresh(base, plan.task_type), plan)


def test_a_family_without_a_list_of_layers(tiny_base: Path, tmp_path: Path) -> None:
    plan = plan_for(toy.base_of_family("albert", tiny_base, tmp_path))
    with pytest.raises(BadInput, match=r"needs a list of layers: AlbertModel has no list of 2 layers.*Choose method"):
        METHODS.get("freeze").prepare(fresh(tmp_path, plan.task_type), plan)


def test_settings_that_a_method_cannot_do(tiny_base: Path) -> None:
    plan = plan_for(tiny_base)
    many = replace(plan, settings=FinetuneTable(adapter=AdapterTable(n_virtual_tokens=9)))
    with pytest.raises(BadInput, match="a quarter of max_tokens, which is 8"):
        METHODS.get("prompt").prepare(fresh(tiny_base, plan.task_type), many)
    with pytest.raises(BadInput, match="the base model has 2 layers"):
        METHODS.get("freeze").prepare(fresh(tiny_base, plan.task_type), plan_for(tiny_base, frozen_layers=3))
    with pytest.raises(BadInput, match="gradient_checkpointing"):
        METHODS.get("prefix").prepare(
            fresh(tiny_base, plan.task_type), plan_for(tiny_base, gradient_checkpointing=True)
        )


CLOSINGS = {
    "template": processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    ),
    "bert": processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1)),
    "roberta": processors.RobertaProcessing(("[SEP]", 2), ("[CLS]", 1)),
    "bytes": processors.ByteLevel(trim_offsets=True),
    "both": processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=True),
            processors.TemplateProcessing(single="[CLS] $A", pair="[CLS] $A $B", special_tokens=[("[CLS]", 1)]),
        ]
    ),
    "none": None,
}


@pytest.mark.parametrize("kind", CLOSINGS)
def test_the_prompt_stands_before_the_text(kind: str, tiny_base: Path, tmp_path: Path) -> None:
    """However a tokenizer closes texts; also after it was saved and read again, and in the form for serving."""
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "[PAD]": 3, "a": 4, "b": 5}, "[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    if CLOSINGS[kind] is not None:
        inner.post_processor = CLOSINGS[kind]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]")
    plain = [tokenizer("a b"), tokenizer("a", "b b")]
    plan = replace(plan_for(tiny_base), tokenizer=tokenizer)
    METHODS.get("prompt").prepare(fresh(tiny_base, plan.task_type), plan)
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    prompt = list(range(6, 11))
    for before, given in zip(plain, [("a b",), ("a", "b b")], strict=True):
        ids = before["input_ids"]
        n = ids.index(4)
        for one in (tokenizer, again):
            assert one(*given)["input_ids"] == ids[:n] + prompt + ids[n:]
        given_one = given[0] if len(given) == 1 else given
        window = Encoder(standalone_tokenizer(again, toy.TASK)).encode([given_one])[0]
        assert window.encoding.ids == ids[:n] + prompt + ids[n:]
        types = window.encoding.type_ids
        assert types[: n + 5] == [0] * (n + 5)
    (long,) = Encoder(standalone_tokenizer(again, toy.TASK)).encode(["a " * 100])
    assert len(long) == toy.TASK.max_tokens

"""Ways to make a network smaller. Catches: a cut that is not the same as leaving the part out, matrices that do not
shrink, an importance that is not the change of the loss, a trimmed tokenizer that cuts kept texts into other pieces."""

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AlbertConfig,
    AutoModel,
    AutoTokenizer,
    BertConfig,
    DistilBertConfig,
    ModernBertConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
)

from conftest import FILLER, WORDS, sentences
from finetune import toy
from headrace.checkpoints.heads import attentions, drop_silent, pad
from headrace.checkpoints.loading import fresh, load
from headrace.checkpoints.network import Network
from headrace.checkpoints.saving import save
from headrace.config import FinetuneTable
from headrace.errors import BadConfig, BadInput, NotFound
from headrace.finetune.compressing import Step, candidate_name, feed_forward, heads, parse, vocabulary
from headrace.finetune.compressing.importance import importance
from headrace.finetune.methods import Plan
from headrace.finetune.running import _scale, _unscale
from headrace.tasks import TASK_TYPES

TASK_TYPE = TASK_TYPES.get(toy.TASK.type)(toy.TASK)
SETTINGS = FinetuneTable(batch_tokens=256, precision="fp32")
SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 128}
CONFIGS = {
    "albert": AlbertConfig(vocab_size=200, embedding_size=16, **SIZES),
    "bert": BertConfig(vocab_size=200, **SIZES),
    "roberta": RobertaConfig(vocab_size=200, **SIZES),
    "distilbert": DistilBertConfig(vocab_size=200, dim=32, n_layers=3, n_heads=4, hidden_dim=128),
    "modernbert": ModernBertConfig(vocab_size=200, pad_token_id=0, **SIZES),
}
IDS = torch.tensor([[2, 17, 30, 41, 50, 3], [2, 9, 33, 3, 0, 0]])
MASK = (IDS != 0).long()


def network_of(folder: Path, kind: str = "bert") -> Network:
    """A network of a family with lively random weights."""
    torch.manual_seed(4)
    model = AutoModel.from_config(CONFIGS[kind])
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim == 2:
                weights.mul_(6)
    model.save_pretrained(folder)
    return fresh(folder, TASK_TYPE).eval()


def logits_of(network: Network) -> np.ndarray:
    with torch.no_grad():
        return network(IDS, MASK).numpy()


def plan_of(base: Path, folder: Path, **changes: Any) -> Plan:
    rows = toy.rows(40)
    known: dict[str, Any] = {"tokenizer": AutoTokenizer.from_pretrained(base), "train": rows, "validation": rows}
    return Plan(folder, base, toy.TASK, TASK_TYPE, SETTINGS, **{**known, **changes})


def test_candidates_are_read_in_the_order_of_the_table() -> None:
    assert parse("vocabulary + layers=0.5") == (Step("layers", 0.5), Step("vocabulary", 1.0))
    assert candidate_name(parse("feed-forward=0.25+layers")) == "layers=0.5+feed-forward=0.25"
    for text in ("layers=0", "layers=1.5", "layers=half", "layers="):
        with pytest.raises(BadConfig, match="share of 'layers' that stays"):
            parse(text)
    with pytest.raises(BadConfig, match="named twice"):
        parse("layers+layers=0.3")
    with pytest.raises(NotFound, match=r"unknown name in ways: layer.*Did you mean 'layers'"):
        parse("layer=0.5")


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_a_network_without_heads_is_one_that_does_not_hear_them(tmp_path: Path, kind: str) -> None:
    cut, silenced = network_of(tmp_path / "a", kind), network_of(tmp_path / "a", kind)
    whole = logits_of(cut)
    kept = [[1], [0, 2, 3], [0, 3]]
    for one, other, mine in zip(attentions(cut), attentions(silenced), kept, strict=True):
        one.keep(mine)
        for head in set(range(4)) - set(mine):
            other.output.weight.data[:, head * 8 : (head + 1) * 8] = 0
    assert [one.n_heads for one in attentions(cut)] == [1, 3, 2]
    assert [tuple(one.projections[0].weight.shape) for one in attentions(cut)] == [(8, 32), (24, 32), (16, 32)]
    expected = logits_of(silenced)
    assert np.allclose(logits_of(cut), expected, atol=1e-5)
    assert not np.allclose(whole, expected, atol=3e-4)
    assert drop_silent(silenced) == 6
    assert np.allclose(logits_of(silenced), expected, atol=1e-5)


def test_what_is_saved_without_heads_is_plain_and_loads_small(tmp_path: Path, tiny_base: Path) -> None:
    network = network_of(tmp_path / "a")
    for one, mine in zip(attentions(network), [[1], [0, 2, 3], [0, 3]], strict=True):
        one.keep(mine)
    expected = logits_of(network)
    pad(network)
    assert np.allclose(logits_of(network), expected, atol=1e-5)
    (tmp_path / "saved").mkdir()
    save(network, AutoTokenizer.from_pretrained(tiny_base), tmp_path / "saved")
    loaded, _ = load(tmp_path / "saved", TASK_TYPE)
    assert np.allclose(logits_of(loaded), expected, atol=1e-5)
    assert drop_silent(loaded) == 6
    assert [one.n_heads for one in attentions(loaded)] == [1, 3, 2]
    assert np.allclose(logits_of(loaded), expected, atol=1e-5)
    assert drop_silent(loaded) == 0


def test_a_layer_that_hears_no_head_keeps_one(tmp_path: Path) -> None:
    network = network_of(tmp_path)
    attentions(network)[1].output.weight.data[:] = 0
    expected = logits_of(network)
    assert drop_silent(network) == 3
    assert np.allclose(logits_of(network), expected, atol=1e-5)


def test_importance_is_the_change_of_the_loss(tiny_base: Path, tmp_path: Path) -> None:
    """Against differences of the loss of single rows when a head is turned up and down a little."""
    rows = toy.rows(12)[:5]
    plan = plan_of(tiny_base, tmp_path, train=rows)
    torch.manual_seed(1)
    network = fresh(tiny_base, TASK_TYPE).double().eval()
    blocks = attentions(network)
    found = importance(network, plan, [one.output for one in blocks], width=16)
    expected = torch.zeros(2, 2)
    for row in rows:
        feed = plan.tokenizer(row.text, return_tensors="pt", truncation=True, max_length=32)
        target = torch.tensor(toy.TASK.labels.index(row.target))
        for layer, one in enumerate(blocks):
            for head in range(2):
                losses = []
                for times in (1 + 1e-4, 1 - 1e-4):
                    before = one.output.weight.data.clone()
                    one.output.weight.data[:, head * 16 : (head + 1) * 16] *= times
                    with torch.no_grad():
                        losses.append(-network(**feed)[0].log_softmax(-1)[target])
                    one.output.weight.data = before
                expected[layer, head] += abs(float(losses[0] - losses[1])) / 2e-4
    assert torch.allclose(torch.stack(found).float(), expected, rtol=1e-2)
    assert float(expected.min()) > 0


def test_heads_are_ranked_over_all_layers_and_each_keeps_one() -> None:
    scores = [[5.0, 1.0, 1.0, 1.0], [0.2, 0.1, 0.1, 0.1], [3.0, 3.0, 3.0, 2.9]]
    assert heads.kept_heads(scores, 0.5) == [[0], [0], [0, 1, 2, 3]]
    assert heads.kept_heads(scores, 0.75) == [[0], [0, 1, 2, 3], [0, 1, 2, 3]]
    assert heads.kept_heads(scores, 0.01) == [[0], [0], [0]]
    assert heads.kept_heads(scores, 1.0) == [[0, 1, 2, 3]] * 3


def test_heads_that_matter_stay(tiny_base: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = fresh(tiny_base, TASK_TYPE).eval()
    for one, dead in zip(attentions(network), (0, 1), strict=True):
        one.output.weight.data[:, dead * 16 : (dead + 1) * 16] = 0
    plan = plan_of(tiny_base, tmp_path)
    feed = plan.tokenizer("the service was great", return_tensors="pt")
    with torch.no_grad():
        expected = network(**feed)
    heads.cut(network, plan, 0.5)
    assert [one.n_heads for one in attentions(network)] == [1, 1]
    with torch.no_grad():
        assert torch.allclose(network(**feed), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "distilbert", "modernbert"])
def test_a_narrower_feed_forward_part_is_one_without_those_neurons(
    tmp_path: Path, tiny_base: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut, silenced = network_of(tmp_path / "a", kind), network_of(tmp_path / "a", kind)
    scores = [torch.rand(128, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    monkeypatch.setattr(feed_forward, "importance", lambda *_: scores)
    for block, score in zip(feed_forward._blocks(silenced), scores, strict=True):
        block.second.weight.data[:, score.argsort()[:64]] = 0
    expected = logits_of(silenced)
    feed_forward.cut(cut, plan_of(tiny_base, tmp_path), 0.5)
    assert np.allclose(logits_of(cut), expected, atol=1e-5)
    cut.model.save_pretrained(tmp_path / "saved")
    AutoTokenizer.from_pretrained(tiny_base).save_pretrained(tmp_path / "saved")
    loaded, _ = load(tmp_path / "saved", TASK_TYPE)
    assert {block.second.in_features for block in feed_forward._blocks(loaded)} == {64}
    assert np.allclose(logits_of(loaded), expected, atol=1e-5)


def test_widths_are_multiples_of_what_kernels_work_in(tiny_base: Path, tmp_path: Path) -> None:
    for share, width in ((0.6, 32), (0.01, 32), (1.0, 64)):
        network = fresh(tiny_base, TASK_TYPE)
        feed_forward.cut(network, plan_of(tiny_base, tmp_path), share)
        assert network.config.intermediate_size == width


def test_a_family_whose_layers_share_their_weights_keeps_its_heads(tmp_path: Path, tiny_base: Path) -> None:
    network = network_of(tmp_path, "albert")
    with pytest.raises(BadInput, match=r"heads cannot be cut out of this family.*albert"):
        heads.check(network, plan_of(tiny_base, tmp_path))
    assert drop_silent(network) == 0


def test_other_families_are_refused(tmp_path: Path, tiny_base: Path) -> None:
    network, plan = network_of(tmp_path, "modernbert"), plan_of(tiny_base, tmp_path)
    with pytest.raises(BadInput, match=r"heads cannot be cut out of this family.*modernbert"):
        heads.check(network, plan)
    for layer in network.layers:
        layer.mlp = torch.nn.Identity()
    with pytest.raises(BadInput, match="neurons cannot be cut out of this family"):
        feed_forward.check(network, plan)


# Vocabulary

TEXTS = [row["text"] for row in sentences(60, seed=3)] + ["naïve café 12,5 %", "unusually untied"]


def trained(kind: str) -> Tokenizer:
    """A small tokenizer of each model, with special tokens at both ends of its ids."""
    corpus = [*TEXTS, "lower lowest newer newest wider widest " * 3, "undo untie unusual usual"]
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    if kind == "WordPiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer: Any = trainers.WordPieceTrainer(vocab_size=220, special_tokens=special, show_progress=False)
    elif kind == "BPE":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=420, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        )
    elif kind == "BPE with suffix":
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        trainer = trainers.BpeTrainer(
            vocab_size=220, special_tokens=special, show_progress=False, end_of_word_suffix="</w>"
        )
    else:
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=160, special_tokens=special, unk_token="<unk>", show_progress=False
        )
    tokenizer.train_from_iterator(corpus, trainer)
    ids = {token: tokenizer.token_to_id(token) for token in ("<s>", "</s>")}
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=list(ids.items())
    )
    tokenizer.add_special_tokens(["<mask>"])
    return tokenizer


KINDS = {kind: trained(kind) for kind in ("WordPiece", "BPE", "BPE with suffix", "Unigram")}
ALPHABET = st.sampled_from(
    [*FILLER, *WORDS["positive"], "low", "er", "est", "un", "usual", "é", "😀", "1", ",", " ", "x"]
)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_texts_of_kept_pieces_are_cut_into_the_same_pieces(kind: str, data: st.DataObject) -> None:
    old = KINDS[kind]
    seed, share = data.draw(st.integers(0, 5)), data.draw(st.sampled_from([1.0, 0.9, 0.5]))
    new, place = _trimmed(kind, seed, share)
    text = "".join(data.draw(st.lists(ALPHABET, max_size=8)))
    for given_text in (text, random.Random(seed).choice(TEXTS)):
        before = old.encode(given_text).ids
        if all(i in place for i in before):
            assert new.encode(given_text).ids == [place[i] for i in before]
            assert new.encode(given_text).tokens == old.encode(given_text).tokens


_TRIMMED: dict[tuple[str, int, float], tuple[Tokenizer, dict[int, int]]] = {}


def _trimmed(kind: str, seed: int, share: float) -> tuple[Tokenizer, dict[int, int]]:
    """The tokenizer of a kind after a look at some of the texts, and old ids to new ones."""
    if (kind, seed, share) not in _TRIMMED:
        seen = random.Random(seed).sample(TEXTS, 12)
        old = KINDS[kind]
        counts = Counter(i for text in seen for i in old.encode(text, add_special_tokens=False).ids)
        spec, kept = vocabulary.trimmed(json.loads(old.to_str()), counts, share=share)
        place = {i: n for n, i in enumerate(kept)}
        _TRIMMED[kind, seed, share] = Tokenizer.from_str(json.dumps(spec)), place
        if share == 1.0:
            assert set(counts) <= set(kept)
    return _TRIMMED[kind, seed, share]


@pytest.mark.parametrize("kind", KINDS)
def test_a_trimmed_vocabulary_is_smaller_and_knows_its_special_tokens(kind: str) -> None:
    sizes = []
    for share in (1.0, 0.5):
        new, place = _trimmed(kind, 0, share)
        sizes.append(new.get_vocab_size())
        assert sorted(new.get_vocab().values()) == list(range(len(place)))
        for token in ("<s>", "<pad>", "</s>", "<unk>", "<mask>"):
            assert new.token_to_id(token) == place[KINDS[kind].token_to_id(token)]
    assert KINDS[kind].get_vocab_size() > sizes[0] > sizes[1]


def test_a_rare_word_falls_into_pieces_and_not_into_nothing() -> None:
    new, _ = _trimmed("WordPiece", 0, 0.5)
    assert "<unk>" not in new.encode("unusual lowest").tokens


def test_logits_stay_the_same_in_a_trimmed_network(tiny_base: Path, tmp_path: Path) -> None:
    torch.manual_seed(2)
    network = fresh(tiny_base, TASK_TYPE).eval()
    rows = [row for row in toy.rows(60) if "table" not in row.text and "lovely" not in row.text]
    old = AutoTokenizer.from_pretrained(tiny_base)
    plan = plan_of(tiny_base, tmp_path, train=rows, unlabelled=["a paper street", "table"])
    plan = replace(plan, validation=[replace(rows[0], text="table")])
    before = [network(**old(row.text, return_tensors="pt")) for row in rows]
    n_before = network.model.get_input_embeddings().num_embeddings
    new = vocabulary.cut(network, plan, 1.0)
    for row, expected in zip(rows, before, strict=True):
        assert torch.allclose(network(**new(row.text, return_tensors="pt")), expected, atol=1e-6)
    kept = new.get_vocab()
    assert {"street", "paper"} <= set(kept)
    assert not {"table", "lovely"} & set(kept)
    assert network.config.vocab_size == network.model.get_input_embeddings().num_embeddings == len(kept) < n_before
    assert network.config.pad_token_id == new.pad_token_id
    (tmp_path / "saved").mkdir()
    save(network, new, tmp_path / "saved")
    loaded, tokenizer = load(tmp_path / "saved", TASK_TYPE)
    assert tokenizer.get_vocab() == kept
    assert torch.allclose(loaded(**tokenizer(rows[0].text, return_tensors="pt")), before[0], atol=1e-6)


def test_positions_that_are_counted_from_the_pad_token_stay(tmp_path: Path) -> None:
    """RoBERTa's positions begin behind the pad token's id; catches ids that move below it."""
    tokenizer = trained("BPE")
    names = {
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "mask_token": "<mask>",
    }
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(tmp_path / "base")
    config = RobertaConfig(vocab_size=tokenizer.get_vocab_size(), pad_token_id=1, max_position_embeddings=60, **SIZES)
    torch.manual_seed(3)
    AutoModel.from_config(config).save_pretrained(tmp_path / "base")
    network, old = fresh(tmp_path / "base", TASK_TYPE).eval(), AutoTokenizer.from_pretrained(tmp_path / "base")
    plan = plan_of(tmp_path / "base", tmp_path)
    texts = [row.text for row in plan.train[:4]]
    feed = {
        key: value for key, value in old(texts, return_tensors="pt", padding=True).items() if key != "token_type_ids"
    }
    before = network(**feed)
    new = vocabulary.cut(network, plan, 1.0)
    feed = {
        key: value for key, value in new(texts, return_tensors="pt", padding=True).items() if key != "token_type_ids"
    }
    assert torch.allclose(network(**feed), before, atol=1e-6)
    assert new.pad_token_id == network.config.pad_token_id == 1


def test_other_tokenizers_are_refused(tiny_base: Path, tmp_path: Path) -> None:
    words = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "a": 2}, unk_token="[UNK]"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]")
    plan = replace(plan_of(tiny_base, tmp_path), tokenizer=tokenizer)
    with pytest.raises(BadInput, match="vocabulary of this tokenizer cannot be trimmed exactly: WordLevel"):
        vocabulary.check(fresh(tiny_base, TASK_TYPE), plan)


# Recovery


def test_numbers_come_back_in_their_own_unit(tiny_base: Path, tmp_path: Path) -> None:
    """A network that answers in the targets' unit is trained in standard deviations, and answers as before after."""
    task_type = TASK_TYPES.get(toy.REGRESSION.type)(toy.REGRESSION)
    rows = [replace(row, target=row.target * 40 + 300) for row in toy.rows(40, regression=True)]
    network = fresh(tiny_base, task_type).eval()
    network.head.bias.data += 290
    plan = replace(plan_of(tiny_base, tmp_path), train=rows, task=toy.REGRESSION, task_type=task_type)
    feed = plan.tokenizer("the box was fast", return_tensors="pt")
    before = network(**feed)
    mean, deviation = task_type.scale([row.target for row in rows])  # type: ignore[attr-defined]
    _scale(network, (mean, deviation))
    assert torch.allclose(network(**feed), (before - mean) / deviation, atol=1e-4)
    _unscale(network, (mean, deviation))
    assert torch.allclose(network(**feed), before, rtol=1e-5)

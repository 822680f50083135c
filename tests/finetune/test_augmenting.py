"""Copies of training rows. Catches: entities whose places do not move with the text, words of entities changed, copies
of validation rows, another seed's copies, a base model that guesses words with a head it never learnt."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune import toy
from headrace.config import AugmentTable, FinetuneTable, TaskTable
from headrace.errors import BadConfig
from headrace.finetune import augmenting
from headrace.finetune.augmenting import MaskedWords, applied, copies_of, free_words, moved
from headrace.finetune.running import tune
from headrace.records import SnapshotRow

QA = TaskTable(type="extractive-qa")


def _copies(rows: list[SnapshotRow], task: TaskTable, base: Path = Path(), seed: int = 1, **options: Any) -> Any:
    return copies_of(rows, task, FinetuneTable(augment=AugmentTable(**options), seed=seed), base)


def _row(text: str, target: Any = None, pair: str | None = None) -> SnapshotRow:
    return SnapshotRow("e1", "c", "k1", text, target, "train", 0.5, "import", pair)


@pytest.fixture(scope="module")
def masked_base(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny base model with a masked-word head."""
    folder = tmp_path_factory.mktemp("masked")
    config = transformers.AutoConfig.from_pretrained(tiny_base)
    torch.manual_seed(0)
    model = transformers.BertForMaskedLM(config)
    model.bert.embeddings.token_type_embeddings.weight.data *= 50  # so that it tells which part a word is in
    model.save_pretrained(folder)
    names = ["input_ids", "token_type_ids", "attention_mask"]
    transformers.AutoTokenizer.from_pretrained(tiny_base, model_input_names=names).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def translator(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("translator")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_base)
    torch.manual_seed(0)
    config = transformers.MarianConfig(
        vocab_size=len(tokenizer), d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=64,
        pad_token_id=0, eos_token_id=3, forced_eos_token_id=3, decoder_start_token_id=0,
    )  # fmt: skip
    transformers.MarianMTModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


WORDS = st.lists(st.sampled_from(["a", "bb", "Ccc,", "d-d", "ééé"]), min_size=1, max_size=12)


@given(WORDS, st.data(), st.sampled_from(["swap", "delete"]), st.integers(0, 50))
@settings(deadline=None)
def test_entities_keep_their_words(words: list[str], data: st.DataObject, kind: Any, seed: int) -> None:
    text = " ".join(words)
    spans = []
    for i in sorted(data.draw(st.sets(st.integers(0, len(words) - 1), max_size=3))):
        start = sum(len(word) + 1 for word in words[:i])
        spans.append([start, start + len(words[i]), "PER"])
    row = _row(text, spans)
    for copy in _copies([row], toy.NER, seed=seed, kinds=(kind,), share=2, word_share=0.5):
        assert [copy.text[a:b] for a, b, _ in copy.target] == [text[a:b] for a, b, _ in spans]
        assert [kind for *_, kind in copy.target] == ["PER"] * len(spans)
        if kind == "swap":
            assert sorted(copy.text.split()) == sorted(words)
        else:
            assert len(copy.text.split()) < len(words)


def test_edits_move_what_stands_after_them() -> None:
    text, edits = "we met Ada in old Rome", [(11, 13, "within"), (0, 3, "")]
    spans = [[7, 10, "PER"], [18, 22, "LOC"]]
    assert applied(text, edits) == "met Ada within old Rome"
    assert moved(spans, edits) == [[4, 7, "PER"], [19, 23, "LOC"]]


def test_copies_have_keys_of_their_own_and_all_else_of_their_row() -> None:
    rows = [row for row in toy.rows(40) if row.side == "train"]
    copies = _copies(rows, toy.TASK, kinds=("swap", "delete"), share=2.0)
    by_id = {row.example_id: row for row in rows}
    assert len(copies) > 1.8 * len(rows)
    assert len({copy.example_id for copy in copies}) == len(copies) == len({copy.text for copy in copies})
    for copy in copies:
        name, _, number = copy.example_id.partition("#")
        row = by_id[name]
        assert number in ("1", "2")
        assert copy == replace(row, example_id=copy.example_id, key=f"{row.key}#{number}", text=copy.text)
    assert _copies(rows, toy.TASK, kinds=("swap", "delete"), share=2.0) == copies
    assert _copies(rows, toy.TASK, seed=2, kinds=("swap", "delete"), share=2.0) != copies
    assert _copies(rows, toy.TASK, kinds=()) == []


def test_a_row_that_cannot_change_has_no_copy() -> None:
    for kind in ("swap", "delete"):
        assert _copies([_row("one")], toy.TASK, kinds=(kind,), share=5) == []
        assert _copies([_row("ab cd", [[0, 5, "PER"]])], toy.NER, kinds=(kind,), share=5) == []


def test_of_a_pair_the_first_part_changes() -> None:
    row = _row("who was it then", [[0, 3]], "Ada was it.")
    (copy,) = _copies([row], QA, kinds=("swap",), share=1)
    assert copy.text != row.text
    assert (copy.text_pair, copy.target) == (row.text_pair, row.target)


def test_marks_of_speakers_stay() -> None:
    turns = TaskTable(labels=("a", "b"), input="turns")
    row = _row("user: my order is late\nshop agent: which one\nuser: 17")
    assert [row.text[a:b] for a, b in free_words(row, turns)] == ["my", "order", "is", "late", "which", "one", "17"]
    for kind in ("swap", "delete"):
        for copy in _copies([row], turns, kinds=(kind,), share=10, word_share=0.9):
            assert [line.partition(":")[0] for line in copy.text.split("\n")] == ["user", "shop agent", "user"]


def test_guesses_are_other_words_of_the_vocabulary(masked_base: Path) -> None:
    rows = [row for row in toy.ner_rows(24) if row.side == "train"]
    copies = _copies(rows, toy.NER, masked_base, kinds=("synonym",), share=1.0)
    assert len(copies) > len(rows) // 2
    by_id = {row.example_id: row for row in rows}
    for copy in copies:
        row = by_id[copy.example_id.partition("#")[0]]
        changed = [(a, b) for a, b in zip(row.text.split(), copy.text.split(), strict=True) if a != b]
        assert len(changed) == 1
        assert changed[0][1].isalpha()
        assert [copy.text[a:b] for a, b, _ in copy.target] == [row.text[a:b] for a, b, _ in row.target]
    assert _copies(rows, toy.NER, masked_base, kinds=("synonym",), share=1.0) == copies


def test_a_guess_is_the_models_best_for_that_place(masked_base: Path) -> None:
    """The model alone, without batches and padding, says the same."""
    texts = [("the service was good today", (16, 20)), ("it was slow", (7, 11))]
    found = MaskedWords(masked_base, max_tokens=32).guess(texts)
    tokenizer = transformers.AutoTokenizer.from_pretrained(masked_base)
    model = transformers.BertForMaskedLM.from_pretrained(masked_base).eval()
    for (text, (start, end)), words in zip(texts, found, strict=True):
        fed = tokenizer(text, text[:start] + "[MASK]" + text[end:], return_tensors="pt")
        scores = model(**fed).logits[0, fed["input_ids"][0].tolist().index(tokenizer.mask_token_id)]
        ranked = [tokenizer.convert_ids_to_tokens(i) for i in scores.argsort(descending=True).tolist()]
        assert words == [word for word in ranked[:50] if word.isalpha() and word != text[start:end]][:5]


def test_a_base_model_without_its_head_is_refused(tiny_base: Path) -> None:
    with pytest.raises(BadConfig, match=r"cannot guess masked words.*bert-base-uncased.*leave \"synonym\" out"):
        _copies(toy.rows(8), toy.TASK, tiny_base, kinds=("synonym",))


def test_a_family_that_has_no_such_head_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    base = toy.base_of_family("gpt2", tiny_base, tmp_path)
    with pytest.raises(BadConfig, match=r"cannot guess masked words: .*GPT2Config.*leave \"synonym\" out") as refused:
        _copies(toy.rows(8), toy.TASK, base, kinds=("synonym",))
    assert refused.value.value == str(base)


def test_translations_there_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each model sees what the one before it gave; texts with entities, which would be lost, are passed over."""
    monkeypatch.setattr(augmenting, "translated", lambda name, texts: [f"{name}({text})" for text in texts])
    rows = [_row("ab cd", []), replace(_row("Ada", [[0, 3, "PER"]]), example_id="e2")]
    copies = _copies(rows, toy.NER, kinds=("back-translation",), share=1, translators=("there", "back"))
    assert [(copy.text, copy.target) for copy in copies] == [("back(there(ab cd))", [])]


def test_a_translation_model_on_disk(translator: Path) -> None:
    names = (str(translator), str(translator))
    rows = [row for row in toy.rows(12) if row.side == "train"]
    copies = _copies(rows, toy.TASK, kinds=("back-translation",), share=1, translators=names)
    assert copies == _copies(rows, toy.TASK, kinds=("back-translation",), share=1, translators=names)
    alone = [augmenting.translated(names[1], augmenting.translated(names[0], [row.text]))[0] for row in rows]
    assert copies
    begins = {text.strip()[:12] for text in alone}  # a model that never ends is cut by the longest text of its batch
    assert all(copy.text[:12] in begins for copy in copies)


def test_translators_that_cannot_be_used_are_named(tiny_base: Path) -> None:
    with pytest.raises(BadConfig, match="needs two translation models"):
        _copies(toy.rows(8), toy.TASK, kinds=("back-translation",), translators=("one",))
    for name in ("./nowhere", str(tiny_base)):
        with pytest.raises(BadConfig, match=r"no translation model.*finetune\.augment\.translators"):
            _copies(toy.rows(8), toy.TASK, kinds=("back-translation",), share=1, translators=(name, name))


@pytest.mark.slow
def test_training_has_the_copies_and_validation_has_not(tiny_base: Path, tmp_path: Path) -> None:
    table = AugmentTable(kinds=("swap", "delete"), share=1.0)
    settings = FinetuneTable(epochs=1, min_steps=0, augment=table)
    rows = toy.rows(40)
    tuned = tune(tmp_path, tiny_base, toy.TASK, settings, rows, lambda *_a, **_f: None)
    n_train = sum(row.side == "train" for row in rows)
    assert tuned.facts["n_train_rows"] == n_train
    assert 0.8 * n_train < tuned.facts["n_copies"] <= n_train
    assert len(rows) == 40

"""Words and contexts as characters, whatever the tokenizer. Catches: an entity with the space before it or the full
stop after it, a text that is one word, a word that two windows see and neither has whole."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from headrace.checkpoints.encoding import Encoder
from headrace.checkpoints.windows import Words, context_of, outputs_of
from headrace.config import TaskTable
from headrace.tasks.token_classification import TokenClassification

TEXT = "Mr. Smith-Jones (of  London), isn't he?\nNew York's \u201cJosé\u201d paid €100."
ENTITIES = [[4, 9, "PER"], [10, 15, "PER"], [21, 27, "LOC"], [40, 48, "LOC"], [52, 56, "PER"]]
TYPES = TokenClassification(TaskTable(type="token-classification", labels=("PER", "LOC")))


def _tokenizer(kind: str) -> Tokenizer:
    """Trained on TEXT, with the parts that BERT, ModernBERT, DeBERTa-v3 and XLM-R have."""
    special = ["[UNK]", "[CLS]", "[SEP]", "[PAD]"]
    letters = [chr(i) for i in range(32, 127)]
    if kind == "bert":
        made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(vocab_size=160, special_tokens=special, initial_alphabet=letters)
    elif kind == "modernbert":
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet)
    else:
        made = Tokenizer(models.Unigram())
        split = [pre_tokenizers.WhitespaceSplit()] if kind == "xlm-r" else []
        made.pre_tokenizer = pre_tokenizers.Sequence([*split, pre_tokenizers.Metaspace()])
        trainer = trainers.UnigramTrainer(
            vocab_size=200, special_tokens=special, unk_token="[UNK]", initial_alphabet=[*letters, "▁"]
        )
    made.train_from_iterator([TEXT, TEXT.lower(), "London. York. Smith. Jones, London), York's"] * 20, trainer)
    if kind == "deberta-v3":
        made.pre_tokenizer = pre_tokenizers.Metaspace(split=False)  # to it, a text is one word
    marks = [(name, made.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=marks
    )
    return _cut(made, 128)


def _cut(tokenizer: Tokenizer, max_tokens: int, strategy: str = "longest_first") -> Tokenizer:
    cut = Tokenizer.from_str(tokenizer.to_str())
    cut.enable_truncation(max_tokens, stride=max_tokens // 4, strategy=strategy)
    return cut


TOKENIZERS = {kind: _tokenizer(kind) for kind in ("bert", "modernbert", "deberta-v3", "xlm-r")}
by_tokenizer = pytest.mark.parametrize("kind", TOKENIZERS)


def _answered(tokenizer: Tokenizer, text: str, entities: list[list[object]]) -> list[list[object]]:
    """The entities of a model that gives each word of each window the tag it is trained with."""
    windows = Encoder(tokenizer).encode([text])
    logits = []
    for window in windows:
        places, spans = Words(text).seen_in(window.encoding)
        scores = np.zeros((len(window), TYPES.n_outputs), np.float32)
        scores[places, TYPES.tags_of(entities, spans)] = 9
        logits.append(scores)
    outputs = outputs_of(TYPES.problem, TYPES.n_outputs, [text], windows, logits)
    return TYPES.answer_of(TYPES.decode(outputs)[0])


@by_tokenizer
def test_entities_come_back_as_they_were_marked(kind: str) -> None:
    assert _answered(TOKENIZERS[kind], TEXT, ENTITIES) == ENTITIES


@by_tokenizer
def test_windows_change_no_entity(kind: str) -> None:
    cut = _cut(TOKENIZERS[kind], 32)
    text = " and ".join([TEXT] * 3)
    step = len(TEXT) + len(" and ")
    entities = [[start + i * step, end + i * step, label] for i in range(3) for start, end, label in ENTITIES]
    assert len(Encoder(cut).encode([text])) > 3
    assert _answered(cut, text, entities) == entities


@by_tokenizer
@given(text=st.text(alphabet="ab .,-'(\n", min_size=1, max_size=40))
def test_words_are_those_of_the_text(kind: str, text: str) -> None:
    """Each word once and in order; signs that are one piece are one."""
    (window,) = Encoder(TOKENIZERS[kind]).encode([text])
    places, spans = Words(text).seen_in(window.encoding)
    assert (np.diff(places) > 0).all()
    words = [match.span() for match in re.finditer(r"[^\W_]+|\S", text)]
    edges = {start for start, _ in words}, {end for _, end in words}
    assert {tuple(span) for span in spans.tolist()} <= {(a, b) for a in edges[0] for b in edges[1] if a < b}
    covered = [i for start, end in spans.tolist() for i in range(start, end) if not text[i].isspace()]
    assert covered == [i for i, char in enumerate(text) if not char.isspace()]


def test_scripts_without_spaces_are_not_one_word() -> None:
    tokenizer = Tokenizer(models.Unigram([("[UNK]", 0.0), *((c, -1.0) for c in "北京大学在中国▁")], unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    assert _answered(_cut(tokenizer, 32), "北京大学在中国", [[0, 4, "LOC"], [5, 7, "LOC"]]) == [
        [0, 4, "LOC"],
        [5, 7, "LOC"],
    ]


def test_marks_on_letters_do_not_end_a_word() -> None:
    (window,) = Encoder(TOKENIZERS["modernbert"]).encode(["e\u0301te\u0301 हिन्दी"])
    assert Words("e\u0301te\u0301 हिन्दी").seen_in(window.encoding)[1].tolist() == [[0, 5], [6, 12]]


@by_tokenizer
def test_pieces_of_a_context_have_no_spaces_around(kind: str) -> None:
    (window,) = Encoder(_cut(TOKENIZERS[kind], 128, "only_second")).encode([("who paid?", TEXT)])
    _, spans = context_of(window.encoding, TEXT)
    pieces = [TEXT[start:end] for start, end in spans.tolist()]
    assert pieces == [piece.strip() for piece in pieces]
    covered = {i for start, end in spans.tolist() for i in range(start, end)}
    assert {i for i, char in enumerate(TEXT) if not char.isspace()} <= covered

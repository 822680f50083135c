"""Texts to arrays. Catches: a row lost or doubled by batching, a batch over its budget, padding that is not masked, a
length beyond what the model reads."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from headrace.checkpoints.encoding import Encoder, like_length_batches, round_up
from headrace.errors import Damaged

NAMES = ["input_ids", "attention_mask", "token_type_ids"]


@given(st.lists(st.integers(0, 300), max_size=200), st.integers(16, 2048), st.sampled_from([1, 8, 16]))
def test_every_row_is_in_one_batch_within_the_budget(lengths: list[int], batch_tokens: int, multiple: int) -> None:
    batches = like_length_batches(lengths, batch_tokens=batch_tokens, multiple=multiple)
    assert sorted(int(i) for rows in batches for i in rows) == list(range(len(lengths)))
    for rows in batches:
        padded = len(rows) * round_up(max(lengths[i] for i in rows), multiple)
        assert padded <= batch_tokens or len(rows) == 1


@given(st.lists(st.integers(1, 128), min_size=2, max_size=300))
def test_batches_are_of_like_length(lengths: list[int]) -> None:
    batches = like_length_batches(lengths, batch_tokens=512)
    ends = [(min(lengths[i] for i in rows), max(lengths[i] for i in rows)) for rows in batches]
    assert all(earlier[0] >= later[1] for earlier, later in pairwise(ends))


def tokenizer(max_tokens: int = 20, pad_id: int = 3) -> Tokenizer:
    words = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "[PAD]": 3, "a": 4, "b": 5}
    made = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    made.enable_truncation(max_tokens)
    made.enable_padding(pad_id=pad_id, pad_token="[PAD]", length=20)
    return made


def test_arrays_are_masked_and_padded_with_the_pad_token() -> None:
    encoder = Encoder(tokenizer())
    feed = encoder.feed(encoder.encode(["a b a", "b"]), NAMES, multiple=8)
    assert feed["input_ids"].tolist() == [[1, 4, 5, 4, 2, 3, 3, 3], [1, 5, 2, 3, 3, 3, 3, 3]]
    assert feed["attention_mask"].tolist() == [[1] * 5 + [0] * 3, [1] * 3 + [0] * 5]
    assert feed["token_type_ids"].sum() == 0
    assert {a.dtype for a in feed.values()} == {np.dtype(np.int64)}


def test_long_texts_are_cut_and_rounding_up_stays_within_the_limit() -> None:
    # 20 tokens rounded up to a multiple of 8 would be 24: beyond the positions of a model that reads 20
    encoder = Encoder(tokenizer(max_tokens=20))
    feed = encoder.feed(encoder.encode(["a " * 10_000, "b"]), NAMES, multiple=8)
    assert feed["input_ids"].shape == (2, 20)
    assert feed["input_ids"][0, -1] == 2, "the closing token is kept"


def test_the_given_tokenizer_keeps_its_padding() -> None:
    given_one = tokenizer()
    Encoder(given_one)
    assert given_one.padding is not None


@pytest.mark.parametrize("content", [None, "", "{}", '{"version": "1.0"}'])
def test_a_damaged_tokenizer_is_named(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(Damaged, match=r"tokenizer\.json"):
        Encoder.read(path)


def test_questions_of_more_tokens_than_letters_leave_room_for_the_context() -> None:
    """A byte-level vocabulary reads a Chinese letter as three tokens."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {"<s>": 0, "<pad>": 1, "</s>": 2} | {letter: i + 3 for i, letter in enumerate(letters)}
    made = Tokenizer(models.BPE(vocab=words, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel()
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    made.enable_truncation(48, stride=12, strategy="only_second")
    made.enable_padding(pad_id=1, pad_token="<pad>")
    windows = Encoder(made).encode([("什么是这个人的名字在哪里住呢", "context " * 30)])
    assert len(windows) > 1
    assert max(len(window) for window in windows) <= 48
    assert all(1 in window.encoding.sequence_ids for window in windows)

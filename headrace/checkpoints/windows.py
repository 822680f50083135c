"""Logits of windows to the outputs of a task on tokens: words with their characters, or pieces of a context.

Dimensions: T tokens of a window, W words of an input, K outputs.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Regex, pre_tokenizers

from headrace.checkpoints.encoding import Window
from headrace.records import Input
from headrace.tasks import FloatArray, Outputs, TokenLogits

Ints = NDArray[np.int32]
NOTHING = (-1, -1)
"""The span of the entry that stands for "no answer here"; its logits are those of a window's first token."""
_UNSPACED = "".join(rf"\p{{{script}}}" for script in ("Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar"))
WORD = rf"[{_UNSPACED}]|[\p{{L}}\p{{M}}\p{{N}}]+|\S"
"""A word: letters and digits in a row, any other sign, or a character of a script that has no spaces between words."""
_SPLIT = pre_tokenizers.Split(Regex(WORD), "isolated")


class Words:
    """The words of a text: the same for every tokenizer, since an entity ends where a word does.

    (What tokenizers call words depends on them: for many "London." is one, or the whole text.)
    """

    def __init__(self, text: str) -> None:
        parts = _SPLIT.pre_tokenize_str(text)
        self.spans = _spans([span for part, span in parts if not part.isspace()])
        """Characters (W, 2) of the words, in order."""

    def seen_in(self, encoding: Encoding) -> tuple[Ints, Ints]:
        """Places (W,) of the first pieces of a window's words, and the characters (W, 2) of the words.

        Words with the same first piece are one. Of a word that is cut by the window's edge, this is what is seen.
        """
        pieces = _spans(encoding.offsets)
        real = np.flatnonzero(pieces[:, 1] > pieces[:, 0])  # others are marks of the tokenizer's
        pieces = pieces[real]
        first = np.searchsorted(pieces[:, 1], self.spans[:, 0], side="right")
        words, first = self.spans[first < len(real)], first[first < len(real)]
        is_seen = pieces[first, 0] < words[:, 1]
        words, first = words[is_seen], first[is_seen]
        at, begins, n_words = np.unique(first, return_index=True, return_counts=True)
        starts, ends = words[begins, 0], words[begins + n_words - 1, 1]
        if len(at):
            starts[0], ends[-1] = max(starts[0], pieces[0, 0]), min(ends[-1], pieces[-1, 1])
        return real[at].astype(np.int32), np.stack([starts, ends], axis=1)


def _spans(offsets: Sequence[tuple[int, int]]) -> Ints:
    return np.asarray(offsets, dtype=np.int32).reshape(-1, 2)


def _stripped(text: str, span: tuple[int, int]) -> tuple[int, int]:
    """A span without the spaces at its ends, which some tokenizers take for a part of a piece."""
    start, end = span
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def context_of(encoding: Encoding, context: str) -> tuple[Ints, Ints]:
    """Places (P,) of the pieces of a pair's second part in a window, and their characters (P, 2)."""
    own = [i for i, part in enumerate(encoding.sequence_ids) if part == 1]
    return np.asarray(own, dtype=np.int32), _spans([_stripped(context, encoding.offsets[i]) for i in own])


ON_TOKENS = ("token_classification", "question_answering")


def outputs_of(
    problem: str, n_outputs: int, inputs: Sequence[Input], windows: Sequence[Window], logits: Sequence[FloatArray]
) -> Outputs:
    """What a predictor gives: (N, K) float32, or one `TokenLogits` an input for tasks on tokens.

    Args:
        logits: of each window: (K,), or (T or more, K) for tasks on tokens.
    """
    if problem not in ON_TOKENS:
        return np.asarray(logits, dtype=np.float32).reshape(len(inputs), n_outputs)
    make = _of_words if problem == "token_classification" else _of_context
    mine: list[list[int]] = [[] for _ in inputs]
    for i, window in enumerate(windows):
        mine[window.row].append(i)
    outputs = np.empty(len(inputs), dtype=object)
    for row, (given, places) in enumerate(zip(inputs, mine, strict=True)):
        outputs[row] = make(given, [windows[i].encoding for i in places], [logits[i] for i in places])
    return outputs


def _of_words(given: Input, encodings: Sequence[Encoding], logits: Sequence[FloatArray]) -> TokenLogits:
    """Each word once, from the window in which it stands farthest from an edge, among those that have its start."""
    text = given if isinstance(given, str) else given[0]
    n_outputs = logits[0].shape[1]
    words_of_text = Words(text)
    best: dict[int, tuple[int, int, int, Any]] = {}  # end of the word -> (start, -room, end, row of logits)
    for encoding, scores in zip(encodings, logits, strict=True):
        for place, (start, end) in zip(*(part.tolist() for part in words_of_text.seen_in(encoding)), strict=True):
            room = min(place, len(encoding) - place)
            known = best.get(end)
            if known is None or (start, -room) < known[:2]:
                best[end] = (start, -room, end, scores[place])
    words = sorted(_whole(list(best.values())), key=lambda word: word[0])
    spans = np.asarray([[start, end] for start, _, end, _ in words], dtype=np.int32).reshape(-1, 2)
    rows = np.asarray([row for *_, row in words], dtype=np.float32).reshape(-1, n_outputs)
    return TokenLogits(text, spans, rows, np.zeros(len(words), dtype=np.int32))


def _whole(words: list[tuple[int, int, int, Any]]) -> list[tuple[int, int, int, Any]]:
    """Without the parts of words that another window has whole: of overlapping ones, the longest stays."""
    kept: list[tuple[int, int, int, Any]] = []
    for word in sorted(words, key=lambda w: (w[0], -w[2])):
        if not kept or word[0] >= kept[-1][2]:
            kept.append(word)
    return kept


def _of_context(given: Input, encodings: Sequence[Encoding], logits: Sequence[FloatArray]) -> TokenLogits:
    """The pieces of the context in every window, each window led by its entry for "no answer"."""
    text = given[1] if isinstance(given, tuple) else given
    spans: list[Any] = []
    rows: list[FloatArray] = []
    numbers: list[Any] = []
    for number, (encoding, scores) in enumerate(zip(encodings, logits, strict=True)):
        places, own = context_of(encoding, text)
        spans += [np.asarray([NOTHING], dtype=np.int32), own]
        rows += [scores[:1], scores[places]]
        numbers.append(np.full(1 + len(places), number, dtype=np.int32))
    joined = np.concatenate(rows).astype(np.float32)
    return TokenLogits(text, np.concatenate(spans), joined, np.concatenate(numbers))

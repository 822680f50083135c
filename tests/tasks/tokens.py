"""Outputs of tasks on tokens, made by hand: words and word pieces are runs of letters, or one other character."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from headrace.records import Input
from headrace.tasks import TokenLogits


def words_of(text: str) -> np.ndarray:
    """(W, 2) characters of the words."""
    return np.asarray([found.span() for found in re.finditer(r"\w+|[^\w\s]", text)], np.int32).reshape(-1, 2)


def tagged(text: str, tags: Sequence[int], n_tags: int, size: float = 8.0) -> TokenLogits:
    """What a model gives that is sure of `tags`, one for each word."""
    logits = np.eye(n_tags, dtype=np.float32)[np.asarray(tags, np.int64)] * np.float32(size)
    return TokenLogits(text, words_of(text), logits.reshape(-1, n_tags), np.zeros(len(tags), np.int32))


def in_windows(context: str, n_words: int) -> tuple[np.ndarray, np.ndarray]:
    """Spans (T, 2) and windows (T,) of a context read `n_words` at a time, with half of them read twice."""
    words, step = words_of(context), max(1, n_words // 2)
    n_windows = max(1, -(-max(0, len(words) - n_words) // step) + 1)
    parts = [np.concatenate([[[-1, -1]], words[i * step : i * step + n_words]]) for i in range(n_windows)]
    windows = np.concatenate([np.full(len(part), i) for i, part in enumerate(parts)])
    return np.concatenate(parts).astype(np.int32), windows.astype(np.int32)


def objects(rows: Sequence[TokenLogits]) -> np.ndarray:
    """(N,) objects."""
    outputs = np.empty(len(rows), dtype=object)
    outputs[:] = rows
    return outputs


def perfect_tags(task_type: Any, inputs: Sequence[Input], targets: Sequence[Any]) -> np.ndarray:
    """Outputs of token classification that are right on every row."""
    rows = [
        tagged(str(text), task_type.tags_of(target, words_of(str(text))), task_type.n_outputs)
        for text, target in zip(inputs, targets, strict=True)
    ]
    return objects(rows)


def perfect_answers(task_type: Any, inputs: Sequence[Input], targets: Sequence[Any]) -> np.ndarray:
    """Outputs of extractive question answering that are right on every row."""
    return objects([answering(task_type, given[1], target) for given, target in zip(inputs, targets, strict=True)])


def answering(task_type: Any, context: str, target: Any, n_words: int = 6) -> TokenLogits:
    """What a model gives that is sure of the first answer of a target, and of no other in windows without it."""
    spans, windows = in_windows(context, n_words)
    logits = np.zeros((len(spans), 2), np.float32)
    for window, (start, end) in enumerate(task_type.positions_of(target, spans, windows)):
        first = int(np.flatnonzero(windows == window)[0])
        size = 4 if start == 0 else 8
        logits[first + start, 0] += size
        logits[first + end, 1] += size
    return TokenLogits(context, spans, logits, windows)

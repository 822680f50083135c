"""Linear-chain conditional random field: the best tags of a sentence, and how sure each is.

Source: Lafferty, McCallum and Pereira 2001, "Conditional Random Fields"; both recursions: Rabiner 1989, section III.
Dimensions: T words, K tags. A sequence scores its logits, plus `transitions[i, j]` for tag j after tag i, plus `start`
of its first tag and `end` of its last.
"""

import numpy as np
from numpy.typing import NDArray

from headrace.tasks import FloatArray


def best_path(logits: FloatArray, transitions: FloatArray, start: FloatArray, end: FloatArray) -> NDArray[np.int64]:
    """The tags (T,) of the sequence that scores highest; logits (T, K)."""
    n_words, n_tags = logits.shape
    path = np.zeros(n_words, dtype=np.int64)
    if not n_words:
        return path
    came_from = np.empty((n_words, n_tags), dtype=np.int64)
    score = start + logits[0].astype(np.float64)
    for t in range(1, n_words):
        through = score[:, None] + transitions
        came_from[t] = through.argmax(axis=0)
        score = through.max(axis=0) + logits[t]
    path[-1] = int((score + end).argmax())
    for t in range(n_words - 1, 0, -1):
        path[t - 1] = came_from[t, path[t]]
    return path


def marginals(logits: FloatArray, transitions: FloatArray, start: FloatArray, end: FloatArray) -> FloatArray:
    """Probability (T, K) of each tag of each word over all sequences; logits (T, K)."""
    emissions = logits.astype(np.float64)
    if not len(emissions):
        return emissions
    before, after = np.empty_like(emissions), np.empty_like(emissions)
    before[0] = start + emissions[0]
    after[-1] = end
    for t in range(1, len(emissions)):
        before[t] = np.logaddexp.reduce(before[t - 1][:, None] + transitions, axis=0) + emissions[t]
    for t in range(len(emissions) - 2, -1, -1):
        after[t] = np.logaddexp.reduce(transitions + emissions[t + 1] + after[t + 1], axis=1)
    total = np.logaddexp.reduce(before[-1] + end)
    probs: FloatArray = np.exp(before + after - total)
    return probs

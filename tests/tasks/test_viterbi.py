"""The recursions against all sequences one by one. Catches: transitions the wrong way round, a start or an end that
is left out, a path off by one, sums that overflow."""

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.tasks.viterbi import best_path, marginals

Weights = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def drawn(seed: int, n_words: int, n_tags: int) -> Weights:
    rng = np.random.default_rng(seed)
    shapes = ((n_words, n_tags), (n_tags, n_tags), (n_tags,), (n_tags,))
    logits, transitions, start, end = (rng.normal(size=shape) * 3 for shape in shapes)
    return logits.astype(np.float32), transitions, start, end


def score(path: tuple[int, ...], weights: Weights) -> float:
    logits, transitions, start, end = weights
    steps = sum(transitions[a, b] for a, b in pairwise(path))
    return float(start[path[0]] + end[path[-1]] + steps + sum(float(logits[t, tag]) for t, tag in enumerate(path)))


@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 4))
@settings(deadline=None, max_examples=40)
def test_both_are_what_all_sequences_say(seed: int, n_words: int, n_tags: int) -> None:
    weights = drawn(seed, n_words, n_tags)
    paths = list(product(range(n_tags), repeat=n_words))
    scores = np.asarray([score(path, weights) for path in paths])
    assert tuple(best_path(*weights)) == paths[int(scores.argmax())]
    probs = np.exp(scores - scores.max())
    expected = np.zeros((n_words, n_tags))
    for path, prob in zip(paths, probs / probs.sum(), strict=True):
        expected[np.arange(n_words), list(path)] += prob
    assert marginals(*weights) == pytest.approx(expected, abs=1e-9)


def test_a_forbidden_step_is_not_taken() -> None:
    transitions = np.array([[0, -1e4], [0, 0.0]])
    nothing = np.zeros(2)
    logits = np.array([[5.0, 0], [0, 4], [0, 1]])
    assert best_path(logits, transitions, nothing, nothing).tolist() == [0, 0, 0]
    assert best_path(logits, np.zeros((2, 2)), nothing, nothing).tolist() == [0, 1, 1]


def test_no_words_have_no_tags_and_long_ones_no_overflow() -> None:
    nothing = np.zeros(3)
    none = np.empty((0, 3), np.float32)
    assert best_path(none, np.zeros((3, 3)), nothing, nothing).shape == (0,)
    assert marginals(none, np.zeros((3, 3)), nothing, nothing).shape == (0, 3)
    logits = np.tile(np.array([[900.0, 0, -900]], np.float32), (3000, 1))
    assert marginals(logits, np.zeros((3, 3)), nothing, nothing)[:, 0] == pytest.approx(1)

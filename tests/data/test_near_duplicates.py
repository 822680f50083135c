"""Near duplicates against brute force. Catches: a pair the bands miss, a wrong similarity, an order that matters."""

import random
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.data.near_duplicates import linked, near_duplicate_pairs, shingles_of

WORDS = st.sampled_from(["a", "b", "c", "d", "E", "e", "f!", "42", "été"])
TEXTS = st.lists(st.lists(WORDS, max_size=14).map(" ".join) | st.sampled_from(["", "!?", "...", "🙂"]), max_size=25)


def _brute_force(texts: list[str], share: float) -> list[tuple[int, int]]:
    sets = [set(shingles_of(text)) for text in texts]
    return [
        (i, j)
        for i in range(len(texts))
        for j in range(i + 1, len(texts))
        if len(sets[i] & sets[j]) >= share * len(sets[i] | sets[j])
    ]


def _groups(n: int, pairs: object) -> list[int]:
    return linked(n, np.asarray(pairs, dtype=np.int64).reshape(-1, 2)).tolist()


@settings(max_examples=150, deadline=None)
@given(texts=TEXTS, share=st.sampled_from([0.5, 0.75, 0.8, 0.9, 1.0]))
def test_groups_are_those_of_brute_force(texts: list[str], share: float) -> None:
    exact = _brute_force(texts, share)
    found = near_duplicate_pairs(texts, share)
    assert {tuple(pair) for pair in found.tolist()} <= set(exact)
    assert _groups(len(texts), found) == _groups(len(texts), exact)


def test_planted_near_duplicates_are_found_among_many_texts() -> None:
    rng = random.Random(1)
    texts = [" ".join(f"w{rng.randrange(500)}" for _ in range(20)) for _ in range(2000)]
    planted = [" ".join([*text.split()[:-1], "other"]) for text in texts[:200]]  # 18 of 20 shingles shared: 0.9
    found = near_duplicate_pairs(texts + planted, 0.8)
    assert found.tolist() == [[i, 2000 + i] for i in range(200)]


@pytest.mark.parametrize(
    ("a", "b", "near"),
    [
        ("The film was GREAT!", "the film was great", True),
        ("one", "one two", False),
        ("one two", "two one", False),
        ("", "", True),
        ("!", "?", False),
        ("🙂", "🙂 ", True),
    ],
)
def test_case_and_punctuation_do_not_count_but_order_does(a: str, b: str, near: bool) -> None:
    assert len(near_duplicate_pairs([a, b], 0.8)) == near


def test_a_thousand_alike_stay_one_group() -> None:
    texts = [
        f"your order number {i} has been shipped and will arrive on monday at your door thank you" for i in range(1000)
    ]
    assert set(_groups(1000, near_duplicate_pairs(texts, 0.7))) == {0}


@pytest.mark.slow
def test_25_000_texts_of_few_words_take_seconds() -> None:
    rng = random.Random(2)
    words = [f"w{int(rng.paretovariate(0.5)) % 20_000}" for _ in range(25_000 * 17)]  # a few words make up most
    texts = [" ".join(words[17 * i : 17 * i + rng.randrange(5, 17)]) for i in range(25_000)]
    began = time.process_time()
    near_duplicate_pairs(texts, 0.8)
    assert time.process_time() - began < 15  # 2 s where nothing else runs

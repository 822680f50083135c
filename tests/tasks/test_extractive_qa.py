"""Answers out of contexts. Catches: an end before its start, an answer over two windows, a null score of the wrong
window, a threshold that is not the best, figures other than SQuAD's."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.config import TaskTable
from headrace.errors import BadConfig, BadInput
from headrace.tasks import TokenLogits
from headrace.tasks.extractive_qa import MAX_PIECES, ExtractiveQA, normalized, scores_of
from tasks.tokens import answering, in_windows, objects

TASK = ExtractiveQA(TaskTable(type="extractive-qa"))
CONTEXT = "The mill was built in 1912 and the dam in 1908 , say the books ."
NONE: dict[str, Any] = {"answers": []}
WORDS = st.lists(st.sampled_from(["the", "a", "mill", "Mill,", "dam", "1912", "!"]), max_size=5).map(" ".join)


def target(*answers: tuple[str, int]) -> dict[str, Any]:
    return {"answers": [{"text": text, "start": start} for text, start in answers]}


def drawn(seed: int, n_windows: int, n_words: int, context: str = CONTEXT) -> TokenLogits:
    rng = np.random.default_rng(seed)
    spans, windows = in_windows(context, n_words)
    keep = windows < n_windows
    logits = (rng.normal(size=(int(keep.sum()), 2)) * 3).astype(np.float32)
    return TokenLogits(context, spans[keep], logits, windows[keep])


# What the rules say, worked out by hand from SQuAD's description of exact match and F1.
KNOWN = [
    ("The Mill!", ["mill"], 1, 1),
    ("in 1912", ["1912"], 0, 2 * (1 / 2 * 1) / (1 / 2 + 1)),
    ("the old red mill", ["red mill"], 0, 2 * (2 / 3 * 1) / (2 / 3 + 1)),
    ("mill", ["dam", "mill"], 1, 1),
    ("dam dam", ["dam"], 0, 2 / 3),
    ("mill", ["dam"], 0, 0),
    ("", [], 1, 1),
    ("mill", [], 0, 0),
    ("", ["mill"], 0, 0),
    ("", ["the"], 1, 1),
    ("a.b", ["ab"], 1, 1),
    ("another", ["other"], 0, 0),
]


@pytest.mark.parametrize(("answer", "golds", "exact", "f1"), KNOWN)
def test_known_answers_score_as_squad_says(answer: str, golds: list[str], exact: float, f1: float) -> None:
    assert scores_of(answer, target(*((gold, 0) for gold in golds))) == (exact, pytest.approx(f1))


@given(WORDS, st.lists(WORDS.filter(bool), max_size=3))
def test_scores_are_shares_and_exact_means_whole(answer: str, golds: list[str]) -> None:
    gold = target(*((text, 0) for text in golds))
    exact, f1 = scores_of(answer, gold)
    assert exact in (0, 1)
    assert exact <= f1 <= 1
    assert scores_of(normalized(answer), gold) == (exact, f1)
    assert all(scores_of(text, gold) == (1, 1) for text in golds if normalized(text))


@given(WORDS, WORDS)
def test_f1_is_the_same_both_ways(one: str, other: str) -> None:
    assert scores_of(one, target((other, 0)))[1] == pytest.approx(scores_of(other, target((one, 0)))[1])


def slow_best(output: TokenLogits) -> tuple[float, int, int]:
    """Every pair of pieces of a window."""
    found = [(-np.inf, -1, -1)]
    for i, j in product(range(len(output.spans)), repeat=2):
        same = output.windows[i] == output.windows[j]
        if same and i <= j < i + MAX_PIECES and output.spans[i, 0] >= 0 and output.spans[j, 0] >= 0:
            score = float(output.logits[i, 0]) + float(output.logits[j, 1])
            found.append((score, int(output.spans[i, 0]), int(output.spans[j, 1])))
    return max(found, key=lambda one: one[0])


@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(2, 40))
@settings(deadline=None, max_examples=40)
def test_the_best_span_is_that_of_all_pairs(seed: int, n_windows: int, n_words: int) -> None:
    output = drawn(seed, n_windows, n_words, " ".join([CONTEXT] * 3))
    score, start, end = slow_best(output)
    null = min(float(sum(row)) for row in output.logits[output.spans[:, 0] < 0].astype(np.float64))
    (answer,) = TASK.decode(objects([output]), {"null_threshold": 1e9})
    assert (answer["start"], answer["end"]) == (start, end)
    assert answer["answer"] == output.text[start:end]
    assert 0 <= answer["confidence"] <= 1
    for threshold, is_none in ((null - score - 1e-3, True), (null - score + 1e-3, False)):
        (answer,) = TASK.decode(objects([output]), {"null_threshold": threshold})
        assert (answer["start"] is None) == is_none
        assert (answer["answer"] == "") == is_none


@given(st.integers(0, 10**6), st.integers(1, 12))
@settings(deadline=None, max_examples=40)
def test_no_threshold_beats_the_fitted_one(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    outputs = objects([drawn(seed + i, 2, 8) for i in range(n)])
    answers = [a["answer"] for a in TASK.decode(outputs, {"null_threshold": 1e9})]
    targets = [NONE if rng.random() < 0.5 else target((text, 0)) for text in answers]
    fitted = TASK.metrics(targets, outputs, TASK.calibrate(targets, outputs))["f1"]
    for threshold in np.linspace(-30, 30, 61):
        assert TASK.metrics(targets, outputs, {"null_threshold": float(threshold)})["f1"] <= fitted + 1e-12


def test_without_a_question_that_has_no_answer_every_one_is_answered() -> None:
    outputs = objects([answering(TASK, CONTEXT, NONE), answering(TASK, CONTEXT, target(("1912", 22)))])
    calibration = TASK.calibrate([target(("1912", 22))] * 2, outputs)
    assert all(answer["answer"] for answer in TASK.decode(outputs, calibration))
    assert TASK.calibrate([], outputs[:0]) == {}
    assert TASK.decode(outputs)[0] == {
        "answer": "",
        "start": None,
        "end": None,
        "confidence": pytest.approx(1, abs=0.4),
    }


def test_a_context_without_pieces_has_no_answer() -> None:
    only = TokenLogits("", np.array([[-1, -1]], np.int32), np.zeros((1, 2), np.float32), np.zeros(1, np.int32))
    nothing = TokenLogits("", *(np.empty(s, t) for s, t in (((0, 2), np.int32), ((0, 2), np.float32), (0, np.int32))))
    for answer in TASK.decode(objects([only, nothing]), {"null_threshold": 1e9}):
        assert answer == {"answer": "", "start": None, "end": None, "confidence": 1.0}
    assert TASK.calibrate([NONE], objects([only])) == {"null_threshold": 0.0}


def test_positions_are_within_each_window_or_its_first() -> None:
    spans, windows = in_windows(
        CONTEXT, 6
    )  # The mill was built in 1912 | built in 1912 and the dam | and the dam in ...
    assert TASK.positions_of(target(("in 1912", 19)), spans, windows)[:3].tolist() == [[5, 6], [2, 3], [0, 0]]
    assert TASK.positions_of(target(("1912 and", 22)), spans, windows)[:3].tolist() == [[0, 0], [3, 4], [0, 0]]
    assert TASK.positions_of(target(("191", 22)), spans, windows)[0].tolist() == [6, 6]
    assert TASK.positions_of(target((" in 1912 ", 18)), spans, windows)[0].tolist() == [5, 6]
    assert not TASK.positions_of(NONE, spans, windows).any()


@given(st.integers(2, 20), st.integers(0, 15), st.integers(1, 8))
@settings(deadline=None)
def test_what_positions_point_at_decodes_to_the_answer(n_words: int, first: int, length: int) -> None:
    words = CONTEXT.split()
    start = len(" ".join(words[:first])) + (1 if first else 0)
    text = " ".join(words[first : first + length])
    wanted = target((text, start)) if text else NONE
    output = answering(TASK, CONTEXT, wanted, n_words)
    whole = any(position.any() for position in TASK.positions_of(wanted, output.spans, output.windows))
    (answer,) = TASK.decode(objects([output]))
    assert answer["answer"] == (text if whole else "")
    assert TASK.answers_match(answer, wanted) == (whole or not text)
    if whole:
        assert TASK.answer_of(answer) == wanted
        assert TASK.parse_label(TASK.answer_of(answer), ("?", CONTEXT)) == wanted


def test_figures_tell_questions_with_and_without_an_answer_apart() -> None:
    mill = target(("mill", 4))
    right, wrong = answering(TASK, CONTEXT, mill), answering(TASK, CONTEXT, target(("dam", 35)))
    found = TASK.metrics([mill, mill, NONE], objects([right, wrong, right]))
    assert found == {
        "n": 3, "n_answerable": 2, "exact_match": pytest.approx(1 / 3), "f1": pytest.approx(1 / 3),
        "answerable_exact_match": 0.5, "answerable_f1": 0.5, "unanswerable_accuracy": 0.0,
    }  # fmt: skip
    assert TASK.metrics([mill], objects([right]))["unanswerable_accuracy"] is None


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"text": ["mill", "The mill"], "answer_start": [4, 0]}, target(("mill", 4), ("The mill", 0))),
        ({"text": "mill", "start": 4}, target(("mill", 4))),
        ([{"text": "mill", "answer_start": 4}, {"text": "mill", "start": 4}], target(("mill", 4))),
        ("1912", target(("1912", 22))),
        ({"answers": "1912"}, target(("1912", 22))),
        ('{"text": ["1912"], "answer_start": [22]}', target(("1912", 22))),
        ("", NONE), ("  ", NONE), ([], NONE), ("[]", NONE), ({"answers": []}, NONE),
        ({"text": [], "answer_start": []}, NONE),
    ],
)  # fmt: skip
def test_labels_are_read_as_people_write_them(raw: object, expected: dict[str, Any]) -> None:
    assert TASK.parse_label(raw, ("When?", CONTEXT)) == expected


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        ("1913", "does not have this answer: 1913"),
        ("in", "more than once"),
        ({"text": "1912", "start": 21}, "has ' 191' at 21: 1912"),
        ({"text": "1912", "start": -1}, "not the first character"),
        ({"text": ["1912"], "answer_start": [1, 2]}, "different number"),
        ({"start": 4}, "not an answer"),
        (None, "not an answer"),
        ([""], "without a text"),
        ([" ", "1912"], "without a text"),
        ("[1", "neither JSON nor in the context"),
        ('{"answers": {"answers": []}}', "not an answer"),
    ],
)
def test_bad_labels_are_refused_with_the_reason(raw: object, problem: str) -> None:
    with pytest.raises(BadInput, match=problem):
        TASK.parse_label(raw, ("When?", CONTEXT))


def test_without_the_context_an_answer_needs_its_place() -> None:
    assert TASK.parse_label({"text": "1912", "start": 22}) == target(("1912", 22))
    with pytest.raises(BadInput, match="no context to find it in"):
        TASK.parse_label("1912")
    assert TASK.parse_label("[1]", ("?", "see [1] for it")) == target(("[1]", 4))


def test_labellers_combine_by_majority_then_by_votes() -> None:
    mill, dam = target(("mill", 4)), target(("dam", 35))
    assert TASK.combine([NONE, NONE, mill]) == NONE
    assert TASK.combine([NONE, mill]) == mill
    assert TASK.combine([mill, dam, dam]) == target(("dam", 35), ("mill", 4))


def test_the_task_has_no_labels() -> None:
    with pytest.raises(BadConfig, match="no labels"):
        ExtractiveQA(TaskTable(type="extractive-qa", labels=("a",)))

"""Candidate against control on the same rows, and the gates. Catches: a swapped sign, unpaired redraws, a channel's
harm hidden by a gain elsewhere, chance taken for harm, an unknown figure that blocks or crashes."""

import json

import numpy as np
import pytest

from evaluate.rows import CLASSES, LABELS, NUMBERS, answers, noisy, rows_of
from headrace.evaluate.agreement import agreement
from headrace.evaluate.comparison import compare
from headrace.evaluate.gates import agreement as agreement_gate
from headrace.evaluate.gates import no_harm

TRUTH = [LABELS[i % 3] for i in range(600)]
ROWS = rows_of(TRUTH, ["a" if i < 300 else "b" for i in range(600)])
WORSE, BETTER = noisy(TRUTH, share_right=0.5, seed=1), noisy(TRUTH, share_right=0.9, seed=2)


def test_a_better_candidate_has_a_positive_difference_and_more_wins() -> None:
    found = compare(CLASSES, ROWS, WORSE, BETTER)
    part = found["overall"]
    assert part["difference"]["low"] > 0
    expected = CLASSES.metrics(TRUTH, BETTER)["macro_f1"] - CLASSES.metrics(TRUTH, WORSE)["macro_f1"]
    assert part["difference"]["estimate"] == pytest.approx(expected)
    right_a, right_b = ((logits.argmax(1) == CLASSES.encode_targets(TRUTH)) for logits in (WORSE, BETTER))
    assert (part["wins"], part["losses"]) == ((right_b & ~right_a).sum(), (right_a & ~right_b).sum())
    assert part["n_disagreements"] == (WORSE.argmax(1) != BETTER.argmax(1)).sum()
    assert json.loads(json.dumps(found)) == found


def test_turned_round_it_is_the_negative() -> None:
    forth, back = compare(CLASSES, ROWS, WORSE, BETTER)["overall"], compare(CLASSES, ROWS, BETTER, WORSE)["overall"]
    assert forth["difference"]["estimate"] == pytest.approx(-back["difference"]["estimate"])
    assert forth["difference"]["low"] == pytest.approx(-back["difference"]["high"], abs=0.005)  # 2000 redraws
    assert (forth["wins"], forth["losses"]) == (back["losses"], back["wins"])


def test_the_order_of_rows_does_not_matter() -> None:
    order = np.random.default_rng(0).permutation(len(ROWS))
    shuffled = compare(CLASSES, [ROWS[i] for i in order], WORSE[order], BETTER[order])
    assert shuffled == compare(CLASSES, ROWS, WORSE, BETTER)


def test_redraws_are_paired() -> None:
    # Two predictors that differ on 6 of 600 rows: unpaired, the difference would be known to about +-0.07 only.
    other = BETTER.copy()
    other[:6] = answers(["no", "maybe", "yes", "no", "maybe", "yes"])
    found = compare(CLASSES, ROWS, BETTER, other)["overall"]["difference"]
    assert found["high"] - found["low"] < 0.02


def test_the_same_answers_differ_by_nothing() -> None:
    part = compare(CLASSES, ROWS, BETTER, BETTER * 2)["overall"]
    assert (part["difference"]["estimate"], part["n_disagreements"]) == (0, 0)
    assert (part["difference"]["low"], part["difference"]["high"]) == (0, 0)


def test_harm_in_one_channel_fails_its_gate_whatever_is_gained_elsewhere() -> None:
    mixed = np.concatenate([BETTER[:300], WORSE[300:]])
    candidate = np.concatenate([answers(TRUTH[:300]), noisy(TRUTH[300:], share_right=0.0, seed=3)])
    gates = {g["gate"]: g for g in no_harm(compare(CLASSES, ROWS, mixed, candidate), max_drop_share=0.01)}
    assert set(gates) == {"no harm overall", "no harm in channel a", "no harm in channel b"}
    assert gates["no harm in channel a"]["passed"]
    assert not gates["no harm in channel b"]["passed"]
    assert "not chance" in gates["no harm in channel b"]["reason"]
    assert all(set(g) == {"gate", "passed", "figure", "limit", "reason", "channel"} for g in gates.values())
    assert [g["channel"] for g in gates.values()] == [None, "a", "b"]


def part(estimate: float | None, low: float | None, high: float | None) -> dict[str, object]:
    difference = {"estimate": estimate, "low": low, "high": high, "level": 0.95, "reason": "all equal"}
    return {"n": 40, "difference": difference, "n_disagreements": 3, "wins": 1, "losses": 2}


@pytest.mark.parametrize(
    ("found", "passed", "word"),
    [
        (part(-0.05, -0.08, -0.02), False, "not chance"),
        (part(-0.05, -0.15, 0.05), True, "may be chance"),
        (part(-0.005, -0.008, -0.002), True, "changes by"),
        (part(0.05, 0.02, 0.08), True, "changes by"),
        (part(None, None, None), True, "cannot be compared"),
    ],
)
def test_a_gate_needs_a_large_drop_that_is_not_chance(found: dict[str, object], passed: bool, word: str) -> None:
    gate = no_harm({"main_metric": "macro_f1", "overall": found, "channels": {}}, max_drop_share=0.01)[0]
    assert gate["passed"] is passed
    assert word in gate["reason"]


@pytest.mark.parametrize("n", [60, 300])
def test_equal_candidates_fail_a_gate_no_more_often_than_the_docstring_says(n: int) -> None:
    rng, n_failed = np.random.default_rng(n), 0
    for i in range(150):
        truth = rng.integers(0, 3, n)
        pair = [np.where(rng.random(n) < 0.77, truth, (truth + 1) % 3)] * 2
        other = np.where(rng.random(n) < 0.1, rng.integers(0, 3, n), pair[0])
        swap = rng.random(n) < 0.5  # either may have either answer, so the true difference is 0
        a, b = np.where(swap, pair[0], other), np.where(swap, other, pair[0])
        logits = (np.eye(3)[side] for side in (a, b))
        compared = compare(CLASSES, rows_of([LABELS[t] for t in truth]), *logits, seed=i)
        n_failed += not no_harm(compared, max_drop_share=0.01)[0]["passed"]
    assert n_failed / 150 <= 0.075  # 0.037 and 2.5 standard errors


def test_agreement_counts_equal_answers() -> None:
    a, b = answers(["no"] * 10), answers(["no"] * 9 + ["yes"])
    found = agreement(CLASSES, a, b)
    assert (found["n"], found["share"], found["max_logit_difference"]) == (10, 0.9, 4.0)
    assert found["low"] < 0.9 < found["high"]
    numbers = agreement(NUMBERS, np.array([[1.0], [2.0]]), np.array([[1.1], [4.0]]))
    assert (numbers["share"], numbers["max_logit_difference"]) == (0.5, 2.0)


@pytest.mark.parametrize(("n_different", "passed"), [(0, True), (3, True), (4, False)])
def test_the_gate_of_agreement(n_different: int, passed: bool) -> None:
    found = agreement(CLASSES, answers(["no"] * 100), answers(["no"] * (100 - n_different) + ["yes"] * n_different))
    (gate,) = agreement_gate(found, min_agreement_share=0.97)
    assert gate["passed"] is passed
    assert gate["figure"] == (100 - n_different) / 100


def test_agreement_of_no_rows_does_not_pass() -> None:
    (gate,) = agreement_gate(agreement(CLASSES, np.empty((0, 3)), np.empty((0, 3))), min_agreement_share=0.97)
    assert not gate["passed"]


def test_regression_compares_correlations() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=200)
    a, b = ((truth + rng.normal(size=200) * s)[:, None] for s in (2, 0.5))
    found = compare(NUMBERS, rows_of(truth.tolist(), ["x"] * 199 + ["y"]), a, b)
    assert found["overall"]["difference"]["low"] > 0
    assert found["channels"]["y"]["difference"]["estimate"] is None

"""Who is audited. Catches: a share of audits that is not the one asked for, doubtful answers that are not audited more,
a probability below the floor, a draw that changes from day to day or hangs on the probability, an error audited."""

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.config import FeedbackTable
from headrace.feedback.auditing import Doubts, confidence_of, is_drawn, margin_of, place_of
from headrace.stats import audits


def outputs(n: int, seed: int = 1) -> list[dict[str, float]]:
    rng = random.Random(seed)
    return [{"confidence": 1 - rng.random() ** 4 * 0.6} for _ in range(n)]


@pytest.mark.parametrize("share", [0.002, 0.01, 0.2, 1.0])
def test_about_the_wanted_share_is_audited_and_doubtful_answers_more(share: float) -> None:
    given_out = outputs(20_000)
    found = [p for p in Doubts(share).probabilities("ver_1", given_out) if p is not None]
    assert len(found) == len(given_out)
    assert min(found) >= audits.FLOOR
    assert max(found) <= 1
    assert np.mean(found) == pytest.approx(share, rel=0.1)
    if 0.002 < share < 1:
        late = list(zip(given_out, found, strict=True))[1000:]
        doubtful, sure = (np.mean([p for o, p in late if (o["confidence"] < 0.8) is low]) for low in (True, False))
        assert doubtful > 1.5 * sure


def test_probabilities_are_those_of_the_statistics() -> None:
    given_out = outputs(300)
    found = Doubts(0.05).probabilities("ver_1", given_out)
    assert found[:100] == [0.05] * 100  # nothing is known of the doubts yet
    doubts = np.array([math.sqrt(o["confidence"] * (1 - o["confidence"])) for o in given_out])
    scale = audits.scale_of(doubts[:100], 0.05)
    assert found[100:256] == pytest.approx(list(audits.probabilities(doubts[100:256], scale)))
    assert Doubts(0.05).probabilities("ver_2", given_out) == found  # versions are told apart, and nothing is random


def test_errors_and_answers_where_audits_are_off_are_not_audited() -> None:
    assert Doubts(0.5).probabilities("ver_1", [None, {"label": "a", "score": 0.3}]) == [None, 0.5]
    assert Doubts(0).probabilities("ver_1", [{"confidence": 0.5}]) == [None]


def test_accuracy_by_such_audits_is_that_of_all_answers() -> None:
    rng = np.random.default_rng(5)
    confidence = rng.beta(4, 1, 60_000)
    right = rng.random(len(confidence)) < np.clip(confidence - 0.1, 0, 1)  # the model is too sure of itself
    given_out = [{"confidence": float(one)} for one in confidence]
    p = np.array(Doubts(0.05).probabilities("ver_1", given_out), dtype=np.float64)
    drawn = np.array([is_drawn(f"prd_{i:032x}", one, salt="s") for i, one in enumerate(p)])
    found = audits.estimated(audits.tally(p, drawn, right, confidence))
    assert found is not None
    assert abs(found.accuracy - right.mean()) < 6 * found.error
    assert found.error < 0.012
    assert abs(right[drawn].mean() - right.mean()) > 6 * found.error  # the plain share of the audited is another one


@pytest.mark.parametrize("share", [0.001, 1.5, -0.1])
def test_a_share_below_the_floor_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="audit_share"):
        FeedbackTable(audit_share=share)
    assert FeedbackTable(audit_share=0).audit_share == 0


@given(st.text(max_size=20), st.text(max_size=20), st.floats(0, 1))
def test_a_draw_is_decided_by_id_salt_and_probability_alone(row_id: str, salt: str, probability: float) -> None:
    assert 0 <= place_of(row_id, salt) < 1
    assert is_drawn(row_id, probability, salt=salt) == (place_of(row_id, salt) < probability)
    assert not is_drawn(row_id, None, salt=salt)
    assert is_drawn(row_id, 1.0, salt=salt)
    assert not is_drawn(row_id, 0.0, salt=salt)


def test_draws_are_uniform_and_another_salt_draws_others() -> None:
    places = np.array([[place_of(f"prd_{i:032x}", salt) for i in range(20_000)] for salt in ("a", "b")])
    assert abs((places < 0.01).mean(axis=1) - 0.01).max() < 6 * math.sqrt(0.01 * 0.99 / 20_000)  # 6 errors of each
    assert abs(np.corrcoef(places)[0, 1]) < 0.05


@pytest.mark.parametrize(
    ("output", "confidence", "margin"),
    [
        ({"label": "a", "confidence": 0.6, "scores": {"a": 0.6, "b": 0.3, "c": 0.1}}, 0.6, 0.3),
        ({"labels": ["a"], "scores": {"a": 0.9, "b": 0.4}}, 0.54, 0.2),
        ({"labels": [], "scores": {"a": 0.1}}, 0.9, 0.8),
        ({"entities": [{"confidence": 0.7}, {"confidence": 0.9}]}, 0.7, 0.4),
        ({"entities": []}, None, None),
        ({"value": 3.5, "low": 1.0, "high": 5.0}, None, None),
        ({"label": "a", "score": 0.8, "hits": [{"score": 0.8}, {"score": 0.7}]}, None, 0.1),
        ({"answer": "", "start": None, "confidence": 0.5}, 0.5, 0.0),
    ],
)
def test_confidence_and_margin_of_answers_of_each_type(
    output: dict[str, object], confidence: float | None, margin: float | None
) -> None:
    for found, expected in ((confidence_of(output), confidence), (margin_of(output), margin)):
        assert found == (None if expected is None else pytest.approx(expected))

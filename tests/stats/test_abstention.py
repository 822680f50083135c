"""Thresholds of confidence. Catches: a wrong tail of the binomial, ties that are split, a threshold above all rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from headrace.stats import abstention


@given(st.integers(1, 3000), st.floats(0.001, 0.999), st.data())
def test_the_tail_is_that_of_the_binomial(n: int, p: float, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    assert abstention.chance_of_at_most(k, n, p) == pytest.approx(binom.cdf(k, n, p), rel=1e-6, abs=1e-12)


@given(st.lists(st.tuples(st.sampled_from([0.2, 0.5, 0.9, 0.99]), st.booleans()), max_size=300), st.floats(0.01, 0.9))
def test_a_threshold_is_a_confidence_of_the_rows_and_keeps_its_share(
    rows: list[tuple[float, bool]], most: float
) -> None:
    confidences, right = np.array([c for c, _ in rows]), np.array([r for _, r in rows], dtype=bool)
    found = abstention.threshold(confidences, right, max_wrong_share=most)
    if found is None:
        return
    given_ = confidences >= found.confidence
    assert found.confidence == 0 or found.confidence in confidences
    assert found.answered.estimate == pytest.approx(given_.mean())
    assert found.wrong.estimate == pytest.approx((~right[given_]).mean())
    assert found.wrong.estimate < most


def test_the_share_that_is_answered_is_the_largest_that_may_be() -> None:
    confidences = np.linspace(0, 1, 1000)
    right = confidences > 0.35  # all wrong below
    found = abstention.threshold(confidences, right, max_wrong_share=0.1)
    assert found is not None
    assert found.answered.estimate == pytest.approx(0.6)  # .7 would have 5 % wrong of those, too near to tell

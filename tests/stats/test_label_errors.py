"""Confident learning. Catches: a joint that is transposed, thresholds of the wrong class, a ranking turned around, more
labels suspected than the joint says, results that are not those of the authors' own package."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.stats import label_errors, linear_probe


def planted(
    n: int, k: int, share: float, *, seed: int, spread: float = 3.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors around k centres, labels of which a share is wrong, and which those are."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, k, n)
    vectors = np.eye(k)[truth] * spread + rng.normal(size=(n, k))
    wrong = rng.random(n) < share
    return vectors, np.where(wrong, (truth + rng.integers(1, k, n)) % k, truth), wrong


def probs_of(n: int, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.full(k, 0.4), n)
    labels = np.array([rng.choice(k, p=0.8 * p + 0.2 / k) for p in probs])
    return probs, labels


def test_by_hand() -> None:
    # Class 0 is believed at .9 and .6 where it is the label: threshold .75. Class 1 at .8 and .2: .5.
    probs = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.8, 0.2]])
    labels = np.array([0, 0, 1, 1])
    assert label_errors.thresholds(probs, labels) == pytest.approx([0.75, 0.5])
    assert label_errors.confident_classes(probs, labels).tolist() == [0, -1, 1, 0]
    assert label_errors.confident_joint(probs, labels).tolist() == [[1, 0], [1, 1]]
    # label 0: all of its two rows are right; label 1: half of its two are
    assert label_errors.joint(probs, labels) == pytest.approx(np.array([[0.5, 0], [0.25, 0.25]]))
    found = label_errors.suspects(probs, labels)
    assert found.rows.tolist() == [3]
    assert found.classes.tolist() == [0]
    assert found.wrong_share == pytest.approx(0.25)


def test_it_is_what_the_authors_package_finds() -> None:
    # cleanlab 2.9.0: compute_confident_joint(calibrate=False), get_confident_thresholds and find_label_issues, filtered
    # by confident_learning and by prune_by_noise_rate, ranked by self_confidence
    probs, labels = probs_of(60, 3, 0)
    assert label_errors.confident_joint(probs, labels).tolist() == [[10, 1, 2], [2, 11, 2], [2, 0, 12]]
    assert label_errors.thresholds(probs, labels) == pytest.approx([0.548302, 0.596759, 0.643595], abs=1e-6)
    found = label_errors.suspects(probs, labels, by="confident")
    assert found.rows.tolist() == [35, 48, 10, 58, 47, 8, 9, 46, 30]
    probs, labels = probs_of(400, 4, 4)
    found = label_errors.suspects(probs, labels, by="confident")
    assert found.rows[:12].tolist() == [146, 256, 321, 199, 315, 372, 258, 277, 41, 312, 71, 198]
    assert (len(found.rows), found.rows.sum()) == (136, 26318)
    rate = label_errors.suspects(probs, labels, by="rate").rows
    assert (len(rate), rate.sum()) == (133, 25813)


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2])
def test_planted_errors_are_found(share: float) -> None:
    vectors, labels, wrong = planted(2000, 4, share, seed=3)
    probs = linear_probe.out_of_fold(vectors, labels, 4, seed=0)
    found = label_errors.suspects(probs, labels)
    assert wrong[found.rows].mean() >= 0.8  # precision
    assert wrong[found.rows].sum() >= 0.6 * wrong.sum()  # recall
    assert found.wrong_share == pytest.approx(share, abs=0.03)
    assert (np.diff(found.confidences) >= 0).all()


def test_clean_labels_are_mostly_left_alone() -> None:
    vectors, labels, _ = planted(2000, 4, 0.0, seed=4, spread=6.0)
    probs = linear_probe.out_of_fold(vectors, labels, 4, seed=0)
    assert len(label_errors.suspects(probs, labels).rows) <= 4


@given(st.integers(0, 10**6), st.integers(2, 6))
@settings(max_examples=30, deadline=None)
def test_properties(seed: int, k: int) -> None:
    probs, labels = probs_of(80, k, seed)
    shares = label_errors.joint(probs, labels)
    assert shares.sum(axis=1) == pytest.approx(np.bincount(labels, minlength=k) / 80)
    both, rate, confident = (
        set(label_errors.suspects(probs, labels, by=w).rows) for w in ("both", "rate", "confident")
    )
    assert both == rate & confident
    assert all(probs[i].argmax() != labels[i] for i in rate | confident)
    order = np.random.default_rng(seed).permutation(k)  # classes by other names
    renamed = np.empty_like(probs)
    renamed[:, order] = probs
    assert set(label_errors.suspects(renamed, order[labels], by="confident").rows) == confident


def test_a_class_without_labels_is_no_reason_to_fail() -> None:
    probs = np.array([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]])
    found = label_errors.suspects(probs, np.array([0, 0]))
    assert found.rows.tolist() == []  # nothing has the label 2, so how sure one is of it is not known
    with pytest.raises(ValueError, match="'none'"):
        label_errors.suspects(probs, np.array([0, 0]), by="none")

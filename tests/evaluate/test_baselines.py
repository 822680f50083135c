"""Baselines against scikit-learn. Catches: a baseline that is too weak to be worth beating."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from evaluate.rows import CLASSES, LABELS, NUMBERS
from headrace.evaluate.baselines import majority, nearest_centroid
from headrace.tasks.text_classification import softmax


def test_majority_answers_the_most_frequent_class_with_its_share() -> None:
    logits = majority(CLASSES, ["yes"] * 6 + ["no"] * 4, n=3)
    assert logits.shape == (3, 3)
    assert [a["label"] for a in CLASSES.decode(logits)] == ["yes"] * 3
    assert softmax(logits)[0] == pytest.approx([0.4, 0.0, 0.6], abs=1e-6)
    assert majority(NUMBERS, [1.0, 2.0, 6.0], n=2).tolist() == [[3.0], [3.0]]


def test_nearest_centroid_is_by_cosine_and_never_a_class_without_rows() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(2, 8))
    place = rng.integers(0, 2, 100)
    vectors = (centres[place] * rng.uniform(0.1, 9, (100, 1)) + rng.normal(size=(100, 8)) * 0.05).astype(np.float32)
    logits = nearest_centroid(CLASSES, vectors, [LABELS[k] for k in place], vectors)
    assert (logits.argmax(axis=1) == place).all()
    assert (logits[:, :2] <= 1.00001).all()
    assert nearest_centroid(CLASSES, vectors, [LABELS[k] for k in place], np.zeros((1, 8), np.float32)).argmax() < 2


def test_regression_is_ridge() -> None:
    rng = np.random.default_rng(1)
    train, new = rng.normal(size=(60, 5)).astype(np.float32), rng.normal(size=(7, 5)).astype(np.float32)
    targets = (train @ rng.normal(size=5) + 3).astype(np.float32)
    expected = Ridge(alpha=1.0).fit(train.astype(float), targets.astype(float)).predict(new.astype(float))
    assert nearest_centroid(NUMBERS, train, targets.tolist(), new)[:, 0] == pytest.approx(expected, abs=1e-4)

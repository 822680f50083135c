"""Baselines against scikit-learn. Catches: a baseline that is too weak to be worth beating, a label that is answered by
the share of another, cosines of vectors that are not of unit length."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from evaluate.rows import CLASSES, ENTRIES, LABELS, NUMBERS, SETS, TAGS
from headrace.evaluate.baselines import majority, nearest_centroid, zero_shot
from headrace.tasks.text_classification import softmax


def test_majority_answers_the_most_frequent_class_with_its_share() -> None:
    logits = majority(CLASSES, ["yes"] * 6 + ["no"] * 4, n=3)
    assert logits is not None
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


def test_majority_of_several_labels_answers_those_of_most_rows() -> None:
    logits = majority(SETS, [["yes"], ["yes", "no"], ["yes", "no"], ["yes"], ["no"]], n=2)
    assert logits is not None
    assert logits.shape == (2, 3)
    (answer, _) = SETS.decode(logits)
    assert answer["labels"] == ["no", "yes"]
    assert answer["scores"] == pytest.approx({"no": 0.6, "maybe": 0, "yes": 0.8}, abs=1e-6)


def test_majority_of_entries_is_the_most_asked_one() -> None:
    logits = majority(ENTRIES, ["yes", "no", "yes"], n=1)
    assert logits is not None
    assert [hit["label"] for hit in ENTRIES.decode(logits)[0]["hits"]] == ["yes", "no", "maybe"]


def test_tasks_on_tokens_have_no_such_baseline() -> None:
    assert majority(TAGS, [[]], n=3) is None
    assert nearest_centroid(TAGS, np.ones((1, 4)), [[]], np.ones((3, 4))) is None


def test_centroids_of_several_labels_answer_each_alone() -> None:
    rng = np.random.default_rng(0)
    flags = rng.random((200, 3)) < [0.5, 0, 0.3]  # nothing is ever `maybe`
    vectors = (flags @ (rng.normal(size=(3, 16)) * 3) + rng.normal(size=(200, 16)) * 0.3 + 0.5).astype(np.float32)
    targets = [[label for label, yes in zip(LABELS, row, strict=True) if yes] for row in flags]
    logits = nearest_centroid(SETS, vectors[:150], targets[:150], vectors[150:])
    assert logits is not None
    found = SETS.metrics(targets[150:], logits)
    assert found["macro_f1"] > 0.8
    assert found["per_class"]["maybe"]["n_answered"] == 0


def test_zero_shot_is_the_nearest_text() -> None:
    entries = np.array([[2.0, 0], [0, 0.1], [-1, 0]], np.float32)
    queries = np.array([[0.1, 1], [-3, 1], [0, 0]], np.float32)
    logits = zero_shot(ENTRIES, queries, entries)
    assert logits.dtype == np.float32
    answers = ENTRIES.decode(logits)
    assert [answer["label"] for answer in answers[:2]] == ["maybe", "yes"]
    assert answers[1]["score"] == pytest.approx(3 / np.sqrt(10), abs=1e-5)
    assert not logits[2].any()

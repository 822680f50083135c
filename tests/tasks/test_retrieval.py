"""Retrieval against scikit-learn. Catches: ranks off by one, ties that flatter, hits in the wrong order, a discount of
the wrong place, a text that stands for another entry."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from headrace.config import TaskTable
from headrace.errors import BadConfig, BadInput
from headrace.loop import init
from headrace.tasks.retrieval import SCALE, Retrieval

N_ENTRIES = 30
TEXTS = {f"q{k}": f"Answer number {k}." for k in range(N_ENTRIES)}
TASK = Retrieval(TaskTable(type="retrieval", labels=tuple(TEXTS), descriptions=TEXTS))


def drawn(seed: int, n: int) -> tuple[list[str], np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, N_ENTRIES, n)
    outputs = rng.normal(size=(n, N_ENTRIES)) + 2 * np.eye(N_ENTRIES)[truth]
    return [f"q{k}" for k in truth], outputs.astype(np.float32)


@given(st.integers(0, 10**6), st.integers(1, 40))
@settings(deadline=None, max_examples=40)
def test_figures_are_sklearns(seed: int, n: int) -> None:
    targets, outputs = drawn(seed, n)
    truth = TASK.encode_targets(targets)
    relevant = np.eye(N_ENTRIES)[truth]
    found = TASK.metrics(targets, outputs)
    assert found["mrr"] == pytest.approx(oracle.label_ranking_average_precision_score(relevant, outputs))
    assert found["ndcg_at_10"] == pytest.approx(oracle.ndcg_score(relevant, outputs, k=10))
    for depth in (1, 5, 10):
        expected = oracle.top_k_accuracy_score(truth, outputs, k=depth, labels=range(N_ENTRIES))
        assert found[f"recall_at_{depth}"] == pytest.approx(expected)


@given(st.lists(st.integers(0, 2), min_size=N_ENTRIES, max_size=N_ENTRIES), st.integers(0, N_ENTRIES - 1))
def test_ties_count_against(scores: list[int], right: int) -> None:
    outputs = np.array([scores], np.float32)
    found = TASK.metrics([f"q{right}"], outputs)
    # scikit-learn's average precision gives equal scores the last of their places, too
    expected = oracle.label_ranking_average_precision_score(np.eye(N_ENTRIES)[[right]], outputs)
    assert found["mrr"] == pytest.approx(expected)


def test_one_answer_to_all_earns_nothing() -> None:
    found = TASK.metrics(["q0", "q1"], np.zeros((2, N_ENTRIES), np.float32))
    assert found["mrr"] == pytest.approx(1 / N_ENTRIES)
    assert found["recall_at_10"] == found["ndcg_at_10"] == 0


def test_answers_show_the_first_five_with_cosines() -> None:
    outputs = np.full((1, N_ENTRIES), -SCALE, np.float32)
    outputs[0, [4, 2, 9, 7, 11, 3]] = SCALE * np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    (answer,) = TASK.decode(outputs)
    assert (answer["label"], answer["text"], answer["score"]) == ("q4", "Answer number 4.", 0.9)
    assert [hit["label"] for hit in answer["hits"]] == ["q4", "q2", "q9", "q7", "q11"]
    assert [hit["score"] for hit in answer["hits"]] == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5])
    small = Retrieval(TaskTable(type="retrieval", labels=("a", "b"), descriptions={"a": "x", "b": "y"}))
    assert len(small.decode(np.zeros((1, 2)))[0]["hits"]) == 2


def test_a_label_is_an_id_or_a_text() -> None:
    task = Retrieval(TaskTable(type="retrieval", labels=("a", "b", "c"), descriptions={"a": "b", "b": "x", "c": " x "}))
    assert task.parse_label("b") == "b", "an id before a text"
    assert task.parse_label("x") == "b", "of equal texts the first"
    with pytest.raises(BadInput, match=r"neither the id nor the text of an entry: q99"):
        TASK.parse_label("q99")
    with pytest.raises(BadConfig, match=r"needs the text of each.*c"):
        Retrieval(TaskTable(type="retrieval", labels=("a", "c"), descriptions={"a": "x", "c": " "}))


def test_a_workspace_starts_from_a_catalogue(tmp_path: Path) -> None:
    (tmp_path / "faq.jsonl").write_text('{"label": "a", "text": "x"}\n{"label": "b", "text": "y"}\n', "utf-8")
    with init(tmp_path, task="faq", task_type="retrieval", catalogue="faq.jsonl") as ws:
        assert ws.task("faq").descriptions == {"a": "x", "b": "y"}
    with pytest.raises(BadConfig, match="the catalogue cannot be read"):
        init(tmp_path / "other", task="faq", task_type="retrieval", catalogue="none.jsonl")
    assert not (tmp_path / "other").exists()

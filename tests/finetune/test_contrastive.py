"""SetFit's stage. Catches: unlike pairs called like, a sample without a rare class, vectors that do not move apart,
another result for the same seed, a stage that is done twice."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune import toy
from finetune.toy_tasks import TASKS, rows_of
from headrace.config import FinetuneTable
from headrace.finetune.methods import contrastive
from headrace.finetune.methods.contrastive import balanced, pairs_of
from headrace.finetune.running import Tuned, tune

SETTINGS = FinetuneTable(method="contrastive", epochs=1, min_steps=10, batch_tokens=256)


@given(
    labels=st.lists(st.frozensets(st.sampled_from("abcd"), max_size=3), min_size=2, max_size=20), seed=st.integers(0, 9)
)
def test_likeness_is_the_overlap_of_labels(labels: list[frozenset[str]], seed: int) -> None:
    pairs = pairs_of(labels, 40, seed=seed)
    assert len(pairs) == 40
    assert pairs == pairs_of(labels, 40, seed=seed)
    for one, other, likeness in pairs:
        a, b = labels[one], labels[other]
        assert likeness == pytest.approx(len(a & b) / len(a | b) if a | b else 1.0)


def test_half_of_the_pairs_are_like() -> None:
    pairs = pairs_of([frozenset("abcde"[i % 5]) for i in range(50)], 400, seed=1)
    assert sum(likeness for _, _, likeness in pairs) == 200
    assert all(one != other for one, other, likeness in pairs if likeness)
    assert {one for one, _, _ in pairs} == set(range(50))


def test_a_sample_has_the_rare_class() -> None:
    rows = toy.rows(200)
    rare = [row for row in rows if row.target == "neutral"][:3]
    many = [row for row in rows if row.target == "positive"] + rare
    sample = balanced(many, 20, seed=1)
    assert len(sample) == 20
    assert {row.example_id for row in rare} <= {row.example_id for row in sample}
    assert balanced(rows, 200, seed=1) == rows


def _tune(folder: Path, base: Path, kind: str, seen: list[str] | None = None) -> Tuned:
    def report(stage: str, *_args: object, **_facts: object) -> None:
        if seen is not None:
            seen.append(stage)

    return tune(folder, base, TASKS[kind], SETTINGS, rows_of(kind, 60), report)


@pytest.mark.slow
def test_vectors_move_apart_by_label_and_the_stage_is_done_once(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contrastive, "_MAX_PAIRS", 800)
    monkeypatch.setattr(contrastive, "_RATE", 1e-3)
    from headrace.finetune.embeddings import vectors_of

    def gap(tuned: Tuned) -> float:
        rows = [row for row in toy.rows(60) if row.side == "train"]
        vectors = vectors_of(tuned.network, tuned.tokenizer, toy.TASK, [row.text for row in rows])
        same = np.array([[a.target == b.target for b in rows] for a in rows])
        return float((vectors @ vectors.T)[same].mean() - (vectors @ vectors.T)[~same].mean())

    seen: list[str] = []
    first = _tune(tmp_path / "a", tiny_base, "text-classification", seen)
    assert "contrast" in seen
    base = tune(
        tmp_path / "base", tiny_base, toy.TASK, SETTINGS.model_copy(update={"method": "zero-shot"}), toy.rows(60),
        lambda *_a, **_f: None,
    )  # fmt: skip
    assert gap(first) > gap(base) + 0.005
    seen.clear()
    again = _tune(tmp_path / "a", tiny_base, "text-classification", seen)  # as after a kill in the second stage
    assert "contrast" not in seen
    other = _tune(tmp_path / "b", tiny_base, "text-classification")
    for tuned in (again, other):
        state = tuned.network.state_dict()
        assert all(np.array_equal(state[name], value) for name, value in first.network.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["multi-label", "text-pair"])
def test_other_task_types(tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(contrastive, "_MAX_PAIRS", 64)
    assert _tune(tmp_path, tiny_base, kind).history

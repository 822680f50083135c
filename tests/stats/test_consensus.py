"""Aggregation of votes. Catches: confusions transposed, a barred annotator who still speaks, a silent item that gets an
answer, an EM that poison turns around, one that is not what others' implementations compute."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.crowd import attacked, some_known
from bench.crowd import simulated as crowd
from headrace.stats import annotators, consensus
from headrace.stats.annotators import UNKNOWN, Ints, Votes
from headrace.stats.consensus import AGGREGATIONS, dawid_skene, mace, majority

ATTACKS = ("flip", "random", "constant", "drip", "targeted")


def accuracy(answers: Ints, truth: Ints) -> float:
    return float((answers == truth).mean())


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_what_is_learnt_of_annotators_is_what_they_do(name: str) -> None:
    votes, truth = crowd(n_items=3000, n_annotators=20, seed=4)
    found = AGGREGATIONS[name](votes)
    right = np.bincount(votes.annotators, votes.classes == truth[votes.items]) / np.bincount(votes.annotators)
    assert accuracy(found.answers(), truth) > 0.93
    if name != "majority":  # which holds a vote against whoever is outvoted by worse ones
        assert found.accuracies == pytest.approx(right, abs=0.03)
    assert found.confusions.sum(axis=2) == pytest.approx(np.ones((20, 3)))
    assert found.probs.sum(axis=1) == pytest.approx(np.ones(3000))


def test_dawid_skene_is_what_others_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    # crowd-kit 1.4.2, DawidSkene(n_iter=1000, tol=1e-10), which smooths nothing; here half a vote is left in the shares
    votes, truth = crowd(n_items=200, n_annotators=12, accuracies=(0.6, 0.9), seed=1)
    monkeypatch.setattr(consensus, "SMOOTHING", 1e-9)
    found = dawid_skene(votes)
    expected = [
        [0.019152, 0.980848, 0],
        [0.000017, 0.999983, 0],
        [0.006978, 0.000374, 0.992649],
        [0.000252, 0.003695, 0.996053],
    ]
    assert found.probs[:4] == pytest.approx(np.array(expected), abs=5e-4)
    assert found.probs.sum(axis=0) == pytest.approx([63.1386, 66.8156, 70.0459], abs=0.4)
    assert accuracy(found.answers(), truth) == 0.925


def test_rows_of_confusions_are_the_truth() -> None:
    # One of four says 0 whatever it is, which a transposed table would make a fault of the others.
    votes, truth = crowd(n_items=900, n_annotators=3, n_votes=3, accuracies=(0.95, 0.95), seed=0)
    every = np.arange(900)
    whole = votes + Votes(every, np.full(900, 3), np.zeros(900, dtype=int), 900, 4, 3)
    found = dawid_skene(whole)
    assert (found.confusions[3, :, 0] > 0.95).all()
    assert (found.confusions[:3].diagonal(axis1=1, axis2=2) > 0.85).all()
    assert accuracy(found.answers(), truth) > 0.95


def test_better_annotators_outvote_more_of_worse_ones() -> None:
    votes, truth = crowd(n_items=800, n_annotators=2, n_votes=2, accuracies=(0.97, 0.97), seed=5)
    noise, _ = crowd(n_items=800, n_annotators=5, n_votes=5, accuracies=(0.36, 0.4), seed=6)
    said = np.where(np.random.default_rng(7).random(len(noise)) < 0.38, truth[noise.items], noise.classes)
    whole = votes + Votes(noise.items, noise.annotators + 2, said, 800, 7, 3)
    plain = accuracy(majority(whole).answers(), truth)
    for learnt in (dawid_skene, mace):
        assert accuracy(learnt(whole).answers(), truth) > plain + 0.02


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_the_barred_do_not_speak(name: str) -> None:
    votes, truth = crowd(seed=8)
    whole = attacked(votes, truth, "flip", 0.5, seed=9)
    counts = np.where(np.arange(whole.n_annotators) < votes.n_annotators, 1.0, 0.0)
    alone = AGGREGATIONS[name](votes)
    found = AGGREGATIONS[name](whole, counts)
    assert found.probs == pytest.approx(alone.probs, abs=1e-4)


def test_an_item_about_which_nobody_spoke_has_no_answer() -> None:
    votes = Votes(np.array([0, 0, 2]), np.array([0, 1, 1]), np.array([1, 1, 0]), 4, 2, 2)
    weights, known = np.array([1.0, 0.0]), np.array([UNKNOWN, UNKNOWN, UNKNOWN, 0])
    for aggregate in AGGREGATIONS.values():
        found = aggregate(votes, weights, known)
        assert found.answers().tolist() == [1, UNKNOWN, UNKNOWN, 0]
        assert np.isnan(found.probs[1:3]).all()


@given(st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_order_and_names_do_not_matter(seed: int) -> None:
    votes, _ = crowd(n_items=60, n_annotators=8, seed=seed % 1000)
    order = np.random.default_rng(seed).permutation(len(votes))
    renamed = np.random.default_rng(seed + 1).permutation(8)
    again = Votes(votes.items[order], renamed[votes.annotators[order]], votes.classes[order], 60, 8, 3)
    for aggregate in AGGREGATIONS.values():
        assert aggregate(again).probs == pytest.approx(aggregate(votes).probs, abs=1e-6)


@pytest.mark.parametrize("kind", ATTACKS)
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_known_answers_first_and_poison_does_no_harm(kind: str, share: float) -> None:
    votes, truth = crowd(n_items=1500, n_annotators=60, seed=10)
    clean = accuracy(dawid_skene(votes).answers(), truth)
    whole = attacked(votes, truth, kind, share, size=200, seed=11)
    known = some_known(truth, 0.024, seed=12)
    weights = annotators.weights(*annotators.score(whole, known))
    found = dawid_skene(whole, weights, known)
    assert accuracy(found.answers(), truth) >= clean - 0.01


def test_without_the_gate_a_majority_of_liars_turns_everything_around() -> None:
    # Else the test above would show nothing.
    votes, truth = crowd(n_items=1500, n_annotators=60, n_classes=2, seed=10)
    whole = attacked(votes, truth, "flip", 0.5, size=200, seed=11)
    assert accuracy(dawid_skene(whole).answers(), truth) < 0.2
    weights = annotators.weights(*annotators.score(whole, some_known(truth, 0.024, seed=12)))
    assert accuracy(dawid_skene(whole, weights).answers(), truth) > 0.95

"""Value of sources. Catches: a recursion that is not the Shapley value, values of rows that a model saw, a harmful
source that is called useful, intervals that are no intervals."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from headrace.stats import valuation
from headrace.stats.valuation import Rows


def sources(n_sources: int, n_each: int, *, seed: int, bad: float = 0.0, d: int = 6) -> tuple[Rows, Rows]:
    """Rows of three classes in equal sources, of which the last has a share of wrong labels; and held-out rows."""
    rng = np.random.default_rng(seed)

    def some(n: int) -> tuple[np.ndarray, np.ndarray]:
        truth = rng.integers(0, 3, n)
        return np.eye(d)[truth] * 2 + rng.normal(size=(n, d)), truth

    vectors, truth = some(n_sources * n_each)
    owners = np.repeat(np.arange(n_sources), n_each)
    wrong = (owners == n_sources - 1) & (rng.random(len(truth)) < bad)
    held, target = some(400)
    return Rows(vectors, np.where(wrong, (truth + 1) % 3, truth), owners), Rows(held, target, rng.integers(0, 2, 400))


def shapley(rows: Rows, held_out: Rows, k: int) -> np.ndarray:
    """By its definition: the mean gain over all sets of the other rows."""
    n = len(rows.targets)
    distances = np.square(rows.vectors[None] - held_out.vectors[:, None]).sum(axis=2)

    def worth(chosen: tuple[int, ...]) -> float:
        hits = 0.0
        for near, target in zip(distances, held_out.targets, strict=True):
            hits += sum(rows.targets[i] == target for i in sorted(chosen, key=lambda i: near[i])[:k]) / k
        return hits / len(held_out.targets)

    values = np.zeros(n)
    for i in range(n):
        rest = [j for j in range(n) if j != i]
        for size in range(n):
            share = math.factorial(size) * math.factorial(n - size - 1) / math.factorial(n)
            for chosen in itertools.combinations(rest, size):
                values[i] += share * (worth((*chosen, i)) - worth(chosen))
    return values


@pytest.mark.parametrize("k", [1, 2, 9])
def test_values_by_neighbours_are_shapley_values(k: int) -> None:
    rng = np.random.default_rng(k)
    rows = Rows(rng.normal(size=(7, 2)), rng.integers(0, 2, 7), np.arange(7) % 3)
    held_out = Rows(rng.normal(size=(4, 2)), rng.integers(0, 2, 4), np.zeros(4, dtype=int))
    found = valuation.knn_shapley(rows, held_out, n_neighbours=k)
    expected = shapley(rows, held_out, k) * 7
    assert found.rows == pytest.approx(expected, abs=1e-12)
    for source, interval in found.sources.items():
        assert interval.estimate == pytest.approx(expected[rows.owners == source].mean(), abs=1e-12)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, held_out = sources(3, 20, seed=1)
    whole = valuation.knn_shapley(rows, held_out)
    monkeypatch.setattr(valuation, "_BLOCK_CELLS", 60 * 7)
    in_blocks = valuation.knn_shapley(rows, held_out)
    assert in_blocks.rows == pytest.approx(whole.rows)
    assert in_blocks.sources[0] == whole.sources[0]


@pytest.mark.parametrize("way", ["data_oob", "knn_shapley"])
def test_a_source_with_wrong_labels_is_ranked_last(way: str) -> None:
    for seed in range(5):
        rows, held_out = sources(6, 150, seed=seed, bad=0.3)
        found = (
            valuation.data_oob(rows, 3, seed=seed, n_models=30)
            if way == "data_oob"
            else valuation.knn_shapley(rows, held_out)
        )
        assert found.ranked()[-1] == 5
        assert set(found.ranked()) == set(range(6))


def test_rows_are_valued_by_models_that_never_saw_them() -> None:
    # Labels without any relation to the vectors, fewer rows than columns: seen rows would be answered rightly.
    rng = np.random.default_rng(3)
    rows = Rows(rng.normal(size=(60, 80)), rng.integers(0, 2, 60), np.arange(60) % 2)
    found = valuation.data_oob(rows, 2, seed=0, n_models=60)
    assert np.nanmean(found.rows) == pytest.approx(0.5, abs=0.2)


def test_values_are_stable() -> None:
    rows, _ = sources(5, 100, seed=4, bad=0.3)
    one, other = (valuation.data_oob(rows, 3, seed=seed).rows for seed in (0, 1))
    assert stats.spearmanr(one, other).statistic > 0.9


def test_leaving_out_says_who_helps_and_who_harms() -> None:
    # The last source always lies; the group it would harm is all of the held-out rows.
    rows, held_out = sources(3, 60, seed=5, bad=1.0, d=4)
    found = {(c.source, c.group): c for c in valuation.leave_one_out(rows, held_out, 3)}
    assert set(found) == {(s, g) for s in range(3) for g in (None, 0, 1)}
    assert found[2, None].harms
    assert found[2, None].loss.high < 0
    for source in (0, 1):
        assert found[source, None].loss.low > 0
        assert not found[source, None].harms
    whole, parts = found[2, None], [found[2, g] for g in (0, 1)]
    sizes = np.bincount(held_out.owners)
    assert whole.loss.estimate == pytest.approx(float(np.average([p.loss.estimate for p in parts], weights=sizes)))


def test_what_a_source_adds_is_the_difference_of_two_fits() -> None:
    rows, held_out = sources(3, 40, seed=6)
    found = {(c.source, c.group): c for c in valuation.leave_one_out(rows, held_out, 3)}
    kept = rows.owners != 1
    without = Rows(rows.vectors[kept], rows.targets[kept], rows.owners[kept])
    more = valuation._on(held_out, valuation.linear_probe.fit(rows.vectors, rows.targets, 3))
    less = valuation._on(held_out, valuation.linear_probe.fit(without.vectors, without.targets, 3))
    assert found[1, None].accuracy.estimate == pytest.approx(more.right.mean() - less.right.mean(), abs=0.006)
    assert found[1, None].loss.estimate == pytest.approx((more.likely - less.likely).mean(), abs=2e-3)


def test_paired_shares_cover() -> None:
    rng, n_covered = np.random.default_rng(7), 0
    for _ in range(1000):
        kind = rng.choice(4, p=[0.75, 0.1, 0.05, 0.1], size=120)
        found = valuation.paired_shares(kind <= 1, (kind == 0) | (kind == 2))
        n_covered += found.low <= 0.05 <= found.high
    assert abs(n_covered / 1000 - 0.95) <= 5 * np.sqrt(0.95 * 0.05 / 1000)
    same = np.ones(20, dtype=bool)
    assert valuation.paired_shares(same, same).low < 0 < valuation.paired_shares(same, same).high


def test_one_value_has_a_mean_without_an_end() -> None:
    assert valuation.mean_interval(np.array([2.0])).high == math.inf
    found = valuation.mean_interval(np.random.default_rng(8).exponential(size=400))
    assert found.low < 1 < found.high


def test_kappa_is_that_of_scikit_learn_and_below_zero_for_flipped_labels() -> None:
    from sklearn.metrics import cohen_kappa_score

    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, 300)
    answers = np.where(rng.random(300) < 0.6, labels, rng.integers(0, 4, 300))
    found = valuation.kappa(labels, answers)
    assert found is not None
    assert found.estimate == pytest.approx(cohen_kappa_score(labels, answers))
    assert found.low < found.estimate < found.high
    flipped = valuation.kappa((labels + 1) % 3, answers)
    assert flipped is not None
    assert flipped.high < 0
    assert valuation.kappa(np.zeros(5, dtype=int), np.zeros(5, dtype=int)) is None
    assert valuation.kappa(labels[:0], answers[:0]) is None

"""The benches of arms: replays on planted answers, simulated bandits and A/B releases. Catches: a way to decide that
sees the future or the wrong side, labels counted wrong, a simulation that finds nothing."""

import numpy as np
import pytest

from bench import best_arm, release_ab, release_replay
from bench.release_replay import Outputs, Pair
from headrace.records import Score
from headrace.stats import confidence_sequences

CLASSES = np.array(["negative", "neutral", "positive"])
N = 2400


@pytest.fixture(scope="module")
def made() -> Outputs:
    """Answers of four versions: `best` is right on 75 %, `middle` on 3 points fewer, `worst` on 40 points fewer."""
    rng = np.random.default_rng(5)
    truth = CLASSES[rng.integers(0, 3, N)]
    best = np.where(rng.random(N) < 0.25, np.roll(truth, 1), truth)

    def spoilt(share: float) -> np.ndarray:
        return np.where(rng.random(N) < share, CLASSES[rng.integers(0, 3, N)], best)

    answers = {"worst": spoilt(0.8), "middle": spoilt(0.08), "best": best, "best, other seed": spoilt(0.02)}
    channels = np.array(["amazon", "movies", "nyt", "tweets"])[rng.integers(0, 4, N)]
    return Outputs(channels, truth, answers, {})


def replayed(made: Outputs, name: str, n_orders: int = 60) -> dict[str, float]:
    pair = next(pair for pair in release_replay.pairs(made) if pair.name == name)
    return {row.what.replace(" · ", ", "): row.value for row in release_replay.replays(pair, n_orders=n_orders, seed=1)}


def test_a_known_answer_is_found_with_labels_for_disagreements_only(made: Outputs) -> None:
    figures = replayed(made, "much worse")
    for way in ("shadow", "naive", "fixed", "group-sequential", "unpaired"):
        assert figures[f"much worse, {way}, harm found"] >= 95, way
    assert figures["much worse, shadow, labels, median"] < figures["much worse, unpaired, labels, median"]
    assert figures["much worse, shadow, labels, median"] <= figures["much worse, shadow, sentences, median"]
    assert figures["much worse, fixed, sentences, median"] == release_replay.N_FIXED
    assert figures["much worse: gain in accuracy"] < -20


def test_a_ruined_channel_is_found_though_the_mean_is_better(made: Outputs) -> None:
    figures = replayed(made, "a channel ruined")
    assert figures["a channel ruined, shadow, harm found"] >= 90


def test_swapped_answers_fool_only_the_naive(made: Outputs) -> None:
    figures = replayed(made, "swapped: better", n_orders=200)
    assert figures["swapped: better: gain in accuracy"] == 0
    assert figures["swapped: better, naive, benefit found"] > 12
    for way in ("shadow", "fixed", "unpaired"):
        assert figures[f"swapped: better, {way}, benefit found"] <= 13, way


def test_the_answer_does_not_hang_on_what_comes_later(made: Outputs) -> None:
    # Cut off after the decision, every way decides the same.
    pair = next(pair for pair in release_replay.pairs(made) if pair.name == "much worse")
    rng = np.random.default_rng(3)
    whole = pair.ordered(rng.permutation(N), rng)
    decision, n = release_replay.Shadow(N, 4)(whole, rng)
    start = Pair("start", whole.control[:n], whole.candidate[:n], whole.differ[:n], whole.channel[:n])
    assert release_replay.Shadow(N, 4)(start, rng) == (decision, n) == ("harm", n)
    assert release_replay.naive(whole, rng)[1] % 20 == 0


def test_the_simulated_bandit_finds_the_best_sooner_than_even_shares() -> None:
    scenario = best_arm.Scenario("far apart", (0.9, 0.8, 0.75, 0.7, 0.7), n_most=20_000)
    even = best_arm.simulate(scenario, is_uniform=True, n_runs=40, seed=1)
    found = best_arm.simulate(scenario, is_uniform=False, n_runs=40, seed=2)
    assert (even.named == 0).mean() >= 0.9
    assert (found.named == 0).mean() >= 0.9
    assert found.n_labels.mean() < even.n_labels.mean()


def test_the_asymptotic_rule_on_arrays_is_that_of_the_library() -> None:
    rng = np.random.default_rng(4)
    spread = confidence_sequences.rho(release_ab.N_TUNED, release_ab.ALPHA)
    found = set()
    for _ in range(300):
        arms = [Score(int(n), int(rng.integers(0, n + 1))) for n in rng.integers(1, 200, size=2)]
        counts = np.array([[arm.n, arm.n_right] for arm in arms], dtype=float).reshape(4, 1)
        up, down = release_ab._normal(counts, arms[0].n + arms[1].n, spread)["asymptotic"][:, 0]
        finding = confidence_sequences.asymptotic(*arms, alpha=release_ab.ALPHA).finding
        assert finding == ("benefit" if up else "harm" if down else "undecided")
        found.add(finding)
    assert len(found) == 3


def test_simulated_releases_find_what_is_there_and_little_else() -> None:
    worse = release_ab.World("worse", (0.9, 0.9), (0.7, 0.7), n_answers=1500)
    benefit, harm = release_ab.first_findings(worse, n_releases=100, seed=1)["betting"]
    assert np.isfinite(harm).mean() >= 0.95
    assert np.isfinite(benefit).mean() <= 0.1
    even = release_ab.World("even", (0.9, 0.6), (0.9, 0.6), share=0.1, n_answers=1500)
    found = release_ab.first_findings(even, n_releases=200, seed=2)
    for way in ("betting", "asymptotic"):
        assert max(np.isfinite(at).mean() for at in found[way]) <= 0.13, way
    assert np.isfinite(found["naive"][0]).mean() > 0.15


def test_simulated_units_are_told_apart_where_each_label_counts_and_not_where_the_first_does() -> None:
    units = release_ab.Units(20, 0.0, n_answers=1500)
    found = release_ab.of_units(units, n_releases=200, seed=3)
    each, first = (np.isfinite(looks.found["betting"][0]).mean() for looks in found.values())
    assert each > 0.1
    assert first <= 0.13
    assert found["first of a unit"].counts[[0, 2]].sum(axis=0).max() == 20
    assert (found["each label"].counts[[0, 2]].sum(axis=0) == 1500).all()

"""How long a release takes: closed forms, the paths one by one, and the tests themselves on simulated requests."""

import math

import numpy as np
import pytest

from headrace.stats import confidence_sequences, noninferiority, planning
from headrace.stats.evalues import log_e


def simulated(p_loss: float, share: float, n_runs: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Disagreements and requests until E of harm reaches 20, in runs of the e-process itself."""
    rng = np.random.default_rng(seed)
    fewest = np.array([next((k for k in range(n + 1) if log_e(k, n - k) >= math.log(20)), n + 1) for n in range(701)])
    losses = (rng.random((n_runs, 700)) < p_loss).cumsum(axis=1)
    crossed = losses >= fewest[1:]
    assert crossed.any(axis=1).all()
    n_labels = crossed.argmax(axis=1) + 1
    return n_labels, n_labels + rng.negative_binomial(n_labels, share)


def test_agrees_with_the_paired_test_on_simulated_requests() -> None:
    # 6 % disagreement, 2 points worse. Catches a wrong boundary, a lost path, labels and requests mixed up.
    n_labels, n_requests = simulated(2 / 3, 0.06, 4000, seed=5)
    plan = planning.paired(0.06, 0.02)
    assert plan.n_labels_median == pytest.approx(np.median(n_labels), rel=0.06)
    assert plan.n_labels_p90 == pytest.approx(np.quantile(n_labels, 0.9), rel=0.06)
    assert plan.n_requests_median == pytest.approx(np.median(n_requests), rel=0.06)
    assert plan.n_requests_p90 == pytest.approx(np.quantile(n_requests, 0.9), rel=0.06)
    assert plan.n_requests == pytest.approx(np.quantile(n_requests, 0.8), rel=0.06)
    assert plan.n_requests_mean == pytest.approx(n_requests.mean(), rel=0.06)


def test_a_sure_loss_at_every_disagreement_takes_seven_labels() -> None:
    # E(0 wins, L losses) = (2^(L+1) - 1) / (L + 1) reaches 20 at L = 7; requests are then negative binomial.
    from scipy.stats import nbinom

    plan = planning.paired(0.1, 0.1, price_per_label=0.5)
    assert (plan.n_labels_median, plan.n_labels_p90, plan.cost_p90) == (7, 7, 3.5)
    assert plan.n_requests_median == nbinom.ppf(0.5, 7, 0.1) + 7
    assert plan.n_requests_p90 == nbinom.ppf(0.9, 7, 0.1) + 7


def bets_decided(
    accuracies: tuple[float, float], share: float, n_most: int, *, n_runs: int, n_between: int, seed: int
) -> np.ndarray:
    """Labels until betting finds a difference of two arms, looking every `n_between` labels."""
    rng = np.random.default_rng(seed)
    values, bets = confidence_sequences.estimates(share, 0.8), confidence_sequences.bets(share, 0.8)
    n_labels = []
    for _ in range(n_runs):
        is_candidate = rng.random(n_most) < share
        is_right = rng.random(n_most) < np.where(is_candidate, accuracies[1], accuracies[0])
        cells = np.eye(4)[2 * is_candidate + is_right].cumsum(axis=0)[n_between - 1 :: n_between]
        evidence = confidence_sequences.log_e(bets.log_capitals(values, cells)[:, :, 0]).max(axis=1)
        found = evidence >= math.log(20)
        assert found.any()
        n_labels.append((found.argmax() + 1) * n_between)
    return np.array(n_labels)


@pytest.mark.parametrize(
    ("accuracy", "drop", "share", "n_most"),
    [(0.9, 0.1, 0.5, 3000), (0.9, -0.05, 0.5, 8000), (0.8, 0.15, 0.1, 8000), (0.8, -0.15, 0.1, 8000)],
)
def test_agrees_with_bets_on_simulated_answers(accuracy: float, drop: float, share: float, n_most: int) -> None:
    # 400 runs. Catches a wrong variance, share or side; the walk of unit steps is itself a few percent off.
    n_labels = bets_decided((accuracy, accuracy - drop), share, n_most, n_runs=400, n_between=5, seed=9)
    plan = planning.unpaired(accuracy, drop, control_share=1 - share, candidate_share=share)
    assert plan.n_labels_median == pytest.approx(np.median(n_labels), rel=0.15)
    assert plan.n_labels_p90 == pytest.approx(np.quantile(n_labels, 0.9), rel=0.2)
    assert plan.n_requests == plan.n_labels


def test_a_coarse_walk_says_the_same_as_a_fine_one(monkeypatch: pytest.MonkeyPatch) -> None:
    # 400 labels or so, walked one by one and in steps of 2: catches a scale that is off.
    fine = planning.paired(0.1, 0.015)
    monkeypatch.setattr(planning, "_N_STEPS", 1400)
    coarse = planning.paired(0.1, 0.015)
    assert coarse.n_labels_mean == pytest.approx(fine.n_labels_mean, rel=0.04)
    assert coarse.n_labels_p90 == pytest.approx(fine.n_labels_p90, rel=0.04)
    assert coarse.n_requests_median == pytest.approx(fine.n_requests_median, rel=0.04)


def test_disagreements_that_tell_nothing_take_labels_and_requests() -> None:
    plain, some = planning.paired(0.06, 0.02), planning.paired(0.08, 0.02, both_wrong_share=0.25)
    assert some.n_requests_median == plain.n_requests_median  # 6 % of the requests tell in either case
    assert some.n_labels_mean == pytest.approx(plain.n_labels_mean / 0.75, abs=1.5)
    rare = planning.paired(0.06, 0.02, label_share=0.1)
    assert rare.n_labels_median == plain.n_labels_median
    assert rare.n_requests_mean == pytest.approx(10 * plain.n_requests_mean, rel=0.001)


def test_requests_of_other_arms_and_without_labels_are_counted() -> None:
    plain = planning.unpaired(0.9, 0.1)
    canary = planning.unpaired(0.9, 0.1, control_share=0.05, candidate_share=0.05, label_share=0.5)
    assert canary.n_labels_median == plain.n_labels_median
    assert canary.n_requests_mean == pytest.approx(20 * plain.n_requests_mean, rel=0.01)


def test_a_ramp_is_walked_stage_by_stage() -> None:
    # One stage is an A/B of its arms. With two, the requests of a label are those of the stage in which it comes.
    plain = planning.unpaired(0.9, 0.1)
    one, found_share = planning.ramped(0.9, 0.1, stages=[planning.Stage(0.5, plain.n_labels_p90)])
    assert one == plain
    assert found_share == pytest.approx(0.9, abs=0.005)
    n = plain.n_labels_median - 100
    two, found_share = planning.ramped(0.9, 0.1, stages=[planning.Stage(0.05, 10 * n), planning.Stage(0.5, 200)])
    assert two.n_labels_median == plain.n_labels_median
    assert two.n_requests_median == 10 * n + 100
    assert two.n_requests_p90 == 10 * n + plain.n_labels_p90 - n
    assert 0.5 < found_share < 0.7
    half, _ = planning.ramped(0.9, 0.1, stages=[planning.Stage(0.05, 20 * n), planning.Stage(0.5, 9)], label_share=0.5)
    assert half.n_requests_median == 20 * n + 200


@pytest.mark.parametrize("drop", [0.1, -0.1])
def test_a_bandit_of_two_arms_takes_about_as_long_as_halves(drop: float) -> None:
    # Thompson sampling with a floor gives the better arm more, which costs some labels and never half as many again.
    plain, found = planning.unpaired(0.85, drop), planning.best_of_two(0.85, drop, label_share=0.5)
    assert 0.6 < found.n_labels_median / plain.n_labels_median < 1.5
    assert found.n_requests_p90 == 2 * found.n_labels_p90
    assert found == planning.best_of_two(0.85, drop, label_share=0.5)


def test_more_channels_and_less_error_take_longer() -> None:
    one = planning.paired(0.06, 0.02)
    assert planning.paired(0.06, 0.02, n_hypotheses=10).n_labels_median > one.n_labels_median
    assert planning.paired(0.06, 0.02, n_hypotheses=10) == planning.paired(0.06, 0.02, 0.005)
    assert planning.paired(0.06, -0.02) == one  # a gain is shown as a drop is found
    assert planning.paired(0.06, 0.02, power=0.95).n_labels > one.n_labels_p90 > one.n_labels > one.n_labels_median


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"drop": 0.0}, "equally good"),
        ({"drop": 0.07}, "more than the 0.06"),
        ({"drop": 0.02, "alpha": 1.0}, "alpha"),
        ({"drop": 0.02, "power": 0.0}, "power"),
        ({"drop": 0.02, "label_share": 0.0}, "label_share"),
    ],
)
def test_what_cannot_be_planned_is_refused(arguments: dict[str, float], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        planning.paired(0.06, **arguments)
    with pytest.raises(ValueError, match="more than"):
        planning.unpaired(0.9, -0.2)


def test_a_drop_of_a_tenth_of_a_point_is_planned_within_seconds() -> None:
    # Half a million labels: the walk is coarse, and the answer of the known order (n grows as 1 / drop^2, and a log).
    large, small = planning.paired(0.2, 0.01), planning.paired(0.2, 0.001)
    assert 100 < small.n_labels_median / large.n_labels_median < 200


def test_the_boundary_of_many_labels_meets_that_of_few() -> None:
    # Where E is no longer exact: what it says just there, and at ten times as many.
    n = np.array([3001.0, 30_000.0])
    lead = planning._lead_needed(n, math.log(20))
    for labels, needed in zip(n, lead, strict=True):
        wins = (labels + needed) / 2
        assert log_e(math.ceil(wins), int(labels) - math.ceil(wins)) >= math.log(20)
        assert log_e(math.floor(wins) - 1, int(labels) - math.floor(wins) + 1) < math.log(20)


@pytest.mark.parametrize(
    ("disagreement", "margin", "gain", "share"),
    [(0.06, 0.01, 0.0, 1.0), (0.06, 0.02, 0.01, 0.25), (0.2, 0.05, -0.02, 1.0)],
)
def test_agrees_with_non_inferiority_on_simulated_requests(
    disagreement: float, margin: float, gain: float, share: float
) -> None:
    # 400 runs with a look every 10 requests. Catches bets, cells or labels mixed up.
    rng = np.random.default_rng(12)
    n_requests = []
    for _ in range(400):
        cells = rng.choice(3, size=30_000, p=[(disagreement + gain) / 2, (disagreement - gain) / 2, 1 - disagreement])
        cells = np.where((rng.random(30_000) if share < 1 else 0.0) < share, cells, 2)
        wins, losses = (cells == 0).cumsum()[9::10], (cells == 1).cumsum()[9::10]
        n = np.arange(10, 30_001, 10)
        found = noninferiority.log_es(wins, losses, n - wins - losses, margin=margin, share=share) >= math.log(20)
        assert found.any()
        n_requests.append(n[found.argmax()])
    plan = planning.no_worse(disagreement, margin, gain=gain, share=share)
    assert plan.n_requests_median == pytest.approx(np.median(n_requests), rel=0.12)
    assert plan.n_requests_p90 == pytest.approx(np.quantile(n_requests, 0.9), rel=0.15)
    assert plan.n_labels_median == pytest.approx(disagreement * share * plan.n_requests_median, abs=1)


def test_versions_that_agree_are_shown_to_be_no_worse_without_labels() -> None:
    plan = planning.no_worse(0.0, 0.01)
    assert plan.n_requests_median == plan.n_requests_p90 == noninferiority.n_needed(margin=0.01, alpha=0.05)
    assert plan.n_labels_p90 == 0
    for gain in (-0.01, 0.03):
        with pytest.raises(ValueError, match=r"name a drop|cannot be shown"):
            planning.no_worse(0.02, 0.01, gain=gain)

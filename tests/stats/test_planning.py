"""How long a release takes: closed forms, the paths one by one, and the tests themselves on simulated requests."""

import math

import numpy as np
import pytest

from headrace.stats import planning
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

"""The simulated releases of bench/release. Catches: rules on arrays that drift away from those that decide, and a look
that is left out."""

import math
import random
from collections.abc import Sequence

import numpy as np
import pytest

from bench import noninferiority as bench_noninferiority
from bench import release_policy, release_worlds
from bench.release import SECTIONS, Size
from headrace.records import Evidence, Outcome
from headrace.release.policies.shadow import N_REQUESTS_A_CHANNEL, Shadow
from headrace.stats import evalues, guardrails, noninferiority, sample_ratio
from headrace.stats.evalues import Pairs

VERDICTS = {"hold": release_policy.HOLD, "promote": release_policy.PROMOTE, "reject": release_policy.REJECT}
NAMES = ("a", "b", "c")


def first_verdict(channels: Sequence[int], won: Sequence[bool], at: Sequence[int]) -> tuple[int, int]:
    """What the policy itself says and at which request, looked at whenever something changes."""
    n_needed = N_REQUESTS_A_CHANNEL * len(NAMES)
    for request in sorted({*at, n_needed}):
        seen = [(c, w) for c, w, when in zip(channels, won, at, strict=True) if when <= request]
        outcomes = [Outcome(NAMES[channel], not is_win, is_win) for channel, is_win in seen]
        decision = Shadow.decide(Evidence(outcomes, n_requests=request), {"alpha": 0.05, "channels": NAMES})
        if decision.verdict != "hold":
            return VERDICTS[decision.verdict], request
    return release_policy.HOLD, 0


@pytest.mark.parametrize("gains", [(0.7, 0.7, 0.5), (0.8, 0.8, 0.1), (0.7, 0.6, 0.3), (0.9, 0.8, 0.9)])
def test_the_rules_on_arrays_are_those_of_the_policy(gains: tuple[float, ...]) -> None:
    rng = random.Random(str(gains))
    channels = [[rng.choice((0, 0, 0, 1, 2)) for _ in range(70)] for _ in range(10)]
    won = [[rng.random() < gains[channel] for channel in line] for line in channels]
    at = [sorted(rng.sample(range(1, 400), 70)) for _ in range(10)]
    tables = release_policy.Tables(70, 3, 0.05)
    found, _, when = release_policy.verdicts(np.array(channels), np.array(won), np.array(at), tables)
    expected = [first_verdict(*release) for release in zip(channels, won, at, strict=True)]
    told = [(int(v), int(t) if v else 0) for v, t in zip(found, when, strict=True)]
    assert told == expected
    assert {verdict for verdict, _ in expected} != {release_policy.HOLD}


def test_tables_hold_the_fewest_that_decide() -> None:
    paired, limit = release_worlds.paired_fewest(200, 0.05), release_worlds.limit_fewest(200, 0.01, 0.001)
    for n in (1, 7, 50, 200):
        for k in range(n + 1):
            assert (k >= paired[n]) == (evalues.log_e(k, n - k) >= math.log(20))
            assert math.log(release_policy.e_table(200)[k, n - k]) == pytest.approx(evalues.log_e(k, n - k), abs=1e-9)
            assert (k >= limit[n]) == (guardrails.log_e_above(k, n, 0.01) >= math.log(1000))


def test_the_naive_test_is_the_textbook_one() -> None:
    fewest = release_worlds.naive_fewest(400)
    assert fewest[29] == 30  # too few to look
    for n in (30, 100, 400):
        z = (2 * np.arange(n + 1) - n) / math.sqrt(n)
        assert fewest[n] == int((z > 1.645).argmax())


def test_sample_ratio_is_looked_at_after_every_request() -> None:
    arms = np.random.default_rng(0).integers(3, size=(2, 300))
    looks = release_worlds.sample_ratio_looks(arms, (3.0, 1.0, 1.0))
    for n in (1, 2, 77, 300):
        counts = [[int((line[:n] == arm).sum()) for arm in range(3)] for line in arms]
        assert looks[:, n - 1] == pytest.approx(sample_ratio.log_es(counts, [3, 1, 1]), abs=1e-9)


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_non_inferiority_is_found_at_the_very_request(share: float) -> None:
    # Against a look after each request, one by one, of the same release.
    rule = {"margin": 0.05, "share": share, "alpha": 0.05}
    rates = (0.06 * share, 0.05 * share)
    found = release_worlds.no_worse(np.random.default_rng(4), 6, 3000, rates, **rule)
    rng = np.random.default_rng(4)
    n_most = release_worlds.most_events(3000, sum(rates))
    when, won = rng.geometric(sum(rates), size=(6, n_most)).cumsum(axis=1), rng.random((6, n_most))
    assert np.isfinite(found.n_requests).any()
    for release in range(6):
        signs = dict(zip(when[release].tolist(), won[release] < rates[0] / sum(rates), strict=True))
        pairs, crossed = Pairs(), math.inf
        for request in range(1, 3001):
            pairs += Pairs(agreements=1) if request not in signs else Pairs(1) if signs[request] else Pairs(0, 1)
            if noninferiority.log_e(pairs, margin=0.05, share=share) >= math.log(20):
                crossed = request
                break
        assert found.n_requests[release] == crossed


def test_what_any_channel_reaches_is_what_e_holm_refutes() -> None:
    rule = release_policy.Refutations(60, 3, 0.5)
    found = rule.any(np.random.default_rng(8), 40)
    rng = np.random.default_rng(8)
    channels, won = rng.integers(3, size=(40, 60)), rng.random((40, 60)) < 0.5
    from headrace.stats.multiplicity import refuted

    expected = []
    for line, signs in zip(channels, won, strict=True):
        counts = {channel: [0, 0] for channel in range(3)}
        ever = False
        for channel, is_win in zip(line.tolist(), signs.tolist(), strict=True):
            counts[channel][not is_win] += 1
            ever |= bool(refuted({str(c): evalues.log_e(*n) for c, n in counts.items()}, alpha=0.5))
        expected.append(ever)
    assert found.tolist() == expected
    assert 0 < sum(expected) < 40


def test_requests_are_won_and_lost_at_the_rates_of_their_time() -> None:
    # 400 releases of 2,000 requests whose rates change half-way; counts within 5 standard errors of what is expected.
    win, loss = (np.repeat(rates, 1000) for rates in ((0.02, 0.1), (0.06, 0.0)))
    at_request, wins, losses = release_worlds.pairs_of(np.random.default_rng(1), 400, win, loss)
    for counts, by_1000, by_2000 in ((wins, 20, 120), (losses, 60, 60)):
        seen = [np.where(at_request <= end, counts, 0).max(axis=1).mean() for end in (1000, 2000)]
        assert seen[0] == pytest.approx(by_1000, abs=5 * math.sqrt(60 / 400))
        assert seen[1] == pytest.approx(by_2000, abs=5 * math.sqrt(120 / 400))


def test_the_first_event_that_decides_counts_if_it_is_in_time() -> None:
    crossed = np.array([[False, True, True], [False, False, True], [True, False, False]])
    at_request = np.array([[4, 9, 12], [5, 8, 40], [30, 33, 35]])
    found = release_worlds.first(crossed, at_request, np.array([1, 2, 3]), 20)
    assert found.n_requests.tolist() == [9, math.inf, math.inf]
    assert found.n_spent.tolist() == [2, 2, 1]


@pytest.mark.parametrize("section", SECTIONS)
def test_every_section_reports(section: str) -> None:
    rows = list(SECTIONS[section](Size(20, 400)))
    assert rows
    assert all(math.isfinite(row.value) or "requests" in row.what for row in rows)
    assert len({row.what for row in rows}) == len(rows)


def test_sections_about_a_margin_report() -> None:
    bench = bench_noninferiority
    sections = bench.level, bench.power, bench.labelled_alone, bench.unasked
    rows = [row for section in sections for row in section(10, 400)]
    assert len({row.what for row in rows}) == len(rows) > 60
    assert all(math.isfinite(row.value) for row in rows)


def test_reviewers_who_say_the_reverse_shrink_a_loss() -> None:
    win, loss = bench_noninferiority._seen(0.06, -0.02, 0.1)
    assert (win + loss, win - loss) == pytest.approx((0.06, -0.02 * 0.8))

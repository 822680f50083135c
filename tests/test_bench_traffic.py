"""Releases with traffic, simulated: the rules on arrays say what the policies say. Catches a bench that measures other
rules than those in force, and a simulation that finds nothing."""

import numpy as np
import pytest

from bench import release_traffic
from bench.release_traffic import HOLD, PROMOTE, REJECT, WORLDS, Rule
from headrace.config import ReleaseTable
from headrace.records import Batch, Evidence, Score, Traffic
from headrace.release.policies import POLICIES, options_of

NAMES = list("abcde")
ARMS = ["control", "candidate", "candidate-2"]
SAYS = {"promote": PROMOTE, "reject": REJECT, "hold": HOLD, "advance": HOLD}


def evidence(cells: np.ndarray, shares: np.ndarray) -> Evidence:
    """Of one release, from cells (C, K, 2); as many requests as labels."""
    arms = dict(zip(ARMS, cells.transpose(1, 0, 2).tolist(), strict=False))
    feedback = {
        arm: {name: Score(wrong + right, right) for name, (wrong, right) in zip(NAMES, of, strict=True)}
        for arm, of in arms.items()
    }
    feedback |= {"baseline": feedback["control"]}
    traffic = {arm: {name: Traffic(max(1, s.n), n_units=s.n) for name, s in of.items()} for arm, of in feedback.items()}
    batch = [{arm: table[arm] for arm in arms} for table in (feedback, traffic)]
    halves = Batch(dict(zip(ARMS, shares.tolist(), strict=False)), *batch)
    whole = {"stage": 4, "stage_requests": 1000, "stage_elapsed_s": 1e6}
    return Evidence(traffic=traffic, feedback=feedback, batches=[halves], n_requests=1000, **whole)


@pytest.mark.parametrize(
    "rule", [Rule("canary"), Rule("canary", 200, 0.1), Rule("ab"), Rule("ab", 40, 0.1), Rule("bandit")], ids=str
)
def test_the_rules_of_the_bench_are_those_of_the_policies(rule: Rule) -> None:
    rng = np.random.default_rng(1)
    shares = np.full((1, rule.n_arms), 1 / rule.n_arms)
    table = ReleaseTable(dwell_s=0, dwell_requests=1, min_labels=rule.min_labels, margin=rule.margin)
    options = options_of(table, NAMES, n_candidates=rule.n_arms - 1)
    found = []
    for k in range(48):
        world = WORLDS[k % len(WORLDS)]
        right = np.array([world.control, world.candidate, world.control][: rule.n_arms]).T
        n = rng.multinomial([40, 300, 2000][k // 6 % 3] * rule.n_arms, np.full(right.size, 1 / right.size))
        n = n.reshape(right.shape)
        n_right = rng.binomial(n, right)
        cells = np.stack([n - n_right, n_right], axis=-1)
        judged = release_traffic.judged(rule, cells[None], release_traffic.capitals_of(cells[None], shares))
        decision = POLICIES.get(rule.policy).decide(evidence(cells, shares[0]), options)
        assert SAYS[decision.verdict] == judged.verdicts[0], (world.name, decision.reason)
        is_dropped = "candidate" in decision.evidence.get("dropped", ()) or decision.verdict == "reject"
        assert is_dropped == judged.is_dropped[0, 1]
        found.append("dropped" if is_dropped else decision.verdict)
    assert {"hold", "promote", "dropped"} <= set(found)


@pytest.mark.parametrize("policy", ["canary", "ab", "bandit"])
def test_a_ruined_channel_is_found_by_every_policy(policy: str) -> None:
    world = next(one for one in WORLDS if "-40" in one.name)
    runs = release_traffic.simulate(Rule(policy), world, label_share=0.5, n_runs=60, seed=1)
    assert (runs.verdicts == REJECT).mean() > 0.85
    assert np.median(runs.n_labels) < 2000

"""Many channels at once. Catches: a familywise error that grows with the channels, a merge that needs independence, a
channel without evidence that is given a verdict, verdicts that hang on the order of the channels."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.stats import evalues, noninferiority
from headrace.stats.evalues import Pairs
from headrace.stats.multiplicity import e_holm, judged, refuted

VALUES = st.dictionaries(st.text("abcdefg", min_size=1, max_size=2), st.floats(-20, 50), min_size=1, max_size=6)


@given(VALUES)
def test_equals_closed_testing_over_all_sets(log_es: dict[str, float]) -> None:
    # The definition: refuted where the mean of every set that holds the name is large enough.
    adjusted = e_holm(log_es)
    for name in log_es:
        others = [other for other in log_es if other != name]
        sets = [(name, *some) for size in range(len(others) + 1) for some in itertools.combinations(others, size)]
        smallest = min(math.log(sum(math.exp(log_es[one]) for one in some) / len(some)) for some in sets)
        assert adjusted[name] == pytest.approx(smallest, abs=1e-9)


@given(VALUES)
def test_it_refutes_all_that_holm_does_and_what_is_larger(log_es: dict[str, float]) -> None:
    found = refuted(log_es, alpha=0.05)
    strongest = sorted(log_es, key=lambda name: -log_es[name])
    needed = [math.log((len(log_es) - rank) / 0.05) for rank in range(len(log_es))]  # Holm's step-down on 1 / E
    n_holm = next((i for i, name in enumerate(strongest) if log_es[name] < needed[i]), len(log_es))
    assert set(strongest[:n_holm]) <= set(found)
    assert found == sorted(found, key=lambda name: (-log_es[name], name))
    kept = [value for name, value in log_es.items() if name not in found]
    assert max(kept, default=-math.inf) <= min((log_es[name] for name in found), default=math.inf)


def test_a_silent_channel_raises_the_bar() -> None:
    assert refuted({"a": math.log(39)}, alpha=0.05) == ["a"]
    assert refuted({"a": math.log(39), "b": -math.inf}, alpha=0.05) == []  # the mean of both is 19.5
    assert refuted({"a": math.log(41), "b": -math.inf}, alpha=0.05) == ["a"]
    assert refuted({}, alpha=0.05) == []


def test_familywise_error_over_five_even_channels() -> None:
    # 1,000 releases, a look after every disagreement, by the values that are there at that moment.
    rng = np.random.default_rng(2)
    channels, won = rng.integers(5, size=(1000, 200)), rng.random((1000, 200)) < 0.5
    table = evalues.log_es(np.arange(201)[:, None], np.arange(201))
    wrong = 0
    for line, signs in zip(channels.tolist(), won.tolist(), strict=True):
        counts = [[0, 0] for _ in range(5)]
        for channel, is_win in zip(line, signs, strict=True):
            counts[channel][not is_win] += 1
            values = {str(i): float(table[*pair]) for i, pair in enumerate(counts)}
            if values[str(channel)] >= math.log(20) and refuted(values, alpha=0.05):  # none is refuted below it
                wrong += 1
                break
    assert wrong <= 50


CASES = {
    "ruined": Pairs(2, 40, 400),
    "better": Pairs(30, 5, 900),
    "same": Pairs(0, 0, 5000),
    "small": Pairs(1, 2, 30),
    "silent": Pairs(),
}
NO_WORSE = {name: noninferiority.log_e(pairs, margin=0.01) for name, pairs in CASES.items()}


def test_each_channel_gets_its_verdict_and_want_of_evidence_is_one() -> None:
    found = judged(CASES, alpha=0.05, no_worse=NO_WORSE)
    verdicts = {name: one.verdict for name, one in found.items()}
    assert verdicts == {
        "ruined": "worse",
        "better": "better",
        "same": "no worse",
        "small": "inconclusive",
        "silent": "inconclusive",
    }
    assert found["silent"].gain is None
    assert found["silent"].pooled_gain != 0
    assert found["ruined"].forecast is None
    assert found["small"].forecast is not None
    assert found["small"].gain == pytest.approx(-1 / 33)
    assert found["ruined"].gain < found["small"].gain < found["small"].pooled_gain  # type: ignore[operator]


def test_without_a_margin_the_same_is_not_told_apart() -> None:
    found = judged(CASES, alpha=0.05)
    assert found["same"].verdict == "inconclusive"
    assert found["same"].log_e_no_worse is None


def test_no_worse_rests_on_what_is_said_of_it_alone() -> None:
    found = judged(CASES, alpha=0.05, no_worse={"same": 0.0})
    assert (found["same"].verdict, found["better"].verdict) == ("inconclusive", "better")
    assert found["small"].log_e_no_worse == 0


@given(st.permutations(list(CASES)))
def test_the_order_of_the_channels_does_not_matter(names: list[str]) -> None:
    found = judged({name: CASES[name] for name in names}, alpha=0.05, no_worse=NO_WORSE)
    expected = judged(CASES, alpha=0.05, no_worse=NO_WORSE)
    assert {n: (one.verdict, one.log_e_harm) for n, one in found.items()} == {
        n: (one.verdict, one.log_e_harm) for n, one in expected.items()
    }
    assert {n: one.pooled_gain for n, one in found.items()} == pytest.approx(
        {n: one.pooled_gain for n, one in expected.items()}
    )

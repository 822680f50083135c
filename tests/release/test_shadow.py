"""The shadow policy: when it promotes, holds and rejects, and what it says."""

import random
from collections.abc import Sequence

import pytest

from headrace.records import Decision, Evidence, Outcome
from headrace.release.policies.shadow import Shadow

WIN, LOSS, BOTH = (False, True), (True, False), (True, True)


def stream(*parts: tuple[str, tuple[bool, bool], int]) -> list[Outcome]:
    return [Outcome(channel, *kind) for channel, kind, n in parts for _ in range(n)]


def decide(outcomes: list[Outcome], channels: Sequence[str] = ()) -> Decision:
    return Shadow.decide(Evidence(outcomes, n_requests=500), {"alpha": 0.05, "channels": list(channels)})


def test_seven_straight_wins_promote_at_five_percent_and_six_hold() -> None:
    # E(7, 0) = 255/8 = 31.9 and E(6, 0) = 127/7 = 18.1, against 1/alpha = 20.
    assert decide(stream(("a", WIN, 7))).verdict == "promote"
    six = decide(stream(("a", WIN, 6)))
    assert six.verdict == "hold"
    assert six.evidence["overall"]["e_benefit"] == pytest.approx(127 / 7)
    assert six.evidence["n_more_disagreements"] == 1


def test_harm_wins_over_an_earlier_benefit() -> None:
    # The sequence crossed for benefit first, then turned: caution decides.
    assert decide(stream(("a", WIN, 7), ("a", LOSS, 40))).verdict == "reject"


def test_a_lost_lead_holds() -> None:
    held = decide(stream(("a", WIN, 7), ("a", LOSS, 19)))
    assert held.verdict == "hold"
    assert "falls behind" in held.reason


def test_a_suspected_channel_delays_promotion_until_it_clears() -> None:
    suspected = stream(("good", WIN, 30), ("bad", LOSS, 3))
    held = decide(suspected)
    assert held.verdict == "hold"
    assert held.evidence["suspected_channels"] == ["bad"]
    assert "bad: 0 wins, 3 losses" in held.reason
    assert decide(suspected + stream(("bad", WIN, 2))).verdict == "promote"
    assert decide(stream(("good", WIN, 30), ("bad", LOSS, 2))).verdict == "promote"


def test_more_channels_need_stronger_evidence_each() -> None:
    # 8 losses: E = 511/9 = 56.8; one channel needs 20, two need 40, four need 80.
    outcomes = stream(("good", WIN, 6), ("bad", LOSS, 8), ("good", WIN, 30))
    assert decide(outcomes).verdict == "reject"
    more = decide(outcomes, channels=["bad", "good", "c", "d"])
    assert more.verdict == "hold"
    assert more.evidence["thresholds"]["harm_in_a_channel"] == 80
    assert more.evidence["channels_without_labels"] == ["c", "d"]


def test_a_ruined_channel_gets_its_chance_to_show_before_a_promotion() -> None:
    # Catches a promotion by the first seven disagreements, all of which happened to come from the good channels.
    outcomes = stream(("good", WIN, 9), ("bad", LOSS, 1))
    options = {"alpha": 0.05, "channels": ["good", "bad"]}
    early = Shadow.decide(Evidence(outcomes, n_requests=199), options)
    assert early.verdict == "hold"
    assert "only 199 requests of 200 that it takes to see a channel suffer" in early.reason
    assert Shadow.decide(Evidence(outcomes, n_requests=200), options).verdict == "promote"


def test_promotion_names_the_channels_nobody_labelled() -> None:
    decision = decide(stream(("a", WIN, 9)), channels=["a", "silent"])
    assert decision.verdict == "promote"
    assert "No labels came from: silent" in decision.reason


@pytest.mark.parametrize(
    ("outcomes", "words"),
    [
        ([], "No correction of a shadowed answer has come back"),
        (stream(("a", BOTH, 9)), "right and wrong together on all of them"),
        (stream(("a", WIN, 4), ("a", LOSS, 4)), "no lead for either"),
        (stream(("a", WIN, 6), ("a", LOSS, 3), ("a", BOTH, 91)), "about 64 more labelled differences would decide"),
    ],
)
def test_holding_says_what_is_missing(outcomes: list[Outcome], words: str) -> None:
    decision = decide(outcomes)
    assert decision.verdict == "hold"
    assert words in decision.reason


def test_evidence_counts_everything() -> None:
    evidence = decide(stream(("a", WIN, 2), ("a", LOSS, 1), ("b", BOTH, 5), ("b", (False, False), 4))).evidence
    assert (evidence["n_requests"], evidence["n_labelled"], evidence["n_disagreements"]) == (500, 12, 3)
    counts = {name: evidence["overall"][name] for name in ("wins", "losses", "agreements")}
    assert counts == {"wins": 2, "losses": 1, "agreements": 9}
    assert {name: row["agreements"] for name, row in evidence["channels"].items()} == {"a": 0, "b": 9}


def test_an_equal_candidate_is_rarely_called_better_or_worse_with_a_look_at_every_outcome() -> None:
    # End to end, through the policy itself: 100 releases of two equal models over three channels, looked at after every
    # tenth labelled outcome. Each kind of error may reach 5 %; both together seen: 3 %.
    wrong = 0
    for seed in range(100):
        rng = random.Random(seed)
        outcomes: list[Outcome] = []
        for _ in range(30):
            for _ in range(10):
                kind = rng.choice([WIN, LOSS, BOTH])
                outcomes.append(Outcome(rng.choice("abc"), *kind))
            if decide(outcomes, channels="abc").verdict != "hold":
                wrong += 1
                break
    assert wrong <= 100 * 0.10

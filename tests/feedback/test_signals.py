"""What metrics and events add up to, against a count by hand. Catches: a vote that counts twice when its labeller
thinks again, an event whose meaning another event takes away, several labellers of one answer that are
several answers."""

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.errors import NotFound
from headrace.feedback import intake, signals
from headrace.records import Channel, ModelVersion
from headrace.stats.intervals import wilson
from headrace.workspace import Workspace, init, open_workspace
from planted import plant_answer, plant_channel, plant_version

SETTINGS = {
    "feedback.metrics": '{"kept": {}, "delay_s": {"kind": "number", "better": "lower"}}',
    "feedback.events.accepted": "right",
    "feedback.events.edited": "wrong",
}
Answered = tuple[Workspace, Channel, ModelVersion]


@pytest.fixture
def answered(tmp_path: Path) -> Any:
    init(tmp_path / "ws", task="tone", labels=("negative", "neutral", "positive")).close()
    with open_workspace(tmp_path / "ws", overrides=SETTINGS) as ws:
        yield ws, plant_channel(ws, "web"), plant_version(ws)


def of_name(found: list[signals.Signal], name: str) -> signals.Signal:
    (one,) = [signal for signal in found if signal.name == name]
    return one


def test_signals_are_by_channel_version_and_name(answered: Answered) -> None:
    ws, web, first = answered
    phone, second = plant_channel(ws, "phone"), plant_version(ws)
    for channel, version, values in ((web, first, (1, 0)), (web, second, (1, 1)), (phone, second, (0,))):
        for value in values:
            intake.give(ws, plant_answer(ws, channel, version, "positive")[0], metric="kept", value=value)
    found = {(one.channel, one.version): one.mean for one in signals.summary(ws)}
    assert found == {
        ("phone", "tone/2"): wilson(0, 1), ("web", "tone/1"): wilson(1, 2), ("web", "tone/2"): wilson(2, 2),
    }  # fmt: skip
    assert [one.channel for one in signals.summary(ws, channel="phone")] == ["phone"]
    with pytest.raises(NotFound, match="'phone'"):
        signals.summary(ws, channel="fone")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from("ab"), st.sampled_from(intake.EVENTS) | st.booleans()),
        max_size=15,
    )
)
def test_the_latest_vote_of_each_labeller_counts(answered: Answered, votes: list[tuple[int, str, Any]]) -> None:
    ws, web, _ = answered
    version = plant_version(ws)  # of this example alone
    names = [plant_answer(ws, web, version, "positive")[0] for _ in range(3)]
    meant: dict[int, dict[str, float]] = defaultdict(dict)
    kept: dict[int, dict[str, float]] = defaultdict(dict)
    seen = Counter({(place, said): 1 for place, _, said in votes if isinstance(said, str)})
    for place, labeller, said in votes:
        if isinstance(said, bool):
            intake.give(ws, names[place], metric="kept", value=said, labeller=labeller)
            kept[place][labeller] = said
        else:
            intake.give(ws, names[place], event=said, labeller=labeller)
            if said in ("accepted", "edited"):
                meant[place][labeller] = said == "accepted"
    found = [one for one in signals.summary(ws) if one.version == version.name]
    for name, by_place in (("kept", kept), (signals.EVENTS, meant)):
        means = [sum(said.values()) / len(said) for said in by_place.values()]
        signal = next((one for one in found if one.name == name), None)
        got = None if signal is None else signal.mean
        wanted = wilson(sum(means), len(means))
        assert (got is None) == (wanted is None)
        if got and wanted:
            assert (got.estimate, got.low, got.high) == pytest.approx((wanted.estimate, wanted.low, wanted.high))
    counts: Any = Counter(said for _, said in seen)
    assert dict(next((one.counts for one in found if one.name == signals.EVENTS), {})) == dict(counts)


def test_a_number_has_a_mean_with_an_interval(answered: Answered) -> None:
    ws, web, version = answered
    for value in (1.0, 2.0, 6.0):
        intake.give(ws, plant_answer(ws, web, version, "positive")[0], metric="delay_s", value=value)
    signal = of_name(signals.summary(ws), "delay_s")
    assert signal.mean is not None
    assert (signal.better, signal.n_answers) == ("lower", 3)
    half = 1.959963985 * (7.0**0.5) / 3**0.5  # sample variance of 1, 2, 6 is 7
    assert (signal.mean.low, signal.mean.estimate, signal.mean.high) == pytest.approx((3 - half, 3, 3 + half), rel=1e-6)


def test_the_newest_come_first_and_what_was_replaced_says_so(answered: Answered) -> None:
    ws, web, version = answered
    name, other = (plant_answer(ws, web, version, "positive")[0] for _ in range(2))
    for said in (
        {"correction": "neutral"}, {"metric": "kept", "value": 1}, {"correction": "negative"}, {"comment": "a"},
        {"comment": "b"}, {"metric": "delay_s", "value": 1}, {"metric": "kept", "value": 0},
    ):  # fmt: skip
        intake.give(ws, name, labeller="ann", **said)
    intake.give(ws, other, correction="neutral", labeller="ann")
    intake.give(ws, name, correction="neutral", labeller="bob")
    found = signals.listing(ws, labeller="ann")
    assert [one.is_replaced for one in reversed(found)] == [True, True, *[False] * 6]
    assert [one.feedback.prediction_id for one in found][:2] == [other, name]
    assert [one.feedback.labeller for one in signals.listing(ws, "tone", kind="correction", limit=2)] == ["bob", "ann"]
    assert signals.listing(ws, channel="web", limit=100)[0].channel == "web"


@pytest.mark.parametrize("now", ["{}", '{"delay_s": {}}'])
def test_a_metric_that_is_declared_otherwise_now_keeps_its_mean(answered: Answered, now: str) -> None:
    ws, web, version = answered
    for value in (4.0, 8.0):
        intake.give(ws, plant_answer(ws, web, version, "positive")[0], metric="delay_s", value=value)
    with open_workspace(ws.root, overrides={"feedback.metrics": now}) as later:
        (signal,) = signals.summary(later)
    assert signal.mean is not None
    assert signal.mean.estimate == 6

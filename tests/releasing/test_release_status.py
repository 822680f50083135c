"""`release status` on a real store: what is said at every moment of a release, in JSON and in words."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from headrace.cli.standing import show_status
from headrace.records import Channel, Release, Traffic
from headrace.release import controls, releases
from headrace.releasing.standing import curves_of, release_status
from headrace.store import traffic
from headrace.workspace import Workspace, open_workspace
from planted import NOON, plant_answer, plant_channel, plant_correction, plant_version

KEYS = {
    "task", "control", "channels", "candidate", "state", "since", "release", "policy", "scope", "verdict", "reason",
    "evidence", "weights", "stage", "elapsed_s", "health", "waits_for", "waits_since", "is_stuck", "days_left",
    "n_repeated_labels",
    "arms", "over_time", "guardrails", "channel_verdicts", "ended",
}  # fmt: skip
Given = tuple[Workspace, dict[str, Channel]]


@pytest.fixture
def given(workspace: Workspace) -> Iterator[Given]:
    channels = {name: plant_channel(workspace, name) for name in ("web", "phone")}
    plant_version(workspace)
    controls.ensure_control(workspace)
    plant_version(workspace)
    with open_workspace(workspace.root, overrides={"release.labels": "all"}) as ws:
        yield ws, channels


def shadowed(
    ws: Workspace, release: Release, channel: Channel, *, n: int, candidate_right: bool | None, hours: float = 0.0
) -> None:
    """Inputs that both answered and somebody corrected so many hours from now; None: both were right."""
    minute = round((ws.clock() + timedelta(hours=hours) - NOON) / timedelta(minutes=1))
    serving = controls.serving(ws)
    assert serving.candidate is not None
    control = "positive" if candidate_right in (None, False) else "negative"
    candidate = "positive" if candidate_right in (None, True) else "negative"
    for _ in range(n):
        prediction, request = plant_answer(ws, channel, serving.control, control)
        plant_answer(ws, channel, serving.candidate, candidate, request_id=request, arm="shadow", release_id=release.id)
        plant_correction(ws, prediction, "positive", minute=minute)


def answered(ws: Workspace, release: Release, channel: Channel, arm: str, *, n: int, n_right: int) -> None:
    """Inputs that an arm answered, and what was right."""
    version = controls.find_version(ws, None, release.version_of(arm))
    for i in range(n):
        label = "positive" if i < n_right else "negative"
        prediction, _ = plant_answer(
            ws, channel, version, label, arm=arm, release_id=release.id, probability=release.weights[arm]
        )
        plant_correction(ws, prediction, "positive")


def counted(ws: Workspace, release: Release, arm: str, channel: Channel, *, hours: float = 0.0, **counts: int) -> None:
    """Requests that a server counted so many hours from now."""
    counts |= {"n_units": counts["n_requests"]}
    now = ws.clock() + timedelta(hours=hours)
    with ws.store.write() as conn:
        traffic.put(conn, release.id, {(arm, channel.id, 0): Traffic(**counts)}, source=arm, now=now)


def later(ws: Workspace, **time: float) -> Workspace:
    """The same workspace, some time from now."""
    now = ws.clock()
    return replace(ws, clock=lambda: now + timedelta(**time))


def said(state: dict[str, object], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    show_status(state)
    return " ".join(capsys.readouterr().out.split())


def test_before_and_between_releases(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    empty = release_status(workspace)
    assert set(empty) == KEYS
    assert (empty["state"], empty["arms"], empty["is_stuck"]) == ("empty", {}, False)
    assert "No version of tone is in charge yet." in said(empty, capsys)
    plant_version(workspace)
    controls.ensure_control(workspace)
    idle = release_status(workspace)
    assert (idle["state"], idle["control"], idle["verdict"]) == ("idle", "tone/1", None)
    assert "tone/1 is in charge of tone since" in said(idle, capsys)


def test_a_shadow_release_from_nothing_to_a_verdict(given: Given, capsys: pytest.CaptureFixture[str]) -> None:
    ws, channels = given
    release = releases.start(ws, candidate="2")
    state = release_status(ws)
    assert set(state) == KEYS
    assert (state["health"], state["waits_for"], state["is_stuck"]) == ("no traffic", "traffic", False)
    shadowed(ws, release, channels["web"], n=6, candidate_right=None)
    state = release_status(ws)
    assert (state["health"], state["waits_for"]) == ("collecting", "differences")
    shadowed(ws, release, channels["web"], n=12, candidate_right=True)
    shadowed(ws, release, channels["phone"], n=3, candidate_right=False)
    state = release_status(ws)
    parts = state["arms"]["shadow"]
    assert parts["version"] == "tone/2"
    assert parts["channels"]["web"]["verdict"] == "better"
    assert parts["channels"]["phone"]["verdict"] == "inconclusive"
    assert parts["channels"]["phone"]["n_differing"] == 3
    curve = state["over_time"]["shadow"]["channels"]["web"]
    assert curve["n_labelled"][-1] == 18
    assert curve["e_benefit"][-1] == pytest.approx(parts["channels"]["web"]["e_benefit"])
    assert json.loads(json.dumps(state, allow_nan=False)) == state
    words = said(state, capsys)
    assert "more labels would decide" in words
    assert "(shadow) is open since" in words
    assert "Pooled: what a channel with few labels is likely to gain" in words
    phone = parts["channels"]["phone"]
    assert phone["gain"] == -1 < phone["pooled_gain"]
    assert f" -100.0 {100 * phone['pooled_gain']:+.1f} " in words
    shadowed(ws, release, channels["phone"], n=9, candidate_right=False)
    state = release_status(ws)
    assert (state["verdict"], state["health"], state["waits_for"]) == ("reject", "failing", None)
    assert "Failing: reject." in said(state, capsys)


Fill = Callable[[Workspace, Release, Channel], None]
STUCK: dict[str, tuple[str, Fill, float, str, float]] = {
    "no request ever": ("shadow", lambda *_: None, 2, "traffic", 0),
    "no label": ("shadow", lambda ws, r, c: counted(ws, r, "shadow", c, hours=30, n_requests=40), 30, "labels", 0),
    "labels, all alike": (
        "shadow",
        lambda ws, r, c: shadowed(ws, r, c, n=4, candidate_right=None, hours=30),
        30,
        "differences",
        0,
    ),
    "no difference any more": (
        "shadow",
        lambda ws, r, c: (
            shadowed(ws, r, c, n=1, candidate_right=True, hours=6),
            shadowed(ws, r, c, n=1, candidate_right=None, hours=36),
        ),
        36,
        "evidence",
        6,
    ),
    "silence after some requests": (
        "shadow",
        lambda ws, r, c: counted(ws, r, "shadow", c, hours=5, n_requests=40),
        7,
        "traffic",
        5,
    ),
    "silence after a difference": (
        "shadow",
        lambda ws, r, c: shadowed(ws, r, c, n=1, candidate_right=True),
        720,
        "traffic",
        0,
    ),
    "silence in a stage": (
        "canary",
        lambda ws, r, c: [counted(ws, r, arm, c, n_requests=1) for arm in ("candidate", "baseline")],
        720,
        "traffic",
        0,
    ),
    "no request to the slices": (
        "canary",
        lambda ws, r, c: [
            counted(ws, r, arm, c, hours=at, n_requests=1)
            for arm, at in (("candidate", 3), ("baseline", 2), ("control", 30))
        ],
        30,
        "1 of 200 requests to candidate and baseline each",
        3,
    ),
    "labels of an A/B have stopped": (
        "ab",
        lambda ws, r, c: [
            (counted(ws, r, arm, c, hours=30, n_requests=40), answered(ws, r, c, arm, n=4, n_right=3))
            for arm in ("control", "candidate")
        ],
        30,
        "labels",
        0,
    ),
}


@pytest.mark.parametrize(("policy", "fill", "hours", "lack", "since"), STUCK.values(), ids=STUCK)
def test_a_release_is_stuck_when_what_it_needs_has_stopped_coming(
    given: Given, capsys: pytest.CaptureFixture[str], policy: str, fill: Fill, hours: float, lack: str, since: float
) -> None:
    ws, channels = given
    release = releases.start(ws, candidate="2", policy=policy)
    fill(ws, release, channels["web"])
    assert not release_status(ws)["is_stuck"]
    state = release_status(later(ws, hours=hours))
    assert (state["is_stuck"], state["waits_for"], state["verdict"]) == (True, lack, "hold")
    waited = datetime.fromisoformat(state["waits_since"]) - release.started_at
    assert waited / timedelta(hours=1) == pytest.approx(since, abs=0.05)
    words = said(state, capsys)
    assert f"Stuck: it waits for {lack} since {state['waits_since'][:10]}" in words


def test_an_old_release_to_which_evidence_comes_is_not_stuck(given: Given, capsys: pytest.CaptureFixture[str]) -> None:
    ws, channels = given
    release = releases.start(ws, candidate="2")
    shadowed(ws, release, channels["web"], n=1, candidate_right=True, hours=719.8)
    state = release_status(later(ws, hours=720))
    assert (state["is_stuck"], state["waits_for"]) == (False, "evidence")
    assert "It waits for evidence since" in said(state, capsys)


def test_a_pace_becomes_days(given: Given, capsys: pytest.CaptureFixture[str]) -> None:
    ws, channels = given
    release = releases.start(ws, candidate="2")
    shadowed(ws, release, channels["web"], n=20, candidate_right=None)
    shadowed(ws, release, channels["web"], n=3, candidate_right=True, hours=95.5)
    state = release_status(later(ws, days=4))
    assert not state["is_stuck"]
    more = state["arms"]["shadow"]["all"]["n_more_labels"]["middle"]
    assert state["days_left"] == pytest.approx(4 * more / 23, rel=0.05)
    assert "At the pace so far" in said(state, capsys)


def test_a_canary_shows_its_stage_guardrails_and_what_the_stage_waits_for(
    given: Given, capsys: pytest.CaptureFixture[str]
) -> None:
    ws, channels = given
    release = releases.start(ws, candidate="2", policy="canary")
    for arm, n_errors in (("candidate", 2), ("baseline", 1)):
        counted(ws, release, arm, channels["web"], n_requests=50, n_errors=n_errors)
        answered(ws, release, channels["web"], arm, n=8, n_right=7)
    state = release_status(ws)
    assert state["weights"] == {"control": 0.98, "baseline": 0.01, "candidate": 0.01}
    assert state["waits_for"] == "50 of 200 requests to candidate and baseline each"
    assert (state["verdict"], state["health"], state["is_stuck"]) == ("hold", "collecting", False)
    assert {rail["guardrail"] for rail in state["guardrails"]} == {"errors", "timeouts", "slow answers", "abstentions"}
    (errors,) = (rail for rail in state["guardrails"] if rail["guardrail"] == "errors")
    assert (errors["n_events"], errors["n_events_control"], errors["fired"]) == (2, 1, False)
    assert state["arms"]["candidate"]["all"]["n_labelled"] == 16
    assert state["over_time"]["candidate"]["all"]["n_labelled"][-1] == 16
    assert state["n_repeated_labels"] == 0
    version = controls.find_version(ws, None, release.candidate_id)
    for _ in range(3):
        share = release.weights["candidate"]
        again, _ = plant_answer(
            ws,
            channels["web"],
            version,
            "positive",
            arm="candidate",
            release_id=release.id,
            probability=share,
            unit="u",
        )
        plant_correction(ws, again, "positive")
    state = release_status(ws)
    assert (state["n_repeated_labels"], state["arms"]["candidate"]["all"]["n_labelled"]) == (2, 17)
    words = said(state, capsys)
    assert "2 more labelled answers do not count" in words
    assert "errors" in words
    assert "stage 1" in words
    counted(ws, release, "candidate", channels["web"], n_requests=60, n_errors=40)
    state = release_status(ws)
    assert (state["health"], state["verdict"]) == ("guardrail fired", "reject")
    assert "FIRED" in said(state, capsys)


def test_labels_that_come_from_one_arm_alone_are_unhealthy(given: Given) -> None:
    ws, channels = given
    release = releases.start(ws, candidate="2", policy="ab")
    counted(ws, release, "control", channels["web"], n_requests=400)
    counted(ws, release, "candidate", channels["web"], n_requests=20)
    assert release_status(ws)["health"] == "unhealthy"


def test_of_a_release_about_channels_those_that_are_decided_say_so(
    given: Given, capsys: pytest.CaptureFixture[str]
) -> None:
    ws, channels = given
    with open_workspace(ws.root, overrides={"release.scope": "channels", "release.labels": "all"}) as each:
        release = releases.start(each, candidate="2")
    shadowed(ws, release, channels["web"], n=20, candidate_right=True)
    assert release_status(ws)["channel_verdicts"] == {"phone": "hold", "web": "promote"}
    releases.promote(ws, channel="web", reason="for the test")
    state = release_status(ws)
    assert state["ended"] == {"web": "promoted"}
    assert list(state["scope"]) == ["phone"]
    assert state["channels"] == {"web": "tone/2"}
    words = said(state, capsys)
    assert "tone/2 is in charge of channel web." in words
    assert "promoted" in words


def test_a_closed_release_keeps_its_curves(given: Given) -> None:
    ws, channels = given
    release = releases.start(ws, candidate="2")
    shadowed(ws, release, channels["web"], n=5, candidate_right=True)
    before = release_status(ws)["over_time"]
    releases.stop(ws)
    assert curves_of(ws, release) == before

"""Releases about channels, and going back in one of them. Catches: a decision on one channel that reaches another, a
release that stays open or closes too early, evidence of one channel in the line of another, a rollback forward.
"""

import pytest

from headrace.errors import BadInput, NotFound, WrongState
from headrace.records import Decision, Release
from headrace.release import controls, ledger, releases, rollbacks
from headrace.store import ledger as lines
from headrace.store import releases as rows
from headrace.workspace import Workspace, open_workspace
from planted import plant_channel, plant_version

EVIDENCE = {"alpha": 0.05, "channels": {"app": {"n": 1}, "shop": {"n": 2}, "web": {"n": 3}}}


@pytest.fixture
def ws(workspace: Workspace) -> Workspace:
    """Three channels, three versions, the first in charge."""
    for name in ("app", "shop", "web"):
        plant_channel(workspace, name)
    plant_version(workspace)
    controls.ensure_control(workspace)
    for _ in range(2):
        plant_version(workspace)
    return workspace


def in_charge(ws: Workspace) -> dict[str, int]:
    serving = controls.serving(ws)
    return {name: serving.control_of(name).number for name in ("app", "shop", "web", "one to come")}


def state(ws: Workspace, release: Release) -> str:
    with ws.store.read() as conn:
        found = rows.find(conn, release.id)
    assert found is not None
    return found.state


def said(ws: Workspace, n: int) -> list[tuple[str, str | None]]:
    return [(line.kind, line.channel) for line in ledger.history(ws)[-n:]]


def test_a_release_ends_differently_in_its_channels(ws: Workspace) -> None:
    release = releases.start(ws, candidate="2", scope=["web", "app", "shop"])
    assert (release.scope, release.options["channels"]) == (("app", "shop", "web"), ["app", "shop", "web"])
    first = Decision("hold", "app is sure", EVIDENCE, {"app": "promote", "shop": "hold", "web": "hold"})
    (line,) = releases.decide(ws, release, first)
    assert (line.kind, line.channel) == ("promote", "app")
    assert line.evidence == {"alpha": 0.05, "channels": {"app": {"n": 1}}}
    assert state(ws, release) == "open"
    assert in_charge(ws) == {"app": 2, "shop": 1, "web": 1, "one to come": 1}
    serving = controls.serving(ws)
    assert [name for name in ("app", "shop", "web") if serving.is_tried_in(name)] == ["shop", "web"]
    again = Decision("hold", "and shop", EVIDENCE, {"app": "promote", "shop": "reject", "web": "hold"})
    assert [(e.kind, e.channel) for e in releases.decide(ws, release, again)] == [("reject", "shop")]
    releases.decide(ws, release, Decision("hold", "wait", EVIDENCE, {"shop": "reject", "web": "hold"}))
    releases.decide(ws, release, Decision("promote", "and web", EVIDENCE, {"web": "promote"}))
    assert state(ws, release) == "mixed"
    assert in_charge(ws) == {"app": 2, "shop": 1, "web": 2, "one to come": 1}
    assert said(ws, 4) == [("promote", "app"), ("reject", "shop"), ("hold", None), ("promote", "web")]
    with pytest.raises(WrongState, match="mixed, not open"):
        releases.decide(ws, release, again)


def test_one_verdict_for_all_of_a_scope_is_a_line_for_each_channel(ws: Workspace) -> None:
    release = releases.start(ws, candidate="2", scope=["web", "app"])
    written = releases.decide(ws, release, Decision("promote", "better", EVIDENCE))
    assert [(e.channel, e.evidence["channels"]) for e in written] == [
        ("app", {"app": {"n": 1}}),
        ("web", {"web": {"n": 3}}),
    ]
    assert state(ws, release) == "promoted"
    assert in_charge(ws) == {"app": 2, "shop": 1, "web": 2, "one to come": 1}


def test_what_is_left_of_a_release_can_be_rejected_whole(ws: Workspace) -> None:
    release = releases.start(ws, candidate="2")
    assert (release.scope, controls.serving(ws).is_tried_in("one to come")) == (None, True)
    releases.decide(ws, release, Decision("hold", "web is sure", EVIDENCE, {"web": "promote"}))
    releases.decide(ws, release, Decision("reject", "errors", {}))
    assert said(ws, 3) == [("promote", "web"), ("reject", "app"), ("reject", "shop")]
    assert state(ws, release) == "mixed"
    assert in_charge(ws) == {"app": 1, "shop": 1, "web": 2, "one to come": 1}


def test_a_verdict_about_the_whole_task_reaches_channels_to_come(ws: Workspace) -> None:
    releases.promote(ws, "3", channel="web")
    release = releases.start(ws, candidate="2")
    (line,) = releases.decide(ws, release, Decision("promote", "better", EVIDENCE))
    assert (line.channel, line.evidence) == (None, EVIDENCE)
    assert in_charge(ws) == dict.fromkeys(("app", "shop", "web", "one to come"), 2)
    assert controls.serving(ws).channels == {}


def test_the_settings_say_what_a_release_is_about(ws: Workspace) -> None:
    with open_workspace(ws.root, overrides={"release.scope": "channels"}) as mine:
        assert releases.start(mine, candidate="2").scope == ("app", "shop", "web")


def test_an_advance_changes_shares_once(ws: Workspace) -> None:
    release = releases.start(ws, candidate="2", weights={"control": 0.98, "baseline": 0.01, "candidate": 0.01})
    shares = {"control": 0.9, "baseline": 0.05, "candidate": 0.05}
    decision = Decision("advance", "no harm seen", {"n": 9}, weights=shares)
    (line,) = releases.decide(ws, release, decision)
    assert (line.kind, line.evidence) == ("advance", {"n": 9, "weights": shares, "stage": 1})
    running = controls.serving(ws).release
    assert running is not None
    assert (running.weights, running.stage, list(running.weights)) == (shares, 1, ["control", "baseline", "candidate"])
    with pytest.raises(WrongState, match="another stage"):  # of two servers that look at once, one advances
        releases.decide(ws, release, decision)
    with pytest.raises(BadInput, match="shares of the arms"):
        releases.decide(ws, running, Decision("advance", "no shares"))
    releases.decide(ws, running, Decision("reject", "errors"))
    with pytest.raises(WrongState, match="rejected, not open"):
        releases.decide(ws, running, decision)
    assert [line.kind for line in ledger.history(ws)] == ["promote", "start", "advance", "reject"]


def test_of_several_candidates_the_one_that_won_takes_charge(ws: Workspace) -> None:
    release = releases.start(ws, candidate="2", others=["3"], policy="bandit")
    serving = controls.serving(ws)
    assert [v.number for v in (serving.candidate, *serving.others) if v is not None] == [2, 3]
    (line,) = releases.decide(ws, release, Decision("promote", "best", arm="candidate-2"))
    assert controls.serving(ws).control.number == 3
    assert line.version_id == release.others[0]
    arms = ("control", "baseline", "candidate", "shadow", "candidate-2")
    assert [release.version_of(arm) for arm in arms] == [
        release.control_id, release.control_id, release.candidate_id, release.candidate_id, release.others[0],
    ]  # fmt: skip


def test_what_cannot_be_started_in_channels(ws: Workspace) -> None:
    with pytest.raises(NotFound, match="Did you mean 'web'"):
        releases.start(ws, candidate="2", scope=["wbe"])
    with pytest.raises(BadInput, match="once"):
        releases.start(ws, candidate="2", others=["2"], policy="bandit")
    releases.promote(ws, "2", channel="web")
    with pytest.raises(WrongState, match="already in charge: tone/2"):
        releases.start(ws, candidate="2", scope=["web"])
    release = releases.start(ws, candidate="2", scope=["web", "app"])  # it may still win the others
    assert release.control_id == controls.serving(ws).control.id
    releases.stop(ws)
    assert releases.start(ws, candidate="3", scope=["web"]).control_id == controls.serving(ws, channel="web").control.id


def test_by_hand_in_one_channel(ws: Workspace) -> None:
    with pytest.raises(NotFound, match="no such channel"):
        releases.promote(ws, "2", channel="weeb")
    release = releases.start(ws, candidate="2", scope=["app", "web"])
    releases.promote(ws, "3", channel="shop")  # not what the release is about
    with pytest.raises(WrongState, match="tries another version"):
        releases.promote(ws, "3", channel="web")
    assert releases.promote(ws, channel="web").release_id == release.id
    with pytest.raises(WrongState, match="not open in this channel"):
        releases.reject(ws, channel="web")
    assert in_charge(ws) == {"app": 1, "shop": 3, "web": 2, "one to come": 1}
    with pytest.raises(WrongState, match="in charge already"):
        releases.promote(ws, "2", channel="web")
    assert releases.reject(ws, channel="app", reason="rude").kind == "reject"
    assert state(ws, release) == "mixed"


def test_a_channel_waits_for_the_task(workspace: Workspace) -> None:
    plant_channel(workspace, "web")
    plant_version(workspace)
    with pytest.raises(WrongState, match="whole task yet"):
        releases.promote(workspace, "1", channel="web")


def test_rolling_back_one_channel_leaves_the_others(ws: Workspace) -> None:
    releases.promote(ws, "2")
    releases.promote(ws, "3", channel="web")
    rollbacks.rollback(ws, channel="web")
    assert in_charge(ws) == {"app": 2, "shop": 2, "web": 2, "one to come": 2}
    line = rollbacks.rollback(ws, channel="web", reason="complaints")
    assert (line.channel, line.reason) == ("web", "complaints")
    assert in_charge(ws) == {"app": 2, "shop": 2, "web": 1, "one to come": 2}
    with pytest.raises(WrongState, match="no version was in charge before this one: web"):
        rollbacks.rollback(ws, channel="web")
    rollbacks.rollback(ws, channel="web", to="3")
    assert in_charge(ws)["web"] == 3
    with pytest.raises(WrongState, match="only go back"):
        rollbacks.rollback(ws, channel="app", to="3")  # never was in charge there


def test_rolling_back_the_task_takes_back_what_channels_were_given(ws: Workspace) -> None:
    for name in ("app", "web"):
        releases.promote(ws, "2", channel=name)
    rollbacks.rollback(ws)
    assert in_charge(ws) == dict.fromkeys(("app", "shop", "web", "one to come"), 1)


def test_rolling_back_the_task_after_a_channel_went_back_goes_back_too(ws: Workspace) -> None:
    # Catches: a channel's way back taken for a step ahead, so that the bad version takes charge again.
    releases.promote(ws, "2")
    rollbacks.rollback(ws, channel="web")
    rollbacks.rollback(ws)
    assert in_charge(ws) == dict.fromkeys(("app", "shop", "web", "one to come"), 1)


def test_a_version_given_to_a_channel_first_and_to_the_task_then_is_one_step(ws: Workspace) -> None:
    releases.promote(ws, "2", channel="web")
    releases.promote(ws, "2")
    rollbacks.rollback(ws, channel="web")
    assert in_charge(ws) == {"app": 2, "shop": 2, "web": 1, "one to come": 2}


@pytest.mark.parametrize(("scope", "stopped"), [((), [None]), (("app", "web"), ["web"]), (("app", "shop"), [])])
def test_a_rollback_of_a_channel_stops_a_release_there(
    ws: Workspace, scope: tuple[str, ...], stopped: list[str | None]
) -> None:
    releases.promote(ws, "2")
    release = releases.start(ws, candidate="3", scope=scope)
    rollbacks.rollback(ws, channel="web")
    with ws.store.read() as conn:
        mine = lines.of_release(conn, release.id)
    assert [line.channel for line in mine if line.kind == "stop"] == stopped
    assert state(ws, release) == ("stopped" if stopped == [None] else "open")
    assert in_charge(ws)["web"] == 1


def test_a_release_whose_last_channel_is_rolled_back_is_stopped(ws: Workspace) -> None:
    releases.promote(ws, "2")
    release = releases.start(ws, candidate="3", scope=["web"])
    rollbacks.rollback(ws, channel="web")
    assert state(ws, release) == "stopped"
    assert said(ws, 2) == [("stop", "web"), ("rollback", "web")]

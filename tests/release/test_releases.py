"""Releases and the ledger on a real database: every change of who is in charge, and every refused one."""

import threading

import pytest

from headrace.errors import NotFound, WrongState
from headrace.records import Decision
from headrace.release import controls, ledger, releases, rollbacks
from headrace.workspace import Workspace, open_workspace
from planted import plant_channel, plant_version

PROMOTE, HOLD, REJECT = (Decision(v, f"because {v}", {"n_labelled": 3}) for v in ("promote", "hold", "reject"))


def in_charge(ws: Workspace) -> int:
    return controls.serving(ws).control.number


def kinds(ws: Workspace) -> list[str]:
    return [entry.kind for entry in ledger.history(ws)]


def test_the_first_version_takes_charge_once(workspace: Workspace) -> None:
    with pytest.raises(WrongState, match="no model version"):
        controls.ensure_control(workspace)
    with pytest.raises(WrongState, match="in charge yet"):
        controls.serving(workspace)
    first = plant_version(workspace)
    assert controls.ensure_control(workspace, actor="me") == first
    plant_version(workspace)
    assert controls.ensure_control(workspace) == first  # a newer version does not slip in
    (line,) = ledger.history(workspace)
    assert (line.kind, line.version_id, line.actor, line.reason) == ("promote", first.id, "me", controls.FIRST)


def test_a_release_from_start_to_promotion(workspace: Workspace) -> None:
    plant_version(workspace)
    controls.ensure_control(workspace)
    second = plant_version(workspace)
    plant_channel(workspace, "a")
    release = releases.start(workspace, candidate=second, evidence={"gates": [1]})
    assert (release.options["alpha"], release.options["channels"]) == (
        0.05,
        ["a"],
    )  # what its policy is asked with, from the first look
    serving = controls.serving(workspace)
    assert (serving.control.number, serving.candidate, serving.release) == (1, second, release)
    (held,) = releases.decide(workspace, release, HOLD)
    assert held.kind == "hold"
    assert releases.status(workspace)["state"] == "open"
    (line,) = releases.decide(workspace, release, PROMOTE, actor="improve")
    assert (line.version_id, line.release_id, line.evidence) == (second.id, release.id, {"n_labelled": 3})
    after = controls.serving(workspace)
    assert (after.control, after.candidate, after.release) == (second, None, None)
    assert kinds(workspace) == ["promote", "start", "hold", "promote"]
    assert ledger.history(workspace)[1].evidence == {"gates": [1], "weights": {"control": 1.0}, "scope": None}


def test_a_rejected_candidate_leaves_the_control(workspace: Workspace) -> None:
    plant_version(workspace)
    controls.ensure_control(workspace)
    release = releases.start(workspace, candidate=plant_version(workspace))
    releases.decide(workspace, release, REJECT)
    assert in_charge(workspace) == 1
    for late in (PROMOTE, HOLD, REJECT):
        with pytest.raises(WrongState, match="rejected, not open"):
            releases.decide(workspace, release, late)
    assert kinds(workspace) == ["promote", "start", "reject"]


def test_what_cannot_be_started(workspace: Workspace) -> None:
    plant_version(workspace)
    with pytest.raises(WrongState, match="no version is in charge to compare"):
        releases.start(workspace, candidate="1")
    controls.ensure_control(workspace)
    with pytest.raises(WrongState, match="already in charge: tone/1"):
        releases.start(workspace, candidate="tone/1")
    plant_version(workspace)
    with pytest.raises(NotFound, match="policies: shadwo"):
        releases.start(workspace, candidate="2", policy="shadwo")
    releases.start(workspace, candidate="2")
    plant_version(workspace)
    with pytest.raises(WrongState, match="release of the task is open"):
        releases.start(workspace, candidate="3")
    assert kinds(workspace) == ["promote", "start"]  # nothing refused left a line


@pytest.mark.parametrize("name", ["tone/2", "2", " 2 "])
def test_versions_are_found_by_name_and_number(workspace: Workspace, name: str) -> None:
    plant_version(workspace)
    second = plant_version(workspace)
    assert controls.find_version(workspace, None, name) == second
    assert controls.find_version(workspace, "tone", second.id) == second


def test_an_unknown_version_gets_the_nearest_name(workspace: Workspace) -> None:
    with pytest.raises(NotFound, match="headrace train"):
        controls.find_version(workspace, None, "1")
    plant_version(workspace)
    with pytest.raises(NotFound, match="Did you mean 'tone/1'"):
        controls.find_version(workspace, None, "tone/7")


def test_promotion_by_hand(workspace: Workspace) -> None:
    for _ in range(3):
        plant_version(workspace)
    releases.promote(workspace, "1")
    with pytest.raises(WrongState, match="in charge already"):
        releases.promote(workspace, "1")
    with pytest.raises(WrongState, match="no release is open"):
        releases.promote(workspace)
    release = releases.start(workspace, candidate="2")
    with pytest.raises(WrongState, match="tries another version"):
        releases.promote(workspace, "3")
    line = releases.promote(workspace, reason="looks fine", actor="ann")
    assert (line.release_id, line.reason, line.actor) == (release.id, "looks fine", "ann")
    assert in_charge(workspace) == 2
    assert controls.serving(workspace).release is None


def test_rolling_back_twice_goes_two_back(workspace: Workspace) -> None:
    # Catches a rollback that takes the previous line and so swings between two versions.
    for number in ("1", "2", "3"):
        plant_version(workspace)
        releases.promote(workspace, number)
    assert rollbacks.rollback(workspace).kind == "rollback"
    assert in_charge(workspace) == 2
    rollbacks.rollback(workspace)
    assert in_charge(workspace) == 1
    with pytest.raises(WrongState, match="no version was in charge before"):
        rollbacks.rollback(workspace)
    rollbacks.rollback(workspace, to="3")  # once in charge, so one can return to it
    assert in_charge(workspace) == 3
    rollbacks.rollback(workspace)
    assert in_charge(workspace) == 1


def test_rollback_refuses_versions_that_never_were_in_charge(workspace: Workspace) -> None:
    plant_version(workspace)
    with pytest.raises(WrongState, match="no version was in charge before"):
        rollbacks.rollback(workspace)
    controls.ensure_control(workspace)
    plant_version(workspace)
    for name in ("2", "1"):  # never in charge; in charge now
        with pytest.raises(WrongState, match="only go back to a version that was in charge before"):
            rollbacks.rollback(workspace, to=name)


def test_rollback_stops_an_open_release(workspace: Workspace) -> None:
    for number in ("1", "2"):
        plant_version(workspace)
        releases.promote(workspace, number)
    plant_version(workspace)
    release = releases.start(workspace, candidate="3")
    rollbacks.rollback(workspace, reason="complaints")
    assert in_charge(workspace) == 1
    assert kinds(workspace)[-2:] == ["stop", "rollback"]
    with pytest.raises(WrongState, match="stopped, not open"):
        releases.decide(workspace, release, PROMOTE)


def test_stop_and_status(workspace: Workspace) -> None:
    assert releases.status(workspace)["state"] == "empty"
    plant_version(workspace)
    controls.ensure_control(workspace)
    with pytest.raises(WrongState, match="no release is open"):
        releases.stop(workspace)
    release = releases.start(workspace, candidate=plant_version(workspace))
    status = releases.status(workspace, decision=HOLD)
    assert status == {
        "task": "tone", "control": "tone/1", "channels": {}, "candidate": "tone/2", "state": "open",
        "since": release.started_at.isoformat(), "release": release.id, "policy": "shadow", "scope": None,
        "verdict": "hold", "reason": "because hold", "evidence": {"n_labelled": 3},
    }  # fmt: skip
    releases.stop(workspace, reason="not now")
    assert releases.status(workspace)["state"] == "idle"
    assert in_charge(workspace) == 1


def test_a_version_that_fails_a_gate_is_in_the_ledger_without_a_release(workspace: Workspace) -> None:
    version = plant_version(workspace)
    gates = [
        {"gate": "agreement", "passed": True, "figure": 0.99, "limit": 0.97, "reason": "fine"},
        {"gate": "drop", "passed": False, "figure": -0.1, "limit": -0.01, "reason": "tweets fell by 10 points"},
    ]
    line = releases.rejected_at_gate(workspace, version, gates)
    assert (line.kind, line.release_id, line.evidence) == ("reject", None, {"gates": gates})
    assert "tweets fell by 10 points" in line.reason
    assert "fine" not in line.reason
    with pytest.raises(WrongState, match="every gate passed"):
        releases.rejected_at_gate(workspace, version, gates[:1])


def test_of_many_racing_decisions_one_wins(workspace: Workspace) -> None:
    # Separate stores on one file, as separate processes have; catches a check outside the transaction.
    plant_version(workspace)
    controls.ensure_control(workspace)
    release = releases.start(workspace, candidate=plant_version(workspace))
    results: list[str] = []
    gate = threading.Barrier(6)

    def race(decision: Decision) -> None:
        with open_workspace(workspace.root) as mine:
            gate.wait(timeout=20)
            try:
                results.append(releases.decide(mine, release, decision)[0].kind)
            except WrongState:
                results.append("refused")

    threads = [threading.Thread(target=race, args=(d,)) for d in (PROMOTE, REJECT) * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert sorted(results).count("refused") == 5
    assert kinds(workspace)[2:] == [kind for kind in results if kind != "refused"]

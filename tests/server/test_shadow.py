"""Releases as a running server carries them out. Catches: a shadow that changes or loses an answer or has no control, a
request dropped when the version in charge changes."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace.client import Client
from headrace.feedback import outcomes
from headrace.records import Prediction
from headrace.release import controls, releases, rollbacks
from headrace.store import predictions
from headrace.workspace import Workspace, open_workspace
from stub_model import Server, plant_stub, running

WAIT_S = 15


def eventually(check: Callable[[], bool]) -> None:
    until = time.monotonic() + WAIT_S
    while not check():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.fixture
def server(root: Path, plugin_env: dict[str, str]) -> Iterator[Server]:
    with running(root, plugin_env) as started:
        yield started


@pytest.fixture
def ws(server: Server) -> Iterator[Workspace]:
    with open_workspace(server.root) as opened:
        yield opened


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.url) as connected:
        yield connected


def request_of(ws: Workspace, prediction_id: str, arm: str) -> list[Prediction]:
    with ws.store.read() as conn:
        found = predictions.find(conn, prediction_id)
        return [] if found is None else predictions.of_request(conn, found.request_id, arm)


def arms(client: Client) -> set[tuple[str, str]]:
    return {(line["arm"], line["model_version"]) for line in client.models()}


def test_a_candidate_answers_in_the_shadow_and_can_be_judged(client: Client, ws: Workspace) -> None:
    candidate = plant_stub(ws, answer="positive")
    release = releases.start(ws, candidate=candidate)
    eventually(lambda: ("shadow", "tone/2") in arms(client))
    answer = client.predict("tone", "web", ["well", "negative"], unit="u")
    ids = [row["id"] for row in answer["predictions"]]
    assert (answer["arm"], answer["model_version"]) == ("control", "tone/1")
    assert [row["label"] for row in answer["predictions"]] == ["neutral", "negative"]
    eventually(lambda: len(request_of(ws, ids[0], "shadow")) == 2)
    control, shadow = request_of(ws, ids[0], "control"), request_of(ws, ids[0], "shadow")
    assert [row.id for row in control] == ids
    assert [row.output["label"] for row in shadow] == ["positive", "negative"]
    assert {(row.arm, row.release_id, row.version_id, row.artifact, row.unit) for row in shadow} == {
        ("shadow", release.id, candidate.id, candidate.artifact, "u")
    }
    client.feedback(ids[0], correction="positive")
    (outcome,), n_shadowed = outcomes.paired(ws, release)
    assert (outcome.control_correct, outcome.candidate_correct, n_shadowed) == (False, True, 2)


@pytest.mark.parametrize("fault", [{"fails": True}, {"unloadable": True}], ids=["fails", "cannot be loaded"])
def test_a_failing_candidate_is_logged_and_never_hurts(client: Client, ws: Workspace, fault: dict[str, bool]) -> None:
    releases.start(ws, candidate=plant_stub(ws, **fault))
    eventually(lambda: ("shadow", "tone/2") in arms(client))
    (row,) = client.predict("tone", "web", ["positive"])["predictions"]
    assert row["label"] == "positive"
    eventually(lambda: len(request_of(ws, row["id"], "shadow")) == 1)
    (shadow,) = request_of(ws, row["id"], "shadow")
    assert shadow.error
    assert shadow.output == {}


def test_a_change_of_version_drops_no_request(client: Client, server: Server, ws: Workspace) -> None:
    stop = threading.Event()
    seen: list[tuple[str, str, str]] = []
    failures: list[Exception] = []

    def ask() -> None:
        with Client(server.url) as mine:
            while not stop.is_set():
                try:
                    answer = mine.predict("tone", "web", ["well"])
                except Exception as error:
                    failures.append(error)
                    return
                seen.append((answer["model_version"], answer["artifact"], answer["predictions"][0]["label"]))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        second = plant_stub(ws, answer="positive")
        first = controls.serving(ws, "tone").control
        releases.start(ws, candidate=second)
        eventually(lambda: ("shadow", "tone/2") in arms(client))
        releases.promote(ws, task="tone")
        eventually(lambda: arms(client) == {("control", "tone/2")})
        rollbacks.rollback(ws, task="tone")
        eventually(lambda: arms(client) == {("control", "tone/1")})
        time.sleep(1.2)  # the second is let go a tick later
    finally:
        stop.set()
        for thread in threads:
            thread.join(WAIT_S)
    assert failures == []
    assert set(seen) == {("tone/1", first.artifact, "neutral"), ("tone/2", second.artifact, "positive")}


def test_a_control_that_cannot_be_loaded_does_not_take_over(client: Client, ws: Workspace) -> None:
    broken = plant_stub(ws, unloadable=True)
    releases.promote(ws, broken)
    time.sleep(1.2)
    assert arms(client) == {("control", "tone/1")}
    assert client.ready()
    releases.promote(ws, plant_stub(ws, answer="positive"))
    eventually(lambda: arms(client) == {("control", "tone/3")})


def test_a_task_that_gets_its_first_version_is_served(client: Client, ws: Workspace) -> None:
    plant_stub(ws, "unborn", answer="b")
    controls.ensure_control(ws, "unborn", actor="test")
    eventually(lambda: ("control", "unborn/1") in arms(client))
    assert client.predict("unborn", "web", ["?"])["predictions"][0]["label"] == "b"

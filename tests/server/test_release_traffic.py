"""Releases that give traffic to a candidate, through real servers. Catches: a client that is failed by a candidate, a
unit that meets two arms, a rollback that takes long or misses a process, a channel answered by another's version.
"""

import itertools
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from headrace.client import Client
from headrace.records import LedgerEntry, ModelVersion, Prediction
from headrace.release import controls, ledger, releases, rollbacks
from headrace.store import predictions
from headrace.workspace import Workspace, open_workspace
from server.conftest import new_workspace
from stub_model import Server, plant_stub, running

WAIT_S = 60
HALF = {"ramp": [50], "dwell_s": 3600.0}
LIMITS = {"release__candidate_timeout_s": 0.5, "serve__worker_memory_bytes": 2**32}


def eventually(check: Callable[[], Any], *, within_s: float = WAIT_S) -> None:
    until = time.monotonic() + within_s
    while not check():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, plugin_env: dict[str, str]) -> Iterator[Server]:
    """One for all tests of this file; each begins with tone/1 in charge and no open release."""
    root = new_workspace(tmp_path_factory.mktemp("traffic") / "ws")
    with running(root, plugin_env, **LIMITS) as started:
        yield started


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.url, timeout_s=WAIT_S) as connected:
        yield connected


@pytest.fixture
def ws(server: Server, client: Client) -> Iterator[Workspace]:
    with open_workspace(server.root) as opened:
        eventually(lambda: len(server.worker_pids()) == 1)  # that of another test's candidate goes when it is noticed
        yield opened
        now = controls.serving(opened, "tone")
        if now.release is not None:
            releases.stop(opened, "tone", reason="the test is over")
        if now.control.number != 1 or now.channels:
            releases.promote(opened, "1", task="tone", reason="the test is over")
        eventually(lambda: {(one["arm"], one["model_version"]) for one in client.models()} == {("control", "tone/1")})


def tried(ws: Workspace, client: Client, options: dict[str, Any] = HALF, **says: Any) -> ModelVersion:
    """A candidate that takes part in a canary release."""
    version = plant_stub(ws, **{"answer": "positive", **says})
    releases.start(ws, candidate=version, task="tone", policy="canary", options=options)
    eventually(lambda: share(client, "candidate") > 0)
    return version


def share(client: Client, arm: str) -> float:
    return sum(line["share"] for line in client.models() if line["arm"] == arm)


def line_of(ws: Workspace, version: ModelVersion, kind: str) -> LedgerEntry | None:
    lines = [line for line in ledger.history(ws, "tone") if line.kind == kind and line.version_id == version.id]
    return lines[-1] if lines else None


def logged(ws: Workspace, prediction_id: str) -> Prediction:
    found: list[Prediction] = []

    def is_there() -> bool:
        with ws.store.read() as conn:
            found.extend([one] if (one := predictions.find(conn, prediction_id)) else [])
        return bool(found)

    eventually(is_there)
    return found[0]


def ask_until(client: Client, check: Callable[[], Any]) -> list[dict[str, Any]]:
    """Ask, each time as another unit, until the check holds."""
    until, answers = time.monotonic() + WAIT_S, list[dict[str, Any]]()
    for number in itertools.count():
        answers.append(client.predict("tone", "web", [f"well {number}"], unit=f"u{number}"))
        if number % 10 == 9 and check():
            return answers
        assert time.monotonic() < until, Counter(answer["arm"] for answer in answers)
    raise AssertionError


def rejected(ws: Workspace, client: Client, version: ModelVersion) -> tuple[LedgerEntry, list[dict[str, Any]]]:
    """The line by which the server rejected a candidate, and the answers until then."""
    answers = ask_until(client, lambda: line_of(ws, version, "reject"))
    line = line_of(ws, version, "reject")
    assert line is not None
    assert line.actor == "serve"
    return line, answers


def test_a_unit_keeps_its_arm_and_the_log_its_probability(ws: Workspace, client: Client) -> None:
    candidate = tried(ws, client, {**HALF, "ramp": [30]})
    arms: dict[str, str] = {}
    for _ in range(2):
        for number in range(30):
            answer = client.predict("tone", "web", ["well"], unit=f"u{number}")
            assert arms.setdefault(f"u{number}", answer["arm"]) == answer["arm"]
            is_candidate = answer["arm"] == "candidate"
            assert answer["model_version"] == (candidate.name if is_candidate else "tone/1")
            assert answer["predictions"][0]["label"] == ("positive" if is_candidate else "neutral")
            assert answer["probability"] == pytest.approx(0.4 if answer["arm"] == "control" else 0.3)
    assert set(arms.values()) == {"control", "baseline", "candidate"}
    row, release = logged(ws, answer["predictions"][0]["id"]), controls.serving(ws, "tone").release
    assert release is not None
    assert (row.arm, row.probability, row.release_id) == (answer["arm"], answer["probability"], release.id)
    alone = {client.predict("tone", "web", ["well"])["arm"] for _ in range(30)}  # each draws for itself
    assert alone == {"control", "baseline", "candidate"}


FAULTS = {
    "fails": {"fails": True},
    "cannot be loaded": {"unloadable": True},
    "dies at its start": {"dies_at_start": True},
    "leaks": {"leak_bytes": 2**30},
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_a_candidate_that_cannot_answer_fails_nobody_and_is_rolled_back(
    server: Server, ws: Workspace, client: Client, fault: dict[str, Any]
) -> None:
    workers = set(server.worker_pids())
    line, answers = rejected(ws, client, tried(ws, client, **fault))
    assert "errors" in line.reason
    assert max(fired["n_events"] for fired in line.evidence["guardrails"]) <= 40
    if fault != FAULTS["leaks"]:  # which answers until it is full
        assert {answer["arm"] for answer in answers} == {"control", "baseline"}
    eventually(lambda: share(client, "candidate") == 0)
    assert controls.serving(ws, "tone").control.number == 1
    eventually(lambda: set(server.worker_pids()) == workers)  # the control's worker was never touched


def test_a_candidate_that_takes_too_long_is_answered_for(ws: Workspace, client: Client) -> None:
    line, _ = rejected(ws, client, tried(ws, client, row_s=20))
    assert "timeouts" in line.reason


def test_a_slow_candidate_is_rolled_back(ws: Workspace, client: Client) -> None:
    line, _ = rejected(ws, client, tried(ws, client, row_s=0.4))
    assert "slow answers" in line.reason or "timeouts" in line.reason  # on a busy machine


def test_a_good_candidate_goes_through_the_stages_to_the_top(ws: Workspace, client: Client) -> None:
    stages = {"ramp": [40, 50], "dwell_s": 0.2, "dwell_requests": 8, "min_labels": 8}
    candidate, asked = tried(ws, client, stages), itertools.count()

    def is_promoted() -> bool:
        for number in itertools.islice(asked, 10):
            answer = client.predict("tone", "web", [f"well {number}"], unit=f"u{number}")
            client.feedback(answer["predictions"][0]["id"], correction="positive")
        return line_of(ws, candidate, "promote") is not None

    eventually(is_promoted)
    assert line_of(ws, candidate, "advance") is not None
    eventually(lambda: [line["model_version"] for line in client.models()] == [candidate.name])


def test_a_rollback_reaches_every_server_within_a_second(
    server: Server, ws: Workspace, client: Client, plugin_env: dict[str, str]
) -> None:
    first = (ws.state_folder / "server.json").read_text("utf-8")
    with running(server.root, plugin_env) as second, Client(second.url) as other:
        (ws.state_folder / "server.json").write_text(first, "utf-8")  # which the second took over
        tried(ws, client)
        eventually(lambda: share(other, "candidate") > 0)
        stop, last, failures = threading.Event(), dict[str, float](), list[Exception]()

        def ask(to: Client, name: str) -> None:
            for number in itertools.count():
                began_at = time.monotonic()
                if stop.is_set():
                    return
                try:
                    answer = to.predict("tone", "web", ["well"], unit=f"u{number}")
                except Exception as error:
                    failures.append(error)
                    return
                if answer["arm"] == "candidate":
                    last[name] = began_at

        threads = [threading.Thread(target=ask, args=pair) for pair in ((client, "one"), (other, "other"))]
        for thread in threads:
            thread.start()
        eventually(lambda: len(last) == 2)
        releases.reject(ws, task="tone", reason="complaints")
        decided_at = time.monotonic()
        time.sleep(2)
        stop.set()
        for thread in threads:
            thread.join(WAIT_S)
    assert failures == []
    assert max(last.values()) - decided_at < 1.0


def test_going_back_takes_no_time_and_fails_no_request(ws: Workspace, client: Client) -> None:
    version = plant_stub(ws, answer="positive", load_s=2)
    releases.promote(ws, version, reason="a test")
    eventually(lambda: client.predict("tone", "web", ["well"])["model_version"] == version.name)
    releases.promote(ws, "1", task="tone", reason="a test")
    eventually(lambda: client.predict("tone", "web", ["well"])["model_version"] == "tone/1")
    rollbacks.rollback(ws, task="tone", to=version.name)
    began_at = time.monotonic()
    while client.predict("tone", "web", ["well"])["model_version"] != version.name:
        pass
    assert time.monotonic() - began_at < 1


def test_channels_have_versions_of_their_own(ws: Workspace, client: Client) -> None:
    version = plant_stub(ws, answer="positive")
    releases.start(ws, candidate=version, task="tone", policy="canary", options=HALF, scope=["web", "phone"])
    eventually(lambda: share(client, "candidate") > 0)
    releases.promote(ws, task="tone", channel="web", reason="a test")
    eventually(lambda: any(line["channel"] == "web" for line in client.models()))
    answers = [client.predict("tone", "web", ["well"]) for _ in range(20)]
    assert {(one["arm"], one["model_version"]) for one in answers} == {("control", version.name)}  # decided there
    eventually(lambda: client.predict("tone", "phone", ["well"])["arm"] == "candidate")  # still open here
    releases.reject(ws, task="tone", channel="phone", reason="a test")
    eventually(lambda: share(client, "candidate") == 0)
    assert client.predict("tone", "phone", ["well"])["model_version"] == "tone/1"
    assert client.predict("tone", "web", ["well"])["model_version"] == version.name


def test_who_asks_for_the_version_in_charge_gets_it(server: Server, ws: Workspace, client: Client) -> None:
    import httpx

    tried(ws, client)
    for number in range(12):
        body = {
            "inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["well"]}],
            "parameters": {"channel": "web", "unit": f"u{number}"},
        }
        url = f"{server.url}/v2/models/tone/versions/1/infer"
        answer = httpx.post(url, json=body, timeout=WAIT_S, verify=False)
        assert answer.status_code == 200, answer.text
        assert answer.json()["parameters"]["arm"] == "control"


def test_shadows_stand_back_and_live_apart(server: Server, ws: Workspace, client: Client) -> None:
    (control,) = server.worker_pids()
    releases.start(ws, candidate=plant_stub(ws, answer="positive"), task="tone")
    eventually(lambda: share(client, "shadow") == 1)
    (shadow,) = set(server.worker_pids()) - {control}
    assert (psutil.Process(control).nice(), psutil.Process(shadow).nice()) == (os.nice(0), 19)
    os.kill(shadow, signal.SIGKILL)
    assert client.predict("tone", "web", ["well"])["arm"] == "control"

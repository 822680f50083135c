"""Releases that give traffic to a candidate, through real servers. Catches: a client that is failed by a candidate, a
unit that meets two arms, a rollback that takes long or misses a process, a channel answered by another's version.
"""

import itertools
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from headrace.client import Client
from headrace.records import LedgerEntry, Prediction
from headrace.release import controls, ledger, releases, rollbacks
from headrace.store import predictions
from headrace.workspace import Workspace, open_workspace
from stub_model import Server, plant_stub, running

WAIT_S = 20
CANARY = {
    "release__policy": "canary", "release__ramp": [20, 50], "release__dwell_requests": 40, "release__dwell_s": 0.2,
    "release__min_labels": 20,
}  # fmt: skip


def eventually(check: Callable[[], Any], *, within_s: float = WAIT_S) -> None:
    until = time.monotonic() + within_s
    while not check():
        assert time.monotonic() < until
        time.sleep(0.01)


def overrides(settings: dict[str, Any]) -> dict[str, Any]:
    return {name.replace("__", "."): value for name, value in settings.items()}


@contextmanager
def served(root: Path, env: dict[str, str], **settings: Any) -> Iterator[tuple[Server, Workspace, Client]]:
    with (
        running(root, env, **settings) as server,
        open_workspace(root, overrides=overrides(settings)) as ws,
        Client(server.url) as client,
    ):
        yield server, ws, client


def share(client: Client, arm: str) -> float:
    return sum(line["share"] for line in client.models() if line["arm"] == arm)


def line_of(ws: Workspace, kind: str) -> list[LedgerEntry]:
    return [line for line in ledger.history(ws, "tone") if line.kind == kind]


def logged(ws: Workspace, prediction_id: str) -> Prediction:
    found: list[Prediction] = []

    def is_there() -> bool:
        with ws.store.read() as conn:
            found.extend([one] if (one := predictions.find(conn, prediction_id)) else [])
        return bool(found)

    eventually(is_there)
    return found[0]


def ask_until(client: Client, check: Callable[[], Any], *, channel: str = "web") -> list[dict[str, Any]]:
    """Ask, each time as another unit, until the check holds."""
    until, answers = time.monotonic() + WAIT_S, []
    for number in itertools.count():
        answers.append(client.predict("tone", channel, [f"well {number}"], unit=f"u{number}"))
        if number % 10 == 0 and check():
            return answers
        assert time.monotonic() < until, Counter(answer["arm"] for answer in answers)
    raise AssertionError


def test_a_unit_keeps_its_arm_and_the_log_its_probability(root: Path, plugin_env: dict[str, str]) -> None:
    with served(root, plugin_env, **CANARY | {"release__dwell_s": 3600}) as (_, ws, client):
        release = releases.start(ws, candidate=plant_stub(ws, answer="positive"), task="tone")
        eventually(lambda: share(client, "candidate") == pytest.approx(0.2))
        arms: dict[str, str] = {}
        for _ in range(2):
            for number in range(60):
                answer = client.predict("tone", "web", ["well"], unit=f"u{number}")
                assert arms.setdefault(f"u{number}", answer["arm"]) == answer["arm"]
                is_candidate = answer["arm"] == "candidate"
                assert answer["model_version"] == ("tone/2" if is_candidate else "tone/1")
                assert answer["predictions"][0]["label"] == ("positive" if is_candidate else "neutral")
                assert answer["probability"] == pytest.approx(0.6 if answer["arm"] == "control" else 0.2)
        assert set(arms.values()) == {"control", "baseline", "candidate"}
        row = logged(ws, answer["predictions"][0]["id"])
        assert (row.arm, row.probability, row.release_id) == (answer["arm"], answer["probability"], release.id)
        alone = {client.predict("tone", "web", ["well"])["arm"] for _ in range(60)}  # each draws for itself
        assert alone == {"control", "baseline", "candidate"}


FAULTS = {
    "fails": {"fails": True},
    "cannot be loaded": {"unloadable": True},
    "dies at its start": {"dies_at_start": True},
    "leaks": {"leak_bytes": 2**28},
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_a_candidate_that_cannot_answer_fails_nobody_and_is_rolled_back(
    root: Path, plugin_env: dict[str, str], fault: dict[str, Any]
) -> None:
    with served(root, plugin_env, **CANARY, serve__worker_memory_bytes=2**32) as (server, ws, client):
        workers = set(server.worker_pids())
        releases.start(ws, candidate=plant_stub(ws, **fault), task="tone")
        answers = ask_until(client, lambda: line_of(ws, "reject"))
        (line,) = line_of(ws, "reject")
        assert "errors" in line.reason
        assert line.actor == "serve"
        n_failed = max(fired["n_events"] for fired in line.evidence["guardrails"])
        assert n_failed <= 60
        if fault != FAULTS["leaks"]:  # which answers until it is full
            assert {answer["arm"] for answer in answers} == {"control", "baseline"}
        eventually(lambda: share(client, "candidate") == 0, within_s=1)
        assert controls.serving(ws, "tone").control.number == 1
        eventually(lambda: set(server.worker_pids()) == workers)  # the control's worker was never touched


def test_a_candidate_that_takes_too_long_is_answered_for(root: Path, plugin_env: dict[str, str]) -> None:
    with served(root, plugin_env, **CANARY, release__candidate_timeout_s=0.1) as (_, ws, client):
        releases.start(ws, candidate=plant_stub(ws, row_s=20), task="tone")
        ask_until(client, lambda: line_of(ws, "reject"))
        assert "timeouts" in line_of(ws, "reject")[0].reason


def test_a_slow_candidate_is_rolled_back(root: Path, plugin_env: dict[str, str]) -> None:
    with served(root, plugin_env, **CANARY | {"release__dwell_s": 3600}) as (_, ws, client):
        releases.start(ws, candidate=plant_stub(ws, row_s=0.05), task="tone")
        ask_until(client, lambda: line_of(ws, "reject"))
        assert "slow answers" in line_of(ws, "reject")[0].reason


def test_a_good_candidate_goes_through_the_stages_to_the_top(root: Path, plugin_env: dict[str, str]) -> None:
    with served(root, plugin_env, **CANARY) as (_, ws, client):
        releases.start(ws, candidate=plant_stub(ws, answer="positive"), task="tone")
        asked = itertools.count()

        def ask(n: int = 20) -> None:
            for number in itertools.islice(asked, n):
                answer = client.predict("tone", "web", [f"well {number}"], unit=f"u{number}")
                client.feedback(answer["predictions"][0]["id"], correction="positive")

        until = time.monotonic() + WAIT_S
        while controls.serving(ws, "tone").release is not None:
            ask()
            assert time.monotonic() < until, [line.reason for line in ledger.history(ws, "tone")]
        assert [line.kind for line in ledger.history(ws, "tone")][1:] == ["start", "advance", "promote"]
        eventually(lambda: share(client, "control") == 1 and client.models()[0]["model_version"] == "tone/2")


def test_a_rollback_reaches_every_server_within_a_second(root: Path, plugin_env: dict[str, str]) -> None:
    settings = CANARY | {"release__dwell_s": 3600}
    with served(root, plugin_env, **settings) as (first, ws, _):
        urls = [first.url]
        with running(root, plugin_env, **settings) as second, Client(urls[0]) as one, Client(second.url) as other:
            releases.start(ws, candidate=plant_stub(ws, answer="positive"), task="tone")
            for client in (one, other):
                eventually(lambda client=client: share(client, "candidate") > 0)
            stop, last, failures = threading.Event(), Counter[str](), list[Exception]()

            def ask(client: Client, name: str) -> None:
                for number in itertools.count():
                    if stop.is_set():
                        return
                    began_at = time.monotonic()
                    try:
                        answer = client.predict("tone", "web", ["well"], unit=f"u{number}")
                    except Exception as error:
                        failures.append(error)
                        return
                    if answer["arm"] == "candidate":
                        last[name] = began_at  # type: ignore[assignment]

            threads = [threading.Thread(target=ask, args=pair) for pair in ((one, "one"), (other, "other"))]
            for thread in threads:
                thread.start()
            eventually(lambda: len(last) == 2)
            releases.reject(ws, "tone", reason="complaints")
            decided_at = time.monotonic()
            time.sleep(1.5)
            stop.set()
            for thread in threads:
                thread.join(WAIT_S)
            assert failures == []
            assert max(last.values()) - decided_at < 1.0


def test_going_back_takes_no_time_and_fails_no_request(root: Path, plugin_env: dict[str, str]) -> None:
    with served(root, plugin_env) as (_, ws, client):
        releases.promote(ws, plant_stub(ws, answer="positive"), reason="a test")
        eventually(lambda: client.predict("tone", "web", ["well"])["model_version"] == "tone/2")
        rollbacks.rollback(ws, task="tone")
        began_at = time.monotonic()
        while client.predict("tone", "web", ["well"])["model_version"] != "tone/1":
            pass
        assert time.monotonic() - began_at < 1


def test_channels_have_versions_of_their_own(root: Path, plugin_env: dict[str, str]) -> None:
    settings = CANARY | {"release__dwell_s": 3600, "release__scope": "channels"}
    with served(root, plugin_env, **settings) as (_, ws, client):
        releases.start(ws, candidate=plant_stub(ws, answer="positive"), task="tone")
        eventually(lambda: share(client, "candidate") > 0)
        releases.promote(ws, task="tone", channel="web", reason="a test")
        eventually(lambda: client.predict("tone", "web", ["well"])["model_version"] == "tone/2")
        ways = {client.predict("tone", "web", ["well"])["arm"] for _ in range(40)}
        assert ways == {"control"}  # decided there
        ways = {client.predict("tone", "phone", ["well"])["arm"] for _ in range(40)}
        assert "candidate" in ways  # still open here
        releases.reject(ws, "tone", channel="phone", reason="a test")
        eventually(lambda: share(client, "candidate") == 0)
        assert client.predict("tone", "phone", ["well"])["model_version"] == "tone/1"
        assert client.predict("tone", "web", ["well"])["model_version"] == "tone/2"


def test_who_asks_for_the_version_in_charge_gets_it(root: Path, plugin_env: dict[str, str]) -> None:
    import httpx

    with served(root, plugin_env, **CANARY | {"release__dwell_s": 3600}) as (server, ws, client):
        releases.start(ws, candidate=plant_stub(ws, answer="positive"), task="tone")
        eventually(lambda: share(client, "candidate") > 0)
        for number in range(30):
            body = {
                "inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["well"]}],
                "parameters": {"channel": "web", "unit": f"u{number}"},
            }
            url = f"{server.url}/v2/models/tone/versions/1/infer"
            answer = httpx.post(url, json=body, timeout=WAIT_S, verify=False)
            assert answer.status_code == 200, answer.text
            assert answer.json()["parameters"]["arm"] == "control"


def test_shadows_stand_back_and_live_apart(root: Path, plugin_env: dict[str, str]) -> None:
    with served(root, plugin_env) as (server, ws, client):
        (control,) = server.worker_pids()
        releases.start(ws, candidate=plant_stub(ws, answer="positive"), task="tone")
        eventually(lambda: share(client, "shadow") == 1)
        (shadow,) = set(server.worker_pids()) - {control}
        assert (psutil.Process(control).nice(), psutil.Process(shadow).nice()) == (os.nice(0), 19)
        os.kill(shadow, 9)
        assert client.predict("tone", "web", ["well"])["arm"] == "control"

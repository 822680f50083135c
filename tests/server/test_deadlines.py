"""Deadlines of requests. Catches: work for nobody, an answer after its time, a client that is gone and still served."""

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.workspace import open_workspace
from server.loading import all_at_once, connect, eventually, post, raw_request, request
from stub_model import Server, plant_stub, running


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("batches") / "log"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, plugin_env: dict[str, str], batches: Path) -> Iterator[Server]:
    from server.conftest import new_workspace

    root = new_workspace(tmp_path_factory.mktemp("deadlines") / "ws")
    with open_workspace(root) as ws:
        plant_stub(ws, log=str(batches), row_s=0.002)
    with running(root, plugin_env, serve__timeout_s=5, serve__batch_tokens=64) as started:
        yield started


def executed(batches: Path) -> list[str]:
    lines = batches.read_text().splitlines() if batches.exists() else []
    return [text for line in lines for text in json.loads(line)]


@pytest.mark.parametrize("value", ["0", "-5", "1.5", "soon", "", "1e3", "9" * 10, "٣"])
def test_a_deadline_that_is_none_is_an_error(server: Server, value: str) -> None:
    reply = post(server, request("positive"), {"X-Request-Timeout-Ms": value.encode()})  # type: ignore[dict-item]
    assert reply.status == 422
    assert "X-Request-Timeout-Ms" in reply.body["error"]["message"]


def test_an_answer_in_time_is_an_answer(server: Server) -> None:
    reply = post(server, request("positive"), {"X-Request-Timeout-Ms": "4000"})
    assert reply.status == 200
    assert reply.body["predictions"][0]["label"] == "positive"


def test_what_waits_beyond_its_deadline_is_never_begun(server: Server, batches: Path) -> None:
    n_late, n_expired = server.figure("late_requests_total"), server.figure("expired_rows")
    with connect(server) as busy:
        busy.sendall(raw_request(request(["stub:slow"] * 3)))
        eventually(lambda: "stub:slow" in executed(batches))
        reply = post(server, request(["late one", "late two"]), {"X-Request-Timeout-Ms": "100"})
        assert reply.status == 504
        assert reply.body["error"]["code"] == "too_late"
        assert reply.body["error"]["retryable"]
        assert reply.seconds < 1.5
        assert busy.recv(100).startswith(b"HTTP/1.1 200")
    assert post(server, request("after")).status == 200
    assert {"late one", "late two"}.isdisjoint(executed(batches))
    assert server.figure("late_requests_total") == n_late + 1
    assert server.figure("expired_rows") == n_expired + 2


def test_what_a_client_that_went_away_asked_is_never_begun(server: Server, batches: Path) -> None:
    with connect(server) as busy:
        busy.sendall(raw_request(request(["stub:slow again"] * 4)))
        eventually(lambda: "stub:slow again" in executed(batches))
        with connect(server) as leaving:
            leaving.sendall(raw_request(request(["left one", "left two"])))
            eventually(lambda: server.figure("queue_rows") == 6)
        eventually(lambda: server.figure("queue_rows") == 4, within_s=2)
        assert busy.recv(100).startswith(b"HTTP/1.1 200")
    assert post(server, request("after that")).status == 200
    assert {"left one", "left two"}.isdisjoint(executed(batches))
    assert server.figure("abandoned_requests_total") == 1
    assert server.figure("channel_rows_total", channel="web", result="abandoned") == 2


def test_nothing_is_executed_after_random_deadlines(server: Server, batches: Path) -> None:
    draw = random.Random(1)
    sent = [(request(f"row {n}"), {"X-Request-Timeout-Ms": str(draw.randint(1, 800))}) for n in range(300)]
    replies = all_at_once(server, sent)
    codes = {(reply.status, reply.body.get("error", {}).get("code")) for reply in replies}
    assert codes <= {(200, None), (504, "too_late"), (503, "unavailable")}
    assert len(codes) > 1
    time.sleep(0.1)
    assert server.figure("late_rows_total") == 0
    assert server.figure("queue_rows") == 0
    done = set(executed(batches))
    for n, reply in enumerate(replies):
        assert reply.status != 200 or f"row {n}" in done
        assert reply.status != 503 or f"row {n}" not in done


def test_an_id_is_repeated_or_made(server: Server) -> None:
    assert post(server, request("x"), {"X-Request-Id": "order-4711"}).headers["x-request-id"] == "order-4711"
    made = {post(server, request("x"), {"X-Request-Id": bad}).headers["x-request-id"] for bad in ("a b", "x" * 129)}
    assert all(one.startswith("req_") for one in made | {post(server, request("x")).headers["x-request-id"]})
    assert len(made) == 2
    refused = post(server, {"task": "tone"}, {"X-Request-Id": "r1"})
    assert (refused.status, refused.headers["x-request-id"]) == (422, "r1")

"""Feedback over HTTP, many at once. Catches: results out of order, one that keeps others out, a stream that is read
whole before it is answered or waits for a client that sends all before it listens, a hostile body that is kept or that
stops the server, feedback that was acknowledged and is gone after a kill."""

import asyncio
import json
import random
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from headrace.client import Client
from headrace.errors import BadInput, HeadraceError, NotFound, Unavailable
from headrace.feedback.intake import Given
from headrace.server.receiving import receive
from headrace.server.terms import CURRENT, Terms
from headrace.store import predictions
from headrace.workspace import Workspace, open_workspace
from stub_model import Server, running

NDJSON = {"Content-Type": "application/x-ndjson"}
TIMEOUT_S = 20


def asked(client: Client, n: int = 1) -> list[str]:
    answer = client.predict("tone", "web", ["positive"] * n)
    return [row["id"] for row in answer["predictions"]]


def streamed(server: Server, content: Any, **headers: str) -> list[dict[str, Any]]:
    response = httpx.post(
        f"{server.url}/v1/feedback/stream", content=content, headers=NDJSON | headers, timeout=TIMEOUT_S
    )
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in response.text.splitlines()]


def codes(results: list[dict[str, Any]]) -> list[str]:
    return ["taken" if "id" in one else one["error"]["code"] for one in results]


@pytest.fixture(params=["batch", "stream"])
def sent(request: pytest.FixtureRequest, served: Server) -> Any:
    def send(said: list[Any]) -> list[dict[str, Any]]:
        if request.param == "stream":
            return streamed(served, "\n".join(json.dumps(one) for one in said))
        response = httpx.post(
            f"{served.url}/v1/feedback/batch", content=json.dumps({"feedbacks": said}), timeout=TIMEOUT_S,
            headers={"Content-Type": "application/json"},
        )  # fmt: skip
        assert response.status_code == 200, response.text
        return list(response.json()["results"])

    return send


def test_each_of_many_is_taken_or_refused_in_its_place(sent: Any, client: Client, served_workspace: Workspace) -> None:
    first, second = asked(client, 2)
    said = [
        {"prediction_id": first, "correction": "neutral", "labeller": "ann"},
        {"prediction_id": first, "correction": "neutrl"},
        {"prediction_id": second, "event": "accepted", "channel": "web"},
        {"prediction_id": second, "event": "accepted", "channel": "phone"},
        {"prediction_id": second, "metric": "clicks", "value": 2},
        {"prediction_id": second, "metric": "clics", "value": 2},
        {"prediction_id": second, "comment": "a\0b"},
        {"prediction_id": second, "comment": "\ud800"},
        {"prediction_id": "prd_0", "comment": "x"},
        {"prediction_id": second, "verdict": "x"},
        [],
        {"prediction_id": second, "comment": "x", "idempotency_key": f"k-{second}"},
        {"prediction_id": second, "comment": "x", "idempotency_key": f"k-{second}"},
        {"prediction_id": second, "comment": "y", "idempotency_key": f"k-{second}"},
    ]
    results = sent(said)
    bad = "bad_input"
    assert codes(results) == [
        "taken", bad, "taken", "not_found", "taken", bad, bad, bad, "not_found", bad, bad, "taken", "taken",
        "already_exists",
    ]  # fmt: skip
    assert results[11] == results[12]
    with served_workspace.store.read() as conn:
        kept = {one.id for name in (first, second) for one in predictions.feedback_on(conn, name)}
    assert kept == {one["id"] for one in results if "id" in one}


def test_the_clients_ways_give_the_same(served: Server, client: Client) -> None:
    names = asked(client, 5)
    said = [{"prediction_id": name, "comment": "x", "idempotency_key": f"both-{name}"} for name in [*names, "prd_0"]]
    batch, stream = client.feedback_batch(said), list(client.feedback_stream(said))
    assert batch[:5] == stream[:5]
    assert [type(batch[5]), type(stream[5])] == [NotFound, NotFound]
    assert len(set(map(str, batch[:5]))) == 5


def test_a_single_one_may_name_its_channel_and_the_key_in_its_body_is_refused(served: Server, client: Client) -> None:
    (name,) = asked(client)
    assert client.feedback(name, event="clicked", channel="web", idempotency_key=f"e-{name}").startswith("fb_")
    with pytest.raises(NotFound):
        client.feedback(name, event="clicked", channel="phone")
    with pytest.raises(BadInput, match="'clicked'"):
        client.feedback(name, event="cliked")
    body = {"prediction_id": name, "comment": "x", "idempotency_key": "k"}
    assert httpx.post(f"{served.url}/v1/feedback", json=body).status_code == 422


def test_a_stream_is_answered_while_it_is_sent(served: Server, client: Client) -> None:
    (name,) = asked(client)
    line = json.dumps({"prediction_id": name, "comment": "x"}).encode() + b"\n"
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=TIMEOUT_S) as link:
        head = "POST /v1/feedback/stream HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\n"
        link.sendall(f"{head}transfer-encoding: chunked\r\n\r\n".encode())
        answers = link.makefile("rb")
        for n in range(3):
            half = len(line) // 2
            for part in (line[:half], line[half:]):
                link.sendall(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            while b'{"id"' not in (got := answers.readline()):
                assert got, f"no answer to line {n}"
        link.sendall(b"0\r\n\r\n")
        assert b"0\r\n" in answers.readlines(3) or answers.readline() == b"0\r\n"


def test_many_lines_sent_before_any_answer_is_read(served: Server, client: Client) -> None:
    # httpx listens when it has sent all: 9,999 answers of 400 bytes are more than sockets hold.
    lines = b"".join(b'{"prediction_id": "prd_0", "comment": "%d", "x": 1}\n' % n for n in range(9_999))
    results = streamed(served, lines)
    assert codes(results) == ["bad_input"] * 9_999


def test_hostile_streams_are_cut_short_and_the_server_goes_on(served: Server, client: Client) -> None:
    (name,) = asked(client)
    good = json.dumps({"prediction_id": name, "comment": "x"}).encode()

    def endless(part: bytes, n_bytes: int) -> Iterator[bytes]:
        for _ in range(n_bytes // len(part)):
            yield part

    assert codes(streamed(served, good + b"\n" + b"x" * 2**21 + b"\n" + good)) == ["taken", "bad_input", "taken"]
    assert codes(streamed(served, endless(b"[" * 65536, 2**22))) == ["bad_input"]
    assert codes(streamed(served, b'{"a":' * 50_000)) == ["bad_input"]
    assert codes(streamed(served, b"\n" * 1_000_000)) == []
    assert codes(streamed(served, b"")) == []
    assert (
        codes(streamed(served, b'{"prediction_id": "%s", "comment": 1e999}\n\xff\n{"a":1,"a":1}' % name.encode()))
        == ["bad_input"] * 3
    )
    tail = streamed(served, endless(b"1\n" * 1000, 2**17))  # 65,536 lines
    assert len(tail) == 10_001
    assert "at most 10000 lines" in tail[-1]["error"]["message"]
    try:
        long = streamed(served, endless(b" " * 65536, 2**25))
        assert "more than" in long[-1]["error"]["message"]
    except httpx.TransportError:
        pass  # cut off while it still sent
    assert client.feedback(name, comment="still here").startswith("fb_")


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("batch", {"feedbacks": [{}] * 1001}, {}, 422),
        ("batch", {"feedbacks": 3}, {}, 422),
        ("batch", {"feedbacks": [], "x": 1}, {}, 422),
        ("batch", {}, {}, 422),
        ("stream", {"prediction_id": "prd_0", "comment": "x"}, {"Content-Type": "text/plain"}, 415),
        ("stream", {"prediction_id": "prd_0", "comment": "x"}, {"Content-Type": "application/json"}, 415),
    ],
)
def test_what_is_no_batch_and_no_stream_is_refused(
    served: Server, path: str, body: Any, headers: dict[str, str], status: int
) -> None:
    headers = {"Content-Type": "application/json"} | headers
    response = httpx.post(f"{served.url}/v1/feedback/{path}", content=json.dumps(body), headers=headers)
    assert response.status_code == status
    assert response.json()["error"]["next_step"]


def test_a_server_that_is_killed_has_all_that_it_acknowledged(root: Path, plugin_env: dict[str, str]) -> None:
    rng = random.Random(5)
    acknowledged: list[list[str]] = [[] for _ in range(4)]
    with running(root, plugin_env) as server:
        with Client(server.url) as client:
            name = client.predict("tone", "web", ["positive"])["predictions"][0]["id"]
            client.feedback(name, comment="it is in the log")

        def tell(mine: list[str], way: int) -> None:
            with Client(server.url, timeout_s=1) as client:
                while True:
                    said = [{"prediction_id": name, "comment": f"{n}"} for n in range(20)]
                    try:
                        if way == 0:
                            mine.append(client.feedback(name, comment="one"))
                        else:
                            give = client.feedback_batch if way == 1 else client.feedback_stream
                            mine += [one for one in give(said) if isinstance(one, str)]
                    except HeadraceError:
                        return

        threads = [threading.Thread(target=tell, args=(mine, n % 3)) for n, mine in enumerate(acknowledged)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + TIMEOUT_S
        while not all(acknowledged) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(rng.uniform(0.1, 0.5))
        workers = server.worker_pids()
        server.process.kill()
        for thread in threads:
            thread.join(TIMEOUT_S)
        assert not any(thread.is_alive() for thread in threads)
        assert workers
    with open_workspace(root) as ws, ws.store.read() as conn:
        kept = {one.id for one in predictions.feedback_on(conn, name)}
    assert all(acknowledged)
    assert {one for mine in acknowledged for one in mine} <= kept


def test_a_disk_that_takes_too_long_is_told_with_the_way_to_send_it_once() -> None:
    async def sent() -> None:
        CURRENT.set(Terms("req_1", deadline=time.monotonic() + TIMEOUT_S))
        settings = SimpleNamespace(serve=SimpleNamespace(timeout_s=0.01))
        never = SimpleNamespace(awaited=lambda _: asyncio.get_running_loop().create_future())
        log = SimpleNamespace(add_feedback=lambda _: None)
        plane: Any = SimpleNamespace(ws=SimpleNamespace(settings=settings), handover=never, log=log)
        await receive(plane, Given("prd_1", comment="x"))

    with pytest.raises(
        Unavailable, match=r"not written in time: 0\.01 s\. Send it again with the same idempotency key"
    ):
        asyncio.run(sent())

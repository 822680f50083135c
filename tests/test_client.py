"""Both clients against a server that answers as scripted, and the logic between attempts alone.

Catches: an error of another kind than the server's, endless, missing or early retries, feedback that counts twice
because it was sent twice, a call that outlives its time, a connection for each call, two clients that differ.
"""

import asyncio
import inspect
import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from headrace.client import AsyncClient, Client, calls
from headrace.client.calls import Ask, Calls, Came, Reply, Wait
from headrace.errors import BadInput, HeadraceError, MissingExtra, NotFound, TooLate, TooMany, Unavailable

OK = (200, {"id": "fb_1", "predictions": []})
BUSY = (503, Unavailable("too many rows", next_step="Try again").envelope())
SLOW = 299
"""The status of an answer that comes byte by byte."""
CROWDED = (429, TooMany("more than its share", next_step="Try again").envelope())


class Scripted(ThreadingHTTPServer):
    """Answers requests with `script` in turn, then with OK; keeps what it was sent."""

    daemon_threads = True

    def __init__(self) -> None:
        self.script: list[tuple[int, Any]] = []
        self.seen: list[tuple[str, dict[str, str], Any]] = []
        self.n_connections = 0
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Scripted
    protocol_version = "HTTP/1.1"  # connections are kept

    def setup(self) -> None:
        super().setup()
        self.server.n_connections += 1

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers["Content-Length"] or 0))
        is_lines = self.headers.get("Content-Type") == "application/x-ndjson"
        body = [json.loads(line) for line in sent.splitlines()] if is_lines else json.loads(sent) if sent else None
        self.server.seen.append((self.path, dict(self.headers), body))
        status, body = self.server.script.pop(0) if self.server.script else OK
        if status == 0:  # no answer for as long as `body` says
            time.sleep(body)
            self.close_connection = True
            return
        content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        if status in (429, 503):
            self.send_header("Retry-After", "0")
        self.end_headers()
        pieces = [bytes([byte]) for byte in content] if status == SLOW else [content]
        for piece in pieces:
            self.wfile.write(piece)
            time.sleep(0.05 if status == SLOW else 0)

    do_GET = do_POST  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


class Awaited:
    """An AsyncClient that is used like a Client."""

    def __init__(self, base_url: str, **options: Any) -> None:
        self._runner = asyncio.Runner()
        self._runner.get_loop()
        self._client = AsyncClient(base_url, **options)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)
        return lambda *args, **options: self._runner.run(method(*args, **options))

    def __enter__(self) -> "Awaited":
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._client.close())
        self._runner.close()


@pytest.fixture
def server() -> Iterator[Scripted]:
    with Scripted() as scripted:
        thread = threading.Thread(target=scripted.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield scripted
        scripted.shutdown()
        thread.join()


@pytest.fixture(params=[Client, Awaited], ids=["Client", "AsyncClient"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(calls, "_FIRST_PAUSE_S", 0.01)
    return request.param


@pytest.fixture
def client(kind: Any, server: Scripted) -> Iterator[Any]:
    with kind(server.url) as connected:
        yield connected


def test_the_bodies_are_those_of_the_interface(client: Any, server: Scripted) -> None:
    client.predict("tone", "web", ["a", {"text": "b", "text_pair": "c"}, [{"role": "user", "text": "d"}]], unit="u")
    client.feedback("prd_1", metric="clicks", value=0)
    (_, _, asked), (_, headers, told) = server.seen
    assert asked == {"task": "tone", "channel": "web", "unit": "u", "inputs": [
        {"text": "a"}, {"text": "b", "text_pair": "c"}, {"turns": [{"role": "user", "text": "d"}]},
    ]}  # fmt: skip
    assert told == {"prediction_id": "prd_1", "labeller": "anonymous", "metric": "clicks", "value": 0}
    assert len(headers["Idempotency-Key"]) == 32


@pytest.mark.parametrize(
    "error",
    [
        BadInput("wrong", value="x", next_step="Do right"),
        NotFound("gone", value=3),
        MissingExtra("train", library="torch", purpose="this"),
        HeadraceError("odd"),
    ],
)
def test_errors_are_those_of_the_server_and_are_not_asked_again(
    client: Any, server: Scripted, error: HeadraceError
) -> None:
    server.script = [(error.http_status, error.envelope())]
    with pytest.raises(HeadraceError) as caught:
        client.predict("tone", "web", ["a"])
    assert type(caught.value) is type(error)
    assert caught.value.envelope() == error.envelope()
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("busy", "error"), [(BUSY, Unavailable), (CROWDED, TooMany), ((503, "<p>proxy"), HeadraceError)]
)
def test_what_may_pass_is_tried_three_times(
    client: Any, server: Scripted, busy: tuple[int, Any], error: type[HeadraceError]
) -> None:
    server.script = [busy, busy]
    assert client.predict("tone", "web", ["a"]) == OK[1]
    server.script, server.seen = [busy] * 3, []
    with pytest.raises(error):
        client.predict("tone", "web", ["a"])
    assert len(server.seen) == 3
    assert len({headers["X-Request-Id"] for _, headers, _ in server.seen}) == 1


def test_each_attempt_tells_what_is_left_of_the_time(client: Any, server: Scripted) -> None:
    server.script = [BUSY]
    client.predict("tone", "web", ["a"], timeout_s=7, request_id="mine")
    (_, first, _), (_, again, _) = server.seen
    assert 6000 < int(again["X-Request-Timeout-Ms"]) <= int(first["X-Request-Timeout-Ms"]) <= 7000
    assert first["X-Request-Id"] == "mine"


def test_feedback_sent_again_has_the_same_key_and_other_feedback_another(client: Any, server: Scripted) -> None:
    server.script = [BUSY]
    assert client.feedback("prd_1", comment="x") == "fb_1"
    client.feedback("prd_1", comment="x")
    first, again, other = (headers["Idempotency-Key"] for _, headers, _ in server.seen)
    assert first == again != other


def test_an_answer_lost_on_its_way_is_asked_for_again(client: Any, server: Scripted) -> None:
    server.script = [(0, 0)]
    assert client.feedback("prd_1", comment="x") == "fb_1"
    assert len(server.seen) == 2


def test_a_connection_is_used_again(client: Any, server: Scripted) -> None:
    for _ in range(5):
        client.predict("tone", "web", ["a"])
    assert len(server.seen) == 5
    assert server.n_connections == 1


def test_nobody_listening_is_told_with_the_next_step(kind: Any) -> None:
    with Scripted() as gone:
        url = gone.url
    with kind(url) as client:
        with pytest.raises(Unavailable, match="headrace serve") as caught:
            client.predict("tone", "web", ["a"])
        assert url in str(caught.value)
        assert client.ready() is False


@pytest.mark.parametrize("answer", [(0, 1.0), (SLOW, OK[1])])
def test_it_gives_up_when_its_time_is_over(kind: Any, server: Scripted, answer: tuple[int, Any]) -> None:
    server.script = [answer] * 3
    started_at = time.monotonic()
    with kind(server.url, timeout_s=9) as client, pytest.raises(TooLate, match="in time"):
        client.predict("tone", "web", ["a"], timeout_s=0.3)
    assert len(server.seen) == 1
    assert time.monotonic() - started_at < 0.9


@pytest.mark.parametrize(
    "answer", [(502, "<html>proxy</html>"), (200, "<html>hello</html>"), (404, {"detail": "no"}), (200, [1])]
)
def test_an_answer_that_is_not_headraces_is_told_apart(client: Any, server: Scripted, answer: Any) -> None:
    server.script = [answer]
    with pytest.raises(HeadraceError, match=r"is not headrace's.*127\.0\.0\.1"):
        client.predict("tone", "web", ["a"])


@pytest.mark.parametrize("url", ["http://[::1", "127.0.0.1:8000", ""])
def test_a_url_that_is_none_is_told(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_FIRST_PAUSE_S", 0.01)
    with pytest.raises((BadInput, Unavailable)) as caught, Client(url) as client:
        client.predict("tone", "web", ["a"])
    assert caught.value.next_step
    with pytest.raises(BadInput):
        AsyncClient("http://[::1")


def test_what_json_cannot_hold_is_told(client: Any) -> None:
    with pytest.raises(BadInput, match="JSON"):
        client.feedback("prd_1", correction=object())


@pytest.mark.parametrize("name", ["", "ü", "a\nb", " a", "a\0"])
def test_ids_that_no_header_holds_are_told(client: Any, server: Scripted, name: str) -> None:
    with pytest.raises(BadInput, match="request_id"):
        client.predict("tone", "web", ["a"], request_id=name)
    with pytest.raises(BadInput, match="idempotency_key"):
        client.feedback("prd_1", comment="x", idempotency_key=name)
    assert server.seen == []


def test_ready_is_no_while_the_server_says_so(client: Any, server: Scripted) -> None:
    server.script = [BUSY]
    assert client.ready() is False
    assert client.ready() is True


def test_calls_at_once_do_not_wait_for_each_other(server: Scripted) -> None:
    async def ask() -> list[dict[str, Any]]:
        async with AsyncClient(server.url) as client:
            server.script = [BUSY] * 4
            return await asyncio.gather(*(client.predict("tone", "web", [str(n)]) for n in range(20)))

    assert asyncio.run(ask()) == [OK[1]] * 20


def test_both_clients_have_the_same_methods_and_arguments() -> None:
    for name, method in inspect.getmembers(Client, inspect.isfunction):
        if not name.startswith("_"):
            its_own = getattr(AsyncClient, name)
            assert inspect.signature(its_own).parameters == inspect.signature(method).parameters, name
            if inspect.isgeneratorfunction(method):
                assert inspect.isasyncgenfunction(its_own)
            else:
                assert inspect.signature(its_own) == inspect.signature(method), name
                assert inspect.iscoroutinefunction(its_own)


class Clock:
    """Moves by what is waited for."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def carry_out(logic: Calls, clock: Clock, replies: list[Came]) -> tuple[list[float], int]:
    """(pauses, requests) of one call that gets `replies` in turn, each at once."""
    call = logic.predict("tone", "web", ["a"], None, None, None)
    pauses, n_asked, came = [], 0, None
    try:
        while True:
            step = call.send(came)
            if isinstance(step, Wait):
                pauses.append(step.seconds)
                clock.now += step.seconds
                came = None
            else:
                assert isinstance(step, Ask)
                came, n_asked = replies[n_asked], n_asked + 1
    except (StopIteration, HeadraceError):
        return pauses, n_asked


def busy(**headers: str) -> Reply:
    return Reply(503, httpx.Headers(headers), json.dumps(BUSY[1]).encode())


@pytest.mark.parametrize(
    ("headers", "low_s", "high_s"),
    [
        ({"Retry-After": "4"}, 4, 6),
        ({"retry-after": "0"}, 0, 0),
        ({"Retry-After": "-5"}, 0.5, 3),
        ({"Retry-After": "soon"}, 0.5, 3),
        ({}, 0.5, 3),
    ],
)
def test_it_waits_as_long_as_the_server_asks(headers: dict[str, str], low_s: float, high_s: float) -> None:
    clock = Clock()
    pauses, n_asked = carry_out(Calls("http://x", 30, clock=clock), clock, [busy(**headers)] * 3)
    assert n_asked == 3
    assert len(pauses) == 2
    assert all(low_s <= pause <= high_s for pause in pauses)


@pytest.mark.parametrize(("away_s", "low_s", "high_s"), [(8, 6, 12), (-800, 0, 0)])
def test_it_waits_until_the_moment_that_the_server_names(away_s: int, low_s: float, high_s: float) -> None:
    clock, moment = Clock(), format_datetime(datetime.now(UTC) + timedelta(seconds=away_s), usegmt=True)
    pauses, _ = carry_out(Calls("http://x", 30, clock=clock), clock, [busy(**{"Retry-After": moment})] * 3)
    assert len(pauses) == 2
    assert all(low_s <= pause <= high_s for pause in pauses)


def test_a_pause_beyond_the_deadline_is_not_begun() -> None:
    clock = Clock()
    assert carry_out(Calls("http://x", 10, clock=clock), clock, [busy(**{"Retry-After": "60"})] * 3) == ([], 1)


def test_a_client_whose_calls_fail_stops_trying_again() -> None:
    clock = Clock()
    logic = Calls("http://x", 30, clock=clock)
    asked = [carry_out(logic, clock, [busy()] * 3)[1] for _ in range(100)]
    assert asked[:5] == [3] * 5
    assert asked[5:] == [1] * 95  # ten retries, and then none until answers come
    fine = Reply(200, httpx.Headers(), b"{}")
    for _ in range(20):
        carry_out(logic, clock, [fine])
    assert carry_out(logic, clock, [busy(), busy(), fine])[1] == 3


def results_of(client: Any, way: str, given: Any) -> list[Any]:
    """What a client's batch or stream says, gathered."""
    if way == "batch":
        return list(client.feedback_batch(given))
    if not isinstance(client, Awaited):
        return list(client.feedback_stream(given))

    async def gathered() -> list[Any]:
        return [result async for result in client._client.feedback_stream(given)]

    return client._runner.run(gathered())


@pytest.mark.parametrize("way", ["batch", "stream"])
def test_many_feedbacks_go_in_parts_each_sent_again_as_it_was(
    client: Any, server: Scripted, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "_PART", 2)
    refusal = BadInput("wrong", value="x", next_step="Do right")
    parts = [[{"id": "fb_1"}, refusal.envelope()], [{"id": "fb_3"}]]
    answers = [
        {"results": part} if way == "batch" else "".join(json.dumps(one) + "\n" for one in part) for part in parts
    ]
    server.script = [BUSY, (200, answers[0]), (200, answers[1])]
    given = [{"prediction_id": f"prd_{n}", "comment": None, "event": "shown"} for n in range(3)]
    given[2]["idempotency_key"] = "mine"
    first, refused, third = results_of(client, way, iter(given))
    assert (first, third) == ("fb_1", "fb_3")
    assert isinstance(refused, BadInput)
    assert refused.envelope() == refusal.envelope()
    bodies = [body for _, _, body in server.seen]
    assert bodies[0] == bodies[1]
    lines = [body["feedbacks"] if way == "batch" else body for body in bodies[1:]]
    sent = [one for part in lines for one in part]
    assert [{**one, "idempotency_key": "k"} for one in sent] == [
        {"prediction_id": f"prd_{n}", "event": "shown", "idempotency_key": "k"} for n in range(3)
    ]
    assert sent[2]["idempotency_key"] == "mine"
    assert len({one["idempotency_key"] for one in sent}) == 3


@pytest.mark.parametrize("answer", ["{}", "3", '{"results": [{}]}', '{"results": 3}', '{"results": []}', "x", ""])
@pytest.mark.parametrize("way", ["batch", "stream"])
def test_results_that_are_none_are_an_error(client: Any, server: Scripted, way: str, answer: str) -> None:
    server.script = [(200, answer)]
    with pytest.raises(HeadraceError, match="not headrace's"):
        results_of(client, way, [{"prediction_id": "prd_1", "event": "shown"}])

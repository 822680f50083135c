"""The client against a server that answers as scripted. Catches: an error of another kind than the server's, endless or
missing retries, feedback that counts twice because it was sent twice."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from headrace import client as module
from headrace.client import Client
from headrace.errors import BadInput, HeadraceError, MissingExtra, NotFound, Unavailable

OK = (200, {"id": "fb_1", "predictions": []})
BUSY = (503, Unavailable("too many rows", next_step="Try again").envelope())


class Scripted(ThreadingHTTPServer):
    """Answers requests with `script` in turn, then with OK; keeps what it was sent."""

    daemon_threads = True

    def __init__(self) -> None:
        self.script: list[tuple[int, Any]] = []
        self.seen: list[tuple[str, dict[str, str], Any]] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Scripted

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.server.seen.append((self.path, dict(self.headers), json.loads(sent) if sent else None))
        status, body = self.server.script.pop(0) if self.server.script else OK
        if status == 0:
            time.sleep(body)
            return
        content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Scripted]:
    with Scripted() as scripted:
        thread = threading.Thread(target=scripted.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield scripted
        scripted.shutdown()
        thread.join()


@pytest.fixture
def client(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setattr(module, "_FIRST_PAUSE_S", 0.01)
    with Client(server.url) as connected:
        yield connected


def test_the_bodies_are_those_of_the_interface(client: Client, server: Scripted) -> None:
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
    client: Client, server: Scripted, error: HeadraceError
) -> None:
    server.script = [(error.http_status, error.envelope())]
    with pytest.raises(HeadraceError) as caught:
        client.predict("tone", "web", ["a"])
    assert type(caught.value) is type(error)
    assert caught.value.envelope() == error.envelope()
    assert len(server.seen) == 1


def test_retryable_errors_are_tried_three_times(client: Client, server: Scripted) -> None:
    server.script = [BUSY, BUSY]
    assert client.predict("tone", "web", ["a"]) == OK[1]
    server.script, server.seen = [BUSY] * 3, []
    with pytest.raises(Unavailable, match="too many rows"):
        client.predict("tone", "web", ["a"])
    assert len(server.seen) == 3


def test_feedback_sent_again_has_the_same_key_and_other_feedback_another(client: Client, server: Scripted) -> None:
    server.script = [BUSY]
    assert client.feedback("prd_1", comment="x") == "fb_1"
    client.feedback("prd_1", comment="x")
    first, again, other = (headers["Idempotency-Key"] for _, headers, _ in server.seen)
    assert first == again != other


def test_nobody_listening_is_told_with_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_PAUSE_S", 0.01)
    with Scripted() as gone:
        url = gone.url
    with Client(url) as client:
        with pytest.raises(Unavailable, match="headrace serve") as caught:
            client.predict("tone", "web", ["a"])
        assert url in str(caught.value)
        assert client.ready() is False


def test_it_gives_up_when_its_time_is_over(server: Scripted) -> None:
    server.script = [(0, 1.0)] * 3
    with Client(server.url, timeout_s=0.3) as client, pytest.raises(Unavailable, match="in time"):
        client.predict("tone", "web", ["a"])
    assert len(server.seen) == 1


@pytest.mark.parametrize("answer", [(502, "<html>proxy</html>"), (200, "<html>hello</html>"), (404, {"detail": "no"})])
def test_an_answer_that_is_not_headraces_is_told_apart(client: Client, server: Scripted, answer: Any) -> None:
    server.script = [answer]
    with pytest.raises(HeadraceError, match=r"is not headrace's.*127\.0\.0\.1"):
        client.predict("tone", "web", ["a"])


@pytest.mark.parametrize("url", ["http://[::1", "127.0.0.1:8000", ""])
def test_a_url_that_is_none_is_told(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_PAUSE_S", 0.01)
    with pytest.raises((BadInput, Unavailable)) as caught, Client(url) as client:
        client.predict("tone", "web", ["a"])
    assert caught.value.next_step


def test_what_json_cannot_hold_is_told(client: Client) -> None:
    with pytest.raises(BadInput, match="JSON"):
        client.feedback("prd_1", correction=object())


def test_ready_is_no_while_the_server_says_so(client: Client, server: Scripted) -> None:
    server.script = [BUSY]
    assert client.ready() is False
    assert client.ready() is True

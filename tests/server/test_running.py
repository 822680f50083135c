"""A server's life: start, drain, end. Catches: a request lost in a shutdown, a worker left behind, a false ready."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import httpx
import psutil
import pytest

from headrace.client import Client
from headrace.errors import BadConfig, Damaged, HeadraceError, Unavailable, Unusable, WrongState
from headrace.server import running as running_module
from headrace.server.running import start_server
from headrace.store import ledger, predictions
from headrace.workspace import Workspace, init, is_served, open_workspace
from stub_model import Server, plant_stub, running

WAIT_S = 20


def eventually(check: Callable[[], bool], *, within_s: float = WAIT_S) -> None:
    until = time.monotonic() + within_s
    while not check():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.fixture
def server(root: Path, plugin_env: dict[str, str]) -> Iterator[Server]:
    with running(root, plugin_env) as started:
        yield started


def post(server: Server, text: str) -> httpx.Response:
    """One request, not tried again."""
    body = {"task": "tone", "channel": "web", "inputs": [{"text": text}]}
    return httpx.post(f"{server.url}/v1/predict", json=body, timeout=WAIT_S)


class Asking(threading.Thread):
    """One slow request in a thread; `answer` or `error` is there after `join`."""

    def __init__(self, url: str, text: str) -> None:
        super().__init__()
        self.url, self.text = url, text
        self.answer: dict[str, object] | None = None
        self.error: HeadraceError | None = None
        self.start()
        time.sleep(0.2)  # it is under way

    def run(self) -> None:
        with Client(self.url, timeout_s=WAIT_S) as client:
            try:
                self.answer = client.predict("tone", "web", [self.text])
            except HeadraceError as error:
                self.error = error


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_finishes_what_is_under_way(
    root: Path, plugin_env: dict[str, str], number: signal.Signals
) -> None:
    with running(root, plugin_env) as server:
        worker = server.worker_pid()
        asking = Asking(server.url, "stub:slow positive")
        assert server.stop(number) == 0
        asking.join(WAIT_S)
    assert asking.answer is not None
    assert not psutil.pid_exists(worker)
    assert not (root / ".headrace" / "server.json").exists()
    (row,) = asking.answer["predictions"]  # type: ignore[misc]
    with open_workspace(root) as ws, ws.store.read() as conn:
        assert predictions.find(conn, row["id"]) is not None
    assert "Traceback" not in server.log.read_text()


def test_ctrl_c_for_the_whole_group_leaves_the_worker_to_finish(root: Path, plugin_env: dict[str, str]) -> None:
    with running(root, plugin_env) as server:
        asking = Asking(server.url, "stub:slow positive")
        os.kill(server.worker_pid(), signal.SIGINT)
        os.kill(server.worker_pid(), signal.SIGTERM)
        assert server.stop(signal.SIGINT) == 0
        asking.join(WAIT_S)
    assert asking.answer is not None


def test_a_draining_server_is_not_ready_and_takes_nobody_new(server: Server) -> None:
    url = server.url
    asking = Asking(url, "stub:slow")
    with Client(url) as kept:
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: not kept.ready(), within_s=2)
    asking.join(WAIT_S)
    assert asking.answer is not None


def test_a_killed_server_takes_its_worker_along(server: Server) -> None:
    worker = psutil.Process(server.worker_pid())
    server.process.kill()
    _, left = psutil.wait_procs([worker], timeout=WAIT_S)
    assert left == []


def test_when_the_worker_is_killed_requests_get_503_and_then_answers(server: Server) -> None:
    asking = Asking(server.url, "stub:slow")
    os.kill(server.worker_pid(), signal.SIGKILL)
    response = post(server, "positive")
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert response.json()["error"]["retryable"] is True
    asking.join(WAIT_S)
    assert asking.answer is not None  # the client tried again
    with Client(server.url) as client:
        eventually(client.ready)
        assert client.predict("tone", "web", ["positive"])["predictions"][0]["label"] == "positive"


def test_a_text_that_kills_the_worker_is_an_error_and_not_the_end(server: Server) -> None:
    with Client(server.url) as client:
        with pytest.raises(Unavailable):
            client.predict("tone", "web", ["stub:die"])
        eventually(client.ready)
        assert client.predict("tone", "web", ["positive"])["predictions"][0]["label"] == "positive"


def test_a_late_answer_is_504_and_the_next_request_is_served(root: Path, plugin_env: dict[str, str]) -> None:
    with running(root, plugin_env, serve__timeout_s=1) as server, Client(server.url) as client:
        response = post(server, "stub:hang")
        assert response.status_code == 504
        assert "in time" in response.json()["error"]["message"]
        eventually(client.ready)
        assert client.predict("tone", "web", ["positive"])["predictions"][0]["label"] == "positive"


def test_more_rows_than_the_queue_holds_are_shed(root: Path, plugin_env: dict[str, str]) -> None:
    with running(root, plugin_env, serve__max_queue_rows=3) as server:
        asking = Asking(server.url, "stub:slow")
        with Client(server.url, timeout_s=0.1) as hasty, pytest.raises(Unavailable):
            hasty.predict("tone", "web", ["a"] * 3)
        asking.join(WAIT_S)
        assert asking.answer is not None


def test_it_is_alive_before_it_is_ready(root: Path, plugin_env: dict[str, str]) -> None:
    server = Server(root, plugin_env, wait=False)
    try:
        eventually((root / ".headrace" / "server.json").exists)
        live = httpx.get(f"{server.url}/v2/health/live", timeout=WAIT_S)
        server.wait_until_ready()
        assert live.json() == {"live": True}
        assert is_served(root)
        assert httpx.get(f"{server.url}/v2/health/ready").json() == {"ready": True}
        assert server.line == f"headrace serves tone at {server.url}\n"
    finally:
        server.stop()
    assert not is_served(root)


@pytest.mark.parametrize("after_s", [0.1, 1.2])
def test_stopped_while_loading_it_ends_at_once(root: Path, plugin_env: dict[str, str], after_s: float) -> None:
    with open_workspace(root) as ws:
        plant_stub(ws, load_s=60)
    server = Server(root, plugin_env, wait=False)
    eventually((root / ".headrace" / "server.json").exists)
    assert httpx.get(f"{server.url}/v2/health/ready", timeout=WAIT_S).status_code == 503
    time.sleep(after_s)
    stopped_at = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - stopped_at < 5
    assert "Traceback" not in server.log.read_text()


def test_two_starts_at_once_put_one_version_in_charge(root: Path, plugin_env: dict[str, str]) -> None:
    servers = [Server(root, plugin_env, wait=False) for _ in range(2)]
    for server in servers:
        server.wait_until_ready()
    assert [server.stop() for server in servers] == [0, 0]
    with open_workspace(root) as ws, ws.store.read() as conn:
        assert [line.kind for line in ledger.listing(conn)] == ["promote"]


def test_hashes_only_when_inputs_are_not_to_be_kept(root: Path, plugin_env: dict[str, str]) -> None:
    with running(root, plugin_env, serve__log_inputs="hash") as server, Client(server.url) as client:
        (row,) = client.predict("tone", "web", ["positive"])["predictions"]
    with open_workspace(root) as ws, ws.store.read() as conn:
        found = predictions.find(conn, row["id"])
    assert found is not None
    assert found.text is None
    assert len(found.text_hash) == 64


def test_a_port_in_use_is_named_before_anything_is_loaded(root: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as other, open_workspace(root) as ws:
        port = other.getsockname()[1]
        with pytest.raises(Unusable, match=f"127.0.0.1:{port}.*--port"):
            start_server(ws, port=port)
        with ws.store.read() as conn:
            assert ledger.last_seq(conn) == 0


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.4", "::", "example.org", ""])
def test_other_machines_are_not_served_without_keys(workspace: Workspace, host: str) -> None:
    with pytest.raises(BadConfig, match="asks for keys"):
        start_server(workspace, host=host, port=0)


def test_nothing_to_serve_is_told(workspace: Workspace) -> None:
    with pytest.raises(WrongState, match="headrace train"):
        start_server(workspace, port=0)
    assert not (workspace.state_folder / "server.json").exists()


def test_an_address_that_cannot_be_written_is_told(workspace: Workspace) -> None:
    (workspace.state_folder / "server.json").mkdir()
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as listener,
        pytest.raises(Unusable, match=r"cannot be written: Is a directory: .*server\.json\. Check its rights"),
        running_module._address_file(workspace, listener, "http"),
    ):
        pytest.fail("it was served")


def test_a_damaged_version_in_charge_is_told(tmp_path: Path) -> None:
    with init(tmp_path / "ws", task="tone", labels=("a", "neutral")) as ws:
        version = plant_stub(ws)
        (ws.artifacts.get(version.artifact) / "stub.json").write_text("{}")
        with pytest.raises(Damaged, match=r"stub\.json"):
            start_server(ws, port=0)
    assert not [child for child in psutil.Process().children() if "headrace.serve.worker" in child.cmdline()]

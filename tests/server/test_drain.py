"""A server that is told to stop under load. Catches: an answer lost, a connection kept open for the next request, an
end that waits for ever."""

import signal
import threading
import time
from pathlib import Path

import httpx
import pytest

from headrace.store import predictions
from headrace.workspace import open_workspace
from server.loading import connect, eventually, post, raw_request, read_answer, read_to_end, request
from stub_model import Server, running


class Sending(threading.Thread):
    """Sends over one kept connection until the server is gone; what was answered, and what was begun and lost."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self._url = f"{server.url}/v1/predict"
        self.ids: list[str] = []
        self.lost: list[str] = []
        self.start()

    def run(self) -> None:
        with httpx.Client(timeout=20, trust_env=False, verify=False) as client:
            while True:
                try:
                    response = client.post(self._url, json=request("positive"))
                except httpx.ConnectError:  # nobody listens any more: nothing was begun
                    return
                except httpx.TransportError as error:
                    self.lost.append(repr(error))
                    return
                if response.status_code != 200:
                    self.lost.append(response.text)
                else:
                    self.ids.append(response.json()["predictions"][0]["id"])


@pytest.mark.slow
def test_no_request_is_lost_when_it_stops_under_load(root: Path, plugin_env: dict[str, str]) -> None:
    for _ in range(3):
        with running(root, plugin_env) as server:
            sending = [Sending(server) for _ in range(3)]
            time.sleep(0.5)
            assert server.stop() == 0
        for one in sending:
            one.join(20)
        assert [one.lost for one in sending] == [[], [], []]
        with open_workspace(root) as ws, ws.store.read() as conn:
            assert all(predictions.find(conn, one.ids[-1]) is not None for one in sending)


def test_what_is_under_way_is_answered_and_told_that_it_was_the_last(root: Path, plugin_env: dict[str, str]) -> None:
    with running(root, plugin_env) as server, connect(server) as asking, connect(server) as kept:
        kept.sendall(raw_request(request("positive")))
        assert read_answer(kept).startswith(b"HTTP/1.1 200")
        asking.sendall(raw_request(request(["stub:slow"] * 3)))
        eventually(lambda: server.figure("queue_rows") == 3)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        kept.sendall(raw_request(request("positive")))  # it could not know
        for link in (kept, asking):
            status, came = read_to_end(link)
            assert status == 200
            assert b"connection: close" in came.lower()
        assert server.process.wait(20) == 0


def test_the_second_signal_ends_it_at_once(root: Path, plugin_env: dict[str, str]) -> None:
    with running(root, plugin_env) as server, connect(server) as asking:
        worker = server.worker_pid()
        asking.sendall(raw_request(request("stub:hang")))
        eventually(lambda: server.figure("queue_rows") == 1)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(3) == 1
        assert read_to_end(asking)[0] == 0
        eventually(lambda: not _lives(worker))


def _lives(pid: int) -> bool:
    import psutil

    return bool(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)


def test_it_is_alive_and_ready_throughout_load(root: Path, plugin_env: dict[str, str]) -> None:
    with running(root, plugin_env) as server:
        sending = [Sending(server) for _ in range(2)]
        seen = set()
        with httpx.Client(base_url=f"{server.url}/v2/health", verify=False) as client:
            for _ in range(20):
                seen |= {(name, client.get(f"/{name}").status_code) for name in ("live", "ready")}
        assert seen == {("live", 200), ("ready", 200)}
        assert post(server, request("positive")).status == 200
        server.stop()
        for one in sending:
            one.join(20)

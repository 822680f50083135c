"""Who is told that a server lives and that it is ready. Catches: a liveness that hangs on the store or on a model, and
has a server restarted that only waits; a readiness that stays while nobody could be answered, or flaps under load."""

import os
import signal
import threading
import time
from pathlib import Path

import httpx
import pytest

from headrace.workspace import open_workspace
from server.loading import connect, eventually, post, raw_request, request
from stub_model import Server, plant_stub, running


def status(url: str, name: str) -> int:
    return httpx.get(f"{url}/v2/health/{name}", timeout=10, verify=False, trust_env=False).status_code


def test_it_lives_without_a_model_and_is_not_ready(root: Path, plugin_env: dict[str, str]) -> None:
    with running(root, plugin_env) as server:
        assert (status(server.url, "live"), status(server.url, "ready")) == (200, 200)
        os.kill(server.worker_pid(), signal.SIGKILL)
        seen = set()

        def is_back() -> bool:
            seen.add((status(server.url, "live"), status(server.url, "ready")))
            return server.figure("worker_starts") == 2 and (200, 200) in seen

        seen.add((status(server.url, "live"), status(server.url, "ready")))
        eventually(is_back)
    assert {live for live, _ in seen} == {200}
    assert (200, 503) in seen


def test_a_store_that_is_held_stops_neither_life_nor_answers(root: Path, plugin_env: dict[str, str]) -> None:
    with running(root, plugin_env) as server, open_workspace(root) as ws:
        assert post(server, request("positive")).status == 200
        held, enough = threading.Event(), threading.Event()

        def hold() -> None:
            with ws.store.write():
                held.set()
                enough.wait(20)

        holding = threading.Thread(target=hold)
        holding.start()
        held.wait(20)
        try:
            for _ in range(5):
                assert (status(server.url, "live"), status(server.url, "ready")) == (200, 200)
                assert post(server, request("positive")).status == 200
        finally:
            enough.set()
            holding.join()


@pytest.mark.parametrize("needed", [False, True])
def test_whether_it_is_ready_without_a_disk_is_a_setting(root: Path, plugin_env: dict[str, str], needed: bool) -> None:
    with running(root, plugin_env, serve__ready_needs_disk=needed) as server:
        url, state = server.url, root / ".headrace"
        assert status(url, "ready") == 200
        time.sleep(1.1)  # it looks once a second
        state.rename(root / "gone")
        try:
            assert status(url, "live") == 200
            assert status(url, "ready") == (503 if needed else 200)
            answered = httpx.post(f"{url}/v1/predict", json=request("positive"), timeout=10, verify=False)
            assert answered.status_code == 200
        finally:
            (root / "gone").rename(state)
        eventually(lambda: status(url, "ready") == 200)
        assert not (state / "disk-probe").exists()


@pytest.mark.slow
def test_neither_changes_under_load_swaps_and_deadlines(root: Path, plugin_env: dict[str, str]) -> None:
    with open_workspace(root) as ws:
        plant_stub(ws, row_s=0.002)
    with running(root, plugin_env, serve__max_queue_rows=50) as server:
        flooding = [threading.Thread(target=_flood, args=(server,)) for _ in range(3)]
        for thread in flooding:
            thread.start()
        seen = set()
        with httpx.Client(base_url=f"{server.url}/v2/health", timeout=10, verify=False, trust_env=False) as client:
            until = time.monotonic() + 4
            while time.monotonic() < until:
                seen |= {(name, client.get(f"/{name}").status_code) for name in ("live", "ready")}
        for thread in flooding:
            thread.join()
    assert seen == {("live", 200), ("ready", 200)}


def _flood(server: Server) -> None:
    until = time.monotonic() + 4
    while time.monotonic() < until:
        with connect(server) as link:
            for n in range(20):
                extra = "X-Request-Timeout-Ms: 50\r\n" if n % 2 else ""
                link.sendall(raw_request(request(["positive"] * 10), extra=extra))
            while time.monotonic() < until and not link.recv(65536).endswith(b"}"):
                pass

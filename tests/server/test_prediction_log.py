"""The prediction log of a running server. Catches: a request that waits for the disk, rows that pile up, a dropped row
that is not counted or takes feedback without saying so, half a pair of a release, a log that cannot be switched off."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from headrace.client import Client
from headrace.errors import NotFound
from headrace.ids import first_id
from headrace.release import releases
from headrace.serve.pool import Answer
from headrace.server import prediction_log
from headrace.server.metrics import Metrics
from headrace.server.prediction_log import Moving, PredictionLog
from headrace.server.repeating import repeating
from headrace.store import predictions
from headrace.workspace import Workspace, open_workspace
from planted import plant_answer, plant_channel
from stub_model import Server, plant_stub, running

WAIT_S = 15


@pytest.fixture
def ws(root: Path) -> Iterator[Workspace]:
    with open_workspace(root) as opened:
        yield opened


def metric(server: Server, name: str) -> float:
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"{name} ")))


def n_logged(ws: Workspace) -> int:
    with ws.store.read() as conn:
        return predictions.count(conn)


def ask(client: Client, n: int = 1) -> list[str]:
    return [row["id"] for row in client.predict("tone", "web", ["positive"] * n)["predictions"]]


def test_a_store_that_is_busy_delays_no_answer_and_what_does_not_fit_is_said(
    root: Path, plugin_env: dict[str, str], ws: Workspace
) -> None:
    releases.promote(ws, "1", task="tone")
    releases.start(ws, candidate=plant_stub(ws, answer="positive"))
    with running(root, plugin_env, serve__log_queue_rows=20) as server, Client(server.url) as client:
        until = time.monotonic() + WAIT_S
        while len(client.models()) < 2:
            assert time.monotonic() < until
            time.sleep(0.02)
        assert ask(client)[0].startswith("prd_")
        ids: list[str] = []
        slowest_s = 0.0
        with ws.store.write():
            for _ in range(12):
                started_at = time.monotonic()
                ids += ask(client, 4)
                slowest_s = max(slowest_s, time.monotonic() - started_at)
        assert slowest_s < 1
        dropped = [one for one in ids if one.startswith("unlogged_")]
        assert 0 < len(dropped) < len(ids)
        assert metric(server, "headrace_dropped_log_rows_total") >= len(dropped)
        with pytest.raises(NotFound, match=r"not in the prediction log.*serve.log_queue_rows"):
            client.feedback(dropped[0], correction="negative")
        logged = [one for one in ids if one not in dropped]
        assert client.feedback(logged[-1], correction="negative")
        while metric(server, "headrace_log_queue_rows"):
            assert time.monotonic() < until
        assert ask(client)[0].startswith("prd_")
    with ws.store.read() as conn:
        rows = list(predictions.listing(conn))
    by_arm = {
        arm: {(row["request_id"], row["row"]) for row in rows if row["arm"] == arm} for arm in ("control", "shadow")
    }
    assert {row["id"] for row in rows} >= set(logged)
    assert not {row["id"] for row in rows} & set(dropped)
    assert by_arm["shadow"] <= by_arm["control"]


def test_the_log_can_be_off(root: Path, plugin_env: dict[str, str], ws: Workspace) -> None:
    with running(root, plugin_env, serve__log="false") as server, Client(server.url) as client:
        (one,) = ask(client)
        assert one.startswith("unlogged_")
        with pytest.raises(NotFound, match=r"serve\.log"):
            client.feedback(one, correction="negative")
        assert metric(server, "headrace_dropped_log_rows_total") == 0
    assert n_logged(ws) == 0


def test_rows_that_cannot_be_written_are_counted_and_told_of_once(
    ws: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = Metrics()
    log = PredictionLog(ws, metrics)
    channel, unknown = plant_channel(ws, "old"), replace(plant_stub(ws), id="ver_0")
    with log.writer:
        for n in range(3):
            ids, is_logged = log.add(
                request_id=f"req_{n}", task="tone", channel=channel, unit=None, version=unknown, arm="control",
                release_id=None, inputs=["a", ("b", "c")], answer=Answer("sha256:0", [{"output": {}}] * 2),
                latency_ms=1,
            )  # fmt: skip
            assert (len(ids), is_logged) == (2, True)
    assert "headrace_failed_writes_total 6.0" in metrics.text().decode()
    assert len(caplog.records) == 1
    assert n_logged(ws) == 0


def test_a_server_has_old_rows_moved(ws: Workspace) -> None:
    old, _ = plant_answer(ws, plant_channel(ws, "old"), plant_stub(ws), "positive")
    with ws.store.write() as conn:
        ancient = first_id("prediction", ws.clock().replace(year=2020))
        conn.exec_driver_sql(f"update predictions set id = '{ancient}' where id = '{old}'")
    with repeating("moving", Moving(ws).move, first_s=0.01, every_s=600):
        until = time.monotonic() + WAIT_S
        while n_logged(ws):
            assert time.monotonic() < until
            time.sleep(0.05)
    assert len(list((ws.state_folder / "predictions").glob("task=tone/day=2026-03-01/*"))) == 1


def test_a_server_that_stops_does_not_wait_for_a_move(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction_log.sys, "executable", "/bin/sleep")
    moving = Moving(ws)
    moving._command[1:] = ["60"]
    with repeating("moving", moving.move, first_s=0.01, every_s=600):
        time.sleep(0.3)
        stopped_at = time.monotonic()
    assert time.monotonic() - stopped_at < 2


def test_a_move_that_does_not_end_when_told_to_is_killed(
    ws: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction_log, "_TERMINATE_S", 0.1)
    moving, begun, stop = Moving(ws), tmp_path / "begun", threading.Event()
    moving._command = ["/bin/sh", "-c", f"trap '' TERM; touch {begun}; exec sleep 60"]
    thread = threading.Thread(target=moving.move, args=(stop,))
    thread.start()
    until = time.monotonic() + WAIT_S
    while not begun.exists():
        assert time.monotonic() < until
        time.sleep(0.02)
    stop.set()
    thread.join(WAIT_S)
    assert not thread.is_alive()


def test_a_move_that_finds_no_program_is_told(ws: Workspace, caplog: pytest.LogCaptureFixture) -> None:
    moving = Moving(ws)
    moving._command = ["/no/such/program"]
    moving.move(threading.Event())
    assert "old predictions could not be moved: [Errno 2]" in caplog.text

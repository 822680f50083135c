"""GET /v1/accuracy, GET /v1/drift and their gauges. Catches: another answer than the command line's, a task or channel
that is not there taken for an empty one, gauges of channels that are gone."""

import logging
import threading
from collections.abc import Iterator
from datetime import timedelta

import httpx
import pytest

from audited import Answer, plant_log
from headrace.feedback import accuracy, drift
from headrace.release import controls
from headrace.server.live_gauges import LiveGauges
from headrace.server.metrics import Metrics
from headrace.store import channels
from headrace.workspace import Workspace
from planted import plant_channel, plant_version
from stub_model import Server

RIGHT, WRONG = Answer("neutral", truth="neutral"), Answer("neutral", truth="positive")


@pytest.fixture(scope="module")
def http(served: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=20, trust_env=False) as connected:
        yield connected


def test_the_server_says_what_the_workspace_says(http: httpx.Client, served_workspace: Workspace) -> None:
    ws = served_workspace
    with ws.store.read() as conn:
        web = channels.find(conn, "web")
    assert web is not None
    version = controls.serving(ws, "tone").control
    plant_log(ws, web, version, [RIGHT] * 45 + [WRONG] * 5, start=ws.clock() - timedelta(days=8))
    here = accuracy.live(ws, "tone")
    found = http.get("/v1/accuracy", params={"task": "tone"}).json()
    assert here.overall is not None
    assert here.overall.accuracy is not None
    assert found["overall"]["accuracy"] == vars(here.overall.accuracy)
    assert found["channels"]["web"]["n_audits"] == 50
    assert http.get("/v1/accuracy", params={"task": "tone", "channel": "phone"}).json()["channels"] == {}
    assert http.get("/v1/drift", params={"task": "tone"}).json() == drift.standing(ws, "tone")
    assert http.get("/v1/accuracy", params={"task": "unborn"}).json()["overall"] is None


@pytest.mark.parametrize("path", ["/v1/accuracy", "/v1/drift"])
def test_a_task_that_is_not_there_and_one_that_is_not_clear(http: httpx.Client, path: str) -> None:
    missing = http.get(path, params={"task": "tome"})
    assert missing.status_code == 404
    assert "tone" in missing.json()["error"]["next_step"]
    unclear = http.get(path)
    assert unclear.status_code == 422
    assert unclear.json()["error"]["code"] == "bad_config"


def test_gauges_are_of_what_is_known_now(workspace: Workspace) -> None:
    metrics = Metrics()
    gauges = LiveGauges(workspace, metrics)
    gauges.look()
    assert b"live_accuracy{" not in metrics.text()
    version, web = plant_version(workspace), plant_channel(workspace, "web")
    controls.ensure_control(workspace)
    plant_log(workspace, web, version, [RIGHT] * 90 + [WRONG] * 10, start=workspace.clock() - timedelta(days=8))
    gauges.look()
    lines = metrics.text().decode()
    assert 'headrace_live_accuracy{channel="web",end="estimate",task="tone"} 0.9' in lines
    assert 'headrace_live_accuracy{channel="all",end="low",task="tone"}' in lines
    assert 'headrace_drift_alarms{channel="all",task="tone"} 0.0' in lines
    metrics.note_live({}, {})
    assert b"live_accuracy{" not in metrics.text()


def test_a_look_that_fails_is_told_and_the_next_one_goes_on(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise OSError("the disk is gone")

    gauges, stop = LiveGauges(workspace, Metrics()), threading.Event()
    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING, "headrace.server"):
        patched.setattr(accuracy, "live", fail)
        gauges.renew(stop)
        assert "live accuracy could not be looked at" in caplog.text
        assert "the disk is gone" in caplog.text
    caplog.clear()
    gauges.renew(stop)
    assert not caplog.records

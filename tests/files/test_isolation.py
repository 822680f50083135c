"""Processes without network (S6). Catches: a way out that the filter does not know, a process that reads models and
was not shut in, a job that needs another machine and was, a machine without the filter on which nothing works."""

import json
import logging
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace import isolation, jobs
from headrace.config import Settings
from headrace.export.artifact import ArtifactFacts, write_facts
from headrace.serve import frames
from headrace.workspace import Workspace

REFUSED = {"tcp": "PermissionError", "tcp6": "PermissionError", "child": "PermissionError", "this machine": "here"}
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the filter is Linux's")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.2)
        yield listening


@pytest.fixture(autouse=True)
def _found_by_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


def _n_calls(listening: socket.socket) -> int:
    n_calls = 0
    while True:
        try:
            listening.accept()[0].close()
        except TimeoutError:
            return n_calls
        n_calls += 1


def test_threads_that_were_there_before_are_shut_in_too(listener: socket.socket) -> None:
    code = (
        "import ctypes, json, sys, threading, calling_home; from headrace import isolation\n"
        "found, go, port = {}, threading.Event(), int(sys.argv[1])\n"
        "def late():\n    go.wait(); found['thread'] = calling_home.attempts(port)\n"
        "other = threading.Thread(target=late); other.start()\n"
        "assert isolation.leave_network(); go.set(); other.join()\n"
        "found['main'] = calling_home.attempts(port)\n"
        "found['ring'] = ctypes.CDLL(None).syscall(425, 8, 0); print(json.dumps(found))"
    )
    port = str(listener.getsockname()[1])
    said = subprocess.run([sys.executable, "-c", code, port], capture_output=True, check=True, timeout=60).stdout
    assert json.loads(said) == {"thread": REFUSED, "main": REFUSED, "ring": -1}
    assert _n_calls(listener) == 0


@pytest.mark.slow
@pytest.mark.parametrize("network", ["denied", "allowed"])
def test_a_job_reaches_nobody_unless_that_is_said(workspace: Workspace, listener: socket.socket, network: str) -> None:
    job = jobs.submit(
        workspace,
        "calling_home:job",
        {"port": listener.getsockname()[1]},
        overrides={"jobs.network": network},
    )
    found = jobs.wait(workspace, job.id)
    if network == "denied":
        assert found == {**REFUSED, "hub": "1"}
        assert _n_calls(listener) == 0
    else:
        assert found["tcp"] == found["child"] == "connected"
        assert _n_calls(listener) == 2


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_a_worker_makes_no_connection_whatever_it_loads(
    workspace: Workspace, listener: socket.socket, tmp_path: Path
) -> None:
    site = tmp_path / "site" / "caller-1.dist-info"
    site.mkdir(parents=True)
    (site / "METADATA").write_text("Metadata-Version: 2.1\nName: caller\nVersion: 1\n")
    (site / "entry_points.txt").write_text("[headrace.backends]\ncaller = calling_home:Backend\n")
    folder, log, trace = workspace.artifacts.new_folder(), tmp_path / "log", tmp_path / "trace"
    write_facts(folder, ArtifactFacts(backend="caller", precision="fp32", task=workspace.task("tone")))
    (folder / "calls.json").write_text(json.dumps({"port": listener.getsockname()[1], "log": str(log)}))
    digest, _ = workspace.artifacts.put(folder)
    command = [sys.executable, "-m", "headrace.serve.worker", "--batch-tokens", "64", "--threads", "1"]
    with subprocess.Popen(
        ["strace", "-f", "-o", str(trace), "-e", "trace=connect", *command, "--alive-every-s", "5"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": f"{site.parent}:{os.environ['PYTHONPATH']}"},
    ) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        load = {"kind": "load", "id": 1, "digest": digest, "folder": str(workspace.artifacts.get(digest))}
        frames.send(worker.stdin, load)
        while (said := frames.receive(worker.stdout)) is not None and "error" not in said:
            pass
        worker.stdin.close()
        assert worker.wait(20) is not None
    assert json.loads(log.read_text()) == REFUSED
    assert [line for line in trace.read_text().splitlines() if "AF_INET" in line] == []
    assert _n_calls(listener) == 0


@pytest.mark.parametrize(
    ("said", "may"),
    [
        ({}, False),
        ({"store": {"url": "sqlite:////x/y.db"}, "artifacts": {"url": "file:///x"}}, False),
        ({"store": {"url": "postgresql+psycopg://other/db"}}, True),
        ({"artifacts": {"url": "s3://bucket/x"}}, True),
        ({"finetune": {"tracker": "wandb"}}, True),
        ({"jobs": {"network": "allowed"}}, True),
    ],
)
def test_who_may_reach_others(said: dict[str, dict[str, str]], may: bool) -> None:
    assert isolation.may_reach_others(Settings.model_validate(said)) is may


@pytest.mark.parametrize("machine", ["riscv64", "refusing"])
def test_where_there_is_no_filter_it_says_so_and_goes_on(
    machine: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in isolation._OFFLINE:
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr(isolation.platform, "machine", lambda: machine)
    monkeypatch.setitem(isolation._MACHINES, "refusing", (0, 41, 10**6))  # no such call: as where it is forbidden
    monkeypatch.setattr(isolation, "_SET_NO_NEW_PRIVS", 39)  # asks for it only, or this process would keep it
    with caplog.at_level(logging.WARNING):
        assert isolation.leave_network() is False
    assert len(caplog.records) == 1
    assert "keeps its network" in caplog.text
    socket.socket().close()

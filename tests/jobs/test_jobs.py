"""Background work in real processes. Catches: a lost result, an error without its message, a dead process shown as
running, a cancel that does not end it, a job that dies with its parent."""

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from headrace import jobs
from headrace.errors import BadInput, Cancelled, JobFailed, NotFound, WrongState
from headrace.workspace import Workspace, init

pytestmark = pytest.mark.slow
HERE = "jobs_at_work"


@pytest.fixture
def ws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Workspace":
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    made = init(tmp_path, task="tone", labels=("a", "b"))
    yield made  # type: ignore[misc]
    made.close()


def _until(ws: Workspace, job_id: str, state: str) -> jobs.Progress | object:
    for job in jobs.follow(ws, job_id):
        if job.state == state and (state != "running" or job.progress):
            return job
    raise AssertionError(f"never {state}")


def test_result_and_progress_come_back(ws: Workspace) -> None:
    job = jobs.submit(ws, f"{HERE}:add", {"a": 2, "b": 3}, overrides={"finetune.epochs": "7"})
    seen = list(jobs.follow(ws, job.id))
    assert seen[-1].state == "done"
    assert seen[-1].result == {"sum": 5, "epochs": 7.0}
    assert jobs.wait(ws, job.id)["sum"] == 5


def test_a_users_error_keeps_its_class_and_words(ws: Workspace) -> None:
    job = jobs.submit(ws, f"{HERE}:refuse", {})
    with pytest.raises(BadInput, match=r"too odd: 7\. Use an even one"):
        jobs.wait(ws, job.id)


def test_an_unforeseen_error_names_the_log(ws: Workspace) -> None:
    job = jobs.submit(ws, f"{HERE}:break_", {})
    with pytest.raises(JobFailed, match="ZeroDivisionError") as caught:
        jobs.wait(ws, job.id)
    assert "Traceback" in Path(str(caught.value.value)).read_text()


def test_cancel_ends_it(ws: Workspace) -> None:
    job = jobs.submit(ws, f"{HERE}:forever", {})
    _until(ws, job.id, "running")
    assert jobs.cancel(ws, job.id).state == "cancelled"
    with pytest.raises(Cancelled):
        jobs.wait(ws, job.id)
    with pytest.raises(WrongState, match="is cancelled"):
        jobs.cancel(ws, job.id)


def test_a_killed_process_shows_as_interrupted(ws: Workspace) -> None:
    job = jobs.submit(ws, f"{HERE}:forever", {})
    running = _until(ws, job.id, "running")
    os.kill(running.pid, signal.SIGKILL)  # type: ignore[union-attr, arg-type]
    with pytest.raises(JobFailed, match="the job's process is gone"):
        jobs.wait(ws, job.id)


def test_a_job_that_never_got_a_process_shows_as_interrupted(ws: Workspace) -> None:
    """What a kill between queueing and starting leaves; waiting for it would never end."""
    code = (
        "import os, sys; from headrace import jobs; from headrace.workspace import open_workspace; "
        "jobs.local.subprocess.Popen = lambda *_a, **_k: os.kill(os.getpid(), 9); "
        f"jobs.submit(open_workspace(sys.argv[1]), '{HERE}:add', {{'a': 1, 'b': 1}})"
    )
    assert subprocess.run([sys.executable, "-c", code, str(ws.root)], check=False).returncode == -signal.SIGKILL
    assert jobs.find_running(ws, f"{HERE}:add", {"a": 1, "b": 1}) is None
    with pytest.raises(JobFailed, match="the job's process is gone"):
        jobs.wait(ws, jobs.listing(ws)[0].id)


def test_it_outlives_the_session_that_started_it(ws: Workspace) -> None:
    job = jobs.submit(ws, f"{HERE}:add", {"a": 1, "b": 1})
    running = next(j for j in jobs.follow(ws, job.id) if j.state != "queued")
    assert running.pid is None or os.getpgid(0) != running.pid
    until = time.monotonic() + 30
    while jobs.listing(ws)[0].state != "done":
        assert time.monotonic() < until
        time.sleep(0.1)


def test_an_unknown_job_is_named(ws: Workspace) -> None:
    with pytest.raises(NotFound, match="job_nope"):
        jobs.wait(ws, "job_nope")


def test_who_has_to_wait_says_so_and_gets_its_turn(ws: Workspace) -> None:
    said = []
    first = ExitStack()
    first.enter_context(jobs.only_one(ws, "run", jobs.Progress(ws, None)))

    class Watched(jobs.Progress):
        def report(self, step: str, done: float, total: float, **facts: object) -> None:
            said.append(step)
            first.close()

    with jobs.only_one(ws, "run", Watched(ws, None)):
        assert said == ["wait for another job"]

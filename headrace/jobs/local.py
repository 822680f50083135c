"""Jobs as detached processes of this machine, with their state in the store."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from headrace import isolation
from headrace.errors import Cancelled, HeadraceError, JobFailed, NotFound, WrongState, from_envelope
from headrace.ids import new_id
from headrace.records import Job
from headrace.registry import resolve
from headrace.store import jobs as rows
from headrace.workspace import Workspace, open_workspace

FINAL = ("done", "failed", "cancelled", "interrupted")
_REPORT_EVERY_S = 0.5
_POLL_S = 0.2
_KILL_AFTER_S = 20


class Progress:
    """What running work reports through, and asks whether to stop."""

    def __init__(self, ws: Workspace, job_id: str | None) -> None:
        self._ws, self._job_id = ws, job_id
        self._reported = 0.0
        self._stop = False

    def report(self, step: str, done: float, total: float, **facts: object) -> None:
        """Say how far `step` is; written at most twice a second.

        Raises:
            Cancelled: somebody cancelled the job.
        """
        if self._stop:
            raise Cancelled("the job was cancelled", value=self._job_id, next_step="Start it again to go on")
        now = time.monotonic()
        if self._job_id is None or (now - self._reported < _REPORT_EVERY_S and done < total):
            return
        self._reported = now
        shown = {"step": step, "done": done, "total": total, **facts}
        with self._ws.store.write(durable=False) as conn:
            rows.change(conn, self._job_id, progress=shown)

    def stop(self, *_: object) -> None:
        """Ask the work to end at its next report; the handler of SIGTERM."""
        self._stop = True


def submit(ws: Workspace, target: str, args: dict[str, Any], *, overrides: dict[str, Any] | None = None) -> Job:
    """Queue `"module:function"(ws, progress, **args)` and start a process for it that outlives this one."""
    job_id = new_id("job")
    log_path = ws.state_folder / "logs" / f"{job_id}.log"
    log_path.parent.mkdir(exist_ok=True)
    job = Job(
        id=job_id,
        target=target,
        args={"args": args, "overrides": overrides or {}},
        state="queued",
        pid=os.getpid(),  # until the job's own process is there, so that a job which never got one shows
        progress={},
        result=None,
        error=None,
        log_path=str(log_path),
        created_at=ws.clock(),
    )
    with ws.store.write() as conn:
        rows.add(conn, job, pid_started=_started(os.getpid()), config_hash=ws.config_hash)
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "headrace.jobs.process", str(ws.root), job_id],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # closing the terminal does not end it
        )
    with ws.store.write() as conn:
        rows.change(conn, job_id, only_if=("queued",), pid=process.pid, pid_started=_started(process.pid))
    threading.Thread(target=process.wait, daemon=True).start()  # or it stays a zombie for as long as this one lives
    return job


@contextmanager
def only_one(ws: Workspace, name: str, progress: Progress) -> Iterator[None]:
    """Wait until no other job is inside for this name; a job that is killed is inside no longer."""
    folder = ws.state_folder / "locks"
    folder.mkdir(exist_ok=True)
    lock = FileLock(folder / f"{name}.lock")
    while not lock.is_locked:
        try:
            lock.acquire(timeout=_POLL_S)
        except Timeout:
            progress.report("wait for another job", 0, 1)
    try:
        yield
    finally:
        lock.release()


def run_here(root: Path, job_id: str) -> int:
    """Run a queued job in this process; the exit status is 0 when it is done. The job runner's border for errors."""
    with open_workspace(root) as plain, plain.store.write() as conn:
        now = plain.clock()
        if not rows.claim(conn, job_id, pid=os.getpid(), pid_started=_started(os.getpid()) or 0.0, now=now):
            return 1
        job = rows.find(conn, job_id)
    assert job is not None
    with open_workspace(root, overrides=job.args["overrides"]) as ws:
        if not isolation.may_reach_others(ws.settings):
            isolation.leave_network()
        progress = Progress(ws, job_id)
        signal.signal(signal.SIGTERM, progress.stop)
        changes: dict[str, Any]
        try:
            result = resolve(job.target)(ws, progress, **job.args["args"])
            changes = {"state": "done", "result": result}
        except Cancelled as error:
            changes = {"state": "cancelled", "error": error.envelope()["error"]}
        except HeadraceError as error:
            changes = {"state": "failed", "error": error.envelope()["error"]}
        except Exception as error:
            _finish(ws, job_id, {"state": "failed", "error": _unforeseen(error, job.log_path)})
            raise
        _finish(ws, job_id, changes)
        return 0 if changes["state"] == "done" else 1


def follow(ws: Workspace, job_id: str) -> Iterator[Job]:
    """Yield the job each time it changed, until it is over. `state` may be `interrupted`."""
    seen: Job | None = None
    while True:
        job = _look(ws, job_id)
        if job != seen:
            yield job
            seen = job
        if job.state in FINAL:
            return
        time.sleep(_POLL_S)


def wait(ws: Workspace, job_id: str) -> dict[str, Any]:
    """Wait for the job's result.

    Raises:
        JobFailed: it ended with an error, which the message has.
        Cancelled: it was cancelled.
    """
    *_, job = follow(ws, job_id)
    return result_of(job)


def result_of(job: Job) -> dict[str, Any]:
    """The result of a finished job, or its error raised."""
    if job.state == "done":
        return job.result or {}
    if job.state == "cancelled":
        raise Cancelled("the job was cancelled", value=job.id, next_step="Run the same command to go on")
    if job.state == "interrupted":
        raise JobFailed(
            "the job's process is gone",
            value=job.id,
            next_step="Run the same command to go on; if the system ended it for want of memory, with smaller batches "
            "(finetune.batch_tokens)",
        )
    raise from_envelope({"error": job.error})


def cancel(ws: Workspace, job_id: str) -> Job:
    """Stop a job: at its next report, or by force after 20 s.

    Raises:
        WrongState: it is over already.
    """
    with ws.store.write() as conn:
        if rows.change(conn, job_id, only_if=("queued",), state="cancelled", finished_at=ws.clock()):
            return _look(ws, job_id)
    job = _look(ws, job_id)
    if job.state in FINAL:
        raise WrongState("the job is over", value=f"{job_id} is {job.state}")
    _signal(job.pid, signal.SIGTERM)
    until = time.monotonic() + _KILL_AFTER_S
    while (job := _look(ws, job_id)).state not in FINAL:
        if time.monotonic() > until:
            _signal(job.pid, signal.SIGKILL)
            _finish(ws, job_id, {"state": "cancelled"})
        time.sleep(_POLL_S)
    return job


def listing(ws: Workspace) -> list[Job]:
    """All jobs, newest first, each with its true state."""
    with ws.store.read() as conn:
        found = rows.listing(conn)
    return [_look(ws, job.id) for job in found]


def find_running(ws: Workspace, target: str, args: dict[str, Any]) -> Job | None:
    """A live job that does exactly this work."""
    for job in listing(ws):
        if job.target == target and job.args["args"] == args and job.state in ("queued", "running"):
            return job
    return None


def _look(ws: Workspace, job_id: str) -> Job:
    """A job with its true state."""
    job, pid, started = _read(ws, job_id)
    if job.state in ("queued", "running") and not _is_alive(pid, started):
        job, *_ = _read(ws, job_id)  # its last words, if it ended just now
        if job.state in ("queued", "running"):
            return Job(**{**vars(job), "state": "interrupted"})
    return job


def _read(ws: Workspace, job_id: str) -> tuple[Job, int | None, float | None]:
    with ws.store.read() as conn:
        job = rows.find(conn, job_id)
        pid, started = rows.process_of(conn, job_id)
    if job is None:
        raise NotFound("no such job", value=job_id, next_step="`headrace job list` names them")
    return job, pid, started


def _finish(ws: Workspace, job_id: str, changes: dict[str, Any]) -> None:
    with ws.store.write() as conn:
        rows.change(conn, job_id, only_if=("running",), finished_at=ws.clock(), **changes)


def _unforeseen(error: Exception, log_path: str) -> dict[str, Any]:
    return {
        "code": JobFailed.code,
        "message": f"{type(error).__name__}: {error}",
        "value": log_path,
        "next_step": "The log has the traceback",
    }


def _signal(pid: int | None, number: int) -> None:
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _is_alive(pid: int | None, started: float | None) -> bool:
    """Whether the process that a job names is there; a reused number is another process."""
    return pid is not None and started is not None and _started(pid) == started


def _started(pid: int) -> float | None:
    """When a process began, in the kernel's own ticks; None when it is gone. Tells a reused number from the old one."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None

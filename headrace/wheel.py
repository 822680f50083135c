"""The wheel, unattended: collect what came back, make a new version when one is due, try it, decide, and again.

A turn is a row of steps, each of which can be killed and done again:

    collect -> review -> watch -> decide on what is tried -> make and try a new version, if one is due

Labels, decisions and releases are each one transaction, and a training goes on as the job that it is. What is left is a
version that was made and not tried when the process died: its labels are not new any more, so nothing would be due.
That something was due is therefore written down before, in a file beside the lock, and forgotten when it is done.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from headrace import loop, reviewing, trusting, watching
from headrace.errors import HeadraceError, WrongState
from headrace.feedback import triggers
from headrace.records import Release
from headrace.release import controls, releases
from headrace.releasing import judging
from headrace.workspace import Workspace

INTERVAL_S = 300.0
_ACTOR = "loop"
_WAITS = ("hold", "advance", "wait")  # steps after which a turn has nothing to do
_MOST_TIMES = 16  # as long between turns as usual, after failures in a row
Report = Callable[..., None]


def silent(*_args: object, **_facts: object) -> None:
    """A report to nobody."""


@dataclass(frozen=True)
class Step:
    """What was done, or why nothing was."""

    at: datetime
    task: str
    step: str
    """collect, review, watch, due, wait, error; a verdict on what is tried; or what `improve` says that it did."""
    said: str
    """In one line."""
    facts: dict[str, Any] = field(default_factory=dict)


def run(
    ws: Workspace,
    task: str | None = None,
    *,
    once: bool = False,
    interval_s: float = INTERVAL_S,
    stop: threading.Event | None = None,
    report: Report = silent,
) -> Iterator[Step]:
    """Turn the wheel of a task again and again; each step as it is done. One process a task.

    A turn that fails is told of and tried again, later and later; with `once` its error is raised.

    Args:
        once: one turn.
        interval_s: from the beginning of a turn to that of the next; one that takes longer skips the next.
        stop: ends it between two steps when set.

    Raises:
        WrongState: another process is at it.
        NotFound: no such task.
    """
    name, stop = ws.task_name(task), stop or threading.Event()
    with _only_one(ws, name):
        begins_at, n_failed = time.monotonic(), 0
        while not stop.is_set():
            try:
                yield from _turn(ws, name, stop, report)
                n_failed = 0
            except HeadraceError as error:
                if once:
                    raise
                n_failed += 1
                yield _step(ws, name, "error", str(error), {"code": error.code})
            if once:
                return
            begins_at = _next(begins_at, interval_s * min(2**n_failed, _MOST_TIMES), time.monotonic())
            stop.wait(begins_at - time.monotonic())


def _next(begun_at: float, interval_s: float, now: float) -> float:
    """When the next turn begins: whole intervals after this one, and not in the past."""
    return begun_at + interval_s * max(1, -(-(now - begun_at) // interval_s))


def _turn(ws: Workspace, task: str, stop: threading.Event, report: Report) -> Iterator[Step]:
    for do in (_collect, _review, _watch, _decide, _improve):
        if stop.is_set():
            return
        for step in do(ws, task, report):
            yield step
            if stop.is_set() or step.step in _WAITS:
                return


def _collect(ws: Workspace, task: str, _report: Report) -> Iterator[Step]:
    n_used, suspended = trusting.collect(ws, task=task)
    said = f"{n_used:,} corrections became labels"
    if suspended:
        said += f"; {len(suspended)} sources were suspended: {suspended[0].reason}"
    yield _step(ws, task, "collect", said, {"n_labels": n_used, "suspended": [one.id for one in suspended]})


def _review(ws: Workspace, task: str, report: Report) -> Iterator[Step]:
    filled = reviewing.fill(ws, task, report=report)
    opened = {name: n for name, n in vars(filled).items() if n}
    said = ", ".join(f"{n:,} {name.removeprefix('n_').replace('_', ' ')}" for name, n in opened.items())
    yield _step(ws, task, "review", f"reviews opened: {said or 'none'}", opened)


def _watch(ws: Workspace, task: str, _report: Report) -> Iterator[Step]:
    watched = watching.watch(ws, task)
    said = "; ".join(alarm.in_words for alarm in watched.alarms) or "no new drift"
    left_out = f" (without {watched.left_out})" if watched.left_out else ""
    yield _step(ws, task, "watch", said + left_out, {"alarms": [alarm.id for alarm in watched.alarms]})


def _decide(ws: Workspace, task: str, report: Report) -> Iterator[Step]:
    """Carry out what the policy says of the open release, if there is one."""
    release = controls.serving(ws, task).release
    if release is None:
        return
    decision = judging.decision_of(ws, release)
    written = judging.carry_out(ws, release, decision, actor=_ACTOR)
    facts = {"release": release.id, "verdict": decision.verdict, "ledger": [line.id for line in written]}
    if controls.serving(ws, task).release is None:
        yield _step(ws, task, decision.verdict, decision.reason, facts)
    elif (why := _gives_way(ws, task, release, report)) is not None:
        line = releases.stop(ws, task=task, reason=why, actor=_ACTOR)
        yield _step(ws, task, "stop", why, facts | {"ledger": [line.id]})
    else:
        said = f"{release.policy} goes on: {decision.reason}"
        yield _step(ws, task, "advance" if written else "hold", said, facts)


def _gives_way(ws: Workspace, task: str, release: Release, report: Report) -> str | None:
    """Why a release that is not decided ends; None where it goes on."""
    most = ws.settings.release.max_days
    if not most or ws.clock() - release.started_at < timedelta(days=most):
        return None
    due = _due(ws, task, report)
    if not due.fires:
        return None
    return f"undecided after {most:g} days (release.max_days), and a newer version is due: {due.reason}"


def _due(ws: Workspace, task: str, report: Report) -> triggers.Trigger:
    return triggers.judge(trusting.trigger_facts(ws, task=task, report=report), ws.settings.feedback)


def _improve(ws: Workspace, task: str, report: Report) -> Iterator[Step]:
    """Make and try a new version, if one is due or was when a process died."""
    note = _folder(ws) / f"loop-{task}.due"
    due = _due(ws, task, report)
    if due.fires:
        why = f"a new version is due: {due.reason}"
    elif note.exists():
        why = "goes on with what was begun"
    else:
        yield _step(ws, task, "wait", due.reason)
        return
    yield _step(ws, task, "due", why, {"kind": due.kind})
    _write(note, {"why": why})
    least = None if due.kind == "labels" else 1  # age, drift and what was begun ask for a version of fewer
    result = loop.improve(ws, task=task, min_new_labels=least, report=report)
    note.unlink(missing_ok=True)
    yield _step(ws, task, result["step"], _in_words(result), _facts_of(result))


def _in_words(result: dict[str, Any]) -> str:
    """What a step of `improve` did."""
    if result["step"] == "waiting":
        return str(result.get("reason") or f"{result['n_new_labels']} new labels in the snapshot")
    if result["step"] == "gate":
        failed = [gate["reason"] for gate in result["gates"] if not gate["passed"]]
        return f"{result['candidate']} meets no traffic: {failed[0]}"
    if result["step"] == "decision":
        return f"{result['candidate']}: {result['verdict']}. {result['reason']}"
    return f"{result['candidate']} is tried beside {result['control']}"


def _facts_of(result: dict[str, Any]) -> dict[str, Any]:
    return {name: result[name] for name in ("candidate", "control", "release", "scope", "feedback") if name in result}


def _step(ws: Workspace, task: str, step: str, said: str, facts: dict[str, Any] | None = None) -> Step:
    return Step(ws.clock(), task, step, said, facts or {})


def _folder(ws: Workspace) -> Path:
    folder = ws.state_folder / "locks"
    folder.mkdir(exist_ok=True)
    return folder


@contextmanager
def _only_one(ws: Workspace, task: str) -> Iterator[None]:
    """Be the only process that runs the loop of a task; the lock of one that died is free."""
    lock = FileLock(_folder(ws) / f"loop-{task}.lock", thread_local=False)
    holder = _folder(ws) / f"loop-{task}.json"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise WrongState(
            "another process runs the loop of this task", value=_held_by(holder), next_step="Leave it to it, or end it"
        ) from None
    try:
        _write(holder, {"pid": os.getpid(), "host": socket.gethostname(), "since": ws.clock().isoformat()})
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _held_by(path: Path) -> str:
    try:
        facts = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):  # it is just beginning, or ending
        return "not known"
    return f"process {facts['pid']} on {facts['host']}, since {facts['since'][:19]}"


def _write(path: Path, facts: dict[str, Any]) -> None:
    """Whole or not at all."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(facts), "utf-8")
    os.replace(draft, path)

"""The worker process as the control plane sees it: start, ask, time out, restart, stop.

States of the worker: starting -> ready -> gone -> (back-off) -> starting ... -> closed. Calls that were under way when
it went get `Unavailable`; models that were wanted are loaded again when it is back. Answers come as
`concurrent.futures.Future`s, so that callers need no threads of their own.
"""

import itertools
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace.config import ServeTable
from headrace.errors import Damaged, HeadraceError, NotFound, Unavailable
from headrace.records import Input
from headrace.serve import frames
from headrace.serve.frames import Message

_log = logging.getLogger("headrace.pool")

_LOAD_TIMEOUT_S = 120.0
_CLOSE_TIMEOUT_S = 5.0
_TICK_S = 0.05
_BACK_OFF_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_HEALTHY_AFTER_S = 30.0  # a worker that lived this long starts its back-off anew
_BACKGROUND_SHARE = 0.5  # of the queue: what background rows may fill, so that they never crowd out a user

RETRY_AFTER_S = 1
"""What a client is told to wait after `Unavailable`."""


@dataclass(frozen=True)
class Answer:
    """What a model said to the inputs of one request, in their order.

    `digest` is that of the artifact whose weights answered. A row is `{"output": {...}}` or `{"error": {...}}`.
    """

    digest: str
    rows: list[dict[str, Any]]


@dataclass(eq=False)
class _Call:
    """A message that waits for its answer."""

    number: int
    n_rows: int
    deadline: float
    sent_at: float
    done: "Future[Message]" = field(default_factory=Future)

    def __post_init__(self) -> None:
        self.done.set_running_or_notify_cancel()  # from here on nobody can cancel it under our hands


@dataclass(eq=False)
class _Model:
    folder: Path
    loaded: bool = False


class Pool:
    """One worker process. Use as a context manager; leaving stops the process."""

    def __init__(self, settings: ServeTable) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._calls: dict[int, _Call] = {}
        self._models: dict[str, _Model] = {}
        self._numbers = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._outbox: queue.Queue[Message | None] | None = None
        self._is_ready = threading.Event()
        self._closing = threading.Event()
        self._heard_at = 0.0
        self.n_starts = 0
        """How often a worker process was started."""
        self._threads = [
            threading.Thread(target=self._supervise, name="headrace-pool", daemon=True),
            threading.Thread(target=self._watch_deadlines, name="headrace-pool-clock", daemon=True),
        ]

    def __enter__(self) -> "Pool":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._post(None)
        process = self._process
        if process is not None:
            try:
                process.wait(_CLOSE_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
        for thread in self._threads:
            thread.join()
        self._is_ready.set()  # who waits to load learns that there is nobody left

    @property
    def pid(self) -> int | None:
        """Process id of the worker; None while there is none."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    @property
    def n_waiting(self) -> int:
        """Rows sent and not yet answered."""
        with self._lock:
            return sum(call.n_rows for call in self._calls.values())

    def is_loaded(self, digest: str) -> bool:
        model = self._models.get(digest)
        return model is not None and model.loaded

    def load(self, digest: str, folder: Path) -> None:
        """Have the worker hold an artifact, also after a restart. Waits until it does.

        Raises:
            Damaged: the worker cannot load it.
            Unavailable: the worker went away meanwhile or took too long; it tries again when it is back.
        """
        if not self._is_ready.wait(_LOAD_TIMEOUT_S):
            raise _unavailable("the worker does not start")
        with self._lock:
            model = self._models.setdefault(digest, _Model(folder))
        try:
            self._load(digest, model)
        except Damaged:
            self._models.pop(digest, None)
            raise

    def unload(self, digest: str) -> None:
        """Let go of an artifact; inputs that wait for it are still answered."""
        with self._lock:
            self._models.pop(digest, None)
        self._post({"kind": "unload", "digest": digest})

    def predict(self, digest: str, inputs: Sequence[Input], *, background: bool = False) -> "Future[Answer]":
        """Ask a loaded model; the future ends within `serve.timeout_s`, with an `Answer` or with `Unavailable`.

        Args:
            background: nobody waits for it: it goes when nothing else does, and fills at most half of the queue.

        Raises:
            Unavailable: the model is not loaded at this moment, or the queue is full.
        """
        if not self.is_loaded(digest):
            raise _unavailable("the worker is starting or has not loaded this model", digest)
        limit = self._settings.max_queue_rows * (_BACKGROUND_SHARE if background else 1)
        with self._lock:
            n_waiting = sum(call.n_rows for call in self._calls.values())
            if n_waiting and n_waiting + len(inputs) > limit:
                raise _unavailable("too many rows wait for an answer", n_waiting)
            call = self._new_call(len(inputs), self._settings.timeout_s)
        message = {"kind": "predict", "id": call.number, "digest": digest, "inputs": list(inputs)}
        answer: Future[Answer] = Future()
        answer.set_running_or_notify_cancel()
        call.done.add_done_callback(lambda done: _hand_over(done, answer))
        self._post({**message, "background": background}, call)
        return answer

    def _load(self, digest: str, model: _Model) -> None:
        with self._lock:
            call = self._new_call(0, _LOAD_TIMEOUT_S)
        self._post({"kind": "load", "id": call.number, "digest": digest, "folder": str(model.folder)}, call)
        call.done.result()
        model.loaded = True

    def _new_call(self, n_rows: int, timeout_s: float) -> _Call:
        now = time.monotonic()
        call = _Call(next(self._numbers), n_rows, deadline=now + timeout_s, sent_at=now)
        self._calls[call.number] = call
        return call

    def _post(self, message: Message | None, call: _Call | None = None) -> None:
        """Put a message on its way to the worker; never waits for the worker. None closes its input."""
        outbox = self._outbox
        if outbox is not None:
            outbox.put(message)
        elif call is not None and self._claim(call.number):
            call.done.set_exception(_unavailable("the worker is restarting"))

    def _claim(self, number: int) -> _Call | None:
        """Take a call out of those that wait; only who gets it may end it."""
        with self._lock:
            return self._calls.pop(number, None)

    def _supervise(self) -> None:
        """Keep a worker alive until the pool closes."""
        n_short_lives = 0
        while not self._closing.is_set():
            started_at = time.monotonic()
            status = self._live_once()
            if self._closing.is_set():
                break
            n_short_lives = 0 if time.monotonic() - started_at > _HEALTHY_AFTER_S else n_short_lives + 1
            pause_s = _BACK_OFF_S[min(n_short_lives, len(_BACK_OFF_S)) - 1] if n_short_lives else 0.0
            _log.warning("the worker ended with status %s; a new one starts in %s s", status, pause_s)
            self._closing.wait(pause_s)
        self._fail_all("the server is shutting down")

    def _live_once(self) -> int | str:
        try:
            return self._live()
        except OSError as error:  # no process to be had: as if it had died at once
            return str(error)

    def _live(self) -> int:
        """One life of the worker, from start to end; its exit status."""
        command = [sys.executable, "-m", "headrace.serve.worker"]
        command += ["--batch-tokens", str(self._settings.batch_tokens), "--threads", str(self._settings.n_threads)]
        # A session of its own: Ctrl-C in the server's terminal must not end it before the server is done.
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        outbox: queue.Queue[Message | None] = queue.Queue()
        self._process, self._outbox, self.n_starts = process, outbox, self.n_starts + 1
        if self._closing.is_set():
            outbox.put(None)
        sender = threading.Thread(target=_send_all, args=(process, outbox), name="headrace-pool-sender", daemon=True)
        sender.start()
        threading.Thread(target=_end_group, args=(process.pid,), name="headrace-pool-end", daemon=True).start()
        self._listen(process)
        self._is_ready.clear()
        self._outbox = None
        for model in list(self._models.values()):
            model.loaded = False
        process.kill()  # its output is closed: it is dead or as good as dead
        status = process.wait()
        outbox.put(None)
        sender.join()
        self._fail_all("the worker ended before it answered")
        return status

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout as stream:
            while (message := frames.receive(stream)) is not None:
                self._heard_at = time.monotonic()
                if message.get("kind") == "ready":
                    threading.Thread(target=self._greet, name="headrace-pool-greet", daemon=True).start()
                elif message.get("kind") != "alive" and (call := self._claim(message["id"])):
                    _end(call, message)

    def _greet(self) -> None:
        """A fresh worker: give it back the models that its predecessor held."""
        for digest, model in list(self._models.items()):
            try:
                self._load(digest, model)
            except HeadraceError as error:
                _log.warning("artifact %s is not served: %s", digest, error)
        self._is_ready.set()

    def _watch_deadlines(self) -> None:
        """End calls whose time is over; a worker that said nothing all that time hangs and is replaced."""
        while not self._closing.wait(_TICK_S):
            now = time.monotonic()
            with self._lock:
                late = [call for call in self._calls.values() if call.deadline < now]
            process = self._process
            for call in late:
                if self._claim(call.number):
                    self._post({"kind": "drop", "id": call.number})
                    call.done.set_exception(_unavailable("no answer in time", f"{call.deadline - call.sent_at} s"))
            if process is not None and any(self._heard_at < call.sent_at for call in late):
                _log.warning("the worker hangs and is replaced")
                process.kill()

    def _fail_all(self, problem: str) -> None:
        with self._lock:
            numbers = list(self._calls)
        for number in numbers:
            if call := self._claim(number):
                call.done.set_exception(_unavailable(problem))


def _send_all(process: subprocess.Popen[bytes], outbox: "queue.Queue[Message | None]") -> None:
    """Write messages to the worker until None comes or the worker is gone; its end is noticed by who reads."""
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        while (message := outbox.get()) is not None:
            frames.send(process.stdin, message)
    with suppress(BrokenPipeError):
        process.stdin.close()


def _end_group(pid: int) -> None:
    """When the worker is gone, end what a library may have forked off it: that would hold the pipe we listen to."""
    with suppress(ChildProcessError):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # not reaped, so that its number is nobody else's yet
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _end(call: _Call, message: Message) -> None:
    if "error" in message:
        call.done.set_exception(_error_from(message["error"]))
    else:
        call.done.set_result(message)


def _hand_over(done: "Future[Message]", answer: "Future[Answer]") -> None:
    error = done.exception()
    if error is not None:
        answer.set_exception(error)
    else:
        message = done.result()
        answer.set_result(Answer(message["digest"], message["rows"]))


def _error_from(error: Message) -> HeadraceError:
    """What the worker said of a whole message: the model is missing, damaged or in need of something."""
    kind = Unavailable if error["code"] == NotFound.code else Damaged
    return kind(error["message"], value=error["value"], next_step=error["next_step"])


def _unavailable(problem: str, value: object = None) -> Unavailable:
    return Unavailable(problem, value=value, next_step=f"Try again in {RETRY_AFTER_S} s")

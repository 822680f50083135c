"""One worker process as the pool sees it: start, ask, time out, restart, stop.

States: starting -> ready -> gone -> (back-off) -> starting ... -> closed. Calls that were under way when it went get
`Unavailable`; what it was to hold is loaded again when it is back. Answers come as `concurrent.futures.Future`s, so
that callers need no threads of their own.
"""

import itertools
import logging
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from headrace.errors import Damaged, HeadraceError, NotFound, TooLate, Unavailable
from headrace.serve import frames
from headrace.serve.frames import Message

_log = logging.getLogger("headrace.pool")

LOAD_TIMEOUT_S = 120.0
_CLOSE_TIMEOUT_S = 5.0
_TICK_S = 0.05
_MAX_SENT = 64  # messages that go to the worker at once
_BACK_OFF_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_HEALTHY_AFTER_S = 30.0  # a worker that lived this long starts its back-off anew

RETRY_AFTER_S = 1
"""What a client is told to wait after `Unavailable`."""

Key = tuple[str, str | None]
"""What a worker can hold: an artifact, or one adapter of it."""


@dataclass(eq=False)
class Call:
    """A message that waits for its answer. Times are on the monotonic clock."""

    number: int
    n_rows: int
    deadline: float
    sent_at: float
    done: "Future[Message]" = field(default_factory=Future)

    def __post_init__(self) -> None:
        self.done.set_running_or_notify_cancel()  # from here on nobody can cancel it under our hands


class WorkerProcess:
    """A process that is kept alive from `start` to `stop`."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        silence_s: float,
        on_batches: Callable[[list[Message]], None],
    ) -> None:
        """
        Args:
            command: what runs it, with `environment` beside that of this process.
            silence_s: a worker that was asked and says nothing for so long hangs, and is replaced.
            on_batches: told the figures of batches; called in a thread of this object.
        """
        self._command, self._environment = list(command), {**os.environ, **environment}
        self._silence_s, self._on_batches = silence_s, on_batches
        self._lock = threading.Lock()
        self._calls: dict[int, Call] = {}
        self._wanted: dict[Key, Path] = {}
        self._first: frozenset[str] = frozenset()
        self._loaded: set[Key] = set()
        self._numbers = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._outbox: queue.SimpleQueue[Message | None] | None = None
        self._is_ready = threading.Event()
        self._closing = threading.Event()
        self._owes_since: float | None = None
        """When it was asked first since it was heard last."""
        self.n_rows = 0
        """Rows sent and not yet answered."""
        self.n_starts = 0
        self.n_artifact_loads = self.n_adapter_loads = 0
        """How often it was told to load one; an artifact is compiled each time, an adapter is not."""
        self.n_expired_rows = 0
        """Rows whose deadline passed before their answer came."""
        self._threads = [
            threading.Thread(target=self._supervise, name="headrace-pool", daemon=True),
            threading.Thread(target=self._watch_clock, name="headrace-pool-clock", daemon=True),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the process. What waits gets `Unavailable`."""
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
        """Process id; None while there is none."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def is_loaded(self, digest: str, adapter: str | None = None) -> bool:
        return (digest, adapter) in self._loaded

    def wait_until_ready(self, timeout_s: float) -> bool:
        """Whether it has started, and holds again what it held before."""
        return self._is_ready.wait(timeout_s)

    def remember(self, digest: str, folder: Path, adapter: str | None = None) -> None:
        """Have it hold an artifact, or an adapter of one, whenever it starts."""
        with self._lock:
            self._wanted.setdefault((digest, adapter), folder)

    def put_first(self, digests: Iterable[str]) -> None:
        """Which artifacts somebody waits for, when it starts again: they and their adapters are loaded first."""
        self._first = frozenset(digests)

    def want(self, digest: str, folder: Path, adapter: str | None = None) -> Call:
        """Have it hold an artifact, or an adapter of one, from now on and after a restart; see `held`."""
        self.remember(digest, folder, adapter)
        return self._ask_to_load((digest, adapter), folder)

    def held(self, call: Call, digest: str, adapter: str | None = None) -> None:
        """Wait until it holds what `want` asked for.

        Raises:
            Damaged: it cannot be loaded, and is not wanted any more.
            Unavailable: the process went away meanwhile or took too long; it tries again when it is back.
        """
        try:
            call.done.result()
        except Damaged:
            self._wanted.pop((digest, adapter), None)
            raise
        self._loaded.add((digest, adapter))

    def let_go(self, digest: str, adapter: str | None = None) -> None:
        """Forget an artifact with its adapters, or one adapter; inputs that wait for it are still answered."""
        with self._lock:
            for key in [key for key in self._wanted if key[0] == digest and adapter in (None, key[1])]:
                del self._wanted[key]
                self._loaded.discard(key)
        if adapter is None:
            self._post({"kind": "unload", "digest": digest})
        else:
            self._post({"kind": "unload_adapter", "digest": digest, "adapter": adapter})

    def ask(self, message: Message, *, n_rows: int, deadline: float) -> Call:
        """Send `predict` without its id and its time; the call ends at its deadline at the latest."""
        call = self._new_call(n_rows, deadline)
        self._post({**message, "kind": "predict", "id": call.number}, call)
        return call

    def drop(self, call: Call) -> None:
        """Nobody waits for a call any more: what is left of it is not done."""
        if self._claim(call.number):
            self._post({"kind": "drop", "id": call.number})
            call.done.set_exception(unavailable("nobody waits for the answer"))

    def _ask_to_load(self, key: Key, folder: Path) -> Call:
        digest, adapter = key
        call = self._new_call(0, time.monotonic() + LOAD_TIMEOUT_S)
        message: Message = {"kind": "load", "id": call.number, "digest": digest, "folder": str(folder)}
        if adapter is None:
            self.n_artifact_loads += 1
        else:
            self.n_adapter_loads += 1
            message |= {"kind": "load_adapter", "adapter": adapter}
        self._post(message, call)
        return call

    def _new_call(self, n_rows: int, deadline: float) -> Call:
        call = Call(next(self._numbers), n_rows, deadline, sent_at=time.monotonic())
        with self._lock:
            self._calls[call.number] = call
            self.n_rows += n_rows
            if n_rows and self._owes_since is None:
                self._owes_since = call.sent_at
        return call

    def _post(self, message: Message | None, call: Call | None = None) -> None:
        """Put a message on its way to the worker; never waits for the worker. None closes its input."""
        outbox = self._outbox
        if outbox is not None:
            if call is not None and message is not None:
                message["deadline"] = call.deadline
            outbox.put(message)
        elif call is not None and self._claim(call.number):
            call.done.set_exception(unavailable("the worker is restarting"))

    def _claim(self, number: int) -> Call | None:
        """Take a call out of those that wait; only who gets it may end it."""
        with self._lock:
            call = self._calls.pop(number, None)
            if call is not None:
                self.n_rows -= call.n_rows
            return call

    def _supervise(self) -> None:
        """Keep a process alive until `stop`."""
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
        """One life of the process, from start to end; its exit status."""
        # A session of its own: Ctrl-C in the server's terminal must not end it before the server is done.
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            self._command, stdin=pipe, stdout=pipe, env=self._environment, start_new_session=True
        )
        outbox: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._owes_since = None
        self._process, self._outbox, self.n_starts = process, outbox, self.n_starts + 1
        if self._closing.is_set():
            outbox.put(None)
        sender = threading.Thread(target=_send_all, args=(process, outbox), name="headrace-pool-sender", daemon=True)
        sender.start()
        threading.Thread(target=_end_group, args=(process.pid,), name="headrace-pool-end", daemon=True).start()
        self._listen(process)
        self._is_ready.clear()
        self._outbox = None
        self._loaded.clear()
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
                self._owes_since = None
                if batches := message.get("batches"):
                    self._on_batches(batches)
                if message.get("kind") == "ready":
                    threading.Thread(target=self._greet, name="headrace-pool-greet", daemon=True).start()
                elif message.get("kind") != "alive" and (call := self._claim(message["id"])):
                    _end(call, message)

    def _greet(self) -> None:
        """A fresh process: give it back what its predecessor held, one by one, so that the first has all cores."""
        for key, folder in sorted(self._wanted.copy().items(), key=lambda item: self._turn_of(item[0])):
            try:
                self.held(self._ask_to_load(key, folder), *key)
            except HeadraceError as error:
                _log.warning("%s is not served: %s", _named(key), error)
        self._is_ready.set()

    def _turn_of(self, key: Key) -> tuple[bool, bool]:
        """What is put first before the rest, artifacts before adapters."""
        digest, adapter = key
        return digest not in self._first, adapter is not None

    def _watch_clock(self) -> None:
        """End calls whose time is over, and a process that hangs."""
        while not self._closing.wait(_TICK_S):
            now = time.monotonic()
            with self._lock:
                late = [call for call in self._calls.values() if call.deadline < now]
            for call in late:
                if self._claim(call.number):
                    self.n_expired_rows += call.n_rows
                    self._post({"kind": "drop", "id": call.number})
                    call.done.set_exception(_too_late(call))
            process, owes_since = self._process, self._owes_since
            if process is not None and owes_since is not None and now - owes_since > self._silence_s:
                _log.warning("the worker hangs and is replaced")
                process.kill()

    def _fail_all(self, problem: str) -> None:
        with self._lock:
            numbers = list(self._calls)
        for number in numbers:
            if call := self._claim(number):
                call.done.set_exception(unavailable(problem))


def unavailable(problem: str, value: object = None) -> Unavailable:
    return Unavailable(problem, value=value, next_step=f"Try again in {RETRY_AFTER_S} s")


def _named(key: Key) -> str:
    digest, adapter = key
    return f"artifact {digest}" if adapter is None else f"adapter {adapter} of artifact {digest}"


def _too_late(call: Call) -> HeadraceError:
    waited = f"{call.deadline - call.sent_at:.3g} s"
    if call.n_rows:
        return TooLate("no answer in time", value=waited, next_step="Allow more time, or send fewer inputs at once")
    return unavailable("the worker did not load it in time", waited)


def _send_all(process: subprocess.Popen[bytes], outbox: "queue.SimpleQueue[Message | None]") -> None:
    """Write messages to the worker until None comes or the worker is gone; its end is noticed by who reads."""
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        while messages := _next(outbox):
            for message in messages:
                if "deadline" in message:  # clocks of two processes need not agree, so what travels is the time left
                    message["timeout_ms"] = max(0.0, (message.pop("deadline") - time.monotonic()) * 1000)
            frames.send(process.stdin, *messages)
    with suppress(BrokenPipeError):
        process.stdin.close()


def _next(outbox: "queue.SimpleQueue[Message | None]") -> list[Message]:
    """The messages that wait, at least one; none at the end, which None says."""
    messages: list[Message] = []
    message = outbox.get()
    while message is not None:
        messages.append(message)
        if outbox.empty() or len(messages) == _MAX_SENT:
            return messages
        message = outbox.get()
    if messages:
        outbox.put(None)
    return messages


def _end_group(pid: int) -> None:
    """When the worker is gone, end what a library may have forked off it: that would hold the pipe we listen to."""
    with suppress(ChildProcessError):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # not reaped, so that its number is nobody else's yet
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _end(call: Call, message: Message) -> None:
    if "error" in message:
        call.done.set_exception(_error_from(message["error"]))
    else:
        call.done.set_result(message)


def _error_from(error: Message) -> HeadraceError:
    """What the worker said of a whole message: the model is missing, damaged or in need of something."""
    kind = Unavailable if error["code"] == NotFound.code else Damaged
    return kind(error["message"], value=error["value"], next_step=error["next_step"])

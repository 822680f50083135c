"""The worker processes as the server sees them: what each holds, which one is asked, who may join the queue.

Each worker lives on its own (see process.py): one that dies fails only what it had, and the others go on. A request
goes to the worker with the fewest rows before it.
"""

import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.config import ServeTable
from headrace.errors import Damaged, HeadraceError, TooMany, Unavailable
from headrace.records import Input
from headrace.serve.admission import Refusal, Waiting, refusal
from headrace.serve.frames import Message
from headrace.serve.process import LOAD_TIMEOUT_S, RETRY_AFTER_S, Call, WorkerProcess, unavailable

_BACKGROUND = "\0"  # no channel is called that
_STRAGGLER_S = 5.0  # how long a load waits for further workers once one is ready
_PACE_WINDOW_S = 0.25
_PACE_WINDOWS = 10  # the best of them counts: a window may hold a pause that is not the workers'


@dataclass(frozen=True)
class Size:
    """How many worker processes there are, with how many threads each (0: the backend chooses), on which cores."""

    n_workers: int = 1
    n_threads: int = 0
    cores: tuple[tuple[int, ...], ...] = ()
    """Of each worker; none: any."""

    @property
    def environment(self) -> dict[str, str]:
        """What keeps a tokenizer to the threads that the model has."""
        return {"RAYON_NUM_THREADS": str(self.n_threads)} if self.n_threads else {}


@dataclass(frozen=True)
class Answer:
    """What a model said to the inputs of one request, in their order.

    `digest` is that of the artifact whose weights answered. A row is `{"output": {...}}` or `{"error": {...}}`.
    """

    digest: str
    rows: list[dict[str, Any]]
    adapter: str | None = None
    """Digest of the adapter that answered, from the tensors in use; None: the shared weights alone."""
    queue_s: float = 0.0
    """How long they waited for their turn."""
    n_tokens: int = 0
    """About, of the rows that were answered."""
    busy_s: float = 0.0
    """Of a worker: of each batch the share that these rows had of its tokens."""


class Pool:
    """All worker processes. Use as a context manager, and `start` it; leaving stops them."""

    def __init__(
        self, settings: ServeTable, *, on_batches: Callable[[list[Message]], None] = lambda batches: None, nice: int = 0
    ) -> None:
        """
        Args:
            on_batches: told the figures of batches (see worker.py), in a thread of the pool.
            nice: how far the workers stand back from other processes, 0 to 19.
        """
        self._settings, self._on_batches, self._nice = settings, on_batches, nice
        self._workers: list[WorkerProcess] = []
        self._is_started = threading.Event()
        self._lock = threading.Lock()
        self._rows: Counter[str] = Counter()
        """Rows that wait, by channel; channels without any are not in it."""
        self._pace = Pace()

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the workers. What waits gets `Unavailable`."""
        threads = [threading.Thread(target=worker.stop) for worker in self._workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self._is_started.set()

    def start(self, size: Size | None = None) -> None:
        """Start the workers; once. By default as many as the settings say, or one."""
        size = size or Size(self._settings.n_workers or 1, self._settings.n_threads)
        self._workers = [
            WorkerProcess(
                self._command(size, place),
                environment=size.environment,
                silence_s=self._settings.timeout_s,
                on_batches=self._on_batches,
            )
            for place in range(size.n_workers)
        ]
        for worker in self._workers:
            worker.start()
        self._is_started.set()

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that live."""
        return [worker.pid for worker in self._workers if worker.pid is not None]

    @property
    def n_waiting(self) -> int:
        """Rows sent and not yet answered."""
        with self._lock:
            return self._rows.total()

    @property
    def n_starts(self) -> int:
        """How often a worker process was started."""
        return sum(worker.n_starts for worker in self._workers)

    @property
    def n_artifact_loads(self) -> int:
        """How often a worker was told to load an artifact, which it compiles."""
        return sum(worker.n_artifact_loads for worker in self._workers)

    @property
    def n_adapter_loads(self) -> int:
        """How often a worker was told to load an adapter, which it does not compile anything for."""
        return sum(worker.n_adapter_loads for worker in self._workers)

    @property
    def n_expired_rows(self) -> int:
        """Rows whose deadline passed before their answer came."""
        return sum(worker.n_expired_rows for worker in self._workers)

    @property
    def rows_per_s(self) -> float:
        """What the workers answer when busy; 0 when they never were."""
        return self._pace.rows_per_s or 0.0

    def is_loaded(self, digest: str, adapter: str | None = None) -> bool:
        """Whether there is a worker that can answer with it now."""
        return any(worker.is_loaded(digest, adapter) for worker in self._workers)

    def load(self, digest: str, folder: Path, *, adapter: str | None = None) -> None:
        """Have the workers hold an artifact, or an adapter of one, also after a restart. Waits until they do.

        Raises:
            Damaged: it cannot be loaded.
            Unavailable: no worker could load it now; they try again when they are back.
        """
        self._is_started.wait(LOAD_TIMEOUT_S)
        for worker in self._workers:
            worker.remember(digest, folder, adapter)
        calls = [
            (worker, worker.want(digest, folder, adapter))
            for worker in self._ready_workers()
            if not worker.is_loaded(digest, adapter)  # one that just started has it already
        ]
        failures: list[HeadraceError] = []
        for worker, call in calls:
            try:
                worker.held(call, digest, adapter)
            except HeadraceError as error:
                failures.append(error)
        damaged = next((error for error in failures if isinstance(error, Damaged)), None)
        if damaged is not None:
            self.unload(digest, adapter=adapter)
            raise damaged
        if not self.is_loaded(digest, adapter):
            raise failures[0] if failures else unavailable("no worker starts")

    def _ready_workers(self) -> list[WorkerProcess]:
        """All workers, as far as they are ready soon; one that dies again and again does not hold the others up."""
        until, ready = time.monotonic() + LOAD_TIMEOUT_S, []
        for worker in sorted(self._workers, key=lambda worker: not worker.wait_until_ready(0)):
            if worker.wait_until_ready(max(0.0, until - time.monotonic())):
                ready.append(worker)
                until = min(until, time.monotonic() + _STRAGGLER_S)
        return ready

    def put_first(self, digests: Iterable[str]) -> None:
        """Which artifacts are in charge: a worker that starts again loads them, and their adapters, before others."""
        first = set(digests)
        for worker in self._workers:
            worker.put_first(first)

    def unload(self, digest: str, *, adapter: str | None = None) -> None:
        """Let go of an artifact with its adapters, or of one adapter; inputs that wait for it are still answered."""
        for worker in self._workers:
            worker.let_go(digest, adapter)

    def predict(
        self,
        digest: str,
        inputs: Sequence[Input],
        *,
        channel: str = "",
        adapter: str | None = None,
        timeout_s: float | None = None,
        background: bool = False,
    ) -> "Future[Answer]":
        """Ask a loaded model. The future ends in time, with an `Answer` or an error; cancelling it drops the rows.

        Args:
            channel: whose share of the queue and whose turns the rows use up.
            timeout_s: how long the answer may take; `serve.timeout_s` at most, and by default.
            background: nobody waits for it: it goes when nothing else does, and fills at most half of the queue.

        Raises:
            Unavailable: the model is not loaded at this moment, or the queue is full.
            TooMany: the channel has more than its share of the queue while others wait.
        """
        able = [worker for worker in self._workers if worker.is_loaded(digest, adapter)]
        if not able:
            raise unavailable("the worker is starting or has not loaded this model", digest)
        channel = _BACKGROUND if background else channel
        left_s = min(timeout_s or self._settings.timeout_s, self._settings.timeout_s)
        self._admit(channel, len(inputs), left_s, background=background)
        worker = min(able, key=lambda worker: worker.n_rows)
        message: Message = {
            "digest": digest, "inputs": list(inputs), "background": background, "channel": channel, "adapter": adapter
        }  # fmt: skip
        call = worker.ask(message, n_rows=len(inputs), deadline=time.monotonic() + left_s)
        answer: Future[Answer] = Future()
        answer.add_done_callback(lambda done: worker.drop(call) if done.cancelled() else None)
        call.done.add_done_callback(lambda _: self._end(call, channel, answer))
        return answer

    def _admit(self, channel: str, n_rows: int, left_s: float, *, background: bool) -> None:
        """Count the rows in, or say why not."""
        limit = self._settings.max_queue_rows
        with self._lock:
            own, n_waiting = self._rows[channel], self._rows.total()
            n_channels = len((self._rows.keys() | {channel}) - {_BACKGROUND})
            waiting = Waiting(n_waiting, own, n_channels, self._pace.rows_per_s)
            why = refusal(waiting, n_rows, limit=limit, time_left_s=left_s, background=background)
            if why is None:
                self._rows[channel] += n_rows
        if why is not None:
            raise _refused(why, n_waiting, own)

    def _end(self, call: Call, channel: str, answer: "Future[Answer]") -> None:
        """Count the rows out, and hand the answer over."""
        error = call.done.exception()
        with self._lock:
            self._rows[channel] -= call.n_rows
            if not self._rows[channel]:
                del self._rows[channel]
            n_answered = 0 if error else call.n_rows
            self._pace.note(n_answered, time.monotonic(), is_busy=bool(self._rows))
        if not answer.set_running_or_notify_cancel():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            said = call.done.result()
            spent = said["queue_s"], said["n_tokens"], said["busy_s"]
            answer.set_result(Answer(said["digest"], said["rows"], said.get("adapter"), *spent))

    def _command(self, size: Size, place: int) -> list[str]:
        settings = self._settings
        command = [sys.executable, "-m", "headrace.serve.worker", "--batch-tokens", str(settings.batch_tokens)]
        command += ["--threads", str(size.n_threads), "--alive-every-s", str(min(5.0, settings.timeout_s / 4))]
        command += ["--memory-bytes", str(settings.worker_memory_bytes), "--log-format", settings.log_format]
        command += ["--nice", str(self._nice), "--network", settings.network]
        return [*command, *(("--cores", ",".join(map(str, size.cores[place]))) if size.cores else ())]


class Pace:
    """Rows that are answered in a second while there is always something to do."""

    def __init__(self) -> None:
        self._seen: deque[float] = deque(maxlen=_PACE_WINDOWS)
        self._began_at: float | None = None
        self._n_rows = 0

    @property
    def rows_per_s(self) -> float | None:
        return max(self._seen, default=None)

    def note(self, n_rows: int, now: float, *, is_busy: bool) -> None:
        """Rows were answered; `is_busy`: others still wait."""
        if self._began_at is None:  # what came before it began is not known
            self._began_at, self._n_rows = now, 0
        else:
            self._n_rows += n_rows
        elapsed_s = now - self._began_at
        if elapsed_s >= _PACE_WINDOW_S:
            if self._n_rows:
                self._seen.append(self._n_rows / elapsed_s)
            self._began_at, self._n_rows = now, 0
        if not is_busy:
            self._began_at = None


def _refused(why: Refusal, n_waiting: int, n_own: int) -> HeadraceError:
    again = f"Try again in {RETRY_AFTER_S} s"
    match why:
        case "full":
            return Unavailable("too many rows wait for an answer", value=n_waiting, next_step=again)
        case "late":
            return Unavailable("more rows wait than can be answered in time", value=n_waiting, next_step=again)
        case "share":
            problem = "too many rows of this channel wait while other channels do too"
            return TooMany(problem, value=n_own, next_step=again)

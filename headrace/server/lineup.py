"""What serves which task: the ledger's word, carried out in the worker.

A thread watches the ledger and brings models up before they are named and lets them go a tick after they are not, so
that a change of release drops no request.
"""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

from headrace.errors import HeadraceError, NotFound, Unavailable, WrongState, nearest
from headrace.records import ModelVersion
from headrace.release import releases
from headrace.release.releases import Serving
from headrace.serve import threads
from headrace.serve.pool import Pool, Size
from headrace.serve.process import Key
from headrace.store import adapters, ledger
from headrace.workspace import Workspace

_log = logging.getLogger("headrace.lineup")

_POLL_S = 0.5
_RETRY_S = 10.0  # how soon a model that could not be loaded is tried again


class Lineup:
    """The serving versions of every task of a workspace. Use as a context manager."""

    def __init__(self, ws: Workspace, pool: Pool, *, on_swap: Callable[[str], None]) -> None:
        """
        Args:
            on_swap: told the task, whenever another version takes charge of one; in a thread of its own.
        """
        self._ws, self._pool, self._on_swap = ws, pool, on_swap
        self._serving: dict[str, Serving] = {}
        self._adapters: dict[str, dict[str, str]] = {}
        """Of each version that was ever brought up: channel to the weights of its adapter."""
        self._held: set[Key] = set()
        self._leaving: set[Key] = set()
        self._seen_seq = -1
        self._retry_at = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="headrace-lineup", daemon=True)
        self.first: Future[None] = Future()
        """Ends when the first models are loaded, or with the error that prevents it."""
        self.first.set_running_or_notify_cancel()

    def __enter__(self) -> "Lineup":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def of(self, task: str) -> Serving:
        """Who answers for a task now.

        Raises:
            NotFound: headrace.toml has no such task.
            Unavailable: none of its versions is loaded.
        """
        serving = self._serving.get(task)
        if serving is None:
            known = sorted(self._ws.settings.tasks)
            if task not in known:
                raise NotFound("no such task", value=task, next_step=nearest(task, known))
            raise Unavailable("no model of the task is loaded", value=task, next_step="Try again in 1 s")
        return serving

    def now(self) -> dict[str, Serving]:
        """Task to who answers for it."""
        return self._serving

    def adapter(self, version: ModelVersion, channel: str) -> str | None:
        """Weights of the adapter that answers for a channel; None: the version's shared model does."""
        return self._adapters.get(version.id, {}).get(channel)

    @property
    def is_ready(self) -> bool:
        """Whether there is a model in charge, and a worker holds each that is, with its adapters."""
        serving = self._serving.values()
        return bool(serving) and all(self._pool.is_loaded(*key) for s in serving for key in self._keys(s.control))

    def _run(self) -> None:
        try:
            self._put_in_charge()
            self._pool.start(self._size())
            self._refresh(must_load=True)
        except Exception as error:  # the border of the thread: who waits for `first` gets it
            self.first.set_exception(error)
            return
        self.first.set_result(None)
        while not self._stop.wait(_POLL_S):
            try:
                self._tick()
            except Exception:  # the border of one look: what serves goes on serving
                _log.warning("the ledger could not be followed", exc_info=True)

    def _put_in_charge(self) -> None:
        """A version in charge of every task that has one at all.

        Raises:
            WrongState: no task has a version.
            BadConfig: there is no task.
        """
        tasks = sorted(self._ws.settings.tasks) or [self._ws.task_name()]
        failures: list[WrongState] = []
        for task in tasks:
            try:
                releases.ensure_control(self._ws, task, actor="serve")
            except WrongState as error:
                failures.append(error)
        if len(failures) == len(tasks):
            raise failures[0]

    def _size(self) -> Size:
        """Of the pool: that which suits the first task's model."""
        serve = self._ws.settings.serve
        if serve.n_workers and serve.n_threads:
            return Size(serve.n_workers, serve.n_threads)
        with self._ws.store.read() as conn:
            task = next(task for task in sorted(self._ws.settings.tasks) if ledger.control_id(conn, task))
        digest = releases.serving(self._ws, task).control.artifact
        return threads.choose(serve, self._ws.artifacts.get(digest), digest, self._ws.state_folder, self._stop)

    def _tick(self) -> None:
        for digest, adapter in self._leaving - self._held:
            self._pool.unload(digest, adapter=adapter)
        self._leaving = set()
        with self._ws.store.read() as conn:
            seq = ledger.last_seq(conn)
        overdue = time.monotonic() > self._retry_at and not all(self._pool.is_loaded(*key) for key in self._held)
        if seq != self._seen_seq or overdue:
            self._refresh()

    def _refresh(self, *, must_load: bool = False) -> None:
        """Follow the ledger: load what it names, then let it answer, then let go of what it names no more.

        A control that cannot be loaded does not take over; a candidate that cannot answers every request with an error.
        """
        with self._ws.store.read() as conn:
            seq = ledger.last_seq(conn)
            in_charge = [task for task in sorted(self._ws.settings.tasks) if ledger.control_id(conn, task)]
        serving = dict(self._serving)
        for task in in_charge:
            wanted = releases.serving(self._ws, task)
            if wanted.candidate is not None:
                self._bring(wanted.candidate, must_load=False)
            if self._bring(wanted.control, must_load=must_load):
                serving[task] = wanted
        swapped = [t for t, s in serving.items() if t in self._serving and self._serving[t].control != s.control]
        self._serving = serving
        for task in swapped:
            self._on_swap(task)
        named = [version for s in serving.values() for version in (s.control, s.candidate) if version is not None]
        held = {key for version in named for key in self._keys(version)}
        self._leaving |= self._held - held
        self._held, self._seen_seq, self._retry_at = held, seq, time.monotonic() + _RETRY_S

    def _keys(self, version: ModelVersion) -> list[Key]:
        """What a worker must hold for a version: its artifact, then its adapters."""
        weights = self._adapters.get(version.id, {}).values()
        return [(version.artifact, None), *((version.artifact, one) for one in weights)]

    def _bring(self, version: ModelVersion, *, must_load: bool) -> bool:
        """Have the workers hold a version's artifact and adapters, as far as they do not; whether they do."""
        with self._ws.store.read() as conn:
            kept = [one for one in adapters.of_version(conn, version.id) if one.is_kept]
        self._adapters[version.id] = {one.channel: one.weights for one in kept if one.weights is not None}
        folders = {one.weights: one.artifact for one in kept} | {None: version.artifact}
        try:
            for digest, adapter in self._keys(version):
                folder = folders[adapter]
                if folder is not None and not self._pool.is_loaded(digest, adapter):
                    self._pool.load(digest, self._ws.artifacts.get(folder), adapter=adapter)
        except HeadraceError as error:
            if must_load:
                raise
            self._leaving |= set(self._keys(version))  # what was loaded of it
            _log.warning("version %s, artifact %s, is not served: %s", version.name, version.artifact, error)
            return False
        return True

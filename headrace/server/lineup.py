"""What serves which task: the ledger's word, carried out in the workers.

A thread watches the ledger. It has models loaded before they are named and lets them go a tick after they are not, so
that a change of release drops no request; and it never waits for a load, so that a release that ends is over at once.

Candidates live in worker processes of their own: one that leaks, crashes or hangs takes nothing of the control with it.
The version that was in charge before stays loaded, so that going back to it takes no time.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from headrace import signing
from headrace.errors import NotFound, Unavailable, WrongState, nearest
from headrace.records import ModelVersion, Release
from headrace.release import assignment, controls
from headrace.release.controls import Serving
from headrace.serve import threads
from headrace.serve.pool import Pool, Size
from headrace.serve.process import unavailable
from headrace.server.holding import Holdings
from headrace.store import ledger
from headrace.workspace import Workspace

_log = logging.getLogger("headrace.lineup")

_POLL_S = 0.25
_SHADOW_NICE = 19  # shadows must not take the processor from who is waited for

MakePool = Callable[[int], Pool]
"""A pool for candidates, at a niceness."""


SHADOW = "shadow"


@dataclass(frozen=True)
class Drawn:
    """Who is to answer a request."""

    version: ModelVersion
    arm: str
    probability: float
    """Of the arm, at this moment."""
    control: ModelVersion
    release: Release | None = None
    """The open one that the request takes part in."""
    shadow: "Drawn | None" = None
    """Who answers the same behind it."""

    @property
    def is_tried(self) -> bool:
        return self.release is not None

    @property
    def release_id(self) -> str | None:
        return None if self.release is None else self.release.id

    @property
    def is_candidate(self) -> bool:
        return self.arm.startswith("candidate")

    def without_candidate(self) -> "Drawn":
        """The control, outside of the release, where the candidate's arm was drawn and does not answer."""
        return Drawn(self.control, "control", 1.0, self.control) if self.is_candidate else self


@dataclass(frozen=True)
class _Trial:
    """A candidate's own workers."""

    pool: Pool
    version: ModelVersion
    release_id: str


@dataclass
class _State:
    """What the ledger said last, and what answers."""

    wanted: dict[str, Serving] = field(default_factory=dict)
    serving: dict[str, Serving] = field(default_factory=dict)
    before: dict[str, ModelVersion] = field(default_factory=dict)
    """Task to the version in charge before the current one."""
    seen_seq: int = -1


class Lineup:
    """The serving versions of every task of a workspace. Use as a context manager."""

    def __init__(self, ws: Workspace, pool: Pool, *, make_pool: MakePool, on_swap: Callable[[str], None]) -> None:
        """
        Args:
            pool: of the versions in charge.
            make_pool: makes one for a candidate.
            on_swap: told the task, whenever another version takes charge of one; in a thread of its own.
        """
        self._ws, self._pool, self._make_pool, self._on_swap = ws, pool, make_pool, on_swap
        self._holdings = Holdings(ws)
        self._state = _State()
        self._trials: dict[str, _Trial] = {}
        """By version."""
        self._held: dict[str, ModelVersion] = {}
        """Versions that the pool of those in charge holds or loads."""
        self._size = Size()
        self._stop, self._changed = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="headrace-lineup", daemon=True)
        self.first: Future[None] = Future()
        """Ends when the first models are loaded, or with the error that prevents it."""
        self.first.set_running_or_notify_cancel()

    def __enter__(self) -> "Lineup":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._changed.set()
        self._thread.join()
        for trial in self._trials.values():
            trial.pool.stop()

    def look(self) -> None:
        """Something was just written to the ledger: follow it at once."""
        self._changed.set()

    def of(self, task: str) -> Serving:
        """Who answers for a task now.

        Raises:
            NotFound: headrace.toml has no such task.
            Unavailable: none of its versions is loaded.
        """
        serving = self._state.serving.get(task)
        if serving is None:
            known = sorted(self._ws.settings.tasks)
            if task not in known:
                raise NotFound("no such task", value=task, next_step=nearest(task, known))
            raise Unavailable("no model of the task is loaded", value=task, next_step="Try again in 1 s")
        return serving

    def draw(self, task: str, channel: str, unit: str, *, in_charge_only: bool = False) -> Drawn:
        """Who is to answer a request of a unit.

        Args:
            in_charge_only: no release is about the request.

        Raises:
            NotFound, Unavailable: see `of`.
        """
        serving = self.of(task)
        control, release = serving.control_of(channel), serving.release
        if release is None or in_charge_only or not serving.is_tried_in(channel):
            return Drawn(control, "control", 1.0, control)
        tried = {version.id: version for version in _candidates(serving)}
        arm, probability = assignment.assign(release.id, release.options.get("salt", ""), unit, release.weights)
        version = tried.get(release.version_of(arm), control)
        shadow = None
        if release.policy == SHADOW:
            shadow = Drawn(tried[release.candidate_id], SHADOW, 1.0, control, release)
        return Drawn(version, arm, probability, control, release, shadow)

    def arms(self, task: str) -> list[tuple[str | None, Drawn]]:
        """Who may answer a task's requests, each with the channel it is for alone (None: any), and its share."""
        serving = self.of(task)
        release = serving.release
        found: list[tuple[str | None, Drawn]] = []
        shares = {"control": 1.0} if release is None else assignment.shares(release.weights)
        candidates = {version.id: version for version in _candidates(serving)}
        for arm, share in shares.items():
            version = serving.control if release is None else candidates.get(release.version_of(arm), serving.control)
            found.append((None, Drawn(version, arm, share, serving.control, release)))
        if release is not None and release.policy == SHADOW:
            found.append((None, Drawn(candidates[release.candidate_id], SHADOW, 1.0, serving.control, release)))
        for channel, version in serving.channels.items():
            found.append((channel, Drawn(version, "control", 1.0, version)))
        return found

    def is_loaded(self, drawn: Drawn) -> bool:
        """Whether a worker can answer with the version of an arm now."""
        try:
            return self.pool_of(drawn).is_loaded(drawn.version.artifact)
        except Unavailable:
            return False

    def pool_of(self, drawn: Drawn) -> Pool:
        """The workers of an arm.

        Raises:
            Unavailable: a candidate's are gone.
        """
        if drawn.arm != SHADOW and not drawn.is_candidate:
            return self._pool
        trial = self._trials.get(drawn.version.id)
        if trial is None:
            raise unavailable("the candidate's workers are gone", drawn.version.name)
        return trial.pool

    @property
    def pools(self) -> list[Pool]:
        return [self._pool, *(trial.pool for trial in list(self._trials.values()))]

    def now(self) -> Mapping[str, Serving]:
        """Task to who answers for it."""
        return self._state.serving

    def adapter(self, version: ModelVersion, channel: str) -> str | None:
        """Weights of the adapter that answers for a channel; None: the version's shared model does."""
        return self._holdings.adapter(version, channel)

    @property
    def is_ready(self) -> bool:
        """Whether there is a model in charge, and a worker holds each that is, with its adapters."""
        in_charge = [version for serving in self._state.serving.values() for version in _in_charge(serving)]
        return bool(in_charge) and all(self._holdings.are_in(self._pool, version) for version in in_charge)

    def _run(self) -> None:
        try:
            self._begin()
        except Exception as error:  # the border of the thread: who waits for `first` gets it
            self.first.set_exception(error)
            return
        self.first.set_result(None)
        while not self._stop.is_set():
            self._changed.wait(_POLL_S)
            self._changed.clear()
            if self._stop.is_set():
                return
            try:
                self._tick()
            except Exception:  # the border of one look: what serves goes on serving
                _log.warning("the ledger could not be followed", exc_info=True)

    def _begin(self) -> None:
        """Put versions in charge, start the workers, and have them hold what is in charge.

        Raises:
            WrongState: no task has a version.
            BadConfig: there is no task.
            Damaged, Unavailable: a version in charge cannot be loaded.
        """
        self._put_in_charge()
        self._read()
        self._size = self._chosen_size()
        self._pool.start(self._size)
        for serving in self._state.wanted.values():
            for version in _in_charge(serving):
                self._holdings.bring(self._pool, version)
        self._tick()

    def _put_in_charge(self) -> None:
        """A version in charge of every task that has one at all."""
        tasks = sorted(self._ws.settings.tasks) or [self._ws.task_name()]
        failures: list[WrongState] = []
        for task in tasks:
            try:
                controls.ensure_control(self._ws, task, actor="serve")
            except WrongState as error:
                failures.append(error)
        if len(failures) == len(tasks):
            raise failures[0]

    def _chosen_size(self) -> Size:
        """Of the pool: that which suits the first task's model."""
        serve = self._ws.settings.serve
        if serve.n_workers and serve.n_threads:
            return Size(serve.n_workers, serve.n_threads)
        control = self._state.wanted[min(self._state.wanted)].control
        folder = signing.folder_of(self._ws, control, control.artifact)
        return threads.choose(serve, folder, control.artifact, self._ws.state_folder, self._stop)

    def _read(self) -> None:
        """What the ledger says, where it has new lines."""
        with self._ws.store.read() as conn:
            seq = ledger.last_seq(conn)
            if seq == self._state.seen_seq:
                return
            in_charge = [task for task in sorted(self._ws.settings.tasks) if ledger.control_id(conn, task)]
        self._state.wanted = {task: controls.serving(self._ws, task) for task in in_charge}
        self._state.seen_seq = seq

    def _tick(self) -> None:
        """Follow the ledger: ask for what it names, let answer what is there, let go of what it names no more.

        A control that cannot be loaded does not take over; a candidate that cannot is asked all the same, and its
        failures are counted.
        """
        self._read()
        self._holdings.sweep(list(self._held.values()))
        self._follow_trials()
        serving = {task: self._now(task, wanted) for task, wanted in self._state.wanted.items()}
        known = {task: now for task, now in serving.items() if now is not None}
        before = self._state.serving
        swapped = [task for task, now in known.items() if task in before and before[task].control != now.control]
        for task in swapped:
            self._state.before[task] = before[task].control
        self._state.serving = known
        self._pool.put_first(version.artifact for now in known.values() for version in _in_charge(now))
        for task in swapped:
            self._on_swap(task)
        self._keep()

    def _now(self, task: str, wanted: Serving) -> Serving | None:
        """What can answer of what the ledger wants; else what answered before."""
        before = self._state.serving.get(task)
        control = self._ready(wanted.control) or (before.control if before else None)
        if control is None:
            return None
        own = {}
        for channel, version in wanted.channels.items():
            own[channel] = self._ready(version) or (before.control_of(channel) if before else control)
        if control != wanted.control and before:  # until it is there, every channel keeps what it has
            own |= {channel: version for channel, version in before.channels.items() if channel not in own}
        own = {channel: version for channel, version in own.items() if version != control}
        now = replace(wanted, control=control, channels=own)
        if wanted.release is None or self._are_tried(wanted):
            return now
        return replace(now, release=None, candidate=None, others=(), tried_in=())

    def _ready(self, version: ModelVersion) -> ModelVersion | None:
        self._held[version.id] = version
        return version if self._holdings.want(self._pool, version) else None

    def _are_tried(self, wanted: Serving) -> bool:
        """Whether every candidate is loaded, or could not be: from then on it takes part, and its failures count."""
        trials = [trial for version in _candidates(wanted) if (trial := self._trials.get(version.id))]
        are_in = [self._holdings.want(trial.pool, trial.version) for trial in trials]
        return all(
            is_in or self._holdings.was_tried(trial.pool, trial.version)
            for is_in, trial in zip(are_in, trials, strict=True)
        )

    def _follow_trials(self) -> None:
        """A pool for each candidate of an open release; none for the others."""
        wanted: dict[str, tuple[ModelVersion, Serving]] = {}
        for serving in self._state.wanted.values():
            wanted |= {version.id: (version, serving) for version in _candidates(serving)}
        for version_id, trial in list(self._trials.items()):
            named = wanted.get(version_id)
            if named is None or named[1].release is None or named[1].release.id != trial.release_id:
                del self._trials[version_id]
                self._holdings.forget(trial.pool, trial.version)
                threading.Thread(target=trial.pool.stop, name="headrace-trial-end", daemon=True).start()
        for version_id, (version, serving) in wanted.items():
            if version_id not in self._trials and serving.release is not None:
                pool = self._make_pool(_SHADOW_NICE if serving.release.policy == SHADOW else 0)
                n_workers = max(1, self._size.n_workers // len(_candidates(serving)))
                pool.start(replace(self._size, n_workers=n_workers))
                self._trials[version_id] = _Trial(pool, version, serving.release.id)

    def _keep(self) -> None:
        """Hold what is in charge, what is to be, and, where that is wished, what was before; let go of the rest."""
        named = [v for s in (*self._state.serving.values(), *self._state.wanted.values()) for v in _in_charge(s)]
        if self._ws.settings.release.keep_previous:
            named += self._state.before.values()
        kept = {version.id: version for version in named}
        for version_id in self._held.keys() - kept.keys():
            self._holdings.leave(self._pool, self._held.pop(version_id))


def _in_charge(serving: Serving) -> Iterator[ModelVersion]:
    yield serving.control
    yield from serving.channels.values()


def _candidates(serving: Serving) -> list[ModelVersion]:
    return [] if serving.candidate is None else [serving.candidate, *serving.others]

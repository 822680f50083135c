"""What a server runs on: the pool with its worker, the queue of writes, the lineup, and the work nobody waits for."""

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import ExitStack
from typing import Any

from headrace.access import keyring
from headrace.access.keyring import Keyring
from headrace.errors import NotFound, nearest
from headrace.personal.policies import door_of
from headrace.records import Channel
from headrace.serve.pool import Pool
from headrace.server.handover import Handover
from headrace.server.lineup import Lineup
from headrace.server.live_gauges import EVERY_S, FIRST_S, LiveGauges
from headrace.server.metering import Metering
from headrace.server.metrics import Metrics
from headrace.server.prediction_log import FIRST_MOVE_S, MOVE_EVERY_S, Moving, PredictionLog
from headrace.server.release_watch import ReleaseWatch
from headrace.server.repeating import repeating
from headrace.server.terms import CURRENT
from headrace.store import channels
from headrace.tasks import TASK_TYPES, TaskType
from headrace.workspace import Workspace

_log = logging.getLogger("headrace.server")

_SHADOW_DRAIN_S = 5.0  # how long a closing server waits for answers that nobody but the log waits for


class ControlPlane:
    """The parts of one running server. Use as an asynchronous context manager, once."""

    def __init__(self, ws: Workspace) -> None:
        self.ws = ws
        self.door = door_of(ws)
        """What every text and name comes through before anything else sees it."""
        self.keyring = Keyring(ws)
        self.metrics = Metrics()
        self.metering = Metering(ws, self.keyring, self.metrics)
        self.log = PredictionLog(ws, self.metrics)
        self.pool = self._make_pool(0)
        """Of the versions in charge; candidates have their own."""
        self.lineup = Lineup(ws, self.pool, make_pool=self._make_pool, on_swap=self.metrics.note_swap)
        self.watch = ReleaseWatch(ws, self.lineup, self.metrics)
        self.handover = Handover()
        """Of what the threads of the writer and of the workers finished, to the event loop."""
        self.draining = False
        """True once the server was told to stop: it answers what it has, and is not ready."""
        self._channels: dict[str, Channel] = {}
        self._task_types: dict[str, TaskType] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._parts = ExitStack()
        watch = self.metrics.watch
        watch(
            "queue_rows",
            "Rows sent to the workers and not yet answered",
            lambda: sum(pool.n_waiting for pool in self.lineup.pools),
        )
        watch("expired_rows", "Rows whose deadline passed before their answer", lambda: self.pool.n_expired_rows)
        watch("rows_per_s", "Rows that busy workers answer in a second", lambda: self.pool.rows_per_s)
        watch("workers", "Worker processes that live", lambda: sum(len(p.pids) for p in self.lineup.pools))
        watch("worker_starts", "Worker processes started", lambda: self.pool.n_starts)
        watch("artifact_loads", "Artifacts loaded by workers", lambda: self.pool.n_artifact_loads)
        watch("adapter_loads", "Adapters loaded by workers", lambda: self.pool.n_adapter_loads)
        watch(
            "writes_failing", "1 when the last write failed: a full disk, or none", lambda: self.log.writer.is_failing
        )
        watch("ready", "1 when the server takes requests", lambda: self.is_ready)

    @property
    def is_ready(self) -> bool:
        return self.lineup.is_ready and not self.draining

    async def __aenter__(self) -> "ControlPlane":
        with self.ws.store.read() as conn:  # so that answers do not need the store
            self._channels = {channel.name: channel for channel in channels.listing(conn)}
        parts = (
            self.log.writer,
            self.metering,
            repeating("headrace-keys", self.keyring.renew, first_s=keyring.EVERY_S, every_s=keyring.EVERY_S),
            repeating("headrace-moving", Moving(self.ws).move, first_s=FIRST_MOVE_S, every_s=MOVE_EVERY_S),
            repeating("headrace-gauges", LiveGauges(self.ws, self.metrics).renew, first_s=FIRST_S, every_s=EVERY_S),
            self.watch,
            self.lineup,
            self.pool,
        )  # left in reverse: the lineup may wait for the pool
        with ExitStack() as entered:  # where one fails, those before it are left
            for part in parts:
                entered.enter_context(part)
            self._parts = entered.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Finish the shadows, write what is queued, stop the worker."""
        self.draining = True
        if self._background:
            await asyncio.wait(self._background, timeout=_SHADOW_DRAIN_S)
        await asyncio.to_thread(self._parts.close)

    def serving_models(self) -> list[dict[str, Any]]:
        """What serves, in the shape of GET /v1/models."""
        return [
            {
                "task": task,
                "arm": drawn.arm,
                "channel": channel,
                "share": drawn.probability,
                "model_version": drawn.version.name,
                "artifact": drawn.version.artifact,
                "loaded": self.lineup.is_loaded(drawn),
            }
            for task in sorted(self.lineup.now())
            for channel, drawn in self.lineup.arms(task)
        ]

    def _make_pool(self, nice: int) -> Pool:
        return Pool(self.ws.settings.serve, on_batches=self.metrics.note_batches, nice=nice)

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run work that no request waits for; the end of the server does, for a while."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def task_type(self, task: str) -> TaskType:
        """What a task's inputs and answers are.

        Raises:
            NotFound: headrace.toml has no such task.
        """
        if task not in self._task_types:
            settings = self.ws.task(task)
            self._task_types[task] = TASK_TYPES.get(settings.type)(settings)
        return self._task_types[task]

    async def channel(self, name: str) -> Channel:
        """The channel called `name`. Channels are never renamed or removed, so a found one is remembered.

        Raises:
            NotFound: there is none, or none that the caller may use; the message has the nearest name.
        """
        if name not in self._channels or not CURRENT.get().caller.may_use(name):
            self._channels[name] = await asyncio.to_thread(self._find_channel, name)
        return self._channels[name]

    def _find_channel(self, name: str) -> Channel:
        with self.ws.store.read() as conn:
            channel, caller = channels.find(conn, name), CURRENT.get().caller
            if channel is None or not caller.may_use(name):
                known = [c.name for c in channels.listing(conn) if caller.may_use(c.name)]
                raise NotFound("no such channel", value=name, next_step=nearest(name, known))
        return channel

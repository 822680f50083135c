"""What a server runs on: the pool with its worker, the queue of writes, the lineup, and the work nobody waits for."""

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import ExitStack
from typing import Any

from headrace.errors import NotFound, nearest
from headrace.records import Channel
from headrace.serve.pool import Pool
from headrace.server.lineup import Lineup
from headrace.server.metrics import Metrics
from headrace.server.prediction_log import Moving, PredictionLog
from headrace.store import channels
from headrace.tasks import TASK_TYPES, TaskType
from headrace.workspace import Workspace

_log = logging.getLogger("headrace.server")

_SHADOW_DRAIN_S = 5.0  # how long a closing server waits for answers that nobody but the log waits for


class ControlPlane:
    """The parts of one running server. `open` and `close` it once, on the event loop."""

    def __init__(self, ws: Workspace) -> None:
        self.ws = ws
        self.metrics = Metrics()
        self.log = PredictionLog(ws, self.metrics)
        self.pool = Pool(ws.settings.serve, on_batches=self.metrics.note_batches)
        self.lineup = Lineup(ws, self.pool, on_swap=self.metrics.note_swap)
        self.draining = False
        """True once the server was told to stop: it answers what it has, and is not ready."""
        self._channels: dict[str, Channel] = {}
        self._task_types: dict[str, TaskType] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._parts = ExitStack()
        self.metrics.watch("queue_rows", "Rows sent to the workers and not yet answered", lambda: self.pool.n_waiting)
        self.metrics.watch(
            "expired_rows", "Rows whose deadline passed before their answer", lambda: self.pool.n_expired_rows
        )
        self.metrics.watch("rows_per_s", "Rows that busy workers answer in a second", lambda: self.pool.rows_per_s)
        self.metrics.watch("workers", "Worker processes that live", lambda: len(self.pool.pids))
        self.metrics.watch("worker_starts", "Worker processes started", lambda: self.pool.n_starts)
        self.metrics.watch("artifact_loads", "Artifacts loaded by workers", lambda: self.pool.n_artifact_loads)
        self.metrics.watch("adapter_loads", "Adapters loaded by workers", lambda: self.pool.n_adapter_loads)
        self.metrics.watch("ready", "1 when the server takes requests", lambda: self.is_ready)

    @property
    def is_ready(self) -> bool:
        return self.lineup.is_ready and not self.draining

    def open(self) -> None:
        for part in (
            self.log.writer,
            Moving(self.ws),
            self.lineup,
            self.pool,
        ):  # left in reverse: the lineup may wait for the pool
            self._parts.enter_context(part)

    async def close(self) -> None:
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
                "arm": arm,
                "model_version": version.name,
                "artifact": version.artifact,
                "loaded": self.pool.is_loaded(version.artifact),
            }
            for task, serving in sorted(self.lineup.now().items())
            for arm, version in (("control", serving.control), ("shadow", serving.candidate))
            if version is not None
        ]

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run work that no request waits for; `close` does, for a while."""
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
            NotFound: there is none; the message has the nearest name.
        """
        if name not in self._channels:
            self._channels[name] = await asyncio.to_thread(self._find_channel, name)
        return self._channels[name]

    def _find_channel(self, name: str) -> Channel:
        with self.ws.store.read() as conn:
            channel = channels.find(conn, name)
            if channel is None:
                known = [c.name for c in channels.listing(conn)]
                raise NotFound("no such channel", value=name, next_step=nearest(name, known))
        return channel

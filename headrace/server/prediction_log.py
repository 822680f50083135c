"""The prediction log of a running server: what was asked and answered, written behind the answers.

    answer -> rows -> the writer's queue -> store -> (days later) files by day, see headrace/retention

No request waits for it. A row that finds the queue full is dropped and counted; its answer says so by its id, which
begins with `unlogged`, and feedback on such an id is refused. All rows of a request are logged, or none.
"""

import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial

from headrace.errors import Unavailable
from headrace.feedback import intake
from headrace.feedback.auditing import Doubts
from headrace.feedback.intake import Given
from headrace.ids import new_id
from headrace.personal import mapping
from headrace.personal.mapping import Kept
from headrace.records import Channel, Feedback, Input, ModelVersion
from headrace.serve.pool import Answer
from headrace.server.metrics import Metrics
from headrace.store import predictions
from headrace.store.predictions import LogRow
from headrace.store.writer import Writer
from headrace.tasks.inputs import text_hash
from headrace.workspace import Workspace

_log = logging.getLogger("headrace.server")

FIRST_MOVE_S, MOVE_EVERY_S = 60.0, 600.0
_TELL_EVERY_S = 10.0
_TERMINATE_S = 5.0


class PredictionLog:
    """Makes rows of answers and queues them. The writer is part of it, and writes feedback too."""

    def __init__(self, ws: Workspace, metrics: Metrics) -> None:
        serve = ws.settings.serve
        self._clock, self._metrics = ws.clock, metrics
        self._is_on, self._keeps_text = serve.log, serve.log_inputs == "text"
        self._texts_of = {
            name: table.log_inputs == "text" for name, table in ws.settings.channels.items() if table.log_inputs
        }
        self._doubts = Doubts(ws.settings.feedback.audit_share)
        self._n_untold, self._told_at = 0, -_TELL_EVERY_S
        self.writer = Writer(
            ws.store,
            add_rows=partial(predictions.add_rows, config_hash=ws.config_hash),
            max_rows=serve.log_queue_rows,
            on_lost=self._note_lost,
        )
        self._receive_all = partial(intake.receive_all, ws)
        self._keep = lambda channel_id, several, conn: mapping.keep(ws, conn, channel_id, several)
        metrics.watch("log_queue_rows", "Rows of the prediction log not yet written", lambda: self.writer.n_rows)

    def add(
        self,
        *,
        request_id: str,
        task: str,
        channel: Channel,
        unit: str | None,
        version: ModelVersion,
        arm: str,
        probability: float = 1.0,
        release_id: str | None,
        inputs: Sequence[Input],
        answer: Answer,
        latency_ms: float,
        is_audited: bool = False,
    ) -> tuple[list[str], bool]:
        """Queue the answers of one arm to one request; their ids, and whether the log has them.

        Args:
            is_audited: whether some are to be drawn for audits, of those that are no errors and whose text is kept.
        """
        if not self._is_on:
            return [new_id("unlogged") for _ in inputs], False
        now, keeps_text = self._clock(), self._texts_of.get(channel.name, self._keeps_text)
        rows = []
        n_chars = 0
        outputs = [result.get("output") if is_audited and keeps_text else None for result in answer.rows]
        audited = self._doubts.probabilities(version.id, outputs)
        for place, (given, result) in enumerate(zip(inputs, answer.rows, strict=True)):
            text, pair = (given, None) if isinstance(given, str) else given
            if keeps_text:
                n_chars += len(text) + len(pair or "")
            rows.append(
                LogRow(
                    new_id("prediction"),
                    request_id,
                    place,
                    task,
                    channel.id,
                    unit,
                    arm,
                    release_id,
                    version.id,
                    answer.digest,
                    answer.adapter,
                    text if keeps_text else None,
                    pair if keeps_text else None,
                    text_hash(given),
                    result.get("output", {}),
                    round(latency_ms, 3),
                    result["error"]["message"] if "error" in result else None,
                    now,
                    probability,
                    audited[place],
                )
            )
        if self.writer.log(rows, n_chars=n_chars):
            return [row.id for row in rows], True
        self._metrics.dropped_log_rows.inc(len(rows))
        return [new_id("unlogged") for _ in inputs], False

    def keep(self, channel: Channel, several: Sequence[Kept]) -> None:
        """Queue what surrogates stand for, behind what is queued; as a row of the log, it is left out of a full one."""
        with suppress(Unavailable):
            self.writer.submit(partial(self._keep, channel.id, several), durable=False)

    def add_feedback(self, given: Given) -> "Future[Feedback]":
        """Queue feedback behind the predictions; the future holds its record once it is on disk, or why it is refused.

        Raises:
            Unavailable: the queue is full, or the server is closing.
        """
        return self.writer.submit_together(self._receive_all, given, durable=True)

    def _note_lost(self, n_rows: int, error: Exception) -> None:
        """Count rows that could not be written, and say so now and then: a full disk fails many times a second."""
        self._metrics.failed_writes.inc(n_rows)
        self._n_untold += n_rows
        if time.monotonic() < self._told_at + _TELL_EVERY_S:
            return
        _log.error("%d rows of the prediction log could not be written: %s", self._n_untold, error)
        self._n_untold, self._told_at = 0, time.monotonic()


class Moving:
    """Has old rows moved to files now and then, and people asked about those that were drawn for audits, in a process
    of low priority.

    A process of its own, since what it reads and packs would stand in the way of requests here; ended at any moment it
    leaves nothing half done.
    """

    def __init__(self, ws: Workspace) -> None:
        settings = {f"serve.{name}": value for name, value in ws.settings.serve if name.startswith("log_")}
        settings["privacy.keep_days"] = ws.settings.privacy.keep_days
        settings |= {f"feedback.{name}": getattr(ws.settings.feedback, name) for name in ("audit_salt", "review_rows")}
        self._command = [sys.executable, "-m", "headrace.upkeep", str(ws.root), json.dumps(settings)]

    def move(self, stop: threading.Event) -> None:
        """Have it done once; when told to stop, at once."""
        try:
            self._move(stop)
        except OSError as error:  # no process to be had: the next time, perhaps
            _log.warning("old predictions could not be moved: %s", error)

    def _move(self, stop: threading.Event) -> None:
        with subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
            while process.poll() is None:
                if stop.wait(0.2):
                    process.terminate()
                    try:
                        process.wait(_TERMINATE_S)
                    except subprocess.TimeoutExpired:
                        process.kill()
        if process.returncode and not stop.is_set():
            _log.warning("old predictions could not be moved; the process ended with status %d", process.returncode)

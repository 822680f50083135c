"""Watches the open releases while they take traffic: keeps the counts, asks the policy, carries out what it says.

    note -> counts in memory -> table `traffic` -> evidence of all processes -> policy -> ledger

That happens twice a second, and sooner where a candidate did not answer: each moment costs the next users an answer.

Every server process does it; of two that decide at once the ledger takes the first, and the others follow it. A
decision is in force here at once, and elsewhere as soon as the ledger is looked at again.

In a shadow release nobody sees the candidate, so only rejections are carried out; `improve` promotes.
"""

import logging
import os
import threading
import time
import uuid
from dataclasses import dataclass, replace

from headrace.errors import HeadraceError
from headrace.feedback import outcomes
from headrace.feedback.outcomes import Labels
from headrace.records import Decision, Release
from headrace.releasing import judging
from headrace.server.lineup import SHADOW, Drawn, Lineup
from headrace.server.metrics import Metrics
from headrace.server.traffic import Seen, TrafficCounts
from headrace.store import releases as rows
from headrace.store import traffic
from headrace.workspace import Workspace

_log = logging.getLogger("headrace.releases")

_EVERY_S, _LEAST_S = 0.5, 0.05
_LABELS_SHARE = 0.25  # of a core, that reading labels may take


@dataclass
class _Watched:
    """What is remembered of an open release. Times are on the monotonic clock, which no jump of the clock touches."""

    stage: int
    since: float
    """When this process first saw the release in this stage."""
    labels: Labels
    labels_due: float = 0.0


class ReleaseWatch:
    """A thread beside the server. Use as a context manager."""

    def __init__(self, ws: Workspace, lineup: Lineup, metrics: Metrics) -> None:
        self._ws, self._lineup, self._metrics = ws, lineup, metrics
        self._source = f"{os.getpid()}-{uuid.uuid4().hex[:16]}"
        self._counts = TrafficCounts()
        self._watched: dict[str, _Watched] = {}
        self._stop, self._hurry = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="headrace-releases", daemon=True)

    def __enter__(self) -> "ReleaseWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._hurry.set()
        self._thread.join()
        try:
            self._flush()
        except HeadraceError:
            _log.warning("the last counts of traffic could not be written", exc_info=True)

    def note(self, drawn: Drawn, channel_id: str, unit: str | None, seen: Seen) -> None:
        """Count a request that took part in an open release."""
        release = drawn.release
        if release is None:
            return
        self._counts.note(
            release.id,
            (drawn.arm, channel_id, release.stage),
            unit,
            seen,
            is_control=not drawn.is_candidate and drawn.arm != SHADOW,
            slowdown=release.options.get("slowdown", 1.5),
            is_apart=drawn.arm == SHADOW or (drawn.arm == "control" and "baseline" in release.weights),
        )
        result = "error" if seen.failed else "late" if seen.late else "answer"
        self._metrics.release_requests.labels(release.task, drawn.arm, result).inc()
        if drawn.is_candidate and result != "answer":
            self._hurry.set()

    def _run(self) -> None:
        while not self._stop.wait(_LEAST_S):
            self._hurry.wait(_EVERY_S - _LEAST_S)
            self._hurry.clear()
            try:
                self._look()
            except Exception:  # the border of one look: what serves goes on serving
                _log.warning("open releases could not be looked at", exc_info=True)

    def _look(self) -> None:
        self._flush()
        with self._ws.store.read() as conn:
            found = [release for task in self._lineup.now() if (release := rows.open_release(conn, task))]
        self._counts.forget_all_but(release.id for release in found)
        self._watched = {one.id: self._watched[one.id] for one in found if one.id in self._watched}
        for release in found:
            self._decide(release)

    def _flush(self) -> None:
        """Write what was counted since the last time; on an error it stays to be written."""
        changed = self._counts.take_changed()
        for release_id, counts in changed.items():
            try:
                with self._ws.store.write(durable=False) as conn:
                    traffic.put(conn, release_id, counts, source=self._source, now=self._ws.clock())
            except Exception:
                self._counts.give_back(release_id, counts)
                raise

    def _decide(self, release: Release) -> None:
        now = time.monotonic()
        watched = self._watched.get(release.id)
        if watched is None or watched.stage != release.stage:
            labels = Labels() if watched is None else watched.labels
            watched = self._watched[release.id] = _Watched(release.stage, now, labels)
        self._renew_labels(release, watched)
        decision = judging.decision_of(
            self._ws, release, labels=watched.labels, stage_elapsed_s=time.monotonic() - watched.since
        )
        lines = judging.carry_out(self._ws, release, _allowed(release, decision), actor="serve")
        if lines:
            self._lineup.look()
        for line in lines:
            _log.info("release %s: %s: %s", release.id, line.kind, line.reason)

    def _renew_labels(self, release: Release, watched: _Watched) -> None:
        """Read the labels anew where any came, and not so often that nothing else is done."""
        if time.monotonic() < watched.labels_due or outcomes.are_current(self._ws, watched.labels):
            return
        began_at = time.thread_time()
        watched.labels = outcomes.labels_of(self._ws, release)
        watched.labels_due = time.monotonic() + (time.thread_time() - began_at) / _LABELS_SHARE


def _allowed(release: Release, decision: Decision) -> Decision:
    """What a server may do about a decision by itself."""
    if release.policy != SHADOW:
        return decision
    channels = {name: verdict for name, verdict in decision.channels.items() if verdict == "reject"}
    kept = replace(decision, channels=channels)
    return kept if decision.verdict == "reject" else replace(kept, verdict="hold")

"""Limits and usage of one server: who may ask now, and what was used.

    a request -> `admit`: the rate of its key -> `admit_rows`: the rate of its channel, the rows of the day -> answer
    counts in memory -> each second -> table `usage`; refused requests -> each minute -> audit log

There is one server process in front of all workers, so that all of them share a limit. Several servers on one workspace
have a rate each, and one quota of rows, which each learns of from the store twice a minute. A kill loses the counts of
the last second; a server that is told to stop loses none. No request waits for any of this.
"""

import logging
import math
import os
import threading
import time
import uuid
from collections.abc import Callable, Hashable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from typing import Any

from headrace import auditing
from headrace.access.keyring import Keyring
from headrace.access.limits import Buckets, Days, Rate, day_start, midnight_in_s
from headrace.errors import HeadraceError, TooMany, Unauthorized
from headrace.records import Channel
from headrace.serve.pool import Answer
from headrace.server.metrics import Metrics
from headrace.server.repeating import repeating
from headrace.server.terms import CURRENT, LIMITS
from headrace.store import usage as rows
from headrace.store.usage import Place, Used
from headrace.workspace import Workspace

_log = logging.getLogger("headrace.server")

EVERY_S = 1.0
_RENEW_EVERY_S = 30.0
_AUDIT_EVERY_S = 60.0
_MAX_PLACES = 100_000  # counted and not written yet, while the store cannot be written
_MAX_REFUSALS = 100  # lines of the audit log in a minute
_N_CLAIMED = 5
NOBODY = "nobody"
"""Actor of a line about refused requests without a key that counts."""


@dataclass(slots=True)
class _Refusals:
    """Requests of one key that were refused for one reason."""

    code: str
    n: int = 0
    claimed: set[str] = field(default_factory=set)
    """Ids of keys that do not count, as they were sent."""


@dataclass(slots=True)
class Admitted:
    """Rows that may be answered; `settle` it once, whatever came of them."""

    metering: "Metering"
    key_id: str
    channel_id: str
    task: str
    n_rows: int

    def settle(self, answer: Answer | None) -> None:
        """Count what was answered; None: nothing was."""
        self.metering.settle(self, answer)


class Metering:
    """Limits and counts. Use as a context manager, after the store is open; leaving writes the last counts.

    Requests are admitted and settled on the event loop's thread; a thread of this object writes.
    """

    def __init__(
        self,
        ws: Workspace,
        keyring: Keyring,
        metrics: Metrics,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ws, self._keyring, self._metrics, self._monotonic = ws, keyring, metrics, monotonic
        self._access, self._channels = ws.settings.access, ws.settings.channels
        self._source = f"{os.getpid()}-{uuid.uuid4().hex[:16]}"
        self._buckets, self._days = Buckets(), Days()
        self._counts: dict[Place, Used] = {}
        self._refusals: dict[tuple[str, str], _Refusals] = {}
        self._lock = threading.Lock()  # of what both threads use: counts, days and refusals
        self._renewed_at = self._audited_at = -math.inf
        self._parts = ExitStack()

    def __enter__(self) -> "Metering":
        self.keep()
        self._audited_at = self._monotonic()
        self._parts.enter_context(repeating("headrace-metering", self.keep, first_s=EVERY_S, every_s=EVERY_S))
        return self

    def __exit__(self, *_: object) -> None:
        self._parts.close()
        self._audited_at = -math.inf
        self.keep()

    def admit(self, key_id: str, scope: str) -> None:
        """Let a request of a key pass, and have its answer say what is left.

        Args:
            scope: what the request needs of the key; each scope has a budget of its own.

        Raises:
            TooMany: the key asks too often.
        """
        record = self._keyring.find(key_id)
        own = None if record is None else record.requests_per_s
        per_s = self._access.requests_per_s if own is None else own
        if not per_s:
            return
        rate, now, name = _rate(per_s, self._access.burst_s), self._monotonic(), (key_id, scope)
        wait_s = self._buckets.wait_s(name, rate, now)
        if not wait_s:
            self._buckets.take(name, rate, now)
        left = self._buckets.standing(name, rate, now)
        policy = b'"requests";q=%d;w=%d' % (rate.burst, math.ceil(rate.burst / per_s))
        CURRENT.get().state[LIMITS] = [
            (b"ratelimit-policy", policy),
            (b"ratelimit", b'"requests";r=%d;t=%d' % (left.left, left.full_in_s)),
        ]
        if wait_s:
            self._refuse(key_id, "", "", "the key asks too often", f"{per_s:g} requests/s", wait_s)

    def admit_rows(self, key_id: str, channel: Channel, task: str, n_rows: int) -> Admitted:
        """Let the rows of a request pass.

        Raises:
            TooMany: the channel is asked for too often, or has had its rows of the day, or the key has.
        """
        table = self._channels.get(channel.name)
        self._check_rows(key_id, channel, task, n_rows)
        if table is not None and table.requests_per_s:
            rate, now = _rate(table.requests_per_s, self._access.burst_s), self._monotonic()
            if wait_s := self._buckets.wait_s(_channel(channel.id), rate, now):
                why = "too many ask for the channel"
                self._refuse(key_id, channel.id, task, why, f"{table.requests_per_s:g} requests/s", wait_s)
            self._buckets.take(_channel(channel.id), rate, now)
        with self._lock:
            self._days.admit(_key(key_id), n_rows)
            self._days.admit(_channel(channel.id), n_rows)
        return Admitted(self, key_id, channel.id, task, n_rows)

    def settle(self, admitted: Admitted, answer: Answer | None) -> None:
        """See `Admitted.settle`."""
        n_answered = 0 if answer is None else sum("error" not in row for row in answer.rows)
        with self._lock:
            self._days.settle(_key(admitted.key_id), admitted.n_rows, n_answered)
            self._days.settle(_channel(admitted.channel_id), admitted.n_rows, n_answered)
            if answer is not None and n_answered:
                used = Used(1, 0, n_answered, answer.n_tokens, answer.busy_s)
                self._count(admitted.key_id, admitted.channel_id, admitted.task, used)

    def note_refused(self, key_id: str, error: HeadraceError) -> None:
        """Count a request that was not let in, for the metrics and for the audit log.

        Args:
            key_id: empty where none that counts was sent.
        """
        self._metrics.note_refused(error.code)
        place = (key_id, error.problem)
        with self._lock:
            if place not in self._refusals and len(self._refusals) >= _MAX_REFUSALS:
                place = ("", "other requests that were refused")
            refusals = self._refusals.setdefault(place, _Refusals(error.code))
            refusals.n += 1
            if isinstance(error, Unauthorized) and error.value is not None and len(refusals.claimed) < _N_CLAIMED:
                refusals.claimed.add(str(error.value))

    def keep(self, _stop: threading.Event | None = None) -> None:
        """Write what was counted; now and then, tell the audit log of refusals and look at what others counted."""
        now = self._monotonic()
        try:
            self._write_counts()
            if now - self._audited_at >= _AUDIT_EVERY_S:
                self._audited_at = now
                self._write_refusals()
            if now - self._renewed_at >= _RENEW_EVERY_S or not self._days.is_of(self._ws.clock()):
                self._renew()
                self._renewed_at = now
            self._metrics.note_audit_log(*auditing.head(self._ws))
        except Exception:  # the border of one look: what serves goes on serving, and counts stay to be written
            _log.warning("usage could not be written", exc_info=True)

    def _check_rows(self, key_id: str, channel: Channel, task: str, n_rows: int) -> None:
        """
        Raises:
            TooMany: key or channel has had its rows of the day.
        """
        now = self._ws.clock()
        if not self._days.is_of(now):  # what others counted in it, and what a clock that went back knew, comes soon
            with self._lock:
                self._days.begin(now, {})
            self._renewed_at = -math.inf
        record, table = self._keyring.find(key_id), self._channels.get(channel.name)
        own = None if record is None else record.rows_per_day
        of_key = self._access.rows_per_day if own is None else own
        of_channel = 0 if table is None else table.rows_per_day or 0
        limits: tuple[tuple[Hashable, int, str], ...] = (
            (_key(key_id), of_key, "the key has had its rows of the day"),
            (_channel(channel.id), of_channel, "the channel has had its rows of the day"),
        )
        for name, limit, why in limits:
            if limit and self._days.used(name) + n_rows > limit:
                left = max(0, limit - self._days.used(name))
                value, wait_s = f"{limit} rows, {left} left", midnight_in_s(now)
                self._refuse(key_id, channel.id, task, why, value, wait_s)

    def _refuse(self, key_id: str, channel_id: str, task: str, why: str, value: str, wait_s: float) -> None:
        """
        Raises:
            TooMany: always.
        """
        error = TooMany(why, value=value, next_step=f"Try again in {math.ceil(wait_s)} s")
        error.retry_after_s = wait_s
        with self._lock:
            self._count(key_id, channel_id, task, Used(n_refused=1))
        self.note_refused(key_id, error)
        raise error

    def _count(self, key_id: str, channel_id: str, task: str, used: Used) -> None:
        """Called with the lock."""
        hour = self._ws.clock().replace(minute=0, second=0, microsecond=0)
        place = Place(key_id, channel_id, task, hour)
        known = self._counts.get(place)
        if known is None and len(self._counts) >= _MAX_PLACES:
            self._metrics.lost_usage.inc()
        else:
            self._counts[place] = used if known is None else known + used

    def _write_counts(self) -> None:
        with self._lock:
            taken, self._counts = self._counts, {}
        if not taken:
            return
        try:
            with self._ws.store.write(durable=False) as conn:
                rows.add(conn, taken, source=self._source)
        except Exception:
            with self._lock:
                for place, used in self._counts.items():
                    taken[place] = taken.get(place, Used()) + used
                self._counts = taken
            raise

    def _write_refusals(self) -> None:
        with self._lock:
            taken, self._refusals = self._refusals, {}
        if not taken:
            return
        try:
            with self._ws.store.write() as conn:
                for (key_id, why), one in taken.items():
                    facts: dict[str, Any] = {"code": one.code, "n": one.n}
                    facts |= {"claimed": sorted(one.claimed)} if one.claimed else {}
                    auditing.note(self._ws, conn, "refused", why, facts=facts, actor=key_id or NOBODY)
        except Exception:
            with self._lock:
                for place, one in self._refusals.items():
                    kept = taken.setdefault(place, _Refusals(one.code))
                    kept.n += one.n
                    kept.claimed.update(sorted(one.claimed)[: _N_CLAIMED - len(kept.claimed)])
                self._refusals = taken
            raise

    def _renew(self) -> None:
        """Take the rows of the day from the store, where those of other servers are, too; then add what is not there
        yet."""
        now = self._ws.clock()
        since = day_start(now)
        until = since + timedelta(days=1)
        with self._ws.store.read() as conn:
            of_keys = rows.rows_by_key(conn, since=since, until=until)
            of_channels = rows.rows_by_channel(conn, since=since, until=until)
        known: dict[Hashable, int] = {_key(key_id): n for key_id, n in of_keys.items()}
        known |= {_channel(channel_id): n for channel_id, n in of_channels.items()}
        with self._lock:
            for place, used in self._counts.items():
                if since <= place.hour < until:
                    for name in (_key(place.key_id), _channel(place.channel_id)):
                        known[name] = known.get(name, 0) + used.n_rows
            self._days.begin(now, known)


def _key(key_id: str) -> Hashable:
    return "key", key_id


def _channel(channel_id: str) -> Hashable:
    return "channel", channel_id


@lru_cache(maxsize=1024)
def _rate(per_s: float, burst_s: float) -> Rate:
    return Rate.over(per_s, burst_s)

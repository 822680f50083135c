"""What a server counts, in Prometheus' words. Names carry their unit; labels are few and bounded."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_MAX_CHANNELS = 100
_OTHER = "other"


class Metrics:
    """The counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._channels: set[str] = set()
        self._audit_head = (-1, "")
        self.requests = self._counter("requests", "HTTP requests answered", "route", "status")
        self.seconds = self._histogram("request_seconds", "Time to answer", _SECONDS, "route")
        self.predictions = self._counter("predictions", "Rows answered", "task", "arm", "result")
        self.feedback = self._counter("feedback", "Feedback taken", "kind")
        self.failed_writes = self._counter("failed_writes", "Rows of the prediction log that could not be written")
        self.dropped_log_rows = self._counter("dropped_log_rows", "Rows not logged because the log's queue was full")
        self.sheds = self._counter("sheds", "Requests refused because of load", "code")
        self.late = self._counter("late_requests", "Requests not answered within the time they allowed")
        self.abandoned = self._counter("abandoned_requests", "Requests whose client went away before the answer")
        self.release_requests = self._counter(
            "release_requests", "Requests that took part in a release", "task", "arm", "result"
        )
        self._swaps = self._counter("swaps", "Changes of who answers for a task", "task")
        self._cuts = self._counter("cut_connections", "Connections closed because of their client", "why")
        self._channel_rows = self._counter("channel_rows", "Rows by channel, a hundred by name", "channel", "result")
        self._stages = self._histogram("stage_seconds", "Time of a request or a batch in one stage", _SECONDS, "stage")
        self._batch_rows = self._histogram("batch_rows", "Rows of a batch", _ROWS)
        self._tokens = self._counter("tokens", "Tokens of all batches, about")
        self._live = self._gauge("live_accuracy", "Share of right answers by audits", "task", "channel", "end")
        self._alarms = self._gauge("drift_alarms", "Open alarms of drift", "task", "channel")
        self._refused = self._counter("refused_requests", "Requests that were not let in, by the code of why", "code")
        self.lost_usage = self._counter("lost_usage", "Requests not counted since too much waits to be written")
        self._audit_log = self._gauge("audit_log_lines", "Lines of the audit log, with the hash of the newest", "hash")
        self._late_rows = self._counter("late_rows", "Rows begun after their deadline; always 0")

    def watch(self, name: str, meaning: str, read: Callable[[], float]) -> None:
        """A gauge that is read when asked."""
        Gauge(f"headrace_{name}", meaning, registry=self._registry).set_function(read)

    def note_batches(self, batches: Iterable[Mapping[str, Any]]) -> None:
        """Figures of batches, as a worker gives them."""
        for batch in batches:
            self._batch_rows.observe(batch["n_rows"])
            self._tokens.inc(batch["n_tokens"])
            self._late_rows.inc(batch["n_late_rows"])
            for name, seconds in batch.items():
                if name.endswith("_s"):
                    self.note_stage(name.removesuffix("_s"), seconds)

    def note_stage(self, stage: str, seconds: float) -> None:
        self._stages.labels(stage).observe(seconds)

    def note_rows(self, channel: str, result: str, n_rows: int = 1) -> None:
        """Rows of a channel that were answered, or were not."""
        if len(self._channels) < _MAX_CHANNELS:
            self._channels.add(channel)
        self._channel_rows.labels(channel if channel in self._channels else _OTHER, result).inc(n_rows)

    def note_swap(self, task: str) -> None:
        self._swaps.labels(task).inc()

    def note_refused(self, code: str) -> None:
        self._refused.labels(code).inc()

    def note_audit_log(self, n_lines: int, head: str) -> None:
        """The audit log as it is now: whoever keeps what was scraped can tell whether lines are gone."""
        if (n_lines, head) != self._audit_head:
            self._audit_log.clear()
            self._audit_log.labels(head).set(n_lines)
            self._audit_head = (n_lines, head)

    def note_cut(self, why: str) -> None:
        self._cuts.labels(why).inc()

    def note_live(
        self, shares: Mapping[tuple[str, str, str], float], n_alarms: Mapping[tuple[str, str], float]
    ) -> None:
        """What audits and drift say now, in place of what they said before.

        Args:
            shares: (task, channel, end) to live accuracy or an end of its interval.
            n_alarms: (task, channel) to open alarms.
        """
        for gauge, values in ((self._live, shares), (self._alarms, n_alarms)):
            gauge.clear()
            for labels, value in values.items():
                gauge.labels(*labels).set(value)

    def text(self) -> bytes:
        return generate_latest(self._registry)

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"headrace_{name}", meaning, labels, registry=self._registry)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(f"headrace_{name}", meaning, labels, registry=self._registry)

    def _histogram(self, name: str, meaning: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"headrace_{name}", meaning, labels, buckets=buckets, registry=self._registry)

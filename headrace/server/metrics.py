"""What a server counts, in Prometheus' words. Names carry their unit; labels are few and bounded."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter("headrace_requests", "HTTP requests answered", ["route", "status"], registry=registry)
        self.seconds = Histogram("headrace_request_seconds", "Time to answer", ["route"], registry=registry)
        self.predictions = Counter(
            "headrace_predictions", "Rows answered", ["task", "arm", "result"], registry=registry
        )
        self.feedback = Counter("headrace_feedback", "Feedback taken", ["kind"], registry=registry)
        self.failed_writes = Counter(
            "headrace_failed_writes", "Prediction logs that could not be written", registry=registry
        )

    def watch(self, name: str, meaning: str, read: Callable[[], float]) -> None:
        """A gauge that is read when asked."""
        Gauge(f"headrace_{name}", meaning, registry=self._registry).set_function(read)

    def text(self) -> bytes:
        return generate_latest(self._registry)

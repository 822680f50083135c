"""The client that waits: calls carried out one by one in the caller's thread."""

import time
from collections.abc import Generator, Sequence
from typing import Any, TypeVar

import httpx

from headrace.client.calls import OPTIONS, Ask, Calls, Came, Given, Reply, Wait
from headrace.errors import BadInput

_T = TypeVar("_T")


class Client:
    """A connection to one server. Calls raise the errors of headrace.errors that the server answered with.

    Threads may share one. A call is tried at most three times within its time limit, again only where that can help,
    and a client whose calls keep failing tries again less and less often.
    """

    def __init__(self, base_url: str, *, timeout_s: float = 30) -> None:
        """Args: timeout_s: for a whole call with its attempts and pauses, where the call gives none."""
        self._calls = Calls(base_url, timeout_s)
        try:
            self._http = httpx.Client(base_url=self._calls.url, **OPTIONS)
        except httpx.InvalidURL as error:
            raise BadInput(f"not a URL: {error}", value=base_url, next_step="Use http://HOST:PORT") from None

    def predict(
        self,
        task: str,
        channel: str,
        inputs: Sequence[Given],
        unit: str | None = None,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> dict[str, Any]:
        """Answers in the order of `inputs`, in the shape of POST /v1/predict.

        Args:
            inputs: texts, objects with the fields of the API, such as `{"question": "...", "context": "..."}`, or
                lists of turns `[{"role": "user", "text": "..."}]`.
            timeout_s: for this call; the server is told, and drops what it has not begun by then.
            request_id: what the logs of both sides call this request; made up where none is given.

        Raises:
            BadInput: an input is empty, too long or not of the task's shape, or there are too many.
            NotFound: no such task or channel.
            TooMany, Unavailable: the channel or the server is overloaded, or no server is there, also after three
                attempts.
            TooLate: no answer within the time.
        """
        return self._done(self._calls.predict(task, channel, inputs, unit, timeout_s, request_id))

    def feedback(
        self,
        prediction_id: str,
        *,
        correction: object = None,
        metric: str | None = None,
        value: float | None = None,
        comment: str | None = None,
        labeller: str = "anonymous",
        idempotency_key: str | None = None,
        timeout_s: float | None = None,
    ) -> str:
        """Say what came of a prediction: a correction, a metric with its value, or a comment. The feedback's id.

        Args:
            idempotency_key: the same key is taken once; without one, each call is feedback of its own and still
                counts once, however often it is sent again.

        Raises:
            BadInput: not exactly one of the three, or the correction is no label of the task.
            NotFound: no such prediction.
            AlreadyExists: the key came before with other feedback.
            Unavailable, TooLate: see `predict`.
        """
        said = {"correction": correction, "metric": metric, "value": value, "comment": comment}
        return self._done(self._calls.feedback(prediction_id, said, labeller, idempotency_key, timeout_s))

    def ready(self, *, timeout_s: float | None = None) -> bool:
        """Whether the server is there and takes requests. Asks once."""
        return self._done(self._calls.ready(timeout_s))

    def models(self, *, timeout_s: float | None = None) -> list[dict[str, Any]]:
        """What serves now: a line per task and arm."""
        return self._done(self._calls.models(timeout_s))

    def release_status(self, task: str, *, timeout_s: float | None = None) -> dict[str, Any]:
        """Who answers, who is tried and how that stands, as `headrace.release_status` says of a workspace at hand.

        Raises:
            NotFound: no such task.
        """
        return self._done(self._calls.release_status(task, timeout_s))

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _done(self, call: Generator[Ask | Wait, Came, _T]) -> _T:
        came: Came = None
        while True:
            try:
                step = call.send(came)
            except StopIteration as stop:
                answer: _T = stop.value
                return answer
            if isinstance(step, Wait):
                time.sleep(step.seconds)
                came = None
            else:
                came = self._sent(step)

    def _sent(self, ask: Ask) -> Came:
        over_at = time.monotonic() + ask.timeout_s
        sending = self._http.stream(
            ask.method, ask.path, content=ask.content, headers=dict(ask.headers), timeout=ask.timeout_s
        )
        try:
            with sending as response:
                chunks = []
                for chunk in response.iter_bytes():
                    chunks.append(chunk)
                    if time.monotonic() > over_at:  # httpx's limit is for each chunk
                        raise httpx.ReadTimeout("the answer came too slowly")
                return Reply(response.status_code, response.headers, b"".join(chunks))
        except httpx.TransportError as error:
            return error

"""The client that waits: calls carried out one by one in the caller's thread."""

import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx

from headrace.client.calls import OPTIONS, Ask, Calls, Came, Given, Reply, Result, Wait, in_parts, trusted
from headrace.errors import BadInput

_T = TypeVar("_T")


class Client:
    """A connection to one server. Calls raise the errors of headrace.errors that the server answered with.

    Threads may share one. A call is tried at most three times within its time limit, again only where that can help,
    and a client whose calls keep failing tries again less and less often.
    """

    def __init__(
        self,
        base_url: str,
        *,
        key: str | None = None,
        timeout_s: float = 30,
        certificates: Path | str | None = None,
    ) -> None:
        """
        Args:
            key: what the server asks for; default: the environment's HEADRACE_KEY.
            timeout_s: for a whole call with its attempts and pauses, where the call gives none.
            certificates: file of the authorities that an https server is checked against; default: the system's.

        Raises:
            BadInput: no URL, a key that cannot be sent, or a file that cannot be read.
        """
        self._calls = Calls(base_url, timeout_s, key)
        verify = trusted(certificates)
        try:
            self._http = httpx.Client(base_url=self._calls.url, headers=self._calls.headers, verify=verify, **OPTIONS)
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
        event: str | None = None,
        channel: str | None = None,
        labeller: str = "anonymous",
        idempotency_key: str | None = None,
        timeout_s: float | None = None,
    ) -> str:
        """Say what came of a prediction: a correction, a metric with its value, a comment or an event. Its id.

        Args:
            event: shown, clicked, accepted, edited or escalated.
            channel: who says it; a prediction of another channel is none for it.
            idempotency_key: the same key is taken once; without one, each call is feedback of its own and still
                counts once, however often it is sent again.

        Raises:
            BadInput: not exactly one of the four, the correction is no label of the task, or the metric is not
                declared.
            NotFound: no such prediction.
            WrongState: the prediction is older than feedback.window_days.
            AlreadyExists: the key came before with other feedback.
            Unavailable, TooLate: see `predict`.
        """
        said = {
            "correction": correction,
            "metric": metric,
            "value": value,
            "comment": comment,
            "event": event,
            "channel": channel,
        }
        return self._done(self._calls.feedback(prediction_id, said, labeller, idempotency_key, timeout_s))

    def feedback_batch(self, given: Iterable[Mapping[str, Any]], *, timeout_s: float | None = None) -> list[Result]:
        """Say what came of many predictions; of each, in order, the feedback's id or the error that kept it out.

        Args:
            given: objects with the arguments of `feedback`, such as `{"prediction_id": "...", "event": "accepted"}`.
            timeout_s: for each request; one carries 500.

        Raises:
            Unavailable, TooLate: see `predict`. What was taken before is kept, and counts once when it is sent again
                under idempotency keys of yours.
        """
        return self._done(self._calls.feedback_batch(given, timeout_s))

    def feedback_stream(
        self, given: Iterable[Mapping[str, Any]], *, timeout_s: float | None = None
    ) -> Iterator[Result]:
        """`feedback_batch` for what does not fit into memory: results come while `given` is being read."""
        for part in in_parts(given):
            yield from self._done(self._calls.feedback_lines(part, timeout_s))

    def next_reviews(
        self,
        task: str,
        *,
        labeller: str = "anonymous",
        channel: str | None = None,
        n: int = 1,
        timeout_s: float | None = None,
    ) -> list[dict[str, Any]]:
        """What a labeller is to answer next, at most `n`: each with `id`, `channel`, `text` and `text_pair`."""
        return self._done(self._calls.next_reviews(task, labeller, channel, n, timeout_s))

    def answer_review(
        self, review_id: str, answer: object, *, labeller: str = "anonymous", timeout_s: float | None = None
    ) -> dict[str, Any]:
        """Answer a review with a label of the task. The same again changes nothing.

        Raises:
            BadInput: no label of the task.
            NotFound: no such review, or what it asks about is gone.
            WrongState: somebody else has answered it, or it was skipped.
        """
        return self._done(self._calls.answer_review(review_id, {"answer": answer, "labeller": labeller}, timeout_s))

    def skip_review(
        self, review_id: str, *, labeller: str = "anonymous", timeout_s: float | None = None
    ) -> dict[str, Any]:
        """Leave a review without an answer; raises as `answer_review` does."""
        return self._done(self._calls.answer_review(review_id, {"skip": True, "labeller": labeller}, timeout_s))

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

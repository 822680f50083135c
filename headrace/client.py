"""Talk to a headrace server: `with Client("http://127.0.0.1:8000") as client: client.predict(...)`."""

import json
import random
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx

from headrace.errors import BadInput, HeadraceError, Unavailable, from_envelope

_MAX_ATTEMPTS = 3
_FIRST_PAUSE_S = 1.0  # what the server says in Retry-After
_MAX_PAUSE_S = 5.0


class Client:
    """A connection to one server. Calls raise the errors of headrace.errors that the server answered with."""

    def __init__(self, base_url: str, *, timeout_s: float = 30) -> None:
        self._url, self._timeout_s = base_url.rstrip("/"), timeout_s
        try:  # not through a proxy of the environment: the server is on this machine
            self._http = httpx.Client(base_url=self._url, timeout=timeout_s, trust_env=False)
        except httpx.InvalidURL as error:
            raise BadInput(f"not a URL: {error}", value=base_url, next_step="Use http://HOST:PORT") from None

    def predict(
        self, task: str, channel: str, inputs: Sequence[str | Mapping[str, Any] | list[Any]], unit: str | None = None
    ) -> dict[str, Any]:
        """Answers in the order of `inputs`, in the shape of POST /v1/predict.

        Args:
            inputs: texts, objects with the fields of the API, such as `{"question": "...", "context": "..."}`, or
                lists of turns `[{"role": "user", "text": "..."}]`.

        Raises:
            BadInput: an input is empty, too long or not of the task's shape, or there are too many.
            NotFound: no such task or channel.
            Unavailable: no server there, or it is overloaded, also after three attempts.
        """
        rows = [_as_object(row) for row in inputs]
        body = {"task": task, "channel": channel, "inputs": rows}
        return self._call("POST", "/v1/predict", body | ({} if unit is None else {"unit": unit}))

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
    ) -> str:
        """Say what came of a prediction: a correction, a metric with its value, or a comment. The feedback's id.

        Args:
            idempotency_key: the same key is taken once; without one, each call is feedback of its own and still
                counts once, however often it is sent again.

        Raises:
            BadInput: not exactly one of the three, or the correction is no label of the task.
            NotFound: no such prediction.
            AlreadyExists: the key came before with other feedback.
            Unavailable: see `predict`.
        """
        said = {"correction": correction, "metric": metric, "value": value, "comment": comment}
        body: dict[str, object] = {"prediction_id": prediction_id, "labeller": labeller}
        body |= {name: given for name, given in said.items() if given is not None}
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        answer: str = self._call("POST", "/v1/feedback", body, headers)["id"]
        return answer

    def ready(self) -> bool:
        """Whether the server is there and takes requests. Asks once and never raises `Unavailable`."""
        try:
            self._send("GET", "/v2/health/ready", None, {})
        except Unavailable:
            return False
        return True

    def models(self) -> list[dict[str, Any]]:
        """What serves now: a line per task and arm."""
        found: list[dict[str, Any]] = self._call("GET", "/v1/models", None)["models"]
        return found

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, method: str, path: str, body: object, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Send until it is answered, at most three times within the time limit; only what may be sent again."""
        give_up_at = time.monotonic() + self._timeout_s
        for pause_s in _pauses_s():
            try:
                return self._send(method, path, body, headers or {})
            except HeadraceError as error:
                if not error.retryable or time.monotonic() + pause_s > give_up_at:
                    raise
                time.sleep(pause_s)
        return self._send(method, path, body, headers or {})

    def _send(self, method: str, path: str, body: object, headers: Mapping[str, str]) -> dict[str, Any]:
        sent = {**headers, "Content-Type": "application/json"}
        try:
            response = self._http.request(method, path, content=_as_json(body), headers=sent)
        except httpx.TimeoutException:
            raise Unavailable("the server did not answer in time", value=self._url, next_step="Try again") from None
        except httpx.TransportError as error:
            raise Unavailable(
                f"no server answers there ({error or type(error).__name__})",
                value=self._url,
                next_step="Start one: headrace serve",
            ) from None
        if not response.is_success:
            raise _error_from(response)
        try:
            answer: dict[str, Any] = response.json()
        except ValueError:
            raise _foreign(response) from None
        return answer


def _as_object(given: str | Mapping[str, Any] | list[Any]) -> dict[str, Any]:
    if isinstance(given, str):
        return {"text": given}
    return {"turns": given} if isinstance(given, list) else dict(given)


def _as_json(body: object) -> str | None:
    try:
        return (
            None if body is None else json.dumps(body)
        )  # in ASCII, so that half a surrogate reaches the server's check
    except (TypeError, ValueError) as error:
        raise BadInput(
            f"cannot be sent as JSON: {error}", value=body, next_step="Use text, numbers, lists, dicts"
        ) from None


def _pauses_s() -> Iterator[float]:
    """Pauses between attempts, doubling, spread so that many clients do not come back at one moment."""
    for attempt in range(_MAX_ATTEMPTS - 1):
        yield min(_MAX_PAUSE_S, _FIRST_PAUSE_S * 2**attempt) * random.uniform(0.5, 1.5)


def _error_from(response: httpx.Response) -> HeadraceError:
    """The error of the tree that an envelope names."""
    try:
        return from_envelope(response.json())
    except (ValueError, KeyError, TypeError):
        return _foreign(response)


def _foreign(response: httpx.Response) -> HeadraceError:
    return HeadraceError(
        f"the answer with status {response.status_code} is not headrace's",
        value=response.text,
        next_step=f"Check what listens at {response.url}",
    )

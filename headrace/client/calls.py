"""What happens between a call and its answer, without any of it being done here.

A call is a generator: it yields what to send and how long to wait, and is sent what came of it. blocking.py and
awaiting.py carry calls out; neither decides anything.
"""

import json
import os
import random
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import httpx

from headrace.errors import BadInput, HeadraceError, TooLate, Unavailable, from_envelope

_T = TypeVar("_T")

Result = str | HeadraceError
"""Of one feedback of many: its id, or why it was not taken."""

Given = str | Mapping[str, Any] | list[Any]
"""A text, an object with the fields of the API, or a list of turns."""

_PART = 500  # feedbacks in one request
_PART_CHARS = 2**22
_MAX_ATTEMPTS = 3  # Google SRE book, chapter 21
_FIRST_PAUSE_S = 1.0
_MAX_TOLD_MS = 999_999_999
_BUSY = (429, 503)
_MAX_BUDGET = 10.0  # retries in a row
_EARNED = (
    0.1  # of a retry by each answer: while a server fails for long, retries add a tenth to its load, not double it
)
_IDLE_S = 4.0  # the server closes idle connections after 5 s; one that closes as it is used costs an attempt

KEY_VARIABLE = "HEADRACE_KEY"
"""Of the environment: the key of a client that is given none."""

OPTIONS: Mapping[str, Any] = {
    "trust_env": False,  # not through a proxy of the environment: the server is on this machine
    "limits": httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=_IDLE_S),
}
"""Of the httpx client that carries calls out: connections are kept and used again."""


@dataclass(frozen=True)
class Ask:
    """Send this, and send back a `Reply` or the error of the transport."""

    method: str
    path: str
    content: str | None
    headers: Mapping[str, str]
    timeout_s: float
    """For all of it, until the last byte of the answer."""


@dataclass(frozen=True)
class Wait:
    """Let this time pass, and send back None."""

    seconds: float


@dataclass(frozen=True)
class Reply:
    """A response, read to its end."""

    status: int
    headers: Mapping[str, str]
    """Names in any case."""
    content: bytes


Came = Reply | httpx.TransportError | None


class Calls:
    """The calls to one server. Shared by the threads or tasks of one client."""

    def __init__(
        self, base_url: str, timeout_s: float, key: str | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.url, self._timeout_s, self._clock = base_url.rstrip("/"), timeout_s, clock
        self._budget = _Budget()
        self.headers = _of_key(os.environ.get(KEY_VARIABLE) if key is None else key)
        """Of every request."""

    def predict(
        self,
        task: str,
        channel: str,
        inputs: Sequence[Given],
        unit: str | None,
        timeout_s: float | None,
        request_id: str | None,
    ) -> Generator[Ask | Wait, Came, dict[str, Any]]:
        body = {"task": task, "channel": channel, "inputs": [_as_object(given) for given in inputs]}
        headers = {"X-Request-Id": _as_header("request_id", request_id)}
        return (
            yield from self._answered(
                "POST", "/v1/predict", body | ({} if unit is None else {"unit": unit}), headers, timeout_s
            )
        )

    def feedback(
        self, prediction_id: str, said: Mapping[str, Any], labeller: str, key: str | None, timeout_s: float | None
    ) -> Generator[Ask | Wait, Came, str]:
        body = {"prediction_id": prediction_id, "labeller": labeller}
        body |= {name: given for name, given in said.items() if given is not None}
        headers = {"Idempotency-Key": _as_header("idempotency_key", key)}
        answer = yield from self._answered("POST", "/v1/feedback", body, headers, timeout_s)
        return str(answer["id"])

    def feedback_batch(
        self, given: Iterable[Mapping[str, Any]], timeout_s: float | None
    ) -> Generator[Ask | Wait, Came, list[Result]]:
        results: list[Result] = []
        for part in in_parts(given):
            content = f'{{"feedbacks": [{", ".join(part)}]}}'
            results += yield from self._attempted(
                "POST", "/v1/feedback/batch", content, {}, timeout_s, partial(_batch_results, len(part))
            )
        return results

    def feedback_lines(self, part: Sequence[str], timeout_s: float | None) -> Generator[Ask | Wait, Came, list[Result]]:
        """The results of one part of a stream, as `in_parts` makes them."""
        content = "".join(f"{line}\n" for line in part)
        headers = {"Content-Type": "application/x-ndjson"}
        parse = partial(_line_results, len(part))
        return (yield from self._attempted("POST", "/v1/feedback/stream", content, headers, timeout_s, parse))

    def models(self, timeout_s: float | None) -> Generator[Ask | Wait, Came, list[dict[str, Any]]]:
        found: list[dict[str, Any]] = (yield from self._answered("GET", "/v1/models", None, {}, timeout_s))["models"]
        return found

    def release_status(self, task: str, timeout_s: float | None) -> Generator[Ask | Wait, Came, dict[str, Any]]:
        path = f"/v1/releases/{quote(task, safe='')}"
        found: dict[str, Any] = yield from self._answered("GET", path, None, {}, timeout_s)
        return found

    def next_reviews(
        self, task: str, labeller: str, channel: str | None, n: int, timeout_s: float | None
    ) -> Generator[Ask | Wait, Came, list[dict[str, Any]]]:
        asked = {"task": task, "labeller": labeller, "n": n} | ({} if channel is None else {"channel": channel})
        found = yield from self._answered("GET", f"/v1/reviews?{urlencode(asked)}", None, {}, timeout_s)
        reviews: list[dict[str, Any]] = found["reviews"]
        return reviews

    def answer_review(
        self, review_id: str, said: Mapping[str, Any], timeout_s: float | None
    ) -> Generator[Ask | Wait, Came, dict[str, Any]]:
        path = f"/v1/reviews/{quote(review_id, safe='')}"
        found: dict[str, Any] = yield from self._answered("POST", path, dict(said), {}, timeout_s)
        return found

    def ready(self, timeout_s: float | None) -> Generator[Ask | Wait, Came, bool]:
        came = yield Ask("GET", "/v2/health/ready", None, {}, timeout_s or self._timeout_s)
        try:
            self._read(came, _object)
        except HeadraceError as error:
            if error.retryable:
                return False
            raise
        return True

    def _answered(
        self, method: str, path: str, body: object, headers: Mapping[str, str], timeout_s: float | None
    ) -> Generator[Ask | Wait, Came, dict[str, Any]]:
        """The answer, an object."""
        return (yield from self._attempted(method, path, _as_json(body), headers, timeout_s, _object))

    def _attempted(
        self,
        method: str,
        path: str,
        content: str | None,
        headers: Mapping[str, str],
        timeout_s: float | None,
        parse: Callable[[bytes], _T],
    ) -> Generator[Ask | Wait, Came, _T]:
        """The answer, after at most three attempts within the time. All that is asked here may be asked again.

        Args:
            parse: reads the body of a good answer; ValueError, KeyError and TypeError mean that it is none.
        """
        give_up_at = self._clock() + (timeout_s or self._timeout_s)
        for attempt in range(1, _MAX_ATTEMPTS + 1):
            left_s = give_up_at - self._clock()
            left_ms = min(_MAX_TOLD_MS, max(1, int(left_s * 1000)))
            told = {"Content-Type": "application/json", **headers, "X-Request-Timeout-Ms": str(left_ms)}
            came = yield Ask(method, path, content, told, left_s)
            try:
                answer = self._read(came, parse)
            except HeadraceError as error:
                pause_s = _pause_s(came, attempt)
                may_be_asked_again = error.retryable or (isinstance(came, Reply) and came.status in _BUSY)
                in_time = self._clock() + pause_s < give_up_at
                if attempt == _MAX_ATTEMPTS or not may_be_asked_again or not in_time or not self._budget.take():
                    raise
            else:
                self._budget.earn()
                return answer
            yield Wait(pause_s)
        raise AssertionError("the last attempt returns or raises")

    def _read(self, came: Came, parse: Callable[[bytes], _T]) -> _T:
        """The answer in what came, or the error in it."""
        if isinstance(came, httpx.TimeoutException):
            raise TooLate("the server did not answer in time", value=self.url, next_step="Try again")
        if isinstance(came, httpx.TransportError):
            raise Unavailable(
                f"no server answers there ({str(came) or type(came).__name__})",
                value=self.url,
                next_step="Start one: headrace serve",
            )
        assert came is not None, "an Ask is answered"
        try:
            if came.status == httpx.codes.OK:
                return parse(came.content)
            error = from_envelope(_object(came.content))
        except (ValueError, KeyError, TypeError):
            error = HeadraceError(
                f"the answer with status {came.status} is not headrace's",
                value=came.content.decode(errors="replace"),
                next_step=f"Check what listens at {self.url}",
            )
        raise error


class _Budget:
    """Retries that a client may still make, over all its calls."""

    def __init__(self) -> None:
        self._left, self._lock = _MAX_BUDGET, threading.Lock()

    def earn(self) -> None:
        with self._lock:
            self._left = min(_MAX_BUDGET, self._left + _EARNED)

    def take(self) -> bool:
        """Take one, if there is one."""
        with self._lock:
            if self._left < 1:
                return False
            self._left -= 1
            return True


def _pause_s(came: Came, attempt: int) -> float:
    """What the server asks for, else doubling; spread, so that many clients do not come back at one moment."""
    asked_s = _retry_after_s(came.headers) if isinstance(came, Reply) else None
    if asked_s is not None:
        return asked_s * random.uniform(1, 1.5)
    return _FIRST_PAUSE_S * 2.0 ** (attempt - 1) * random.uniform(0.5, 1.5)


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds or a date (RFC 9110, section 10.2.3); None where there is neither."""
    said = headers.get("Retry-After", "").strip()
    if said.isascii() and said.isdigit():
        return float(said)
    with suppress(ValueError, TypeError):
        return max(0.0, (parsedate_to_datetime(said) - datetime.now(UTC)).total_seconds())
    return None


def in_parts(given: Iterable[Mapping[str, Any]]) -> Iterator[list[str]]:
    """Feedbacks as JSON, in parts for one request each; each with a key, so that it counts once however often sent."""
    part: list[str] = []
    n_chars = 0
    for one in given:
        text = _as_json({"idempotency_key": uuid.uuid4().hex} | _given_fields(one))
        assert text is not None
        if part and (len(part) == _PART or n_chars + len(text) > _PART_CHARS):
            yield part
            part, n_chars = [], 0
        part.append(text)
        n_chars += len(text)
    if part:
        yield part


def _given_fields(one: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in one.items() if value is not None}


def _batch_results(n: int, body: bytes) -> list[Result]:
    return _results(n, json.loads(body)["results"])


def _line_results(n: int, body: bytes) -> list[Result]:
    return _results(n, [json.loads(line) for line in body.splitlines()])


def _results(n: int, found: Sequence[Mapping[str, Any]]) -> list[Result]:
    if len(found) != n:
        raise ValueError(f"{len(found)} results of {n}")
    return [str(one["id"]) if "id" in one else from_envelope(one) for one in found]


def _object(body: bytes) -> dict[str, Any]:
    return {**json.loads(body)}


def _as_object(given: Given) -> dict[str, Any]:
    if isinstance(given, str):
        return {"text": given}
    return {"turns": given} if isinstance(given, list) else dict(given)


def _of_key(key: str | None) -> dict[str, str]:
    if not key:
        return {}
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise BadInput("a key cannot be sent that has other than letters, digits and _", next_step="Copy it again")
    return {"Authorization": f"Bearer {key}"}


def trusted(certificates: Path | str | None) -> ssl.SSLContext | bool:
    """What an https server is checked against: the system's authorities, or those of a file in PEM.

    Raises:
        BadInput: the file cannot be read as that.
    """
    if certificates is None:
        return True
    try:
        return ssl.create_default_context(cafile=str(certificates))
    except OSError as error:
        raise BadInput(
            f"no certificates can be read there: {error.strerror or error}",
            value=str(certificates),
            next_step="Name a file in PEM",
        ) from None


def _as_header(what: str, given: str | None) -> str:
    """`given` or something new, as a header can carry it."""
    if given is not None and not (given.isascii() and given.isprintable() and given.strip() == given != ""):
        raise BadInput(f"{what} cannot be sent", value=given, next_step="Use letters, digits and signs of ASCII")
    return given or uuid.uuid4().hex


def _as_json(body: object) -> str | None:
    """In ASCII, so that half a surrogate reaches the server's check."""
    try:
        return None if body is None else json.dumps(body)
    except (TypeError, ValueError) as error:
        raise BadInput(
            f"cannot be sent as JSON: {error}", value=body, next_step="Use text, numbers, lists, dicts"
        ) from None

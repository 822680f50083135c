"""Where requests come in and errors go out: one envelope for every error, a count and a time for every request."""

import json
import logging
import math
import time
import uuid
from collections.abc import Mapping, Sequence

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headrace.errors import (
    BadInput,
    Damaged,
    HeadraceError,
    JobFailed,
    NotFound,
    TooMany,
    Unauthorized,
    Unavailable,
    Unusable,
)
from headrace.personal.policies import Door
from headrace.serve.process import RETRY_AFTER_S
from headrace.server import error_forms
from headrace.server.hosts import Hosts
from headrace.server.plane import ControlPlane
from headrace.server.terms import CURRENT, LIMITS, Terms, given_id, time_allowed_s

_log = logging.getLogger("headrace.server")

_MAX_BODY_BYTES = 16 * 2**20  # 1000 inputs of 4,000 characters in UTF-8; a body is read whole before it is parsed
_MAX_SMALL_BODY_BYTES = 2**20
_SMALL_BODIES = "/v1/feedback"
_NOT_ALLOWED = 405
_NEXT_STEPS = {
    400: "Call the server by its address, or add the name to access.hosts",
    413: "Send less, or send it in parts",
    415: "Send the body as it is",
}


class Border:
    """Counts, times and names every request, and turns what nobody foresaw into an envelope with an id for the log."""

    def __init__(self, app: ASGIApp, plane: ControlPlane) -> None:
        self._app, self._plane, self._metrics = app, plane, plane.metrics
        self._serve, self._hosts = plane.ws.settings.serve, Hosts(plane.ws.settings.access.hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, started_at, headers = 0, time.monotonic(), dict(scope["headers"])
        request_id = given_id(headers)

        async def watched_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                said = (b"x-request-id", request_id.encode("ascii")), *scope.get("state", {}).get(LIMITS, ())
                message["headers"] = [*message.get("headers", ()), *said]
            await send(message)

        try:
            _check_head(scope, headers)
            self._hosts.check(scope, headers)
            allowed_s = time_allowed_s(headers, self._serve.timeout_s)
            CURRENT.set(Terms(request_id, started_at + allowed_s, scope.setdefault("state", {})))
            await self._app(scope, _limited(receive, _max_bytes(scope["path"])), watched_send)
        except HeadraceError as error:  # of the head, or of the short way: no route was asked
            await render(self._plane.door.error(error), path=scope["path"])(scope, receive, watched_send)
        except HTTPException as error:
            path, next_step = self._plane.door.brief(scope["path"]), _NEXT_STEPS[error.status_code]
            refused = BadInput(error.detail, value=path, next_step=next_step)
            await render(refused, path=scope["path"], status=error.status_code)(scope, receive, watched_send)
        except Exception:  # the border of a request: the server goes on
            error_id = uuid.uuid4().hex
            _log.exception("request failed, id %s", error_id)
            if status:  # the answer is on its way already and can only be cut off
                raise
            failure = HeadraceError("the server failed", value=error_id, next_step="The server's log has this id")
            await render(failure, path=scope["path"])(scope, receive, watched_send)
        finally:
            self._note(scope, status, time.monotonic() - started_at, request_id)

    def _note(self, scope: Scope, status: int, seconds: float, request_id: str) -> None:
        route = getattr(scope.get("route"), "path", "other")
        self._metrics.requests.labels(route, status).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        if self._serve.log_requests:
            request_id = self._plane.door.shown(request_id)  # clients choose it
            facts = {"method": scope["method"], "route": route, "status": status, "ms": round(seconds * 1000, 3)}
            said = " ".join(str(fact) for fact in facts.values())
            _log.info("%s ms %s", said, request_id, extra={"facts": {**facts, "request_id": request_id}})


def _check_head(scope: Scope, headers: Mapping[bytes, bytes]) -> None:
    """Refuse what another server before or after this one may read in another way, and what is not read here.

    Raises:
        HTTPException: with the status for it.
    """
    n_hosts = sum(name == b"host" for name, _ in scope["headers"])
    if n_hosts != 1 and (n_hosts or scope["http_version"] == "1.1"):
        raise HTTPException(400, f"a request names one host, not {n_hosts}")
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise HTTPException(415, "a body comes as it is, without a Content-Encoding")
    if int(headers.get(b"content-length", 0)) > (limit := _max_bytes(scope["path"])):
        raise _too_long(limit)


def _max_bytes(path: str) -> int:
    return _MAX_SMALL_BODY_BYTES if path == _SMALL_BODIES else _MAX_BODY_BYTES


def _limited(receive: Receive, limit: int) -> Receive:
    """`receive` that gives up on a body that is too long; the connection reads on, so that the client can listen."""
    n_bytes = 0

    async def limited() -> Message:
        nonlocal n_bytes
        message = await receive()
        n_bytes += len(message.get("body", b""))
        if n_bytes > limit:
            raise _too_long(limit)
        return message

    return limited


def _too_long(limit: int) -> HTTPException:
    return HTTPException(413, f"the body has more than {limit} bytes")


def render(
    error: HeadraceError, *, path: str = "", status: int | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """An error as a response, in the form of the protocol that `path` belongs to."""
    headers, error = dict(headers or {}), _outward(error)
    if isinstance(error, Unavailable):
        headers["Retry-After"] = str(RETRY_AFTER_S)
    if isinstance(error, TooMany):
        headers["Retry-After"] = str(math.ceil(error.retry_after_s))
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    status, written = error_forms.written(error, status or error.http_status, path)
    body = json.dumps(written)  # in ASCII: a value may hold half a surrogate pair, which UTF-8 does not have
    return Response(body, status, headers, media_type="application/json")


def _outward(error: HeadraceError) -> HeadraceError:
    """What a client may know of an error: of one that only the server's owner can mend, its number in the log."""
    if not isinstance(error, Unusable | Damaged | JobFailed):
        return error
    error_id = uuid.uuid4().hex
    _log.error("%s, id %s: %s", error.code, error_id, error)
    return type(error)("the server cannot do this now", value=error_id, next_step="The server's log has this id")


def not_served(method: str, path: str, methods: Sequence[str], door: Door) -> Response:
    """The answer to what no route is for.

    Args:
        methods: by which the path is served.
    """
    asked = door.brief(f"{method} {path}")
    if not methods:
        return render(NotFound("no such address", value=asked, next_step="GET /docs lists them"), path=path)
    failure = BadInput("Method Not Allowed", value=asked, next_step="GET /docs shows what is possible")
    return render(failure, path=path, status=_NOT_ALLOWED, headers={"Allow": ", ".join(methods)})


def install(app: FastAPI) -> None:
    """Have `app` answer every error with the envelope."""
    app.add_exception_handler(HeadraceError, _headrace_error)
    app.add_exception_handler(RequestValidationError, _unsound_request)
    app.add_exception_handler(AnyHTTPException, _http_error)


async def _headrace_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HeadraceError)
    return render(request.app.state.plane.door.error(error), path=request.scope["path"])


async def _unsound_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:]) or "the body"
    value = where if first["type"] in ("extra_forbidden", "missing") else first.get("input")
    problem = f"{where}: {first['msg']}"
    unsound = BadInput(problem, value=value, next_step="GET /docs shows the fields; send application/json")
    return render(request.app.state.plane.door.error(unsound), path=request.scope["path"])


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, AnyHTTPException)
    path, asked = request.scope["path"], f"{request.method} {request.scope['path']}"
    failure = BadInput(str(error.detail), value=asked, next_step="GET /docs shows what is possible")
    failure = request.app.state.plane.door.error(failure)
    return render(failure, path=path, status=error.status_code, headers=error.headers)

"""Where requests come in and errors go out: one envelope for every error, a count and a time for every request."""

import json
import logging
import time
import uuid
from collections.abc import Mapping

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headrace.errors import BadInput, HeadraceError, NotFound, Unavailable
from headrace.serve.process import RETRY_AFTER_S
from headrace.server import error_forms
from headrace.server.metrics import Metrics

_log = logging.getLogger("headrace.server")

_MAX_BODY_BYTES = 16 * 2**20  # 1000 inputs of 4,000 characters in UTF-8; a body is read whole before it is parsed
_MAX_DISCARDED_BYTES = 8 * _MAX_BODY_BYTES


class Border:
    """Counts and times every request, and turns what nobody foresaw into an envelope with an id for the log."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, started_at = 0, time.monotonic()

        async def watched_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, _limited(receive), watched_send)
        except Exception:  # the border of a request: the server goes on
            error_id = uuid.uuid4().hex
            _log.exception("request failed, id %s", error_id)
            if status:  # the answer is on its way already and can only be cut off
                raise
            failure = HeadraceError("the server failed", value=error_id, next_step="The server's log has this id")
            await render(failure, path=scope["path"])(scope, receive, watched_send)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(route, status).inc()
            self._metrics.seconds.labels(route).observe(time.monotonic() - started_at)


def _limited(receive: Receive) -> Receive:
    """`receive` that gives up on a body that is too long, after reading on a little so that the client can listen."""
    n_bytes = 0

    async def limited() -> Message:
        nonlocal n_bytes
        message = await receive()
        n_bytes += len(message.get("body", b""))
        if n_bytes > _MAX_BODY_BYTES:
            while message.get("more_body") and n_bytes < _MAX_DISCARDED_BYTES:
                message = await receive()
                n_bytes += len(message.get("body", b""))
            raise HTTPException(413, f"the body has more than {_MAX_BODY_BYTES} bytes")
        return message

    return limited


def render(
    error: HeadraceError, *, path: str = "", status: int | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """An error as a response, in the form of the protocol that `path` belongs to."""
    headers = dict(headers or {})
    if isinstance(error, Unavailable):
        headers["Retry-After"] = str(RETRY_AFTER_S)
    status, written = error_forms.written(error, status or error.http_status, path)
    body = json.dumps(written)  # in ASCII: a value may hold half a surrogate pair, which UTF-8 does not have
    return Response(body, status, headers, media_type="application/json")


def install(app: FastAPI) -> None:
    """Have `app` answer every error with the envelope."""
    app.add_exception_handler(HeadraceError, _headrace_error)
    app.add_exception_handler(RequestValidationError, _unsound_request)
    app.add_exception_handler(AnyHTTPException, _http_error)


async def _headrace_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HeadraceError)
    return render(error, path=request.url.path)


async def _unsound_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:]) or "the body"
    value = where if first["type"] in ("extra_forbidden", "missing") else first.get("input")
    problem = f"{where}: {first['msg']}"
    unsound = BadInput(problem, value=value, next_step="GET /docs shows the fields; send application/json")
    return render(unsound, path=request.url.path)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, AnyHTTPException)
    path = request.url.path
    asked, problem = f"{request.method} {path}", str(error.detail)
    if error.status_code == NotFound.http_status:
        failure: HeadraceError = NotFound("no such address", value=asked, next_step="GET /docs lists them")
    else:
        failure = BadInput(problem, value=asked, next_step="GET /docs shows what is possible")
    return render(failure, path=path, status=error.status_code, headers=error.headers)

"""The short way of a sound request for predictions: past the router, whose work takes longer than headrace's own.

A request that is not sound goes the long way with its body, so that each error is made in one place.
"""

import json

from pydantic import ValidationError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headrace.server.bodies import PredictRequest
from headrace.server.plane import ControlPlane
from headrace.server.routes import predict
from headrace.server.strictness import loads

_JSON = (b"content-type", b"application/json")
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
"""Writes what fastapi's JSONResponse does."""


class Direct:
    """Answers POST /v1/predict, and hands everything else on."""

    def __init__(self, app: ASGIApp, plane: ControlPlane) -> None:
        self._app, self._plane = app, plane
        self._route = next(route for route in predict.router.routes if getattr(route, "path", "") == predict.PATH)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("path") != predict.PATH or scope.get("method") != "POST" or _JSON not in scope["headers"]:
            await self._app(scope, receive, send)
            return
        body = await _whole(receive)
        if (asked := _sound(body)) is None:
            await self._app(scope, _again(body, receive), send)
            return
        scope["route"] = self._route
        answer = _ENCODER.encode(await predict.answered(self._plane, asked)).encode()
        headers = [(b"content-length", b"%d" % len(answer)), _JSON]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


async def _whole(receive: Receive) -> bytes:
    message = await receive()
    body: bytes = message.get("body", b"")
    while message.get("more_body", False):
        message = await receive()
        body += message.get("body", b"")
    return body


def _sound(body: bytes) -> PredictRequest | None:
    try:
        return PredictRequest.model_validate(loads(body))
    except (ValidationError, ValueError, RecursionError):
        return None


def _again(body: bytes, receive: Receive) -> Receive:
    """`receive` that says the body once more, and then what comes."""
    left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return left.pop() if left else await receive()

    return again

"""The short way of a sound request for predictions, or with feedback: past the router, whose work takes longer than
headrace's own.

A request that is not sound goes the long way with its body, so that each error is made in one place.
"""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headrace.errors import BadInput
from headrace.feedback import intake
from headrace.server.bodies import PredictRequest
from headrace.server.plane import ControlPlane
from headrace.server.routes import feedback, predict
from headrace.server.strictness import loads

_JSON = (b"content-type", b"application/json")
_KEY = "idempotency_key"
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
"""Writes what fastapi's JSONResponse does."""

Answer = Awaitable[dict[str, Any]]


class Direct:
    """Answers POST /v1/predict and POST /v1/feedback, and hands everything else on."""

    def __init__(self, app: ASGIApp, plane: ControlPlane) -> None:
        self._app, self._plane = app, plane
        self._ways: dict[str, tuple[object, Callable[[Scope, Any], Answer | None]]] = {
            predict.PATH: (_route(predict.router, predict.PATH), self._prediction),
            feedback.PATH: (_route(feedback.router, feedback.PATH), self._feedback),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        way = self._ways.get(scope.get("path", ""))
        if way is None or scope.get("method") != "POST" or _JSON not in scope["headers"]:
            await self._app(scope, receive, send)
            return
        body = await _whole(receive)
        route, answer_to = way
        if (answering := _attempt(answer_to, scope, body)) is None:
            await self._app(scope, _again(body, receive), send)
            return
        scope["route"] = route
        answer = _ENCODER.encode(await answering).encode()
        headers = [(b"content-length", b"%d" % len(answer)), _JSON]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    def _prediction(self, _scope: Scope, said: Any) -> Answer:
        return predict.answered(self._plane, PredictRequest.model_validate(said))

    def _feedback(self, scope: Scope, said: Any) -> Answer | None:
        if not isinstance(said, dict) or _KEY in said:  # which is a header here
            return None
        key = next((value for name, value in scope["headers"] if name == b"idempotency-key"), None)
        key_given = {} if key is None else {_KEY: key.decode("latin-1")}
        return feedback.taken(self._plane, intake.parse(said | key_given))


def _route(router: APIRouter, path: str) -> object:
    return next(route for route in router.routes if getattr(route, "path", "") == path)


def _attempt(answer_to: Callable[[Scope, Any], Answer | None], scope: Scope, body: bytes) -> Answer | None:
    """What will be the answer, if the request is sound."""
    try:
        return answer_to(scope, loads(body))
    except (ValidationError, ValueError, RecursionError, BadInput):
        return None


async def _whole(receive: Receive) -> bytes:
    message = await receive()
    parts: list[bytes] = [message.get("body", b"")]
    while message.get("more_body", False):
        message = await receive()
        parts.append(message.get("body", b""))
    return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """`receive` that says the body once more, and then what comes."""
    left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return left.pop() if left else await receive()

    return again

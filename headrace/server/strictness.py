"""JSON bodies, read so that nothing in them is a surprise later: no key twice, no NaN, no number beyond a float.

What Python's json takes beyond RFC 8259, or answers with a fault, is an error of the client here.
"""

import json
import math
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute

_MAX_KEYS = 100  # of one object; no body has that many
_STATUS = 422


class StrictRoute(APIRoute):
    """A route whose body is read by `loads`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            return await handle(_Strict(request.scope, request.receive))

        return strictly


class _Strict(Request):
    async def json(self) -> Any:
        try:
            return loads(await self.body())
        except json.JSONDecodeError:
            raise  # fastapi says where
        except (ValueError, RecursionError) as error:
            problem = "lists and objects too deep within each other" if isinstance(error, RecursionError) else error
            raise HTTPException(_STATUS, f"the body cannot be read as JSON: {problem}") from None


def loads(body: bytes) -> Any:
    """The value of a JSON text in UTF-8.

    Raises:
        ValueError: it is none, has a key twice, or a number that no float holds.
        RecursionError: too deep.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None
    return _DECODER.decode(text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > _MAX_KEYS:
        raise ValueError(f"an object with {len(pairs)} keys")
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object with the same key twice")
    return found


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"a number must be finite: {digits[:20]}")
    return number


def _no_number(word: str) -> Any:
    raise ValueError(f"a number must be finite: {word}")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_finite, parse_constant=_no_number)

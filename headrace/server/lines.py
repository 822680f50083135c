"""Feedback as a stream of JSON lines: each is taken as it comes and answered by a line, in the same order.

The body is read on while nobody reads the answers, since many clients send all before they listen. What is held is
bounded nevertheless: a part of the body, a line, and an answer for each of `MAX_LINES`.
"""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from fastapi import HTTPException
from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from headrace.errors import BadInput, HeadraceError
from headrace.feedback.intake import Given
from headrace.server import receiving
from headrace.server.plane import ControlPlane
from headrace.server.strictness import loads

CONTENT_TYPE = "application/x-ndjson"
CONTENT_TYPES = (CONTENT_TYPE, "application/ndjson", "application/jsonl")
MAX_LINES = 10_000
MAX_LINE_BYTES = 2**20  # as a body of one feedback
_AT_ONCE = 100  # lines that are written together

Line = bytes | HeadraceError


class Answers(Response):
    """The answer to a stream: reads the body itself, line by line."""

    def __init__(self, plane: ControlPlane) -> None:
        super().__init__(media_type=CONTENT_TYPE)
        self._plane = plane

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answers: asyncio.Queue[bytes] = asyncio.Queue()
        reading = asyncio.create_task(self._read(receive, answers))
        try:
            answer = await answers.get()  # the head waits for the first: a client may want to be told to go on sending
            if not answer:
                await reading
            headers = [(b"content-type", CONTENT_TYPE.encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            while answer:
                await send({"type": "http.response.body", "body": answer, "more_body": True})
                answer = await answers.get()
            await reading
            await send({"type": "http.response.body", "body": b""})
        finally:
            reading.cancel()

    async def _read(self, receive: Receive, answers: "asyncio.Queue[bytes]") -> None:
        """Take the lines of the body, and put their answers; an empty one ends them."""
        splitter, n_lines, goes_on = Splitter(), 0, True
        try:
            while goes_on:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                goes_on = message.get("more_body", False)
                found = splitter.feed(message.get("body", b""), is_last=not goes_on)
                fitting = found[: MAX_LINES - n_lines]
                for start in range(0, len(fitting), _AT_ONCE):
                    answers.put_nowait(await self._taken(fitting[start : start + _AT_ONCE]))
                n_lines += len(fitting)
                if len(fitting) < len(found):
                    raise HTTPException(413, f"a stream has at most {MAX_LINES} lines")
        except HTTPException as error:  # the status is sent already
            stopped = BadInput(error.detail, value=f"line {n_lines + 1}", next_step="Send the rest in another request")
            answers.put_nowait(_written([stopped.envelope()]))
        finally:
            answers.put_nowait(b"")

    async def _taken(self, found: Sequence[Line]) -> bytes:
        return _written(await receiving.receive_all(self._plane, [_parsed(line) for line in found]))


class Splitter:
    """Makes lines of bytes, however they are cut up. Empty lines are none."""

    def __init__(self) -> None:
        self._rest, self._is_skipping = b"", False

    def feed(self, part: bytes, *, is_last: bool) -> list[Line]:
        """The lines that end in `part`, or with it if it is the last; an error in the place of one that is too long."""
        *ended, self._rest = (self._rest + part).split(b"\n")
        if is_last:
            ended.append(self._rest)
            self._rest = b""
        found: list[Line] = []
        for line in ended:
            if self._is_skipping:  # its end
                self._is_skipping = False
            elif len(line) > MAX_LINE_BYTES:
                found.append(_too_long())
            elif line.strip():
                found.append(line)
        if self._is_skipping or len(self._rest) > MAX_LINE_BYTES:
            if not self._is_skipping:
                found.append(_too_long())
            self._is_skipping, self._rest = True, b""
        return found


def _too_long() -> BadInput:
    return BadInput("a line is too long", value=f"more than {MAX_LINE_BYTES} bytes", next_step="Shorten what it says")


def _parsed(line: Line) -> Given | HeadraceError:
    if isinstance(line, HeadraceError):
        return line
    try:
        said = loads(line)
    except (ValueError, RecursionError) as error:
        problem = "lists and objects too deep within each other" if isinstance(error, RecursionError) else error
        shown = line[:200].decode(errors="replace")
        return BadInput(f"the line cannot be read as JSON: {problem}", value=shown, next_step="Write one object a line")
    return receiving.parsed(said)


def _written(results: Sequence[dict[str, Any]]) -> bytes:
    """In ASCII: the value of an error may hold half a surrogate pair."""
    return b"".join(json.dumps(one).encode("ascii") + b"\n" for one in results)

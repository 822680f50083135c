"""The connections of a server: uvicorn's, with the limits that it lacks.

A client must send a head and a body within a time each, and read its answer within one; a connection that does not is
cut, so that many slow ones cannot use the server up. A client that goes away while it is answered is told of to who
works on the answer. docs/log.md says why uvicorn, and what else was tried.
"""

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from headrace.errors import BadInput, HeadraceError, TooLate, Unavailable

MAX_HEAD_BYTES = 64 * 2**10
_MAX_DISCARDED_BYTES = 128 * 2**20  # clients listen to an answer only when they have sent all
_LOOK_EVERY_S = 0.25
_LOOKS_AT_ONCE = 20
_LAST_WORDS_S = 0.5
_FORGET_MS = 5000  # how long the kernel tries to hand over what a client was told last
_GONE = "headrace.gone"


@dataclass(frozen=True)
class Limits:
    """Of one server."""

    head_s: float
    body_s: float
    """For the body of a request, and for its answer to be read."""
    n_connections: int


class Connection(AutoHTTPProtocol):  # type: ignore[misc, valid-type]  # uvicorn calls its methods
    """One connection. Times are the event loop's."""

    cycle: Any  # uvicorn's: the request that came last, and its answer
    connections: set[Any]
    transport: asyncio.Transport
    loop: asyncio.AbstractEventLoop

    def __init__(self, *args: Any, limits: Limits, on_cut: Callable[[str], None], **kwargs: Any) -> None:
        """
        Args:
            on_cut: told why, whenever a connection is cut.
        """
        super().__init__(*args, **kwargs)
        self._limits, self._on_cut = limits, on_cut
        self._head_since: float | None = None
        self._n_head_bytes = 0
        self._n_discarded_bytes = 0
        self._body_since = 0.0
        self._unread_since: float | None = None
        self._is_closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._head_since = self.loop.time()
        if len(self.connections) > self._limits.n_connections:
            full = Unavailable("too many connections", value=self._limits.n_connections, next_step="Try again in 1 s")
            self._refuse("connections", full, HTTPStatus.SERVICE_UNAVAILABLE, "retry-after: 1\r\n")

    def data_received(self, data: bytes) -> None:
        before, now = self.cycle, self.loop.time()
        if before is not None and before.more_body and before.response_complete:  # refused, and still sending
            self._n_discarded_bytes += len(data)
            if self._n_discarded_bytes > _MAX_DISCARDED_BYTES:
                self._on_cut("long body")
                self.transport.abort()
                return
        if self._head_since is None and (before is None or not before.more_body):
            self._head_since, self._n_head_bytes = now, 0
        self._n_head_bytes += len(data)
        super().data_received(data)
        if self.cycle is not before:
            self._head_since, self._body_since, self._n_head_bytes = None, now, 0
            if self._is_closing:
                self.cycle.keep_alive = False
        elif self._head_since is not None and self._n_head_bytes > MAX_HEAD_BYTES:
            long = BadInput("the head of a request is too long", value=self._n_head_bytes, next_step="Shorten it")
            self._refuse("long head", long, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def connection_lost(self, exc: Exception | None) -> None:
        cycle = self.cycle
        super().connection_lost(exc)
        if cycle is not None and not cycle.response_complete:
            for tell in cycle.scope["state"].get(_GONE, ()):
                tell()

    def shutdown(self) -> None:
        """The server drains. What a client has sent already is answered, also on a connection that looks idle.

        Called when nobody listens any more: a client that is told to close earlier would connect again, and be cut.
        """
        self._is_closing = True
        if self.cycle is None or self.cycle.response_complete:
            self.loop.call_later(_LAST_WORDS_S, self._shut_down)
        else:
            super().shutdown()

    def _shut_down(self) -> None:
        if not self.transport.is_closing():
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """uvicorn's answer to what is no HTTP."""
        self._refuse("no HTTP", BadInput(msg, next_step="Send HTTP/1.1"), HTTPStatus.BAD_REQUEST)

    def look(self, now: float) -> None:
        """Cut the connection if its client took too long."""
        if self.transport.get_write_buffer_size() == 0:
            self._unread_since = None
        elif self._unread_since is None:
            self._unread_since = now
        elif now - self._unread_since > self._limits.body_s:
            self._on_cut("slow reader")
            self.transport.abort()
        if self.transport.is_closing():
            return
        soon = now + 2 * _LOOK_EVERY_S  # the next look may come late itself
        if self._head_since is not None and soon - self._head_since > self._limits.head_s:
            self._cut_slow("slow head", self._limits.head_s)
        elif self.cycle is not None and self.cycle.more_body and soon - self._body_since > self._limits.body_s:
            self._cut_slow("slow body", self._limits.body_s)

    @property
    def _may_answer(self) -> bool:
        """Whether an answer would be read as that to the request which is being received."""
        cycle = self.cycle
        if cycle is None:
            return True
        return bool(not cycle.response_started if cycle.more_body else cycle.response_complete)

    def _cut_slow(self, why: str, limit_s: float) -> None:
        late = TooLate("the request did not come in time", value=f"{limit_s:g} s", next_step="Send it at once")
        self._refuse(why, late, HTTPStatus.REQUEST_TIMEOUT)

    def _refuse(self, why: str, error: HeadraceError, status: HTTPStatus, headers: str = "") -> None:
        """Answer what is being received, without asking the application, and close."""
        self._on_cut(why)
        if self._may_answer:
            body = json.dumps(error.envelope())
            head = f"HTTP/1.1 {status.value} {status.phrase}\r\n{headers}connection: close\r\n"
            head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            self.transport.write((head + body).encode("ascii"))
        self._let_go_soon()
        self.transport.close()
        self.loop.call_later(_FORGET_MS / 1000, self.transport.abort)  # TLS waits for the client to say goodbye

    def _let_go_soon(self) -> None:
        """Have the kernel forget the connection soon, though its client may never take what was written."""
        link = self.transport.get_extra_info("socket")
        if link is not None and hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
            with contextlib.suppress(OSError):  # it may be gone already
                link.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _FORGET_MS)


async def watch(connections: Iterable[Connection]) -> None:
    """Look at all connections again and again, until cancelled."""
    while True:
        await asyncio.sleep(_LOOK_EVERY_S)
        now = asyncio.get_running_loop().time()
        for n, connection in enumerate(list(connections), start=1):
            connection.look(now)
            if n % _LOOKS_AT_ONCE == 0:
                await asyncio.sleep(0)  # cutting many at one moment must not hold the others up


def when_gone(state: dict[str, Any], tell: Callable[[], object]) -> None:
    """Have `tell` called should the client of a request go away before it is answered.

    Args:
        state: of the request's ASGI scope.
    """
    state.setdefault(_GONE, []).append(tell)

"""On what terms a request is answered, whatever its route: under which id, until when, and as long as who is there."""

import re
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

from headrace.access.keyring import NOBODY, Caller
from headrace.errors import BadInput
from headrace.ids import new_id
from headrace.server.http import when_gone

_GIVEN_ID = re.compile(rb"[\w.:/+=-]{1,128}", re.ASCII)
_MILLISECONDS = re.compile(rb"[1-9][0-9]{0,8}")


@dataclass(frozen=True)
class Terms:
    """What the head of a request says about it. Times are on the monotonic clock."""

    id: str
    deadline: float
    state: dict[str, Any] = field(default_factory=dict)
    """Of its ASGI scope."""
    caller: Caller = NOBODY

    @property
    def time_left_s(self) -> float:
        return self.deadline - time.monotonic()

    def when_gone(self, tell: Callable[[], object]) -> None:
        """Have `tell` called should the client go away before it is answered."""
        when_gone(self.state, tell)


LIMITS = "headrace.limits"
"""Where in the state of a request the headers are that tell its client what is left of its limits."""

CURRENT: ContextVar[Terms] = ContextVar("headrace_terms")
"""Of the request that this task answers."""


def allow_at_most(seconds: float) -> None:
    """Have the request of this task answered within `seconds` from now, where it is not due earlier."""
    terms = CURRENT.get()
    CURRENT.set(replace(terms, deadline=min(terms.deadline, time.monotonic() + seconds)))


def given_id(headers: Mapping[bytes, bytes]) -> str:
    """What the client calls its request, or a new id when it says nothing that can be repeated."""
    said = headers.get(b"x-request-id", b"")
    return said.decode("ascii") if _GIVEN_ID.fullmatch(said) else new_id("request")


def time_allowed_s(headers: Mapping[bytes, bytes], limit_s: float) -> float:
    """How long the answer may take.

    Raises:
        BadInput: X-Request-Timeout-Ms is no number of milliseconds.
    """
    said = headers.get(b"x-request-timeout-ms")
    if said is None:
        return limit_s
    if not _MILLISECONDS.fullmatch(said):
        raise BadInput(
            "X-Request-Timeout-Ms is a whole number of milliseconds from 1 on",
            value=said.decode("latin-1"),
            next_step="Leave it out for the server's limit",
        )
    return min(limit_s, int(said) / 1000)

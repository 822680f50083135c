"""Who may ask for what: every request is looked up in the table of routes, and its key held against what that asks for.

What is not in the table is not served, whatever the router has. Who has no key learns nothing, not even which paths
there are.
"""

import asyncio
import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import replace

from starlette.types import ASGIApp, Receive, Scope, Send

from headrace.access.keyring import NOBODY, Caller, Keyring
from headrace.access.scopes import ANY, OPEN, Need, RouteTable
from headrace.errors import BadInput, Forbidden, Unauthorized
from headrace.server import border
from headrace.server.metering import Metering
from headrace.server.terms import CURRENT

_CARRIERS = (b"authorization", b"x-api-key")
_SECRET_IN_URL = re.compile("hr_(live|test)_[0-9A-Za-z]+_[0-9A-Za-z]{8}")


class Guard:
    """Between the border and everything else; tells what follows who asks, by `CURRENT.get().caller`."""

    def __init__(self, app: ASGIApp, keyring: Keyring, metering: Metering) -> None:
        self._app, self._keyring, self._metering, self._routes = app, keyring, metering, RouteTable()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method, path = scope["method"], scope["path"]
        need = self._routes.find(method, path)
        is_open = self._routes.is_open(path) if need is None else need.scope == OPEN
        caller = NOBODY if is_open else await self._caller(scope)
        if need is None:
            methods = self._routes.methods(path)
            await border.not_served(method, path, methods, scope["app"].state.plane.door)(scope, receive, send)
            return
        if not is_open:
            self._admit(caller, need)
        CURRENT.set(replace(CURRENT.get(), caller=caller))
        await self._app(scope, receive, send)

    async def _caller(self, scope: Scope) -> Caller:
        """Who asks.

        Raises:
            Unauthorized: nobody whose key counts.
            BadInput: the URL holds a key.
        """
        _check_url(scope)
        key = key_of(scope["headers"])
        try:
            try:
                return self._keyring.caller(key)
            except Unauthorized:
                if not self._keyring.may_be_new(key):
                    raise
            await asyncio.to_thread(self._keyring.renew)
            return self._keyring.caller(key)
        except Unauthorized as error:
            self._metering.note_refused("", error)
            raise

    def _admit(self, caller: Caller, need: Need) -> None:
        """
        Raises:
            Forbidden: the key does not allow it.
            TooMany: the key asks too often.
        """
        try:
            _check(caller, need)
        except Forbidden as error:
            self._metering.note_refused(caller.key_id, error)
            raise
        self._metering.admit(caller.key_id, need.scope)


def key_of(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """What a request says for a key: `Authorization: Bearer KEY`, the password of `Authorization: Basic`, or
    `X-API-Key: KEY`; None where it says nothing, and no key where it says several things."""
    said = [(name, value) for name, value in headers if name in _CARRIERS]
    if len(said) != 1:
        return "" if said else None
    name, value = said[0]
    if name == b"authorization":
        kind, _, value = value.partition(b" ")
        if kind.lower() == b"basic":
            value = _password_in(value)
        elif kind.lower() != b"bearer":
            return ""
    return value.strip().decode("latin-1")


def _password_in(credentials: bytes) -> bytes:
    try:
        return base64.b64decode(credentials.strip(), validate=True).partition(b":")[2]
    except binascii.Error:
        return b""


def _check_url(scope: Scope) -> None:
    """A URL is kept in logs and histories all along the way, so a key in it is known to others by now."""
    url = scope["path"] + scope["query_string"].decode("latin-1")
    if "hr_" in url and _SECRET_IN_URL.search(url):
        raise BadInput("a key is sent in a header, never in a URL", next_step="Revoke it: others may have seen it")


def _check(caller: Caller, need: Need) -> None:
    if need.scope not in (OPEN, ANY) and need.scope not in caller.scopes:
        raise Forbidden(
            f"the key lacks the scope {need.scope}",
            value=caller.key_id,
            next_step="Ask for one that has it: headrace key create",
        )
    if need.is_whole and caller.channels is not None:
        raise Forbidden(
            "this tells of all channels, and the key is for some",
            value=caller.key_id,
            next_step="Ask for one without channels: headrace key create",
        )

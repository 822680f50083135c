"""By which names a server may be called: what a browser sends that was tricked into asking it has another one."""

from collections.abc import Mapping, Sequence

from fastapi import HTTPException
from starlette.types import Scope

from headrace.errors import Forbidden

_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
_SHOWN_CHARS = 100
_SAFE = ("GET", "HEAD", "OPTIONS")


class Hosts:
    """The names of one server: those of this machine for itself, its addresses, and those that are declared."""

    def __init__(self, declared: Sequence[str]) -> None:
        self._names = _LOCAL | {name.lower() for name in declared}

    def check(self, scope: Scope, headers: Mapping[bytes, bytes]) -> None:
        """Refuse a request that was meant for another server, or that a page of another one makes.

        A page whose name was made to point here (DNS rebinding) sends its name as Host; a page that posts to another
        server sends its own as Origin.

        Raises:
            HTTPException: the Host is none of the names.
            Forbidden: the Origin is none of them, and the request may change something.
        """
        host = headers.get(b"host")
        if host is not None and not self._is_known(host, scope):
            raise HTTPException(400, f"this server has another name than {host[:_SHOWN_CHARS].decode('latin-1')}")
        origin = headers.get(b"origin")
        if origin is not None and scope["method"] not in _SAFE and not self._is_known(_host_in(origin), scope):
            raise Forbidden(
                "pages of other sites may not ask this server",
                value=origin.decode("latin-1"),
                next_step="Ask from a program, or add the site's name to access.hosts",
            )

    def _is_known(self, host: bytes, scope: Scope) -> bool:
        name = _name_in(host.decode("latin-1").lower())
        return name in self._names or name == (scope.get("server") or ("",))[0]


def _name_in(host: str) -> str:
    """A host without its port; an IPv6 address without its brackets."""
    if host.startswith("["):
        name, end, _ = host[1:].partition("]")
        return name if end else host
    return host.partition(":")[0]


def _host_in(origin: bytes) -> bytes:
    """The host of an Origin; empty where it has none, such as `null`."""
    return origin.partition(b"://")[2]

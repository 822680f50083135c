"""Run a server until it is told to stop.

Order: check the address, take the port, start the worker, load the models, say where. Other machines are served only
where a key was made, so that nobody opens a server to a network by mistake. On SIGTERM or SIGINT: not ready,
finish what is under way, write what is queued, stop the worker, end with status 0. On the second: end at once.
"""

import asyncio
import contextlib
import errno
import gc
import ipaddress
import itertools
import json
import logging
import os
import resource
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn

from headrace import auditing
from headrace.access import keys, tls
from headrace.errors import BadConfig, BadInput, Unusable
from headrace.serve import logs
from headrace.server import http
from headrace.server.plane import ControlPlane
from headrace.workspace import Workspace, serving

if TYPE_CHECKING:
    from fastapi import FastAPI

_log = logging.getLogger("headrace.server")

ADDRESS_FILE = "server.json"
"""In the state folder while a server runs: `{"pid", "host", "port", "url"}`."""

_BACKLOG = 2048
_OTHER_FILES = 128  # database, pipes to workers, what libraries open
_DEAD_PEERS = {"TCP_KEEPIDLE": 20, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 30_000}
_IDLE_READERS = {"TCP_NOTSENT_LOWAT": 64 * 2**10}  # of an answer that nobody reads, the kernel keeps no megabytes
_GOODBYE_S = 5.0  # for a client's word that an encrypted connection is over, which an idle one may never say
_HEAD_START_S = 0.3  # for a worker's process to be there, before imports keep the interpreter; longer than it takes
_GRACE_S = 5  # beyond serve.timeout_s, for requests under way when the server is told to stop


def start_server(ws: Workspace, *, host: str | None = None, port: int | None = None) -> None:
    """Serve a workspace; returns when the server was stopped and everything is written.

    Args:
        host: default `serve.host`; one that other machines reach needs a key.
        port: default `serve.port`; 0 takes a free one, which the printed line and `.headrace/server.json` name.

    Raises:
        BadConfig: other machines can reach the host and there is no key, or the certificate cannot be used.
        BadInput: no such port.
        Unusable: the port is taken.
        WrongState: no task has a model version.
        Damaged: the version in charge cannot be loaded.
    """
    serve = ws.settings.serve
    logs.set_up(serve.log_format, process="headrace")
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # it warns of each request that is no HTTP
    host = serve.host if host is None else host
    tls_context = tls.context_of(ws)
    _check_reach(ws, host, is_clear=tls_context is None)
    listener = _listen(host, serve.port if port is None else port)
    with listener, _address_file(ws, listener, "http" if tls_context is None else "https") as url:
        auditing.note_settings(ws)
        asyncio.run(_serve(ws, listener, url, tls_context))


async def _serve(ws: Workspace, listener: socket.socket, url: str, tls_context: ssl.SSLContext | None) -> None:
    async with ControlPlane(ws) as plane:
        await _until_workers_start(plane)
        from headrace.server.app import create_app  # takes as long as a worker's start, which goes on meanwhile

        await _answer(plane, create_app(plane), listener, url, tls_context)


async def _until_workers_start(plane: ControlPlane) -> None:
    """Wait a little for the threads that start the workers, which an import would hold up by its own length."""
    until = time.monotonic() + _HEAD_START_S
    while not plane.pool.pids and time.monotonic() < until:
        await asyncio.sleep(0.005)


async def _answer(
    plane: ControlPlane, app: "FastAPI", listener: socket.socket, url: str, tls_context: ssl.SSLContext | None
) -> None:
    serve = plane.ws.settings.serve
    limits = http.Limits(serve.header_timeout_s, serve.body_timeout_s, _room_for(serve.max_connections))
    config = uvicorn.Config(
        app,
        http=partial(http.Connection, limits=limits, on_cut=plane.metrics.note_cut),  # type: ignore[arg-type]
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nobody is trusted to say who somebody else is
        lifespan="off",  # the control plane is there before the application, and after it
        timeout_graceful_shutdown=int(serve.timeout_s) + _GRACE_S,
    )
    server = _Server(config, tls_context, limits)

    def stop() -> None:
        plane.draining = True
        server.should_exit = True

    loop, n_signals = asyncio.get_running_loop(), itertools.count(1)
    for number in (signal.SIGTERM, signal.SIGINT):  # the second one: at once, whatever is under way
        loop.add_signal_handler(number, lambda: stop() if next(n_signals) == 1 else os._exit(1))
    running = asyncio.create_task(server.serve(sockets=[listener]))
    watching = asyncio.create_task(http.watch(server.server_state.connections))  # type: ignore[arg-type]
    loading = asyncio.wrap_future(plane.lineup.first)
    await asyncio.wait({running, loading}, return_when=asyncio.FIRST_COMPLETED)
    was_stopped = plane.draining  # while it loaded: that the loading failed is no news then
    failure = loading.exception() if loading.done() else None
    if failure is not None:
        stop()
    elif not was_stopped:
        gc.freeze()  # what is there now stays: looking through it now and then would hold answers up for 60 ms
        print(f"headrace serves {', '.join(sorted(plane.lineup.now()))} at {url}", flush=True)
    await running
    watching.cancel()
    if failure is not None and not was_stopped:
        raise failure
    if loading.done():
        loading.exception()  # seen, so that asyncio does not complain


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, which end the process by the signal instead of with status 0.

    And with limits to how long a client may take to agree on how to encrypt, and to read the last of it.
    """

    def __init__(self, config: uvicorn.Config, tls_context: ssl.SSLContext | None, limits: http.Limits) -> None:
        super().__init__(config)
        self._tls: dict[str, Any] = {}
        if tls_context is not None:
            self._tls = {
                "ssl": tls_context,
                "ssl_handshake_timeout": limits.head_s,
                "ssl_shutdown_timeout": min(limits.body_s, _GOODBYE_S),
            }

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        connection = partial(
            self.config.http_protocol_class,  # type: ignore[call-arg]
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        self.servers = [
            await loop.create_server(connection, sock=sock, backlog=self.config.backlog, **self._tls)
            for sock in sockets or ()
        ]
        self.started = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _room_for(n_connections: int) -> int:
    """How many connections there can be: as many as asked for, or as this process may open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = n_connections + _OTHER_FILES
    room = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < room:
        resource.setrlimit(resource.RLIMIT_NOFILE, (room, hard))
    return min(n_connections, max(1, room - _OTHER_FILES))


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket, taken before anything is loaded."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Said to be TCP, or asyncio does not switch Nagle's algorithm off, and an answer waits 40 ms for the client's ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _reclaim_dead(listener)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OverflowError:
        listener.close()
        raise BadInput("a port is a number from 0 to 65535", value=port, next_step="Choose another one") from None
    except OSError as error:
        listener.close()
        taken = error.errno == errno.EADDRINUSE
        raise Unusable(
            "the port is in use" if taken else f"the address cannot be used: {error.strerror}",
            value=f"{host}:{port}",
            next_step="Stop what uses it, or choose another with --port" if taken else "Check --host and --port",
        ) from None
    return listener


def _reclaim_dead(listener: socket.socket) -> None:
    """Have the kernel notice peers that are gone without a word, and keep little for those that do not read.

    Connections inherit it.
    """
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in {**_DEAD_PEERS, **_IDLE_READERS}.items():
        if hasattr(socket, name):  # Linux has all of them
            listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _check_reach(ws: Workspace, host: str, *, is_clear: bool) -> None:
    """Check that a server which other machines reach asks for keys."""
    if _is_this_machine(host):
        return
    if not keys.were_made(ws):
        raise BadConfig(
            "a server that other machines reach asks for keys, and there is none",
            value=host,
            next_step="Make one: headrace key create NAME --scope predict; or use --host 127.0.0.1",
        )
    if is_clear:
        _log.warning("keys and texts cross the network in clear: set access.certificate, or use a proxy with TLS")


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextlib.contextmanager
def _address_file(ws: Workspace, listener: socket.socket, scheme: str) -> Iterator[str]:
    """Write where the server is, and remove it at the end; the URL, for clients on this machine."""
    host, port = listener.getsockname()[:2]
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    url = f"{scheme}://[{name}]:{port}" if ":" in name else f"{scheme}://{name}:{port}"
    path = ws.state_folder / ADDRESS_FILE
    _write_whole(path, json.dumps({"pid": os.getpid(), "host": host, "port": port, "url": url}))
    try:
        with serving(ws):
            yield url
    finally:
        with contextlib.suppress(OSError, ValueError):
            if json.loads(path.read_text("utf-8"))["pid"] == os.getpid():  # a later server may have written its own
                path.unlink()


def _write_whole(path: Path, text: str) -> None:
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        draft.write_text(text, "utf-8")
        os.replace(draft, path)
    except OSError as error:
        raise Unusable(
            f"the workspace cannot be written: {error.strerror}", value=str(path), next_step="Check its rights"
        ) from None

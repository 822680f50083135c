"""What asking for keys costs: processor time of the guard alone, and of a server for each request with and without.

A server that asks for keys and one in whose workspace none was made answer the same requests in turn, so that whatever
else the machine does meets both alike. Processor time is the server process's own: the model works in another.
"""

import asyncio
import json
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.reporting import Measured, write

sys.path.append(str(Path(__file__).parents[1] / "tests"))

SEED = 7
N_ROUNDS, N_REQUESTS = 101, 100
N_GUARDED = 20_000
N_REVOKED = 40
LIMIT_US = 20.0


def main() -> int:
    alone_us = _guard_alone()
    without, with_keys, rates = _served()
    more = [a - b for a, b in zip(with_keys, without, strict=True)]
    more_us, low, high = _median(more)
    verdict = f"at most {LIMIT_US:g} us" + ("" if more_us <= LIMIT_US else ", not met")
    rows = [
        Measured("the guard alone, a key known", alone_us, "us"),
        Measured("server: processor time of a request, no key asked for", statistics.median(without), "us"),
        Measured("server: the same, a key asked for", statistics.median(with_keys), "us"),
        Measured("server: more for the key", more_us, "us", vs=verdict, low=low, high=high),
        Measured("one client: requests a second, no key asked for", rates[0], "1/s"),
        Measured("one client: requests a second, a key asked for", rates[1], "1/s", "without", rates[1] / rates[0]),
    ]
    rows += _revoked()
    write("access", rows, [SEED])
    return 0 if more_us <= LIMIT_US else 1


def _median(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, and the ends of its interval at 95 % by ranks (of 101: the 41st and the 61st)."""
    ordered = sorted(values)
    n = len(ordered)
    reach = round(0.98 * n**0.5)
    return statistics.median(ordered), ordered[n // 2 - reach], ordered[n // 2 + reach]


def _guard_alone() -> float:
    """Processor time of one request through the guard to an application that does nothing."""
    from headrace.access import keys
    from headrace.access.scopes import SCOPES
    from headrace.server.guard import Guard
    from headrace.server.plane import ControlPlane
    from headrace.server.terms import CURRENT, Terms
    from headrace.workspace import open_workspace
    from server.conftest import new_workspace

    async def nothing(scope: Any, receive: Any, send: Any) -> None:
        pass

    with tempfile.TemporaryDirectory(prefix="headrace-access-") as name:
        root = new_workspace(Path(name) / "ws")
        with open_workspace(root) as ws:
            key = keys.create(ws, "bench", scopes=list(SCOPES)).key
            plane = ControlPlane(ws)
            guard = Guard(nothing, plane.keyring, plane.metering)
            headers = [(b"host", b"localhost"), (b"user-agent", b"bench"), (b"content-type", b"application/json"),
                       (b"content-length", b"90"), (b"authorization", f"Bearer {key}".encode())]  # fmt: skip
            scope = {"type": "http", "method": "POST", "path": "/v1/predict", "query_string": b"", "headers": headers}

            async def many() -> float:
                CURRENT.set(Terms("req_0", 0.0))
                began_at = time.process_time()
                for _ in range(N_GUARDED):
                    await guard(scope, nothing, nothing)  # type: ignore[arg-type]
                return (time.process_time() - began_at) / N_GUARDED * 1e6

            return min(asyncio.run(many()) for _ in range(5))


def _served() -> tuple[list[float], list[float], tuple[float, float]]:
    """Processor time of a request in each round, in microseconds, without and with keys; and requests a second."""
    from headrace.access import keys
    from headrace.workspace import open_workspace
    from server.conftest import new_workspace
    from stub_model import install_plugin, running

    with tempfile.TemporaryDirectory(prefix="headrace-access-") as name, ExitStack() as stack:
        (Path(name) / "site").mkdir()
        environment = install_plugin(Path(name) / "site")
        asks: list[Callable[[], tuple[float, float]]] = []
        for is_closed in (False, True):
            root = new_workspace(Path(name) / f"ws-{is_closed}")
            head = ""
            if is_closed:
                with open_workspace(root) as ws:
                    head = f"Authorization: Bearer {keys.create(ws, 'bench', scopes=['predict', 'scores']).key}\r\n"
            server = stack.enter_context(running(root, environment))
            asks.append(_asker(server.url, server.process.pid, head))
        for ask in asks:
            ask()  # warm
        rounds = [[ask() for ask in asks] for _ in range(N_ROUNDS)]
    rates = tuple(statistics.median(one[k][1] for one in rounds) for k in (0, 1))
    return [one[0][0] for one in rounds], [one[1][0] for one in rounds], (rates[0], rates[1])


def _revoked() -> list[Measured]:
    """How long a key counts after it was revoked elsewhere, of so many."""
    import httpx

    from headrace.access import keys
    from headrace.workspace import open_workspace
    from server.conftest import new_workspace
    from stub_model import install_plugin, running

    seconds = []
    with tempfile.TemporaryDirectory(prefix="headrace-access-") as name:
        (Path(name) / "site").mkdir()
        environment, root = install_plugin(Path(name) / "site"), new_workspace(Path(name) / "ws")
        with open_workspace(root) as ws:
            made = [keys.create(ws, "bench", scopes=["predict"]) for _ in range(N_REVOKED)]
            with running(root, environment) as server, httpx.Client(base_url=server.url, timeout=30) as http:
                for one in made:
                    headers = {"Authorization": f"Bearer {one.key}"}
                    assert http.get("/v1/models", headers=headers).status_code == 200
                    keys.revoke(ws, one.record.id)
                    began_at = time.perf_counter()
                    while http.get("/v1/models", headers=headers).status_code == 200:
                        time.sleep(0.002)
                    seconds.append(time.perf_counter() - began_at)
    return [
        Measured(f"a revoked key counts for, median of {N_REVOKED}", statistics.median(seconds), "s"),
        Measured("the same, longest", max(seconds), "s", vs="at most 1 s"),
    ]


def _asker(url: str, pid: int, head: str) -> Callable[[], tuple[float, float]]:
    """Asks so many times over one connection: (processor time of a request in us, requests a second)."""
    host, port = url.removeprefix("http://").split(":")
    body = json.dumps({"task": "tone", "channel": "web", "inputs": [{"text": "all positive here"}]})
    request = (
        f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{head}"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()

    def ask() -> tuple[float, float]:
        with socket.create_connection((host, int(port)), timeout=30) as link:
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            before, began_at = _busy_ns(pid), time.perf_counter()
            for _ in range(N_REQUESTS):
                link.sendall(request)
                answer = b""
                while not answer.endswith(b'"}'):
                    answer += link.recv(65536)
                assert answer.startswith(b"HTTP/1.1 200"), answer
            seconds, busy_ns = time.perf_counter() - began_at, _busy_ns(pid) - before
        return busy_ns / N_REQUESTS / 1000, N_REQUESTS / seconds

    return ask


def _busy_ns(pid: int) -> int:
    """Processor time of all threads of a process, by the kernel's scheduler."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))


if __name__ == "__main__":
    sys.exit(main())

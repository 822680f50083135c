"""The loads that bench.serving puts on a server, each for some seconds.

Closed loops of one row a request are wrk's, where it is installed (Debian has it): it takes a hundredth of what a load
in Python does, and the load shares the cores with the server. All others are of few requests a second, or open, which
wrk cannot do: bench/load.py.
"""

import asyncio
import json
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.load import Load, Loaded
from bench.serving_material import Asked
from bench.serving_servers import Running

WRK = shutil.which("wrk")
_SCRIPT = Path(__file__).parent / "serving_load.lua"
_TIMEOUT_S = 20
_WARM_S = 1.0
_OPEN_CONNECTIONS = 256
_DEEP_ROWS = 1024  # waiting at once: more than that is not waited for at the end


@dataclass(frozen=True)
class Cell:
    """One load. `share`: an open loop at this share of what the server does with 64 connections; None: a closed one."""

    n_rows: int
    n_connections: int
    share: float | None = None

    @property
    def is_deep(self) -> bool:
        """Whether so many rows wait that the server still works on them when nobody waits any more."""
        return self.share is None and self.n_rows * self.n_connections > _DEEP_ROWS

    @property
    def what(self) -> str:
        rows = "one row a request" if self.n_rows == 1 else f"{self.n_rows} rows a request"
        if self.share is not None:
            return f"{rows}, open loop at {self.share:.0%} of the server's own rate"
        return f"{rows}, {self.n_connections} connection{'s' * (self.n_connections > 1)}"


@dataclass(frozen=True)
class Seen:
    """What came of a load, and how much of a core the load itself took."""

    loaded: Loaded
    load_share: float


def put(cell: Cell, server: Running, batches: Sequence[Sequence[Asked]], seconds: float, rate: float | None) -> Seen:
    """Put a load on a server. Ends when the server has nothing to do any more, but for deep cells.

    Args:
        batches: what is asked in turn, of the cell's rows each.
        rate: of an open loop, requests a second.
    """
    bodies = server.server.bodies(batches)
    began_at, began_cpu_s = time.perf_counter(), _cpu_s()
    if cell.share is None and cell.n_rows == 1 and WRK is not None:
        loaded = by_wrk(cell, server.url, bodies, seconds)
    else:
        load = Load(server.url, bodies, cell.n_rows, seconds, _WARM_S)
        if rate is None:
            loaded = asyncio.run(load.closed(cell.n_connections, gives_up=cell.is_deep))
        else:
            loaded = asyncio.run(load.open(rate, n_connections=_OPEN_CONNECTIONS))
    share = (_cpu_s() - began_cpu_s) / (time.perf_counter() - began_at)
    if not cell.is_deep:
        server.ask(bodies[0])  # behind what wrk left: servers answer in order of arrival
    return Seen(loaded, share)


def by_wrk(cell: Cell, url: str, bodies: Sequence[bytes], seconds: float) -> Loaded:
    assert WRK is not None
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
        file.write(b"\n".join(bodies))
        file.flush()
        numbers = ["-t1", f"-c{cell.n_connections}", f"-d{round(seconds)}s", "--timeout", f"{_TIMEOUT_S}s"]
        command = [WRK, *numbers, "-s", str(_SCRIPT), url, "--", file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    seen = json.loads(done.stdout.splitlines()[-1])
    n_errors = seen["n_refused"] + seen["n_lost"]
    n_good = seen["n_requests"] - seen["n_refused"]
    statuses = {"200": n_good, "refused": seen["n_refused"], "lost": seen["n_lost"]}
    per_s = n_good / seen["seconds"]
    p50, p90, p99, longest = (seen[name] for name in ("p50", "p90", "p99", "max"))
    return Loaded(per_s, per_s * cell.n_rows, p50, p90, p99, longest, seen["n_requests"], n_errors, statuses, 0.0)


def _cpu_s() -> float:
    """Of this process and the wrk processes that have ended. Servers that ended count too, so none ends within."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)

"""R8: clients that vanish without a word, as when a cable is pulled: when does the server have its connections back?

Server and clients live in a network namespace of their own, whose only interface goes down under them: from then on no
packet of one side reaches the other. Needs Linux and the right to make such a namespace.

Run: python -m bench.drills.half_open   (in the namespace; `half_open` below makes it and runs that)
"""

import json
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.drills import Figure, served

if TYPE_CHECKING:
    from stub_model import Server

N_EACH = 20
_WITHIN_S = 90.0
_TAKEN_WITHIN_S = 3.0
_LISTENS = "0A"  # states of /proc/net/tcp
_NAMESPACE = ["unshare", "--net", "--map-root-user"]
_ROOT = Path(__file__).parents[2]
_HEAD = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
KINDS = ("idle", "silent", "body", "waits", "reads nothing")


def why_not() -> str | None:
    """What this machine lacks for the drill; None: nothing."""
    try:
        tried = subprocess.run(
            [*_NAMESPACE, "ip", "link", "set", "lo", "up"], capture_output=True, text=True, check=False
        )
    except OSError as error:
        return f"no unshare or ip here: {error}"
    return None if tried.returncode == 0 else f"no network namespace of our own: {tried.stderr.strip()}"


def half_open(n_each: int = N_EACH, *, sockets: bool = True, **settings: object) -> list[Figure]:
    """Have clients of every kind vanish; when the server has let go of them, and with `sockets` the kernel too."""
    job = json.dumps({"n_each": n_each, "sockets": sockets, "settings": settings})
    command = [*_NAMESPACE, sys.executable, "-m", "bench.drills.half_open", job]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False, timeout=_WITHIN_S + 60)
    if done.returncode:
        raise RuntimeError(f"the drill failed: {done.stderr[-2000:]}")
    seen: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return [
        Figure("connections whose client vanished", seen["n_clients"], ""),
        Figure("closed by the server after", seen["files_s"], "s", at_most=60),
        *([Figure("forgotten by the kernel after", seen["sockets_s"], "s", at_most=60)] if sockets else []),
    ]


def run() -> list[Figure]:
    reason = why_not()
    if reason is not None:
        print(f"left out: {reason}", flush=True)
        return []
    return half_open()


def _inside(job: dict[str, Any]) -> dict[str, float]:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with served(**job["settings"]) as server, ExitStack() as links:
        pid, port = server.process.pid, int(server.url.rpartition(":")[2])
        n_files = _n_socket_files(pid)
        clients = [links.enter_context(_client(server, kind)) for kind in KINDS for _ in range(job["n_each"])]
        taken_by = time.monotonic() + _TAKEN_WITHIN_S
        while _n_socket_files(pid) < n_files + len(clients):
            if time.monotonic() > taken_by:
                raise RuntimeError("some clients were gone before they vanished")
            time.sleep(0.02)
        subprocess.run(["ip", "link", "set", "lo", "down"], check=True)
        began_at = time.monotonic()
        files_s, sockets_s = float("nan"), float("nan") if job["sockets"] else 0.0
        while time.monotonic() < began_at + _WITHIN_S and not (files_s >= 0 and sockets_s >= 0):
            time.sleep(0.1)
            elapsed_s = time.monotonic() - began_at
            if files_s != files_s and _n_socket_files(pid) <= n_files:
                files_s = elapsed_s
            if sockets_s != sockets_s and _n_sockets(port) == 0:
                sockets_s = elapsed_s
        return {"n_clients": len(clients), "files_s": files_s, "sockets_s": sockets_s}


def _client(server: "Server", kind: str) -> socket.socket:
    """A connection that is in the middle of something."""
    host, port = server.url.removeprefix("http://").split(":")
    link = socket.socket()
    if kind == "reads nothing":
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    link.connect((host, int(port)))
    texts = {"idle": ["positive"], "waits": ["stub:slow"], "reads nothing": ["positive"] * 1000}.get(kind)
    if texts is not None:
        body = {"task": "tone", "channel": "web", "inputs": [{"text": text} for text in texts]}
        content = json.dumps(body).encode()
        link.sendall(_HEAD + f"Content-Length: {len(content)}\r\n\r\n".encode() + content)
    if kind == "idle":
        link.recv(65536)
    elif kind == "body":
        link.sendall(_HEAD + b"Content-Length: 1000\r\n\r\n{")
    return link


def _n_socket_files(pid: int) -> int:
    """Sockets that a process has open; it opens other files too, such as those of its store."""
    return sum(_leads_to(file).startswith("socket:") for file in Path(f"/proc/{pid}/fd").iterdir())


def _leads_to(link: Path) -> str:
    """Name of what a link leads to; empty where the file was closed after it was listed."""
    try:
        return link.readlink().name
    except FileNotFoundError:
        return ""


def _n_sockets(port: int) -> int:
    """Connections of a listening port that the kernel still knows."""
    lines = Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]
    ends = (line.split()[1:4] for line in lines)
    return sum(int(local.rpartition(":")[2], 16) == port and state != _LISTENS for local, _, state in ends)


if __name__ == "__main__":
    print(json.dumps(_inside(json.loads(sys.argv[1]))))

"""Code that calls another machine, as a hostile model file would if it got to run: a job, and a backend."""

import json
import os
import socket
from pathlib import Path
from typing import Any

from headrace.export.artifact import ArtifactFacts
from headrace.jobs import Progress
from headrace.workspace import Workspace


def attempts(port: int) -> dict[str, str]:
    """What came of each way out."""
    found = {}
    ways = {"tcp": (socket.AF_INET, "127.0.0.1"), "tcp6": (socket.AF_INET6, "::1")}
    for name, (family, host) in ways.items():
        try:
            with socket.socket(family) as link:
                link.connect((host, port))
            found[name] = "connected"
        except OSError as error:
            found[name] = type(error).__name__
    child = os.popen(f"python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", {port}))' 2>&1").read()
    found["child"] = "PermissionError" if "PermissionError" in child else child or "connected"
    left, right = socket.socketpair()
    left.send(b"here")
    found["this machine"] = right.recv(4).decode()
    return found


def job(ws: Workspace, progress: Progress, *, port: int) -> dict[str, str]:
    return {**attempts(port), "hub": os.environ.get("HF_HUB_OFFLINE", "")}


class Backend:
    """Its models call home when they are loaded."""

    @staticmethod
    def load(folder: Path, facts: ArtifactFacts, *, n_threads: int = 0) -> Any:
        said = json.loads((folder / "calls.json").read_text())
        Path(said["log"]).write_text(json.dumps(attempts(said["port"])))
        raise RuntimeError("enough")

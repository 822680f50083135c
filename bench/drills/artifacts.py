"""R17: a version whose artifact is damaged, useless or never done with loading is put in charge. Who answers?"""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from bench.drills import Figure, served
from bench.drills.asking import Asker, Reply, arrivals_during, n_bad, request

if TYPE_CHECKING:
    from stub_model import Server

_FILE = "stub.json"
_LOAD_TIMEOUT_S = 120.0  # headrace.serve.process
_BRIEF_S = 5.0


def flip(path: Path) -> None:
    """One bit of the last byte but one."""
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    _replace(path, bytes(content))


def cut(path: Path) -> None:
    _replace(path, path.read_bytes()[:-3])


def remove(path: Path) -> None:
    path.parent.chmod(0o755)
    path.unlink()


def other_kind(path: Path) -> None:
    """Well-formed, and of another type than it should be."""
    _replace(path, json.dumps(["no", "object"]).encode())


def _replace(path: Path, content: bytes) -> None:
    path.parent.chmod(0o755)
    path.chmod(0o644)
    path.write_bytes(content)


HARMS: dict[str, tuple[Callable[[Path], None] | None, dict[str, object], float]] = {
    "a flipped bit": (flip, {}, _BRIEF_S),
    "cut short": (cut, {}, _BRIEF_S),
    "a file missing": (remove, {}, _BRIEF_S),
    "of another type": (other_kind, {}, _BRIEF_S),
    "cannot be loaded": (None, {"unloadable": True}, _BRIEF_S),
    "never done loading": (None, {"load_s": 3600}, _LOAD_TIMEOUT_S + _BRIEF_S),
}
"""What is done to the artifact's file, what its stub is told, and within what time it must be refused."""


def run() -> list[Figure]:
    figures = []
    for harm in HARMS:
        with served() as server:
            figures += bad_artifact(server, harm)
    return figures


def bad_artifact(server: "Server", harm: str, *, within_s: float | None = None) -> list[Figure]:
    """Promote a version that is harmed so; the one before goes on answering, and the log says why."""
    return asyncio.run(_promoted(server, harm, within_s))


async def _promoted(server: "Server", harm: str, within_s: float | None) -> list[Figure]:
    from headrace.release import releases
    from headrace.workspace import open_workspace
    from stub_model import plant_stub

    change, says, limit_s = HARMS[harm]
    asker, replies = Asker(server.url), []

    async def ask(_: int) -> None:
        replies.append(await asker.post(request("well")))

    with open_workspace(server.root) as ws:
        bad = plant_stub(ws, answer="positive", **says)
        if change is not None:
            change(ws.artifacts.get(bad.artifact) / _FILE)
        releases.promote(ws, bad, task="tone")
    refusing = asyncio.create_task(asyncio.to_thread(_refused_s, server, bad.name, within_s or limit_s))
    await arrivals_during(refusing, 20, ask)
    asker.close()
    said = {_version_of(reply) for reply in replies if reply.status == 200}
    return [
        Figure(f"{harm}: refused after", await refusing, "s", at_most=within_s or limit_s),
        Figure(f"{harm}: not answered meanwhile", n_bad(replies), f"of {len(replies)}", at_most=0),
        Figure(f"{harm}: answered by it", float(said != {"tone/1"}), "", at_most=0),
    ]


def _refused_s(server: "Server", name: str, within_s: float) -> float:
    """When the server's log says that the version is not served."""
    began_at = time.monotonic()
    while time.monotonic() < began_at + within_s:
        if f"version {name}, " in server.log.read_text():
            return time.monotonic() - began_at
        time.sleep(0.02)
    return float("nan")


def _version_of(reply: Reply) -> str:
    version: str = reply.body["model_version"]
    return version

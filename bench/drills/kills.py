"""R2: a server that is killed, again and again, while it is asked and told. Is what it acknowledged there?"""

import asyncio
import os
import random
import signal
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench.drills import Figure
from bench.drills.asking import LOST, Asker, arrivals, request

_RATE = 50
_SEED = 1
_LINGER_S = 0.2  # rows of the prediction log gather for 50 ms before they are written; a busy machine takes longer


@dataclass
class _Seen:
    predictions: dict[str, float] = field(default_factory=dict)
    """Id to how long before the kill it was answered."""
    feedback: dict[str, str] = field(default_factory=dict)
    """Idempotency key to the id that was acknowledged under it."""
    open_keys: dict[str, str] = field(default_factory=dict)
    """Key to prediction, of feedback that was sent and not answered: it is sent again."""
    ready_s: list[float] = field(default_factory=list)
    n_failed: int = 0
    n_contradicted: int = 0


def run(n_kills: int = 20, seconds: float = 3.0) -> list[Figure]:
    """
    Args:
        seconds: that a server lives at most.
    """
    from server.conftest import new_workspace
    from stub_model import Server, install_plugin

    rng, seen = random.Random(_SEED), _Seen()
    with tempfile.TemporaryDirectory(prefix="headrace-drill-") as name:
        site = Path(name) / "site"
        site.mkdir()
        env, root = install_plugin(site), new_workspace(Path(name) / "ws")
        for number in range(n_kills):
            began_at = time.monotonic()
            server = Server(root, env)
            seen.ready_s.append(time.monotonic() - began_at)
            try:
                asyncio.run(_until_killed(server, seen, rng.uniform(0.3, seconds), number))
            finally:
                server.process.kill()
                server.stop()
        server = Server(root, env)
        try:
            asyncio.run(_send_again(server, seen))
        finally:
            server.stop()
        return _figures(root, seen)


async def _until_killed(server: object, seen: _Seen, seconds: float, number: int) -> None:
    from stub_model import Server

    assert isinstance(server, Server)
    asker, answered, pid = Asker(server.url), {}, server.process.pid
    killed_at = time.monotonic() + seconds
    asyncio.get_running_loop().call_later(seconds, os.kill, pid, signal.SIGKILL)

    async def ask(n: int) -> None:
        reply = await asker.post(request("positive"))
        if reply.status != 200:
            seen.n_failed += reply.status != LOST
            return
        prediction = reply.body["predictions"][0]["id"]
        answered[prediction] = reply.sent_at + reply.took_s
        await _give(asker, seen, f"key-{number}-{n}", prediction)

    await _send_again(server, seen)
    try:
        await arrivals(_RATE, seconds, ask, seed=number)
    finally:
        asker.close()
    seen.predictions |= {one: killed_at - at for one, at in answered.items()}


async def _send_again(server: object, seen: _Seen) -> None:
    """What was never answered, under the same keys."""
    asker = Asker(server.url)  # type: ignore[attr-defined]
    try:
        for key, prediction in list(seen.open_keys.items()):
            await _give(asker, seen, key, prediction)
    finally:
        asker.close()


async def _give(asker: Asker, seen: _Seen, key: str, prediction: str) -> None:
    seen.open_keys[key] = prediction
    body = {"prediction_id": prediction, "comment": key}
    reply = await asker.post(body, path="/v1/feedback", headers={"Idempotency-Key": key})
    if reply.status == 200:
        known = seen.feedback.setdefault(key, reply.body["id"])
        seen.n_contradicted += known != reply.body["id"]
        del seen.open_keys[key]
    elif reply.status == 404:  # the prediction itself was not on disk when the server was killed
        del seen.open_keys[key]
    else:
        seen.n_failed += reply.status != LOST


def _figures(root: Path, seen: _Seen) -> list[Figure]:
    from headrace import auditing
    from headrace.release import ledger
    from headrace.workspace import open_workspace

    with open_workspace(root) as ws:
        broken = sum(one.verify(ws)["first_broken"] is not None for one in (auditing, ledger))
        with ws.store.read() as conn:
            rows = conn.exec_driver_sql("SELECT id, idempotency_key FROM feedback").all()
            predictions = set(conn.exec_driver_sql("SELECT id FROM predictions").scalars())
            broken += sum(row[0] != "ok" for row in conn.exec_driver_sql("PRAGMA integrity_check"))
            stuck = conn.exec_driver_sql("SELECT count(*) FROM jobs WHERE state = 'running'").scalar_one()
    there, keys = {row[0] for row in rows}, [row[1] for row in rows]
    gone = [before_s for one, before_s in seen.predictions.items() if one not in predictions]
    return [
        Figure("kills", len(seen.ready_s), ""),
        Figure("predictions answered", len(seen.predictions), ""),
        Figure("feedback acknowledged", len(seen.feedback), "", at_least=1),
        Figure("feedback acknowledged and not there", len(set(seen.feedback.values()) - there), "", at_most=0),
        Figure("keys with more than one effect", len(keys) - len(set(keys)) + seen.n_contradicted, "", at_most=0),
        Figure("answered wrongly", seen.n_failed, "", at_most=0),
        Figure("predictions not in the log", len(gone), f"of {len(seen.predictions)}"),
        Figure("predictions not in the log: oldest", max(gone, default=0.0), "s before", at_most=_LINGER_S),
        Figure("faults of database and chains", broken, "", at_most=0),
        Figure("jobs left running", stuck, "", at_most=0),
        Figure("ready after, median", sorted(seen.ready_s)[len(seen.ready_s) // 2], "s", at_most=5),
    ]

"""R23: the network between a server and its PostgreSQL goes, without a word, and comes back.

Both live in a network namespace of this drill's own, PostgreSQL in a further one at the far end of a cable (veth),
which is pulled: packets of either side are lost, no connection is refused or reset. Needs Linux, and root, who may make
such namespaces and have PostgreSQL run as somebody else.

Run: python -m bench.drills.partition   (in the namespace; `run` below makes it and runs that)
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from bench.drills import Figure
from bench.drills.half_open import why_not as no_namespace

_ROOT = Path(__file__).parents[2]
_NAMESPACE = ["unshare", "--net"]
_HERE, _THERE = "10.77.0.1", "10.77.0.2"
_LIMIT_S = 120
_PAUSE_S = 0.05
_TELL = {"task": "tone", "channel": "web", "inputs": [{"text": "positive"}]}


def why_not() -> str | None:
    """What this machine lacks for the drill; None: nothing."""
    import postgres

    if postgres.programs() is None:
        return "needs PostgreSQL's programs (initdb, postgres)"
    return "needs root" if os.geteuid() else no_namespace()


def run(seconds: float = 30.0) -> list[Figure]:
    """
    Args:
        seconds: for which the network is gone.
    """
    reason = why_not()
    if reason is not None:
        print(f"left out: {reason}", flush=True)
        return []
    command = [*_NAMESPACE, sys.executable, "-m", "bench.drills.partition", str(seconds)]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False, timeout=seconds + _LIMIT_S)
    if done.returncode:
        raise RuntimeError(f"the drill failed: {done.stderr[-2000:]}")
    return [Figure(**figure) for figure in json.loads(done.stdout.splitlines()[-1])]


@dataclass
class _Seen:
    n_predictions: int = 0
    n_failed: int = 0
    longest_s: float = 0.0
    acknowledged: dict[str, str] = field(default_factory=dict)
    """Idempotency key to the id of the feedback."""
    unsure: dict[str, str] = field(default_factory=dict)
    """Key to prediction, of feedback that was refused."""
    n_refused_otherwise: int = 0


def _inside(seconds: float) -> list[Figure]:
    import psycopg

    from headrace.workspace import init, open_workspace
    from planted import plant_channel
    from postgres import Cluster, programs
    from stub_model import install_plugin, plant_stub, running

    place = programs()
    assert place is not None
    _ip("link", "set", "lo", "up")
    with tempfile.TemporaryDirectory(prefix="headrace-drill-") as name, _far_end() as far:
        cluster = Cluster(place, is_durable=True, place=far, address=_THERE)
        url, root, site = cluster.fresh_url(), Path(name) / "ws", Path(name) / "site"
        site.mkdir()
        init(root, task="tone", labels=("negative", "neutral", "positive")).close()
        toml = root / "headrace.toml"
        toml.write_text(toml.read_text("utf-8") + f'\n[store]\nurl = "{url}"\n', "utf-8")
        with open_workspace(root) as ws:
            plant_channel(ws, "web")
            plant_stub(ws)
        with running(root, install_plugin(site)) as server:
            seen, figures = _cut_off(server.url, far, seconds)
        with psycopg.connect(url.replace("+psycopg", "")) as conn:
            rows = conn.execute("SELECT idempotency_key, id FROM feedback").fetchall()
        cluster.remove()
    twice = len(rows) - len(dict(rows))
    lost = sum(dict(rows).get(key) != row_id for key, row_id in seen.acknowledged.items())
    return [
        *figures,
        Figure("acknowledged and not there", lost, "", at_most=0),
        Figure("written twice", twice + len(rows) - len(seen.acknowledged), "", at_most=0),
    ]


def _cut_off(url: str, far: list[str], seconds: float) -> tuple[_Seen, list[Figure]]:
    seen, is_over = _Seen(), threading.Event()
    with httpx.Client(base_url=url, timeout=60) as client:
        first = client.post("/v1/predict", json=_TELL).json()["predictions"][0]["id"]
        _give(client, seen, "before", first)
        asking = threading.Thread(target=_ask, args=(url, seen, is_over))
        asking.start()
        _ip("link", "set", "far", "down", place=far)
        until, n_given = time.monotonic() + seconds, 0
        while time.monotonic() < until:
            _give(client, seen, f"without-{n_given}", first)
            n_given += 1
        _ip("link", "set", "far", "up", place=far)
        back_at = time.monotonic()
        while not _give(client, seen, "after", first) and time.monotonic() < back_at + _LIMIT_S / 2:
            time.sleep(_PAUSE_S)
        back_s = time.monotonic() - back_at
        is_over.set()
        asking.join()
        for key in list(seen.unsure):
            _give(client, seen, key, first)
    return seen, [
        Figure("the network was gone for", seconds, "s"),
        Figure("predictions meanwhile", seen.n_predictions, "", at_least=1),
        Figure("predictions not answered", seen.n_failed, "", at_most=0),
        Figure("longest answer to a prediction", seen.longest_s, "s", at_most=1),
        Figure("feedback sent meanwhile", n_given, "", at_least=1),
        Figure("feedback refused otherwise than by 503", seen.n_refused_otherwise, "", at_most=0),
        Figure("feedback is taken again after", back_s, "s", at_most=5),
    ]


def _ask(url: str, seen: _Seen, is_over: threading.Event) -> None:
    with httpx.Client(base_url=url, timeout=10) as client:
        while not is_over.wait(_PAUSE_S):
            began_at = time.monotonic()
            try:
                is_answered = client.post("/v1/predict", json=_TELL).status_code == 200
            except httpx.HTTPError:
                is_answered = False
            seen.longest_s = max(seen.longest_s, time.monotonic() - began_at)
            seen.n_predictions += 1
            seen.n_failed += not is_answered


def _give(client: httpx.Client, seen: _Seen, key: str, prediction: str) -> bool:
    """Send feedback under a key; whether it was taken."""
    said = {"prediction_id": prediction, "comment": key}
    answer = client.post("/v1/feedback", json=said, headers={"Idempotency-Key": key})
    if answer.status_code == 200:
        seen.acknowledged[key] = answer.json()["id"]
        seen.unsure.pop(key, None)
        return True
    seen.unsure[key] = prediction
    seen.n_refused_otherwise += answer.status_code != 503
    return False


@contextmanager
def _far_end() -> Iterator[list[str]]:
    """What runs a command at the far end of a cable."""
    with subprocess.Popen([*_NAMESPACE, "sleep", str(10 * _LIMIT_S)]) as keeper:
        place = ["nsenter", "--target", str(keeper.pid), "--net"]
        try:
            _wait_for_namespace(keeper.pid)
            _ip("link", "add", "near", "type", "veth", "peer", "name", "far", "netns", str(keeper.pid))
            for end, address, there in (("near", _HERE, []), ("far", _THERE, place)):
                _ip("addr", "add", f"{address}/24", "dev", end, place=there)
                _ip("link", "set", end, "up", place=there)
            yield place
        finally:
            keeper.kill()


def _wait_for_namespace(pid: int) -> None:
    own = os.readlink("/proc/self/ns/net")
    until = time.monotonic() + 5
    while os.readlink(f"/proc/{pid}/ns/net") == own:
        if time.monotonic() > until:
            raise RuntimeError("no second network namespace")
        time.sleep(0.01)


def _ip(*words: str, place: list[str] | None = None) -> None:
    subprocess.run([*(place or []), "ip", *words], check=True)


if __name__ == "__main__":
    print(json.dumps([vars(figure) for figure in _inside(float(sys.argv[1]))]))

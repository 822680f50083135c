"""Eight processes with eight threads each change one registry at once. Catches: two versions with one number, a check
outside its transaction, two open releases, a decision written and not reported or reported and not written, a broken
chain, an error that is not said plainly.
"""

import random
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from headrace import making
from headrace.errors import WrongState
from headrace.records import Artifact, Decision, LedgerEntry
from headrace.release import controls, ledger, releases, rollbacks
from headrace.store import releases as rows
from headrace.store import runs, versions
from headrace.workspace import Workspace, open_workspace
from planted import NOON, plant_channel, plant_version

CHANNELS = ("app", "shop", "web")
N_PROCESSES, N_THREADS, N_CALLS = 8, 8, 6
ENDS = {"promote": "promoted", "reject": "rejected", "stop": "stopped"}


def register(ws: Workspace, rng: random.Random) -> None:
    """What a job does when it has trained, exported and evaluated: files of its own, and the next number."""
    artifact = Artifact(f"sha256:{rng.randbytes(32).hex()}", "openvino", 1, {})
    with ws.store.write() as conn:
        runs.add_artifact(conn, artifact, NOON)
        first = versions.listing(conn, "tone")[0]
    results = {"version": {"overall": {"n": 1}}, "checkpoint": {"overall": {"n": 1}}}
    run = making.find_run(ws, first.run_id)
    making.register(ws, run, checkpoint=first.checkpoint, artifact=artifact.digest, results=results)


def one_call(ws: Workspace, rng: random.Random) -> list[str]:
    """Change something, by chance; the ids of the lines that were said to be written."""
    channel = rng.choice([None, None, *CHANNELS])
    with ws.store.read() as conn:
        n_versions = len(versions.listing(conn, "tone"))
        running = rows.open_release(conn, "tone")
    version = str(rng.randint(1, n_versions))
    match rng.choice(["create", "promote", "promote", "rollback", "rollback", "start", "decide", "advance", "stop"]):
        case "create":
            register(ws, rng)
            return []
        case "promote":
            return [releases.promote(ws, version, channel=channel).id]
        case "rollback":
            return [rollbacks.rollback(ws, channel=channel, to=rng.choice([None, version])).id]
        case "start":
            releases.start(ws, candidate=version, scope=rng.choice([(), ("app", "web"), ("shop",)]))
            return []
        case "stop":
            return [releases.stop(ws, channel=channel).id]
        case what if running is not None:
            named = {name: rng.choice(["promote", "reject", "hold"]) for name in CHANNELS if rng.random() < 0.5}
            by_channel = Decision("hold", "", {}, named)  # type: ignore[arg-type]
            decision = by_channel if what == "decide" else Decision("advance", "", weights={"candidate": 1.0})
            return [line.id for line in releases.decide(ws, running, decision)]
    return []


def race(root: Path, seed: int) -> tuple[list[str], list[str]]:
    """Ids of lines written by one process, and the errors that nobody documented."""
    written: list[str] = []
    errors: list[str] = []

    def run(ws: Workspace, number: int) -> None:
        rng = random.Random(f"{seed}-{number}")
        for _ in range(N_CALLS):
            try:
                written.extend(one_call(ws, rng))
            except WrongState:
                pass
            except Exception as error:
                errors.append(repr(error))

    with open_workspace(root) as ws:
        threads = [threading.Thread(target=run, args=(ws, number)) for number in range(N_THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=120)
    return written, errors


def replay(entries: list[LedgerEntry]) -> tuple[dict[str | None, str], int]:
    """Who is in charge after all lines, and the number of open releases; every line must be right where it stands."""
    now: dict[str | None, str] = {}
    ever: dict[str | None, set[str]] = {name: set() for name in (None, *CHANNELS)}
    left: dict[str, set[str]] = {}
    for line in entries:
        assert line.version_id is not None
        where = [None, *CHANNELS] if line.channel is None else [line.channel]
        if line.kind == "start":
            assert not left, f"line {line.seq} starts a release beside an open one"
            left[line.release_id or ""] = set(line.evidence["scope"] or CHANNELS)
        elif line.release_id is not None:
            assert line.release_id in left, f"line {line.seq} is about a release that is closed"
        if line.kind in ENDS and line.release_id is not None:
            here = left[line.release_id]
            assert line.channel is None or line.channel in here, f"line {line.seq} ends a release where it has ended"
            here -= set(CHANNELS if line.channel is None else [line.channel])
            if not here:
                del left[line.release_id]
        if line.kind in ("promote", "rollback"):
            by_hand = line.release_id is None
            assert not by_hand or any(now.get(name) != line.version_id for name in where), (
                f"line {line.seq} changes nothing"
            )
            assert line.kind == "promote" or line.version_id in ever[line.channel], (
                f"line {line.seq} goes back to nowhere"
            )
            for name in where:
                now[name] = line.version_id
                ever[name].add(line.version_id)
    return now, len(left)


@pytest.mark.slow
def test_of_many_at_once_each_finds_the_registry_whole(workspace: Workspace) -> None:
    for name in CHANNELS:
        plant_channel(workspace, name)
    plant_version(workspace)
    plant_version(workspace)
    first = controls.ensure_control(workspace)
    with ProcessPoolExecutor(N_PROCESSES, mp_context=get_context("spawn")) as pool:
        results = list(pool.map(race, [workspace.root] * N_PROCESSES, range(N_PROCESSES), timeout=150))
    assert [error for _, errors in results for error in errors] == []

    entries = ledger.history(workspace)
    found = ledger.verify(workspace)
    assert (found["n_lines"], found["first_broken"]) == (len(entries), None)
    assert [line.seq for line in entries] == list(range(1, len(entries) + 1))
    with workspace.store.read() as conn:
        known = versions.listing(conn, "tone")
        known_releases = rows.listing(conn, "tone")
        n_evaluated = len(versions.evaluations(conn, "tone"))
    assert [version.number for version in known] == list(range(1, len(known) + 1))
    assert len(known) > 10
    assert n_evaluated == 2 * (len(known) - 2)  # all but the planted ones, with all that was written beside them

    now, n_open = replay(entries)
    assert entries[0].version_id == first.id
    serving = controls.serving(workspace)
    assert {None: serving.control.id} | {c: serving.control_of(c).id for c in CHANNELS} == now
    assert n_open == sum(release.state == "open" for release in known_releases) == (serving.release is not None)
    for release in known_releases:
        ends = {ENDS[e.kind] for e in entries if e.release_id == release.id and e.kind in ENDS}
        assert release.state == "open" or {release.state} == (ends if len(ends) == 1 else {"mixed"})
    reported = [one for written, _ in results for one in written]
    assert len(reported) == len(set(reported))
    assert set(reported) <= {line.id for line in entries}
    unreported = {line.kind for line in entries[1:] if line.id not in set(reported)}
    assert unreported <= {"start", *ENDS}  # of several lines that one call wrote, the last is reported
    assert {line.kind for line in entries} >= {"promote", "rollback", "start", "stop"}

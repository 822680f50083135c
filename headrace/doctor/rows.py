"""What the rows of an open workspace tell: broken chains, keys, a clock that went back, work that is stuck."""

import ipaddress
import json
from collections.abc import Iterator
from datetime import timedelta

from headrace import auditing, backups, jobs
from headrace.access import keys as access_keys
from headrace.doctor.finding import Finding, error, note, warning
from headrace.errors import HeadraceError
from headrace.lineage import erasing
from headrace.release import ledger
from headrace.store import chain, imports, instants, releases, reviews
from headrace.store import keys as key_rows
from headrace.workspace import Workspace

_SOON = timedelta(days=14)
_AHEAD = timedelta(minutes=5)
_STUCK = timedelta(days=1)
_OLD_RELEASE = timedelta(days=30)
_OLD_QUESTION = timedelta(days=2)


def chains(ws: Workspace) -> Iterator[Finding]:
    """The ledger, and the audit log with what the newest backup has of it; and that nobody may change them."""
    for name, found, verb in (
        ("ledger", ledger.verify(ws), "headrace history --verify"),
        ("audit log", auditing.verify(ws, _noted(ws)), "headrace audit verify"),
    ):
        if found["first_broken"] is not None:
            problem = f"a line of the {name} is missing or not as it was written"
            advice = f"Compare with a backup: headrace restore BACKUP FOLDER, then there: {verb}"
            yield error("chains", problem, f"line {found['first_broken']} of {found['n_lines']}", advice)

    with ws.store.read() as conn:
        gone = chain.missing_guards(conn)
    if gone:
        problem = "what keeps the ledger and the audit log from being changed was taken out of the database"
        yield error("chains", problem, ", ".join(gone), "Find out who did; restore it: headrace restore BACKUP FOLDER")


def _noted(ws: Workspace) -> list[str]:
    """The anchor in the newest backup, if it can be read; `backups` says if it cannot."""
    place = backups.last(ws)
    try:
        anchor = "" if place is None else backups.anchor_of(place, key_file=ws.settings.store.key_file)
    except HeadraceError:
        return []
    return [anchor] if anchor else []


def keys(ws: Workspace) -> Iterator[Finding]:
    now, known = ws.clock(), access_keys.listing(ws)
    yield from _uncounted(ws)
    for key in known:
        if access_keys.standing(key, now) == "expired" and key.revoked_at is None:
            told = f"{key.id} ({key.name}), {key.expires_at:%Y-%m-%d}"
            yield note("keys", "a key has expired", told, f"Drop it: headrace key revoke {key.id}")
        elif key.revoked_at is None and key.expires_at is not None and key.expires_at < now + _SOON:
            told = f"{key.id} ({key.name}), {key.expires_at:%Y-%m-%d %H:%M} UTC"
            yield warning("keys", "a key soon expires", told, f"Give out a new one: headrace key rotate {key.id}")
    host = _served_at(ws)
    if host and not _is_loopback(host) and not any(access_keys.standing(key, now) == "valid" for key in known):
        problem = "the server can be reached from other machines, and no key is valid: nobody is answered"
        yield error("keys", problem, host, "Make one: headrace key create NAME --scope predict")


def _uncounted(ws: Workspace) -> Iterator[Finding]:
    """Keys that no server takes: their pepper is gone, or something else than headrace wrote them."""
    with ws.store.read() as conn:
        found = key_rows.with_hashes(conn)
    live = [(key.id, written) for key, written in found if access_keys.standing(key, ws.clock()) == "valid"]
    made = [key_id for key_id, written in live if access_keys.read_digest(written)]
    if made and access_keys.read_pepper(ws) is None:
        advice = f"Put .headrace/{access_keys.PEPPER} back from a backup: headrace restore BACKUP FOLDER"
        yield error("keys", "the file is gone without which no key counts", ", ".join(made), advice)
    forged = sorted({key_id for key_id, _ in live} - set(made))
    if forged:
        advice = f"They do not count. Find out who did; drop them: headrace key revoke {forged[0]}"
        yield error("keys", "something else than headrace wrote keys to the database", ", ".join(forged), advice)


def clock(ws: Workspace) -> Iterator[Finding]:
    now = ws.clock()
    with ws.store.read() as conn:
        newest = instants.newest(conn)
    for name, at in newest.items():
        if at > now + _AHEAD:
            yield error(
                "clock",
                f"the newest row of {name} is from the future: the clock went back",
                f"{at:%Y-%m-%d %H:%M:%S}, now it is {now:%Y-%m-%d %H:%M:%S} UTC",
                "Set the clock right: timedatectl set-ntp true",
            )


def work(ws: Workspace) -> Iterator[Finding]:
    """Jobs, imports, erasures and releases that do not come to an end."""
    now = ws.clock()
    for job in jobs.listing(ws):
        if job.state == "interrupted":
            again = "Run the same command again to go on, or drop it: headrace job cancel " + job.id
            yield warning("work", "the process of a job is gone", f"{job.id} ({job.target})", again)
        elif job.state in ("queued", "running") and now - job.created_at > _STUCK:
            since = f"{job.id} ({job.target}), since {job.created_at:%Y-%m-%d %H:%M} UTC"
            yield warning("work", "a job has been running for long", since, f"Watch it: headrace job follow {job.id}")
    yield from _imports(ws)
    for erasure in erasing.listing(ws):
        if erasure["state"] != "done":
            advice = "Finish it: headrace erase with the same options"
            yield error("work", "an erasure was begun and not finished", erasure["id"], advice)
        elif erasure["is_late"]:
            told = f"{erasure['id']}: {', '.join(erasure['in_charge'])}"
            is_made = erasure["rebuilt_at"] is not None
            advice = "Release one that did not: headrace release start" if is_made else "Run: headrace erase --rebuild"
            yield warning("work", "versions in charge used what was erased", told, advice)
    yield from _releases(ws)


def _releases(ws: Workspace) -> Iterator[Finding]:
    """Open releases that nobody decides, or whose questions nobody answers."""
    now = ws.clock()
    with ws.store.read() as conn:
        running = [found for task in sorted(ws.settings.tasks) if (found := releases.open_release(conn, task))]
        questions = [reviews.unanswered(conn, release.id) for release in running]
    for release, (n_waiting, oldest) in zip(running, questions, strict=True):
        if now - release.started_at > _OLD_RELEASE:
            told = f"{release.id} of {release.task}, since {release.started_at:%Y-%m-%d}"
            advice = f"See what it waits for: headrace release status --task {release.task}"
            yield warning("work", "a release has been undecided for long", told, advice)
        if oldest is not None and now - oldest > _OLD_QUESTION:
            told = f"{release.id} of {release.task}: {n_waiting} differences, the oldest since {oldest:%Y-%m-%d}"
            advice = f"Nothing else decides it. Answer them: headrace review next --task {release.task}"
            yield warning("work", "a release waits for reviewers", told, advice)


def _imports(ws: Workspace) -> Iterator[Finding]:
    """Imports that a kill left; one that runs holds a lock."""
    from filelock import FileLock, Timeout

    lock = FileLock(ws.state_folder / "import.lock")
    try:
        with lock.acquire(timeout=0), ws.store.read() as conn:
            left = imports.unfinished(conn)
    except Timeout:
        return
    for import_id in left:
        advice = "Run it again: headrace import CHANNEL FILE; the next import takes back what this one left"
        yield warning("work", "an import was not finished; none of its rows are seen", import_id, advice)


def _served_at(ws: Workspace) -> str:
    """Address of the server that runs, or ran last without being told to stop."""
    try:
        return str(json.loads((ws.state_folder / "server.json").read_text("utf-8"))["host"])
    except (OSError, ValueError, KeyError, TypeError):
        return ws.settings.serve.host


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

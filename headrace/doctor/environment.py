"""What a workspace stands on: the disk, the libraries, the clock."""

import os
import re
import shutil
import stat
import zoneinfo
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from headrace.config import StoreTable
from headrace.doctor.finding import Finding, error, warning
from headrace.workspace import STATE_FOLDER

_LITTLE_BYTES, _TOO_LITTLE_BYTES = 1 << 30, 100 << 20
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?(>=|==)?([0-9][0-9.]*)?")


def disk(root: Path, _store: StoreTable) -> Iterator[Finding]:
    """Room, and who may write."""
    state = root / STATE_FOLDER
    n_free = shutil.disk_usage(root).free
    room = f"{root}, {n_free >> 20} MiB free"
    if n_free < _TOO_LITTLE_BYTES:
        advice = "Make room; of old predictions less is kept with serve.log_max_bytes (headrace config show)"
        yield error("disk", "the disk is full", room, advice)
    elif n_free < _LITTLE_BYTES:
        yield warning("disk", "the disk is nearly full", room, "Make room before training or exporting")
    if not state.is_dir():
        yield error("disk", "the state folder is missing", state, "Restore it: headrace restore BACKUP FOLDER")
        return
    if not os.access(state, os.W_OK | os.X_OK):
        yield error("disk", "the state folder cannot be written", state, f"Run: chown -R $USER '{state}'")
    mode = state.stat().st_mode
    if mode & stat.S_IWOTH:
        yield error("disk", "anybody on this machine may write to the state folder", state, f"Run: chmod o-w '{state}'")
    elif mode & stat.S_IRWXO and root.stat().st_mode & stat.S_IXOTH:
        yield error("disk", "anybody on this machine may read every text", state, f"Run: chmod 700 '{state}'")


def libraries(_root: Path, _store: StoreTable) -> Iterator[Finding]:
    """Of what headrace needs, and of what of its optional parts is installed: is any too old?"""
    for line in metadata.requires("headrace") or ():
        requirement, _, marker = line.partition(";")
        found = _REQUIREMENT.match(requirement)
        if found is None or found[3] is None:
            continue
        name, sign, wanted = found[1], found[2], found[3]
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            if not marker:
                yield error("libraries", "a library is missing", name, f"Run: pip install '{name}{sign}{wanted}'")
            continue
        if _numbers(version) < _numbers(wanted):
            problem = "a library is older than headrace is tested with"
            yield warning("libraries", problem, f"{name} {version}", f"Run: pip install '{name}{sign}{wanted}'")


def time_zone(_root: Path, _store: StoreTable) -> Iterator[Finding]:
    """Of options such as --at, which are read in local time."""
    name = os.environ.get("TZ", "").removeprefix(":")
    if name and not name.startswith("/") and name not in zoneinfo.available_timezones() and "," not in name:
        problem = "the time zone is not known, so that options such as --at are read in UTC"
        yield warning("clock", problem, f"TZ={name}", "Set TZ to a name such as Europe/Berlin, or unset it")


def _numbers(version: str) -> tuple[int, ...]:
    """The release of a version, without what follows it; trailing zeros do not count."""
    found = re.match(r"[0-9]+(?:\.[0-9]+)*", version)
    parts = [int(part) for part in found[0].split(".")] if found else []
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)

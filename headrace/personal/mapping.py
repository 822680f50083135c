"""What surrogates stand for, where that is kept: encrypted with a key for each person, which an erasure destroys.

    value --data key of the person--> ciphertext        tables `replaced` and `subject_keys`
    data key --master key--> wrapped                    the master key is a file beside the database, in no backup

An erasure deletes the person's data key and makes a new master key, under which the keys of all others are wrapped
anew. So the wrapped key in a backup of before can be opened by nobody, and what it holds of the person neither. A
backup of before the last erasure gives nobody's values back, its texts as ever.
"""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.artifacts import sync
from headrace.errors import Damaged, NotFound
from headrace.personal.policies import Cleaned
from headrace.personal.secret import secret_of
from headrace.personal.surrogates import digest
from headrace.secret_files import write_secret
from headrace.store import subjects
from headrace.workspace import Workspace

if TYPE_CHECKING:
    from cryptography.fernet import Fernet, MultiFernet
    from sqlalchemy.engine import Connection

FILE = "keys/personal.key"
"""In the state folder: the master key; while it is renewed two, the newer first."""
_KEPT_ANEW_AFTER = timedelta(days=1)
"""So that what still comes in outlives a channel's `keep_days`, and few writes are spent on it."""

# cryptography loads OpenSSL, which most workspaces do not need: it is imported where something is kept.


@dataclass(frozen=True)
class Kept:
    """A value on its way in."""

    subject: str
    """Whose it is: a unit, a labeller, or the hash of an input where nobody is named."""
    kind: str
    value: str
    surrogate: str


@dataclass(frozen=True)
class Revealed:
    """A value that was replaced."""

    kind: str
    surrogate: str
    value: str


def kept_of(subject: str, became: Iterable[Cleaned]) -> list[Kept]:
    """What is to be kept of texts that came through the door."""
    return [Kept(subject, one.kind, one.value, one.instead) for part in became for one in part.pieces]


def keep(ws: Workspace, conn: "Connection", channel_id: str, several: Sequence[Kept]) -> None:
    """Keep values of a channel. What is kept already stays, and what was kept on an earlier day is kept anew."""
    if not several:
        return
    secret, now = secret_of(ws.state_folder), ws.clock()
    ids = {one.subject: _subject_id(secret, channel_id, one.subject) for one in several}
    keys = _keys_of(ws, conn, channel_id, set(ids.values()))
    rows = {digest(secret, ids[one.subject], one.kind, one.surrogate): one for one in several}
    there = subjects.there(conn, rows)
    fresh = {row_id for row_id in rows if row_id not in there or there[row_id] < now - _KEPT_ANEW_AFTER}
    subjects.remove_values(conn, fresh & there.keys())
    for row_id in sorted(fresh):
        one = rows[row_id]
        subject_id = ids[one.subject]
        ciphertext = keys[subject_id].encrypt(one.value.encode("utf-8", "surrogatepass")).decode()
        subjects.add(
            conn, row_id, subject_id=subject_id, kind=one.kind, surrogate=one.surrogate, ciphertext=ciphertext, now=now
        )


def _keys_of(ws: Workspace, conn: "Connection", channel_id: str, subject_ids: set[str]) -> dict[str, "Fernet"]:
    """The key of each person, a new one for those who have none that opens."""
    from cryptography.fernet import Fernet

    master = _master(ws.state_folder)
    wrapped = subjects.wrapped_keys(conn, subject_ids)
    keys = {name: key for name in wrapped if (key := _unwrapped(master, wrapped[name])) is not None}
    if lost := wrapped.keys() - keys.keys():  # under a master key that a restore did not bring back
        subjects.remove(conn, lost)
    for name in sorted(subject_ids - keys.keys()):
        new = _new_key()
        subjects.add_key(conn, name, channel_id=channel_id, wrapped=master.encrypt(new).decode(), now=ws.clock())
        keys[name] = Fernet(new)
    return keys


def reveal(ws: Workspace, surrogate: str) -> list[Revealed]:
    """What a surrogate stands for; several where two values share it.

    Raises:
        NotFound: nothing is kept of it: the mapping was off, or whose it was is erased.
        Damaged: the master key is gone, is none, or is not the one that it was kept with.
    """
    with ws.store.read() as conn:
        rows = subjects.with_surrogate(conn, surrogate)
    if not rows:
        raise NotFound("nothing is kept of this surrogate", value=surrogate, next_step="See privacy.keep_mapping")
    master = _master_there(ws.state_folder)
    found: list[tuple[str, str]] = []
    for row in rows:
        key = None if master is None else _unwrapped(master, row.wrapped)
        if key is None:
            raise Damaged(
                f"what was kept cannot be opened: {'no' if master is None else 'another'} master key is here",
                value=FILE,
                next_step="Put the master key back that was there; a backup does not have it",
            )
        found.append((row.kind, key.decrypt(row.ciphertext.encode()).decode("utf-8", "surrogatepass")))
    return [Revealed(kind, surrogate, value) for kind, value in dict.fromkeys(found)]


def lost(ws: Workspace) -> tuple[int, int]:
    """Of how many people the master key, if it is there, does not open the key; and how many have one."""
    with ws.store.read() as conn:
        wrapped = [one for _, one in subjects.all_wrapped(conn)]
    if not wrapped:
        return 0, 0
    master = _master_there(ws.state_folder)
    if master is None:
        return len(wrapped), len(wrapped)
    return sum(_unwrapped(master, one) is None for one in wrapped), len(wrapped)


def shred(ws: Workspace, channel_id: str, people: Iterable[str] | None) -> int:
    """Destroy the keys of people, and what was kept of them; how many had one. Can be done again after a kill.

    Args:
        people: units, labellers and hashes of inputs; None: all of the channel.
    """
    path = ws.state_folder / FILE
    with ws.store.read() as conn:
        secret = None if people is None or not subjects.is_any(conn) else secret_of(ws.state_folder)
        ids = subjects.of_channel(conn, channel_id)
    if secret is not None and people is not None:
        ids = {_subject_id(secret, channel_id, one) for one in people} & ids
    elif people is not None:
        ids = set()
    with ws.store.write() as conn:
        subjects.remove(conn, ids)
    if path.exists() and (ids or len(_lines(path)) > 1):
        _renew(ws, path)
    return len(ids)


def _renew(ws: Workspace, path: Path) -> None:
    """Wrap all keys under a new master key; killed at any moment, both are there until it is done again.

    People go whose key is under another master key, of before a restore: nobody can open it.
    """
    from cryptography.fernet import InvalidToken

    lines = _lines(path)
    if len(lines) == 1:
        lines = [_new_key().decode(), *lines]
        _write(path, lines)
    both = _fernets(lines)
    with ws.store.write() as conn:
        gone = []
        for subject_id, wrapped in subjects.all_wrapped(conn):
            try:
                subjects.rewrap(conn, subject_id, both.rotate(wrapped.encode()).decode())
            except InvalidToken:
                gone.append(subject_id)
        subjects.remove(conn, gone)
    _write(path, lines[:1])


def _subject_id(secret: bytes, channel_id: str, name: str) -> str:
    return digest(secret, "subject", channel_id, name)


def _new_key() -> bytes:
    from cryptography.fernet import Fernet

    return Fernet.generate_key()


def _master(state_folder: Path) -> "MultiFernet":
    path = state_folder / FILE
    if not path.exists():
        write_secret(path, json.dumps([_new_key().decode()]).encode())
    return _fernets(_lines(path))


def _master_there(state_folder: Path) -> "MultiFernet | None":
    try:
        return _fernets(_lines(state_folder / FILE))
    except (OSError, ValueError):  # it is gone, or no key
        return None


def _lines(path: Path) -> list[str]:
    lines: list[str] = json.loads(path.read_bytes())
    return lines


def _fernets(lines: Sequence[str]) -> "MultiFernet":
    from cryptography.fernet import Fernet, MultiFernet

    return MultiFernet([Fernet(line) for line in lines])


def _unwrapped(master: "MultiFernet", wrapped: str) -> "Fernet | None":
    """The key of a person; None: another master key wrapped it."""
    from cryptography.fernet import Fernet, InvalidToken

    try:
        return Fernet(master.decrypt(wrapped.encode()))
    except InvalidToken:
        return None


def _write(path: Path, lines: Sequence[str]) -> None:
    draft = path.with_name(f"{path.name}.new")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(json.dumps(list(lines)).encode())
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)
    sync(path.parent)

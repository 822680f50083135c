"""What was erased, outside the database: a file that is only added to, so that a restored older backup loses it again.

A line says of whom by a digest under a secret key of the workspace, never by name: whoever has the file and not the key
cannot try names. With the key, what a restored database holds is digested and compared. Lines of one erasure:

    begun -> done        a kill between the two is seen by the next erasure, which finishes it
"""

import hashlib
import hmac
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from headrace.artifacts import sync
from headrace.errors import Damaged, NotFound
from headrace.secret_files import write_secret
from headrace.workspace import Workspace

FILE = "erasures.jsonl"
KEYS = "keys"
KEY_FILE = "erasures.key"
BEGUN, DONE = "begun", "done"
_KEY_BYTES = 32


@dataclass(frozen=True)
class Tombstone:
    """One erasure, without a word of what was erased."""

    id: str
    kind: str
    """labeller, channel or example."""
    channel_id: str
    subject: str
    """Digest of the labeller's name; id of the channel or the example."""
    inputs: tuple[str, ...]
    """Digests of the text hashes of an example's inputs."""
    at: str
    """Of the intent, in UTC."""
    key: str
    """Which key the digests are made with."""
    keep_files: bool
    """Whether the user's files below the workspace stay as they are."""
    state: str


def key_of(folder: Path) -> bytes:
    """The key of a state folder, made at first use."""
    path = folder / KEYS / KEY_FILE
    if not path.exists():
        write_secret(path, os.urandom(_KEY_BYTES))
    return path.read_bytes()


def key_name(key: bytes) -> str:
    """What tells keys apart."""
    return hashlib.sha256(b"headrace erasures" + key).hexdigest()[:16]


def digest(key: bytes, *parts: str) -> str:
    """HMAC-SHA256 of some texts, in hex."""
    return hmac.new(key, "\0".join(parts).encode(), hashlib.sha256).hexdigest()


def append(ws: Workspace, tombstone: Tombstone) -> None:
    """Add a line; it is on disk when this returns."""
    path = ws.state_folder / FILE
    broken = path.exists() and not path.read_bytes().endswith(b"\n")  # by a kill while the last line was written
    with path.open("ab") as file:
        line = json.dumps(asdict(tombstone), sort_keys=True)
        file.write(("\n" if broken else "").encode() + line.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    sync(path.parent)


def read(path: Path) -> list[Tombstone]:
    """The erasures of a file, each as its last line says, in the order they were begun; none where it is not there.

    Raises:
        Damaged: a line is no tombstone.
    """
    found: dict[str, Tombstone] = {}
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            facts = json.loads(line) if line.strip() else None
            one = None if facts is None else Tombstone(**{**facts, "inputs": tuple(facts["inputs"])})
        except (ValueError, TypeError, KeyError):
            if number == len(lines) or _is_cut(line):  # a kill while it was written: the erasure had not begun
                continue
            raise Damaged(
                "a line of the erasures is not as it was written",
                value=f"{path}:{number}",
                next_step="Restore the file from a backup of it",
            ) from None
        if one is not None:
            found[one.id] = one
    return list(found.values())


def _is_cut(line: bytes) -> bool:
    return line.startswith(b"{") and not line.endswith(b"}")


def key_for(tombstones: Iterable[Tombstone], folders: Iterable[Path]) -> dict[str, bytes]:
    """Name to key, of the keys that some tombstones were written with.

    Args:
        folders: state folders that may have them.

    Raises:
        NotFound: a key is in none of them.
    """
    paths = [folder / KEYS / KEY_FILE for folder in folders]
    keys = {key_name(key): key for path in paths if path.exists() for key in (path.read_bytes(),)}
    for one in tombstones:
        if one.kind != "channel" and one.key not in keys:
            raise NotFound(
                "the key of these erasures is not here",
                value=one.key,
                next_step=f"Put {KEYS}/{KEY_FILE} of the workspace that made them beside the file",
            )
    return keys


def at_of(tombstone: Tombstone) -> datetime:
    return datetime.fromisoformat(tombstone.at)

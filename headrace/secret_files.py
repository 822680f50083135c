"""Files that their owner alone may read: keys, and what keeps digests from being guessed."""

import os
from pathlib import Path

from headrace.artifacts import sync

_SECRETS = ("keys/*", "pepper", "*.key", "*.pem")
"""In a state folder; public keys, which end in .pub, are none."""


def secrets_in(state_folder: Path) -> list[Path]:
    """Every file of a state folder that nobody else may read."""
    found = {path for pattern in _SECRETS for path in state_folder.glob(pattern)}
    return sorted(path for path in found if path.is_file() and path.suffix != ".pub")


def write_secret(path: Path, content: bytes) -> None:
    """Write a file that its owner alone may read: whole or not at all, and never over another one."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, path)
    except FileExistsError:  # another process was faster
        pass
    finally:
        draft.unlink()
    sync(path.parent)

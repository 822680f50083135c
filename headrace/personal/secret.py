"""The key by which surrogates and digests are derived: nobody without it can try values."""

import os
from pathlib import Path

from headrace.secret_files import write_secret

FILE = "keys/surrogates.key"
"""In the state folder; a backup has it, so that texts of before and after a restore agree."""
_KEY_BYTES = 32


def secret_of(state_folder: Path) -> bytes:
    """The key, made at first use."""
    path = state_folder / FILE
    if not path.exists():
        write_secret(path, os.urandom(_KEY_BYTES))
    return path.read_bytes()

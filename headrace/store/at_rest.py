"""Database files whose every page is encrypted, where there is a key: SQLCipher, which is SQLite with AES-256.

The key file has the key and the salt, so that a copy of the database and the parts of its log are of one piece.
"""

import sqlite3
import string
import sys
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from headrace.errors import BadConfig, MissingExtra, Unusable

_N_DIGITS = 96  # 32 bytes of key, 16 of salt: zetetic.net/sqlcipher/sqlcipher-api, PRAGMA key
_PUT_BACK = (
    "Put the key back that the database was made with. For a new database make one: openssl rand -hex 48 > FILE; and "
    "keep a copy of it apart from backups"
)


def dbapi(key_file: str) -> Any:
    """The module that opens databases.

    Raises:
        MissingExtra: there is a key, and SQLCipher is not installed.
    """
    if not key_file:
        return sqlite3
    try:
        from sqlcipher3 import dbapi2
    except ModuleNotFoundError:
        raise MissingExtra("encrypted", library="sqlcipher3", purpose="store.key_file") from None
    return dbapi2


def connect(database: Path | str, key_file: str = "", **options: Any) -> sqlite3.Connection:
    """Open a file, with its key where it has one.

    Raises:
        BadConfig, MissingExtra, Unusable: see `key_in` and `dbapi`.
    """
    raw: sqlite3.Connection = dbapi(key_file).connect(str(database), **options)
    unlock(raw, key_file)
    return raw


def unlock(raw: Any, key_file: str) -> None:
    """Give a fresh connection the key; that it is the wrong one shows when something is read."""
    if key_file:
        raw.execute("PRAGMA cipher_log_level = NONE")  # it would write to stderr
        raw.execute(f"PRAGMA key = \"x'{key_in(key_file)}'\"")


def key_in(key_file: str) -> str:
    """The hexadecimal digits of a key file.

    Raises:
        BadConfig: the path is not absolute, or the file has something else.
        Unusable: it cannot be read.
    """
    if not Path(key_file).is_absolute():
        raise BadConfig(
            "store.key_file is not an absolute path", value=key_file, next_step="Keep the key away from the workspace"
        )
    try:
        digits = Path(key_file).read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Unusable(f"the database's key cannot be read: {error}", value=key_file, next_step=_PUT_BACK) from None
    if len(digits) != _N_DIGITS or set(digits) - set(string.hexdigits):
        raise BadConfig(f"store.key_file has not {_N_DIGITS} hexadecimal digits", value=key_file, next_step=_PUT_BACK)
    return digits


def unreadable(database: Path | str, key_file: str) -> Unusable:
    """What to say of a database that was opened with a key and cannot be read."""
    if _is_plain(database, key_file):
        return Unusable(
            "the database is not encrypted; store.key_file is for new ones",
            value=str(database),
            next_step="Leave it out, or make a new one with it: HEADRACE_STORE__KEY_FILE=FILE headrace init FOLDER",
        )
    return Unusable(
        "the database cannot be read with this key, or is damaged",
        value=f"{database}, {key_file}",
        next_step="Put the key there that it was made with; with that one, restore it: headrace restore BACKUP FOLDER",
    )


def _is_plain(database: Path | str, key_file: str) -> bool:
    # By the library: to close a file of our own would drop all locks that this process has on the database.
    try:
        with closing(dbapi(key_file).connect(f"file:{quote(str(database))}?mode=ro", uri=True)) as raw:
            raw.execute("SELECT count(*) FROM sqlite_master")
    except errors():
        return False
    return True


def errors(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """What files of either kind raise, and others, for an `except`."""
    module = sys.modules.get("sqlcipher3.dbapi2")
    return (*others, sqlite3.DatabaseError, *(() if module is None else (module.DatabaseError,)))

"""Rows on their way into the store, sorted by key on disk.

The store's indexes of keys and of text hashes are in order, and most keys are hashes. Written as they come, 5,000 rows
touch almost every page of both indexes; written in key order they touch a few neighbours. For 400,000 rows that halves
the time, and the difference grows with the table.
"""

import marshal
import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any


class Staging:
    """A temporary table without a name. Use as a context manager.

    SQLite keeps it in memory while small, then in a file that nobody else can see and that goes with the process.
    """

    def __init__(self, *, in_memory: bool = False) -> None:
        """
        Args:
            in_memory: nothing may be written to disk in plain.
        """
        self._conn = sqlite3.connect(":memory:" if in_memory else "", isolation_level=None)
        self._conn.execute("PRAGMA journal_mode=OFF")
        self._conn.execute("PRAGMA synchronous=OFF")
        self._conn.execute("CREATE TABLE rows (key, line, rest)")

    def __enter__(self) -> "Staging":
        return self

    def __exit__(self, *_: object) -> None:
        self._conn.close()

    def add(self, rows: Iterable[tuple[str, int, tuple[Any, ...]]]) -> None:
        """Add (key, line, the rest of the row: plain values, tuples and dictionaries of them)."""
        self._conn.execute("BEGIN")
        ready = ((key, line, marshal.dumps(rest)) for key, line, rest in rows)
        self._conn.executemany("INSERT INTO rows VALUES (?, ?, ?)", ready)
        self._conn.execute("COMMIT")

    def by_key(self) -> Iterator[tuple[str, int, tuple[Any, ...]]]:
        """Every row by key, rows of one key by line."""
        for key, line, rest in self._conn.execute("SELECT key, line, rest FROM rows ORDER BY key, line"):
            yield key, line, marshal.loads(rest)

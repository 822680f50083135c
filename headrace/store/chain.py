"""Tables whose rows are numbered without gaps and hold the hash of the row before: the ledger and the audit log.

Whoever changes a row has to change every hash after it; whoever noted a number and its hash somewhere else, an anchor,
sees that, and that rows were cut off at the end.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Table, insert, select
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from headrace.store.noun import lock_table

_GUARDS = {
    "sqlite": (
        [f"{table}_no_{verb}" for table in ("ledger", "audit_log") for verb in ("UPDATE", "DELETE")],
        "SELECT name FROM sqlite_master WHERE type = 'trigger' AND sql LIKE '%SELECT RAISE(ABORT,%'",
    ),
    "postgresql": (
        ["ledger_append_only", "audit_log_append_only"],
        "SELECT tgname FROM pg_trigger WHERE tgenabled <> 'D'",
    ),
}
"""Dialect to triggers, and the query for those that are in force."""


@dataclass(frozen=True)
class Checked:
    """What a look at every row of a chain found."""

    n_lines: int
    first_broken: int | None
    """Number of the first row that is not as it was written, or missing; None where there is none."""
    problem: str
    """Why that one is broken; empty where none is."""
    head: str
    """Hash of the newest row; empty where there is none."""


def append(conn: Connection, table: Table, content: Mapping[str, Any]) -> dict[str, Any]:
    """Write one row, with nobody else appending until the transaction ends; the row, with its number and hashes.

    Args:
        content: the columns but `seq` and the hashes.
    """
    lock_table(conn, table)
    seq, prev_hash = head(conn, table)
    line = {**content, "seq": seq + 1, "prev_hash": prev_hash}
    line["hash"] = line_hash(table, line)
    conn.execute(insert(table), line)
    return line


def line_hash(table: Table, line: Mapping[str, Any]) -> str:
    """Over the canonical JSON of all columns but `hash`: keys sorted, instants in UTC, JSON as it is given back.

    Existing chains hang on this: it may never change.
    """
    content = {column.name: _written(line[column.name]) for column in table.c if column.name != "hash"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def missing_guards(conn: Connection) -> list[str]:
    """Triggers by which the database refuses to change or delete rows of chains, and which are not there or do not."""
    wanted, query = _GUARDS[conn.dialect.name]
    return sorted(set(wanted) - set(conn.exec_driver_sql(query).scalars()))


def head(conn: Connection, table: Table) -> tuple[int, str]:
    """Number and hash of the newest row; 0 and nothing where there is none."""
    newest = select(table.c.seq, table.c.hash).order_by(table.c.seq.desc()).limit(1)
    found = conn.execute(newest).first()
    return (0, "") if found is None else (found.seq, found.hash)


def rows(conn: Connection, table: Table) -> Iterator[dict[str, Any]]:
    """All rows with all their columns, oldest first, a few at a time."""
    n_at_once = 1 if conn.dialect.name == "sqlite" else 1000  # one that cannot be read must not hide those before it
    query = select(table).order_by(table.c.seq)
    for row in conn.execute(query, execution_options={"yield_per": n_at_once}).mappings():
        yield dict(row)


def check(conn: Connection, table: Table, anchors: Iterable[tuple[int, str]] = ()) -> Checked:
    """Read every row and compute its hash again.

    Args:
        anchors: (number, hash) of rows, noted earlier somewhere else. Without one, rows cut off at the end leave a
            sound chain behind, and so does whoever writes all rows anew.
    """
    noted: dict[int, set[str]] = {}
    for seq, digest in anchors:
        noted.setdefault(seq, set()).add(digest)
    n_lines, prev_hash, broken, problem = 0, "", None, ""
    try:
        for line in rows(conn, table):
            n_lines += 1
            if broken is None:
                problem = _problem(table, line, n_lines, prev_hash, noted.pop(line["seq"], set()))
                broken = min(n_lines, line["seq"]) if problem else None
            prev_hash = line["hash"]
    except (ValueError, TypeError, DBAPIError) as error:  # SQLite lets any column hold anything
        if broken is None:
            broken, problem = n_lines + 1, f"it cannot be read: {error}"
    if broken is None and noted:
        broken, problem = n_lines + 1, f"line {min(noted)} was noted elsewhere, and the last one here is {n_lines}"
    return Checked(n_lines, broken, problem, prev_hash)


def _problem(table: Table, line: Mapping[str, Any], seq: int, prev_hash: str, noted: set[str]) -> str:
    """What is wrong with the row that should be number `seq`; empty where it is sound."""
    if line["seq"] != seq:
        return "it is missing" if line["seq"] > seq else "its number is taken or below 1"
    if line["prev_hash"] != prev_hash:
        return "the line before it is not the one that it was written after"
    if line["hash"] != _hash_or_none(table, line):
        return "it was changed"
    return "it has another hash than was noted elsewhere" if noted - {line["hash"]} else ""


def _hash_or_none(table: Table, line: Mapping[str, Any]) -> str | None:
    """None where a value is of a kind that was never written."""
    try:
        return line_hash(table, line)
    except (TypeError, AttributeError):
        return None


def _written(value: Any) -> Any:
    """A value as JSON holds it; keys become text, so that they sort."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds")
    return json.loads(json.dumps(value))

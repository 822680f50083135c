"""What is asked of a copy of the database that no store has open: whether it is sound, and what it refers to."""

import sqlite3
from datetime import UTC, datetime

from headrace.store import at_rest


def faults_in(conn: sqlite3.Connection) -> list[str]:
    """What is wrong with a database file; empty when it is sound."""
    try:
        found = [row[0] for row in conn.execute("PRAGMA integrity_check(3)") if row[0] != "ok"]
        return found + [f"{row[0]} refers to no row of {row[2]}" for row in conn.execute("PRAGMA foreign_key_check")]
    except at_rest.errors() as error:
        return [str(error)]


def artifacts_in(conn: sqlite3.Connection) -> list[str]:
    """Digests of the artifacts that there should be: all but those of erased snapshots."""
    needed = "SELECT artifact FROM snapshots WHERE erased_at IS NULL"
    gone = f"SELECT artifact FROM snapshots WHERE erased_at IS NOT NULL AND artifact NOT IN ({needed})"
    rows = conn.execute(f"SELECT digest FROM artifacts WHERE digest NOT IN ({gone}) ORDER BY digest")
    return [digest for (digest,) in rows]


def ledger_head(conn: sqlite3.Connection) -> str:
    """Hash of the newest line of the ledger; empty where there is none."""
    row = conn.execute("SELECT hash FROM ledger ORDER BY seq DESC LIMIT 1").fetchone()
    return "" if row is None else str(row[0])


def audit_anchor(conn: sqlite3.Connection) -> str:
    """Number and hash of the newest line of the audit log, as `headrace audit verify` takes them; empty without any."""
    row = conn.execute("SELECT seq, hash FROM audit_log ORDER BY seq DESC LIMIT 1").fetchone()
    return "" if row is None else f"{row[0]}:{row[1]}"


def revoked_keys_in(conn: sqlite3.Connection) -> list[str]:
    """Ids of access keys that were revoked; none where the database is too damaged, or too old, to say."""
    try:
        return [row[0] for row in conn.execute("SELECT id FROM api_keys WHERE revoked_at IS NOT NULL ORDER BY id")]
    except at_rest.errors():
        return []


def ends_of_keys_in(conn: sqlite3.Connection) -> dict[str, datetime]:
    """When access keys end that were not revoked, by id, those without an end left out; none, see `revoked_keys_in`.

    Raises:
        ValueError: one of the instants is none.
    """
    query = "SELECT id, expires_at FROM api_keys WHERE revoked_at IS NULL AND expires_at IS NOT NULL ORDER BY id"
    try:
        found = conn.execute(query).fetchall()
    except at_rest.errors():
        return {}
    return {key_id: datetime.fromisoformat(str(at)).replace(tzinfo=UTC) for key_id, at in found}

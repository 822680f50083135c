"""When the newest rows were written, by the clock of that time."""

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.engine import Connection

from headrace.store import schema

_WRITTEN = {
    "predictions": schema.predictions.c.at,
    "feedback": schema.feedback.c.at,
    "the ledger": schema.ledger.c.at,
    "the audit log": schema.audit_log.c.at,
}


def newest(conn: Connection) -> dict[str, datetime]:
    """Table to the latest instant in it; tables without rows are not there."""
    found = {name: conn.execute(select(func.max(column))).scalar() for name, column in _WRITTEN.items()}
    return {name: at for name, at in found.items() if at is not None}

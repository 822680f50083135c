"""Alembic migrations, run when a store is opened. One file per step in `versions/`, applied in order."""

from pathlib import Path

from headrace.errors import WrongState
from headrace.store.engine import Store

NEWEST = "0008"
"""The revision this code writes; a test compares it with the newest file."""


def upgrade(store: Store) -> None:
    """Bring the tables to NEWEST, all steps in one transaction.

    Raises:
        WrongState: the database is newer than this code.
    """
    import sqlalchemy as sa

    with store.read() as conn:
        has_table = sa.inspect(conn).has_table("alembic_version")
        found = conn.execute(sa.text("select version_num from alembic_version")).scalar() if has_table else None
    if found == NEWEST:
        return
    if found is not None and found > NEWEST:
        raise WrongState(
            "the workspace was written by a newer headrace",
            value=f"schema {found}, this code knows {NEWEST}",
            next_step="Upgrade headrace: pip install -U headrace",
        )
    _run_alembic(store)


def _run_alembic(store: Store) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    with store.write() as conn:
        config.attributes["connection"] = conn
        command.upgrade(config, "head")

"""Migrations. Catches: a table changed without its migration, a database of newer code opened and harmed."""

import re
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from headrace.errors import WrongState
from headrace.store import Store, migrations, open_store, schema


def test_migrations_make_the_tables_of_the_schema(store: Store) -> None:
    with store.read() as conn:
        context = MigrationContext.configure(conn, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, schema.metadata) == []


def test_the_newest_revision_is_the_newest_file() -> None:
    files = (Path(migrations.__file__).parent / "versions").glob("m*.py")
    found = sorted(re.findall(r'^revision\b.*?"(\w+)"', file.read_text("utf-8"), re.M)[0] for file in files)
    assert found[-1] == migrations.NEWEST


def test_opening_again_changes_nothing(store: Store, store_url: str, tmp_path: Path) -> None:
    with store.read() as conn:
        before = sa.inspect(conn).get_table_names()
    again = open_store(store_url, lock_path=tmp_path / "store.lock")
    with again.read() as conn:
        assert sa.inspect(conn).get_table_names() == before
    again.close()


def test_a_database_of_newer_code_is_refused(store: Store, store_url: str, tmp_path: Path) -> None:
    with store.write() as conn:
        conn.execute(sa.text("update alembic_version set version_num = '9999'"))
    with pytest.raises(WrongState, match=r"9999.*pip install -U"):
        open_store(store_url, lock_path=tmp_path / "store.lock")

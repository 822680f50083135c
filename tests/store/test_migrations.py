"""Migrations. Catches: a table changed without its migration, a database of newer code opened and harmed."""

import re
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from headrace.errors import WrongState
from headrace.store import Store, examples, migrations, open_store, schema
from planted import NOON


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


def test_a_workspace_of_the_first_tables_opens_and_goes_on(store_url: str, tmp_path: Path) -> None:
    """With rows written before inputs had two parts."""
    from alembic import command
    from alembic.config import Config

    old = Store(store_url, lock_path=tmp_path / "store.lock")
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    with old.write() as conn:
        config.attributes["connection"] = conn
        command.upgrade(config, "0001")
        conn.execute(sa.text("insert into channels values ('chn_1', 'web', '', '', '', '2026-03-01 12:00:00')"))
        conn.execute(
            sa.text(
                "insert into examples (id, channel_id, key, text, text_hash, group_key, created_at) "
                "values ('ex_1', 'chn_1', 'k', 'so', 'h', 'web:k', '2026-03-01 12:00:00')"
            )
        )
    old.close()
    again = open_store(store_url, lock_path=tmp_path / "store.lock")
    with again.write() as conn:
        (row,) = examples.grouped_texts(conn)
        assert (row.input, row.text_pair) == ("so", None)
        conn.execute(
            sa.insert(schema.examples).values(
                id="ex_2", channel_id="chn_1", key="l", text="so", text_pair="what", text_hash="i", group_key="web:l",
                created_at=NOON,
            )
        )  # fmt: skip
    with again.read() as conn:
        assert [row.input for row in examples.grouped_texts(conn)] == ["so", ("so", "what")]
    again.close()

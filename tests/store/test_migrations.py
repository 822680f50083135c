"""Migrations. Catches: a table changed without its migration, a database of newer code opened and harmed."""

import re
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext

from headrace.errors import WrongState
from headrace.store import Store, examples, ledger, migrations, open_store, predictions, releases, schema
from planted import NOON, plant_version


def test_migrations_make_the_tables_of_the_schema(store: Store) -> None:
    with store.read() as conn:
        comparable = conn.dialect.name == "sqlite"  # PostgreSQL has no equality of JSON, which some defaults are
        context = MigrationContext.configure(conn, opts={"compare_type": True, "compare_server_default": comparable})
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


def migrate(conn: sa.Connection, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.attributes["connection"] = conn
    command.upgrade(config, revision)


def test_a_workspace_of_the_first_tables_opens_and_goes_on(store_url: str, tmp_path: Path) -> None:
    """With rows written before inputs had two parts."""
    old = Store(store_url, lock_path=tmp_path / "store.lock")
    with old.write() as conn:
        migrate(conn, "0001")
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


def test_a_ledger_without_hashes_gets_them_and_is_locked_again(store_url: str, tmp_path: Path) -> None:
    """With a gap in its numbers, and the release and the prediction of that time. Catches lines lost or changed."""
    old = Store(store_url, lock_path=tmp_path / "store.lock")
    with old.write() as conn:
        migrate(conn, "0005")
        version_id = plant_version(SimpleNamespace(store=SimpleNamespace(write=lambda: nullcontext(conn)))).id
        values = f"'tone', '{version_id}', '{version_id}', 'shadow', '{{}}', 'open', '2026-03-01 12:00:00.5'"
        conn.execute(
            sa.text(
                "insert into releases (id, task, control_id, candidate_id, policy, options, state, started_at, "
                f"config_hash, code_version) values ('rel_1', {values}, 'c', '0')"
            )
        )
        conn.execute(sa.text("insert into channels values ('chn_1', 'web', '', '', '', '2026-03-01 12:00:00')"))
        for seq in (1, 2, 5):
            conn.execute(
                sa.text(
                    "insert into ledger (seq, id, task, kind, version_id, release_id, reason, evidence, actor, at, "
                    f"config_hash, code_version) values ({seq}, 'led_{seq}', 'tone', 'hold', '{version_id}', 'rel_1', "
                    "'because', '{\"e\": 1.0}', 'me', '2026-03-01 12:00:00.123456', 'c', '0')"
                )
            )
        conn.execute(
            sa.text(
                "insert into predictions (id, request_id, row, task, channel_id, arm, release_id, version_id, artifact,"
                " text_hash, output, latency_ms, at, config_hash, code_version) values ('prd_1', 'req_1', 0, 'tone', "
                f"'chn_1', 'control', 'rel_1', '{version_id}', 'sha256:0', 'h', '{{}}', 1, '2026-03-01', 'c', '0')"
            )
        )
    old.close()
    again = open_store(store_url, lock_path=tmp_path / "store.lock")
    with again.read() as conn:
        lines = list(ledger.all_lines(conn))
        assert [(line["seq"], line["id"], line["reason"]) for line in lines] == [
            (1, "led_1", "because"), (2, "led_2", "because"), (3, "led_5", "because"),
        ]  # fmt: skip
        assert [line["hash"] for line in lines] == [ledger.line_hash(line) for line in lines]
        assert [line["prev_hash"] for line in lines] == ["", lines[0]["hash"], lines[1]["hash"]]
        assert lines[0]["at"] == datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
        (release,) = releases.listing(conn, "tone")
        assert (release.others, release.scope, release.weights, release.stage) == ((), None, {"control": 1.0}, 0)
        answer = predictions.find(conn, "prd_1")
        assert answer is not None
        assert answer.probability == 1
    for change in (sa.update(schema.ledger).values(reason="better"), sa.delete(schema.ledger)):
        with pytest.raises(sa.exc.DatabaseError, match="append"), again.write() as conn:
            conn.execute(change)
    again.close()

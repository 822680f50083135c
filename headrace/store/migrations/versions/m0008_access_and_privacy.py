"""Keys, the audit log, usage, and what surrogates stand for."""

import sqlalchemy as sa
from alembic import op

from headrace.store import schema

revision = "0008"
down_revision = "0007"

_APPEND_ONLY = """
CREATE TRIGGER audit_log_no_{verb} BEFORE {verb} ON audit_log
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END
"""
_LARGE = {
    "artifacts": ["n_bytes"],
    "runs": ["seed"],
    "traffic": [f"n_{name}" for name in ("requests", "errors", "timeouts", "slow", "abstained", "units")],
}
"""Columns that 32 bits are not enough for."""
_REFUSE = """
CREATE FUNCTION headrace_refuse_change() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION '% is append-only', TG_ARGV[0]; END $$
"""
_REFUSE_CHANGE = """
CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}
FOR EACH STATEMENT EXECUTE FUNCTION headrace_refuse_change('{name}')
"""


def upgrade() -> None:
    _make_keys()
    for table in ("feedback", "labels", "reviews"):
        op.add_column(table, sa.Column("key_id", sa.String(length=48), nullable=True))
    _make_audit_log()
    _make_usage()
    _make_subjects()
    if op.get_bind().dialect.name == "postgresql":
        op.execute(_REFUSE)
        for table, name in (("ledger", "the ledger"), ("audit_log", "the audit log")):
            op.execute(_REFUSE_CHANGE.format(table=table, name=name))
        for table, columns in _LARGE.items():
            for column in columns:
                op.alter_column(table, column, type_=sa.BigInteger())


def _make_keys() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("secret_hash", sa.String(length=64), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("channels", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("requests_per_s", sa.Float(), nullable=True),
        sa.Column("rows_per_day", sa.Integer(), nullable=True),
        sa.Column("created_at", schema.Instant(), nullable=False),
        *(sa.Column(name, schema.Instant(), nullable=True) for name in ("expires_at", "revoked_at", "last_used_at")),
        sa.Column("replaces", sa.String(length=48), nullable=True),
        *_origin(),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
    )


def _make_audit_log() -> None:
    op.create_table(
        "audit_log",
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("actor", sa.String(length=200), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("object", sa.String(length=200), nullable=False),
        sa.Column("before_hash", sa.String(length=64), nullable=True),
        sa.Column("after_hash", sa.String(length=64), nullable=True),
        sa.Column("request_id", sa.String(length=128), nullable=True),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("at", schema.Instant(), nullable=False),
        *_origin(),
        sa.Column("prev_hash", sa.String(length=80), nullable=False),
        sa.Column("hash", sa.String(length=80), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_audit_log")),
    )
    if op.get_bind().dialect.name == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            op.execute(_APPEND_ONLY.format(verb=verb))


def _make_usage() -> None:
    refs = ("key_id", "channel_id", "task", "hour", "source")
    op.create_table(
        "usage",
        sa.Column("key_id", sa.String(length=48), nullable=False),
        sa.Column("channel_id", sa.String(length=80), nullable=False),
        sa.Column("task", sa.String(length=64), nullable=False),
        sa.Column("hour", schema.Instant(), nullable=False),
        sa.Column("source", sa.String(length=48), nullable=False),
        *(sa.Column(f"n_{name}", sa.Integer(), nullable=False) for name in ("requests", "refused", "rows", "tokens")),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint(*refs, name=op.f("pk_usage")),
    )
    op.create_index(op.f("ix_usage_hour"), "usage", ["hour"])


def _make_subjects() -> None:
    op.create_table(
        "subject_keys",
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("channel_id", sa.String(length=80), nullable=False),
        sa.Column("wrapped", sa.Text(), nullable=False),
        sa.Column("created_at", schema.Instant(), nullable=False),
        sa.ForeignKeyConstraint(["channel_id"], ["channels.id"], name=op.f("fk_subject_keys_channel_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_subject_keys")),
    )
    op.create_table(
        "replaced",
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("subject_id", sa.String(length=80), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("surrogate", sa.String(length=200), nullable=False),
        sa.Column("ciphertext", sa.Text(), nullable=False),
        sa.Column("created_at", schema.Instant(), nullable=False),
        sa.ForeignKeyConstraint(["subject_id"], ["subject_keys.id"], name=op.f("fk_replaced_subject_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_replaced")),
    )
    for column in ("subject_id", "surrogate"):
        op.create_index(op.f(f"ix_replaced_{column}"), "replaced", [column])


def _origin() -> tuple[sa.Column[str], sa.Column[str]]:
    """Columns are made anew for each table."""
    return (
        sa.Column("config_hash", sa.String(length=16), nullable=False),
        sa.Column("code_version", sa.String(length=32), nullable=False),
    )

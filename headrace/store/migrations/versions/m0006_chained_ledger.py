"""A ledger of hashed lines about channels too; releases with a scope, shares and stages; counts of their traffic."""

import sqlalchemy as sa
from alembic import op

from headrace.store import schema
from headrace.store.ledger import line_hash

revision = "0006"
down_revision = "0005"

_APPEND_ONLY = """
CREATE TRIGGER ledger_no_{verb} BEFORE {verb} ON ledger
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END
"""
_CHUNK = 1000


def upgrade() -> None:
    for column in (
        sa.Column("others", sa.JSON(), nullable=False, server_default="[]"),
        sa.Column("scope", sa.JSON(), nullable=True),
        sa.Column("weights", sa.JSON(), nullable=False, server_default='{"control": 1.0}'),
        sa.Column("stage", sa.Integer(), nullable=False, server_default="0"),
    ):
        op.add_column("releases", column)
    op.add_column("predictions", sa.Column("probability", sa.Float(), nullable=False, server_default="1"))
    _make_traffic()
    _chain_the_ledger()


def _make_traffic() -> None:
    counts = ("n_requests", "n_errors", "n_timeouts", "n_slow", "n_abstained", "n_units")
    op.create_table(
        "traffic",
        sa.Column("release_id", sa.String(length=80), nullable=False),
        sa.Column("arm", sa.String(length=16), nullable=False),
        sa.Column("channel_id", sa.String(length=80), nullable=False),
        sa.Column("source", sa.String(length=48), nullable=False),
        sa.Column("stage", sa.Integer(), autoincrement=False, nullable=False),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in counts),
        sa.Column("at", schema.Instant(), nullable=False),
        sa.ForeignKeyConstraint(["release_id"], ["releases.id"], name=op.f("fk_traffic_release_id")),
        sa.ForeignKeyConstraint(["channel_id"], ["channels.id"], name=op.f("fk_traffic_channel_id")),
        sa.PrimaryKeyConstraint("release_id", "arm", "channel_id", "source", "stage", name=op.f("pk_traffic")),
    )


def _chain_the_ledger() -> None:
    """Write the table anew: no line of the old one may be changed, and none has a hash."""
    conn = op.get_bind()
    op.execute("CREATE TABLE ledger_before AS SELECT * FROM ledger")
    op.drop_table("ledger")
    ledger = op.create_table(
        "ledger",
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("task", sa.String(length=64), nullable=False),
        sa.Column("channel_id", sa.String(length=80), nullable=True),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("version_id", sa.String(length=80), nullable=True),
        sa.Column("release_id", sa.String(length=80), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.Column("actor", sa.String(length=200), nullable=False),
        sa.Column("at", schema.Instant(), nullable=False),
        sa.Column("config_hash", sa.String(length=16), nullable=False),
        sa.Column("code_version", sa.String(length=32), nullable=False),
        sa.Column("prev_hash", sa.String(length=80), nullable=False),
        sa.Column("hash", sa.String(length=80), nullable=False),
        sa.ForeignKeyConstraint(["channel_id"], ["channels.id"], name=op.f("fk_ledger_channel_id")),
        sa.ForeignKeyConstraint(["release_id"], ["releases.id"], name=op.f("fk_ledger_release_id")),
        sa.ForeignKeyConstraint(["version_id"], ["model_versions.id"], name=op.f("fk_ledger_version_id")),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_ledger")),
        sa.UniqueConstraint("id", name=op.f("uq_ledger_id")),
    )
    _copy(conn, ledger)
    op.drop_table("ledger_before")
    who_when = ["task", "channel_id", "kind", "seq", "at"]
    op.create_index(op.f(f"ix_ledger_{'_'.join(who_when)}"), "ledger", who_when)
    op.create_index(op.f("ix_ledger_task_seq"), "ledger", ["task", "seq"])
    op.create_index(op.f("ix_ledger_release_id"), "ledger", ["release_id"])
    if conn.dialect.name == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            op.execute(_APPEND_ONLY.format(verb=verb))


def _copy(conn: sa.Connection, ledger: sa.Table) -> None:
    """The old lines, numbered without gaps, each with the hash of the one before."""
    names = [c.name for c in ledger.c if c.name not in ("channel_id", "prev_hash", "hash")]
    before = sa.table("ledger_before", *(sa.column(name, ledger.c[name].type) for name in names))
    seen, seq, prev_hash = -1, 0, ""
    while (
        chunk := conn.execute(sa.select(before).where(before.c.seq > seen).order_by(before.c.seq).limit(_CHUNK))
        .mappings()
        .all()
    ):
        lines = []
        for row in chunk:
            seen, seq = row["seq"], seq + 1
            line = {**row, "seq": seq, "channel_id": None, "prev_hash": prev_hash}
            prev_hash = line_hash(line)
            lines.append({**line, "hash": prev_hash})
        conn.execute(sa.insert(ledger), lines)

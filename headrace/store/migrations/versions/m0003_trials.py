"""Trials: what a search for settings tried."""

import sqlalchemy as sa
from alembic import op

from headrace.store import schema

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "trials",
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("search", sa.String(length=80), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("params", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("value", sa.Float(), nullable=True),
        sa.Column("curve", sa.JSON(), nullable=False),
        sa.Column("run_id", sa.String(length=80), nullable=False),
        sa.Column("created_at", schema.Instant(), nullable=False),
        sa.Column("finished_at", schema.Instant(), nullable=True),
        sa.Column("config_hash", sa.String(length=16), nullable=False),
        sa.Column("code_version", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_trials_run_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_trials")),
        sa.UniqueConstraint("search", "number", name=op.f("uq_trials_search_number")),
    )

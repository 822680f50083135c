"""Adapters: what channels add to a version's shared model."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "adapters",
        sa.Column("version_id", sa.String(length=80), nullable=False),
        sa.Column("channel_id", sa.String(length=80), nullable=False),
        sa.Column("artifact", sa.String(length=80), nullable=True),
        sa.Column("weights", sa.String(length=80), nullable=True),
        sa.Column("is_kept", sa.Boolean(), nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["version_id"], ["model_versions.id"], name=op.f("fk_adapters_version_id")),
        sa.ForeignKeyConstraint(["channel_id"], ["channels.id"], name=op.f("fk_adapters_channel_id")),
        sa.ForeignKeyConstraint(["artifact"], ["artifacts.digest"], name=op.f("fk_adapters_artifact")),
        sa.PrimaryKeyConstraint("version_id", "channel_id", name=op.f("pk_adapters")),
    )

"""Inputs with two parts: a column for the second, beside the first."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    for table in ("examples", "predictions"):
        op.add_column(table, sa.Column("text_pair", sa.Text(), nullable=True))

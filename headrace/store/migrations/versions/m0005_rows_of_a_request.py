"""An index that finds one row of a request, in place of the one that finds all of them."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.drop_index("ix_predictions_request_id", table_name="predictions")
    op.create_index("ix_predictions_request_id_row", "predictions", ["request_id", "row"])

"""Reviews, known answers, suspensions, drift, erasures: what makes evidence of feedback."""

import sqlalchemy as sa
from alembic import op

from headrace.store import schema

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("predictions", sa.Column("audit_probability", sa.Float(), nullable=True))
    op.add_column("feedback", sa.Column("event", sa.String(length=32), nullable=True))
    op.add_column("snapshots", sa.Column("erased_at", schema.Instant(), nullable=True))
    _make_reviews()
    _make_suspensions()
    _make_drift()
    _make_erasures()


def _make_reviews() -> None:
    op.create_table(
        "known_answers",
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("task", sa.String(length=64), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("text_pair", sa.Text(), nullable=True),
        sa.Column("text_hash", sa.String(length=64), nullable=False),
        sa.Column("answer", sa.JSON(), nullable=False),
        sa.Column("created_at", schema.Instant(), nullable=False),
        sa.Column("retired_at", schema.Instant(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_known_answers")),
        sa.UniqueConstraint("task", "text_hash", name=op.f("uq_known_answers_task_text_hash")),
    )
    refs: tuple[tuple[str, str, bool], ...] = (
        ("channel_id", "channels.id", False),
        ("example_id", "examples.id", True),
    )
    refs += (("known_answer_id", "known_answers.id", True), ("release_id", "releases.id", True))
    op.create_table(
        "reviews",
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("task", sa.String(length=64), nullable=False),
        sa.Column("reason", sa.String(length=16), nullable=False),
        sa.Column("prediction_id", sa.String(length=48), nullable=True),
        *(sa.Column(name, sa.String(length=80), nullable=nullable) for name, _, nullable in refs),
        sa.Column("probability", sa.Float(), nullable=True),
        sa.Column("priority", sa.Float(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("answer", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("labeller", sa.String(length=200), nullable=True),
        sa.Column("created_at", schema.Instant(), nullable=False),
        sa.Column("answered_at", schema.Instant(), nullable=True),
        *_origin(),
        *(sa.ForeignKeyConstraint([name], [to], name=op.f(f"fk_reviews_{name}")) for name, to, _ in refs),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reviews")),
    )
    for columns in (["task", "state"], ["prediction_id"], ["example_id"], ["known_answer_id"], ["release_id"]):
        op.create_index(op.f(f"ix_reviews_{'_'.join(columns)}"), "reviews", columns)


def _make_suspensions() -> None:
    op.create_table(
        "suspensions",
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("task", sa.String(length=64), nullable=False),
        sa.Column("channel_id", sa.String(length=80), nullable=False),
        sa.Column("labeller", sa.String(length=200), nullable=True),
        sa.Column("since", schema.Instant(), nullable=False),
        sa.Column("until", schema.Instant(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.Column("created_at", schema.Instant(), nullable=False),
        sa.Column("lifted_at", schema.Instant(), nullable=True),
        sa.Column("lifted_by", sa.String(length=200), nullable=True),
        sa.Column("lifted_because", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["channel_id"], ["channels.id"], name=op.f("fk_suspensions_channel_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_suspensions")),
    )
    op.create_index(op.f("ix_suspensions_task"), "suspensions", ["task"])


def _make_drift() -> None:
    op.create_table(
        "drift_streams",
        sa.Column("task", sa.String(length=64), nullable=False),
        sa.Column("channel_id", sa.String(length=80), nullable=False),
        sa.Column("version_id", sa.String(length=80), nullable=False),
        sa.Column("stream", sa.String(length=16), nullable=False),
        sa.Column("state", sa.JSON(), nullable=False),
        sa.Column("seen", sa.String(length=48), nullable=False),
        sa.Column("at", schema.Instant(), nullable=False),
        sa.ForeignKeyConstraint(["version_id"], ["model_versions.id"], name=op.f("fk_drift_streams_version_id")),
        sa.PrimaryKeyConstraint("task", "channel_id", "version_id", "stream", name=op.f("pk_drift_streams")),
    )
    op.create_table(
        "alarms",
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("task", sa.String(length=64), nullable=False),
        sa.Column("channel_id", sa.String(length=80), nullable=True),
        sa.Column("version_id", sa.String(length=80), nullable=False),
        sa.Column("stream", sa.String(length=16), nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.Column("at", schema.Instant(), nullable=False),
        sa.Column("ended_at", schema.Instant(), nullable=True),
        sa.ForeignKeyConstraint(["channel_id"], ["channels.id"], name=op.f("fk_alarms_channel_id")),
        sa.ForeignKeyConstraint(["version_id"], ["model_versions.id"], name=op.f("fk_alarms_version_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alarms")),
    )
    op.create_index(op.f("ix_alarms_task"), "alarms", ["task"])


def _make_erasures() -> None:
    op.create_table(
        "erasures",
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("subject", sa.String(length=80), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("retrain_by", schema.Instant(), nullable=False),
        sa.Column("rebuilt_at", schema.Instant(), nullable=True),
        sa.Column("at", schema.Instant(), nullable=False),
        sa.Column("receipt", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_erasures")),
    )


def _origin() -> tuple[sa.Column[str], sa.Column[str]]:
    """Columns are made anew for each table."""
    return (
        sa.Column("config_hash", sa.String(length=16), nullable=False),
        sa.Column("code_version", sa.String(length=32), nullable=False),
    )

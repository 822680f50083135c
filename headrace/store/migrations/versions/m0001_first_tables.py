"""The first tables."""

import sqlalchemy as sa
from alembic import op

from headrace.store import schema

revision = "0001"
down_revision = None

_APPEND_ONLY = """
CREATE TRIGGER ledger_no_{verb} BEFORE {verb} ON ledger
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END
"""


def upgrade() -> None:
    op.create_table(
        "artifacts",
        sa.Column("digest", sa.String(length=80), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("n_bytes", sa.Integer(), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("created_at", schema.Instant(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_artifacts")),
    )
    op.create_table(
        "channels",
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("licence", sa.Text(), nullable=False),
        sa.Column("created_at", schema.Instant(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_channels")),
        sa.UniqueConstraint("name", name=op.f("uq_channels_name")),
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("target", sa.String(length=200), nullable=False),
        sa.Column("args", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=True),
        sa.Column("pid_started", sa.Float(), nullable=True),
        sa.Column("n_attempts", sa.Integer(), nullable=False),
        sa.Column("progress", sa.JSON(), nullable=False),
        sa.Column("result", sa.JSON(), nullable=True),
        sa.Column("error", sa.JSON(), nullable=True),
        sa.Column("log_path", sa.Text(), nullable=False),
        sa.Column("created_at", schema.Instant(), nullable=False),
        sa.Column("started_at", schema.Instant(), nullable=True),
        sa.Column("finished_at", schema.Instant(), nullable=True),
        sa.Column("config_hash", sa.String(length=16), nullable=False),
        sa.Column("code_version", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
    )
    op.create_table(
        "split_groups",
        sa.Column("group_key", sa.String(length=200), nullable=False),
        sa.Column("side", sa.String(length=16), nullable=False),
        sa.Column("created_at", schema.Instant(), nullable=False),
        sa.PrimaryKeyConstraint("group_key", name=op.f("pk_split_groups")),
    )
    op.create_table(
        "imports",
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("channel_id", sa.String(length=80), nullable=False),
        sa.Column("task", sa.String(length=64), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("report", sa.JSON(), nullable=True),
        sa.Column("started_at", schema.Instant(), nullable=False),
        sa.Column("finished_at", schema.Instant(), nullable=True),
        sa.Column("config_hash", sa.String(length=16), nullable=False),
        sa.Column("code_version", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(["channel_id"], ["channels.id"], name=op.f("fk_imports_channel_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_imports")),
    )
    op.create_table(
        "labellers",
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("channel_id", sa.String(length=80), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("created_at", schema.Instant(), nullable=False),
        sa.ForeignKeyConstraint(["channel_id"], ["channels.id"], name=op.f("fk_labellers_channel_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_labellers")),
        sa.UniqueConstraint("channel_id", "name", name=op.f("uq_labellers_channel_id_name")),
    )
    op.create_table(
        "snapshots",
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("task", sa.String(length=64), nullable=False),
        sa.Column("content_hash", sa.String(length=80), nullable=False),
        sa.Column("artifact", sa.String(length=80), nullable=False),
        sa.Column("n_rows", sa.Integer(), nullable=False),
        sa.Column("n_by_side", sa.JSON(), nullable=False),
        sa.Column("n_by_channel", sa.JSON(), nullable=False),
        sa.Column("n_from_feedback", sa.Integer(), nullable=False),
        sa.Column("created_at", schema.Instant(), nullable=False),
        sa.Column("config_hash", sa.String(length=16), nullable=False),
        sa.Column("code_version", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(["artifact"], ["artifacts.digest"], name=op.f("fk_snapshots_artifact")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_snapshots")),
        sa.UniqueConstraint("task", "content_hash", name=op.f("uq_snapshots_task_content_hash")),
    )
    op.create_table(
        "examples",
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("channel_id", sa.String(length=80), nullable=False),
        sa.Column("key", sa.String(length=200), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("text_hash", sa.String(length=64), nullable=False),
        sa.Column("group_key", sa.String(length=200), nullable=False),
        sa.Column("import_id", sa.String(length=48), nullable=True),
        sa.Column("prediction_id", sa.String(length=48), nullable=True),
        sa.Column("created_at", schema.Instant(), nullable=False),
        sa.ForeignKeyConstraint(["channel_id"], ["channels.id"], name=op.f("fk_examples_channel_id")),
        sa.ForeignKeyConstraint(["import_id"], ["imports.id"], name=op.f("fk_examples_import_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_examples")),
        sa.UniqueConstraint("channel_id", "key", name=op.f("uq_examples_channel_id_key")),
    )
    op.create_index(op.f("ix_examples_import_id"), "examples", ["import_id"], unique=False)
    op.create_index(op.f("ix_examples_text_hash"), "examples", ["text_hash"], unique=False)
    op.create_table(
        "quarantine",
        sa.Column("seq", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("import_id", sa.String(length=48), nullable=False),
        sa.Column("line", sa.Integer(), nullable=False),
        sa.Column("reason", sa.String(length=40), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("raw", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["import_id"], ["imports.id"], name=op.f("fk_quarantine_import_id")),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_quarantine")),
    )
    op.create_index(op.f("ix_quarantine_import_id"), "quarantine", ["import_id"], unique=False)
    op.create_table(
        "runs",
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("task", sa.String(length=64), nullable=False),
        sa.Column("snapshot_id", sa.String(length=80), nullable=False),
        sa.Column("base_model", sa.Text(), nullable=False),
        sa.Column("base_digest", sa.String(length=80), nullable=False),
        sa.Column("method", sa.String(length=64), nullable=False),
        sa.Column("params", sa.JSON(), nullable=False),
        sa.Column("fingerprint", sa.String(length=80), nullable=False),
        sa.Column("seed", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("job_id", sa.String(length=48), nullable=True),
        sa.Column("checkpoint", sa.String(length=80), nullable=True),
        sa.Column("history", sa.JSON(), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("created_at", schema.Instant(), nullable=False),
        sa.Column("finished_at", schema.Instant(), nullable=True),
        sa.Column("config_hash", sa.String(length=16), nullable=False),
        sa.Column("code_version", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(["checkpoint"], ["artifacts.digest"], name=op.f("fk_runs_checkpoint")),
        sa.ForeignKeyConstraint(["snapshot_id"], ["snapshots.id"], name=op.f("fk_runs_snapshot_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
        sa.UniqueConstraint("fingerprint", name=op.f("uq_runs_fingerprint")),
    )
    op.create_table(
        "labels",
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("example_id", sa.String(length=48), nullable=False),
        sa.Column("task", sa.String(length=64), nullable=False),
        sa.Column("labeller_id", sa.String(length=80), nullable=False),
        sa.Column("value", sa.JSON(), nullable=False),
        sa.Column("score", sa.Float(), nullable=True),
        sa.Column("origin", sa.String(length=16), nullable=False),
        sa.Column("import_id", sa.String(length=48), nullable=True),
        sa.Column("feedback_id", sa.String(length=48), nullable=True),
        sa.Column("created_at", schema.Instant(), nullable=False),
        sa.ForeignKeyConstraint(["example_id"], ["examples.id"], name=op.f("fk_labels_example_id")),
        sa.ForeignKeyConstraint(["import_id"], ["imports.id"], name=op.f("fk_labels_import_id")),
        sa.ForeignKeyConstraint(["labeller_id"], ["labellers.id"], name=op.f("fk_labels_labeller_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_labels")),
    )
    op.create_index(op.f("ix_labels_example_id"), "labels", ["example_id"], unique=False)
    op.create_index(op.f("ix_labels_import_id"), "labels", ["import_id"], unique=False)
    op.create_table(
        "model_versions",
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("task", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.String(length=80), nullable=False),
        sa.Column("snapshot_id", sa.String(length=80), nullable=False),
        sa.Column("checkpoint", sa.String(length=80), nullable=False),
        sa.Column("artifact", sa.String(length=80), nullable=False),
        sa.Column("created_at", schema.Instant(), nullable=False),
        sa.Column("config_hash", sa.String(length=16), nullable=False),
        sa.Column("code_version", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(["artifact"], ["artifacts.digest"], name=op.f("fk_model_versions_artifact")),
        sa.ForeignKeyConstraint(["checkpoint"], ["artifacts.digest"], name=op.f("fk_model_versions_checkpoint")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_model_versions_run_id")),
        sa.ForeignKeyConstraint(["snapshot_id"], ["snapshots.id"], name=op.f("fk_model_versions_snapshot_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_versions")),
        sa.UniqueConstraint("run_id", "artifact", name=op.f("uq_model_versions_run_id_artifact")),
        sa.UniqueConstraint("task", "number", name=op.f("uq_model_versions_task_number")),
    )
    op.create_table(
        "evaluations",
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("task", sa.String(length=64), nullable=False),
        sa.Column("version_id", sa.String(length=80), nullable=True),
        sa.Column("predictor", sa.String(length=64), nullable=False),
        sa.Column("snapshot_id", sa.String(length=80), nullable=False),
        sa.Column("side", sa.String(length=16), nullable=False),
        sa.Column("results", sa.JSON(), nullable=False),
        sa.Column("created_at", schema.Instant(), nullable=False),
        sa.Column("config_hash", sa.String(length=16), nullable=False),
        sa.Column("code_version", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(["snapshot_id"], ["snapshots.id"], name=op.f("fk_evaluations_snapshot_id")),
        sa.ForeignKeyConstraint(["version_id"], ["model_versions.id"], name=op.f("fk_evaluations_version_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_evaluations")),
    )
    op.create_table(
        "releases",
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("task", sa.String(length=64), nullable=False),
        sa.Column("control_id", sa.String(length=80), nullable=False),
        sa.Column("candidate_id", sa.String(length=80), nullable=False),
        sa.Column("policy", sa.String(length=64), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("started_at", schema.Instant(), nullable=False),
        sa.Column("ended_at", schema.Instant(), nullable=True),
        sa.Column("config_hash", sa.String(length=16), nullable=False),
        sa.Column("code_version", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(["candidate_id"], ["model_versions.id"], name=op.f("fk_releases_candidate_id")),
        sa.ForeignKeyConstraint(["control_id"], ["model_versions.id"], name=op.f("fk_releases_control_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_releases")),
    )
    op.create_index(op.f("ix_releases_task"), "releases", ["task"], unique=False)
    op.create_table(
        "ledger",
        sa.Column("seq", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("task", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("version_id", sa.String(length=80), nullable=True),
        sa.Column("release_id", sa.String(length=80), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.Column("actor", sa.String(length=200), nullable=False),
        sa.Column("at", schema.Instant(), nullable=False),
        sa.Column("config_hash", sa.String(length=16), nullable=False),
        sa.Column("code_version", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(["release_id"], ["releases.id"], name=op.f("fk_ledger_release_id")),
        sa.ForeignKeyConstraint(["version_id"], ["model_versions.id"], name=op.f("fk_ledger_version_id")),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_ledger")),
        sa.UniqueConstraint("id", name=op.f("uq_ledger_id")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_ledger_task"), "ledger", ["task"], unique=False)
    op.create_table(
        "predictions",
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("request_id", sa.String(length=48), nullable=False),
        sa.Column("row", sa.Integer(), nullable=False),
        sa.Column("task", sa.String(length=64), nullable=False),
        sa.Column("channel_id", sa.String(length=80), nullable=False),
        sa.Column("unit", sa.String(length=200), nullable=True),
        sa.Column("arm", sa.String(length=16), nullable=False),
        sa.Column("release_id", sa.String(length=80), nullable=True),
        sa.Column("version_id", sa.String(length=80), nullable=False),
        sa.Column("artifact", sa.String(length=80), nullable=False),
        sa.Column("adapter", sa.String(length=80), nullable=True),
        sa.Column("text", sa.Text(), nullable=True),
        sa.Column("text_hash", sa.String(length=64), nullable=False),
        sa.Column("output", sa.JSON(), nullable=False),
        sa.Column("latency_ms", sa.Float(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("at", schema.Instant(), nullable=False),
        sa.Column("config_hash", sa.String(length=16), nullable=False),
        sa.Column("code_version", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(["channel_id"], ["channels.id"], name=op.f("fk_predictions_channel_id")),
        sa.ForeignKeyConstraint(["release_id"], ["releases.id"], name=op.f("fk_predictions_release_id")),
        sa.ForeignKeyConstraint(["version_id"], ["model_versions.id"], name=op.f("fk_predictions_version_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_predictions")),
    )
    op.create_index(op.f("ix_predictions_release_id"), "predictions", ["release_id"], unique=False)
    op.create_index(op.f("ix_predictions_request_id"), "predictions", ["request_id"], unique=False)
    op.create_table(
        "feedback",
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("prediction_id", sa.String(length=80), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("correction", sa.JSON(), nullable=True),
        sa.Column("metric", sa.String(length=64), nullable=True),
        sa.Column("value", sa.Float(), nullable=True),
        sa.Column("comment", sa.Text(), nullable=True),
        sa.Column("labeller", sa.String(length=200), nullable=False),
        sa.Column("idempotency_key", sa.String(length=200), nullable=True),
        sa.Column("used", sa.Boolean(), nullable=False),
        sa.Column("at", schema.Instant(), nullable=False),
        sa.Column("config_hash", sa.String(length=16), nullable=False),
        sa.Column("code_version", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(["prediction_id"], ["predictions.id"], name=op.f("fk_feedback_prediction_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_feedback")),
        sa.UniqueConstraint("idempotency_key", name=op.f("uq_feedback_idempotency_key")),
    )
    op.create_index(op.f("ix_feedback_prediction_id"), "feedback", ["prediction_id"], unique=False)

    if op.get_bind().dialect.name == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            op.execute(_APPEND_ONLY.format(verb=verb))

"""The tables: one row per fact. Ids are text (see headrace/ids.py), instants are UTC, JSON holds what is not searched.

A change here needs a migration in store/migrations/versions; a test compares the two.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)


class Instant(TypeDecorator[datetime]):
    """A UTC instant. SQLite keeps no zone, so it is taken off on the way in and put back on the way out."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"an instant needs a time zone: {value}")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


_LARGE = Integer().with_variant(BigInteger(), "postgresql")  # where 2**31 is not enough; SQLite's are of any size

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _id() -> Column[str]:
    return Column("id", String(48), primary_key=True)


def _ref(name: str, to: str, *, nullable: bool = False) -> Column[str]:
    return Column(name, String(80), ForeignKey(to), nullable=nullable)


def _origin() -> tuple[Column[str], Column[str]]:
    """Which settings and which code made the row."""
    return Column("config_hash", String(16), nullable=False), Column("code_version", String(32), nullable=False)


channels = Table(
    "channels",
    metadata,
    _id(),
    Column("name", String(64), nullable=False, unique=True),
    Column("description", Text, nullable=False, default=""),
    Column("owner", Text, nullable=False, default=""),
    Column("licence", Text, nullable=False, default=""),
    Column("created_at", Instant, nullable=False),
)

labellers = Table(
    "labellers",
    metadata,
    _id(),
    _ref("channel_id", "channels.id"),
    Column("name", String(200), nullable=False),
    Column("created_at", Instant, nullable=False),
    UniqueConstraint("channel_id", "name"),
)

imports = Table(
    "imports",
    metadata,
    _id(),
    _ref("channel_id", "channels.id"),
    Column("task", String(64), nullable=False),
    Column("source", Text, nullable=False),
    Column("state", String(16), nullable=False),  # running | done; rows of a running import are not visible
    Column("report", JSON),
    Column("started_at", Instant, nullable=False),
    Column("finished_at", Instant),
    *_origin(),
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("import_id", String(48), ForeignKey("imports.id"), nullable=False, index=True),
    Column("line", Integer, nullable=False),
    Column("reason", String(40), nullable=False),
    Column("detail", Text, nullable=False),
    Column("raw", Text, nullable=False),
)

examples = Table(
    "examples",
    metadata,
    _id(),
    _ref("channel_id", "channels.id"),
    Column("key", String(200), nullable=False),  # the source's id, or the hash of the text
    Column("text", Text, nullable=False),
    Column("text_pair", Text),  # null: the input has one part
    Column("text_hash", String(64), nullable=False, index=True),
    Column("group_key", String(200), nullable=False),
    Column("import_id", String(48), ForeignKey("imports.id"), index=True),  # null: came back as feedback
    Column("prediction_id", String(48)),
    Column("created_at", Instant, nullable=False),
    UniqueConstraint("channel_id", "key"),
)

labels = Table(
    "labels",
    metadata,
    _id(),
    Column("example_id", String(48), ForeignKey("examples.id"), nullable=False, index=True),
    Column("task", String(64), nullable=False),
    _ref("labeller_id", "labellers.id"),
    Column("value", JSON, nullable=False),
    Column("score", Float),  # the labeller's raw number, where the source gives one
    Column("origin", String(16), nullable=False),  # import: the row's own label | labeller | feedback | review | owner
    Column("import_id", String(48), ForeignKey("imports.id"), index=True),
    Column("feedback_id", String(48)),
    Column("created_at", Instant, nullable=False),
    Column("key_id", String(48)),  # through which it came; null: through none
)

split_groups = Table(
    "split_groups",
    metadata,
    Column("group_key", String(200), primary_key=True),
    Column("side", String(16), nullable=False),
    Column("created_at", Instant, nullable=False),
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("digest", String(80), primary_key=True),
    Column("kind", String(32), nullable=False),
    Column("n_bytes", _LARGE, nullable=False),
    Column("facts", JSON, nullable=False),
    Column("created_at", Instant, nullable=False),
)

snapshots = Table(
    "snapshots",
    metadata,
    _id(),
    Column("task", String(64), nullable=False),
    Column("content_hash", String(80), nullable=False),
    _ref("artifact", "artifacts.digest"),
    Column("n_rows", Integer, nullable=False),
    Column("n_by_side", JSON, nullable=False),
    Column("n_by_channel", JSON, nullable=False),
    Column("n_from_feedback", Integer, nullable=False),
    Column("created_at", Instant, nullable=False),
    *_origin(),
    Column("erased_at", Instant),  # its rows are gone for good: an erasure was about some of them
    UniqueConstraint("task", "content_hash"),
)

jobs = Table(
    "jobs",
    metadata,
    _id(),
    Column("target", String(200), nullable=False),
    Column("args", JSON, nullable=False),
    Column("state", String(16), nullable=False),
    Column("pid", Integer),
    Column("pid_started", Float),  # tells a living process from another one with a reused number
    Column("n_attempts", Integer, nullable=False, default=0),
    Column("progress", JSON, nullable=False),
    Column("result", JSON),
    Column("error", JSON),
    Column("log_path", Text, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("started_at", Instant),
    Column("finished_at", Instant),
    *_origin(),
)

runs = Table(
    "runs",
    metadata,
    _id(),
    Column("task", String(64), nullable=False),
    _ref("snapshot_id", "snapshots.id"),
    Column("base_model", Text, nullable=False),
    Column("base_digest", String(80), nullable=False),
    Column("method", String(64), nullable=False),
    Column("params", JSON, nullable=False),
    Column("fingerprint", String(80), nullable=False, unique=True),
    Column("seed", _LARGE, nullable=False),
    Column("state", String(16), nullable=False),
    Column("job_id", String(48)),
    Column("checkpoint", String(80), ForeignKey("artifacts.digest")),
    Column("history", JSON, nullable=False),
    Column("facts", JSON, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("finished_at", Instant),
    *_origin(),
)

trials = Table(
    "trials",
    metadata,
    _id(),
    Column("search", String(80), nullable=False),  # hash of all that decides what is tried
    Column("number", Integer, nullable=False),
    Column("params", JSON, nullable=False),
    Column("state", String(16), nullable=False),  # running | done | pruned | failed
    Column("value", Float),
    Column("curve", JSON, nullable=False),  # main metric of the validation side at each evaluation
    _ref("run_id", "runs.id"),
    Column("created_at", Instant, nullable=False),
    Column("finished_at", Instant),
    *_origin(),
    UniqueConstraint("search", "number"),
)

model_versions = Table(
    "model_versions",
    metadata,
    _id(),
    Column("task", String(64), nullable=False),
    Column("number", Integer, nullable=False),
    _ref("run_id", "runs.id"),
    _ref("snapshot_id", "snapshots.id"),
    _ref("checkpoint", "artifacts.digest"),
    _ref("artifact", "artifacts.digest"),
    Column("created_at", Instant, nullable=False),
    *_origin(),
    UniqueConstraint("task", "number"),
    UniqueConstraint("run_id", "artifact"),
)

adapters = Table(
    "adapters",
    metadata,
    Column("version_id", String(80), ForeignKey("model_versions.id"), primary_key=True),
    Column("channel_id", String(80), ForeignKey("channels.id"), primary_key=True),
    Column("artifact", String(80), ForeignKey("artifacts.digest")),  # null: not kept
    Column("weights", String(80)),
    Column("is_kept", Boolean, nullable=False),
    Column("evidence", JSON, nullable=False),
)

evaluations = Table(
    "evaluations",
    metadata,
    _id(),
    Column("task", String(64), nullable=False),
    _ref("version_id", "model_versions.id", nullable=True),
    Column("predictor", String(64), nullable=False),
    _ref("snapshot_id", "snapshots.id"),
    Column("side", String(16), nullable=False),
    Column("results", JSON, nullable=False),
    Column("created_at", Instant, nullable=False),
    *_origin(),
)

releases = Table(
    "releases",
    metadata,
    _id(),
    Column("task", String(64), nullable=False, index=True),
    _ref("control_id", "model_versions.id"),
    _ref("candidate_id", "model_versions.id"),
    Column("policy", String(64), nullable=False),
    Column("options", JSON, nullable=False),
    Column("state", String(16), nullable=False),
    Column("started_at", Instant, nullable=False),
    Column("ended_at", Instant),
    *_origin(),
    Column("others", JSON, nullable=False, server_default="[]"),
    Column("scope", JSON(none_as_null=True)),  # names of channels; null: the whole task
    Column("weights", JSON, nullable=False, server_default='{"control": 1.0}'),
    Column("stage", Integer, nullable=False, server_default="0"),
)

ledger = Table(
    "ledger",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=False),  # given in the write transaction: no gaps
    Column("id", String(48), nullable=False, unique=True),
    Column("task", String(64), nullable=False),
    _ref("channel_id", "channels.id", nullable=True),  # null: the whole task
    Column("kind", String(16), nullable=False),
    Column("version_id", String(80), ForeignKey("model_versions.id")),
    Column("release_id", String(80), ForeignKey("releases.id")),
    Column("reason", Text, nullable=False),
    Column("evidence", JSON, nullable=False),
    Column("actor", String(200), nullable=False),
    Column("at", Instant, nullable=False),
    *_origin(),
    Column("prev_hash", String(80), nullable=False),
    Column("hash", String(80), nullable=False),
)
Index(None, ledger.c.task, ledger.c.channel_id, ledger.c.kind, ledger.c.seq, ledger.c.at)  # who was in charge, when
Index(None, ledger.c.task, ledger.c.seq)
Index(None, ledger.c.release_id)

traffic = Table(
    "traffic",
    metadata,
    Column("release_id", String(80), ForeignKey("releases.id"), primary_key=True),
    Column("arm", String(16), primary_key=True),
    Column("channel_id", String(80), ForeignKey("channels.id"), primary_key=True),
    Column("source", String(48), primary_key=True),  # the server process that counted
    Column("stage", Integer, primary_key=True, autoincrement=False),
    Column("n_requests", _LARGE, nullable=False),
    Column("n_errors", _LARGE, nullable=False),
    Column("n_timeouts", _LARGE, nullable=False),
    Column("n_slow", _LARGE, nullable=False),
    Column("n_abstained", _LARGE, nullable=False),
    Column("n_units", _LARGE, nullable=False),
    Column("at", Instant, nullable=False),
)

predictions = Table(
    "predictions",
    metadata,
    _id(),
    Column("request_id", String(48), nullable=False),
    Column("row", Integer, nullable=False),  # place in the request; pairs a shadow with its control
    Column("task", String(64), nullable=False),
    _ref("channel_id", "channels.id"),
    Column("unit", String(200)),
    Column("arm", String(16), nullable=False),
    Column("release_id", String(80), ForeignKey("releases.id"), index=True),
    _ref("version_id", "model_versions.id"),
    Column("artifact", String(80), nullable=False),
    Column("adapter", String(80)),
    Column("text", Text),
    Column("text_pair", Text),
    Column("text_hash", String(64), nullable=False),
    Column("output", JSON, nullable=False),
    Column("latency_ms", Float, nullable=False),
    Column("error", Text),
    Column("at", Instant, nullable=False),
    *_origin(),
    Column("probability", Float, nullable=False, server_default="1"),
    Column("audit_probability", Float),  # with which it was drawn for an audit; null: it could not be
)

Index(None, predictions.c.request_id, predictions.c.row)

feedback = Table(
    "feedback",
    metadata,
    _id(),
    _ref("prediction_id", "predictions.id"),
    Column("kind", String(16), nullable=False),
    Column("correction", JSON),
    Column("metric", String(64)),
    Column("value", Float),
    Column("comment", Text),
    Column("labeller", String(200), nullable=False),
    Column("idempotency_key", String(200), unique=True),
    Column("used", Boolean, nullable=False, default=False),  # a label was made of it
    Column("at", Instant, nullable=False),
    *_origin(),
    Column("event", String(32)),  # what the user did, of kind event
    Column("key_id", String(48)),  # through which it came; null: through none
)
Index(None, feedback.c.prediction_id)

reviews = Table(
    "reviews",
    metadata,
    _id(),
    Column("task", String(64), nullable=False),
    _ref("channel_id", "channels.id"),
    Column("reason", String(16), nullable=False),  # audit | disagreement | label-error | useful | random | known
    Column("prediction_id", String(48)),  # no reference: predictions move to files
    Column("example_id", String(80), ForeignKey("examples.id"), index=True),
    Column("known_answer_id", String(80), ForeignKey("known_answers.id"), index=True),
    Column("release_id", String(80), ForeignKey("releases.id"), index=True),
    Column("probability", Float),  # with which it was drawn; null: it was chosen
    Column("priority", Float, nullable=False),  # the greater, the sooner
    Column("state", String(16), nullable=False),  # open | answered | skipped
    Column("answer", JSON(none_as_null=True)),
    Column("labeller", String(200)),
    Column("created_at", Instant, nullable=False),
    Column("answered_at", Instant),
    *_origin(),
    Column("key_id", String(48)),  # through which it was answered; null: through none
)
Index(None, reviews.c.task, reviews.c.state)
Index(None, reviews.c.prediction_id)

known_answers = Table(
    "known_answers",
    metadata,
    _id(),
    Column("task", String(64), nullable=False),
    Column("text", Text, nullable=False),
    Column("text_pair", Text),
    Column("text_hash", String(64), nullable=False),
    Column("answer", JSON, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("retired_at", Instant),
    UniqueConstraint("task", "text_hash"),
)

suspensions = Table(
    "suspensions",  # feedback of a source that does not count for now; nothing of it is deleted
    metadata,
    _id(),
    Column("task", String(64), nullable=False),
    _ref("channel_id", "channels.id"),
    Column("labeller", String(200)),  # null: the whole channel
    Column("since", Instant, nullable=False),
    Column("until", Instant),  # null: it goes on
    Column("reason", Text, nullable=False),
    Column("evidence", JSON, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("lifted_at", Instant),
    Column("lifted_by", String(200)),
    Column("lifted_because", Text),
)
Index(None, suspensions.c.task)

drift_streams = Table(
    "drift_streams",
    metadata,
    Column("task", String(64), primary_key=True),
    Column("channel_id", String(80), primary_key=True),  # empty: all channels together, so it is no reference
    Column("version_id", String(80), ForeignKey("model_versions.id"), primary_key=True),
    Column("stream", String(16), primary_key=True),  # classes | confidence | errors | embeddings
    Column("state", JSON, nullable=False),
    Column("seen", String(48), nullable=False),  # id of a prediction: what came before it is in the state
    Column("at", Instant, nullable=False),
)

alarms = Table(
    "alarms",
    metadata,
    _id(),
    Column("task", String(64), nullable=False),
    _ref("channel_id", "channels.id", nullable=True),  # null: all channels together
    _ref("version_id", "model_versions.id"),
    Column("stream", String(16), nullable=False),
    Column("evidence", JSON, nullable=False),
    Column("at", Instant, nullable=False),
    Column("ended_at", Instant),
)
Index(None, alarms.c.task)

erasures = Table(
    "erasures",  # tombstones: what was taken out for good, by digest, so that a restored backup loses it again
    metadata,
    _id(),
    Column("kind", String(16), nullable=False),  # labeller | channel | example
    Column("subject", String(80), nullable=False),  # keyed digest of the name, or an id
    Column("facts", JSON, nullable=False),
    Column("retrain_by", Instant, nullable=False),
    Column("rebuilt_at", Instant),
    Column("at", Instant, nullable=False),
    Column("receipt", JSON, nullable=False),
)

api_keys = Table(
    "api_keys",  # never deleted: once there was one, the server answers nobody without a key
    metadata,
    _id(),  # the public part of the key
    Column("name", String(200), nullable=False),
    Column("secret_hash", String(64), nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("channels", JSON(none_as_null=True)),  # names; null: all
    Column("requests_per_s", Float),  # null: as headrace.toml says
    Column("rows_per_day", Integer),  # null: as headrace.toml says
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant),
    Column("revoked_at", Instant),
    Column("last_used_at", Instant),
    Column("replaces", String(48)),  # the key that this one takes the place of
    *_origin(),
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=False),  # given in the write transaction: no gaps
    Column("actor", String(200), nullable=False),  # id of a key, or the user of this machine
    Column("action", String(64), nullable=False),
    Column("object", String(200), nullable=False),
    Column("before_hash", String(64)),
    Column("after_hash", String(64)),
    Column("request_id", String(128)),
    Column("facts", JSON, nullable=False),
    Column("at", Instant, nullable=False),
    *_origin(),
    Column("prev_hash", String(80), nullable=False),
    Column("hash", String(80), nullable=False),
)

usage = Table(
    "usage",
    metadata,
    Column("key_id", String(48), primary_key=True),  # empty: no key was asked for
    Column("channel_id", String(80), primary_key=True),  # empty: refused before it was read, so it is no reference
    Column("task", String(64), primary_key=True),  # empty then, too
    Column("hour", Instant, primary_key=True),
    Column("source", String(48), primary_key=True),  # the server process that counted
    Column("n_requests", Integer, nullable=False),
    Column("n_refused", Integer, nullable=False),
    Column("n_rows", Integer, nullable=False),
    Column("n_tokens", Integer, nullable=False),
    Column("seconds", Float, nullable=False),  # of workers, shared out by tokens
)
Index(None, usage.c.hour)

subject_keys = Table(
    "subject_keys",
    metadata,
    _id(),  # keyed digest of the person's name in the channel
    _ref("channel_id", "channels.id"),
    Column("wrapped", Text, nullable=False),  # the key that encrypts what was replaced, itself encrypted
    Column("created_at", Instant, nullable=False),
)

replaced = Table(
    "replaced",  # what a surrogate stands for, where that is kept
    metadata,
    _id(),
    Column("subject_id", String(80), ForeignKey("subject_keys.id"), nullable=False, index=True),
    Column("kind", String(32), nullable=False),
    Column("surrogate", String(200), nullable=False, index=True),
    Column("ciphertext", Text, nullable=False),
    Column("created_at", Instant, nullable=False),
)

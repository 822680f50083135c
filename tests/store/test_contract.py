"""What every database must do for headrace. Catches: half a transaction kept, a time that loses its zone, a ledger line
changed or deleted, a prediction whose channel is not there."""

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.ids import new_id
from headrace.records import Adapter, Artifact, Channel, Feedback, LedgerEntry, Prediction
from headrace.store import Store, adapters, channels, ledger, predictions, runs, schema
from planted import NOON, log_row, plant_version

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
one_store = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def a_channel(name: str = "web") -> Channel:
    return Channel(new_id("channel"), name, "what it is", "who has it", "MIT", NOON)


def a_line(store: Store, **changes: object) -> None:
    entry = {
        "id": new_id("ledger"),
        "task": "tone",
        "kind": "hold",
        "version_id": None,
        "release_id": None,
        "reason": "because",
        "evidence": {"n": 1},
        "actor": "test",
        "at": NOON,
    }
    with store.write() as conn:
        ledger.append(conn, config_hash="0" * 16, **{**entry, **changes})


def a_prediction(channel: Channel, **changes: object) -> Prediction:
    plain = Prediction(
        id=new_id("prediction"), request_id=new_id("request"), task="tone", channel=channel.name, unit=None,
        arm="control", release_id=None, version_id="ver_0", artifact="sha256:0", adapter=None, text="so",
        text_hash="0" * 64, output={"label": "a"}, latency_ms=1.5, error=None, at=NOON,
    )  # fmt: skip
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_what_is_written_is_read_back(store: Store) -> None:
    channel = a_channel()
    with store.write() as conn:
        channels.add(conn, channel)
    with store.read() as conn:
        assert channels.find(conn, "web") == channel
        assert channels.find(conn, "Web") is None
        assert channels.listing(conn) == [channel]


def test_a_transaction_that_fails_leaves_no_trace(store: Store) -> None:
    def write_half() -> None:
        with store.write() as conn:
            channels.add(conn, a_channel())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    with store.read() as conn:
        assert channels.listing(conn) == []


def test_a_reader_sees_one_moment(store: Store) -> None:
    with store.read() as conn:
        assert channels.listing(conn) == []
        with store.write() as other:
            channels.add(other, a_channel())
        assert channels.listing(conn) == []
    with store.read() as conn:
        assert len(channels.listing(conn)) == 1


def test_names_are_unique_and_references_are_real(store: Store) -> None:
    with store.write() as conn:
        channels.add(conn, a_channel())
    with pytest.raises(sa.exc.IntegrityError), store.write() as conn:
        channels.add(conn, a_channel())
    with pytest.raises(sa.exc.IntegrityError), store.write() as conn:
        predictions.add_rows(conn, [log_row(a_prediction(a_channel()), "ch_0")], config_hash="0")


@one_store
@given(st.datetimes(min_value=datetime(1971, 1, 1), max_value=datetime(2200, 1, 1)), st.integers(-12, 12))
def test_instants_come_back_as_the_same_moment_in_utc(store: Store, naive: datetime, hours: int) -> None:
    at = naive.replace(tzinfo=timezone(timedelta(hours=hours)))
    channel = replace(a_channel(new_id("channel")), created_at=at)
    with store.write(durable=False) as conn:
        channels.add(conn, channel)
        found = channels.find(conn, channel.name)
    assert found is not None
    assert found.created_at == at
    assert found.created_at.tzinfo is UTC


def test_an_instant_without_a_zone_is_refused(store: Store) -> None:
    with pytest.raises(sa.exc.StatementError, match="time zone"), store.write() as conn:
        channels.add(conn, replace(a_channel(), created_at=datetime(2026, 1, 1)))


@one_store
@given(st.dictionaries(TEXTS, JSON, max_size=4), TEXTS)
def test_json_and_text_come_back_as_they_were(store: Store, evidence: dict[str, object], reason: str) -> None:
    a_line(store, evidence=evidence, reason=reason)
    with store.read() as conn:
        last: LedgerEntry = ledger.listing(conn)[-1]
    assert (last.evidence, last.reason) == (evidence, reason)


@pytest.mark.parametrize("change", [sa.update(schema.ledger).values(reason="better"), sa.delete(schema.ledger)])
def test_the_ledger_only_grows(store: Store, change: sa.Executable) -> None:
    a_line(store)
    with pytest.raises(sa.exc.DatabaseError, match="append"), store.write() as conn:
        conn.execute(change)
    a_line(store)
    with store.read() as conn:
        assert [(line.seq, line.reason) for line in ledger.listing(conn)] == [(1, "because"), (2, "because")]
        assert ledger.last_seq(conn) == 2


def test_feedback_needs_its_prediction_and_a_key_is_used_once(store: Store) -> None:
    said = Feedback(new_id("feedback"), "prd_0", "comment", None, None, None, "x", "me", "key", NOON)
    with pytest.raises(sa.exc.IntegrityError), store.write() as conn:
        predictions.add_feedback(conn, [said], config_hash="0")


def test_two_threads_write_one_after_the_other(store: Store) -> None:
    def write() -> None:
        for _ in range(20):
            a_line(store)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    with store.read() as conn:
        assert ledger.last_seq(conn) == 80


def test_many_readers_at_once_are_served(store: Store) -> None:
    failures: list[Exception] = []

    def read() -> None:
        try:
            for _ in range(10):
                with store.read() as conn:
                    channels.listing(conn)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []


def test_adapters_are_kept_by_channel_name(store: Store) -> None:
    """Catches: a channel that is not kept given out with an artifact, evidence that does not come back as it was."""
    version_id = plant_version(SimpleNamespace(store=store)).id  # type: ignore[arg-type]
    with store.write() as conn:
        for name in ("web", "app"):
            channels.add(conn, a_channel(name))
        runs.add_artifact(conn, Artifact("sha256:9", "adapter", 10, {}), NOON)
        given = [
            Adapter("web", "sha256:9", "sha256:w", True, {"n": 40, "p": 0.001}),
            Adapter("app", None, None, False, {"reason": "too few", "p": None}),
        ]
        adapters.add(conn, version_id, given)
        adapters.add(conn, version_id, [])
    with store.read() as conn:
        assert adapters.of_version(conn, version_id) == [given[1], given[0]]
        assert adapters.of_version(conn, "ver_none") == []

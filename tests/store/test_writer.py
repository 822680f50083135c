"""The queue of a server's writes. Catches: feedback that overtakes, one bad write that fails its neighbours, an
acknowledgement before the commit, a thread that dies of a cancelled write, a queue that hangs at the end; rows of the
log that are lost, wait for an operation, keep one waiting, or grow without bound."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from headrace.errors import BadInput, Unavailable, Unusable
from headrace.ids import new_id
from headrace.records import Channel
from headrace.store import Store, channels
from headrace.store import writer as module
from headrace.store.writer import Writer
from planted import NOON

WAIT_S = 20


def adding(name: str) -> Any:
    return lambda conn: channels.add(conn, Channel(new_id("channel"), name, "", "", "", NOON))


def names(store: Store) -> list[str]:
    with store.read() as conn:
        return [channel.name for channel in channels.listing(conn)]


class Held:
    """An operation that keeps the writer busy until `go`, so that what comes next waits as one group."""

    def __init__(self, writer: Writer) -> None:
        self.go, self.started = threading.Event(), threading.Event()
        self.done: Future[Any] = writer.submit(self._wait, durable=False)
        assert self.started.wait(WAIT_S)

    def _wait(self, _: Connection) -> None:
        self.started.set()
        assert self.go.wait(WAIT_S)


def test_operations_run_in_order_and_are_committed_when_acknowledged(store: Store) -> None:
    order: list[int] = []
    with Writer(store) as writer:
        for n in range(50):
            writer.submit(lambda _, n=n: order.append(n), durable=False)
        writer.submit(adding("web"), durable=True).result(WAIT_S)
        assert names(store) == ["web"]
    assert order == list(range(50))


def test_what_fails_fails_alone(store: Store) -> None:
    def refuse(_: Connection) -> None:
        raise BadInput("no")

    def write_then_refuse(conn: Connection) -> None:
        adding("half")(conn)
        raise ValueError

    with Writer(store) as writer:
        held = Held(writer)
        futures = [
            writer.submit(operation, durable=False)
            for operation in (adding("a"), refuse, adding("a"), write_then_refuse, adding("b"))
        ]
        held.go.set()
        errors = [type(future.exception(WAIT_S)) for future in futures]
    assert errors == [type(None), BadInput, sa.exc.IntegrityError, ValueError, type(None)]
    assert names(store) == ["a", "b"]


def test_a_commit_that_fails_acknowledges_nobody(store: Store) -> None:
    def lose_the_disk(conn: Connection) -> None:
        raise sa.exc.OperationalError("insert", {}, Exception("database or disk is full"))

    with Writer(store) as writer:
        held = Held(writer)
        first = writer.submit(adding("a"), durable=True)
        second = writer.submit(lose_the_disk, durable=True)
        held.go.set()
        for future in (first, second):
            with pytest.raises(Unusable, match="disk is full"):
                future.result(WAIT_S)
        assert names(store) == []
        writer.submit(adding("b"), durable=True).result(WAIT_S)
    assert names(store) == ["b"]


def test_a_cancelled_write_is_left_out_and_the_queue_goes_on(store: Store) -> None:
    with Writer(store) as writer:
        held = Held(writer)
        given_up = writer.submit(adding("a"), durable=True)
        kept = writer.submit(adding("b"), durable=True)
        assert given_up.cancel()
        held.go.set()
        kept.result(WAIT_S)
    assert names(store) == ["b"]


def test_a_full_queue_refuses_and_leaving_drains_it(store: Store) -> None:
    with Writer(store, max_queued=3) as writer:  # the one under way is one of them
        held = Held(writer)
        futures = [writer.submit(adding(name), durable=False) for name in "ab"]
        with pytest.raises(Unavailable, match="full"):
            writer.submit(adding("c"), durable=False)
        threading.Timer(0.1, held.go.set).start()
    assert [future.result(0) for future in futures] == [None, None]
    assert names(store) == ["a", "b"]
    with pytest.raises(Unavailable, match="shutting down"):
        writer.submit(adding("d"), durable=False)


def test_many_threads_lose_nothing_while_it_closes(store: Store) -> None:
    accepted: list[Future[Any]] = []

    def submit() -> None:
        for _ in range(200):
            try:
                accepted.append(writer.submit(lambda _: 1, durable=False))
            except Unavailable:
                return

    with Writer(store) as writer:
        threads = [threading.Thread(target=submit) for _ in range(4)]
        for thread in threads:
            thread.start()
        accepted.append(writer.submit(lambda _: 1, durable=False))
    for thread in threads:
        thread.join(WAIT_S)
    assert [future.result(0) for future in accepted] == [1] * len(accepted)


class Rows:
    """Writes rows as channels of that name; remembers how many came at once."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.lost: list[tuple[int, Exception]] = []

    def add(self, conn: Connection, rows: Sequence[str]) -> None:
        self.calls.append(len(rows))
        for name in rows:
            adding(name)(conn)

    def writer(self, store: Store, **options: Any) -> Writer:
        return Writer(store, add_rows=self.add, on_lost=lambda n, error: self.lost.append((n, error)), **options)


def test_rows_of_many_requests_are_written_at_once_and_in_the_order_they_came(store: Store) -> None:
    rows = Rows()
    with rows.writer(store) as writer:
        held = Held(writer)
        assert all(writer.log([f"a{n}"]) for n in range(20))
        there = writer.submit(names_in, durable=True)
        assert writer.log(["b", "c"])
        assert writer.n_rows == 22
        held.go.set()
        assert there.result(WAIT_S) == sorted(f"a{n}" for n in range(20))
    assert rows.calls == [20, 2]
    assert len(names(store)) == 22
    assert writer.n_rows == 0


def names_in(conn: Connection) -> list[str]:
    return [channel.name for channel in channels.listing(conn)]


def test_rows_that_fail_are_told_of_and_their_neighbours_kept(store: Store) -> None:
    rows = Rows()
    with rows.writer(store) as writer:
        held = Held(writer)
        for some in (["a"], ["b", "a"], ["c"]):
            assert writer.log(some)
        held.go.set()
    assert names(store) == ["a", "c"]
    assert [(n, type(error)) for n, error in rows.lost] == [(2, sa.exc.IntegrityError)]


def test_rows_of_a_commit_that_fails_are_told_of(store: Store) -> None:
    rows = Rows()

    def lose_the_disk(conn: Connection, some: Sequence[str]) -> None:
        raise sa.exc.OperationalError("insert", {}, Exception("database or disk is full"))

    with Writer(store, add_rows=lose_the_disk, on_lost=lambda n, error: rows.lost.append((n, error))) as writer:
        held = Held(writer)
        writer.log(["a", "b"])
        waited_for = writer.submit(adding("c"), durable=True)
        held.go.set()
        with pytest.raises(Unusable, match="disk is full"):
            waited_for.result(WAIT_S)
        assert writer.submit(adding("d"), durable=True).exception(WAIT_S) is None
    assert [n for n, _ in rows.lost] == [2]
    assert names(store) == ["d"]


def test_a_full_log_refuses_all_rows_of_a_request_and_takes_some_again_later(store: Store) -> None:
    rows = Rows()
    with rows.writer(store, max_rows=3) as writer:
        held = Held(writer)
        assert writer.log(["a", "b"])
        assert not writer.log(["c", "d"])
        assert writer.log(["e"])
        assert writer.submit(adding("feedback still comes in"), durable=True)
        held.go.set()
        until = time.monotonic() + WAIT_S
        while not writer.log(["f"]):
            assert time.monotonic() < until
    assert names(store) == ["a", "b", "e", "f", "feedback still comes in"]
    assert not writer.log(["g"])


def test_long_texts_fill_the_log_before_their_number_does(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_CHARS", 10)
    rows = Rows()
    with rows.writer(store) as writer:
        held = Held(writer)
        assert writer.log(["alone, it may be as long as it is"], n_chars=33)
        assert not writer.log(["b"], n_chars=1)
        held.go.set()


def test_rows_gather_but_no_operation_waits_for_them(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LINGER_S", 60.0)
    rows = Rows()
    started_at = time.monotonic()
    with rows.writer(store) as writer:
        writer.log(["a"])
        time.sleep(0.05)
        writer.log(["b"])
        assert writer.submit(names_in, durable=False).result(WAIT_S) == ["a", "b"]
        writer.log(["c"])
        time.sleep(0.05)
        assert names(store) == ["a", "b"]
    assert names(store) == ["a", "b", "c"]
    assert rows.calls == [2, 1]
    assert time.monotonic() - started_at < WAIT_S


def test_alike_neighbours_are_written_together_and_fail_alone(store: Store) -> None:
    calls: list[list[str]] = []

    def add_all(conn: Connection, given: list[str]) -> list[Any]:
        calls.append(given)
        for name in given:
            if name != "refused":
                adding(name)(conn)
        return [BadInput("no") if name == "refused" else name for name in given]

    with Writer(store) as writer:
        held = Held(writer)
        first = [writer.submit_together(add_all, name, durable=True) for name in ("a", "refused", "b")]
        alone = writer.submit(adding("c"), durable=True)
        second = [writer.submit_together(add_all, name, durable=True) for name in ("d", "a", "e")]  # a is taken
        held.go.set()
        assert [first[0].result(WAIT_S), first[2].result(WAIT_S)] == ["a", "b"]
        with pytest.raises(BadInput):
            first[1].result(WAIT_S)
        alone.result(WAIT_S)
        assert [second[0].result(WAIT_S), second[2].result(WAIT_S)] == ["d", "e"]
        with pytest.raises(sa.exc.IntegrityError):
            second[1].result(WAIT_S)
    assert calls == [["a", "refused", "b"], ["d", "a", "e"], ["d"], ["a"], ["e"]]
    assert sorted(names(store)) == ["a", "b", "c", "d", "e"]


def test_what_is_durable_is_flushed_to_the_disk_by_its_commit(store: Store) -> None:
    if store.engine.dialect.name != "sqlite":
        pytest.skip("PostgreSQL flushes every commit")

    def mode(conn: Connection) -> int:
        return int(conn.exec_driver_sql("PRAGMA synchronous").scalar_one())

    def modes(conn: Connection, given: list[Any]) -> list[int]:
        return [mode(conn) for _ in given]

    with Writer(store) as writer:
        assert writer.submit(mode, durable=False).result(WAIT_S) == 1  # NORMAL
        assert writer.submit_together(modes, "feedback", durable=True).result(WAIT_S) == 2  # FULL
        assert writer.submit(mode, durable=False).result(WAIT_S) == 1

"""The queue of a server's writes. Catches: feedback that overtakes, one bad write that fails its neighbours, an
acknowledgement before the commit, a thread that dies of a cancelled write, a queue that hangs at the end."""

import threading
from concurrent.futures import Future
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from headrace.errors import BadInput, Unavailable, Unusable
from headrace.ids import new_id
from headrace.records import Channel
from headrace.store import Store, channels
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
    with Writer(store, max_queued=2) as writer:
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

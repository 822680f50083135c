"""One queue for everything a server writes, so that feedback cannot overtake its prediction.

States of an operation: queued -> in a transaction with its neighbours (group commit) -> done, or failed alone. The
queue is bounded: a full queue refuses at once instead of growing.
"""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.engine import Connection

from headrace.errors import HeadraceError, Unavailable
from headrace.store.engine import Store

Operation = Callable[[Connection], Any]
_MAX_GROUP = 500


@dataclass
class _Item:
    operation: Operation
    durable: bool
    done: "Future[Any]" = field(default_factory=Future)


class Writer:
    """A thread that commits queued operations in groups. Use as a context manager; leaving drains the queue."""

    def __init__(self, store: Store, *, max_queued: int = 10_000) -> None:
        self._store = store
        self._queue: queue.Queue[_Item | None] = queue.Queue(maxsize=max_queued)
        self._thread = threading.Thread(target=self._run, name="headrace-writer", daemon=True)

    def __enter__(self) -> "Writer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._queue.put(None)
        self._thread.join()

    def submit(self, operation: Operation, *, durable: bool) -> "Future[Any]":
        """Queue an operation; the future holds its result once it is committed.

        Raises:
            Unavailable: the queue is full.
        """
        item = _Item(operation, durable)
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            raise Unavailable(
                "the write queue is full", value=self._queue.maxsize, next_step="Retry after a second"
            ) from None
        return item.done

    def _run(self) -> None:
        while (group := self._next_group()) is not None:
            self._commit(group)

    def _next_group(self) -> list[_Item] | None:
        first = self._queue.get()
        if first is None:
            return None
        group = [first]
        while len(group) < _MAX_GROUP:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
            if item is None:
                self._queue.put(None)
                break
            group.append(item)
        return group

    def _commit(self, group: list[_Item]) -> None:
        results: list[tuple[_Item, Any, Exception | None]] = []
        try:
            with self._store.write(durable=any(item.durable for item in group)) as conn:
                for item in group:
                    results.append((item, *self._attempt(conn, item)))
        except Exception as error:  # the commit failed: no operation of the group is acknowledged
            for item in group:
                item.done.set_exception(error)
            return
        for item, result, failure in results:
            if failure is not None:
                item.done.set_exception(failure)
            else:
                item.done.set_result(result)

    @staticmethod
    def _attempt(conn: Connection, item: _Item) -> tuple[Any, Exception | None]:
        try:
            with conn.begin_nested():
                return item.operation(conn), None
        except HeadraceError as error:  # its own fault, not its neighbours'
            return None, error

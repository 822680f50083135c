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
from sqlalchemy.exc import OperationalError

from headrace.errors import Unavailable, Unusable
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
        self._closing = False
        self._submitting = threading.Lock()  # so that nothing comes after the None that ends the queue
        self._thread = threading.Thread(target=self._run, name="headrace-writer", daemon=True)

    def __enter__(self) -> "Writer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._submitting:
            self._closing = True
        self._queue.put(None)
        self._thread.join()

    def submit(self, operation: Operation, *, durable: bool) -> "Future[Any]":
        """Queue an operation; the future holds its result once it is committed. Until then it can be cancelled.

        Raises:
            Unavailable: the queue is full, or the writer is closing.
        """
        item = _Item(operation, durable)
        with self._submitting:
            if self._closing:
                raise Unavailable("the server is shutting down", next_step="Retry after a second")
            try:
                self._queue.put_nowait(item)
            except queue.Full:
                raise Unavailable(
                    "the write queue is full", value=self._queue.maxsize, next_step="Retry after a second"
                ) from None
        return item.done

    def _run(self) -> None:
        more = True
        while more:
            group, more = self._next_group()
            if group:
                self._commit(group)

    def _next_group(self) -> tuple[list[_Item], bool]:
        """What waits, up to a limit, and whether more may come. Items cancelled while they waited are left out."""
        group: list[_Item] = []
        next_item = self._queue.get()
        while next_item is not None:
            if next_item.done.set_running_or_notify_cancel():
                group.append(next_item)
            if len(group) == _MAX_GROUP:
                return group, True
            try:
                next_item = self._queue.get_nowait()
            except queue.Empty:
                return group, True
        return group, False

    def _commit(self, group: list[_Item]) -> None:
        results: list[tuple[_Item, Any, Exception | None]] = []
        try:
            with self._store.write(durable=any(item.durable for item in group)) as conn:
                for item in group:
                    results.append((item, *self._attempt(conn, item)))
        except Exception as error:  # the commit failed: no operation of the group is acknowledged
            for item in group:
                item.done.set_exception(_as_ours(error))
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
        except OperationalError:  # a full disk and its like: the transaction is gone, for all
            raise
        except Exception as error:  # its own fault, not its neighbours'
            return None, error


def _as_ours(error: Exception) -> Exception:
    if not isinstance(error, OperationalError):
        return error
    return Unusable(f"the store cannot be written: {error.orig}", next_step="Check the disk: its room and its rights")

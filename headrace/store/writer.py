"""One queue for everything a server writes, so that feedback cannot overtake its prediction.

Two things go through it: operations, whose outcome somebody waits for, and rows of the prediction log, which nobody
waits for. States of both: queued -> in a transaction with their neighbours (group commit) -> done, or failed alone. The
queue is bounded: a full one refuses at once instead of growing.

Rows alone are let gather for a moment, since a commit costs more than a row; an operation is never kept waiting.
"""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from sqlalchemy.engine import Connection
from sqlalchemy.exc import OperationalError

from headrace.errors import Unavailable, Unusable
from headrace.store.engine import Store

Operation = Callable[[Connection], Any]
Together = Callable[[Connection, list[Any]], Sequence[Any]]
"""Does several things of a kind in few statements; of each, in order, what came of it, or its error."""
_MAX_GROUP = 500
_MAX_GROUP_ROWS = 2000  # a commit of as many takes some 30 ms, for which an operation behind it waits
_LINGER_S = 0.05  # how long rows gather; what a kill can lose
_MAX_CHARS = 64 << 20  # of the texts of queued rows


@dataclass(slots=True)
class _Item:
    operation: Operation | None
    durable: bool
    done: "Future[Any]" = field(default_factory=Future)
    together: Together | None = None
    argument: Any = None


@dataclass(slots=True)
class _Rows:
    """Rows of one request."""

    rows: Sequence[Any]
    n_chars: int


def _no_rows(_conn: Connection, _rows: Sequence[Any]) -> None:
    raise TypeError("this writer was made without a way to add rows")


class Writer:
    """A thread that commits what is queued in groups. Use as a context manager; leaving drains the queue.

    Args:
        add_rows: writes rows of the log, of any number of requests.
        max_queued: operations that may wait or be under way.
        max_rows: rows that may.
        on_lost: is told of rows that could not be written, on the writer's thread.
    """

    def __init__(
        self,
        store: Store,
        *,
        add_rows: Callable[[Connection, Sequence[Any]], None] = _no_rows,
        max_queued: int = 10_000,
        max_rows: int = 50_000,
        on_lost: Callable[[int, Exception], None] = lambda _n_rows, _error: None,
    ) -> None:
        self._store, self._add_rows, self._on_lost = store, add_rows, on_lost
        self._max_queued, self._max_rows = max_queued, max_rows
        self._queue: queue.SimpleQueue[_Item | _Rows | None] = queue.SimpleQueue()
        self._n_operations = self._n_rows = self._n_chars = 0  # queued, or in a transaction
        self._closing = self._is_failing = False
        self._submitting = threading.Lock()  # of the counts; and so that nothing comes after the None that ends it
        self._hurry = threading.Event()
        """Set when rows should gather no longer."""
        self._thread = threading.Thread(target=self._run, name="headrace-writer", daemon=True)

    def __enter__(self) -> "Writer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._submitting:
            self._closing = True
            self._queue.put(None)
        self._hurry.set()
        self._thread.join()

    @property
    def is_failing(self) -> bool:
        """Whether the last transaction could not be committed: a full disk, or one that is gone."""
        return self._is_failing

    @property
    def n_rows(self) -> int:
        """Rows of the log that are not written yet."""
        return self._n_rows

    def submit(self, operation: Operation, *, durable: bool) -> "Future[Any]":
        """Queue an operation; the future holds its result once it is committed. Until then it can be cancelled.

        Raises:
            Unavailable: the queue is full, or the writer is closing.
        """
        return self._queued(_Item(operation, durable))

    def submit_together(self, together: Together, argument: Any, *, durable: bool) -> "Future[Any]":
        """Queue `argument` for a call of `together` with all of its kind that wait beside it; else as `submit`."""
        return self._queued(_Item(None, durable, together=together, argument=argument))

    def _queued(self, item: _Item) -> "Future[Any]":
        with self._submitting:
            if self._closing:
                raise Unavailable("the server is shutting down", next_step="Retry after a second")
            if self._n_operations >= self._max_queued:
                raise Unavailable("the write queue is full", value=self._max_queued, next_step="Retry after a second")
            self._n_operations += 1
            self._queue.put(item)
        self._hurry.set()
        return item.done

    def log(self, rows: Sequence[Any], *, n_chars: int = 0) -> bool:
        """Queue rows of one request, all or none; whether there was room. Never waits.

        Args:
            n_chars: about how much memory they take.
        """
        with self._submitting:
            n_rows, all_chars = self._n_rows + len(rows), self._n_chars + n_chars
            if self._closing or n_rows > self._max_rows or (all_chars > _MAX_CHARS and self._n_rows):
                return False
            self._n_rows, self._n_chars = n_rows, all_chars
            self._queue.put(_Rows(rows, n_chars))
        if n_rows > _MAX_GROUP_ROWS:
            self._hurry.set()
        return True

    def _run(self) -> None:
        item = self._queue.get()
        while item is not None:
            self._hurry.clear()
            if isinstance(item, _Rows) and not (self._n_operations or self._closing or self._n_rows > _MAX_GROUP_ROWS):
                self._hurry.wait(_LINGER_S)
            group, more = self._next_group(item)
            if group:
                self._commit(group)
            if not more:
                return
            item = self._queue.get()

    def _next_group(self, first: _Item | _Rows) -> tuple[list[_Item | _Rows], bool]:
        """What waits, up to a limit, and whether more may come. Items cancelled while they waited are left out."""
        group: list[_Item | _Rows] = []
        n_rows = 0
        item: _Item | _Rows | None = first
        while item is not None:
            if isinstance(item, _Rows):
                n_rows += len(item.rows)
                group.append(item)
            elif item.done.set_running_or_notify_cancel():
                group.append(item)
            else:
                self._release([item])
            if len(group) == _MAX_GROUP or n_rows >= _MAX_GROUP_ROWS:
                return group, True
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return group, True
        return group, False

    def _release(self, items: Sequence[_Item | _Rows]) -> None:
        """Give the room of items back."""
        rows = [item for item in items if isinstance(item, _Rows)]
        with self._submitting:
            self._n_operations -= len(items) - len(rows)
            self._n_rows -= sum(len(item.rows) for item in rows)
            self._n_chars -= sum(item.n_chars for item in rows)

    def _commit(self, group: list[_Item | _Rows]) -> None:
        items = [item for item in group if isinstance(item, _Item)]
        results: list[tuple[_Item, Any, Exception | None]] = []
        lost: list[tuple[int, Exception]] = []
        try:
            with self._store.write(durable=any(item.durable for item in items)) as conn:
                for together, run in groupby(group, _together_of):
                    if together is _Rows:
                        lost += self._attempt_rows(conn, [item for item in run if isinstance(item, _Rows)])
                    elif together is None:
                        results += [(item, *self._attempt(conn, item)) for item in run if isinstance(item, _Item)]
                    else:
                        alike = [item for item in run if isinstance(item, _Item)]
                        results += self._attempt_together(conn, together, alike)
            self._is_failing = False
        except Exception as error:  # the commit failed: nothing of the group is acknowledged
            self._is_failing = True
            n_rows = sum(len(item.rows) for item in group if isinstance(item, _Rows))
            lost = [(n_rows, error)] if n_rows else []
            results = [(item, None, _as_ours(error)) for item in items]
        self._release(group)
        for n_lost, why in lost:
            self._on_lost(n_lost, why)
        for item, result, failure in results:
            if failure is not None:
                item.done.set_exception(failure)
            else:
                item.done.set_result(result)

    def _attempt_rows(self, conn: Connection, items: Sequence[_Rows]) -> list[tuple[int, Exception]]:
        """Write the rows of several requests at once, or each alone if that fails; how many are lost, and why."""
        try:
            with conn.begin_nested():
                self._add_rows(conn, [row for item in items for row in item.rows])
        except OperationalError:
            raise
        except Exception as error:  # some request's own fault, not its neighbours'
            if len(items) == 1:
                return [(len(items[0].rows), error)]
            return [one for item in items for one in self._attempt_rows(conn, [item])]
        return []

    def _attempt_together(
        self, conn: Connection, together: Together, items: Sequence[_Item]
    ) -> list[tuple[_Item, Any, Exception | None]]:
        """Do several at once, or each alone if that fails."""
        try:
            with conn.begin_nested():
                found = together(conn, [item.argument for item in items])
        except OperationalError:
            raise
        except Exception as error:  # one's own fault, not its neighbours'
            if len(items) == 1:
                return [(items[0], None, error)]
            return [one for item in items for one in self._attempt_together(conn, together, [item])]
        return [
            (item, None, one) if isinstance(one, Exception) else (item, one, None)
            for item, one in zip(items, found, strict=True)
        ]

    @staticmethod
    def _attempt(conn: Connection, item: _Item) -> tuple[Any, Exception | None]:
        assert item.operation is not None
        try:
            with conn.begin_nested():
                return item.operation(conn), None
        except OperationalError:  # a full disk and its like: the transaction is gone, for all
            raise
        except Exception as error:  # its own fault, not its neighbours'
            return None, error


def _together_of(item: _Item | _Rows) -> Any:
    """What neighbours must share to be written together; None: each is alone."""
    return _Rows if isinstance(item, _Rows) else item.together


def _as_ours(error: Exception) -> Exception:
    if not isinstance(error, OperationalError):
        return error
    return Unusable(f"the store cannot be written: {error.orig}", next_step="Check the disk: its room and its rights")

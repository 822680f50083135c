"""Open the database, and let one writer in at a time.

SQLite before 3.51.3 can corrupt a write-ahead log when two connections write and checkpoint at the same moment
(https://sqlite.org/wal.html#walresetbug), and Python 3.11 bundles an older one. So every write, every checkpoint and
every close happens under one lock: a thread lock inside the process, an OS file lock across processes.
"""

import atexit
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from filelock import FileLock, Timeout
from sqlalchemy.engine import Connection, Engine

from headrace.errors import BadConfig, Damaged, MissingExtra, Unavailable, Unusable, WrongState
from headrace.store import at_rest, wal

_CHECKPOINT_PAGES = 1000  # SQLite's own default for wal_autocheckpoint
_PAGE_BYTES = 4096
_FOLLOWED_PAGES = 16_000  # how long the log may get while a backup follows: 64 MB, in case that one is stuck
_POOL_SIZE = 32
_CACHE_KIB = 512
_UNUSABLE = ("SQLITE_FULL", "SQLITE_READONLY", "SQLITE_IOERR", "53100", "25006")
_AWAY = ("08", "57P", "53300")  # no connection; shut down or starting; too many connections
_LOCKED = "55P03"
"""What databases call it: SQLite by name, PostgreSQL by SQLSTATE (appendix A of its manual)."""
_TURN = 0x6865616472616365  # of PostgreSQL's advisory locks: "headrace"
_LIMITS = {
    "connect_timeout": 4,
    "keepalives_idle": 4,
    "keepalives_interval": 2,
    "keepalives_count": 2,
    "tcp_user_timeout": 8000,
}
"""With which a PostgreSQL that is gone without a word is noticed within ten seconds, and not after two hours; store.url
may have others (postgresql.org/docs/current/libpq-connect.html, 34.1.2; seconds, the last one milliseconds)."""
_ARCHIVE = "Use WAL archiving of PostgreSQL, or a replica"
_DUMP = "Use the database's own means, such as: pg_dump --format=custom --file=headrace.dump URL"


class Store:
    """Connections to one database. `read()` and `write()` are transactions; noun modules hold the SQL."""

    def __init__(self, url: str, *, lock_path: Path, busy_timeout_s: float = 60, key_file: str = "") -> None:
        self.url, self.key_file = url, key_file
        self._engine = _make_engine(url, key_file)
        self._is_sqlite = self._engine.dialect.name == "sqlite"
        self._busy_timeout_s = busy_timeout_s
        self._thread_lock = threading.RLock()
        self._file_lock = FileLock(lock_path, thread_local=False)
        self._follow_lock = lock_path.with_name(wal.LOCK)
        self._log_in_doubt = False
        """Whether the disk said that it did not keep what was written: it may have forgotten any of it since."""
        self._closed = False
        atexit.register(self.close)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one moment of the database.

        Raises:
            Damaged: the database's bytes are not what it wrote.
        """
        with _said_plainly(self.url), self._engine.connect() as conn:
            if self._engine.dialect.name == "postgresql":
                conn = conn.execution_options(isolation_level="REPEATABLE READ")
            with conn.begin():
                yield conn

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[Connection]:
        """A transaction that commits on leaving, or leaves no trace.

        Args:
            durable: False may lose the last commits on power loss (never on a kill) and never corrupts; for the
                prediction log only.

        Raises:
            Unavailable: another process kept the write lock for longer than `store.busy_timeout_s`.
            Unusable: the disk is full, or the database may not be written.
            Damaged: see `read`.
        """
        with self._writer(), _said_plainly(self.url), self._doubting(), self._engine.connect() as conn:
            if self._is_sqlite:
                raw = conn.connection.driver_connection
                assert raw is not None
                if self._log_in_doubt:
                    self._rewrite_log(raw)
                raw.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
                conn = conn.execution_options(headrace_begin="IMMEDIATE")
            with conn.begin():
                if not self._is_sqlite:
                    self._take_turn(conn)
                yield conn
            if self._is_sqlite:
                self._checkpoint_if_long(conn)

    def close(self) -> None:
        """Close all connections; SQLite checkpoints on the last close, so it happens under the writer lock."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        with self._writer():
            self._engine.dispose()

    def scrub(self) -> None:
        """Rewrite the database without its free pages and empty its log, so that no file of it holds a deleted byte.

        Takes the room of the database once more, for as long as it lasts. Readers go on, writers wait.

        Raises:
            Unavailable: a reader has kept the log in use for as long as `store.busy_timeout_s`.
            Unusable: the disk is full.
        """
        with self._writer(), _said_plainly(self.url):
            if not self._is_sqlite:
                with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
                    conn.exec_driver_sql("VACUUM (FULL)")
                return
            with self._engine.connect() as conn:
                raw = conn.connection.driver_connection
                assert raw is not None
                raw.execute("PRAGMA synchronous=FULL")
                raw.execute("VACUUM")
                self._empty_log(raw)

    def copy_to(self, path: Path) -> None:
        """Write the database as it is at one moment to a new file, while others read and write.

        Raises:
            WrongState: the database is no SQLite file.
            Unusable: the file cannot be written.
        """
        if not self._is_sqlite:
            raise WrongState(
                "this database is not a file to copy", value=self._engine.url.render_as_string(), next_step=_DUMP
            )
        with self.read() as conn:
            raw = conn.connection.driver_connection
            assert raw is not None
            try:
                with closing(at_rest.connect(path, self.key_file, isolation_level=None)) as copy:
                    raw.backup(copy)
                    copy.execute("PRAGMA journal_mode=DELETE")  # one file, whole by itself
            except at_rest.errors() as error:
                raise Unusable(
                    f"the copy cannot be written: {error}", value=str(path), next_step="Check its disk"
                ) from None

    @contextmanager
    def followed(self) -> Iterator[wal.Log]:
        """The log, for as long as this process alone takes it into the database, by `checkpoint`.

        Raises:
            WrongState: the database has no such log, or another process follows it.
        """
        if not self._is_sqlite:
            raise WrongState(
                "this database has means of its own", value=self._engine.url.render_as_string(), next_step=_ARCHIVE
            )
        with wal.following(self._follow_lock):
            with self._writer(), self.read():  # writers that began before it have ended, and the log's index is there
                log = wal.Log(Path(str(self._engine.url.database)))
            yield log

    def checkpoint(self, first: Callable[[], None]) -> None:
        """Call `first` while nobody can write, then take the log into the database.

        Raises:
            Unavailable, Unusable, Damaged: see `write`.
        """
        with self._writer(), _said_plainly(self.url), self._engine.connect() as conn:
            raw = conn.connection.driver_connection
            assert raw is not None
            first()
            raw.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    @property
    def engine(self) -> Engine:
        """For migrations and backups; everything else goes through `read` and `write`."""
        return self._engine

    @contextmanager
    def _writer(self) -> Iterator[None]:
        with self._thread_lock:
            if not self._is_sqlite:
                yield
                return
            try:
                self._file_lock.acquire(timeout=self._busy_timeout_s, poll_interval=0.002)
            except Timeout:
                raise Unavailable(
                    f"another process has been writing for {self._busy_timeout_s} s",
                    value=self._file_lock.lock_file,
                    next_step="Try again, or see which process holds the file",
                ) from None
            try:
                yield
            finally:
                self._file_lock.release()

    @contextmanager
    def _doubting(self) -> Iterator[None]:
        """Notice that the disk lost something: after a failed sync the kernel takes it for written (fsyncgate)."""
        try:
            yield
        except at_rest.errors(sa.exc.DatabaseError) as error:
            self._log_in_doubt |= _name_of(error).startswith("SQLITE_IOERR")
            raise

    def _rewrite_log(self, raw: Any) -> None:
        """Write all that the log holds to the database, and begin the log anew: nothing rests on what may be lost."""
        raw.execute("PRAGMA synchronous=FULL")
        self._empty_log(raw)
        self._log_in_doubt = False

    def _empty_log(self, raw: Any) -> None:
        until = time.monotonic() + self._busy_timeout_s
        while raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            if time.monotonic() > until:
                raise Unavailable(
                    f"a reader has kept the database's log in use for {self._busy_timeout_s} s",
                    value=shown(self.url),
                    next_step="Try again, or stop what reads it",
                )

    def _take_turn(self, conn: Connection) -> None:
        """Wait until no other transaction writes, as in SQLite: what is read before it is written still holds then."""
        conn.exec_driver_sql(f"SET LOCAL lock_timeout = '{int(1000 * self._busy_timeout_s)}ms'")
        conn.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_TURN})")

    def _checkpoint_if_long(self, conn: Connection) -> None:
        raw: Any = conn.connection.driver_connection
        log = Path(f"{self._engine.url.database}-wal")
        n_pages = log.stat().st_size // _PAGE_BYTES if log.exists() else 0
        if n_pages > _FOLLOWED_PAGES or (n_pages > _CHECKPOINT_PAGES and not wal.is_followed(self._follow_lock)):
            try:
                raw.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            except at_rest.errors() as error:  # what was written is in the log; a later write tries again
                self._log_in_doubt |= _name_of(error).startswith("SQLITE_IOERR")


@contextmanager
def _said_plainly(url: str) -> Iterator[None]:
    """What a database says of its file, its disk or the way to it, as an error of ours; all else passes as it is."""
    try:
        yield
    except at_rest.errors(sa.exc.DatabaseError) as error:
        reason, name = getattr(error, "orig", error), _name_of(error)
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            raise Damaged(
                f"the database is damaged: {reason}", value=url, next_step="Restore it from a backup"
            ) from None
        if name.startswith(_UNUSABLE):
            raise Unusable(
                f"the database cannot be used: {reason}", value=shown(url), next_step="Check its rights and the disk"
            ) from None
        if name.startswith(_AWAY) or (name == "" and hasattr(reason, "sqlstate") and _is_operational(error)):
            raise Unavailable(
                f"the database cannot be reached: {str(reason).strip()}",
                value=shown(url),
                next_step="Try again, or see whether it runs",
            ) from None
        if name == _LOCKED:
            raise Unavailable(
                "another process has been writing for too long",
                value=shown(url),
                next_step="Try again, or see what writes: SELECT * FROM pg_stat_activity",
            ) from None
        raise


def shown(url: str) -> str:
    """A URL without its password."""
    return sa.engine.make_url(url).render_as_string()


def _is_operational(error: Exception) -> bool:
    return isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError)


def _name_of(error: Exception) -> str:
    """What SQLite calls an error, or PostgreSQL's five characters for it; empty where a database says neither."""
    reason = getattr(error, "orig", error)
    return str(getattr(reason, "sqlite_errorname", "") or getattr(reason, "sqlstate", "") or "")


def _make_engine(url: str, key_file: str) -> Engine:
    try:
        parsed = sa.engine.make_url(url)
    except sa.exc.ArgumentError:
        raise BadConfig(
            "store.url is not a database URL", value=url, next_step="Use sqlite:///PATH or postgresql+psycopg://..."
        ) from None
    try:
        if parsed.get_backend_name() != "sqlite":
            limits = _LIMITS if parsed.drivername == "postgresql+psycopg" else {}
            limits = {name: value for name, value in limits.items() if name not in parsed.query}
            return sa.create_engine(parsed, pool_pre_ping=True, connect_args=limits)
        # No overflow: a connection closed between two requests would checkpoint outside the lock.
        # The last one used comes first: each keeps pages of its own in memory, up to 2 MiB.
        pool = {"pool_size": _POOL_SIZE, "max_overflow": 0, "poolclass": sa.pool.QueuePool, "pool_use_lifo": True}
        engine = sa.create_engine(parsed, module=at_rest.dbapi(key_file), **pool)
    except ModuleNotFoundError as error:
        if parsed.get_backend_name() == "postgresql":
            raise MissingExtra(
                "postgres", library=error.name or "", purpose=f"store.url {parsed.drivername!r}"
            ) from None
        raise _unknown_database(parsed.drivername) from None
    except sa.exc.NoSuchModuleError:
        raise _unknown_database(parsed.drivername) from None
    sa.event.listen(engine, "connect", lambda raw, _record: at_rest.unlock(raw, key_file))
    sa.event.listen(engine, "connect", _on_connect)
    sa.event.listen(engine, "begin", _on_begin)
    return engine


def _unknown_database(name: str) -> BadConfig:
    return BadConfig("store.url names an unknown database", value=name, next_step="Use sqlite or postgresql+psycopg")


def _on_connect(raw: Any, _record: Any) -> None:
    raw.isolation_level = None  # SQLAlchemy says BEGIN, not the driver
    # Without a limit the log's file stays as long as it ever was, and says no more how much is in it. What a connection
    # keeps of the file is the system's too; with SQLite's own 2 MiB for each of 32 a server's memory grows for hours.
    for pragma in (
        "journal_mode=WAL",
        "wal_autocheckpoint=0",
        "journal_size_limit=0",
        "foreign_keys=ON",
        "busy_timeout=5000",
        f"cache_size=-{_CACHE_KIB}",
    ):
        raw.execute(f"PRAGMA {pragma}")


def _on_begin(conn: Connection) -> None:
    kind = conn.get_execution_options().get("headrace_begin", "DEFERRED")
    conn.exec_driver_sql(f"BEGIN {kind}")

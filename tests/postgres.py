"""A PostgreSQL of the tests' own: a cluster in a temporary folder, reached by a socket in it, while they run."""

import atexit
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import pytest

_START_S = 30
_FAST = ("-c", "fsync=off", "-c", "full_page_writes=off", "-c", "synchronous_commit=off")
_numbers = itertools.count()


class Cluster:
    """One server process with its files. `start` after `kill` recovers them.

    Args:
        place: what runs a command elsewhere, such as in another network namespace, where it listens at `address`.
    """

    def __init__(
        self, programs: Path, *, is_durable: bool, place: Sequence[str] = (), address: str | None = None
    ) -> None:
        self._place, self.address = place, address
        self.programs, self._options = programs, () if is_durable else _FAST
        self._user = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name  # root may not run it
        self.folder = Path(tempfile.mkdtemp(prefix="headrace-postgres-"))
        shutil.chown(self.folder, self._user)
        initdb = [programs / "initdb", "-D", self.folder / "data", "-U", "headrace", "-A", "trust", "--no-sync"]
        subprocess.run([*initdb, "-E", "UTF8", "--locale=C"], user=self._user, check=True, capture_output=True, cwd="/")
        if address is not None:
            with (self.folder / "data" / "pg_hba.conf").open("a") as rules:
                rules.write("host all all samenet trust\n")
        self.process: subprocess.Popen[bytes] | None = None
        atexit.register(self.remove)
        self.start()

    def start(self) -> None:
        command: list[str | Path] = [self.programs / "postgres", "-D", self.folder / "data", "-k", self.folder]
        command += ["-c", f"listen_addresses={self.address or ''}", "-c", "max_connections=200", *self._options]
        user: str | None = self._user
        if self._place:  # which it takes root's rights to reach
            command, user = [*self._place, "setpriv", "--reuid", self._user, "--clear-groups", *command], None
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, user=user, stdout=log, stderr=log, cwd="/")
        until = time.monotonic() + _START_S
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError((self.folder / "log").read_text()[-2000:])
            time.sleep(0.05)

    def kill(self) -> None:
        """At once, with all its processes, as a machine that dies."""
        import psutil

        assert self.process is not None
        parent = psutil.Process(self.process.pid)
        for process in [parent, *parent.children()]:
            process.send_signal(signal.SIGKILL)
        self.process.wait()

    def remove(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(_START_S)
        shutil.rmtree(self.folder, ignore_errors=True)

    def fresh_url(self) -> str:
        """URL of a new database."""
        import psycopg

        name = f"t{next(_numbers)}"
        with psycopg.connect(self._of("postgres"), autocommit=True) as conn:
            conn.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        return f"postgresql+psycopg://headrace@/{name}?host={self.address or self.folder}"

    def _of(self, database: str) -> str:
        return f"host={self.folder} user=headrace dbname={database}"

    def _answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self._of("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


def programs() -> Path | None:
    """Where PostgreSQL's programs are, if they are anywhere."""
    found = shutil.which("initdb") or next(
        iter(map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")))), None
    )
    return None if found is None else Path(found).resolve().parent


def new_cluster(*, is_durable: bool) -> Cluster:
    """Started; where PostgreSQL or its driver is not installed, the test is skipped."""
    found = programs()
    if found is None:
        pytest.skip("needs PostgreSQL's programs (initdb, postgres)")
    pytest.importorskip("psycopg", reason="needs psycopg: pip install 'headrace[postgres]'")
    return Cluster(found, is_durable=is_durable)


@lru_cache(maxsize=1)
def shared() -> Cluster:
    """One for all tests of a run that only need a database."""
    return new_cluster(is_durable=False)

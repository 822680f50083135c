"""Open the store and bring its tables to this code's version; every way this can fail is said plainly."""

from pathlib import Path

import sqlalchemy as sa

from headrace.errors import Damaged, Unavailable, Unusable, WrongState
from headrace.store.engine import Store, shown
from headrace.store.migrations import upgrade


def open_store(url: str, *, lock_path: Path, busy_timeout_s: float = 60) -> Store:
    """Open the store at `url` and bring its tables to this code's version.

    Raises:
        Unusable: the database cannot be opened or written.
        Damaged: the file is not a database.
        WrongState: the database was written by newer code.
    """
    try:
        lock_path.parent.mkdir(parents=True, exist_ok=True)
        store = Store(url, lock_path=lock_path, busy_timeout_s=busy_timeout_s)
        upgrade(store)
    except WrongState:
        raise
    except Unavailable as error:
        if url.startswith("sqlite"):
            raise
        raise Unusable(
            f"the store cannot be opened: {error.problem}",
            value=shown(url),
            next_step="See whether it runs, and store.url",
        ) from None
    except sa.exc.OperationalError as error:
        raise Unusable(
            f"the store cannot be opened: {error.orig}",
            value=shown(url),
            next_step="Check the path, its rights and the disk",
        ) from None
    except sa.exc.DatabaseError as error:
        raise Damaged(
            f"the store is not a database: {error.orig}", value=shown(url), next_step="Restore it from a backup"
        ) from None
    except OSError as error:
        raise Unusable(
            f"the store cannot be opened: {error.strerror}", value=str(lock_path.parent), next_step="Check its rights"
        ) from None
    return store

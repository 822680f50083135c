"""Open the store and bring its tables to this code's version; every way this can fail is said plainly."""

from pathlib import Path

import sqlalchemy as sa

from headrace.errors import Damaged, Unavailable, Unusable, WrongState
from headrace.store import at_rest
from headrace.store.engine import Store, shown
from headrace.store.migrations import upgrade


def open_store(url: str, *, lock_path: Path, busy_timeout_s: float = 60, key_file: str = "") -> Store:
    """Open the store at `url` and bring its tables to this code's version.

    Raises:
        Unusable: the database cannot be opened or written.
        Damaged: the file is not a database.
        WrongState: the database was written by newer code.
    """
    try:
        lock_path.parent.mkdir(parents=True, exist_ok=True)
        store = Store(url, lock_path=lock_path, busy_timeout_s=busy_timeout_s, key_file=key_file)
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
    except (Damaged, sa.exc.DatabaseError) as error:
        raise _unreadable(error, url, key_file) from None
    except OSError as error:
        raise Unusable(
            f"the store cannot be opened: {error.strerror}", value=str(lock_path.parent), next_step="Check its rights"
        ) from None
    return store


def _unreadable(error: Exception, url: str, key_file: str) -> Damaged | Unusable:
    if key_file:
        return at_rest.unreadable(str(sa.engine.make_url(url).database), key_file)
    problem = error.problem if isinstance(error, Damaged) else str(getattr(error, "orig", error))
    return Damaged(
        f"the store is not a database that can be read: {problem}",
        value=shown(url),
        next_step="Set store.key_file if it is encrypted, or restore it from a backup",
    )

"""The stores that the contract is checked on. To add a database: a line in STORES, and nothing else."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import postgres
from headrace.store import Store, open_store

STORES: dict[str, Callable[[Path], str]] = {  # name -> URL of a fresh database, given an empty folder
    "sqlite": lambda folder: f"sqlite:///{folder / 'headrace.db'}",
    "postgresql": lambda _: postgres.shared().fresh_url(),
}


@pytest.fixture(params=sorted(STORES))
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return STORES[request.param](tmp_path)


@pytest.fixture
def store(store_url: str, tmp_path: Path) -> Iterator[Store]:
    opened = open_store(store_url, lock_path=tmp_path / "store.lock")
    yield opened
    opened.close()


@pytest.fixture
def sqlite_path(tmp_path: Path) -> Path:
    return tmp_path / "headrace.db"
